"""What neighbours say to hold: a newer head, perhaps. A tip costs them nothing, so it costs us one Interest at most."""

from __future__ import annotations

from dataclasses import dataclass

MAX_FACES = 64
FIRST_PAUSE_S = 30.0
LONGEST_PAUSE_S = 600.0


@dataclass(frozen=True, slots=True)
class Tip:
    """The node at the other end of face `face_id` says that it holds this head."""

    face_id: int
    node: str
    epoch: int
    version: int


class Tips:
    """The newest tip of each face; a face whose tip led to nothing is not listened to for a while, each time longer."""

    def __init__(self) -> None:
        self._tips: dict[int, Tip] = {}
        self._pauses: dict[int, tuple[float, float]] = {}

    def __len__(self) -> int:
        return len(self._tips)

    def add(self, tip: Tip, now: float) -> bool:
        """Takes a tip; False when its face is not listened to at the moment. `now` is monotonic."""
        until, _ = self._pauses.get(tip.face_id, (now, 0.0))
        if until > now or (tip.face_id not in self._tips and len(self._tips) >= MAX_FACES):
            return False
        self._tips[tip.face_id] = tip
        return True

    def take(self) -> Tip | None:
        """Takes out the tip with the greatest number."""
        if not self._tips:
            return None
        face_id = max(self._tips, key=lambda face: (self._tips[face].epoch, self._tips[face].version))
        return self._tips.pop(face_id)

    def failed(self, face_id: int, now: float) -> None:
        """The tip of this face was not true."""
        _, pause_s = self._pauses.pop(face_id, (now, 0.0))
        pause_s = min(max(2 * pause_s, FIRST_PAUSE_S), LONGEST_PAUSE_S)
        while len(self._pauses) >= MAX_FACES:
            del self._pauses[next(iter(self._pauses))]
        self._pauses[face_id] = (now + pause_s, pause_s)

    def held(self, face_id: int) -> None:
        """The tip of this face was true."""
        self._pauses.pop(face_id, None)
