"""Carries out the plan of fetches, and keeps order among the blobs that are here for others."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Collection, Coroutine, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from gateway.forwarder.blob_source import StorageFull
from gateway.forwarder.blobs import BlobStore
from gateway.forwarder.custody.plan import Fetch, Plan, Surroundings
from gateway.forwarder.custody.wants import Wants
from gateway.forwarder.endpoint import FetchError
from gateway.protocol.errors import BlobError, ProtocolError
from gateway.protocol.messages import BlobRef
from gateway.protocol.names import Name, Network

log = logging.getLogger(__name__)

# A contact may end at any moment, so a fetch that stands still is given up soon; what has arrived is kept.
NEAR_PATIENCE_S, FAR_PATIENCE_S = 8.0, 10.0
# A neighbour that is heard again while its fetch stands still so long has been away: asked anew, it answers at once.
STALLED_S = 1.5
# Who nudges a fetch gives it new patience; here is its end, however often that happens.
STILL_MAX_S = 20.0
# For all wants that are looked at together the room on the disk is looked at once.
ROOM_FRESH_S = 1.0


class Fetcher(Protocol):
    """gateway.forwarder.consumer.Consumer, or what sees to it that the holders can be reached before it is asked."""

    @property
    def network(self) -> Network: ...

    async def fetch_blob(
        self,
        ref: BlobRef,
        store: BlobStore,
        hints: Sequence[Name],
        progress: Callable[[int, int], None] | None,
        patience_s: float,
    ) -> Path: ...
    def nudge(self) -> None: ...


@dataclass(slots=True)
class Running:
    """A fetch at work: when something last came (the loop's time), and what was here then, and first."""

    fetch: Fetch
    task: asyncio.Task[Path]
    moved_at: float
    held_bytes: int = 0
    first_bytes: int = -1


class Fetching:
    """At most a few fetches at a time, as the plan says.

    `needed` gives the blobs that the node itself needs, `now` the table's time, `on_own(sha256)` is told what has come
    for this node, `wake` that there may be more to do.
    """

    def __init__(
        self,
        wants: Wants,
        plan: Plan,
        consumer: Fetcher,
        store: BlobStore,
        *,
        now: Callable[[], float],
        needed: Callable[[], Collection[bytes]],
        on_own: Callable[[bytes], None],
        wake: Callable[[], None],
    ) -> None:
        self._wants, self._plan, self._consumer, self._store = wants, plan, consumer, store
        self._now, self._needed, self._on_own, self._wake = now, needed, on_own, wake
        self._clock = asyncio.get_running_loop().time
        self.running: dict[bytes, Running] = {}
        self.progress: dict[bytes, int] = {}
        self._leftovers: dict[bytes, None] = {}
        self._tidying: set[asyncio.Future[None]] = set()
        self._room_bytes, self._looked_at = 0, float("-inf")

    def arrange(self, around: Surroundings) -> None:
        """Ends what is to end and starts what can be started."""
        self._looked_at = float("-inf")
        for fetch in self._plan.to_stop(self._now(), around, self._fetches()):
            self.running[fetch.ref.sha256].task.cancel()
        while (following := self._plan.next(self._now(), around, self._fetches())) is not None:
            self._begin(following)

    def on_heard(self, node: str) -> None:
        """A neighbour was heard: a fetch from it that stands still asks again at once."""
        near = (running for running in self.running.values() if running.fetch.near == node)
        if any(self._clock() - running.moved_at > STALLED_S for running in near):
            self._consumer.nudge()

    async def stop(self) -> None:
        """Ends every fetch; what has arrived is kept."""
        tasks = [running.task for running in self.running.values()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, *self._tidying, return_exceptions=True)

    def _fetches(self) -> list[Fetch]:
        return [running.fetch for running in self.running.values()]

    def _begin(self, fetch: Fetch) -> None:
        sha256, network = fetch.ref.sha256, self._consumer.network
        hints = [network.node(node) if node else b"" for node in fetch.holders]
        patience_s = NEAR_PATIENCE_S if fetch.near else FAR_PATIENCE_S

        def on_progress(held: int, size: int) -> None:
            running = self.running.get(sha256)
            if running is not None and running.held_bytes != held:
                running.held_bytes, running.moved_at = held, self._clock()
                running.first_bytes = held if running.first_bytes < 0 else running.first_bytes
            self.progress[sha256] = held

        work = self._consumer.fetch_blob(fetch.ref, self._store, hints, on_progress, patience_s)
        task = asyncio.create_task(self._watch(sha256, work), name=f"want {sha256.hex()[:16]}")
        self.running[sha256] = Running(fetch, task, self._clock())
        if self._store.arriving(sha256) is None:
            self._room_bytes -= _disk_bytes(fetch.ref)
        task.add_done_callback(lambda task: self._ended(fetch, task))

    async def _watch(self, sha256: bytes, work: Coroutine[Any, Any, Path]) -> Path:
        """What the fetch brings; raises FetchError when it stands still for too long."""
        task = asyncio.create_task(work)
        try:
            while not (await asyncio.wait({task}, timeout=STILL_MAX_S / 4))[0]:
                if self._clock() - self.running[sha256].moved_at > STILL_MAX_S:
                    raise FetchError(f"blob {sha256.hex()}: nothing came for {STILL_MAX_S:g} s")
            return task.result()
        finally:
            task.cancel()

    def _ended(self, fetch: Fetch, task: asyncio.Task[Path]) -> None:
        running = self.running.pop(fetch.ref.sha256)
        self._wake()
        if not running.held_bytes and not fetch.is_own:
            self._tidy(fetch.ref.sha256)
        if task.cancelled():
            return
        error, text = task.exception(), fetch.ref.sha256.hex()[:16]
        if error is None:
            self._arrived(fetch)
            return
        self._plan.failed(self._now(), fetch, running.held_bytes > running.first_bytes >= 0)
        if isinstance(error, BlobError) and not isinstance(error, StorageFull) and not fetch.is_own:
            log.warning("blob %s is not what its wanter says, and is not fetched again: %s", text, error)
            for entry in [e for e in self._wants.wanters(fetch.ref.sha256) if e.want.blob == fetch.ref]:
                self._wants.remove(entry.key)
        elif isinstance(error, (FetchError, ProtocolError, OSError)):
            log.debug("blob %s from %s: %s", text, fetch.near or fetch.holders, error)
        else:
            log.critical("fetching blob %s failed, which is a bug", text, exc_info=error)

    def _tidy(self, sha256: bytes) -> None:
        """Nothing came of a blob for others: it must not take room, nor be told to neighbours as here in part."""
        if sha256 in self._needed() or any(map(self._wants.is_own, self._wants.wanters(sha256))):
            return
        task = asyncio.ensure_future(self._store.run(self._store.discard_empty, sha256))
        self._tidying.add(task)
        task.add_done_callback(self._tidied)

    def _tidied(self, task: asyncio.Future[None]) -> None:
        self._tidying.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            log.warning("%s: %s", self._store.directory, error)
        self._wake()

    def _arrived(self, fetch: Fetch) -> None:
        sha256 = fetch.ref.sha256
        self._plan.forget(sha256)
        self.progress.pop(sha256, None)
        whom = ", ".join(e.want.wanter for e in self._wants.wanters(sha256)) or "nobody any more"
        source = fetch.near or "far"
        log.info("blob %s (%d bytes) came from %s, for %s", sha256.hex()[:16], fetch.ref.size, source, whom)
        if fetch.is_own:
            self._on_own(sha256)
        elif not self._wants.wanters(sha256):
            self._leftovers[sha256] = None

    # --- room

    def is_here(self, sha256: bytes) -> bool:
        """Whether the blob is held, whole or in part."""
        return self._store.has(sha256) or self.progress.get(sha256, 0) > 0

    def fits(self, ref: BlobRef) -> bool:
        """Whether a blob for others may come in: with nothing evicted but what was kept for others and is over."""
        arriving = self._store.arriving(ref.sha256)
        if arriving is not None:
            return arriving == ref
        return self._room() > _disk_bytes(ref)

    def _room(self) -> int:
        """How many bytes may come in for others."""
        if self._clock() - self._looked_at >= ROOM_FRESH_S:
            self._looked_at = self._clock()
            needed = set(self._needed())
            try:
                self._room_bytes = self._store.room_bytes([s for s in self._leftovers if s not in needed])
            except OSError:
                self._room_bytes = 0
        return self._room_bytes

    def let_go(self, sha256: bytes) -> None:
        """One want less: a blob that nobody waits for any more may go before all others."""
        if not self._wants.wanters(sha256):
            self._plan.forget(sha256)
            self.progress.pop(sha256, None)
            if self._takes_room(sha256):
                self._leftovers[sha256] = None

    def _takes_room(self, sha256: bytes) -> bool:
        return self._store.has(sha256) or self._store.arriving(sha256) is not None

    def keep(self, sha256: bytes) -> None:
        """The node itself wants the blob, so it is not what is left of a favour."""
        self._leftovers.pop(sha256, None)

    def yield_room(self) -> None:
        """Tells the blob store what to evict first: what is over, then what is kept for others, least urgent first."""
        self._leftovers = {s: None for s in self._leftovers if self._takes_room(s)}
        waiting = self._wants.in_order()
        own = {e.want.blob.sha256 for e in waiting if self._wants.is_own(e)} | set(self._needed())
        kept = [e.want.blob.sha256 for e in reversed(waiting)]
        self._store.evict_first([s for s in dict.fromkeys([*self._leftovers, *kept]) if s not in own])


def _disk_bytes(ref: BlobRef) -> int:
    """A blob and its index: one part in a hundred, and a page."""
    return ref.size + ref.size // 100 + 4096
