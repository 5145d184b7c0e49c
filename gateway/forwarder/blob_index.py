"""One blob's index file: the implicit digests of its packets, level by level, behind a header with size and root.

The digests of a level, 250 at a time, are the payloads of the pages above it: the file is all the pages as they
travel. In the file of a partial blob the pages that have not come are holes; after a restart every page is checked
against the digest above it, from the root down, so that a page torn by a power cut is simply fetched again.
"""

from __future__ import annotations

import hashlib
import os
import struct
from pathlib import Path

from gateway.protocol import names, objects
from gateway.protocol.errors import BlobError
from gateway.protocol.messages import BlobRef
from gateway.protocol.objects import DIGEST_BYTES, PAYLOAD_BYTES, PacketBuilder

# The network is in every packet's name, hence in every digest: an index is of no use to another one.
HEADER = struct.Struct(">8s8sQ32s32s")
_MAGIC = b"picassoI"


class DamagedIndex(BlobError):
    """A file that is no index of the blob it should describe."""


class BlobIndex:
    """An open index file; it knows which of its pages are held."""

    def __init__(self, handle: int, network: names.Network, ref: BlobRef, is_whole: bool) -> None:
        self.ref, self._handle, self._blob = ref, handle, network.blob(ref.sha256)
        self.counts = objects.level_counts(ref.size)
        self._starts = region_starts(self.counts)
        self._held = [bytearray((is_whole,)) * count for count in self.counts]
        self._cached_page, self._cached = -1, b""

    @classmethod
    def create(cls, path: Path, network: names.Network, ref: BlobRef, levels: list[bytes] | None = None) -> BlobIndex:
        """A new file, on the disk when this returns; of all digests, or empty when there are none yet."""
        temporary = path.with_name(f".{path.name}.new")
        handle = os.open(temporary, os.O_RDWR | os.O_CREAT | os.O_TRUNC, 0o644)
        try:
            index = cls(handle, network, ref, levels is not None)
            os.write(handle, HEADER.pack(_MAGIC, _mark(network), ref.size, ref.sha256, ref.root))
            os.ftruncate(handle, index._starts[-1])
            for start, digests in zip(index._starts[:-1], levels or (), strict=False):
                os.pwrite(handle, digests, start)
            os.fsync(handle)
            os.replace(temporary, path)
        except BaseException:
            os.close(handle)
            temporary.unlink(missing_ok=True)
            raise
        return index

    @classmethod
    def open(cls, path: Path, network: names.Network, is_whole: bool) -> BlobIndex:
        """Raises DamagedIndex or OSError; of a partial blob no page is held before `verify`."""
        handle = os.open(path, os.O_RDWR)
        try:
            return cls(handle, network, _read_header(path, handle, network), is_whole)
        except BaseException:
            os.close(handle)
            raise

    @property
    def sha256(self) -> bytes:
        return self.ref.sha256

    def digest(self, level: int, index: int) -> bytes:
        """The implicit digest of a packet; of any value while the page that holds it is missing."""
        if level == len(self.counts) - 1:
            return self.ref.root
        if level:
            return os.pread(self._handle, DIGEST_BYTES, self._starts[level] + index * DIGEST_BYTES)
        number, at = divmod(index * DIGEST_BYTES, PAYLOAD_BYTES)
        if number != self._cached_page:
            self._cached_page, self._cached = number, self.page(1, number)
        return self._cached[at : at + DIGEST_BYTES]

    def holds(self, level: int, index: int) -> bool:
        return bool(self._held[level][index])

    def page(self, level: int, index: int) -> bytes:
        """The payload of a page of the index."""
        size = objects.payload_bytes(self.ref.size, level, index)
        return os.pread(self._handle, size, self._starts[level - 1] + index * PAYLOAD_BYTES)

    def write_page(self, level: int, index: int, payload: bytes) -> None:
        """Stores a page that was verified."""
        os.pwrite(self._handle, payload, self._starts[level - 1] + index * PAYLOAD_BYTES)
        self._held[level][index] = True
        self._cached_page = -1

    def verify(self) -> None:
        """Finds out which pages are held, from the root down."""
        for level in range(len(self.counts) - 1, 0, -1):
            builder = PacketBuilder(self._blob, level, self.counts[level])
            for index in range(self.counts[level]):
                above = level + 1 == len(self.counts) or self.holds(level + 1, index // objects.FANOUT)
                if above:
                    packet = builder.build(index, self.page(level, index))
                    self._held[level][index] = hashlib.sha256(packet).digest() == self.digest(level, index)

    def sync(self) -> None:
        os.fsync(self._handle)

    def close(self) -> None:
        os.close(self._handle)


def region_starts(counts: list[int]) -> list[int]:
    """Where the digests of each level but the root's begin in the file, and the file's length."""
    starts = [HEADER.size]
    for count in counts[:-1]:
        starts.append(starts[-1] + count * DIGEST_BYTES)
    return starts


def file_bytes(size: int) -> int:
    """The length of the index file of a blob of `size` bytes."""
    return region_starts(objects.level_counts(size))[-1]


def read_ref(path: Path, network: names.Network) -> BlobRef:
    """The blob that an index file describes; raises DamagedIndex or OSError."""
    handle = os.open(path, os.O_RDONLY)
    try:
        return _read_header(path, handle, network)
    finally:
        os.close(handle)


def _mark(network: names.Network) -> bytes:
    return hashlib.sha256(network.prefix).digest()[:8]


def _read_header(path: Path, handle: int, network: names.Network) -> BlobRef:
    header = os.pread(handle, HEADER.size, 0)
    if len(header) != HEADER.size or not header.startswith(_MAGIC):
        raise DamagedIndex(f"{path} is not the index of a blob")
    _, mark, size, sha256, root = HEADER.unpack(header)
    if mark != _mark(network):
        raise DamagedIndex(f"{path} is an index of another network than {network.uri}")
    ref = BlobRef(sha256, size, root)
    if sha256.hex() != path.name or size > objects.MAX_BLOB_BYTES or os.fstat(handle).st_size != file_bytes(size):
        raise DamagedIndex(f"{path} is not the index of the blob it is named after")
    return ref
