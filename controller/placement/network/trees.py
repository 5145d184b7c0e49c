"""Shortest-path trees from any source, and what adds up along the paths in them."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from scipy.sparse import csr_array
from scipy.sparse.csgraph import dijkstra

from controller.placement.network.topology import Floats, Indices, Topology


class Join(NamedTuple):
    """How the values of a path's links make one: the function, the value of no link, and that of no path."""

    function: np.ufunc
    start: float
    nowhere: float


BLOCK = 1 << 20
SLOWEST = Join(np.minimum, math.inf, 0.0)
SUM = Join(np.add, 0.0, math.inf)


def airtimes(topology: Topology) -> Floats:
    """The seconds that a megabit takes on each link."""
    return 1.0 / topology.rates_mbps


def hops(topology: Topology) -> Floats:
    """1 for each link, and less than 1 in all for the airtime: it decides between paths of equally many hops."""
    seconds = airtimes(topology)
    return np.asarray(1.0 + seconds / (seconds.sum() + 1.0))


def least_airtime(topology: Topology, sources: Indices | None = None) -> tuple[Floats, Indices]:
    """Seconds a megabit takes from i to j on the fastest path, and j's predecessor on it (negative: there is none).

    One row a source, in order; by default every node is one.
    """
    return shortest(topology, airtimes(topology), sources)


def shortest(topology: Topology, weights: Floats, sources: Indices | None = None) -> tuple[Floats, Indices]:
    """The least sum of the links' weights (m,) from each source to every node, and each node's predecessor: (s, n)."""
    n = len(topology)
    graph = csr_array((weights, topology.edges.T), shape=(n, n))
    if not n or (sources is not None and not len(sources)):
        return np.zeros((0, n)), np.zeros((0, n), dtype=np.int64)
    costs, before = dijkstra(graph, directed=True, indices=sources, return_predecessors=True)
    return np.asarray(costs), np.asarray(before, dtype=np.int64)


def blocks(rows: Indices, columns: int) -> list[Indices]:
    """The rows in blocks whose temporary arrays stay small: about BLOCK elements in each."""
    step = max(1, BLOCK // max(1, columns))
    return [rows[at : at + step] for at in range(0, len(rows), step)]


def along_trees(topology: Topology, sources: Indices, before: Indices, values: Floats, join: Join) -> Floats:
    """The links' values (m,) joined along the path from each source to every node in its tree of predecessors."""
    reached = before >= 0
    joined = np.full(before.shape, join.nowhere)
    if len(values):
        np.copyto(joined, values[_links_used(topology, before)], where=reached)
    joined[np.arange(len(sources)), sources] = join.start
    return fold(np.where(reached, before, np.arange(len(topology))), joined, join)[0]


def _links_used(topology: Topology, before: Indices) -> Indices:
    """The link from each node's predecessor to it, shape (s, n); any link where there is no predecessor."""
    into = np.argsort(topology.edges[:, 1], kind="stable")
    sources = topology.edges[into, 0]
    first = np.searchsorted(topology.edges[into, 1], np.arange(len(topology) + 1))
    by_source = np.zeros(len(topology), dtype=np.int64)
    used = np.empty(before.shape[::-1], dtype=np.int64)
    for node, predecessors in enumerate(np.ascontiguousarray(before.T)):
        mine = slice(first[node], first[node + 1])
        by_source[sources[mine]] = into[mine]
        np.take(by_source, predecessors, out=used[node], mode="clip")
    return used.T


def fold(parents: Indices, values: Floats, join: Join) -> tuple[Floats, Indices]:
    """Each node's values joined up to the end of its way, and that end; a row is a graph of its own, shapes (r, n).

    A node's value is that of the link to its parent; an end is its own parent. A way that goes round in circles gets an
    end that is none. Pointer jumping: every round doubles how far a node has looked.
    """
    rows = np.arange(len(parents))[:, None] * parents.shape[1]
    at = parents + rows
    values = values.copy()
    for _ in range(max(1, parents.shape[1] - 1).bit_length()):
        further = at.ravel()[at]
        if np.array_equal(further, at):
            break
        join.function(values, values.ravel()[at], out=values)
        at = further
    return values, at - rows
