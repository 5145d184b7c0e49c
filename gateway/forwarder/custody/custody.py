"""Store and forward at work: one node's wants, its own and others', from the disk to its neighbours and back.

What is wanted and what to do next is decided in wants.py and plan.py. reception.py judges what others tell,
meetings.py tells them, fetching.py fetches, store.py is the disk.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable, Collection, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from gateway.forwarder.blobs import BlobStore
from gateway.forwarder.consumer import Consumer
from gateway.forwarder.custody import packets, view
from gateway.forwarder.custody.clock import Mark, boot_clock, resume
from gateway.forwarder.custody.fetching import Fetcher, Fetching
from gateway.forwarder.custody.meetings import Meetings
from gateway.forwarder.custody.plan import Plan, Surroundings
from gateway.forwarder.custody.reception import Reception, Trust
from gateway.forwarder.custody.store import Row, WantStore, WantStoreError
from gateway.forwarder.custody.wants import HOLDERS_MAX, Entry, Limits, Offered, Wants
from gateway.forwarder.endpoint import Endpoint
from gateway.forwarder.packet import Interest
from gateway.protocol import codec, keys, names
from gateway.protocol.errors import MessageError, ProtocolError
from gateway.protocol.messages import BlobRef, Want, WantOffer

__all__ = ["Custody", "Limits", "Trust"]

log = logging.getLogger(__name__)

# How often the table's time is written down when nothing else is.
MARK_INTERVAL_S = 600.0


class Custody:
    """The wants of one node, own and of others. `start` it, keep `run` running, `close` it.

    `reaches(node)` says whether there is a route to a node, `has_repository()` whether an application here has blobs to
    give, `needed` gives the blobs that the node itself needs, and `fail(text)` reports what is wrong with the store of
    wants, with an empty text that nothing is any more. With the `consumer` that fetches for the node itself a blob
    comes once, whoever asks for it here.
    """

    def __init__(
        self,
        node: str,
        network: names.Network,
        endpoint: Endpoint,
        store: BlobStore,
        trust: Trust,
        path: Path,
        limits: Limits,
        *,
        reaches: Callable[[str], bool] = lambda node: False,
        has_repository: Callable[[], bool] = lambda: False,
        needed: Callable[[], Collection[bytes]] = tuple,
        fail: Callable[[str], None] = lambda text: None,
        clock: Callable[[], tuple[str, float, float]] = boot_clock,
        consumer: Fetcher | None = None,
    ) -> None:
        self.node, self.network, self._endpoint, self._store, self._trust = node, network, endpoint, store, trust
        self._reaches, self._has_repository, self._fail, self._clock = reaches, has_repository, fail, clock
        self._wake, self._writing = asyncio.Event(), asyncio.Lock()
        self._loop_time = asyncio.get_running_loop().time
        self._base, self._started, self._marked_at = 0.0, self._loop_time(), float("-inf")
        self._version, self._problem = 0, ""
        self.wants, self._disk = Wants(node, limits), WantStore(path)
        self._plan = Plan(self.wants)
        self._fetching = Fetching(
            self.wants,
            self._plan,
            consumer or Consumer(endpoint, network),
            store,
            now=lambda: self.now,
            needed=needed,
            on_own=self.satisfied,
            wake=self._wake.set,
        )
        self._meetings = Meetings(
            self.wants,
            self._plan,
            network,
            endpoint,
            has=self.can_serve,
            reaches=reaches,
            now=lambda: self.now,
            wake=self._wake.set,
        )
        self._reception = Reception(
            self.wants,
            network,
            trust,
            self,
            now=lambda: self.now,
            now_unix=lambda: clock()[2],
            on_withdrawn=self._fetching.let_go,
            on_stale_own=self._withdraw_unknown,
        )

    # --- life

    async def start(self) -> None:
        """Reads what the disk holds and answers neighbours from now on; a disk that fails is only reported."""
        try:
            loaded = await self._disk.run(self._disk.load)
        except WantStoreError as error:
            self._report(f"{error}; wants are kept in memory only")
        else:
            self._base, self._version = resume(loaded.mark, *self._clock()), max(self._version, loaded.version)
            self.wants.restore(filter(None, map(self._entry_of, loaded.rows)))
            self._report(loaded.problem)
        self._started = self._loop_time()
        self._endpoint.serve(self.network.wants(self.node), self._on_offer)

    def _entry_of(self, row: Row) -> Entry | None:
        try:
            want, version = packets.read(self.network, keys.parse(row.packet))
            if row.certificate:
                self._trust.add_certificate(row.certificate)
        except ProtocolError as error:
            log.warning("a stored want is left out: %s", error)
            return None
        return Entry(
            want=want,
            version=version,
            packet=row.packet,
            certificate=row.certificate,
            hops=row.hops,
            expires_at=row.expires_at,
            since=row.since,
            since_unix=row.since_unix,
            came_from=row.came_from,
        )

    async def run(self) -> None:
        """Runs until cancelled."""
        try:
            while True:
                self._wake.clear()
                await self._step()
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(self._pause_s()):
                        await self._wake.wait()
        finally:
            await self._fetching.stop()
            await self._meetings.stop()
            await self._write(is_last=True)

    def close(self) -> None:
        self._disk.close()

    @property
    def now(self) -> float:
        """The table's time."""
        return self._base + self._loop_time() - self._started

    def _pause_s(self) -> float:
        now = self.now
        mark_at = self._marked_at + MARK_INTERVAL_S if len(self.wants) else None
        deadlines = (self.wants.next_deadline(), self._plan.next_deadline(now), mark_at)
        return max(0.05, min((d for d in deadlines if d is not None), default=now + MARK_INTERVAL_S) - now)

    async def _step(self) -> None:
        for entry in self.wants.expire(self.now):
            log.info("%s has waited too long for blob %s", entry.want.wanter, entry.want.blob.sha256.hex()[:16])
            self._fetching.let_go(entry.want.blob.sha256)
        for entry in self.wants.in_order():
            if self.wants.is_own(entry) and self._store.has(entry.want.blob.sha256):
                self.satisfied(entry.want.blob.sha256)
        around = Surroundings(self._meetings.contacts, self._store.has, self._fetching.fits, self._reaches)
        self._fetching.arrange(around)
        self._fetching.yield_room()
        self._meetings.tell()
        await self._write()

    # --- what the placement client asks

    def want(self, ref: BlobRef, holders: Sequence[str] = (), priority: int = 5) -> None:
        """Asks whoever is met for a blob; again and again is the same as once."""
        entry, lifetime_s = self.wants.get(self.node, ref.sha256), self.wants.limits.lifetime_s
        is_known = entry is not None and entry.is_waiting and entry.want.blob == ref
        if entry is not None and is_known and entry.expires_at - self.now > lifetime_s / 2:
            return
        self._fetching.keep(ref.sha256)
        expires = self._clock()[2] + lifetime_s
        others = [holder for holder in holders if holder != self.node][:HOLDERS_MAX]
        self._say(Want(ref, self.node, priority, expires, lifetime_s, tuple(others)))

    def satisfied(self, sha256: bytes) -> None:
        """The blob has come or is not needed any more: whoever keeps it for this node may let go."""
        entry = self.wants.get(self.node, sha256)
        if entry is not None and entry.is_waiting:
            left_s = max(1.0, entry.expires_at - self.now)
            self._say(replace(entry.want, lifetime_s=left_s, holders=(), withdrawn=True))
            self._plan.forget(sha256)

    def keep_only(self, needed: Collection[bytes]) -> None:
        """Withdraws what this node wanted before it was restarted and does not need any more."""
        for entry in self.wants.in_order():
            if self.wants.is_own(entry) and entry.want.blob.sha256 not in needed:
                self.satisfied(entry.want.blob.sha256)

    def _withdraw_unknown(self, offered: Offered) -> None:
        """Others still keep a want that this node, restored from a backup or with a new disk, knows nothing of."""
        self._version = max(self._version, offered.version)
        left_s = min(offered.left_s, self.wants.limits.lifetime_s)
        self._say(replace(offered.want, lifetime_s=left_s, holders=(), withdrawn=True))

    def _say(self, want: Want) -> None:
        """Signs a want of this node, newer than all before although the clock may be set back."""
        before = self.wants.get(self.node, want.blob.sha256)
        known = max(self._version, before.version if before is not None else 0)
        self._version = max(known + 1, int(self._clock()[2] * 1000))
        name = self.network.want(self.node, want.blob.sha256, self._version)
        packet = self._trust.sign(name, codec.encode(want))
        key_name = keys.parse(packet).key_name
        certificate = self._trust.certificate(keys.key_name_of(key_name)) if key_name is not None else None
        offered = Offered(want, self._version, packet, certificate or b"")
        self.wants.put_own(self.now, self._clock()[2], offered)
        self._wake.set()

    # --- neighbours

    def on_hello(self, face_id: int, node: str, boot_id: str, blobs: Collection[bytes]) -> None:
        """A neighbour is there, and holds these blobs (the beginnings of their SHA-256)."""
        self._meetings.on_hello(face_id, node, boot_id, blobs)
        self._fetching.on_heard(node)
        self._wake.set()

    def on_silence(self, face_id: int) -> None:
        """A face's neighbour is not heard any more: what is being fetched from it ends, and what came is kept."""
        self._meetings.on_silence(face_id)
        self._wake.set()

    async def _on_offer(self, interest: Interest) -> bytes | None:
        try:
            offer = codec.decode(WantOffer, interest.parameters or b"", keys.PACKET_MAX_BYTES)
        except MessageError as error:
            log.debug("an offer of wants from face %s: %s", interest.incoming_face, error)
            return None
        contact = self._meetings.at(interest.incoming_face)
        answer = self._reception.take(offer, contact, interest.incoming_face)
        for sha256 in offer.held[: packets.HELD_MAX]:
            self._meetings.on_held(sha256, offer.node, contact)
        self._wake.set()
        await self._write()
        return keys.sign_data(interest.name, codec.encode(answer))

    def is_here(self, sha256: bytes) -> bool:
        return self._fetching.is_here(sha256) or self.can_serve(sha256)

    def can_serve(self, sha256: bytes) -> bool:
        """Whether the blob is whole here, or in the repository beside this node, as who waits for it says."""
        if self._store.has(sha256):
            return True
        waiting = self.wants.wanters(sha256)
        is_named = any(self.node in entry.want.holders for entry in waiting)
        return is_named and not any(map(self.wants.is_own, waiting)) and self._has_repository()

    def ref(self, sha256: bytes) -> BlobRef | None:
        return self._store.ref(sha256)

    # --- the disk

    async def _write(self, is_last: bool = False) -> None:
        """Brings changes to the disk; while it takes none they stay in memory, which is reported."""
        async with self._writing:
            written, removed = self.wants.take_changes()
            is_due = len(self.wants) > 0 and (is_last or self.now - self._marked_at >= MARK_INTERVAL_S)
            if not (written or removed or is_due):
                return
            self._marked_at = self.now
            mark = Mark(self.now, *self._clock())
            try:
                await self._disk.run(self._disk.apply, map(_row_of, written), removed, mark, self._version)
            except WantStoreError as error:
                self.wants.put_back(written, removed)
                self._report(f"{error}; wants are kept in memory only")
            else:
                self._report("" if self._problem.endswith("memory only") else self._problem)

    def _report(self, problem: str) -> None:
        if problem != self._problem:
            self._problem = problem
            self._fail(problem)

    # --- for people and programs

    def snapshot(self) -> list[dict[str, Any]]:
        """What waits for whom, the next to be served first, as JSON-ready rows."""
        return view.rows(self.wants, self._store, self._fetching, self.now)

    def packets(self) -> dict[str, Any]:
        """Every want, withdrawals too, as it is handed on: what a stick carries."""
        return {"node": self.node, "network": self.network.uri, "wants": view.packets(self.wants, self.now)}

    def counters(self) -> dict[str, Any]:
        """What is in custody, and what was refused and why."""
        return {
            "wants": len(self.wants),
            "custody_bytes": self.wants.custody_bytes,
            "custody_budget_bytes": self.wants.limits.custody_bytes,
            "evictions": self.wants.evictions,
            "not_believed": self._reception.not_believed,
            "refused": {answer.value: count for answer, count in self.wants.refused.items()},
        }


def _row_of(entry: Entry) -> Row:
    return Row(
        entry.want.wanter,
        entry.want.blob.sha256,
        entry.packet,
        entry.certificate,
        entry.hops,
        entry.expires_at,
        entry.since,
        entry.since_unix,
        entry.came_from,
    )
