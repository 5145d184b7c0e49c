"""The services directory belongs to one executor at a time, whose name stands in its lock."""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from gateway.executor.runtimes import processes
from gateway.executor.runtimes.processes import Process


@dataclass(frozen=True, slots=True)
class Holder:
    """The executor that holds the lock, and the process that started it."""

    process: Process
    parent: int

    @property
    def is_supervised(self) -> bool:
        """Whether whoever started it still runs; what nobody started or init did may be taken over."""
        fields = processes.stat_fields(self.process.pid)
        return self.parent > 1 and fields is not None and int(fields[1]) == self.parent


@contextlib.contextmanager
def hold(directory: Path) -> Iterator[None]:
    """Holds the services directory for this process alone, with its name in it; raises OSError when another does."""
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    check_private(directory)
    # Not truncated before it is ours: it names the one that holds it.
    with open(os.open(directory / ".lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600), "r+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise OSError(f"{directory} is in use by another executor") from None
        this = Process.of(os.getpid())
        file.truncate()
        file.write(f"{this.pid} {this.start_ticks} {os.getppid()}\n" if this else "")
        file.flush()
        yield


def check_private(directory: Path) -> None:
    """Whoever could write here could make the executor stop or adopt what it should not: raises OSError."""
    status = directory.lstat()
    if status.st_uid != os.geteuid() or status.st_mode & 0o022 or directory.is_symlink():
        raise OSError(f"{directory} must be a directory that only its owner, user {os.geteuid()}, can write to")


def is_held(directory: Path) -> bool:
    """Whether an executor holds the directory; one that this user may not look into is not known to be held."""
    with contextlib.suppress(FileNotFoundError, PermissionError), open(directory / ".lock") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


def read_holder(directory: Path) -> Holder | None:
    """Who holds the directory; None when it is nobody that still runs, or is not known."""
    try:
        pid, start_ticks, parent = (directory / ".lock").read_text().split()
        process = Process.parse(pid, start_ticks)
        return Holder(process, int(parent)) if process is not None and process.alive else None
    except (OSError, ValueError):
        return None
