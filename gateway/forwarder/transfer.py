"""Many Interests at once: keeps as many in flight as the windows allow, and asks again for what is lost.

Nothing is made for a packet but its Job: no task, no future, no timer of its own. Packets come in by `on_packet`, what
is asked for next goes out once in a turn of the event loop, and one timer looks for what is overdue. Whom to ask is
decided in holders.py, how many at a time in congestion.py. Time is the event loop's clock.
"""

from __future__ import annotations

import asyncio
import heapq
import itertools
import random
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from gateway.forwarder import packet
from gateway.forwarder.endpoint import Asker, Disconnected, FetchError
from gateway.forwarder.holders import Holder, Holders, Job, Paths
from gateway.forwarder.packet import NACK_CONGESTION, Data
from gateway.protocol import names
from gateway.protocol.names import Name

__all__ = ["Counters", "Job", "Requester", "Transfer"]

# How often the timer looks at least, for who is slow and whether anything came at all; and at most.
_TICK_S, _TICK_MIN_S = 1.0, 0.01
# Jobs that wait for a holder that has room may be so many before the others wait as well.
_PASSED_OVER_MAX = 64

# Takes a job and its packet, verified where the job has a digest; what it raises ends the transfer, DecodeError apart.
Accept = Callable[[Job, bytes], None]


class Requester(Protocol):
    """The consumer's side of an Endpoint."""

    async def express(
        self,
        name: Name,
        *,
        can_be_prefix: bool = False,
        must_be_fresh: bool = False,
        lifetime_ms: int = packet.DEFAULT_LIFETIME_MS,
        hint: Sequence[Name] = (),
        digest: bytes | None = None,
        retries: int = 0,
    ) -> Data: ...

    def ask(self, name: Name, wire: bytes, asker: Asker) -> None: ...

    def forget(self, name: Name, asker: Asker) -> None: ...


class _Learner:
    """What one transfer leaves to the next ones, besides its counts."""

    __slots__ = ("paths",)

    def __post_init__(self) -> None:
        self.paths = Paths()


@dataclass(slots=True)
class Counters(_Learner):
    """What a consumer has done; `segments` and `bytes` are of accepted packets and their payloads.

    `repeats` are Interests sent again, `marks` answers that came with a congestion mark.
    """

    interests: int = 0
    segments: int = 0
    bytes: int = 0
    timeouts: int = 0
    nacks: int = 0
    forged: int = 0
    repeats: int = 0
    marks: int = 0


