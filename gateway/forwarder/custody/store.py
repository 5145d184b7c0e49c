"""The wants on the disk: one SQLite file in WAL mode, written in a few transactions on a thread of its own.

A commit does not wait for the disk (synchronous=NORMAL): after a power cut the file is what it was some moments ago,
never damaged by it, and neighbours tell a node that has rebooted again. A file that is damaged all the same is set
aside for its owner and a new one begun; a row that is (its checksum is wrong) is left out.
"""

from __future__ import annotations

import asyncio
import logging
import sqlite3
import zlib
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import ParamSpec, TypeVar

from gateway.files import set_aside
from gateway.forwarder.custody.clock import Mark
from gateway.forwarder.custody.wants import Key

P = ParamSpec("P")
R = TypeVar("R")
log = logging.getLogger(__name__)

# Pages of the log before they go into the file: 256 kB of a router's flash.
_CHECKPOINT_PAGES = 64
_BUSY_S = 2.0
_SCHEMA = """
CREATE TABLE IF NOT EXISTS wants (
    wanter TEXT, sha256 BLOB, packet BLOB, certificate BLOB, hops INTEGER, expires_at REAL, since REAL,
    since_unix REAL, came_from TEXT, checksum INTEGER, PRIMARY KEY (wanter, sha256));
CREATE TABLE IF NOT EXISTS mark (
    only INTEGER PRIMARY KEY CHECK (only = 1), time REAL, boot_id TEXT, boot_s REAL, unix REAL, version INTEGER);
"""


class _Damaged(sqlite3.DatabaseError):
    """What SQLite's own check has found."""


class WantStoreError(Exception):
    """The disk does not take or give wants; the text names the file and says why."""


@dataclass(frozen=True, slots=True)
class Row:
    """A want as it lies on the disk; `expires_at` and `since` are the table's time."""

    wanter: str
    sha256: bytes
    packet: bytes
    certificate: bytes
    hops: int
    expires_at: float
    since: float
    since_unix: float
    came_from: str

    @property
    def checksum(self) -> int:
        told = f"{self.wanter} {self.hops} {self.expires_at!r} {self.since!r} {self.since_unix!r} {self.came_from}"
        return zlib.crc32(self.packet + self.certificate + self.sha256 + told.encode())


@dataclass(frozen=True, slots=True)
class Loaded:
    """What was on the disk, and what was wrong with it in words."""

    rows: list[Row]
    mark: Mark | None
    version: int
    problem: str = ""


class WantStore:
    """The file; every method but `run` is blocking and belongs on the store's thread."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._worker = ThreadPoolExecutor(1, "wants")
        self._database: sqlite3.Connection | None = None

    async def run(self, function: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
        """Calls a blocking function on the store's own thread."""
        return await asyncio.get_running_loop().run_in_executor(self._worker, lambda: function(*args, **kwargs))

    def load(self) -> Loaded:
        """Everything on the disk; raises WantStoreError when no file can be used there at all."""
        try:
            return self._load("")
        except sqlite3.Error as error:
            if not _is_damage(error):
                raise WantStoreError(f"{self.path}: {error}") from error
            problem = self._set_aside(str(error))
        try:
            return self._load(problem)
        except sqlite3.Error as error:
            raise WantStoreError(f"{self.path}: {error}") from error

    def _load(self, problem: str) -> Loaded:
        database = self._open()
        rows, damaged = [], 0
        for *fields, checksum in database.execute("SELECT * FROM wants"):
            row = Row(*fields)
            if _is_whole(row, checksum):
                rows.append(row)
            else:
                damaged += 1
        found = database.execute("SELECT time, boot_id, boot_s, unix, version FROM mark").fetchone()
        if damaged:
            problem = f"{damaged} damaged rows of {self.path} were left out"
        if found is None:
            return Loaded(rows, None, 0, problem)
        return Loaded(rows, Mark(*found[:4]), int(found[4]), problem)

    def _open(self) -> sqlite3.Connection:
        self._close()
        database = sqlite3.connect(self.path, timeout=_BUSY_S, isolation_level=None, check_same_thread=False)
        self._database = database
        check = database.execute("PRAGMA quick_check(1)").fetchone()[0]
        if check != "ok":
            raise _Damaged(check)
        database.execute("PRAGMA journal_mode=WAL")
        database.execute("PRAGMA synchronous=NORMAL")
        database.execute(f"PRAGMA wal_autocheckpoint={_CHECKPOINT_PAGES}")
        database.executescript(_SCHEMA)
        return database

    def _set_aside(self, why: str) -> str:
        """Keeps a damaged file beside the new one; what to tell its owner."""
        self._close()
        try:
            kept = set_aside(self.path)
        except OSError as error:
            raise WantStoreError(f"{self.path}: {why}, and it can't be set aside: {error}") from error
        for tail in ("-wal", "-shm"):
            self.path.with_name(self.path.name + tail).unlink(missing_ok=True)
        text = f"{self.path} was damaged ({why}); it is kept as {kept.name}, and the wants in it are forgotten"
        log.error("%s", text)
        return text

    def apply(self, written: Iterable[Row], removed: Iterable[Key], mark: Mark, version: int) -> None:
        """Writes changes in one transaction; raises WantStoreError and leaves the disk as it was."""
        if self._database is None:
            raise WantStoreError(f"{self.path} is not open")
        try:
            with suppress(sqlite3.Error):
                self._database.execute("ROLLBACK")
            self._database.execute("BEGIN IMMEDIATE")
            self._database.executemany("DELETE FROM wants WHERE wanter = ? AND sha256 = ?", list(removed))
            self._database.executemany("REPLACE INTO wants VALUES (?,?,?,?,?,?,?,?,?,?)", map(_fields, written))
            values = (mark.time, mark.boot_id, mark.boot_s, mark.unix, version)
            self._database.execute("REPLACE INTO mark VALUES (1,?,?,?,?,?)", values)
            self._database.execute("COMMIT")
        except sqlite3.Error as error:
            with suppress(sqlite3.Error):
                self._database.execute("ROLLBACK")
            raise WantStoreError(f"{self.path}: {error}") from error

    def close(self) -> None:
        """Closes the file and ends the thread."""
        self._worker.shutdown()
        self._close()

    def _close(self) -> None:
        if self._database is not None:
            self._database.close()
            self._database = None


def _is_damage(error: sqlite3.Error) -> bool:
    """Whether the file is at fault, not its directory, its permissions or a full disk."""
    name = getattr(error, "sqlite_errorname", "") or ""
    return isinstance(error, _Damaged) or name.startswith(("SQLITE_CORRUPT", "SQLITE_NOTADB", "SQLITE_ERROR"))


def _fields(row: Row) -> tuple[object, ...]:
    return (
        row.wanter,
        row.sha256,
        row.packet,
        row.certificate,
        row.hops,
        row.expires_at,
        row.since,
        row.since_unix,
        row.came_from,
        row.checksum,
    )


def _is_whole(row: Row, checksum: object) -> bool:
    try:
        return row.checksum == checksum
    except (TypeError, AttributeError):  # SQLite keeps whatever type the damaged bytes say
        return False
