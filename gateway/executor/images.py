"""Which generation's image is in which state; unpacking happens in a worker."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from concurrent.futures import Future

from gateway.executor.decision import Generation
from gateway.executor.image import Image, ImageError, ImageStore
from gateway.executor.reconcile import Candidate
from gateway.executor.workers import Workers

RETRY_S = 300.0


class Images:
    """The images of generations; called by one thread, `wake()` says from a worker that one is done."""

    def __init__(self, store: ImageStore, workers: Workers, wake: Callable[[], None]) -> None:
        self._store, self._workers, self._wake = store, workers, wake
        self._futures: dict[bytes, Future[Image]] = {}
        self._failed: dict[bytes, tuple[float, str]] = {}

    def candidate(self, generation: Generation, now_s: float) -> Candidate:
        spec, digest = generation.spec, generation.digest
        state, note = self._state(generation, now_s)
        return Candidate(digest, spec.version, spec.restart, state, note)

    def _state(self, generation: Generation, now_s: float) -> tuple[str, str]:
        failed = self._failed.get(generation.digest)
        if failed and now_s < failed[0]:
            return "bad", failed[1]
        future = self._futures.get(generation.digest)
        if future is None:
            missing, total = self._store.missing(generation.spec), len(generation.spec.blobs) + 1
            return ("missing", f"{missing} of {total} blobs have not arrived") if missing else ("complete", "")
        if not future.done():
            return "preparing", ""
        error = future.exception()
        if error is None:
            return "ready", ""
        del self._futures[generation.digest]
        text = (
            f"its image is refused: {error}"
            if isinstance(error, ImageError)
            else f"its image cannot be unpacked: {error}"
        )
        self._failed[generation.digest] = now_s + RETRY_S, text
        return "bad", text

    def prepare(self, generation: Generation) -> None:
        future = self._workers.submit(self._store.prepare, generation.spec)
        self._futures[generation.digest] = future
        future.add_done_callback(lambda _: self._wake())

    def image(self, digest: bytes) -> Image:
        return self._futures[digest].result()

    def forget_failures(self) -> None:
        """Tries again at once: new blobs may have come with a decision."""
        self._failed.clear()

    def collect(self, keep: Iterable[Generation]) -> None:
        """Forgets and removes every image but these; leaves the disk alone while one is being unpacked."""
        keep = list(keep)
        digests = {generation.digest for generation in keep}
        busy = any(not future.done() for future in self._futures.values())
        self._futures = {digest: future for digest, future in self._futures.items() if digest in digests}
        if not busy:
            self._store.collect({generation.spec.manifest.sha256 for generation in keep})