class Transfer:
    """Fetches jobs until none is left; `accept` gets each answer, in any order.

    Raises FetchError after `patience_s` without progress; it names `what`, the packet and the last reason.
    """

    def __init__(
        self, endpoint: Requester, counters: Counters, hints: Sequence[Name], patience_s: float, what: str
    ) -> None:
        self._endpoint, self._counters, self._what = endpoint, counters, what
        self._patience_s = patience_s
        self._loop = asyncio.get_running_loop()
        self._clock = self._loop.time
        self.holders = Holders(hints, counters.paths)
        self._jobs: dict[Name, tuple[Job, Holder]] = {}
        self._again: deque[Job] = deque()
        self._later: list[tuple[float, int, Job]] = []
        self._serial = itertools.count()
        self._progress_at = self._clock()
        self._reason = "nothing was asked yet"
        self._done: asyncio.Future[None] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._is_pumping = False
        self._measured_at = self._clock()

    async def run(self, next_job: Callable[[], Job | None], accept: Accept) -> None:
        """Runs until `next_job` gives None and nothing is in flight; it may give more jobs after an `accept`."""
        self._next_job, self._accept = next_job, accept
        self._progress_at = self._clock()
        self._done = self._loop.create_future()
        try:
            self._pump()
            self._arm()
            await self._done
        finally:
            self._stop()

    def nudge(self, hints: Sequence[Name] = ()) -> None:
        """Something has changed, a neighbour came back or a contact began: asks at once for all that is overdue.

        `hints` are holders that are asked first from now on.
        """
        if hints:
            self.holders.prefer(hints)
        for job in self.holders.begin_again():
            job.is_retry = True
            self._again.append(job)
        for _, _, job in self._later:
            job.refused = None
            self._again.append(job)
        self._later.clear()
        self._progress_at = self._clock()
        self._schedule_pump()

    def _stop(self) -> None:
        self._done = None
        self.holders.end(self._clock())
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        for name, (_, holder) in self._jobs.items():
            self._endpoint.forget(name, self)
            holder.in_flight.clear()
        self._jobs.clear()

    # --- out

    def _schedule_pump(self) -> None:
        if not self._is_pumping:
            self._is_pumping = True
            self._loop.call_soon(self._pump)

    def _pump(self) -> None:
        """Asks for as much as the windows allow; ends the transfer when nothing is left."""
        self._is_pumping = False
        if self._done is None or self._done.done():
            return
        now = self._clock()
        active = self.holders.active(now)
        passed_over: list[Job] = []
        is_exhausted = False
        while len(passed_over) < _PASSED_OVER_MAX and (passed_over or any(holder.room > 0 for holder in active)):
            job = self._again.popleft() if self._again else self._next_job()
            if job is None:
                is_exhausted = True
                break
            if job.is_done:
                continue
            holder = self.holders.choose(job, active, now)
            if holder is None:
                passed_over.append(job)
                if not any(holder.room > 0 for holder in active):
                    break
            else:
                self._send(job, holder, now)
        self._again.extendleft(reversed(passed_over))
        if is_exhausted and not self._jobs:
            self._done.set_result(None)

    def _send(self, job: Job, holder: Holder, now: float) -> None:
        counters, name = self._counters, job.name
        counters.interests += 1
        counters.repeats += job.is_retry
        job.sent, job.patience = now, holder.window.patience
        holder.in_flight[name] = job
        self._jobs[name] = job, holder
        nonce = random.getrandbits(32).to_bytes(4, "big")
        wire = packet.encode_plain_interest(name, job.digest, holder.hint_field, nonce)
        self._endpoint.ask(name, wire, self)

    # --- in: called by the endpoint

    def on_packet(self, name: Name, wire: bytes, is_marked: bool) -> bool:
        """Takes the packet when it is the right one; another one of that name is counted, and the right one awaited."""
        known = self._jobs.get(name)
        if known is None:
            return False
        job, holder = known
        counters = self._counters
        if job.digest is not None and packet.implicit_digest(wire) != job.digest:
            counters.forged += 1
            job.is_forged = True
            self._reason = "a packet with another digest came"
            return False
        try:
            self._accept(job, wire)
        except packet.DecodeError:
            counters.forged += 1
            return False
        except Exception as error:
            self._fail(error)
            return True
        job.is_done = True
        del self._jobs[name]
        holder.in_flight.pop(name, None)
        now = self._clock()
        counters.segments += 1
        counters.marks += is_marked
        holder.window.on_data(None if job.is_retry else now - job.sent, now, is_marked, len(wire))
        self.holders.on_answer(holder, len(wire), now)
        self._progress_at = now
        if not self._is_pumping:
            self._is_pumping = True
            self._loop.call_soon(self._pump)
        return True

    def on_nack(self, name: Name, reason: int) -> None:
        known = self._jobs.get(name)
        if known is None:
            return
        job, holder = known
        self._counters.nacks += 1
        if name not in holder.in_flight:
            return
        now = self._clock()
        self._reason = packet.NACK_REASONS.get(reason, str(reason))
        self._take_back(job, holder)
        if reason == NACK_CONGESTION:
            holder.window.on_nack(job.sent, now)
            self._postpone(job, now + (holder.window.rtt_s or _TICK_MIN_S))
        else:
            rounds = job.rounds
            self.holders.on_refusal(holder, job, now)
            if job.rounds > rounds:
                self._postpone(job, now + self.holders.pause_s(job))
            else:
                self._again.append(job)
        self._schedule_pump()
        self._arm()

    def on_disconnect(self) -> None:
        self._fail(Disconnected(f"{self._what}: the forwarder closed the connection"))

    # --- time

    def _on_timer(self) -> None:
        self._timer = None
        now = self._clock()
        for holder in self.holders.all:
            for job in list(holder.in_flight.values()):
                if holder.due(job) <= now:
                    self._time_out(job, holder, now)
        while self._later and self._later[0][0] <= now:
            self._again.append(heapq.heappop(self._later)[2])
        if now - self._measured_at >= _TICK_S:
            self._measured_at = now
            self.holders.measure(now)
        if now - self._progress_at >= self._patience_s:
            self._give_up()
            return
        self._pump()
        self._arm()

    def _arm(self) -> None:
        """Sets the timer for what comes first; later packets in flight are due later, roughly."""
        if self._done is None or self._done.done():
            return
        now = self._clock()
        when = min(now + _TICK_S, self._progress_at + self._patience_s)
        for holder in self.holders.all:
            for job in holder.in_flight.values():
                when = min(when, holder.due(job))
        if self._later:
            when = min(when, self._later[0][0])
        when = min(when, self.holders.next_deadline(now) or when)
        when = max(when, now + _TICK_MIN_S)
        if self._timer is not None:
            if self._timer.when() <= when:
                return
            self._timer.cancel()
        self._timer = self._loop.call_at(when, self._on_timer)

    def _time_out(self, job: Job, holder: Holder, now: float) -> None:
        self._counters.timeouts += 1
        self._reason = f"no answer within {now - job.sent:.1f} s"
        self._take_back(job, holder)
        rounds = job.rounds
        if holder.heard < job.sent:
            holder.window.on_timeout(job.sent, now)
            self.holders.on_silence(holder, job, now)
        else:
            holder.window.on_loss(job.sent, now)
            self.holders.on_loss(holder, job)
        if job.rounds > rounds:
            self._postpone(job, now + self.holders.pause_s(job))
        else:
            self._again.append(job)

    def _take_back(self, job: Job, holder: Holder) -> None:
        """It waits to be asked for again; an answer that comes late is as good."""
        del holder.in_flight[job.name]
        job.is_retry = True

    def _postpone(self, job: Job, when: float) -> None:
        heapq.heappush(self._later, (when, next(self._serial), job))

    def _give_up(self) -> None:
        asked = min(self._jobs.values(), key=lambda known: known[0].index, default=None)
        uri = names.to_uri(asked[0].name) if asked is not None else "a packet"
        via = f" from {names.to_uri(asked[1].hint)}" if asked is not None and asked[1].hint else ""
        text = f"{self._what}: {uri} did not come{via}: {self._reason}; nothing came for {self._patience_s:g} s"
        self._fail(FetchError(text))

    def _fail(self, error: BaseException) -> None:
        if self._done is not None and not self._done.done():
            self._done.set_exception(error)
