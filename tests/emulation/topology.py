"""What an emulated network looks like before anything is made: nodes, links, and the kernel's routes. Pure."""

from __future__ import annotations

import heapq
import json
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from controller.placement import Topology as PlacementTopology
from controller.placement import TopologyError, qmp_like
from controller.placement.network.netjson import from_netjson

MAXIMUM_NODES, MAXIMUM_LINKS = 250, 16_000
# A link that stands for a wire has no rate of its own; two cores carry no more than this anyway.
SLOWEST_MBPS, FASTEST_MBPS = 0.1, 1000.0

Pair = tuple[str, str]


@dataclass(frozen=True, slots=True)
class Link:
    """A link between two nodes: Mbit/s from `a` to `b` and back, and the share of packets lost each way (0 to 1)."""

    a: str
    b: str
    mbps: float
    back_mbps: float
    loss: float = 0.0

    @property
    def ends(self) -> Pair:
        return self.a, self.b

    def rate_mbps(self, source: str) -> float:
        """Mbit/s of what `source` sends."""
        return self.mbps if source == self.a else self.back_mbps


@dataclass(frozen=True)
class Topology:
    """Nodes and links; `gateways` are the nodes that run a gateway (all of them when empty), the rest are routers.

    Raises ValueError for a link between unknown nodes, a second one between the same, or a rate out of range.
    """

    nodes: tuple[str, ...]
    links: tuple[Link, ...]
    gateways: tuple[str, ...] = field(default=())

    def __post_init__(self) -> None:
        if not self.gateways:
            object.__setattr__(self, "gateways", self.nodes)
        if problem := self._problem():
            raise ValueError(problem)

    def _problem(self) -> str:
        known, seen = set(self.nodes), set()
        if not 0 < len(known) == len(self.nodes) <= MAXIMUM_NODES:
            return (
                f"{len(self.nodes)} nodes of {len(known)} names; accepted are 1 to {MAXIMUM_NODES} of different names"
            )
        if unknown := set(self.gateways) - known:
            return f"gateways that are no nodes: {', '.join(sorted(unknown))}"
        for link in self.links:
            pair = frozenset(link.ends)
            if not pair <= known or len(pair) != 2 or pair in seen:
                return f"link {link.a} - {link.b}: one link each between two different nodes is accepted"
            if not all(SLOWEST_MBPS <= mbps <= FASTEST_MBPS for mbps in (link.mbps, link.back_mbps)):
                return f"link {link.a} - {link.b}: {link.mbps}/{link.back_mbps} Mbit/s; accepted are 0.1 to 1000"
            if not 0 <= link.loss <= 1:
                return f"link {link.a} - {link.b}: a loss of {link.loss}; accepted is a share of 0 to 1"
            seen.add(pair)
        return "" if len(self.links) <= MAXIMUM_LINKS else f"{len(self.links)} links, at most {MAXIMUM_LINKS}"

    def link(self, one: str, other: str) -> Link:
        """The link between two nodes in either order; raises KeyError."""
        for link in self.links:
            if {one, other} == set(link.ends):
                return link
        raise KeyError(f"no link between {one} and {other}")

    def neighbors(self, node: str) -> tuple[str, ...]:
        return tuple(link.b if link.a == node else link.a for link in self.links if node in link.ends)


def next_hops(topology: Topology, down: Collection[Link] = ()) -> dict[Pair, str]:
    """(node, destination) -> the neighbour to send to: least airtime, as a mesh's routing daemon finds it."""
    found: dict[Pair, str] = {}
    for destination in topology.nodes:
        found |= _towards(topology, destination, down)
    return found


def _towards(topology: Topology, destination: str, down: Collection[Link]) -> dict[Pair, str]:
    ends: dict[str, list[tuple[str, float]]] = {node: [] for node in topology.nodes}
    for link in topology.links:
        if link not in down:
            ends[link.a].append((link.b, 1 / link.back_mbps))
            ends[link.b].append((link.a, 1 / link.mbps))
    hops: dict[Pair, str] = {}
    settled: set[str] = set()
    queue = [(0.0, destination, "")]
    while queue:
        cost, node, hop = heapq.heappop(queue)
        if node in settled:
            continue
        settled.add(node)
        if hop:
            hops[node, destination] = hop
        for other, more in ends[node]:
            if other not in settled:
                heapq.heappush(queue, (cost + more, other, node))
    return hops


