"""The paths that the nodes' own routes make: from next hop to next hop until the destination is reached."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from controller.placement.network.topology import Floats, Indices, Topology
from controller.placement.network.trees import Join, blocks, fold


def along_routes(
    topology: Topology, sources: Indices, values: Floats, join: Join
) -> tuple[Floats, npt.NDArray[np.bool_]]:
    """The links' values (m,) joined along the routes from each source to every node, and where these do lead there.

    Shapes (s, n). They do not where a node on the way has no route, where its link is not there and where they loop.
    """
    n = len(topology)
    joined, arrives = np.zeros((len(sources), n)), np.zeros((len(sources), n), dtype=np.bool_)
    links = topology.links_between(topology.routes[:, 0], topology.routes[:, 2])
    usable = np.flatnonzero((links >= 0) & (topology.routes[:, 0] != topology.routes[:, 1]))
    usable = usable[np.argsort(topology.routes[usable, 1], kind="stable")]
    ats, towards, hops = topology.routes[usable].T
    for destinations in blocks(np.unique(towards), n):
        mine = slice(*np.searchsorted(towards, [destinations[0], destinations[-1] + 1]))
        row = np.searchsorted(destinations, towards[mine])
        parents = np.broadcast_to(np.arange(n), (len(destinations), n)).copy()
        values_up = np.full(parents.shape, join.nowhere)
        parents[row, ats[mine]] = hops[mine]
        values_up[row, ats[mine]] = values[links[usable[mine]]]
        values_up[np.arange(len(destinations)), destinations] = join.start
        way, end = fold(parents, values_up, join)
        joined[:, destinations] = way[:, sources].T
        arrives[:, destinations] = (end == destinations[:, None])[:, sources].T
    return joined, arrives


def next_hops(topology: Topology, destination: int) -> dict[int, int]:
    """The next hop towards a destination by node, where there is a link to it."""
    rows = topology.routes[topology.routes[:, 1] == destination]
    there = topology.links_between(rows[:, 0], rows[:, 2]) >= 0
    return {int(at): int(hop) for at, _, hop in rows[there]}
