"""The last good decision on disk: one file, replaced as a whole, so that a power cut leaves the old one or the new.

Beside it a second small file keeps the floors (newest number, newest time), so that a damaged decision does not let an
older one in. A file that cannot be read is set aside under another name and reported in `problems`.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from gateway.files import replace_file, set_aside
from gateway.protocol import codec
from gateway.protocol.codec import key
from gateway.protocol.errors import MessageError

log = logging.getLogger(__name__)
T = TypeVar("T")

# A head fits one packet and so names at most some 80 sections; a section of a large zone has about 100 kB.
STORED_MAX_BYTES = 32 << 20


@dataclass(frozen=True, slots=True)
class StoredDecision:
    """A decision's signed packets and its sections, as they travelled; `epoch` is the anchor's statement, if any."""

    head: bytes = key(1)
    certificates: tuple[bytes, ...] = key(2, ())
    sections: tuple[bytes, ...] = key(3, ())
    specifications: tuple[bytes, ...] = key(4, ())
    epoch: bytes = key(5, b"")


@dataclass(frozen=True, slots=True)
class Floors:
    """The greatest head number accepted and the latest time known to have passed (Unix time)."""

    epoch: int = key(1, 0)
    version: int = key(2, 0)
    time: float = key(3, 0.0)


class DecisionStore:
    """The directory `decision/` of the state directory; its methods block on the disk."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.problems: dict[str, str] = {}
        self._decision, self._floors = directory / "decision.cbor", directory / "floors.cbor"

    def load(self) -> StoredDecision | None:
        """The stored decision, not yet verified; None when there is none or it is damaged."""
        return self._load(self._decision, StoredDecision)

    def load_floors(self) -> Floors:
        """The stored floors; zero when there are none."""
        return self._load(self._floors, Floors) or Floors()

    def save(self, decision: StoredDecision, floors: Floors) -> None:
        """Keeps a decision and its floors; what is already there is not written again. Raises OSError."""
        self.directory.mkdir(parents=True, exist_ok=True)
        # The floors first: with a power cut in between, the node asks for this decision again and takes it.
        for path, content in ((self._floors, codec.encode(floors)), (self._decision, codec.encode(decision))):
            if not path.exists() or path.read_bytes() != content:
                replace_file(path, content)

    def discard(self, reason: str) -> None:
        """Sets the stored decision aside, because it did not verify."""
        self._set_aside(self._decision, reason)

    def _load(self, path: Path, cls: type[T]) -> T | None:
        try:
            return codec.decode(cls, path.read_bytes(), STORED_MAX_BYTES)
        except FileNotFoundError:
            return None
        except MessageError as error:
            self._set_aside(path, str(error))
        except OSError as error:
            self._report(path, str(error))
        return None

    def _set_aside(self, path: Path, reason: str) -> None:
        try:
            reason = f"{reason}; kept as {set_aside(path).name}"
        except OSError as error:
            reason = f"{reason}; it could not be moved away: {error}"
        self._report(path, reason)

    def _report(self, path: Path, reason: str) -> None:
        self.problems[f"{self.directory.name}/{path.name}"] = reason
        log.error("%s: %s", path, reason)
