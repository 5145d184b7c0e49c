"""What a process has used, read from /proc by whoever watches it."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

_TICKS_S = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True, slots=True)
class Cpu:
    """Processor time in seconds, in user mode and in the kernel."""

    user_s: float
    system_s: float

    def __add__(self, other: Cpu) -> Cpu:
        return Cpu(self.user_s + other.user_s, self.system_s + other.system_s)

    def __sub__(self, other: Cpu) -> Cpu:
        return Cpu(self.user_s - other.user_s, self.system_s - other.system_s)

    @property
    def total_s(self) -> float:
        return self.user_s + self.system_s


def cpu(pid: int) -> Cpu:
    """All that a process has used: its threads, those that ended included, and its children, dead or alive."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    user, system, dead_user, dead_system = (int(field) for field in fields[11:15])
    used = Cpu((user + dead_user) / _TICKS_S, (system + dead_system) / _TICKS_S)
    for child in children(pid):
        used += cpu(child)
    return used


def children(pid: int) -> list[int]:
    """The living children of all threads of a process."""
    found: list[int] = []
    for task in Path(f"/proc/{pid}/task").iterdir():
        found += map(int, (task / "children").read_text().split())
    return found


def rss_bytes(pid: int) -> int:
    """Resident memory of a process and its children."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    own = next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmRSS:"))
    return own + sum(rss_bytes(child) for child in children(pid))


@contextlib.contextmanager
def on_cores(count: int | None) -> Iterator[None]:
    """What is started within runs on so many cores, the first of those that there are; None leaves it to the kernel."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, sorted(before)[:count])
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)
