"""A token bucket in front of a face: a link's rate is respected, and small control packets overtake bulk."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable

# A queue of a quarter of a second absorbs bursts; beyond it a packet waits longer than a retransmission takes.
QUEUE_S = 0.25
QUEUE_MIN_BYTES = 64 * 1024
BURST_MIN_BYTES = 10_000
# What only control packets may queue: a queue full of bulk must not shut them out.
CONTROL_ROOM_BYTES = 32 * 1024


class Shaper:
    """`rate_bps` bits a second of packets; `now` is monotonic time in seconds."""

    def __init__(self, rate_bps: int, now: float) -> None:
        self.rate_bytes_s = rate_bps / 8
        self._burst = max(BURST_MIN_BYTES, self.rate_bytes_s * 0.01)
        self._tokens, self._filled = self._burst, now
        self._capacity = {
            True: max(QUEUE_MIN_BYTES, self.rate_bytes_s * QUEUE_S),
            False: max(QUEUE_MIN_BYTES, self.rate_bytes_s * QUEUE_S) + CONTROL_ROOM_BYTES,
        }
        self._control: deque[bytes] = deque()
        self._bulk: deque[bytes] = deque()
        self.queued_bytes = 0

    def push(self, wire: bytes, bulk: bool) -> bool:
        """Queues a packet; False when the queue is full and it was dropped."""
        if self.queued_bytes + len(wire) > self._capacity[bulk]:
            return False
        (self._bulk if bulk else self._control).append(wire)
        self.queued_bytes += len(wire)
        return True

    def pop(self, now: float) -> list[bytes]:
        """The packets that may go now. A packet goes when there are tokens at all, and is paid for afterwards."""
        self._tokens = min(self._burst, self._tokens + (now - self._filled) * self.rate_bytes_s)
        self._filled = now
        ready = []
        while self._tokens > 0 and (queue := self._control or self._bulk):
            wire = queue.popleft()
            self._tokens -= len(wire)
            self.queued_bytes -= len(wire)
            ready.append(wire)
        return ready

    def next_deadline(self) -> float | None:
        """When the next packet may go; None when nothing waits."""
        if not self.queued_bytes:
            return None
        return self._filled + max(0.0, -self._tokens) / self.rate_bytes_s + 1e-4


class ShapedWriter:
    """Drives a shaper on the event loop: `write` is called with each packet when its time has come."""

    def __init__(self, rate_bps: int | None, write: Callable[[bytes], None]) -> None:
        self._loop = asyncio.get_running_loop()
        self._shaper = Shaper(rate_bps, self._loop.time()) if rate_bps else None
        self._write = write
        self._timer: asyncio.TimerHandle | None = None

    def push(self, wire: bytes, bulk: bool) -> bool:
        """Writes now or later; False when the queue is full and the packet was dropped."""
        if self._shaper is None:
            self._write(wire)
            return True
        if not self._shaper.push(wire, bulk):
            return False
        self._release()
        return True

    @property
    def queued_bytes(self) -> int:
        """What waits for its time."""
        return self._shaper.queued_bytes if self._shaper is not None else 0

    def close(self) -> None:
        if self._timer is not None:
            self._timer.cancel()

    def _release(self) -> None:
        assert self._shaper is not None
        for wire in self._shaper.pop(self._loop.time()):
            self._write(wire)
        deadline = self._shaper.next_deadline()
        if deadline is not None and self._timer is None:
            self._timer = self._loop.call_at(deadline, self._on_timer)

    def _on_timer(self) -> None:
        self._timer = None
        self._release()
