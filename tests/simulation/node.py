"""A gateway without sockets: a forwarder with its stores, its links by neighbour, and applications on local faces.

What a gateway keeps in its configuration (routes) and on its disk (blobs) outlives its power; everything else does not.
"""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import Callable, Coroutine, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gateway.forwarder import packet
from gateway.forwarder.blobs import BlobStore
from gateway.forwarder.consumer import Consumer
from gateway.forwarder.content_store import ContentStore
from gateway.forwarder.endpoint import Endpoint
from gateway.forwarder.faces.base import Face
from gateway.forwarder.faces.internal import InternalFace
from gateway.forwarder.forwarder import Forwarder
from gateway.forwarder.packet import Data, Interest
from gateway.protocol import keys, names
from gateway.protocol.messages import BlobRef
from tests.simulation.link import Link, LinkFace
from tests.simulation.loop import LIFE, Life

if TYPE_CHECKING:
    from tests.simulation.network import Network

CACHE_BYTES = 1 << 20


class Node:
    """`directory` is its disk, None for a node without one. Further options are the Forwarder's."""

    def __init__(
        self,
        network: Network,
        name: str,
        directory: Path | None = None,
        cache_bytes: int = CACHE_BYTES,
        **options: Any,
    ) -> None:
        self.network, self.name, self.directory = network, name, directory
        self._cache_bytes, self._options = cache_bytes, options
        self.links: list[Link] = []
        self._routes: list[tuple[bytes, str, int]] = []
        self.on_boot: list[Callable[[Node], None]] = []
        self.is_on = False
        self._boot()

    # --- power

    def _boot(self) -> None:
        self.life = Life(self.network.loop)
        self.to: dict[str, LinkFace] = {}
        self.tasks: list[asyncio.Task[Any]] = []
        self._timer: float | None = None
        self._consumer: Consumer | None = None
        self._store = BlobStore(self.directory, self.network.names) if self.directory is not None else None
        of_network = self.network.names
        options = {"disk": self._store, "region": (of_network.node(self.name),), "blobs": of_network.blobs}
        self.forwarder = Forwarder(ContentStore(self._cache_bytes), **(options | self._options))
        self.is_on = True

    def power_off(self) -> None:
        """Memory and what runs is gone at once; neighbours are not told. The disk keeps what was synced to it."""
        self.network.note(self.name, "loses its power")
        self.is_on = False
        self.life.end()
        for face in self.forwarder.faces.values():
            face.up = False
        if self.directory is not None:
            forget_unsynced(self.directory)

    def power_on(self) -> None:
        """Starts again from the disk, with the configured routes and with what `on_boot` asks for."""
        self.network.note(self.name, "starts")
        self._boot()
        for link in self.links:
            link.plug(only=self)
        for prefix, neighbor, cost in self._routes:
            self.forwarder.fib.add(prefix, self.to[neighbor].id, cost, "static")
        self.network.on_topology_change()
        for start in self.on_boot:
            start(self)

    def start(self, work: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        """Runs a coroutine that ends, without a last word, when the power does."""
        context = contextvars.copy_context()
        context.run(LIFE.set, self.life)
        task = self.network.loop.create_task(work, context=context)
        self.tasks.append(task)
        return task

    def close(self) -> None:
        if self._store is not None:
            self._store.close()

    # --- the forwarder

    def add_link_face(self, face: LinkFace) -> LinkFace:
        self.forwarder.add_face(face)
        self.to[face.neighbor] = face
        face.up = face.link.is_up
        return face

    def receive(self, face: Face, wire: bytes) -> None:
        self.forwarder.receive(face, wire, self.network.loop.now)
        self.arm()

    def receive_batch(self, face: Face, wires: Sequence[bytes]) -> None:
        self.forwarder.receive_batch(face, wires, self.network.loop.now)
        self.arm()

    def face_down(self, face: LinkFace) -> None:
        face.up = False
        self.forwarder.on_face_down(face, self.network.loop.now)
        self.arm()

    def on_link_up(self, face: LinkFace) -> None:
        """A link of this node works again; the network's `on_contact` tells who cares."""
        self.network.on_contact(self, face)

    def arm(self) -> None:
        """Sees to it that the forwarder's next timer is not missed."""
        deadline = self.forwarder.next_deadline()
        if deadline is not None and (self._timer is None or deadline < self._timer):
            self._timer = deadline
            self.network.loop.at(deadline, self._on_timer, self.life)

    def _on_timer(self, life: Life) -> None:
        if life.is_over:
            return
        self._timer = None
        self.forwarder.on_timer(self.network.loop.now)
        self.arm()

    def route(self, prefix: str | bytes, neighbor: str, cost: int = 1) -> None:
        """A configured route; it is there again after a start."""
        prefix = names.parse(prefix) if isinstance(prefix, str) else prefix
        self._routes.append((prefix, neighbor, cost))
        self.forwarder.fib.add(prefix, self.to[neighbor].id, cost, "static")

    # --- applications

    def app(self, serve: str | None = None, answer: Callable[[Interest], bytes | None] | None = None) -> App:
        """An application on a local face; with `serve` it answers Interests below that prefix."""
        app = App(self, answer or (lambda interest: keys.sign_data(interest.name, b"answer")))
        if serve is not None:
            self.forwarder.fib.add(names.parse(serve), app.id, 0, "app")
        return app

    def internal(self, name: str) -> InternalFace:
        """A real internal face with its endpoint, for the gateway's own parts."""
        life = self.life
        face = InternalFace(name, lambda face, wires: None if life.is_over else self.receive_batch(face, wires))
        self.forwarder.add_face(face)
        return face

    @property
    def endpoint(self) -> Endpoint:
        return self.consumer.endpoint  # type: ignore[return-value]

    @property
    def consumer(self) -> Consumer:
        """This node's consumer on an internal face of its own."""
        if self._consumer is None:
            self._consumer = Consumer(self.internal("consumer").endpoint, self.network.names)
        return self._consumer

    @property
    def store(self) -> BlobStore:
        assert self._store is not None, f"{self.name} has no disk: node({self.name!r}, directory=…)"
        return self._store

    def fetch(self, ref: BlobRef, *holders: str, patience_s: float = 30.0) -> asyncio.Task[Path]:
        """Fetches a blob to the disk, from the nodes named in turn; without one along the route of its name."""
        hints = [self.network.names.node(holder) for holder in holders]
        return self.start(self.consumer.fetch_blob(ref, self.store, hints, patience_s=patience_s))

    def fetch_bytes(self, ref: BlobRef, *holders: str, patience_s: float = 30.0) -> asyncio.Task[bytes]:
        """Fetches a small blob to memory."""
        hints = [self.network.names.node(holder) for holder in holders]
        return self.start(self.consumer.fetch_bytes(ref, hints, patience_s))

    def has(self, ref: BlobRef) -> bool:
        return self._store is not None and self._store.has(ref.sha256)


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
        self.node.receive(self, wire)

    def transmit(self, wire: bytes, bulk: bool) -> None:
        self.node.network.loop.at(self.node.network.now, self._arrive, wire)

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


def forget_unsynced(directory: Path) -> None:
    """What a power cut may take: segments that no synced bitmap vouches for are garbage afterwards."""
    for partial in (directory / "partial").glob("*"):
        if len(partial.name) != 64:
            continue
        bitmap_path = partial.with_name(partial.name + ".bitmap")
        bitmap = bitmap_path.read_bytes() if bitmap_path.exists() else b""
        with partial.open("r+b") as file:
            size = file.seek(0, 2)
            for index in range(-(-size // 8000)):
                if index >> 3 >= len(bitmap) or not bitmap[index >> 3] >> (index & 7) & 1:
                    file.seek(index * 8000)
                    file.write(b"\xee" * min(8000, size - index * 8000))
