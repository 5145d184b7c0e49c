"""A token bucket in front of a face: a link's rate is respected, and small control packets overtake bulk."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Iterable, Sequence, Sized
from typing import Generic, TypeVar

# A queue of a quarter of a second absorbs bursts; beyond it a packet waits longer than a retransmission takes.
QUEUE_S = 0.25
QUEUE_MIN_BYTES = 64 * 1024
BURST_MIN_BYTES = 10_000
# What only control packets may queue: a queue full of bulk must not shut them out.
CONTROL_ROOM_BYTES = 32 * 1024

T = TypeVar("T", bound=Sized)


class Shaper(Generic[T]):
    """`rate_bps` bits a second of packets, each `overhead_bytes` longer on the link; `now` is monotonic, in seconds."""

    def __init__(self, rate_bps: int, now: float, overhead_bytes: int = 0) -> None:
        self.rate_bytes_s, self._overhead_bytes = rate_bps / 8, overhead_bytes
        self._burst = max(BURST_MIN_BYTES, self.rate_bytes_s * 0.01)
        self._tokens, self._filled = self._burst, now
        self._capacity = {
            True: max(QUEUE_MIN_BYTES, self.rate_bytes_s * QUEUE_S),
            False: max(QUEUE_MIN_BYTES, self.rate_bytes_s * QUEUE_S) + CONTROL_ROOM_BYTES,
        }
        self._control: deque[T] = deque()
        self._bulk: deque[T] = deque()
        self.queued_bytes = 0

    def push(self, packet: T, bulk: bool) -> bool:
        """Queues a packet; False when the queue is full and it was dropped."""
        return self.push_all((packet,), bulk)

    def push_all(self, packets: Sequence[T], bulk: bool) -> bool:
        """Queues packets that are of no use without each other; False when they were dropped."""
        size = sum(map(len, packets))
        if self.queued_bytes + size > self._capacity[bulk]:
            return False
        (self._bulk if bulk else self._control).extend(packets)
        self.queued_bytes += size
        return True

    def push_first(self, packets: Sequence[T]) -> None:
        """Queues ahead of bulk what has waited before and is sent again."""
        self._bulk.extendleft(reversed(packets))
        self.queued_bytes += sum(map(len, packets))

    def charge(self, size: int) -> None:
        """Pays for bytes of a packet that goes past the queue."""
        self._tokens -= size + self._overhead_bytes

    def pop(self, now: float) -> list[T]:
        """The packets that may go now. A packet goes when there are tokens at all, and is paid for afterwards."""
        self._tokens = min(self._burst, self._tokens + (now - self._filled) * self.rate_bytes_s)
        self._filled = now
        ready = []
        while self._tokens > 0 and (queue := self._control or self._bulk):
            packet = queue.popleft()
            self._tokens -= len(packet) + self._overhead_bytes
            self.queued_bytes -= len(packet)
            ready.append(packet)
        return ready

    def next_deadline(self) -> float | None:
        """When the next packet may go; None when nothing waits."""
        if not self.queued_bytes:
            return None
        return self._filled + max(0.0, -self._tokens) / self.rate_bytes_s + 1e-4


class ShapedWriter(Generic[T]):
    """Drives a shaper on the event loop: `write` is called with each packet when its time has come."""

    def __init__(self, rate_bps: int | None, write: Callable[[T], None], overhead_bytes: int = 0) -> None:
        self._loop = asyncio.get_running_loop()
        self._shaper: Shaper[T] | None = Shaper(rate_bps, self._loop.time(), overhead_bytes) if rate_bps else None
        self._write = write
        self._timer: asyncio.TimerHandle | None = None

    def push(self, packet: T, bulk: bool) -> bool:
        """Writes now or later; False when the queue is full and the packet was dropped."""
        return self.push_all((packet,), bulk)

    def push_all(self, packets: Sequence[T], bulk: bool) -> bool:
        """The same for packets that are of no use without each other."""
        if self._shaper is None:
            self._write_all(packets)
            return True
        if not self._shaper.push_all(packets, bulk):
            return False
        self._release()
        return True

    def push_first(self, packets: Sequence[T]) -> None:
        """Writes ahead of all bulk, and whatever the queue holds, what is sent again."""
        if self._shaper is None:
            self._write_all(packets)
            return
        self._shaper.push_first(packets)
        self._release()

    def charge(self, size: int) -> None:
        """Pays for bytes of a packet that goes past the queue."""
        if self._shaper is not None:
            self._shaper.charge(size)

    @property
    def queued_bytes(self) -> int:
        """What waits for its time."""
        return self._shaper.queued_bytes if self._shaper is not None else 0

    def close(self) -> None:
        if self._timer is not None:
            self._timer.cancel()

    def _write_all(self, packets: Iterable[T]) -> None:
        for packet in packets:
            self._write(packet)

    def _release(self) -> None:
        assert self._shaper is not None
        self._write_all(self._shaper.pop(self._loop.time()))
        deadline = self._shaper.next_deadline()
        if deadline is not None and self._timer is None:
            self._timer = self._loop.call_at(deadline, self._on_timer)

    def _on_timer(self) -> None:
        self._timer = None
        self._release()
