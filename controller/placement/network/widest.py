"""Widest paths: the greatest rate that the slowest link of a path can have, which no routing can exceed."""

from __future__ import annotations

from collections.abc import Iterable
from heapq import heappop, heappush

import numpy as np

from controller.placement.network.topology import Floats, Indices, Topology


def closure(topology: Topology) -> Floats:
    """The widest path's rate from every node to every other, shape (n, n): 0 where none leads and on the diagonal.

    Links come in by descending rate: the rate of the link that first joins i to j is that of their widest path.
    """
    n = len(topology)
    best = np.zeros((n, n))
    reaches = np.eye(n, dtype=np.bool_)
    reached_by = reaches.copy()  # the transpose, so that both are read by the row
    for link in np.argsort(-topology.rates_mbps, kind="stable").tolist():
        source, destination = topology.edges[link]
        if reaches[source, destination]:
            continue
        froms = np.flatnonzero(reached_by[source] & ~reached_by[destination])
        tos = np.flatnonzero(reaches[destination] & ~reaches[source])
        row, column = np.nonzero(~reaches[np.ix_(froms, tos)])
        row, column = froms[row], tos[column]
        best[row, column] = topology.rates_mbps[link]
        reaches[row, column] = reached_by[column, row] = True
    np.fill_diagonal(best, 0.0)
    return best


def widest_trees(topology: Topology, sources: Iterable[int]) -> Indices:
    """Each node's predecessor on a widest path from each source, shape (s, n), -1 for none; the source has none.

    Dijkstra's algorithm with the slowest link for the sum; of equally wide ways to a node the one of less airtime.
    """
    links: list[list[tuple[int, float]]] = [[] for _ in topology.names]
    for (source, destination), rate in zip(topology.edges.tolist(), topology.rates_mbps.tolist(), strict=True):
        links[source].append((destination, rate))
    return np.array([_widest_tree(links, int(source)) for source in sources], dtype=np.int64).reshape(-1, len(topology))


def _widest_tree(links: list[list[tuple[int, float]]], source: int) -> list[int]:
    before = [-1] * len(links)
    best = [(0.0, 0.0)] * len(links)
    best[source] = (-np.inf, 0.0)
    queue = [(-np.inf, 0.0, source)]
    while queue:
        narrow, seconds, node = heappop(queue)
        if (narrow, seconds) > best[node]:
            continue
        for other, rate in links[node]:
            way = max(narrow, -rate), seconds + 1.0 / rate
            if way < best[other]:
                best[other] = way
                before[other] = node
                heappush(queue, (*way, other))
    return before
