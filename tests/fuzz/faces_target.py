"""Real faces on real sockets: what anybody on the network or on this machine may send them."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import socket
import tempfile
from pathlib import Path
from typing import Any

from gateway.forwarder.content_store import ContentStore
from gateway.forwarder.faces.manager import FaceManager
from gateway.forwarder.forwarder import Forwarder
from gateway.protocol import names
from tests.fuzz import scripts, seeds

STORE_BYTES = 1 << 16
# Turns of the loop in which what was sent is read and answered.
_TURNS = 8
_HOST = "127.0.0.1"


class _World:
    """A forwarder with a unix socket, a TCP and a UDP port, and one peer at each."""

    def __init__(self, directory: Path) -> None:
        self.forwarder = Forwarder(ContentStore(STORE_BYTES))
        self.manager = FaceManager(self.forwarder)
        self._path = directory / f"{os.getpid()}.sock"
        self.peers: list[socket.socket] = []

    async def start(self) -> None:
        kinds = {"unix": f"unix://{self._path}", "tcp": f"tcp4://{_HOST}:0", "udp": f"udp4://{_HOST}:0"}
        await self.manager.start(kinds.values(), [])
        ports = {kind[:3]: port for kind, _, port in self.manager.listening}
        unix, tcp, udp = socket.socket(socket.AF_UNIX), socket.socket(), socket.socket(type=socket.SOCK_DGRAM)
        self.peers = [unix, tcp, udp]
        unix.connect(str(self._path))
        tcp.connect((_HOST, ports["tcp"]))
        udp.connect((_HOST, ports["udp"]))
        for peer in self.peers:
            peer.setblocking(False)
        await self.settle()
        for face in list(self.forwarder.faces.values()):
            self.forwarder.fib.add(names.parse("/net"), face.id, 1, "static")

    def send(self, peer: int, wire: bytes) -> None:
        with contextlib.suppress(OSError):  # closed for what it sent before, or more than the socket takes
            self.peers[peer % len(self.peers)].send(wire)
            for other in self.peers:
                other.recv(1 << 16)

    async def settle(self) -> None:
        for _ in range(_TURNS):
            await asyncio.sleep(0)

    async def stop(self) -> None:
        for peer in self.peers:
            peer.close()
        await self.settle()
        streams = [face.uri for face in self.forwarder.faces.values() if not face.uri.startswith("udp")]
        await self.manager.stop()
        assert streams == [], "a face whose peer has gone"
        assert not self.forwarder.faces


def faces(script: bytes) -> None:
    """Peers send bytes; the loop sees no exception, and every face is gone with its peer."""
    asyncio.run(_play(script))


async def _play(script: bytes) -> None:
    logging.disable(logging.WARNING)
    failures: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: failures.append(context))
    with tempfile.TemporaryDirectory(prefix="picasso-fuzz-") as directory:
        world = _World(Path(directory))
        await world.start()
        for peer, wire in scripts.steps(script):
            world.send(peer & 3, wire)
            await world.settle()
        assert world.forwarder.content_store.size_bytes <= STORE_BYTES
        await world.stop()
    for failure in failures:
        raise AssertionError(failure["message"]) from failure.get("exception")


def seed_scripts() -> list[bytes]:
    """Packets of every kind to each face, whole, several at once, in pieces, and fragments."""
    found = list(seeds.fragment_scripts())
    for peer in range(3):
        wires = seeds.links()
        found.append(b"".join(scripts.step(peer, 0, wire) for wire in wires))
        found.append(scripts.step(peer, 0, b"".join(wires)))
        found.append(b"".join(scripts.step(peer, 0, bytes(wires[0][at : at + 7])) for at in range(0, len(wires[0]), 7)))
    return found
