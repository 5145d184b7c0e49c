"""The node's consumer and disk store, as the placement client and custody want them."""

from __future__ import annotations

import errno
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path

from gateway.forwarder.blobs import BlobStore
from gateway.forwarder.consumer import PATIENCE_S, Consumer, StorageFull
from gateway.protocol import names
from gateway.protocol.messages import BlobRef

Progress = Callable[[int, int], None]


class Fetcher:
    """Fetches as the consumer does, for all who fetch here, and counts in `running` the blobs that are on their way.

    `arrive` is awaited before holders are asked: it may dial one that no route leads to.
    """

    def __init__(self, consumer: Consumer, arrive: Callable[[Sequence[names.Name]], Awaitable[None]]) -> None:
        self.consumer, self._arrive = consumer, arrive
        self.network, self.nudge = consumer.network, consumer.nudge
        self.running = 0

    async def fetch_blob(
        self,
        ref: BlobRef,
        store: BlobStore,
        hints: Sequence[names.Name],
        progress: Progress | None = None,
        patience_s: float = PATIENCE_S,
    ) -> Path:
        self.running += 1
        try:
            await self._arrive(hints)
            return await self.consumer.fetch_blob(ref, store, hints, progress, patience_s)
        finally:
            self.running -= 1

    async def fetch_bytes(self, ref: BlobRef, hints: Sequence[names.Name]) -> bytes:
        await self._arrive(hints)
        return await self.consumer.fetch_bytes(ref, hints)


class StoreBlobs:
    """The disk store and what fills it (placement_client.ports.Blobs); no store has no blobs."""

    def __init__(self, fetcher: Fetcher, store: BlobStore | None) -> None:
        self._fetcher, self._store = fetcher, store
        self.fetch_bytes = fetcher.fetch_bytes

    def has(self, sha256: bytes) -> bool:
        return self._store is not None and self._store.has(sha256)

    async def fetch_blob(self, ref: BlobRef, hints: Sequence[names.Name], progress: Progress | None = None) -> Path:
        if self._store is None:
            raise OSError(errno.ENOENT, "forwarder.blob_dir is not set: there is nowhere to keep a blob")
        try:
            return await self._fetcher.fetch_blob(ref, self._store, hints, progress)
        except StorageFull as error:
            raise OSError(errno.ENOSPC, str(error)) from error  # our disk's fault, not a peer's
