"""The disk's slowness is the disk's: what memory holds is answered at once while a large blob is taken in."""

from __future__ import annotations

import asyncio
import io
import socket
import statistics
import threading
import time
from collections.abc import Callable
from pathlib import Path

from gateway.forwarder import packet
from gateway.forwarder.blobs import BlobStore
from gateway.forwarder.content_store import ContentStore
from gateway.forwarder.faces.manager import FaceManager
from gateway.forwarder.forwarder import Forwarder
from gateway.protocol import names
from tests.simulation.network import data

BLOB_BYTES = 64 << 20
# One step of the event loop that hashes or syncs such a blob takes many times as long.
LATE_S = 0.1


def test_hits_are_answered_while_a_large_blob_is_written(tmp_path: Path) -> None:
    """Hashing, writing and syncing 64 MB has a thread of its own: no hit waits for it, and the median is a few ms."""
    during = asyncio.run(_waits(tmp_path, lambda store: store.run(store.add, io.BytesIO(bytes(BLOB_BYTES)))))
    assert len(during) >= 50
    assert max(during) < LATE_S, f"a hit took {max(during):.3f} s of {len(during)}"
    assert statistics.median(during) < 0.01


async def _waits(tmp_path: Path, write: Callable[[BlobStore], object]) -> list[float]:
    """How long each hit took while the write went on."""
    store = BlobStore(tmp_path / "blobs", names.Network("/net"))
    forwarder = Forwarder(ContentStore(1 << 20), store)
    forwarder.content_store.insert(packet.decode_data(data("/p", b"x" * 1000)), 0.0)
    manager = FaceManager(forwarder)
    await manager.start([f"unix://{tmp_path}/ndn.sock"], ())
    waits: list[float] = []
    is_done = threading.Event()
    asking = asyncio.get_running_loop().run_in_executor(None, _ask, str(tmp_path / "ndn.sock"), waits, is_done)
    try:
        await write(store)  # type: ignore[misc]
    finally:
        is_done.set()
        await asking
        await manager.stop()
        store.close()
    return waits


def _ask(path: str, waits: list[float], is_done: threading.Event) -> None:
    with socket.socket(socket.AF_UNIX) as application:
        application.settimeout(30)
        application.connect(path)
        while not is_done.is_set():
            began = time.perf_counter()
            application.sendall(packet.encode_interest(names.parse("/p"))[1])
            application.recv(9000)
            waits.append(time.perf_counter() - began)
            time.sleep(0.001)
