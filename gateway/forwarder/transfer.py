"""Many Interests at once: keeps as many in flight as the window allows, and asks again, elsewhere, for what is lost.

Each Interest in flight has its own worker, so that the number of workers is the window. One whose answer came takes
the next job at once; the window's growth adds workers, and when it shrinks, those in excess leave. Time is the event
loop's clock.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from gateway.forwarder.congestion import Window
from gateway.forwarder.endpoint import FetchError, Nacked, TimedOut
from gateway.forwarder.packet import Data
from gateway.protocol import names
from gateway.protocol.names import Name

# A retransmission comes much earlier, but an answer on a long path may still come to the first Interest.
LIFETIME_MS = 4000
TIMEOUTS_PER_HINT = 2
_FIRST_PAUSE_S, _LAST_PAUSE_S = 0.05, 1.0


class Requester(Protocol):
    """The consumer's side of an Endpoint."""

    async def express(
        self,
        name: Name,
        *,
        can_be_prefix: bool = False,
        must_be_fresh: bool = False,
        lifetime_ms: int = LIFETIME_MS,
        hint: Sequence[Name] = (),
        digest: bytes | None = None,
        retries: int = 0,
    ) -> Data: ...


@dataclass(slots=True)
class Counters:
    """What a consumer has done; `segments` and `bytes` are of accepted packets and their payloads."""

    interests: int = 0
    segments: int = 0
    bytes: int = 0
    timeouts: int = 0
    nacks: int = 0
    forged: int = 0


@dataclass(frozen=True, slots=True)
class Job:
    """One packet to fetch: `index` is for its receiver, `digest` its implicit digest where that is known."""

    index: int
    name: Name
    digest: bytes | None = None


@dataclass(slots=True)
class _Task:
    """A job with what has been tried for it."""

    job: Job
    timeouts: int = 0
    is_retry: bool = False


class Hints:
    """The holders to ask, in order and round again; `b""` stands for asking without a hint."""

    def __init__(self, hints: Sequence[Name]) -> None:
        self._choices: list[tuple[Name, ...]] = [(hint,) if hint else () for hint in hints] or [()]
        self.turn = 0

    @property
    def current(self) -> tuple[Name, ...]:
        return self._choices[self.turn % len(self._choices)]

    def failed(self, turn: int) -> None:
        """The holder of that turn did not answer; many may say so, once is enough."""
        if turn == self.turn:
            self.turn += 1

    def rounds_since(self, turn: int) -> int:
        """How often every holder has been tried since that turn."""
        return (self.turn - turn) // len(self._choices)


class Transfer:
    """Fetches jobs until none is left; `accept` gets each answer, in any order.

    Raises FetchError after `patience_s` without progress; it names `what`, the packet and the last reason.
    """

    def __init__(
        self, endpoint: Requester, counters: Counters, hints: Sequence[Name], patience_s: float, what: str
    ) -> None:
        self._endpoint, self._counters, self._what = endpoint, counters, what
        self._hints, self._patience_s = Hints(hints), patience_s
        self._clock = asyncio.get_running_loop().time
        self._progress_at, self._progress_turn = self._clock(), 0
        self.window = Window()
        self._workers = 0
        self._postponed: deque[_Task] = deque()

    async def run(self, next_job: Callable[[], Job | None], accept: Callable[[Job, Data], None]) -> None:
        """Runs until `next_job` gives None and nothing is in flight; it may give more jobs after an `accept`.

        What `accept` raises ends the transfer.
        """
        self._next_job, self._accept = next_job, accept
        self._progress_at = self._clock()
        try:
            async with asyncio.TaskGroup() as group:
                self._group = group
                self._hire()
        except BaseExceptionGroup as failures:
            raise failures.exceptions[0] from None

    def _hire(self) -> None:
        while self._workers < int(self.window.size) and (task := self._next_task()) is not None:
            self._workers += 1
            self._group.create_task(self._work(task))

    def _next_task(self) -> _Task | None:
        if self._postponed:
            return self._postponed.popleft()
        job = self._next_job()
        return None if job is None else _Task(job)

    async def _work(self, task: _Task | None) -> None:
        while task is not None:
            data = await self._try(task)
            is_one_too_many = self._workers > int(self.window.size)
            if data is not None:
                self._counters.segments += 1
                self._counters.bytes += len(data.content)
                self._accept(task.job, data)
                task = None if is_one_too_many else self._next_task()
                self._hire()
            elif is_one_too_many:
                self._postponed.append(task)
                break
        self._workers -= 1

    async def _try(self, task: _Task) -> Data | None:
        """Asks once; None after a failure, with the pause taken that it calls for."""
        job, window, turn, sent = task.job, self.window, self._hints.turn, self._clock()
        hint = self._hints.current
        self._counters.interests += 1
        try:
            async with asyncio.timeout(window.rto_s):
                data = await self._endpoint.express(job.name, lifetime_ms=LIFETIME_MS, hint=hint, digest=job.digest)
        except (TimeoutError, TimedOut):
            self._counters.timeouts += 1
            task.timeouts += 1
            window.on_timeout(sent, self._clock())
            reason = f"no answer within {self._clock() - sent:.1f} s"
            is_refused = task.timeouts % TIMEOUTS_PER_HINT == 0
        except Nacked as nack:
            self._counters.nacks += 1
            window.on_loss(sent, self._clock())
            reason, is_refused = nack.reason, True
        else:
            now = self._clock()
            if job.digest is None or data.digest == job.digest:
                window.on_data(None if task.is_retry else now - sent, now)
                self._progress_at, self._progress_turn = now, self._hints.turn
                return data
            self._counters.forged += 1
            reason, is_refused = "a packet with another digest came", True
        task.is_retry = True
        if is_refused:
            self._hints.failed(turn)
        self._give_up_in_time(job, hint, reason)
        await self._pause(is_refused)
        return None

    def _give_up_in_time(self, job: Job, hint: tuple[Name, ...], reason: str) -> None:
        if self._clock() - self._progress_at >= self._patience_s:
            via = f" from {names.to_uri(hint[0])}" if hint else ""
            raise FetchError(
                f"{self._what}: {names.to_uri(job.name)} did not come{via}: {reason};"
                f" nothing came for {self._patience_s:g} s"
            )

    async def _pause(self, is_refused: bool) -> None:
        """Waits before asking those again who have all refused."""
        rounds = self._hints.rounds_since(self._progress_turn)
        if is_refused and rounds:
            await asyncio.sleep(min(_FIRST_PAUSE_S * 2 ** min(rounds - 1, 10), _LAST_PAUSE_S))
