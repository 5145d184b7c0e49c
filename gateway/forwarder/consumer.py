"""Fetches blobs and segmented content over a face; applications need nothing of the forwarder but this and producer."""

from __future__ import annotations

import asyncio
import hashlib
import logging
from collections.abc import Callable, Iterator, Sequence
from functools import partial as partial_of
from pathlib import Path
from typing import Protocol
from weakref import WeakValueDictionary

from gateway.forwarder import packet
from gateway.forwarder.blob_source import PartialBlob, StorageFull
from gateway.forwarder.blobs import BlobStore
from gateway.forwarder.endpoint import Disconnected, Endpoint, FetchError, Nacked, TimedOut, connect
from gateway.forwarder.packet import Data, DecodeError, Interest
from gateway.forwarder.segmented import fetch_segmented
from gateway.forwarder.transfer import Counters, Job, Requester, Transfer
from gateway.protocol import names, objects
from gateway.protocol.errors import BlobError
from gateway.protocol.messages import BlobRef
from gateway.protocol.names import Name
from gateway.protocol.objects import DIGEST_BYTES

__all__ = [
    "Consumer",
    "Data",
    "Disconnected",
    "Endpoint",
    "FetchError",
    "Interest",
    "Nacked",
    "StorageFull",
    "TimedOut",
    "connect",
]

log = logging.getLogger(__name__)

PATIENCE_S = 30.0
# Sections and manifests are far smaller; what is larger belongs on the disk.
MEMORY_MAX_BYTES = 1 << 20
# How much a crash may cost: 4 MB, or what comes in 5 s. More often would wear the card out.
_SYNC_BYTES, _SYNC_INTERVAL_S = 4 << 20, 5.0

# A page of digests covers 250 segments: with two ahead, more than the largest window.
_PAGES_AHEAD = 2

Progress = Callable[[int, int], None]


class Consumer(Counters):
    """Fetches over one endpoint, below one network's names, and counts what it does."""

    def __init__(self, endpoint: Requester, network: names.Network) -> None:
        super().__init__()
        self.endpoint, self.network = endpoint, network
        self._transfers: dict[bytes, Transfer] = {}
        self._locks: WeakValueDictionary[bytes, asyncio.Lock] = WeakValueDictionary()

    async def fetch_blob(
        self,
        ref: BlobRef,
        store: BlobStore,
        hints: Sequence[Name] = (),
        progress: Progress | None = None,
        patience_s: float = PATIENCE_S,
    ) -> Path:
        """The path of the whole blob in the store, fetched where it is missing, from what is there of it.

        `hints` are the holders to ask in turn (`b""` asks without a hint), `progress` gets the bytes held and the size.
        Raises FetchError after `patience_s` without progress, BlobError when the BlobRef lies, StorageFull.
        What had arrived is kept when it fails or is cancelled. Who asks for a blob that is on its way waits with those
        who asked before, and the holders it names are asked first from now on.
        """
        if hints and (running := self._transfers.get(ref.sha256)) is not None:
            running.nudge(hints)
        lock = self._locks.setdefault(ref.sha256, asyncio.Lock())
        async with lock:
            if store.has(ref.sha256):
                return store.path(ref.sha256)
            partial = await store.run(store.begin, ref)
            try:
                note = _Notes(partial, store, progress)
                await self._fetch_levels(ref, partial, hints, patience_s, note)
                return await store.run(partial.finish)
            finally:
                await asyncio.shield(store.run(store.release, partial))

    def nudge(self) -> None:
        """A link or a neighbour has come back: what every transfer waits for is asked for again at once."""
        for transfer in self._transfers.values():
            transfer.nudge()

    async def fetch_bytes(self, ref: BlobRef, hints: Sequence[Name] = (), patience_s: float = PATIENCE_S) -> bytes:
        """A small blob in memory; raises FetchError, BlobError when the BlobRef lies or is of more than 1 MB."""
        objects.check(ref)
        if ref.size > MEMORY_MAX_BYTES:
            raise BlobError(f"blob {ref.sha256.hex()} has {ref.size} bytes, at most {MEMORY_MAX_BYTES} fit in memory")
        blob = _MemoryBlob(ref)
        await self._fetch_levels(ref, blob, hints, patience_s, None)
        content = b"".join(blob.payloads[0])
        found = hashlib.sha256(content).hexdigest()
        if found != ref.sha256.hex():
            raise BlobError(f"blob {ref.sha256.hex()} has SHA-256 {found}: its root lies")
        return content

    async def fetch_segmented(
        self,
        name: Name,
        write: Callable[[int, bytes], None],
        hints: Sequence[Name] = (),
        patience_s: float = PATIENCE_S,
    ) -> int:
        """Fetches any segmented object and gives its size; see segmented.fetch_segmented."""
        return await fetch_segmented(self.endpoint, self, name, write, hints, patience_s)

    async def _fetch_levels(
        self, ref: BlobRef, target: _Target, hints: Sequence[Name], patience_s: float, note: Callable[[], None] | None
    ) -> None:
        """From the root down: each page of the index holds the digests that the next level is asked by."""
        transfer = Transfer(self.endpoint, self, hints, patience_s, f"blob {ref.sha256.hex()}")
        self._transfers[ref.sha256] = transfer
        order = _Order(self.network.blob(ref.sha256), target, len(objects.level_counts(ref.size)))
        try:
            await transfer.run(order.next_job, partial_of(self._accept, target, note))
        finally:
            if self._transfers.get(ref.sha256) is transfer:
                del self._transfers[ref.sha256]

    def _accept(self, target: _Target, note: Callable[[], None] | None, job: Job, wire: bytes) -> None:
        """Takes a verified packet; raises BlobError when it can't be that part of the blob, for then the root lies."""
        try:
            start, stop = packet.content_span(wire)
        except DecodeError as error:
            raise BlobError(f"{names.to_uri(job.name)} is no segment: {error}: its root lies") from error
        target.write(job.index, wire[start:stop], job.level)
        self.bytes += stop - start
        if note is not None:
            note()


