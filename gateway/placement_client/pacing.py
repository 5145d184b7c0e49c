"""When to try again: pauses that double, and jitter, so that neighbours do not all ask at once."""

from __future__ import annotations

import asyncio
import contextlib
import random

JITTER = 0.25


def jittered(seconds: float, chance: random.Random) -> float:
    """`seconds`, 25 % more or less."""
    return seconds * chance.uniform(1 - JITTER, 1 + JITTER)


class Backoff:
    """Pauses between attempts that fail: `first_s`, then double each time up to `longest_s`, with jitter."""

    def __init__(self, chance: random.Random, first_s: float = 2.0, longest_s: float = 60.0) -> None:
        self._chance, self._first_s, self._longest_s = chance, first_s, longest_s
        self._next_s = first_s

    def failed(self) -> float:
        """The pause before the next attempt, in seconds."""
        pause_s, self._next_s = self._next_s, min(2 * self._next_s, self._longest_s)
        return jittered(pause_s, self._chance)

    def reset(self) -> None:
        self._next_s = self._first_s


async def wait(event: asyncio.Event, timeout_s: float | None) -> None:
    """Returns when the event is set, which it clears, or after the time."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(None if timeout_s is None else max(0.0, timeout_s)):
            await event.wait()
    event.clear()
