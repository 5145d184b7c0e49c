"""What the executor keeps on disk: what it was last told, and for each service the generation known to work."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from gateway import files
from gateway.protocol import codec
from gateway.protocol.codec import key
from gateway.protocol.errors import MessageError
from gateway.protocol.executor_messages import FRAME_MAX_BYTES, Desired

BAD_MAX = 16
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Record:
    """`good` is the specification packet of the generation to go back to, `bad` the digests of those that failed."""

    service: str = key(1)
    good: bytes = key(2, b"")
    bad: tuple[bytes, ...] = key(3, ())


@dataclass(frozen=True, slots=True)
class _Records:
    records: tuple[Record, ...] = key(1, ())


class State:
    """The files `desired.cbor` and `records.cbor`; each is replaced as a whole or stays as it was."""

    def __init__(self, directory: Path) -> None:
        self._desired, self._records = directory / "desired.cbor", directory / "records.cbor"
        self.notes: list[str] = []

    def load_desired(self) -> Desired | None:
        """What was last applied; a damaged file is set aside and told of."""
        return self._load(self._desired, Desired)

    def save_desired(self, desired: Desired) -> None:
        files.replace_file(self._desired, codec.encode(desired))

    def load_records(self) -> dict[str, Record]:
        records = self._load(self._records, _Records)
        return {record.service: record for record in records.records} if records else {}

    def save_records(self, records: dict[str, Record]) -> None:
        files.replace_file(self._records, codec.encode(_Records(tuple(records.values()))))

    def _load(self, path: Path, kind: type[T]) -> T | None:
        try:
            return codec.decode(kind, path.read_bytes(), FRAME_MAX_BYTES)
        except FileNotFoundError:
            return None
        except MessageError as error:
            self.notes.append(f"{path} is damaged and was set aside as {files.set_aside(path).name}: {error}")
            return None
