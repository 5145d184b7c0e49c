"""A network in memory: real keys and packets, a controller's shelf of Data, and an endpoint that asks it."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from gateway.placement_client.session import Clock, Session
from gateway.protocol import codec, keys, names, objects
from gateway.protocol.errors import BlobError
from gateway.protocol.executor_messages import Desired
from gateway.protocol.keys import Key
from gateway.protocol.messages import BlobRef, Head, PlacedHead, Port, Section, SectionRef, ServiceSpec
from gateway.protocol.names import Name
from gateway.protocol.trust import TrustStore

NOW = 1_800_000_000.0
YEAR_S = 365 * 86400.0


class Unreachable(Exception):
    """What the fake endpoint raises in place of a timeout or Nack."""


@dataclass
class Answer:
    wire: bytes


@dataclass
class Asked:
    name: Name
    options: dict[str, Any]


@dataclass
class Shelf:
    """Data packets of one node, and what answers for names that are made on demand."""

    packets: dict[Name, bytes] = field(default_factory=dict)
    handlers: dict[Name, Callable[[Name, bytes | None], bytes | None]] = field(default_factory=dict)
    up: bool = True

    def put(self, *wires: bytes) -> None:
        for wire in wires:
            self.packets[keys.parse(wire).name] = wire

    def find(self, name: Name, can_be_prefix: bool, digest: bytes | None, parameters: bytes | None) -> bytes | None:
        for prefix, handler in self.handlers.items():
            if name.startswith(prefix):
                return handler(name, parameters)
        found = [n for n in self.packets if n == name or (can_be_prefix and n.startswith(name))]
        wires = [self.packets[n] for n in sorted(found, key=lambda n: (len(n), n))]
        return next((w for w in reversed(wires) if digest in (None, hashlib.sha256(w).digest())), None)


class FakeEndpoint:
    """Asks the shelf behind the face that is named, otherwise the controller's."""

    def __init__(self, controller: Shelf) -> None:
        self.controller = controller
        self.faces: dict[int, Shelf] = {}
        self.asked: list[Asked] = []

    async def express(self, name: Name, **options: Any) -> Answer:
        self.asked.append(Asked(name, options))
        face = options.get("next_hop_face")
        shelf = self.controller if face is None else self.faces.get(face, Shelf(up=False))
        wire = None
        if shelf.up:
            wire = shelf.find(
                name, options.get("can_be_prefix", False), options.get("digest"), options.get("parameters")
            )
        if wire is None:
            raise Unreachable(f"{names.to_uri(name)}: no answer")
        return Answer(wire)


class FakeBlobs:
    """Holders with blobs (`b""` is the controller's repository), and a disk that starts empty."""

    def __init__(self) -> None:
        self.holders: dict[Name, dict[bytes, bytes]] = {b"": {}}
        self.disk: dict[bytes, bytes] = {}
        self.asked: list[tuple[bytes, tuple[Name, ...]]] = []
        self.lies: set[bytes] = set()
        self.gate: Callable[[BlobRef], Any] | None = None

    def has(self, sha256: bytes) -> bool:
        return sha256 in self.disk

    async def fetch_bytes(self, ref: BlobRef, hints: Sequence[Name]) -> bytes:
        self.asked.append((ref.sha256, tuple(hints)))
        if ref.sha256 in self.lies:
            raise BlobError(f"blob {ref.sha256.hex()} has other bytes")
        for hint in hints:
            content = self.holders.get(hint, {}).get(ref.sha256)
            if content is not None:
                return content
        raise Unreachable(f"blob {ref.sha256.hex()}: nobody has it")

    async def fetch_blob(
        self, ref: BlobRef, hints: Sequence[Name], progress: Callable[[int, int], None] | None = None
    ) -> Path:
        if self.gate is not None:
            await self.gate(ref)
        self.disk[ref.sha256] = await self.fetch_bytes(ref, hints)
        if progress is not None:
            progress(ref.size, ref.size)
        return Path(ref.sha256.hex())


class FakeExecutor:
    def __init__(self) -> None:
        self.applied: list[Desired] = []
        self.failures = 0

    async def apply(self, desired: Desired) -> None:
        if self.failures:
            self.failures -= 1
            raise ConnectionRefusedError("executor.sock: connection refused")
        self.applied.append(desired)


