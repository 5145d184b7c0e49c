"""Placement of services by bandwidth: pure functions over an immutable topology.

topology.py   the nodes, where they are, and the directed bandwidth between neighbours
sources.py    a topology from node reports or NetJSON
generator.py  a seeded community-like topology
paths.py      the bandwidth f[i, j] of the path between any two nodes
clusters.py   k-means on coordinates
eligible.py   which nodes may be a head, and the reason for every refusal
algorithms.py random, k-means and BASP, behind one registry
place.py      place(topology, request, algorithm) -> Placement
command.py    `picasso-controller place`
"""

from controller.placement.algorithms import algorithms
from controller.placement.generator import qmp_like
from controller.placement.paths import least_airtime, metrics, path, path_bandwidth
from controller.placement.place import ClusterHead, Member, Placement, place
from controller.placement.request import PlacementError, Request
from controller.placement.sources import from_netjson, from_reports, to_netjson
from controller.placement.topology import NodeAttributes, Topology, TopologyError

__all__ = [
    "ClusterHead",
    "Member",
    "NodeAttributes",
    "Placement",
    "PlacementError",
    "Request",
    "Topology",
    "TopologyError",
    "algorithms",
    "from_netjson",
    "from_reports",
    "least_airtime",
    "metrics",
    "path",
    "path_bandwidth",
    "place",
    "qmp_like",
    "to_netjson",
]
