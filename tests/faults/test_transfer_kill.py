"""kill -9 at random moments of a transfer over a flapping link: every blob arrives whole, nothing is fetched twice."""

from __future__ import annotations

import asyncio
import contextlib
import random
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from gateway.forwarder.blobs import BlobStore
from gateway.forwarder.content_store import ContentStore
from gateway.forwarder.faces.manager import FaceManager
from gateway.forwarder.forwarder import Forwarder
from gateway.protocol import objects
from gateway.protocol.messages import BlobRef
from gateway.protocol.names import Name
from tests.faults.fetcher import HOLDER, NETWORK
from tests.forwarder.test_faces import free_port

ROOT = Path(__file__).parents[2]
PAYLOAD = objects.PAYLOAD_BYTES
BLOB_BYTES = 500 * PAYLOAD + 77
LINK_BYTES_S = 2_000_000
KILL_S = 0.05, 0.6
UP_S, DOWN_S = (0.2, 1.5), 0.1


class CountingStore(BlobStore):
    """Notes which segments it gave out."""

    def __init__(self, directory: Path) -> None:
        super().__init__(directory, NETWORK)
        self.served: list[int] = []

    def find(self, name: Name, can_be_prefix: bool = False, digest: bytes | None = None) -> bytes | None:
        wire = super().find(name, can_be_prefix, digest)
        position = objects.parse_packet_name(NETWORK.blobs, name)
        if wire is not None and position is not None and position[1] == 0:
            self.served.append(position[2])
        return wire


class FlappingLink:
    """Carries TCP to a port at a limited rate, and breaks every connection again and again."""

    def __init__(self, to: int, chance: random.Random) -> None:
        self.port, self._to, self._chance = free_port("127.0.0.1"), to, chance
        self._pipes: set[asyncio.Task[None]] = set()
        self._is_up = True
        self.breaks = 0

    async def run(self) -> None:
        async with await asyncio.start_server(self._carry, "127.0.0.1", self.port):
            while True:
                await asyncio.sleep(self._chance.uniform(*UP_S))
                self.breaks += bool(self._pipes)
                self._is_up = False
                self.cut()
                await asyncio.sleep(DOWN_S)
                self._is_up = True

    def cut(self) -> None:
        for pipe in self._pipes:
            pipe.cancel()

    async def quiet(self) -> None:
        """Nothing is on its way any more."""
        self.cut()
        while self._pipes:  # noqa: ASYNC110 - they are only cancelled
            await asyncio.sleep(0.005)

    async def _carry(self, near: asyncio.StreamReader, back: asyncio.StreamWriter) -> None:
        if not self._is_up:
            back.close()
            return
        try:
            far, there = await asyncio.open_connection("127.0.0.1", self._to)
        except OSError:
            back.close()
            return
        for reader, writer in ((near, there), (far, back)):
            pipe = asyncio.ensure_future(self._pump(reader, writer))
            self._pipes.add(pipe)
            pipe.add_done_callback(self._pipes.discard)

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while chunk := await reader.read(16_384):
                await asyncio.sleep(len(chunk) / LINK_BYTES_S)
                writer.write(chunk)
        except OSError:
            pass
        finally:
            writer.transport.abort()


class World:
    """The holder with its blobs on a real face, the link to it, and the disk of the fetcher."""

    def __init__(self, directory: Path, chance: random.Random) -> None:
        self.store = CountingStore(directory / "theirs")
        self.disk, self.chance = directory / "mine", chance
        self.ref: BlobRef
        self.content = b""
        self.kills = 0

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        # A content store would answer repeated questions, and they would not be counted.
        forwarder = Forwarder(ContentStore(0), self.store, region=(HOLDER,), blobs=NETWORK.blobs)
        manager, port = FaceManager(forwarder), free_port("127.0.0.1")
        await manager.start([f"tcp4://127.0.0.1:{port}"], [])
        self.link = FlappingLink(port, self.chance)
        flapping = asyncio.ensure_future(self.link.run())
        try:
            yield
        finally:
            flapping.cancel()
            self.link.cut()
            await manager.stop()
            self.store.close()

    def publish(self, number: int) -> None:
        self.content = random.Random(number).randbytes(BLOB_BYTES)
        self.ref = self.store.add_bytes(self.content)

    def on_disk(self) -> set[int]:
        """The segments whose right bytes are in the fetcher's files, by whatever it knows of them."""
        path = self.disk / "partial" / self.ref.sha256.hex()
        found = path.read_bytes() if path.exists() else b""
        starts = range(0, len(found), PAYLOAD)
        return {at // PAYLOAD for at in starts if found[at : at + PAYLOAD] == self.content[at : at + PAYLOAD]}

    async def fetch_once(self, is_killed: bool) -> bool:
        """Starts the fetcher and kills it some time later; whether it was done before. Checks what it asked for."""
        held = self.on_disk()
        self.store.served.clear()
        ref = self.ref
        arguments = [str(self.disk), str(self.link.port), ref.sha256.hex(), str(ref.size), ref.root.hex()]
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "tests.faults.fetcher", *arguments, cwd=ROOT, stdout=asyncio.subprocess.PIPE
        )
        assert process.stdout is not None
        try:
            assert await asyncio.wait_for(process.stdout.readline(), 30) == b"started\n"
            last = asyncio.ensure_future(process.stdout.readline())
            await asyncio.wait({last}, timeout=self.chance.uniform(*KILL_S) if is_killed else 60)
            is_done = last.done() and last.result() == b"whole\n"
            last.cancel()
        finally:
            if process.returncode is None:
                process.kill()
            await process.wait()
        self.kills += not is_done
        await self.link.quiet()
        again = held & set(self.store.served)
        assert not again, f"{len(again)} segments that were on the disk were fetched again, {min(again)} first"
        return is_done


async def kill_until(world: World, kills: int) -> None:
    number = 0
    while world.kills < kills:
        world.publish(number)
        while not await world.fetch_once(is_killed=world.kills < kills):
            pass
        path = world.disk / "blobs" / "sha256" / world.ref.sha256.hex()
        assert path.read_bytes() == world.content
        assert not list((world.disk / "partial").iterdir())
        number += 1


def run_kills(directory: Path, kills: int, seed: int) -> World:
    async def scenario() -> World:
        world = World(directory, random.Random(seed))
        async with world.running():
            await kill_until(world, kills)
        return world

    return asyncio.run(scenario())


def test_twenty_kills_lose_nothing(tmp_path: Path) -> None:
    """A fetcher killed 20 times carries on each time with what is on its disk, and asks for none of that again."""
    world = run_kills(tmp_path, 20, seed=4)
    assert world.kills >= 20 and world.link.breaks >= 3


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_two_hundred_kills_lose_nothing(tmp_path: Path) -> None:
    """The same 200 times, over many blobs."""
    world = run_kills(tmp_path, 200, seed=5)
    assert world.kills >= 200 and world.link.breaks >= 30
