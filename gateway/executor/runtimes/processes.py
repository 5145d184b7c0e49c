"""Processes by pid and start time, from /proc; a pid alone may be another process by now."""

from __future__ import annotations

import contextlib
import os
import signal
from dataclasses import dataclass
from pathlib import Path

_TICKS = os.sysconf("SC_CLK_TCK")
_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")


@dataclass(frozen=True, slots=True)
class Process:
    """A process that is named for good: a pid and when it started, in clock ticks since boot."""

    pid: int
    start_ticks: int

    @classmethod
    def parse(cls, pid: str, start_ticks: str) -> Process | None:
        try:
            return cls(int(pid), int(start_ticks))
        except ValueError:
            return None

    @classmethod
    def of(cls, pid: int) -> Process | None:
        fields = stat_fields(pid)
        return cls(pid, int(fields[19])) if fields else None

    @property
    def alive(self) -> bool:
        """Whether it runs; one that ended and waits for its parent does not."""
        fields = stat_fields(self.pid)
        return fields is not None and int(fields[19]) == self.start_ticks and fields[0] not in "ZX"

    def open(self) -> int | None:
        """A pidfd, None when it is gone."""
        with contextlib.suppress(OSError):
            descriptor = os.pidfd_open(self.pid)
            if self.alive:
                return descriptor
            os.close(descriptor)
        return None

    def signal(self, number: int) -> None:
        descriptor = self.open()
        if descriptor is not None:
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(descriptor, number)
            os.close(descriptor)


def stat_fields(pid: int) -> list[str] | None:
    """The fields of /proc/PID/stat after the name, from the state on; None when there is no such process."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None


def command_line(pid: int) -> list[str]:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace").split("\0")
    except OSError:
        return []


def pids() -> list[int]:
    return [int(name) for name in os.listdir("/proc") if name.isdigit()]


def descendants(pid: int) -> list[int]:
    """The children of `pid`, theirs, and so on."""
    children: dict[int, list[int]] = {}
    for each in pids():
        fields = stat_fields(each)
        if fields:
            children.setdefault(int(fields[1]), []).append(each)
    found, front = [], [pid]
    while front:
        front = [child for parent in front for child in children.get(parent, ())]
        found += front
    return found


def usage(processes: list[int]) -> tuple[int, float]:
    """Resident bytes and CPU seconds of these processes together."""
    memory, ticks = 0, 0
    for pid in processes:
        fields = stat_fields(pid)
        if fields:
            memory += int(fields[21]) * _PAGE_BYTES
            ticks += int(fields[11]) + int(fields[12])
    return memory, ticks / _TICKS
