"""The time of the table of wants: seconds that the gateway has lived through, whatever the wall clock says.

While the machine runs its boot clock counts, over restarts of the gateway too. After a reboot nobody knows how long the
machine was off: the wall clock's difference counts, but at most an hour, so that a clock that jumps by years
(a router without a battery boots in 1970, then NTP answers) cannot make wants expire. A want may live longer for it.
"""

from __future__ import annotations

import contextlib
import time
from dataclasses import dataclass
from pathlib import Path

OFF_MAX_S = 3600.0


@dataclass(frozen=True, slots=True)
class Mark:
    """One moment: the table's time and what the clocks of the machine said."""

    time: float
    boot_id: str
    boot_s: float
    unix: float


def resume(last: Mark | None, boot_id: str, boot_s: float, unix: float) -> float:
    """The table's time at a start, from the last moment that was written down."""
    if last is None:
        return 0.0
    if last.boot_id == boot_id and boot_s >= last.boot_s:
        return last.time + boot_s - last.boot_s
    return last.time + min(max(0.0, unix - last.unix), OFF_MAX_S)


def boot_clock() -> tuple[str, float, float]:
    """The kernel's boot id, its seconds since then (suspended ones too), and Unix time."""
    boot_id = ""
    with contextlib.suppress(OSError):
        boot_id = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    return boot_id, time.clock_gettime(time.CLOCK_BOOTTIME), time.time()
