"""Gets the blobs of the services that this node runs or stands by for, one after the other, from whoever has them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from gateway.placement_client.decision import BlobNeed, image_blobs
from gateway.placement_client.pacing import Backoff, wait
from gateway.placement_client.ports import Blobs
from gateway.placement_client.session import Session
from gateway.protocol.errors import ProtocolError
from gateway.protocol.messages import BlobRef


class BlobFetching:
    """Fetches what is missing on disk; `on_whole` is called when the last blob of a service has come.

    `fail(what, text)` reports a fetch that failed, with an empty text that it succeeded.
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
        self._wanted = asyncio.Event()
        self._current: tuple[bytes, asyncio.Task[bool]] | None = None
        self.progress: dict[bytes, tuple[int, int]] = {}

    def look_again(self) -> None:
        """The decision or the disk has changed: a fetch that nobody needs any more ends here."""
        wanted = {need.ref.sha256 for need in self._session.blob_needs(self._distance)}
        if self._current is not None and self._current[0] not in wanted:
            self._current[1].cancel()
        self.progress = {sha256: done for sha256, done in self.progress.items() if sha256 in wanted}
        self._wanted.set()

    async def run(self) -> None:
        """Runs until cancelled."""
        failed: set[bytes] = set()
        while True:
            need = next((need for need in self._missing() if need.ref.sha256 not in failed), None)
            if need is None:
                await wait(self._wanted, self._backoff.failed() if failed else None)
                failed.clear()
            elif await self._fetch(need):
                self._backoff.reset()
                self._report_if_whole(need.ref)
            else:
                failed.add(need.ref.sha256)

    def _missing(self) -> list[BlobNeed]:
        needs = self._session.blob_needs(self._distance)
        return [need for need in needs if not self._blobs.has(need.ref.sha256)]

    async def _fetch(self, need: BlobNeed) -> bool:
        """Fetches one blob; False when it could not be had or is not needed any more."""
        task = asyncio.create_task(self._try_holders(need))
        self._current = need.ref.sha256, task
        try:
            await asyncio.wait({task})
        finally:
            self._current = None
            task.cancel()
        return not task.cancelled() and task.result()

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
        else:
            self._fail(what, "")
            return self._blobs.has(need.ref.sha256)
        return False

    def _report_if_whole(self, ref: BlobRef) -> None:
        decision = self._session.decision
        for placed in decision.in_order() if decision is not None else ():
            blobs = image_blobs(placed.specification) if placed.specification is not None else ()
            if ref in blobs and all(self._blobs.has(blob.sha256) for blob in blobs):
                self._on_whole()