def path(hops: Mapping[Pair, str], source: str, destination: str) -> list[str]:
    """The nodes from source to destination, both included; empty when there is no way."""
    nodes = [source]
    while nodes[-1] != destination:
        hop = hops.get((nodes[-1], destination))
        if hop is None:
            return []
        nodes.append(hop)
    return nodes


def overlay_neighbors(topology: Topology) -> dict[str, tuple[str, ...]]:
    """For each gateway those to which the kernel's route crosses no other gateway, most of which are IP hops away."""
    hops, gateways = next_hops(topology), set(topology.gateways)
    found: dict[str, set[str]] = {gateway: set() for gateway in topology.gateways}
    for one in topology.gateways:
        for other in topology.gateways:
            between = path(hops, one, other)
            if len(between) > 1 and not gateways.intersection(between[1:-1]):
                found[one].add(other)
                found[other].add(one)
    return {gateway: tuple(sorted(others)) for gateway, others in found.items()}


def delivery_parents(topology: Topology, root: str) -> dict[str, str]:
    """For each gateway the next one on its way to the root; the root and what it cannot reach have none."""
    hops, gateways = next_hops(topology), set(topology.gateways)
    found = {}
    for gateway in topology.gateways:
        on_the_way = [node for node in path(hops, gateway, root)[1:] if node in gateways or node == root]
        if on_the_way:
            found[gateway] = on_the_way[0]
    return found


# --- where topologies come from


def qmp(nodes: int, seed: int, links_per_node: float = 1.5, slowest_mbps: float = 1.0) -> Topology:
    """A community-like network whose links all work both ways; see controller/placement/network/generator.py."""
    return from_placement(qmp_like(nodes, seed, one_way=0.0, links_per_node=links_per_node), slowest_mbps)


def from_placement(found: PlacementTopology, slowest_mbps: float = SLOWEST_MBPS) -> Topology:
    """A placement topology; where a link is one-way, the other direction gets the slowest rate, for the ACKs."""
    matrix, links = found.matrix(), []
    for at, one in enumerate(found.names):
        for other_at in range(at + 1, len(found.names)):
            rates = float(matrix[at, other_at]), float(matrix[other_at, at])
            if any(rates):
                there, back = (round(min(max(rate, slowest_mbps), FASTEST_MBPS), 2) for rate in rates)
                links.append(Link(one, found.names[other_at], there, back))
    return Topology(tuple(found.names), tuple(links))


def read(text: str, gateways: int | None = None) -> Topology:
    """`qmp:N:SEED` or the path of a NetJSON NetworkGraph; `gateways` makes plain routers of all further nodes.

    Raises ValueError with what would be accepted.
    """
    try:
        topology = _read_qmp(text) if text.startswith("qmp:") else _read_file(Path(text))
    except TopologyError as error:
        raise ValueError(f"{text}: {error}") from error
    if gateways is None:
        return topology
    if not 1 <= gateways <= len(topology.nodes):
        raise ValueError(f"{gateways} gateways; the network has {len(topology.nodes)} nodes, and one is the least")
    return Topology(topology.nodes, topology.links, spread(topology.nodes, gateways))


def spread(nodes: Sequence[str], count: int) -> tuple[str, ...]:
    """So many of the nodes, the first one always, the others at even distances in the list."""
    return tuple(nodes[at * len(nodes) // count] for at in range(count))


def _read_qmp(text: str) -> Topology:
    parts = text.split(":")
    if len(parts) != 3 or not all(part.isdigit() for part in parts[1:]):
        raise ValueError(f"{text!r} is no topology; qmp:N:SEED is accepted, for instance qmp:16:1")
    return qmp(int(parts[1]), int(parts[2]))


def _read_file(file: Path) -> Topology:
    try:
        return from_placement(from_netjson(json.loads(file.read_text())))
    except (OSError, ValueError) as error:
        raise ValueError(f"{file}: {error}; a NetJSON NetworkGraph or qmp:N:SEED is accepted") from error


def tree(parents: Iterable[tuple[str, str, float]]) -> Topology:
    """A tree from (parent, child, Mbit/s both ways) in an order in which the first parent is the root."""
    rows = list(parents)
    nodes = dict.fromkeys(name for parent, child, _ in rows for name in (parent, child))
    return Topology(tuple(nodes), tuple(Link(parent, child, mbps, mbps) for parent, child, mbps in rows))
