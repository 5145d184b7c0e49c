"""Placement of services by bandwidth: pure functions over an immutable topology.

topology.py     the network; reports.py, netjson.py, routing.py, generator.py, sources.py are where it comes from
paths.py        the bandwidth f[i, j] of the path between any two nodes, by one of several metrics
request.py      what is to be placed: k heads under constraints
eligible.py     which nodes may be a head, and the reason for every refusal
problem.py      f as the request counts it, and what heads count for by themselves
algorithms.py   the registry: heuristics.py (random, k-means, BASP, HANET), optimum.py (greedy, optimal)
merge_tree.py, median.py, integer.py  the solvers, on arrays alone
place.py        place(topology, request, algorithm) -> Placement
several.py      several services on the same nodes
reasons.py      why each node is what it is in a placement
what_if.py      what would change without a node, with a faster link, with more heads
"""

from controller.placement.algorithms import algorithms
from controller.placement.generator import qmp_like
from controller.placement.netjson import from_netjson, to_netjson
from controller.placement.paths import (
    bottleneck,
    least_airtime,
    metrics,
    path,
    path_bandwidth,
    path_latency,
    paths_from,
)
from controller.placement.place import place, place_on
from controller.placement.placement import ClusterHead, Member, Placement
from controller.placement.problem import Paths
from controller.placement.reasons import Explanation, Reason, explain
from controller.placement.reports import from_reports
from controller.placement.request import PlacementError, Request
from controller.placement.several import beside, several
from controller.placement.sources import load_topology
from controller.placement.topology import NodeAttributes, Topology, TopologyError, symmetric
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
