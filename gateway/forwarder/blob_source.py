"""The open files of one blob, whole or on its way, and the packets built from them."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

from gateway.files import replace_file
from gateway.forwarder.blob_index import BlobIndex
from gateway.protocol import names, objects
from gateway.protocol.errors import BlobError
from gateway.protocol.messages import BlobRef
from gateway.protocol.names import Name
from gateway.protocol.objects import PAYLOAD_BYTES, PacketBuilder

# A fetch that brought nothing for so long brings nothing soon, and whoever asks had better ask elsewhere.
ARRIVING_S = 2.0


class StorageFull(BlobError):
    """No room for a blob although everything that may be evicted was; the text says how much is missing."""


class Owner(Protocol):
    """What a partial blob needs of the store that it belongs to."""

    directory: Path
    network: names.Network

    def is_current(self, partial: PartialBlob) -> bool: ...
    def has(self, sha256: bytes) -> bool: ...
    def path(self, sha256: bytes) -> Path: ...
    def commit(self, partial: PartialBlob) -> Path: ...
    def discard(self, sha256: bytes) -> None: ...


class Source:
    """The open files of one blob and what builds its packets."""

    def __init__(self, blob: Name, data: int, index: BlobIndex) -> None:
        self.data, self.index = data, index
        self.builders = [PacketBuilder(blob, level, count) for level, count in enumerate(index.counts)]

    def holds(self, level: int, index: int) -> bool:
        return True

    def packet(self, level: int, index: int, digest: bytes | None) -> bytes | None:
        if level >= len(self.index.counts) or index >= self.index.counts[level] or not self.holds(level, index):
            return None
        if digest is not None and self.index.digest(level, index) != digest:
            return None
        payload = self.index.page(level, index) if level else os.pread(self.data, PAYLOAD_BYTES, index * PAYLOAD_BYTES)
        return self.builders[level].build(index, payload)

    def close(self) -> None:
        if self.data >= 0:
            os.close(self.data)
            self.index.close()
            self.data = -1


class PartialBlob(Source):
    """A blob on its way: takes verified packets in any order and becomes whole by `finish`."""

    def __init__(
        self, store: Owner, ref: BlobRef, data: int, index: BlobIndex, bitmap: bytearray, bitmap_path: Path
    ) -> None:
        super().__init__(store.network.blob(ref.sha256), data, index)
        self.ref, self._store, self._bitmap, self._bitmap_path = ref, store, bitmap, bitmap_path
        self.users = 0
        self._progress = -1, 0.0
        self._is_synced = True
        self.held_bytes = self._count_held()

    def is_arriving(self, now: float) -> bool:
        """Whether more of it has come lately, as far as it was asked this question."""
        if self.held_bytes != self._progress[0]:
            self._progress = self.held_bytes, now
        return now - self._progress[1] < ARRIVING_S

    def holds(self, level: int, index: int) -> bool:
        if level:
            return self.index.holds(level, index)
        return bool(self._bitmap[index >> 3] >> (index & 7) & 1)

    def missing(self, level: int = 0) -> Iterator[int]:
        """The indices that are not held on a level: 0 are the segments, above are the pages of the index."""
        return (i for i in range(self.index.counts[level]) if not self.holds(level, i))

    def digest(self, index: int, level: int = 0) -> bytes:
        """The implicit digest to ask for; the page above must be held."""
        return self.index.digest(level, index)

    def write(self, index: int, payload: bytes, level: int = 0) -> None:
        """Stores the payload of a packet whose digest was verified; raises BlobError when it has another length."""
        objects.check_payload(self.ref, level, index, payload)
        try:
            if level:
                self.index.write_page(level, index, payload)
            elif not self.holds(0, index):
                os.pwrite(self.data, payload, index * PAYLOAD_BYTES)
                self._bitmap[index >> 3] |= 1 << (index & 7)
                self.held_bytes += len(payload)
            else:
                return
            self._is_synced = False
        except OSError as error:
            raise StorageFull(f"{self._store.directory}: {error.strerror}") from error

    def recover(self) -> None:
        """Finds the segments that were written after the last bitmap, by their digests. Blocking.

        After a power cut some of them are garbage, after a crash of this program none.
        """
        for index in list(self.missing()):
            if len(self.index.counts) > 1 and not self.index.holds(1, index // objects.FANOUT):
                continue
            packet = self.builders[0].build(index, os.pread(self.data, PAYLOAD_BYTES, index * PAYLOAD_BYTES))
            if hashlib.sha256(packet).digest() == self.digest(index):
                self._bitmap[index >> 3] |= 1 << (index & 7)
                self._is_synced = False
        self.held_bytes = self._count_held()

    def sync(self) -> None:
        """Brings what has arrived since the last time to the disk, then says so in the bitmap. Blocking."""
        if self._is_synced:
            return
        self._is_synced = True  # what comes meanwhile is for the next time
        try:
            bitmap = bytes(self._bitmap)
            os.fdatasync(self.data)
            self.index.sync()
            if self._store.is_current(self):
                replace_file(self._bitmap_path, bitmap, 0o644)
        except OSError:
            self._is_synced = False
            raise

    def finish(self) -> Path:
        """The path of the blob, now whole, checked and on the disk; raises BlobError and discards it. Blocking."""
        if not self._store.is_current(self) and self._store.has(self.ref.sha256):
            return self._store.path(self.ref.sha256)
        if (segment := next(self.missing(), None)) is not None:
            raise BlobError(f"blob {self.ref.sha256.hex()}: segment {segment} is missing")
        try:
            self._check()
        except BlobError:
            self._store.discard(self.ref.sha256)
            raise
        os.fsync(self.data)
        self.index.sync()
        return self._store.commit(self)

    def _check(self) -> None:
        whole, leaves = hashlib.sha256(), bytearray()
        for index in range(self.index.counts[0]):
            payload = os.pread(self.data, PAYLOAD_BYTES, index * PAYLOAD_BYTES)
            whole.update(payload)
            leaves += hashlib.sha256(self.builders[0].build(index, payload)).digest()
        sha256, root = (
            whole.digest(),
            objects.digest_levels(self._store.network.blob(self.ref.sha256), bytes(leaves))[-1],
        )
        if sha256 != self.ref.sha256:
            raise BlobError(
                f"blob {self.ref.sha256.hex()} has SHA-256 {sha256.hex()}: its root lies or the disk failed"
            )
        if root != self.ref.root:
            raise BlobError(f"blob {sha256.hex()} was announced with root {self.ref.root.hex()}, it has {root.hex()}")

    def _count_held(self) -> int:
        last = self.index.counts[0] - 1
        held = int.from_bytes(self._bitmap, "big").bit_count() * PAYLOAD_BYTES
        short = PAYLOAD_BYTES - objects.payload_bytes(self.ref.size, 0, last)
        return held - short if self.holds(0, last) else held
