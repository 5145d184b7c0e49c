"""Faces made on request by a real face manager on real sockets."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager

import pytest
from ndn.app_support import nfd_mgmt as nfd

from gateway.forwarder.content_store import ContentStore
from gateway.forwarder.endpoint import Endpoint, connect
from gateway.forwarder.faces.base import Face
from gateway.forwarder.faces.manager import FaceManager, Neighbor
from gateway.forwarder.forwarder import Forwarder
from gateway.forwarder.management import PREFIX, Management
from gateway.forwarder.management.face_control import ManagedFaces
from gateway.forwarder.packet import decode_data, decode_interest, encode_link, split_stream
from gateway.protocol import keys, names
from tests.forwarder.management.commands import command_v3


class Gateway:
    """A forwarder with sockets, managed through a unix socket of its own."""

    def __init__(self) -> None:
        self.forwarder = Forwarder(ContentStore(1 << 20))
        self.manager = FaceManager(self.forwarder)
        self.faces = ManagedFaces(self.manager)
        self.management = Management(self.forwarder, faces=self.faces)
        face = self.manager.internal("management")
        face.endpoint.serve(PREFIX, self.management.on_interest)
        self.forwarder.fib.add(PREFIX, face.id, 0, "internal")

    def uri(self, kind: str) -> str:
        return next(uri for uri in self.faces.channels() if uri.startswith(kind))


@asynccontextmanager
async def gateway(*listen: str) -> AsyncIterator[Gateway]:
    made = Gateway()
    try:
        await made.manager.start(listen, ())
        yield made
    finally:
        await made.manager.stop()


async def command(endpoint: Endpoint, verb: str, **parameters: object) -> dict[str, object]:
    """A command as python-ndn signs it, sent and answered through a socket."""
    wire = command_v3("faces", verb, **parameters)
    interest, loop = decode_interest(wire), asyncio.get_running_loop()
    future: asyncio.Future[bytes] = loop.create_future()
    receive = endpoint.receive
    endpoint.receive = future.set_result  # type: ignore[method-assign]
    endpoint._send(encode_link(interest.wire))
    try:
        answer = await asyncio.wait_for(future, 5)
    finally:
        endpoint.receive = receive  # type: ignore[method-assign]
    packets, _ = split_stream(answer)
    reply: dict[str, object] = nfd.parse_response(decode_data(packets[0]).content)
    return reply


@pytest.mark.parametrize("kind", ["tcp4", "udp4"])
def test_a_face_made_on_request_carries_packets_until_it_is_destroyed(kind: str, tmp_path: object) -> None:
    """`faces/create` through the unix socket, then Data over the new face, then `faces/destroy` and no route."""

    async def work() -> None:
        socket = f"unix://{tmp_path}/a.sock"
        async with (
            gateway(socket, "tcp4://127.0.0.1:0", "udp4://127.0.0.1:0") as a,
            gateway("tcp4://127.0.0.1:0", "udp4://127.0.0.1:0") as b,
        ):
            producer = b.manager.internal("producer")
            producer.endpoint.serve(names.parse("/b"), lambda interest: data(interest.name))
            b.forwarder.fib.add(names.parse("/b"), producer.id, 0, "app")
            endpoint = await connect(socket)
            reply = await command(endpoint, "create", uri=b.uri(kind))
            assert reply["status_code"] == 200 and reply["uri"] == b.uri(kind), reply["status_text"]
            face = a.forwarder.faces[int(str(reply["face_id"]))]
            a.forwarder.fib.add(names.parse("/b"), face.id, 0, "management")
            for _ in range(200):
                if face.up:
                    break
                await asyncio.sleep(0.01)
            got = await endpoint.express(names.parse("/b/x"), retries=2, lifetime_ms=1000)
            assert got.content == b"from b"
            assert (await command(endpoint, "destroy", face_id=face.id))["status_code"] == 200
            assert face.id not in a.forwarder.faces and a.forwarder.fib.longest_prefix_match(names.parse("/b/x")) == ()
            endpoint.close()

    asyncio.run(asyncio.wait_for(work(), 15))


def data(name: bytes) -> bytes:
    return keys.sign_data(name, b"from b")


class Told:
    """A manager that only remembers what neighbours it was told."""

    listening = ()

    def __init__(self) -> None:
        self.neighbors: list[Neighbor] = []

    def set_neighbors(self, neighbors: Iterable[Neighbor]) -> None:
        self.neighbors = list(neighbors)

    def face_of(self, neighbor: str) -> None:
        return None

    def release(self, face: Face) -> None:
        raise AssertionError


def test_discovered_neighbours_stand_beside_the_configured_ones() -> None:
    """Who was heard is dialled, unless somebody has named it; it stays over a change of the configuration."""
    configured = [Neighbor("cable", "tcp4://10.0.0.1:6363")]
    manager = Told()
    faces = ManagedFaces(manager, lambda: configured)
    heard = [Neighbor("heard:b", "tcp4://10.0.0.2:6363"), Neighbor("heard:c", "tcp4://10.0.0.1:6363")]
    faces.set_discovered(heard)
    assert manager.neighbors == [configured[0], heard[0]]
    configured.append(Neighbor("b", "tcp4://10.0.0.2:6363"))
    faces.apply()
    assert manager.neighbors == configured
    configured.pop()
    faces.apply()
    assert manager.neighbors == [configured[0], heard[0]]
    faces.set_discovered([])
    assert manager.neighbors == configured
