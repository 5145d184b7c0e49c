"""The widest path that two nodes have both ways, as undirected links, for directed networks of any size."""

from __future__ import annotations

import numpy as np
from scipy.sparse import csr_array
from scipy.sparse.csgraph import connected_components

from controller.placement.network.topology import Floats, Indices, Topology


def is_symmetric(topology: Topology) -> bool:
    """Whether every link is two-way with the same rate both ways."""
    sources, destinations = topology.edges.T
    there, back = np.lexsort((destinations, sources)), np.lexsort((sources, destinations))
    return (
        np.array_equal(sources[there], destinations[back])
        and np.array_equal(destinations[there], sources[back])
        and np.array_equal(topology.rates_mbps[there], topology.rates_mbps[back])
    )


def mutual_links(topology: Topology) -> tuple[Indices, Floats]:
    """Undirected links (m, 2) and their rates, whose widest paths are the smaller of both directions' widest paths.

    Two nodes reach each other at a rate exactly if they are in one strongly connected component of the links that are
    as fast. A link gets the greatest rate at which its ends are, found for all links at once by bisection over the
    distinct rates: components found at one rate are contracted for the lower ones (R. E. Tarjan, "A hierarchical
    clustering algorithm using strong components", 1982, one level of its recursion at a time). O(m log m).
    """
    if is_symmetric(topology):
        once = topology.edges[:, 0] < topology.edges[:, 1]
        return topology.edges[once], topology.rates_mbps[once]
    rates, level = np.unique(-topology.rates_mbps, return_inverse=True)
    merged = _merging_levels(topology.edges, level, len(rates))
    meet = merged < len(rates)
    return topology.edges[meet], -rates[merged[meet]]


def _merging_levels(edges: Indices, level: Indices, never: int) -> Indices:
    """For each edge the least level up to which edges put its ends into one component; `never` if none does."""
    least, most = np.zeros(len(edges), dtype=np.int64), np.full(len(edges), never, dtype=np.int64)
    ends = edges.copy()
    while len(open_ := np.flatnonzero(least < most)):
        middle = (least[open_] + most[open_]) // 2
        source, destination = _compact(ends[open_]).T
        taken = level[open_] <= middle
        component = _components(source[taken], destination[taken], int(max(source.max(), destination.max())) + 1)
        joined = component[source] == component[destination]
        most[open_[joined]] = middle[joined]
        least[open_[~joined]] = middle[~joined] + 1
        # Links inside a component are looked at below this level, the others between the components above it.
        apart = len(component)
        ends[open_, 0] = np.where(joined, source, apart + component[source])
        ends[open_, 1] = np.where(joined, destination, apart + component[destination])
    return least


def _compact(ends: Indices) -> Indices:
    """The same ends with their numbers from 0 without holes."""
    used = np.zeros(int(ends.max()) + 1, dtype=bool)
    used[ends] = True
    return (np.cumsum(used) - 1)[ends]


def _components(source: Indices, destination: Indices, count: int) -> Indices:
    graph = csr_array((np.ones(len(source), dtype=np.int8), (source, destination)), shape=(count, count))
    return np.asarray(connected_components(graph, directed=True, connection="strong")[1], dtype=np.int64)
