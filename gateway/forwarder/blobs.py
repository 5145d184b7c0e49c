"""The disk store: blobs by their SHA-256, whole or in part, and the packets that can be built from them.

Methods that write, hash or sync are blocking: call them by `run`, on the store's own thread. `find` belongs to the
event loop. The files are described in blob_files.py.
"""

from __future__ import annotations

import asyncio
import hashlib
import io
import os
import threading
from collections import OrderedDict
from collections.abc import Callable, Collection
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO, ParamSpec, TypeVar

from gateway.forwarder import blob_index
from gateway.forwarder.blob_files import BlobFiles
from gateway.forwarder.blob_source import PartialBlob, Source, StorageFull
from gateway.protocol import names, objects
from gateway.protocol.errors import BlobError
from gateway.protocol.messages import BlobRef
from gateway.protocol.names import Name

P = ParamSpec("P")
R = TypeVar("R")

# Each takes two file descriptors; a node serves a few layers at a time.
OPEN_BLOBS = 16
# What is left to the rest of the system, whatever the budget says.
KEEP_FREE_BYTES = 4 << 20
_COPY_BYTES = 1 << 20


class BlobStore:
    """The blobs of one node below one network's names, at most `budget_bytes` of them.

    Raises OSError when the directory cannot be used. Those of `evict_first` are evicted first, then the ones last used
    longest ago, pinned ones never.
    """

    def __init__(self, directory: Path, network: names.Network, budget_bytes: int | None = None) -> None:
        self.directory, self.network, self.budget_bytes = directory, network, budget_bytes
        self.hits = self.misses = self.evictions = 0
        self._files = BlobFiles(directory, network)
        self._lock = threading.RLock()  # the dictionaries below, and every descriptor's life; never held while syncing
        self._writer = threading.Lock()  # one addition, beginning or removal at a time
        self._worker = ThreadPoolExecutor(1, "blobs")
        whole, partial = self._files.load()
        self._whole = OrderedDict((ref.sha256, ref) for ref in whole)  # last used last
        self._unfinished = {ref.sha256: ref for ref in partial}
        self._open: OrderedDict[bytes, Source] = OrderedDict()  # by the component that names the blob
        self._fetching: dict[bytes, PartialBlob] = {}
        self._pinned: frozenset[bytes] = frozenset()
        self._first_victims: tuple[bytes, ...] = ()
        self._incoming_bytes = 0

    # --- reading

    def find(self, name: Name, can_be_prefix: bool = False, digest: bytes | None = None) -> bytes | None:
        """The Data packet of that name from a blob held whole or in part; None is a miss, as is another digest."""
        blobs = self.network.blobs
        if not name.startswith(blobs):
            return None
        tail_at = len(blobs) + objects.BLOB_COMPONENT_BYTES
        component, tail = name[len(blobs) : tail_at], name[tail_at:]
        position = (0, 0) if can_be_prefix and not tail else objects.parse_position(tail)
        if position is None:
            return None
        with self._lock:
            source = self._open.get(component)
            if source is None:
                source = self._open_source(component)
            else:
                self._open.move_to_end(component)
            packet = None if source is None else self._read(source, *position, digest)
        if packet is None:
            self.misses += 1
        else:
            self.hits += 1
        return packet

    def is_arriving(self, name: Name, now: float) -> bool:
        """Whether this node is fetching the blob of that packet for itself, and getting on with it."""
        blobs = self.network.blobs
        if not self._fetching or not name.startswith(blobs):
            return False
        sha256 = objects.parse_blob_component(name[len(blobs) : len(blobs) + objects.BLOB_COMPONENT_BYTES])
        partial = self._fetching.get(sha256) if sha256 is not None else None
        return partial is not None and partial.is_arriving(now)

    def _read(self, source: Source, level: int, index: int, digest: bytes | None) -> bytes | None:
        try:
            packet = source.packet(level, index, digest)
        except OSError:
            return None  # a failing disk is a miss: another node may answer
        if packet is not None and source.index.sha256 in self._whole:
            self._whole.move_to_end(source.index.sha256)
        return packet

    def has(self, sha256: bytes) -> bool:
        """Whether the blob is held whole."""
        return sha256 in self._whole

    def path(self, sha256: bytes) -> Path:
        """Where a whole blob lies; the file must be left as it is."""
        return self._files.whole(sha256)

    def ref(self, sha256: bytes) -> BlobRef | None:
        """Size and root of a blob held whole."""
        return self._whole.get(sha256)

    def complete(self) -> list[BlobRef]:
        """The blobs held whole, the ones used longest ago first."""
        with self._lock:
            return list(self._whole.values())

    def held(self) -> list[bytes]:
        """The SHA-256 of each blob held whole or in part: those on their way, then those used last."""
        with self._lock:
            return [*filter(self._has_some, reversed(self._unfinished)), *reversed(self._whole)]

    def _has_some(self, sha256: bytes) -> bool:
        """Whether anything of a partial blob is here: who only waits for it has nothing to offer."""
        partial = self._fetching.get(sha256)
        return partial.held_bytes > 0 if partial is not None else self._files.has_segments(sha256)

    @property
    def usage_bytes(self) -> int:
        """What the blobs take, an unfinished one counted as if it were whole."""
        with self._lock:
            return self._incoming_bytes + sum(map(_disk_bytes, [*self._whole.values(), *self._unfinished.values()]))

    # --- writing: blocking

    async def run(self, function: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
        """Calls a blocking function on the store's own thread."""
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._worker, lambda: function(*args, **kwargs))

    def add(self, source: Path | BinaryIO) -> BlobRef:
        """Takes in a file or a stream; raises OSError or StorageFull and leaves nothing behind."""
        if isinstance(source, Path):
            with source.open("rb") as file:
                return self.add(file)
        temporary = self._files.new()
        with self._writer:
            try:
                with temporary.open("w+b") as file:
                    sha256, size = self._copy(source, file)
                    return self._whole.get(sha256) or self._adopt(temporary, file.fileno(), sha256, size)
            finally:
                temporary.unlink(missing_ok=True)
                self._incoming_bytes = 0

    def add_bytes(self, content: bytes) -> BlobRef:
        """Takes in content that is in memory."""
        held = self._whole.get(hashlib.sha256(content).digest())
        if held is not None:
            return held
        return self.add(io.BytesIO(content))

    def _copy(self, source: BinaryIO, target: BinaryIO) -> tuple[bytes, int]:
        digest, size = hashlib.sha256(), 0
        while chunk := source.read(_COPY_BYTES):
            self._make_room(len(chunk), "a new blob")
            self._incoming_bytes += len(chunk)
            digest.update(chunk)
            target.write(chunk)
            size += len(chunk)
        target.flush()
        return digest.digest(), size

    def _adopt(self, path: Path, handle: int, sha256: bytes, size: int) -> BlobRef:
        """Makes a blob of a file whose hash is known: the index, then everything to the disk, then the rename."""
        self._drop_partial(sha256)
        ref = self._files.write_index(handle, sha256, size)
        os.fchmod(handle, 0o644)
        os.fsync(handle)
        self._publish(path, ref)
        return ref

    def _publish(self, path: Path, ref: BlobRef) -> None:
        self._files.publish(path, ref.sha256)
        with self._lock:
            self._whole[ref.sha256] = ref

    def begin(self, ref: BlobRef) -> PartialBlob:
        """The blob on its way, with what an earlier attempt has left; give it back with `release`.

        Raises BlobError for an impossible BlobRef, for a blob held whole or being fetched under another root,
        StorageFull when there is no room.
        """
        objects.check(ref)
        with self._writer:
            if ref.sha256 in self._whole:
                raise BlobError(f"blob {ref.sha256.hex()} is held already")
            partial = self._fetching.get(ref.sha256)
            if partial is not None and partial.ref != ref:
                raise BlobError(f"blob {ref.sha256.hex()} is being fetched with another size or root")
            partial = partial or self._prepare(ref)
            with self._lock:
                partial.users += 1
                self._unfinished[ref.sha256] = ref
                self._fetching[ref.sha256] = partial
                self._replace_open(ref.sha256, partial)
            return partial

    def _prepare(self, ref: BlobRef) -> PartialBlob:
        known = self._unfinished.get(ref.sha256)
        if known != ref:
            self._drop_partial(ref.sha256)
            self._make_room(_disk_bytes(ref), f"blob {ref.sha256.hex()}")
        try:
            partial = self._files.open_partial(self, ref)
            if known == ref:
                partial.recover()
        except OSError as error:
            raise StorageFull(f"{self.directory}: {error.strerror}") from error
        return partial

    def release(self, partial: PartialBlob) -> None:
        """Ends the use of a partial blob; what it holds is kept on the disk. Blocking."""
        if partial.users == 1 and self.is_current(partial):
            with suppress(OSError):  # then kept only as far as the last bitmap says
                partial.sync()
        with self._lock:
            partial.users -= 1
            if partial.users == 0:
                if self.is_current(partial):
                    del self._fetching[partial.ref.sha256]
                if self._open.get(_component(partial.ref.sha256)) is not partial:
                    partial.close()

    def is_current(self, partial: PartialBlob) -> bool:
        """Whether this is still the way in which the blob comes; it is not when the blob was added, or discarded."""
        return self._fetching.get(partial.ref.sha256) is partial

    def commit(self, partial: PartialBlob) -> Path:
        """Called by PartialBlob.finish: the checked and synced blob becomes whole."""
        sha256 = partial.ref.sha256
        with self._writer:
            if self.is_current(partial):
                self._publish(self._files.partial(sha256), partial.ref)
                self._forget_partial(sha256)
                self._files.remove_partial(sha256)
        if sha256 not in self._whole:
            raise BlobError(f"blob {sha256.hex()} was discarded while it was being checked")
        return self.path(sha256)

    def discard(self, sha256: bytes) -> None:
        """Forgets what has arrived of a blob."""
        with self._writer:
            self._drop_partial(sha256)

    def discard_empty(self, sha256: bytes) -> None:
        """Forgets a blob of which nothing has arrived, unless it is being fetched."""
        with self._writer:
            if sha256 not in self._fetching and not self._files.has_segments(sha256):
                self._drop_partial(sha256)

    def remove(self, sha256: bytes) -> None:
        """Removes a whole blob; one that is not held is no error."""
        with self._writer:
            self._remove(sha256)

    def pin(self, sha256s: Collection[bytes]) -> None:
        """From now on exactly these are never evicted."""
        self._pinned = frozenset(sha256s)

    def evict_first(self, sha256s: Collection[bytes]) -> None:
        """From now on these make room before all others, in this order: blobs that are kept for other nodes."""
        self._first_victims = tuple(sha256s)

    def room_bytes(self, evicting: Collection[bytes] = ()) -> int:
        """How many bytes may come in with nothing evicted but whole blobs of `evicting`; a system call."""
        with self._lock:
            kept = self._pinned | self._fetching.keys()
            freed = sum(_disk_bytes(ref) for s in evicting if s not in kept and (ref := self._whole.get(s)))
        return freed - self._lacking_bytes(0)

    def arriving(self, sha256: bytes) -> BlobRef | None:
        """Size and root of a blob of which a part is here."""
        return self._unfinished.get(sha256)

    def close(self) -> None:
        """Keeps what has arrived and closes every file. Blocking."""
        self._worker.shutdown()
        with self._lock:
            for partial in self._fetching.values():
                with suppress(OSError):
                    partial.sync()
            self._fetching.clear()
            while self._open:
                self._open.popitem()[1].close()

    # --- room

    def _make_room(self, size: int, what: str) -> None:
        """Evicts until `size` more bytes fit; raises StorageFull."""
        while (lacking := self._lacking_bytes(size)) > 0:
            victim = self._victim()
            if victim is None:
                raise StorageFull(
                    f"{self.directory}: no room for {what}: {lacking} bytes are lacking and nothing may be evicted"
                    " (forwarder.disk_cache sets the budget)"
                )
            self.evictions += 1
            if victim in self._whole:
                self._remove(victim)
            else:
                self._drop_partial(victim)

    def _lacking_bytes(self, size: int) -> int:
        with self._lock:
            promised = sum(p.ref.size - p.held_bytes for p in self._fetching.values())
        status = os.statvfs(self.directory)
        lacking = size + promised + KEEP_FREE_BYTES - status.f_bavail * status.f_frsize
        if self.budget_bytes is not None:
            lacking = max(lacking, self.usage_bytes + size - self.budget_bytes)
        return lacking

    def _victim(self) -> bytes | None:
        with self._lock:
            kept = self._pinned | self._fetching.keys()
            first = [s for s in self._first_victims if s in self._whole or s in self._unfinished]
            return next((s for s in [*first, *self._whole, *self._unfinished] if s not in kept), None)

    def _remove(self, sha256: bytes) -> None:
        with self._lock:
            if self._whole.pop(sha256, None) is None:
                return
            self._replace_open(sha256, None)
        self._files.remove_whole(sha256)

    def _drop_partial(self, sha256: bytes) -> None:
        if self._forget_partial(sha256):
            self._files.remove_partial(sha256)

    def _forget_partial(self, sha256: bytes) -> bool:
        with self._lock:
            self._fetching.pop(sha256, None)
            self._replace_open(sha256, None)
            return self._unfinished.pop(sha256, None) is not None

    # --- open files

    def _open_source(self, component: bytes) -> Source | None:
        """Opens a blob for `find`, whole or in part; None when nothing of it is here."""
        sha256 = objects.parse_blob_component(component)
        if sha256 is None:
            return None
        try:
            if sha256 in self._fetching:
                source: Source = self._fetching[sha256]
            elif sha256 in self._whole:
                source = self._files.open_whole(sha256)
            elif sha256 in self._unfinished:
                source = self._files.open_partial(self, self._unfinished[sha256])
            else:
                return None
        except (OSError, BlobError):
            return None
        self._replace_open(sha256, source)
        return source

    def _replace_open(self, sha256: bytes, source: Source | None) -> None:
        """Puts a blob's open files in the place of others, which are closed unless a fetch still writes them."""
        with self._lock:
            dropped = [self._open.pop(_component(sha256), None)]
            if source is not None:
                self._open[_component(sha256)] = source
            while len(self._open) > OPEN_BLOBS:
                dropped.append(self._open.popitem(last=False)[1])
            for old in dropped:
                if old is not None and old is not source and not (isinstance(old, PartialBlob) and old.users):
                    old.close()


def _component(sha256: bytes) -> bytes:
    return names.component(sha256.hex())


def _disk_bytes(ref: BlobRef) -> int:
    return ref.size + blob_index.file_bytes(ref.size)