class _Target(Protocol):
    """Where the packets of a blob go: a PartialBlob or memory."""

    def holds(self, level: int, index: int) -> bool: ...
    def missing(self, level: int = 0) -> Iterator[int]: ...
    def digest(self, index: int, level: int = 0) -> bytes: ...
    def write(self, index: int, payload: bytes, level: int = 0) -> None: ...


class _Order:
    """In which order the packets of a blob are asked for: in that of the segments, each page of digests before its own.

    Pages are asked for a little ahead, so that no round trip is spent on waiting for one.
    """

    def __init__(self, blob: Name, target: _Target, levels: int) -> None:
        self._blob, self._target = blob, target
        self._missing = [target.missing(level) for level in range(levels)]
        self._next = [next(missing, None) for missing in self._missing]

    def next_job(self) -> Job | None:
        """The next packet whose digest is known; None when it is yet to come, or nothing is left to ask for."""
        for level in reversed(range(len(self._next))):
            index = self._next[level]
            if index is None or (level == 1 and self._is_far(index)):
                continue
            is_known = level + 1 == len(self._next) or self._target.holds(level + 1, index // objects.FANOUT)
            return self._take(level, index) if is_known else None
        return None

    def _is_far(self, page: int) -> bool:
        segment = self._next[0]
        if segment is None or not self._target.holds(1, segment // objects.FANOUT):
            return False
        return page > segment // objects.FANOUT + _PAGES_AHEAD

    def _take(self, level: int, index: int) -> Job:
        self._next[level] = next(self._missing[level], None)
        name = objects.packet_name(self._blob, level, index)
        return Job(index, name, self._target.digest(index, level), level)


class _Notes:
    """Called for every packet: tells the progress, and has what arrived synced now and then on the store's thread."""

    def __init__(self, partial: PartialBlob, store: BlobStore, progress: Progress | None) -> None:
        self._partial, self._store, self._progress = partial, store, progress
        self._clock = asyncio.get_running_loop().time
        self._syncing: asyncio.Future[None] | None = None
        self._mark()

    def _mark(self) -> None:
        self._next_bytes = self._partial.held_bytes + _SYNC_BYTES
        self._next_time = self._clock() + _SYNC_INTERVAL_S

    def __call__(self) -> None:
        held = self._partial.held_bytes
        if self._progress is not None:
            self._progress(held, self._partial.ref.size)
        if held < self._next_bytes and self._clock() < self._next_time:
            return
        if self._syncing is None or self._syncing.done():
            self._mark()
            self._syncing = asyncio.ensure_future(self._store.run(self._partial.sync))
            self._syncing.add_done_callback(self._synced)

    def _synced(self, syncing: asyncio.Future[None]) -> None:
        if not syncing.cancelled() and (error := syncing.exception()) is not None:
            log.warning("%s: what has arrived could not be synced: %s", self._store.directory, error)


class _MemoryBlob:
    """The packets of a small blob in memory."""

    def __init__(self, ref: BlobRef) -> None:
        self.ref, self.counts = ref, objects.level_counts(ref.size)
        self.payloads = [[b""] * count for count in self.counts]
        self._held: set[tuple[int, int]] = set()

    def holds(self, level: int, index: int) -> bool:
        return (level, index) in self._held

    def missing(self, level: int = 0) -> Iterator[int]:
        return iter(range(self.counts[level]))

    def digest(self, index: int, level: int = 0) -> bytes:
        if level + 1 == len(self.counts):
            return self.ref.root
        page, at = divmod(index, objects.FANOUT)
        return self.payloads[level + 1][page][at * DIGEST_BYTES : (at + 1) * DIGEST_BYTES]

    def write(self, index: int, payload: bytes, level: int = 0) -> None:
        objects.check_payload(self.ref, level, index, payload)
        self.payloads[level][index] = payload
        self._held.add((level, index))
