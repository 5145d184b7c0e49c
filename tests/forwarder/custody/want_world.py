"""Nodes with custody in the simulator: real forwarders, keys, stores and packets; the test's links say the hellos."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Callable
from typing import Any

from gateway.forwarder.custody import Custody, Limits
from gateway.protocol import keys, names
from gateway.protocol.keys import Key, Packet
from gateway.protocol.messages import BlobRef
from gateway.protocol.names import Name
from gateway.protocol.trust import TrustStore
from tests.simulation.link import LinkFace
from tests.simulation.network import Network
from tests.simulation.node import Node

NOW = 1_800_000_000.0
YEAR_S = 365 * 86400.0
NAMES = names.Network("/net")
HELLO_S = 10.0


@functools.cache
def anchor() -> tuple[Key, bytes]:
    key = Key.generate(NAMES.prefix)
    return key, key.certify(key.name, key.spki, NOW - YEAR_S, 20 * YEAR_S, "self")


@functools.cache
def member(node: str) -> tuple[Key, bytes]:
    """A node's key and its certificate, the same in every test of a run."""
    key = Key.generate(NAMES.node(node))
    return key, anchor()[0].certify(key.name, key.spki, NOW - YEAR_S, 20 * YEAR_S, "anchor")


class Member:
    """What a node of the network believes, and how it signs."""

    def __init__(self, node: str, *known: str) -> None:
        self.key, self.own_certificate = member(node)
        self.trust = TrustStore(NAMES, anchor()[1])
        for each in (node, *known):
            self.trust.add_certificate(member(each)[1])

    def sign(self, name: Name, content: bytes, freshness_ms: int | None = None) -> bytes:
        return self.key.sign(name, content, freshness_ms)

    def verify(self, wire: bytes) -> Packet:
        return self.trust.verify(wire)

    def certificate(self, key_name: Name) -> bytes | None:
        return self.trust.certificate(key_name)

    def add_certificate(self, wire: bytes) -> None:
        self.trust.add_certificate(wire)


class Place:
    """A simulated node with custody, started anew by `power_on` from the same disk.

    `clock` is (boot id, seconds since boot, Unix time) as the machine tells; `unix` may be set by the test.
    """

    def __init__(self, net: Network, name: str, limits: Limits | None = None, **options: Any) -> None:
        self.net, self.name, self.options = net, name, options
        self.limits = limits or Limits(72 * 3600.0, 64 << 20)
        self.unix_offset_s = NOW
        self.problems: list[str] = []
        self.boots = 0
        self.needed: set[bytes] = set()
        self.node = net.node(name, has_disk=True)
        self.node.on_boot.append(self._start)
        self._start(self.node)

    def _start(self, node: Node) -> None:
        self.boots += 1
        self.booted_at = self.net.now
        self.member = Member(self.name)
        face = node.internal("wants")
        assert node.directory is not None
        self.custody = Custody(
            self.name,
            NAMES,
            face.endpoint,
            node.store,
            self.member,
            node.directory / "wants.db",
            self.limits,
            **{
                "reaches": self.reaches,
                "needed": lambda: self.needed,
                "fail": self.problems.append,
                "clock": self.clock,
                "consumer": node.consumer,
                **self.options,
            },
        )
        node.forwarder.fib.add(NAMES.wants(self.name), face.id, 0, "internal")
        node.start(self._run(self.custody))

    def clock(self) -> tuple[str, float, float]:
        return f"boot{self.boots}", self.net.now - self.booted_at, self.net.now + self.unix_offset_s

    async def _run(self, custody: Custody) -> None:
        await custody.start()
        await custody.run()

    def reaches(self, node: str) -> bool:
        return NAMES.node(node) in self.node.forwarder.fib

    def has(self, ref: BlobRef) -> bool:
        return self.node.has(ref)

    def want(self, ref: BlobRef, *holders: str, priority: int = 5) -> None:
        self.custody.want(ref, holders, priority)

    def waits(self) -> list[tuple[str, bytes]]:
        return [entry.key for entry in self.custody.wants.in_order()]

    def blobs(self) -> tuple[bytes, ...]:
        """As the hello tells them: whole blobs, and those that are here in part."""
        arriving = [sha256 for sha256, held in self.custody._fetching.progress.items() if held]
        return tuple(sha256[:8] for sha256 in [*self.node.store._whole, *arriving])


class World:
    """Places by name. A link that comes up makes its ends greet each other, at once and every ten seconds."""

    def __init__(self, net: Network) -> None:
        self.net, self.places = net, {}
        self.places: dict[str, Place] = {}
        net.on_contact = self._on_contact

    def place(self, name: str, limits: Limits | None = None, **options: Any) -> Place:
        place = self.places[name] = Place(self.net, name, limits, **options)
        place.node.on_boot.append(self._on_boot)
        return place

    def _on_boot(self, node: Node) -> None:
        for face in node.to.values():
            if face.up:
                self._on_contact(node, face)

    def link(self, a: str, b: str, **options: Any) -> Any:
        """A link that is down at first."""
        link = self.net.link(a, b, **options)
        link.fail(notice=True)
        return link

    def _on_contact(self, node: Node, face: LinkFace) -> None:
        self.net.at(self.net.now + 0.05, self._greet, node, face)

    def _greet(self, node: Node, face: LinkFace) -> None:
        """What the neighbour's hello brings: who it is, its certificate, its blobs; heard while the link is up."""
        here, there = self.places[node.name], self.places[face.neighbor]
        is_heard = face.link.is_up and face.out.is_up and node.is_on and there.node.is_on
        if not is_heard or node.to.get(there.name) is not face:
            return
        here.member.trust.add_certificate(member(there.name)[1])
        node.forwarder.fib.add(NAMES.node(there.name), face.id, 1, "hello")
        in_life(node, here.custody.on_hello, face.id, there.name, f"boot{there.boots}", there.blobs())
        self.net.at(self.net.now + HELLO_S, self._greet, node, face)

    def meet(self, a: str, b: str, seconds: float) -> None:
        """A contact of so many seconds, of which both ends see the end."""
        link = self.net.between(a, b)
        link.recover()
        self.net.run(seconds)
        link.fail(notice=True)
        for end in link.ends:
            if end.node.is_on:
                end.node.forwarder.fib.remove(NAMES.node(end.neighbor), end.id, "hello")
                in_life(end.node, self.places[end.node.name].custody.on_silence, end.id)
        self.net.run(0.2)


def ferry(world: World, limits: Limits | None = None) -> tuple[Place, Place, Place]:
    """a ┄┄ f ┄┄ b: f, whose limits these are, is at one of the two at a time."""
    a, f, b = world.place("a"), world.place("f", limits), world.place("b")
    world.link("a", "f", rate_mbps=20.0)
    world.link("f", "b", rate_mbps=20.0)
    return a, f, b


def in_life(node: Node, function: Callable[..., Any], *arguments: Any) -> None:
    """Calls it as the node's own program: what it starts ends with the node's power."""

    async def call() -> None:
        function(*arguments)

    node.start(call())


__all__ = ["NAMES", "NOW", "Limits", "Member", "Place", "World", "anchor", "asyncio", "ferry", "keys", "member"]
