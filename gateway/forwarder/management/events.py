"""Notifications of faces that come, go, rise and fall, for whoever waits for the next one."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Iterable

from gateway.forwarder.faces.base import Face
from gateway.forwarder.management.face_status import CREATED, DESTROYED, DOWN, UP, encode_event

# A client that asks for one of the last events still gets it.
KEPT = 64
# Who waits holds a task until something happens or its Interest's lifetime is over.
WAITING_MAX = 64


class FaceEvents:
    """Numbers the differences between one look at the faces and the next; `next_event` waits for one."""

    def __init__(self) -> None:
        self._seen: dict[int, tuple[Face, bool]] | None = None
        self._events: deque[tuple[int, bytes]] = deque(maxlen=KEPT)
        self._next = 0
        self._waiting: set[asyncio.Future[tuple[int, bytes]]] = set()

    @property
    def is_awaited(self) -> bool:
        return bool(self._waiting)

    def look(self, faces: Iterable[Face]) -> None:
        """Notes what changed since the last look; the first one notes nothing."""
        now = {face.id: (face, face.up) for face in faces}
        old, self._seen = self._seen, now
        if old is None:
            return
        for face_id, (face, was_up) in old.items():
            if face_id not in now:
                self._note(DESTROYED, face)
            elif was_up != face.up:
                self._note(UP if face.up else DOWN, face)
        for face_id, (face, _) in now.items():
            if face_id not in old:
                self._note(CREATED, face)

    def skip(self, faces: Iterable[Face]) -> None:
        """Takes the faces as they are, without noting what changed."""
        self._seen = {face.id: (face, face.up) for face in faces}

    def kept(self, number: int) -> bytes | None:
        """An event of the last few."""
        return next((block for each, block in self._events if each == number), None)

    async def next_event(self, number: int | None, timeout_s: float) -> tuple[int, bytes] | None:
        """The event of this number, or the next one whichever it is; None when none came, or too many wait."""
        if len(self._waiting) >= WAITING_MAX or (number is not None and number != self._next):
            return None
        future: asyncio.Future[tuple[int, bytes]] = asyncio.get_running_loop().create_future()
        self._waiting.add(future)
        try:
            return await asyncio.wait_for(future, timeout_s)
        except TimeoutError:
            return None
        finally:
            self._waiting.discard(future)

    def _note(self, kind: int, face: Face) -> None:
        event = self._next, encode_event(kind, face)
        self._next += 1
        self._events.append(event)
        for future in self._waiting:
            if not future.done():
                future.set_result(event)
