"""The bandwidth of the path between any two nodes, f[i, j] of the paper, which leaves its estimation open.

routed   the slowest link of the path that the nodes' own routes make; where these do not lead to the destination (a
         node on the way reports none, its link is not there, they loop), of the least-airtime path
widest   the slowest link of the widest path: what the best possible routing could give
hops     the slowest link of the path with the fewest hops, of equally many the one with the least airtime
airtime  the slowest link of the path that takes the least airtime, which is how a mesh routes
series   a megabit over the least airtime: links that share one radio channel send one after the other
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

from controller.placement.network.routed import along_routes, next_hops
from controller.placement.network.topology import Floats, Indices, Topology, TopologyError
from controller.placement.network.trees import SLOWEST, SUM, Join, along_trees, blocks, hops, least_airtime, shortest
from controller.placement.network.widest import closure, widest_trees

__all__ = ["METRICS", "bottleneck", "least_airtime", "metrics", "path", "path_bandwidth", "path_latency", "paths_from"]

METRICS = ("routed", "widest", "hops", "airtime", "series")
FEW = 16  # the widest paths from so small a part of the nodes are found sooner one by one than all at once


def metrics() -> tuple[str, ...]:
    """The names of the path metrics, the default first."""
    return METRICS


def path_bandwidth(topology: Topology, metric: str = "routed", sources: Indices | None = None) -> Floats:
    """The bandwidth from each source to every node in Mbit/s, shape (s, n); by default every node is a source.

    0 where no path leads, and from a node to itself. Raises ValueError for an unknown metric.
    """
    _check(metric)
    sources = _all(topology) if sources is None else np.asarray(sources, dtype=np.int64)
    if metric == "widest" and len(sources) * FEW > len(topology):
        return closure(topology)[sources]
    if metric == "series":
        return _series(topology, sources)
    bandwidth = _along(topology, metric, sources, topology.rates_mbps, SLOWEST)
    bandwidth[np.arange(len(sources)), sources] = 0.0
    return bandwidth


def path_latency(topology: Topology, metric: str = "routed", sources: Indices | None = None) -> Floats:
    """The round trip along the same paths in ms, shape (s, n): NaN where a link's is unknown, inf where no path leads.

    By default every node is a source. Raises ValueError for an unknown metric.
    """
    _check(metric)
    sources = _all(topology) if sources is None else np.asarray(sources, dtype=np.int64)
    return _along(topology, metric, sources, topology.rtts_ms, SUM)


def path(topology: Topology, source: str, destination: str, metric: str = "airtime") -> tuple[str, ...]:
    """The nodes of the path, both ends included; () when none leads there. Raises TopologyError, ValueError."""
    return paths_from(topology, source, [destination], metric)[destination]


def paths_from(
    topology: Topology, source: str, destinations: Iterable[str] | None = None, metric: str = "airtime"
) -> dict[str, tuple[str, ...]]:
    """The path from one node to each destination, by default to every node: see path()."""
    _check(metric)
    start = topology.index(source)
    before = _trees(topology, metric, np.array([start]))[0]
    index = {name: at for at, name in enumerate(topology.names)}
    found = {}
    for name in topology.names if destinations is None else destinations:
        end = index[name] if name in index else topology.index(name)
        way = (_by_routes(topology, start, end) if metric == "routed" else []) or _in_tree(before, start, end)
        found[name] = tuple(topology.names[node] for node in way)
    return found


def bottleneck(topology: Topology, path: Sequence[str]) -> tuple[str, str, float]:
    """The slowest link of a path, the first of equally slow ones: from, to and Mbit/s. Raises TopologyError."""
    ends = np.array([topology.index(name) for name in path], dtype=np.int64)
    links = topology.links_between(ends[:-1], ends[1:])
    if not len(links):
        raise TopologyError(f"a path of {len(path)} nodes has no link; two nodes or more are accepted")
    missing = np.flatnonzero(links < 0)
    if missing.size:
        raise TopologyError(f"there is no link {path[missing[0]]} -> {path[missing[0] + 1]} in this topology")
    slowest = int(topology.rates_mbps[links].argmin())
    return path[slowest], path[slowest + 1], float(topology.rates_mbps[links[slowest]])


def _check(metric: str) -> None:
    if metric not in METRICS:
        raise ValueError(f"unknown metric {metric!r}; accepted: {', '.join(METRICS)}")


def _all(topology: Topology) -> Indices:
    return np.arange(len(topology), dtype=np.int64)


def _series(topology: Topology, sources: Indices) -> Floats:
    bandwidth = np.empty((len(sources), len(topology)))
    for rows in blocks(np.arange(len(sources)), len(topology)):
        seconds = least_airtime(topology, sources[rows])[0]
        seconds[np.arange(len(rows)), sources[rows]] = np.inf
        bandwidth[rows] = 1.0 / seconds
    return bandwidth


def _along(topology: Topology, metric: str, sources: Indices, values: Floats, join: Join) -> Floats:
    """The links' values (m,) joined along the metric's path from each source to every node, shape (s, n)."""
    if metric == "routed" and len(topology.routes):
        joined, arrives = along_routes(topology, sources, values, join)
        rest = np.flatnonzero(~arrives.all(axis=1))
        joined[rest] = np.where(arrives[rest], joined[rest], _along(topology, "airtime", sources[rest], values, join))
        return joined
    joined = np.empty((len(sources), len(topology)))
    for rows in blocks(np.arange(len(sources)), len(topology)):
        before = _trees(topology, metric, sources[rows])
        joined[rows] = along_trees(topology, sources[rows], before, values, join)
    return joined


def _trees(topology: Topology, metric: str, sources: Indices) -> Indices:
    """Each node's predecessor on the path from each source, shape (s, n), negative for none."""
    if metric == "widest":
        return widest_trees(topology, sources)
    if metric == "hops":
        return shortest(topology, hops(topology), sources)[1]
    return least_airtime(topology, sources)[1]


def _in_tree(before: Indices, start: int, end: int) -> list[int]:
    way = [end]
    while way[-1] != start:
        way.append(int(before[way[-1]]))
        if way[-1] < 0:
            return []
    return way[::-1]


def _by_routes(topology: Topology, start: int, end: int) -> list[int]:
    hop_at = next_hops(topology, end)
    way = [start]
    while way[-1] != end:
        hop = hop_at.get(way[-1])
        if hop is None or hop in way:
            return []
        way.append(hop)
    return way
