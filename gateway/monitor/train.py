"""Packet trains: how fast a link is, from the times at which a train's packets arrive.

A probe begins with 8 packets, asked for at once. The next train has what is left of a quarter of a second at the rate
of the one before, and the probe ends when a train was even and no longer one fits. A token bucket on the way lets the
first part of a train through at once; so the rate is the slope of the later half, and a train whose two later
quarters disagree is followed by another.

What a receiver reads at once waited in its buffer: the times within such a group say how fast this machine is, not
the link. So rates run from the end of one group to the end of another, when the buffer was empty. A machine that is
busy notes such an end late: a ticking timer tells when, those ends are avoided, and what can't be avoided is doubt.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from itertools import pairwise

PAYLOAD_BYTES = 8000
FIRST_TRAIN, SECOND_TRAIN = 8, 16
# The link's time for a probe. Its last train has about half of it or more, unless the bytes are spent: enough for a
# figure within a fifth where a receiver or a shaper is some milliseconds late.
BUDGET_S = 0.25
LONG_ENOUGH_S = BUDGET_S / 2
BUDGET_BYTES = 2_000_000
# How much longer the next train may be: after an even one, and after one whose rate may be that of a burst.
GROWTH, GROWTH_IN_DOUBT = 4, 2
MIN_ARRIVALS = 4
# The later two quarters of a train agree when the last has at least this share of the rate of the one before.
STEADY_SHARE = 0.75
MAX_CONFIDENCE = 0.8
# Arrivals are one group within this time of its first, or while they follow each other far faster than on average.
GROUP_S = 0.001
GROUP_GAP_SHARE = 0.5
# A timer is late by less than this on an idle machine.
LATE_S = 0.002
# With more doubt a train is followed by another, as an uneven one is.
DOUBT_MAX = 0.2
# The figure exceeds the rate of the whole train, round trip left out, by so much at most.
CEILING = 1.25


@dataclass(frozen=True, slots=True)
class Arrival:
    """A packet of a train; it may have been read up to `late_s` before the time that was noted."""

    at: float
    size: int
    late_s: float = 0.0


@dataclass(frozen=True, slots=True)
class Slope:
    """A train's rate; `is_steady` says that it did not fall while the train passed.

    `doubt` is the share, 0 to 1, of the time measured that may not have been the link's: a machine slept, or nothing
    came that had been asked for.
    """

    mbps: float
    is_steady: bool
    doubt: float = 0.0

    @property
    def is_sure(self) -> bool:
        return self.is_steady and self.doubt < DOUBT_MAX


@dataclass(frozen=True, slots=True)
class ProbeResult:
    """What a probe found; `mbps` is None when it found nothing, `reason` then says why."""

    mbps: float | None
    confidence: float
    duration_s: float
    received_bytes: int
    reason: str = ""


def slope(arrivals: list[Arrival], sent: float | None = None, rtt_s: float = 0.0) -> Slope | None:
    """The rate over the later half of a train, the burst excluded; None when too little arrived to tell.

    `sent` is when the first Interest left and `rtt_s` the shortest known time from there to a first arrival.
    """
    if len(arrivals) < MIN_ARRIVALS:
        return None
    ends = _group_ends(sorted(arrivals, key=lambda a: a.at))
    ceiling = None if sent is None else _ceiling(ends[-1], sent, rtt_s)
    if len(ends) > 2 and ends[-1].packets - ends[-2].packets < ends[-2].packets - ends[-3].packets:
        ends.pop()  # the train was over before this read: its time is the reader's
    count = ends[-1].packets
    start, last_quarter = _surest(ends, count // 4, count // 2), _surest(ends, count // 2, (3 * count) // 4)
    last = _surest(ends, (3 * count) // 4, count)
    rate = _rate(start, last)
    if rate is None and ceiling is not None:
        return Slope(ceiling / CEILING * 8e-6, False)  # all came at once: the whole train's rate is all there is
    if rate is None:
        return None
    early, late = _rate(start, last_quarter), _rate(last_quarter, last)
    is_steady = early is not None and late is not None and late >= STEADY_SHARE * early
    if late is not None and late < rate and not is_steady:
        start, rate = last_quarter, late
    if ceiling is not None:
        rate = min(rate, ceiling)
    lost_s = max(start.late_s, last.late_s, _idle_s([end for end in ends if start.at <= end.at <= last.at], rate))
    return Slope(rate * 8e-6, is_steady, min(1.0, lost_s / (last.at - start.at)))


@dataclass(slots=True)
class _End:
    """The end of a group: when its last packet came, and the packets and bytes of the train until then."""

    at: float
    packets: int
    size: int
    late_s: float


def _group_ends(arrivals: list[Arrival]) -> list[_End]:
    """Packets of one read have one time, or nearly so; reads that followed fast are one group."""
    reads: list[_End] = []
    began, size = 0.0, 0
    for number, arrival in enumerate(arrivals, 1):
        size += arrival.size
        if reads and arrival.at - began < GROUP_S:
            reads.pop()
        else:
            began = arrival.at
        reads.append(_End(arrival.at, number, size, arrival.late_s))
    gap_s = GROUP_GAP_SHARE * (arrivals[-1].at - arrivals[0].at) / (len(arrivals) - 1)
    ends = reads[:1]
    for read in reads[1:]:
        if read.at - ends[-1].at < gap_s * (read.packets - ends[-1].packets):
            ends.pop()
        ends.append(read)
    return ends


def _surest(ends: list[_End], above: int, until: int) -> _End:
    """The group end between two counts of packets whose time is surest, the last of them; else the last before."""
    within = [end for end in reversed(ends) if above < end.packets <= until]
    before = next((end for end in reversed(ends) if end.packets <= until), ends[0])
    return min(within, key=lambda end: end.late_s, default=before)


def _idle_s(ends: list[_End], rate: float) -> float:
    """How long nothing came between groups, beyond what they take at the rate."""
    return sum(max(0.0, b.at - a.at - (b.size - a.size) / rate) for a, b in pairwise(ends) if rate)


def _rate(start: _End, end: _End) -> float | None:
    """Bytes a second; None between an end and itself."""
    return (end.size - start.size) / (end.at - start.at) if end.at > start.at else None


def _ceiling(end: _End, sent: float, rtt_s: float) -> float | None:
    """No link is faster than this: the bytes over the time they had, of which the round trip is half at most."""
    span_s = end.at - sent
    return CEILING * end.size / max(span_s - rtt_s, span_s / 2) if span_s > 0 else None


class Probe:
    """One measurement of a link: says how many packets the next train has, takes the arrivals, gives the result."""

    def __init__(self) -> None:
        self._next_train = FIRST_TRAIN
        self._train = range(0)
        self._asked = 0
        self._arrivals: list[Arrival] = []
        self._late: list[tuple[float, float]] = []
        self._received_bytes = 0
        self._arrived = 0
        self._duration_s = self._spent_s = 0.0
        self._rtt_s = float("inf")
        self._best: Slope | None = None
        self._confidence = 0.0
        self._is_over = False

    def next_train(self) -> range | None:
        """The segments of the next train; None when enough is known or spent."""
        count = min(self._next_train, BUDGET_BYTES // PAYLOAD_BYTES - self._asked)
        if count < self._next_train and count <= len(self._train):
            count = 0  # what is left of the budget would not tell more than the last train did
        if count == 0:
            return None
        self._train = range(self._asked, self._asked + count)
        self._arrivals = []
        return self._train

    @property
    def window(self) -> int:
        """How many Interests of the train to keep outstanding.

        Half of it, so that no queue on the way overflows; but twice what the link, as far as it is known, holds in a
        round trip, for a train that waits for its own window says nothing of the link.
        """
        held = 0.0
        if self._best is not None and self._best.is_steady:
            held = self._best.mbps * 125_000 * self._rtt_s / PAYLOAD_BYTES
        return min(len(self._train), max(FIRST_TRAIN, len(self._train) // 2, math.ceil(2 * held)))

    def may_ask(self, now: float) -> bool:
        """Whether to ask for another packet of the train: not after a loss, nor when its time is over."""
        is_long = bool(self._arrivals) and now - self._arrivals[0].at >= BUDGET_S
        if self._is_over or is_long:
            return False
        self._asked += 1
        return True

    def on_arrival(self, now: float, size: int) -> None:
        self._arrivals.append(Arrival(now, size))
        self._arrived += 1
        self._received_bytes += size

    def on_tick(self, due: float, now: float) -> None:
        """This machine was to look at the clock at `due`, and does it now: what it notes in between is late."""
        if now - due > LATE_S:
            self._late.append((due, now))

    def on_loss(self) -> None:
        """A packet did not come, which ends the probe: a longer train would only lose more."""
        self._is_over = True

    def on_train_end(self, now: float, started: float) -> None:
        """Judges the train, and says how long the next one is."""
        self._duration_s += now - started
        if self._arrivals:
            self._rtt_s = min(self._rtt_s, max(0.0, min(a.at for a in self._arrivals) - started))
        late, self._late = self._late, []
        arrivals = [_judged(arrival, late) for arrival in self._arrivals]
        found = slope(arrivals, started, self._rtt_s)
        self._next_train = 0
        if found is None:
            return
        confidence = _confidence(found, arrivals)
        if self._best is None or (found.is_sure, confidence) >= (self._best.is_sure, self._confidence):
            self._best, self._confidence = found, confidence
        if not self._is_over:
            self._next_train = self._count_after(found)

    def _count_after(self, found: Slope) -> int:
        """The packets of the next train, 0 for none. An even train is worth another one only if that is longer."""
        self._spent_s += _span_s(self._arrivals)
        last = len(self._train)

        def fitting(budget_s: float) -> int:
            return int((budget_s - self._spent_s) * found.mbps * 125_000 / PAYLOAD_BYTES)

        if found.is_sure and self._asked == FIRST_TRAIN and self._spent_s < 2 * BUDGET_S:
            # A connection that was idle is slow at first, and evenly so: nothing is concluded from its first train.
            return max(SECOND_TRAIN, min(fitting(BUDGET_S), GROWTH * last))
        if found.is_sure:
            return min(fitting(BUDGET_S), GROWTH * last) if fitting(BUDGET_S) > last else 0
        count = max(FIRST_TRAIN, min(fitting(2 * BUDGET_S), GROWTH_IN_DOUBT * last))
        # One pause may have made the first train long, and tells nothing of the link.
        limit_s = (4 if self._asked == FIRST_TRAIN else 2) * BUDGET_S
        return count if self._spent_s < limit_s and 2 * count >= last else 0

    def result(self) -> ProbeResult:
        """What the train of which most is certain has found."""
        if self._best is None:
            reason = f"{self._arrived} of {self._asked} packets arrived, a rate needs {MIN_ARRIVALS} in a train"
            return ProbeResult(None, 0.0, self._duration_s, self._received_bytes, reason)
        confidence = round(self._confidence * self._arrived / self._asked, 3)
        return ProbeResult(self._best.mbps, confidence, self._duration_s, self._received_bytes)


def _judged(arrival: Arrival, late: list[tuple[float, float]]) -> Arrival:
    """The arrival with the time by which it may have been noted too late."""
    late_s = max((arrival.at - due for due, ran in late if due < arrival.at <= ran), default=0.0)
    return replace(arrival, late_s=late_s)


def _confidence(found: Slope, arrivals: list[Arrival]) -> float:
    span = min(1.0, _span_s(arrivals) / LONG_ENOUGH_S)
    count = min(1.0, len(arrivals) / 32)
    evenness = 1.0 if found.is_steady else 0.5
    return MAX_CONFIDENCE * (0.25 + 0.75 * span) * (0.5 + 0.5 * count) * evenness * (1 - found.doubt)


def _span_s(arrivals: list[Arrival]) -> float:
    return max(a.at for a in arrivals) - min(a.at for a in arrivals)
