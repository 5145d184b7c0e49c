"""Gets the blobs of the services that this node runs or stands by for, from whoever has them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from gateway.placement_client.decision import BlobNeed, image_blobs
from gateway.placement_client.pacing import Backoff
from gateway.placement_client.ports import Blobs, Custody
from gateway.placement_client.session import Session
from gateway.protocol.errors import ProtocolError
from gateway.protocol.messages import BlobRef

# While one blob is checked and brought to the disk, the next one is under way.
PARALLEL = 2
# When nothing has come for so long, neighbours are asked to get the blob too; it is withdrawn when it comes after all.
WANT_AFTER_S = 5.0
# What neighbours were asked for may come at any time, with the neighbour.
_LOOK_S = 1.0


class BlobFetching:
    """Fetches what is missing on disk; `on_whole` is called when the last blob of a service has come.

    `fail(what, text)` reports a fetch that failed, with an empty text that it succeeded. `custody`, where there is one,
    hears of what nobody brings.
    """

    def __init__(
        self,
        session: Session,
        blobs: Blobs,
        *,
        unreachable: tuple[type[Exception], ...],
        distance: Callable[[str], float],
        on_whole: Callable[[], None],
        fail: Callable[[str, str], None],
        backoff: Backoff,
    ) -> None:
        self._session, self._blobs, self._distance = session, blobs, distance
        self._unreachable = unreachable
        self._on_whole, self._fail, self._backoff = on_whole, fail, backoff
        self._changed = asyncio.Event()
        self._tasks: dict[bytes, asyncio.Task[None]] = {}
        self._failed: set[bytes] = set()
        self._wanted: dict[bytes, BlobRef] = {}
        self.custody: Custody | None = None
        self.progress: dict[bytes, tuple[int, int]] = {}

    @property
    def is_busy(self) -> bool:
        """Whether anything is being fetched at the moment."""
        return bool(self._tasks)

    def look_again(self) -> None:
        """The decision or the disk has changed: a fetch that nobody needs any more ends here."""
        needed = {need.ref.sha256 for need in self._session.blob_needs(self._distance)}
        for sha256, task in self._tasks.items():
            if sha256 not in needed:
                task.cancel()
        for sha256 in self._wanted.keys() - needed:
            self._withdraw(sha256)
        self.progress = {sha256: done for sha256, done in self.progress.items() if sha256 in needed}
        self._changed.set()

    async def run(self) -> None:
        """Runs until cancelled."""
        try:
            while True:
                self._take_ended()
                self._begin()
                if self._tasks:
                    await self._wait(None)
                else:
                    await self._wait(self._backoff.failed() if self._failed else None)
                    self._failed.clear()
        finally:
            for task in self._tasks.values():
                task.cancel()
            await asyncio.gather(*self._tasks.values(), return_exceptions=True)

    def _begin(self) -> None:
        for need in self._missing():
            sha256 = need.ref.sha256
            if len(self._tasks) >= PARALLEL:
                return
            if sha256 not in self._failed and sha256 not in self._tasks:
                self._tasks[sha256] = asyncio.create_task(self._fetch(need))
                self._tasks[sha256].add_done_callback(lambda _: self._changed.set())

    def _missing(self) -> list[BlobNeed]:
        needs = self._session.blob_needs(self._distance)
        return [need for need in needs if not self._blobs.has(need.ref.sha256)]

    def _take_ended(self) -> None:
        for sha256, task in list(self._tasks.items()):
            if task.done():
                del self._tasks[sha256]
                if not task.cancelled():
                    task.result()  # a bug ends the gateway

    async def _wait(self, pause_s: float | None) -> None:
        """Until something changes, a blob comes another way, or the pause is over."""
        now = asyncio.get_running_loop().time
        end = None if pause_s is None else now() + pause_s
        while not self._changed.is_set() and not self._take_arrivals() and (end is None or now() < end):
            left_s = None if end is None else end - now()
            step_s = min(_LOOK_S, left_s or _LOOK_S) if self._wanted else left_s
            try:
                async with asyncio.timeout(step_s):
                    await self._changed.wait()
            except TimeoutError:
                continue
        self._changed.clear()

    def _take_arrivals(self) -> bool:
        """Whether blobs that neighbours were asked for have come."""
        arrived = [ref for sha256, ref in self._wanted.items() if self._blobs.has(sha256)]
        for ref in arrived:
            self._withdraw(ref.sha256)
            self._report_if_whole(ref)
        return bool(arrived)

    async def _fetch(self, need: BlobNeed) -> None:
        """Fetches one blob; when nothing comes for a while, others are asked to get it as well."""
        task = asyncio.create_task(self._try_holders(need))
        before = self.progress.get(need.ref.sha256)
        try:
            while not (await asyncio.wait({task}, timeout=WANT_AFTER_S))[0]:
                done = self.progress.get(need.ref.sha256)
                if done == before:
                    self._want(need)
                before = done
        finally:
            task.cancel()
        if task.result():
            self._backoff.reset()
            self._withdraw(need.ref.sha256)
            self._report_if_whole(need.ref)
        else:
            self._failed.add(need.ref.sha256)

    async def _try_holders(self, need: BlobNeed) -> bool:
        node_name, what = self._session.network.node, f"blob of {need.service}"
        text = f"{need.ref.sha256.hex()[:16]} ({need.ref.size} bytes)"

        def on_progress(done: int, total: int) -> None:
            self.progress[need.ref.sha256] = done, total

        # At last without a hint: the default route leads to the repository, whoever is named in the section.
        hints = [*map(node_name, need.holders), b""]
        try:
            await self._blobs.fetch_blob(need.ref, hints, on_progress)
        except ProtocolError as error:
            self._session.reject("blob", f"{what} {text}: {error}")
            self._fail(what, f"{text}: {error}")
        except self._unreachable as error:
            self._fail(what, f"{text}: {error}")
            if not isinstance(error, OSError):  # which is this node's disk, and no reason to ask others
                self._want(need)
        else:
            self._fail(what, "")
            return self._blobs.has(need.ref.sha256)
        return False

    def _want(self, need: BlobNeed) -> None:
        if self.custody is not None:
            self._wanted[need.ref.sha256] = need.ref
            self.custody.want(need.ref, need.holders)

    def _withdraw(self, sha256: bytes) -> None:
        if self._wanted.pop(sha256, None) is not None and self.custody is not None:
            self.custody.satisfied(sha256)

    def _report_if_whole(self, ref: BlobRef) -> None:
        decision = self._session.decision
        for placed in decision.in_order() if decision is not None else ():
            blobs = image_blobs(placed.specification) if placed.specification is not None else ()
            if ref in blobs and all(self._blobs.has(blob.sha256) for blob in blobs):
                self._on_whole()
