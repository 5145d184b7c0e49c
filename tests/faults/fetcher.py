"""A small gateway that fetches one blob over TCP and says so: the process that the tests kill.

python -m tests.faults.fetcher DIRECTORY PORT SHA256 SIZE ROOT
"""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

from gateway.forwarder.blobs import BlobStore
from gateway.forwarder.consumer import Consumer
from gateway.forwarder.content_store import ContentStore
from gateway.forwarder.faces.manager import FaceManager, Neighbor
from gateway.forwarder.forwarder import Forwarder
from gateway.protocol import names
from gateway.protocol.messages import BlobRef

NETWORK = names.Network("/test/net")
HOLDER = NETWORK.node("holder")


async def fetch(directory: Path, port: int, ref: BlobRef) -> None:
    store = BlobStore(directory, NETWORK)
    forwarder = Forwarder(ContentStore(1 << 20), store, region=(NETWORK.node("me"),), blobs=NETWORK.blobs)
    manager = FaceManager(forwarder)
    await manager.start((), [Neighbor("holder", f"tcp4://127.0.0.1:{port}")])
    while (face := manager.face_of("holder")) is None:  # noqa: ASYNC110 - its name is being resolved
        await asyncio.sleep(0.01)
    forwarder.fib.add(HOLDER, face.id, 1, "static")
    consumer = Consumer(manager.internal("client").endpoint, NETWORK)
    manager.on_face_up = lambda face_id: consumer.nudge()
    print("started", flush=True)
    await consumer.fetch_blob(ref, store, [HOLDER], patience_s=60)
    print("whole", flush=True)
    await manager.stop()
    store.close()


if __name__ == "__main__":
    where, at, sha256, size, root = sys.argv[1:]
    asyncio.run(fetch(Path(where), int(at), BlobRef(bytes.fromhex(sha256), int(size), bytes.fromhex(root))))