class World:
    """The anchor, a controller and providers of one network; what they publish lies on `shelf` and in `blobs`."""

    def __init__(self) -> None:
        self.network = names.Network("/guifi/sants")
        self.anchor = Key.generate(self.network.anchor)
        self.anchor_wire = self.anchor.certify(self.anchor.name, self.anchor.spki, NOW, YEAR_S, "self")
        self.shelf, self.blobs = Shelf(), FakeBlobs()
        self.controller = self.certified(self.network.controller)
        self.provider = self.certified(self.network.provider("upc"))
        self.shelf.put(self.anchor_wire)

    def certified(self, identity: Name) -> Key:
        """A key that the anchor certifies; its certificate is on the shelf."""
        key = Key.generate(identity)
        self.shelf.put(self.anchor.certify(key.name, key.spki, NOW, YEAR_S, "anchor"))
        return key

    def trust(self) -> TrustStore:
        return TrustStore(self.network, self.anchor_wire)

    def session(self, node: str = "n1", zone: str = "", certificates: bool = True) -> Session:
        session = Session(self.network, node, zone, self.trust())
        for wire in self.shelf.packets.values() if certificates else ():
            if keys.is_certificate(keys.parse(wire)):
                session.trust.add_certificate(wire)
        return session

    def blob(self, content: bytes) -> BlobRef:
        ref = objects.describe_bytes(self.network, content)
        self.blobs.holders[b""][ref.sha256] = content
        return ref

    def specification(self, service: str, version: int = 1, signer: Key | None = None, **fields: Any) -> bytes:
        provider = fields.pop("provider", "upc")
        image = {"manifest": self.blob(f"manifest of {service}".encode()), "blobs": (self.blob(service.encode() * 9),)}
        spec = ServiceSpec(service, version, provider, **{**image, "ports": (Port(80, 8001),), **fields})
        name = self.network.service(provider, service, version)
        if signer is None or signer.identity == self.provider.identity:
            wire = (signer or self.provider).sign(name, codec.encode(spec))
        else:
            wire = signer.sign(name, codec.encode(spec))
        self.shelf.put(wire)
        return wire

    def section(
        self, service: str, spec: bytes, heads: Sequence[str] = (), zone: str = "", **fields: Any
    ) -> SectionRef:
        """A section on the shelf; in `heads` `n2<n3` says that n2 has the parent n3."""
        placed = tuple(
            PlacedHead(head.partition("<")[0], "because", 10.0, "10.0.0.1", head.partition("<")[2]) for head in heads
        )
        packet = keys.parse(spec)
        content = Section(service, zone, packet.name, packet.digest, "basp", "", "repo", placed, **fields)
        return SectionRef(zone, service, self.blob(codec.encode(content)))

    def head(
        self,
        sections: Sequence[SectionRef] = (),
        version: int = 1,
        epoch: int = 1,
        signer: Key | None = None,
        name: Name | None = None,
        **fields: Any,
    ) -> bytes:
        content = Head(
            **{
                "network": self.network.uri,
                "epoch": epoch,
                "version": version,
                "issued": NOW,
                "expires": NOW + 3600,
                "sections": tuple(sections),
                **fields,
            }
        )
        packet_name = name or self.network.head_version(epoch, version)
        return (signer or self.controller).sign(packet_name, codec.encode(content), 1000)

    def publish(self, *args: Any, **fields: Any) -> bytes:
        wire = self.head(*args, **fields)
        self.shelf.put(wire)
        return wire

    def one_service(self, version: int = 1, heads: Sequence[str] = ("n1", "n2"), **fields: Any) -> bytes:
        """A published head of one service, `radio`."""
        return self.publish([self.section("radio", self.specification("radio", version), heads, **fields)], version)

    def content(self, ref: BlobRef) -> bytes:
        return self.blobs.holders[b""][ref.sha256]

    def complete(self, session: Session) -> None:
        """Gives a session everything that it asks for from the shelf."""
        for need in session.needs():
            if hasattr(need, "ref"):
                session.add_section(need.ref, self.content(need.ref.blob))
        for need in session.needs():
            session.add_specification(need.place, self.shelf.packets[need.name])

    def endpoint(self) -> FakeEndpoint:
        return FakeEndpoint(self.shelf)

    unreachable = Unreachable
    executor = FakeExecutor
    new_shelf = Shelf
    clock = Clock(NOW + 60, synchronized=True)
    now = NOW


@pytest.fixture
def world() -> World:
    return World()
