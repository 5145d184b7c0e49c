"""Packet trains: how fast a link is, from the times at which a train's packets arrive.

Trains of 8, 16, 32 … packets are asked for until one has lasted long enough or the budget is spent. A token bucket
on the way lets the first part of a train through at once; so the rate is the slope of the later half, and a train
whose two later quarters disagree is followed by a longer one.
"""

from __future__ import annotations

from dataclasses import dataclass
from statistics import median

PAYLOAD_BYTES = 8000
FIRST_TRAIN = 8
LONG_ENOUGH_S = 0.25
BUDGET_BYTES = 2_000_000
MIN_ARRIVALS = 4
# The later two quarters of a train agree when the last has at least this share of the rate of the one before.
STEADY_SHARE = 0.75
MAX_CONFIDENCE = 0.8


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


def slope(arrivals: list[Arrival]) -> Slope | None:
    """The rate over the later half of a train, the burst excluded; None when too few packets arrived."""
    if len(arrivals) < MIN_ARRIVALS:
        return None
    times, totals = _cumulative(arrivals)
    half, last_quarter = len(times) // 2, (3 * len(times)) // 4
    rate = _median_slope(times[half - 1 :], totals[half - 1 :])
    early = _mean_slope(times, totals, half - 1, last_quarter - 1)
    late = _mean_slope(times, totals, last_quarter - 1, len(times) - 1)
    if rate is None or late is None:
        return None
    is_steady = early is not None and late >= STEADY_SHARE * early
    return Slope((rate if is_steady else min(rate, late)) * 8e-6, is_steady)


def _cumulative(arrivals: list[Arrival]) -> tuple[list[float], list[int]]:
    times, totals, total = [], [], 0
    for arrival in sorted(arrivals, key=lambda a: a.at):
        total += arrival.size
        times.append(arrival.at)
        totals.append(total)
    return times, totals


def _mean_slope(times: list[float], totals: list[int], start: int, end: int) -> float | None:
    span_s = times[end] - times[start]
    return (totals[end] - totals[start]) / span_s if span_s > 0 else None


def _median_slope(times: list[float], totals: list[int]) -> float | None:
    """The median of the slopes between packets half the series apart: one late packet does not move it."""
    apart = len(times) // 2
    slopes = [_mean_slope(times, totals, i, i + apart) for i in range(len(times) - apart)]
    finite = [s for s in slopes if s is not None]
    return median(finite) if finite else _mean_slope(times, totals, 0, len(times) - 1)


class Probe:
    """One measurement of a link: says how many packets the next train has, takes the arrivals, gives the result."""

    def __init__(self) -> None:
        self._next_train = FIRST_TRAIN
        self._asked = 0
        self._arrivals: list[Arrival] = []
        self._received_bytes = 0
        self._arrived = 0
        self._duration_s = 0.0
        self._best: tuple[Slope, list[Arrival]] | None = None
        self._done = False

    def next_train(self) -> range | None:
        """The segments of the next train; None when enough is known or spent."""
        too_much = (self._asked + self._next_train) * PAYLOAD_BYTES > BUDGET_BYTES
        if self._done or too_much:
            return None
        train = range(self._asked, self._asked + self._next_train)
        self._asked += self._next_train
        self._next_train *= 2
        self._arrivals = []
        return train

    @staticmethod
    def window(train: range) -> int:
        """How many Interests of a train to keep outstanding: half of it, so that no queue on the way overflows."""
        return max(FIRST_TRAIN, len(train) // 2)

    def on_arrival(self, now: float, size: int) -> None:
        self._arrivals.append(Arrival(now, size))
        self._arrived += 1
        self._received_bytes += size

    def on_train_end(self, now: float, started: float, lost: int) -> None:
        """Judges the train; a lost packet ends the probe, for the next, longer train would only lose more."""
        self._duration_s += now - started
        found = slope(self._arrivals)
        if found is not None:
            self._best = found, self._arrivals
        self._done = lost > 0 or (found is not None and found.is_steady and _span_s(self._arrivals) >= LONG_ENOUGH_S)

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
