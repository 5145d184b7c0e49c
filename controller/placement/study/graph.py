"""Measures of the graph that the paper's tables print: degree, neighbourhood connectivity, components, diameter, load.

Two nodes are neighbours if a link leads between them either way; distances count hops over neighbours.
"""

from __future__ import annotations

import math

import numpy as np
from scipy.sparse import csr_array
from scipy.sparse.csgraph import connected_components, dijkstra

from controller.placement.network.paths import least_airtime
from controller.placement.network.topology import Floats, Indices, Topology


def adjacency(topology: Topology) -> csr_array:
    """The n × n matrix of neighbours: 1 where a link leads between two nodes in either direction."""
    n = len(topology)
    directed = csr_array((np.ones(len(topology.edges)), topology.edges.T), shape=(n, n))
    both = csr_array(directed + directed.T)
    both.data[:] = 1.0
    return both


def degrees(neighbours: csr_array) -> Indices:
    """How many neighbours each node has."""
    return np.asarray(np.diff(neighbours.indptr), dtype=np.int64)


def neighbourhood_connectivity(neighbours: csr_array) -> Floats:
    """The average degree of each node's neighbours, 0 for a node without any."""
    degree = degrees(neighbours)
    return np.asarray(neighbours @ degree / np.maximum(degree, 1), dtype=np.float64)


def components(neighbours: csr_array) -> Indices:
    """Each node's component, numbered from the largest on."""
    _, label = connected_components(neighbours, directed=False)
    by_size = np.argsort(-np.bincount(label), kind="stable")
    return np.asarray(np.argsort(by_size)[label], dtype=np.int64)


def hops_from(neighbours: csr_array, sources: Indices) -> Floats:
    """The hops from each source to every node, shape (s, n); inf where there is no way."""
    return np.asarray(dijkstra(neighbours, directed=False, indices=sources, unweighted=True))


def diameter(neighbours: csr_array) -> int:
    """The longest of the shortest ways in hops, within components; 0 for a network without a link.

    Exact and far from all pairs: two nodes at most i hops from a centre are at most 2 i apart, so the nodes farthest
    from it are asked first, and no more as soon as none can be farther apart than two that were found (iFUB;
    Crescenzi et al., 2013).
    """
    label = components(neighbours)
    return max((_diameter_around(neighbours, np.flatnonzero(label == at)) for at in np.unique(label)), default=0)


def _diameter_around(neighbours: csr_array, members: Indices) -> int:
    if len(members) < 2:
        return 0
    start = members[degrees(neighbours)[members].argmax()]
    far = members[hops_from(neighbours, np.array([start]))[0, members].argmax()]
    centre, longest = _middle(neighbours, far, members)
    level = hops_from(neighbours, np.array([centre]))[0, members]
    for i in range(int(level.max()), 0, -1):
        if longest >= 2 * i:
            break
        for block in np.array_split(members[level == i], math.ceil((level == i).sum() / 64)):
            longest = max(longest, int(hops_from(neighbours, block)[:, members].max()))
    return longest


def _middle(neighbours: csr_array, end: int, members: Indices) -> tuple[int, int]:
    """The middle of a longest way from `end`, and the way's length in hops."""
    from_end = hops_from(neighbours, np.array([end]))[0]
    other = members[from_end[members].argmax()]
    length = int(from_end[other])
    from_other = hops_from(neighbours, np.array([other]))[0]
    on_the_way = members[from_end[members] + from_other[members] == length]
    return int(on_the_way[from_end[on_the_way] == length // 2][0]), length


def path_loads(topology: Topology, sources: Indices) -> tuple[Indices, int]:
    """How many least-airtime paths from the sources lead over each link, as in `edges`, and how many there are."""
    n = len(topology)
    if not len(topology.edges):
        return np.zeros(0, dtype=np.int64), 0
    airtimes, before = least_airtime(topology, sources)
    through = np.isfinite(airtimes).astype(np.int64)  # the paths to a node end there, or lead on through it
    paths = int(through.sum()) - len(sources)
    rows = np.arange(len(sources))
    # Farthest first: what leads through a node is complete before it is handed to the one before it on the path.
    for nodes in np.argsort(-np.where(np.isfinite(airtimes), airtimes, -1.0), axis=1, kind="stable").T:
        previous = before[rows, nodes]
        known = previous >= 0
        through[rows[known], previous[known]] += through[rows[known], nodes[known]]
    row, node = np.nonzero(before >= 0)
    used = before[row, node] * n + node
    edge = topology.edges[:, 0] * n + topology.edges[:, 1]
    order = np.argsort(edge)
    at = order[np.searchsorted(edge[order], used)]
    return np.bincount(at, weights=through[row, node], minlength=len(edge)).astype(np.int64), paths
