"""The files of a blob store, and what of them is believed after a crash.

    blobs/sha256/<hex>     whole blobs, checked; the layout of an OCI image's blobs
    partial/<hex>          what has arrived of a blob, sparse; only verified segments are written
    partial/<hex>.bitmap   which segments were on the disk when it was written
    index/<hex>            the digests of every packet (see blob_index.py)

A blob becomes whole by a rename after its data and index are on the disk, so that whatever has its name is whole. Of
a partial blob at least what its bitmap says is there.
"""

from __future__ import annotations

import hashlib
import logging
import os
from contextlib import suppress
from pathlib import Path

from gateway.files import sync_directory
from gateway.forwarder import blob_index
from gateway.forwarder.blob_index import BlobIndex, DamagedIndex
from gateway.forwarder.blob_source import Owner, PartialBlob, Source
from gateway.protocol import names, objects
from gateway.protocol.messages import BlobRef
from gateway.protocol.objects import PAYLOAD_BYTES

log = logging.getLogger(__name__)


class BlobFiles:
    """The four kinds of files in one directory; blocking, and not for two writers at once."""

    def __init__(self, directory: Path, network: names.Network) -> None:
        self.network = network
        self._blobs = directory / "blobs" / "sha256"
        self._partials, self._indices = directory / "partial", directory / "index"
        for folder in (self._blobs, self._partials, self._indices):
            folder.mkdir(parents=True, exist_ok=True)

    def whole(self, sha256: bytes) -> Path:
        return self._blobs / sha256.hex()

    def partial(self, sha256: bytes) -> Path:
        return self._partials / sha256.hex()

    def bitmap(self, sha256: bytes) -> Path:
        return self._partials / f"{sha256.hex()}.bitmap"

    def index(self, sha256: bytes) -> Path:
        return self._indices / sha256.hex()

    def new(self) -> Path:
        """A free name for content whose hash is not known yet; the next start removes what is left there."""
        return self._partials / f".{os.urandom(8).hex()}.new"

    # --- opening

    def open_whole(self, sha256: bytes) -> Source:
        index = BlobIndex.open(self.index(sha256), self.network, is_whole=True)
        path = self.whole(sha256)
        try:
            handle = os.open(path, os.O_RDONLY)
        except OSError:
            index.close()
            raise
        with suppress(OSError):
            os.utime(path)  # so that the order of use survives a restart
        return Source(self.network.blob(sha256), handle, index)

    def open_partial(self, owner: Owner, ref: BlobRef) -> PartialBlob:
        """What is there of a partial blob, created when nothing is."""
        index_path = self.index(ref.sha256)
        try:
            index = BlobIndex.open(index_path, self.network, is_whole=False)
        except (OSError, DamagedIndex):
            index = BlobIndex.create(index_path, self.network, ref)
        try:
            index.verify()
            handle = os.open(self.partial(ref.sha256), os.O_RDWR | os.O_CREAT, 0o644)
        except BaseException:
            index.close()
            raise
        bitmap = bytearray(-(-index.counts[0] // 8))
        if os.fstat(handle).st_size == ref.size:
            bitmap = self._read_bitmap(ref.sha256, index.counts[0]) or bitmap
        os.ftruncate(handle, ref.size)
        return PartialBlob(owner, ref, handle, index, bitmap, self.bitmap(ref.sha256))

    def has_segments(self, sha256: bytes) -> bool:
        """Whether the bitmap of a partial blob says that something has arrived."""
        try:
            return any(self.bitmap(sha256).read_bytes())
        except OSError:
            return False

    def _read_bitmap(self, sha256: bytes, count: int) -> bytearray | None:
        try:
            bitmap = bytearray(self.bitmap(sha256).read_bytes())
        except OSError:
            return None
        excess = len(bitmap) * 8 - count
        if not 0 <= excess < 8 or bitmap[-1] >> (8 - excess):
            return None
        return bitmap

    # --- changing

    def write_index(self, handle: int, sha256: bytes, size: int) -> BlobRef:
        """The BlobRef of an open file whose hash is known, after its index was written."""
        ref, leaves = objects.describe(
            self.network, sha256, size, lambda i: os.pread(handle, PAYLOAD_BYTES, i * PAYLOAD_BYTES)
        )
        levels = objects.digest_levels(self.network.blob(sha256), leaves)
        BlobIndex.create(self.index(sha256), self.network, ref, levels).close()
        return ref

    def publish(self, path: Path, sha256: bytes) -> None:
        """The rename that makes a blob whole; its data and index are on the disk already."""
        sync_directory(self._indices)
        os.replace(path, self.whole(sha256))
        sync_directory(self._blobs)

    def remove_whole(self, sha256: bytes) -> None:
        self.whole(sha256).unlink(missing_ok=True)
        self.index(sha256).unlink(missing_ok=True)

    def remove_partial(self, sha256: bytes) -> None:
        """Removes what is left of a partial blob; the index stays if the blob is whole."""
        self.bitmap(sha256).unlink(missing_ok=True)
        self.partial(sha256).unlink(missing_ok=True)
        if not self.whole(sha256).exists():
            self.index(sha256).unlink(missing_ok=True)

    # --- start

    def load(self) -> tuple[list[BlobRef], list[BlobRef]]:
        """The whole blobs, used longest ago first, and the partial ones.

        Leftovers of a crash are removed, files of other names left alone.
        """
        for folder in (self._partials, self._indices):
            for path in folder.glob(".*.new"):
                path.unlink()
        found = {path: path.stat().st_mtime for path in self._blobs.iterdir() if _sha256_of(path)}
        whole = [ref for path in sorted(found, key=found.__getitem__) if (ref := self._load_whole(path))]
        arriving = {sha256 for path in self._partials.iterdir() if (sha256 := _sha256_of(path.with_suffix("")))}
        partial = [ref for sha256 in sorted(arriving) if (ref := self._load_partial(sha256))]
        known = {ref.sha256 for ref in whole + partial}
        for path in list(self._indices.iterdir()):
            if (sha256 := _sha256_of(path)) is not None and sha256 not in known:
                path.unlink()
        return whole, partial

    def _load_whole(self, path: Path) -> BlobRef | None:
        sha256, ref = bytes.fromhex(path.name), None
        with suppress(OSError, DamagedIndex):
            ref = blob_index.read_ref(self.index(sha256), self.network)
        if ref is None:
            ref = self._index_again(path, sha256)
        if ref is None or ref.size != path.stat().st_size:
            log.error("%s does not hold the blob that it is named after; it is removed", path)
            self.remove_whole(sha256)
            return None
        return ref

    def _index_again(self, path: Path, sha256: bytes) -> BlobRef | None:
        """The BlobRef of a file without index, which is written; None when its bytes are not those of its name."""
        with path.open("rb") as file:
            if hashlib.file_digest(file, "sha256").digest() != sha256:
                return None
            return self.write_index(file.fileno(), sha256, path.stat().st_size)

    def _load_partial(self, sha256: bytes) -> BlobRef | None:
        if self.partial(sha256).exists() and not self.whole(sha256).exists():
            with suppress(OSError, DamagedIndex):
                return blob_index.read_ref(self.index(sha256), self.network)
        self.remove_partial(sha256)
        return None


def _sha256_of(path: Path) -> bytes | None:
    return objects.parse_blob_component(names.component(path.name))
