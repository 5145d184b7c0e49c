"""What a perfect transfer would take: over a tree a fluid, without queues or processors; on a link its frames. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

Edge = tuple[str, str]  # (parent, child)

# What Ethernet carries: frames of 1514 bytes, of which Ethernet, IP and TCP with its timestamps take 66. A receiver
# acknowledges every other one, by a frame of nothing but headers.
FRAME_BYTES, HEADER_BYTES = 1514, 66
PAYLOAD_BYTES = FRAME_BYTES - HEADER_BYTES
FRAMES_AN_ACK = 2

_NOTHING_LEFT = 1e-9


def link_bytes(size_bytes: int, is_both_ways: bool = True) -> float:
    """What a link carries of so many bytes at least, one TCP connection's headers and acknowledgements included."""
    return size_bytes / PAYLOAD_BYTES * (FRAME_BYTES + (HEADER_BYTES / FRAMES_AN_ACK if is_both_ways else 0))


def paths(parents: Mapping[str, str]) -> dict[str, list[Edge]]:
    """For each node but the root the edges from the root to it, the last one first."""
    found = {}
    for node in parents:
        edges, at = [], node
        while at in parents:
            edges.append((parents[at], at))
            at = parents[at]
        found[node] = edges
    return found


def delivery_s(parents: Mapping[str, str], mbps: Mapping[Edge, float], size_bytes: int) -> dict[str, float]:
    """When each node has it if every node passes on at once what it gets: the narrowest link on its way decides."""
    return {node: size_bytes * 8e-6 / min(mbps[edge] for edge in edges) for node, edges in paths(parents).items()}


def unicast_s(parents: Mapping[str, str], mbps: Mapping[Edge, float], size_bytes: int) -> dict[str, float]:
    """When each node has it if the root sends to each by itself and the links are shared fairly (max-min)."""
    ways, now = paths(parents), 0.0
    done: dict[str, float] = {}
    left = dict.fromkeys(ways, size_bytes * 8e-6)
    while left:
        rates = _fair_rates({node: ways[node] for node in left}, mbps)
        step = min(left[node] / rates[node] for node in left)
        now += step
        left = {node: megabits - step * rates[node] for node, megabits in left.items()}
        done |= dict.fromkeys((node for node, megabits in left.items() if megabits < _NOTHING_LEFT), now)
        left = {node: megabits for node, megabits in left.items() if node not in done}
    return done


def _fair_rates(ways: Mapping[str, list[Edge]], mbps: Mapping[Edge, float]) -> dict[str, float]:
    free, waiting, rates = dict(mbps), set(ways), {}
    while waiting:
        users = Counter(edge for node in waiting for edge in ways[node])
        narrowest = min(users, key=lambda edge: free[edge] / users[edge])
        share = free[narrowest] / users[narrowest]
        for node in [node for node in waiting if narrowest in ways[node]]:
            rates[node] = share
            waiting.discard(node)
            for edge in ways[node]:
                free[edge] -= share
    return rates
