"""Placement of services by bandwidth: pure functions over an immutable topology.

network/       the topology, where it comes from, and the bandwidth f[i, j] of the path between any two nodes
request.py     what is to be placed: k heads under constraints
eligible.py    which nodes may be a head, and the reason for every refusal
problem.py     f as the request counts it, and what heads count for by themselves
algorithms.py  the registry: heuristics.py (random, k-means, BASP, HANET), optimum.py (greedy, optimal)
solvers/       merge tree, p-median and integer programs, on arrays alone
place.py       place(topology, request, algorithm) -> Placement
several.py     several services on the same nodes
reasons.py     why each node is what it is in a placement
what_if.py     what would change without a node, with a faster link, with more heads
study/         comparing, characterising, drawing, and the commands for it
"""

from controller.placement.algorithms import algorithms
from controller.placement.network.generator import qmp_like
from controller.placement.network.netjson import from_netjson, to_netjson
from controller.placement.network.paths import (
    bottleneck,
    least_airtime,
    metrics,
    path,
    path_bandwidth,
    path_latency,
    paths_from,
)
from controller.placement.network.reports import from_reports
from controller.placement.network.sources import load_topology
from controller.placement.network.topology import NodeAttributes, Topology, TopologyError, symmetric
from controller.placement.place import place, place_on
from controller.placement.placement import ClusterHead, Member, Placement
from controller.placement.problem import Paths
from controller.placement.reasons import Explanation, Reason, explain
from controller.placement.request import PlacementError, Request
from controller.placement.several import beside, several
from controller.placement.what_if import WhatIf, what_if

__all__ = [
    "ClusterHead",
    "Explanation",
    "Member",
    "NodeAttributes",
    "Paths",
    "Placement",
    "PlacementError",
    "Reason",
    "Request",
    "Topology",
    "TopologyError",
    "WhatIf",
    "algorithms",
    "beside",
    "bottleneck",
    "explain",
    "from_netjson",
    "from_reports",
    "least_airtime",
    "load_topology",
    "metrics",
    "path",
    "path_bandwidth",
    "path_latency",
    "paths_from",
    "place",
    "place_on",
    "qmp_like",
    "several",
    "symmetric",
    "to_netjson",
    "what_if",
]
