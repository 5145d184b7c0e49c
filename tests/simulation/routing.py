"""What a mesh's routing protocol would know: for every node the next hops towards the names of the others."""

from __future__ import annotations

import heapq
from collections.abc import Iterable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tests.simulation.link import Link
    from tests.simulation.network import Network

ORIGIN = "mesh"
_PACKET_BYTES = 8200


def learn_routes(network: Network, targets: Iterable[str] | None = None, spare: int = 0) -> None:
    """Shortest paths by the time that a full packet takes, over links that work in both directions.

    `spare` further next hops are those neighbours that are nearer to the target than the node itself, so that no
    routes form a loop. Routes learnt before are forgotten.
    """
    for node in network.nodes.values():
        node.forwarder.fib.remove_origin(ORIGIN)
    adjacent = neighbors(network)
    for target in targets if targets is not None else network.nodes:
        prefix = network.names.node(target)
        distances = distances_to(adjacent, target)
        for name, here in distances.items():
            if name == target:
                continue
            node = network.nodes[name]
            hops = sorted(
                (distances[other] + cost, other)
                for other, cost in adjacent[name]
                if other in distances and distances[other] < here
            )
            for cost, other in hops[: 1 + spare]:
                node.forwarder.fib.add(prefix, node.to[other].id, 1 + round(cost * 10_000), ORIGIN)


def neighbors(network: Network) -> dict[str, list[tuple[str, float]]]:
    """Who has a link that works both ways to whom, and the time of a packet on it."""
    adjacent: dict[str, list[tuple[str, float]]] = {name: [] for name in network.nodes}
    for link in network.links.values():
        a, b = link.nodes
        if link.there.is_up and link.back.is_up and a.is_on and b.is_on:
            adjacent[a.name].append((b.name, cost_s(link)))
            adjacent[b.name].append((a.name, cost_s(link)))
    return adjacent


def cost_s(link: Link) -> float:
    """The slower direction counts."""
    rates = [d.rate_mbps for d in (link.there, link.back) if d.rate_mbps is not None]
    return link.there.delay_s + (_PACKET_BYTES / (min(rates) * 125_000) if rates else 0.0) + 1e-6


def distances_to(adjacent: dict[str, list[tuple[str, float]]], target: str) -> dict[str, float]:
    distances: dict[str, float] = {}
    queue = [(0.0, target)]
    while queue:
        distance, name = heapq.heappop(queue)
        if name in distances:
            continue
        distances[name] = distance
        for other, cost in adjacent[name]:
            if other not in distances:
                heapq.heappush(queue, (distance + cost, other))
    return distances


def tree_to(network: Network, target: str) -> dict[str, str]:
    """The parent of each node on the shortest paths to `target`, the nearest nodes first."""
    adjacent = neighbors(network)
    distances = distances_to(adjacent, target)
    order = sorted(distances, key=lambda name: (distances[name], name))
    return {
        name: min((distances[other] + cost, other) for other, cost in adjacent[name] if other in distances)[1]
        for name in order
        if name != target
    }
