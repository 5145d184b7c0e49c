"""The wall clock, and whether the kernel says that something keeps it right."""

from __future__ import annotations

import time

from gateway.placement_client.session import Clock

_TIME_ERROR = 5  # adjtimex(2): the clock is not synchronized
_TIMEX_BYTES = 512  # more than struct timex has on any machine


def read_clock() -> Clock:
    """Unix time now; synchronized is what NTP or its like told the kernel, False where that cannot be asked."""
    import ctypes  # once in a poll, and only on machines with a placement client

    state = int(ctypes.CDLL(None).adjtimex(ctypes.create_string_buffer(_TIMEX_BYTES)))
    return Clock(time.time(), 0 <= state < _TIME_ERROR)
