"""The bandwidth of the path between any two nodes, f[i, j] of the paper, which leaves its estimation open.

A metric is a function from a topology to an n × n matrix in Mbit/s: 0 where no path leads, 0 on the diagonal.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from scipy.sparse import csr_array
from scipy.sparse.csgraph import dijkstra

from controller.placement.topology import Floats, Indices, Topology

Metric = Callable[[Topology], Floats]


def widest(topology: Topology) -> Floats:
    """The bottleneck of the widest directed path: what the best possible routing could give."""
    best = topology.matrix()
    for via in range(len(topology)):
        np.maximum(best, np.minimum(best[:, via, None], best[None, via, :]), out=best)
    np.fill_diagonal(best, 0.0)
    return best


def airtime(topology: Topology) -> Floats:
    """The slowest link of the path that takes the least airtime, which is how a mesh routes."""
    if not len(topology):
        return np.zeros((0, 0))
    airtimes, before = least_airtime(topology)
    links = topology.matrix()
    bottleneck = np.zeros_like(airtimes)
    np.fill_diagonal(bottleneck, np.inf)
    sources = np.arange(len(topology))
    # Nearest first: a node's predecessor on the path is nearer than itself, so its bottleneck is already known.
    for destinations in np.argsort(airtimes, axis=1, kind="stable").T:
        previous = before[sources, destinations]
        known = previous >= 0
        row, here, there = sources[known], previous[known], destinations[known]
        bottleneck[row, there] = np.minimum(bottleneck[row, here], links[here, there])
    np.fill_diagonal(bottleneck, 0.0)
    return bottleneck


def least_airtime(topology: Topology, sources: Indices | None = None) -> tuple[Floats, Indices]:
    """Seconds a megabit takes from i to j on the fastest path, and j's predecessor on it (negative: there is none).

    One row a source, in order; by default every node is one.
    """
    weights = csr_array(
        (1.0 / topology.rates_mbps, (topology.edges[:, 0], topology.edges[:, 1])), shape=(len(topology), len(topology))
    )
    times, before = dijkstra(weights, directed=True, indices=sources, return_predecessors=True)
    return np.asarray(times), np.asarray(before, dtype=np.int64)


METRICS: dict[str, Metric] = {"airtime": airtime, "widest": widest}


def metrics() -> tuple[str, ...]:
    """The names of the path metrics, the default first."""
    return tuple(METRICS)


def path_bandwidth(topology: Topology, metric: str = "airtime") -> Floats:
    """The bandwidth from every node i to every node j in Mbit/s by a metric; raises ValueError for an unknown one."""
    try:
        return METRICS[metric](topology)
    except KeyError:
        raise ValueError(f"unknown metric {metric!r}; accepted: {', '.join(METRICS)}") from None


def path(topology: Topology, source: str, destination: str) -> tuple[str, ...]:
    """The nodes of the least-airtime path, both ends included; () when none leads there. Raises TopologyError."""
    start, at = topology.index(source), topology.index(destination)
    _, before = least_airtime(topology)
    way = [at]
    while at != start:
        at = int(before[start, at])
        if at < 0:
            return ()
        way.append(at)
    return tuple(topology.names[node] for node in reversed(way))
