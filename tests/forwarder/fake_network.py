"""A network in one object, on a virtual clock: delay, loss, reordering, rate, forgery and Nacks."""

from __future__ import annotations

import asyncio
import random
import selectors
from collections.abc import Callable, Coroutine, Sequence
from typing import Any, TypeVar

from gateway.forwarder.endpoint import Nacked, TimedOut
from gateway.forwarder.packet import NACK_NO_ROUTE, Data, decode_data
from gateway.protocol import keys
from gateway.protocol.names import Name

T = TypeVar("T")
# name, can_be_prefix, implicit digest -> the packet, or None for a Nack
Holder = Callable[[Name, bool, bytes | None], bytes | None]


class Silence(Exception):
    """Raised by a holder that does not answer."""


class _JumpingSelector(selectors.DefaultSelector):
    """Instead of waiting for a timer it moves the clock there, unless a thread of the loop is at work."""

    now = 0.0
    thread_jobs = 0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        events = super().select(0)
        if events or (timeout is not None and timeout <= 0):
            return events
        if timeout is None or self.thread_jobs:
            return super().select(10)
        self.now += timeout
        return []


class VirtualLoop(asyncio.SelectorEventLoop):
    """An event loop on which hours pass in no time; the work of threads takes no time at all."""

    def __init__(self) -> None:
        self._jumping = _JumpingSelector()
        super().__init__(self._jumping)

    def time(self) -> float:
        return self._jumping.now

    def run_in_executor(self, executor: Any, function: Any, *args: Any) -> Any:
        self._jumping.thread_jobs += 1
        future = super().run_in_executor(executor, function, *args)
        future.add_done_callback(self._thread_done)
        return future

    def _thread_done(self, _: Any) -> None:
        self._jumping.thread_jobs -= 1


def run(main: Coroutine[Any, Any, T]) -> T:
    """Runs a coroutine on a virtual clock."""
    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        return runner.run(main)


class FakeNetwork:
    """Stands for an Endpoint: `holders` answer by the ForwardingHint they are named with, `b""` without a hint."""

    def __init__(self, seed: int = 1, delay_s: float = 0.01) -> None:
        self.holders: dict[Name, Holder] = {}
        self.delay_s, self.jitter_s, self.loss, self.forgery = delay_s, 0.0, 0.0, 0.0
        self.rate_bytes_s: float | None = None
        self.capacity = 1 << 30  # what more is in flight is lost
        self.asked: list[tuple[Name, Name]] = []
        self.in_flight = self.peak = 0
        self.is_up = True
        self._random = random.Random(seed)
        self._free_at = 0.0

    async def express(
        self,
        name: Name,
        *,
        can_be_prefix: bool = False,
        must_be_fresh: bool = False,
        lifetime_ms: int = 4000,
        hint: Sequence[Name] = (),
        digest: bytes | None = None,
        retries: int = 0,
    ) -> Data:
        for _ in range(retries + 1):
            self.in_flight += 1
            self.peak = max(self.peak, self.in_flight)
            self.asked.append((name, b"".join(hint)))
            try:
                async with asyncio.timeout(lifetime_ms / 1000):
                    return await self._answer(name, can_be_prefix, b"".join(hint), digest)
            except TimeoutError:
                continue
            finally:
                self.in_flight -= 1
        raise TimedOut("no answer")

    async def _answer(self, name: Name, can_be_prefix: bool, hint: Name, digest: bytes | None) -> Data:
        crowded = self.in_flight > self.capacity
        await asyncio.sleep(self.delay_s + self.jitter_s * self._random.random())
        if not self.is_up or self._random.random() < self.loss or crowded:
            await asyncio.sleep(3600)
        holder = self.holders.get(hint)
        try:
            wire = holder(name, can_be_prefix, digest) if holder else None
        except Silence:
            await asyncio.sleep(3600)
        if wire is None:
            raise Nacked(name, NACK_NO_ROUTE)
        if self._random.random() < self.forgery:
            return decode_data(keys.sign_data(name, b"forged"))
        if self.rate_bytes_s is not None:
            now = asyncio.get_running_loop().time()
            self._free_at = max(now, self._free_at) + len(wire) / self.rate_bytes_s
            await asyncio.sleep(self._free_at - now)
        return decode_data(wire)
