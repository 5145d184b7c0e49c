"""Whom to ask for the packets of one transfer: pure, `now` in seconds.

The first holder that delivers is the only one that is asked: in a delivery tree that is the parent, and every packet
that comes another way is one too many on some link. A holder that fails is left alone for a while and then tried with
one packet at a time; one that is slow gets the next one beside it, each with a window of its own, so that the share of
each follows what it delivers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from gateway.forwarder import packet
from gateway.forwarder.congestion import Learnt, Window
from gateway.protocol.names import Name

# A holder that was silent for so many timeouts of one packet is taken for gone.
SILENCES_MAX = 2
# One packet lost so often, while others come, is not to be had there.
LOSSES_MAX = 4
# A holder of parts refuses now and then; one that refuses so often in a row has nothing more.
REFUSALS_MAX = 4
# How long one that failed is left alone while others deliver, and while nobody does.
_BENCH_S, _BENCH_MAX_S = 1.0, 8.0
_PAUSE_S, _PAUSE_MAX_S = 0.05, 1.0
# Below half a megabit a second, measured over some seconds, a second holder may help.
SLOW_BYTES_S = 64_000
SLOW_AFTER_S = 3.0
# A slow holder gives its place to one that brings so much more.
_FASTER = 2.0
# Of so many holders is it remembered how much their paths carried.
_PATHS_MAX = 64


@dataclass(slots=True, eq=False)
class Job:
    """One packet to fetch: `index` and `level` are for its receiver, `digest` is known for those of blobs."""

    index: int
    name: Name
    digest: bytes | None = None
    level: int = 0
    # What has been tried: whom and when, how long to wait, how often it was lost there, and who refused.
    sent: float = 0.0
    patience: float = 1.0
    is_retry: bool = False
    is_done: bool = False
    is_forged: bool = False
    silences: int = 0
    losses: int = 0
    rounds: int = 0
    refused: set[Holder] | None = None


class Holder:
    """One node to ask, or with an empty hint whoever the name leads to."""

    def __init__(self, hint: Name, learnt: Learnt | None = None) -> None:
        self.hint, self.hint_field = hint, packet.encode_hint((hint,) if hint else ())
        self.window = Window(learnt)
        self.in_flight: dict[Name, Job] = {}
        self.heard = float("-inf")
        self.strikes = self.refusals = 0
        self.free_at = float("-inf")
        self.has_delivered = self.is_slow = False
        self.bytes_s = 0.0
        self.received_bytes = 0
        self._since: float | None = None

    @property
    def room(self) -> int:
        """How many more packets may be asked for; a holder on trial gets one."""
        return (1 if self.strikes else int(self.window.size)) - len(self.in_flight)

    def due(self, job: Job) -> float:
        """When a packet in flight counts as lost."""
        return job.sent + self.window.rto_with(job.patience)

    def on_answer(self, size: int, now: float) -> None:
        self.heard, self.has_delivered = now, True
        self.strikes = self.refusals = 0
        self.received_bytes += size

    def measure(self, now: float) -> None:
        """Notices, once in SLOW_AFTER_S, how much came; only while it is being asked."""
        if not self.in_flight:
            self._since = None
        elif self._since is None:
            self._since, self.received_bytes = now, 0
        elif now - self._since >= SLOW_AFTER_S:
            self.bytes_s = self.received_bytes / (now - self._since)
            self.is_slow = self.bytes_s < SLOW_BYTES_S
            self._since, self.received_bytes = now, 0


class Paths:
    """What ended transfers knew of the paths to their holders, for the next ones."""

    def __init__(self) -> None:
        self._learnt: dict[Name, Learnt] = {}

    def get(self, hint: Name) -> Learnt | None:
        return self._learnt.get(hint)

    def learn(self, holder: Holder, now: float) -> None:
        """Takes what a transfer that ends has seen of this holder."""
        self._learnt.pop(holder.hint, None)
        if holder.has_delivered and (learnt := holder.window.learnt(now)) is not None:
            self._learnt[holder.hint] = learnt
            if len(self._learnt) > _PATHS_MAX:
                del self._learnt[next(iter(self._learnt))]


class Holders:
    """All that may be asked, in order of preference."""

    def __init__(self, hints: Sequence[Name], paths: Paths | None = None) -> None:
        self._paths = paths if paths is not None else Paths()
        self.all = [self._holder(hint) for hint in dict.fromkeys(hints)] or [self._holder(b"")]
        self._pauses = 0

    def _holder(self, hint: Name) -> Holder:
        return Holder(hint, self._paths.get(hint))

    def end(self, now: float) -> None:
        """The transfer is over: what was learnt of the paths is kept for the next one."""
        for holder in self.all:
            if holder.heard > float("-inf"):
                self._paths.learn(holder, now)

    def prefer(self, hints: Sequence[Name]) -> None:
        """Puts these first, new ones among them, in their order."""
        known = {holder.hint: holder for holder in self.all}
        first = [known.get(hint) or self._holder(hint) for hint in dict.fromkeys(hints)]
        self.all = first + [holder for holder in self.all if holder not in first]

    def active(self, now: float) -> list[Holder]:
        """Those to ask now: up to the first that neither is on trial nor slow."""
        found = []
        for holder in self.all:
            if holder.free_at <= now:
                found.append(holder)
                if not holder.strikes and not holder.is_slow:
                    break
        return found

    def choose(self, job: Job, active: Sequence[Holder], now: float) -> Holder | None:
        """Who gets this job; None when it has to wait."""
        refused = job.refused
        for holder in active:
            if holder.room > 0 and (refused is None or holder not in refused):
                return holder
        if refused is not None:
            for holder in self.all:
                if holder.free_at <= now and holder.room > 0 and holder not in refused:
                    return holder
        return None

    def on_answer(self, holder: Holder, size: int, now: float) -> None:
        holder.on_answer(size, now)
        self._pauses = 0

    def on_refusal(self, holder: Holder, job: Job, now: float) -> None:
        """It said that it cannot bring this."""
        self.exclude(holder, job)
        holder.refusals += 1
        if not holder.has_delivered or holder.refusals >= REFUSALS_MAX:
            self._bench(holder, now)

    def on_silence(self, holder: Holder, job: Job, now: float) -> None:
        """Nothing came from it since it was asked for this."""
        job.silences += 1
        if job.silences >= SILENCES_MAX:
            job.silences = 0
            self._bench(holder, now)

    def on_loss(self, holder: Holder, job: Job) -> None:
        """This was lost while others came: a retransmission goes the same way, unless that has failed too often."""
        job.losses += 1
        if job.losses >= LOSSES_MAX or job.is_forged:
            job.losses, job.is_forged = 0, False
            self.exclude(holder, job)

    def exclude(self, holder: Holder, job: Job) -> None:
        """The job goes elsewhere; when everybody was tried, all may be asked again after `pause_s`."""
        job.refused = (job.refused or set()) | {holder}
        if job.refused.issuperset(self.all):
            job.refused = None
            job.rounds += 1

    @staticmethod
    def pause_s(job: Job) -> float:
        """How long a job waits before those who all refused are asked again."""
        return float(min(_PAUSE_S * 2 ** min(job.rounds - 1, 10), _PAUSE_MAX_S))

    def next_deadline(self, now: float) -> float | None:
        """When somebody that was left alone may be asked again."""
        return min((holder.free_at for holder in self.all if holder.free_at > now), default=None)

    def measure(self, now: float) -> None:
        """Looks at how much each brings; a slow first one may lose its place."""
        for holder in self.all:
            holder.measure(now)
        first = self.all[0]
        if first.is_slow:
            best = max(self.all, key=lambda holder: holder.bytes_s)
            if best.bytes_s > _FASTER * first.bytes_s and not best.strikes:
                self.all.remove(best)
                self.all.insert(0, best)

    def begin_again(self) -> list[Job]:
        """Somebody has come back: who failed may be asked at once. What was asked of them in vain."""
        self._pauses = 0
        overdue: list[Job] = []
        for holder in self.all:
            if holder.strikes or holder.window.patience > 1:
                holder.strikes, holder.free_at = 0, float("-inf")
                holder.window.begin_again()
                overdue += holder.in_flight.values()
                holder.in_flight.clear()
        return overdue

    def _bench(self, holder: Holder, now: float) -> None:
        if holder.free_at > now:
            return
        holder.strikes += 1
        holder.has_delivered, holder.refusals = False, 0
        if any(other.free_at <= now for other in self.all if other is not holder):
            holder.free_at = now + min(_BENCH_S * 2 ** min(holder.strikes - 1, 10), _BENCH_MAX_S)
            return
        # Nobody is left: all of them get another chance soon.
        again = now + min(_PAUSE_S * 2 ** min(self._pauses, 10), _PAUSE_MAX_S)
        self._pauses += 1
        holder.free_at = again
        for other in self.all:
            other.free_at = min(other.free_at, again)
