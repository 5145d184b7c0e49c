"""Forwarders in one process: a virtual clock, links with delay and loss that fail and recover, and applications."""

from __future__ import annotations

import heapq
import itertools
import random
from collections.abc import Callable
from typing import Any

from gateway.forwarder import packet
from gateway.forwarder.content_store import ContentStore
from gateway.forwarder.faces.base import Face
from gateway.forwarder.forwarder import Forwarder
from gateway.forwarder.packet import Data, Interest
from gateway.protocol import keys, names

CACHE_BYTES = 1 << 20


def data(uri: str, content: bytes = b"", freshness_ms: int | None = None) -> bytes:
    """A Data packet with a digest signature."""
    return keys.sign_data(names.parse(uri), content, freshness_ms)


class Network:
    """The clock and whatever happens at its time; loss is drawn from a seeded generator."""

    def __init__(self, seed: int = 1) -> None:
        self.now = 0.0
        self.random = random.Random(seed)
        self.nodes: dict[str, Node] = {}
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._order = itertools.count()

    def node(self, name: str, **options: Any) -> Node:
        options.setdefault("region", (names.parse(f"/net/node/{name}"),))
        self.nodes[name] = Node(self, name, Forwarder(ContentStore(CACHE_BYTES), **options))
        return self.nodes[name]

    def link(self, a: str, b: str, delay_s: float = 0.01, loss: float = 0.0) -> Link:
        return Link(self, self.nodes[a], self.nodes[b], delay_s, loss)

    def at(self, when: float, action: Callable[[], None]) -> None:
        heapq.heappush(self._events, (when, next(self._order), action))

    def run(self, seconds: float = 5.0) -> None:
        """Lets time pass; events and the forwarders' timers happen in order."""
        end = self.now + seconds
        while True:
            deadlines = [d for node in self.nodes.values() if (d := node.forwarder.next_deadline()) is not None]
            upcoming = min([*deadlines, *(event[0] for event in self._events[:1])], default=end + 1)
            if upcoming > end:
                self.now = end
                return
            self.now = max(self.now, upcoming)
            for node in self.nodes.values():
                node.forwarder.on_timer(self.now)
            while self._events and self._events[0][0] <= self.now:
                heapq.heappop(self._events)[2]()


class Node:
    """A forwarder with its links by neighbour."""

    def __init__(self, network: Network, name: str, forwarder: Forwarder) -> None:
        self.network, self.name, self.forwarder = network, name, forwarder
        self.to: dict[str, LinkFace] = {}

    def route(self, prefix: str, neighbor: str, cost: int = 1) -> None:
        self.forwarder.fib.add(names.parse(prefix), self.to[neighbor].id, cost, "static")

    def app(self, serve: str | None = None, answer: Callable[[Interest], bytes | None] | None = None) -> App:
        """An application on a local face; with `serve` it answers Interests below that prefix."""
        app = App(self, answer or (lambda interest: keys.sign_data(interest.name, b"answer")))
        if serve is not None:
            self.forwarder.fib.add(names.parse(serve), app.id, 0, "app")
        return app


class LinkFace(Face):
    """One end of a link; what it sent is kept for the tests."""

    def __init__(self, node: Node, peer: str) -> None:
        super().__init__(f"link://{peer}", f"link://{node.name}", peer)
        self.node = node
        self.other: LinkFace
        self.link: Link
        self.sent: list[bytes] = []

    def transmit(self, wire: bytes, bulk: bool) -> None:
        self.sent.append(wire)
        network, other = self.node.network, self.other
        if self.link.is_up and network.random.random() >= self.link.loss:
            network.at(network.now + self.link.delay_s, lambda: other.arrive(wire))

    def arrive(self, wire: bytes) -> None:
        if self.link.is_up:
            self.node.forwarder.receive(self, wire, self.node.network.now)


class Link:
    """Two faces; while it has failed packets vanish, and with `notice` both ends know that it is down."""

    def __init__(self, network: Network, a: Node, b: Node, delay_s: float, loss: float) -> None:
        self.network, self.delay_s, self.loss, self.is_up = network, delay_s, loss, True
        self.ends = LinkFace(a, b.name), LinkFace(b, a.name)
        for end, other in zip(self.ends, reversed(self.ends), strict=True):
            end.link, end.other = self, other
            end.node.forwarder.add_face(end)
            end.node.to[other.node.name] = end

    def fail(self, notice: bool = False) -> None:
        self.is_up = False
        for end in self.ends if notice else ():
            end.up = False
            end.node.forwarder.on_face_down(end, self.network.now)

    def recover(self) -> None:
        self.is_up = True
        for end in self.ends:
            end.up = True


class App(Face):
    """An application: asks, answers, and keeps what came."""

    is_local = True

    def __init__(self, node: Node, answer: Callable[[Interest], bytes | None]) -> None:
        super().__init__("app://", "")
        self.node, self._answer = node, answer
        self.data: list[Data] = []
        self.nacks: list[int] = []
        self.asked: list[Interest] = []
        self.tokens: list[bytes | None] = []
        node.forwarder.add_face(self)

    def ask(self, uri: str, *, next_hop_face: int | None = None, token: bytes | None = None, **options: Any) -> bytes:
        """Sends an Interest; its wire, so that it can be sent again."""
        name = names.parse(uri) if uri != "/" else b""
        _, wire = packet.encode_interest(name, **options)
        self.send(packet.encode_link(wire, pit_token=token, next_hop_face=next_hop_face))
        return wire

    def send(self, wire: bytes) -> None:
        self.node.forwarder.receive(self, wire, self.node.network.now)

    def transmit(self, wire: bytes, bulk: bool) -> None:
        self.node.network.at(self.node.network.now, lambda: self._arrive(wire))

    def _arrive(self, wire: bytes) -> None:
        link = packet.decode_link(wire)
        if link.nack_reason is not None:
            self.nacks.append(link.nack_reason)
        elif link.fragment[0] == packet.DATA:
            self.data.append(packet.decode_data(link.fragment))
            self.tokens.append(link.pit_token)
        else:
            interest = packet.decode_interest(link.fragment)
            interest.incoming_face = link.incoming_face
            self.asked.append(interest)
            answer = self._answer(interest)
            if answer is not None:
                self.send(packet.encode_link(answer, pit_token=link.pit_token))

    @property
    def contents(self) -> list[bytes]:
        return [one.content for one in self.data]
