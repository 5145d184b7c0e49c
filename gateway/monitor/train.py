"""Packet trains: how fast a link is, from the times at which a train's packets arrive.

A probe begins with 8 packets, asked for at once. The next train has what is left of a quarter of a second at the rate
of the one before, and the probe ends when a train was even and no longer one fits. A token bucket on the way lets the
first part of a train through at once; so the rate is the slope of the later half, and a train whose two later
quarters disagree is followed by another.

What a receiver reads at once waited in its buffer: the times within such a group say how fast this machine is, not
the link. So rates run from the end of one group to the end of another, when the buffer was empty.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

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
GROUP_GAP_SHARE = 0.25
# The figure exceeds the rate of the whole train, round trip left out, by so much at most.
CEILING = 1.25


@dataclass(frozen=True, slots=True)
class Arrival:
    at: float
    size: int


@dataclass(frozen=True, slots=True)
class Slope:
    """A train's rate; `is_steady` says that it did not fall while the train passed."""

    mbps: float
    is_steady: bool


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
    half, last_quarter = _last_until(ends, count // 2), _last_until(ends, (3 * count) // 4)
    rate = _rate(half, ends[-1])
    if rate is None and ceiling is not None:
        return Slope(ceiling / CEILING * 8e-6, False)  # all came at once: the whole train's rate is all there is
    if rate is None:
        return None
    early, late = _rate(half, last_quarter), _rate(last_quarter, ends[-1])
    is_steady = early is not None and late is not None and late >= STEADY_SHARE * early
    if not is_steady and late is not None:
        rate = min(rate, late)
    return Slope((rate if ceiling is None else min(rate, ceiling)) * 8e-6, is_steady)


@dataclass(slots=True)
class _End:
    """The end of a group: when its last packet came, and the packets and bytes of the train until then."""

    at: float
    packets: int
    size: int


def _group_ends(arrivals: list[Arrival]) -> list[_End]:
    gap_s = GROUP_GAP_SHARE * (arrivals[-1].at - arrivals[0].at) / (len(arrivals) - 1)
    ends: list[_End] = []
    began, size = 0.0, 0
    for number, arrival in enumerate(arrivals, 1):
        size += arrival.size
        if ends and (arrival.at - began < GROUP_S or arrival.at - ends[-1].at < gap_s):
            ends[-1] = _End(arrival.at, number, size)
        else:
            began = arrival.at
            ends.append(_End(arrival.at, number, size))
    return ends


def _last_until(ends: list[_End], packets: int) -> _End:
    """The last end of a group within the first `packets`; the first of all when none is."""
    return next((end for end in reversed(ends) if end.packets <= packets), ends[0])


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
        self._received_bytes = 0
        self._arrived = 0
        self._duration_s = self._spent_s = 0.0
        self._rtt_s = float("inf")
        self._best: tuple[Slope, list[Arrival]] | None = None
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
        if self._best is not None and self._best[0].is_steady:
            held = self._best[0].mbps * 125_000 * self._rtt_s / PAYLOAD_BYTES
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

    def on_loss(self) -> None:
        """A packet did not come, which ends the probe: a longer train would only lose more."""
        self._is_over = True

    def on_train_end(self, now: float, started: float) -> None:
        """Judges the train, and says how long the next one is."""
        self._duration_s += now - started
        if self._arrivals:
            self._rtt_s = min(self._rtt_s, max(0.0, min(a.at for a in self._arrivals) - started))
        found = slope(self._arrivals, started, self._rtt_s)
        if found is not None:
            self._best = found, self._arrivals
        self._next_train = 0 if found is None or self._is_over else self._count_after(found)

    def _count_after(self, found: Slope) -> int:
        """The packets of the next train, 0 for none. An even train is worth another one only if that is longer."""
        self._spent_s += _span_s(self._arrivals)
        last = len(self._train)
        fitting = int((BUDGET_S - self._spent_s) * found.mbps * 125_000 / PAYLOAD_BYTES)
        if found.is_steady and self._asked == FIRST_TRAIN and self._spent_s < 2 * BUDGET_S:
            # A connection that was idle is slow at first, and evenly so: nothing is concluded from its first train.
            return max(SECOND_TRAIN, min(fitting, GROWTH * last))
        if found.is_steady:
            return min(fitting, GROWTH * last) if fitting > last else 0
        is_late = self._spent_s >= 2 * BUDGET_S
        return 0 if is_late else max(FIRST_TRAIN, min(fitting, GROWTH_IN_DOUBT * last))

    def result(self) -> ProbeResult:
        if self._best is None:
            reason = f"{self._arrived} of {self._asked} packets arrived, a rate needs {MIN_ARRIVALS} in a train"
            return ProbeResult(None, 0.0, self._duration_s, self._received_bytes, reason)
        found, arrivals = self._best
        span = min(1.0, _span_s(arrivals) / LONG_ENOUGH_S)
        count = min(1.0, len(arrivals) / 32)
        confidence = MAX_CONFIDENCE * (0.25 + 0.75 * span) * (0.5 + 0.5 * count) * self._arrived / self._asked
        confidence *= 1.0 if found.is_steady else 0.5
        return ProbeResult(found.mbps, round(confidence, 3), self._duration_s, self._received_bytes)


def _span_s(arrivals: list[Arrival]) -> float:
    return max(a.at for a in arrivals) - min(a.at for a in arrivals)
