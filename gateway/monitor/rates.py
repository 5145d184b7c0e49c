"""Bandwidth figures of one link: where each comes from, how old it is, and which of them to believe.

A configured `rate` is never among them: it says what somebody hoped for. Nor does a wired port's speed become a figure;
it bounds the others from above, because the slow radio is often the box behind the port.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

from gateway.protocol.messages import Bandwidth

RX, TX = "rx", "tx"
GOODPUT, PROBE, PEER, NL80211, CLASS = "goodput", "probe", "peer", "nl80211", "class"
PRECEDENCE = (GOODPUT, PROBE, PEER, NL80211, CLASS)
MEASURED = (GOODPUT, PROBE, PEER)

# A measurement younger than this needs no repetition.
FRESH_S = 600.0
# What a figure is worth: links of community networks change over a day; a radio's rate changes by the second.
EXPIRES_S = {GOODPUT: 6 * 3600.0, PROBE: 6 * 3600.0, PEER: 6 * 3600.0, NL80211: 120.0, CLASS: 120.0}
# A probe with less confidence is taken for now, and repeated as soon as the link's time allows.
DOUBTFUL_CONFIDENCE = 0.3
# Two measurements of one link within this share of each other agree.
TOLERANCE = 0.2
# A lower goodput is believed without a probe after so much busy time: then nothing was idle enough to probe.
LOWER_AFTER_S = 60.0
# The mean link of the published measurements has about 20 Mbit/s (BASP, section 3); said with next to no confidence.
CLASS_MBPS = {"wireless": 20.0, "ethernet": 20.0, "tunnel": 10.0}
# What is left of a radio's bit rate after contention and acknowledgements.
BITRATE_SHARE = 0.5
# No link that a gateway has is slower or faster; a peer that claims it is wrong.
MIN_MBPS, MAX_MBPS = 0.001, 100_000.0


@dataclass(frozen=True, slots=True)
class Estimate:
    """One figure: `measured_at` is monotonic time in s, `confidence` 0 to 1 at that time."""

    mbps: float
    direction: str
    source: str
    measured_at: float
    confidence: float

    def seen_at(self, now: float) -> Bandwidth:
        """As it travels; the confidence halves with every FRESH_S of age."""
        age_s = max(0.0, now - self.measured_at)
        return Bandwidth(
            round(self.mbps, 3), self.source, round(age_s, 1), round(self.confidence * 0.5 ** (age_s / FRESH_S), 3)
        )


class RateBook:
    """The figures of one link in both directions; the newest of each source."""

    def __init__(self) -> None:
        self._figures: dict[tuple[str, str], Estimate] = {}
        self._lower_s = 0.0
        self.doubtful = False

    def record(self, estimate: Estimate) -> None:
        """Takes a figure of any source but goodput; implausible values are ignored."""
        if not MIN_MBPS <= estimate.mbps <= MAX_MBPS:
            return
        if estimate.source == PROBE:
            self._settle(estimate)
        self._figures[estimate.direction, estimate.source] = estimate

    def record_goodput(self, now: float, mbps: float, span_s: float) -> None:
        """Takes what `span_s` seconds of a busy link brought in.

        More than we knew of is believed at once. Less is not: the bottleneck may be further up the path. It raises a
        doubt that a probe settles; only a link that has been busy for LOWER_AFTER_S is believed without one.
        """
        known = self.measured(RX, now)
        if known is not None and mbps < known.mbps * (1 - TOLERANCE):
            self.doubtful = True
            self._lower_s += span_s
            if self._lower_s >= LOWER_AFTER_S:
                self._figures[RX, GOODPUT] = Estimate(mbps, RX, GOODPUT, now, 0.4)
                self._figures.pop((RX, PROBE), None)
                self._lower_s = 0.0
            return
        self._lower_s, self.doubtful = 0.0, False
        if known is not None and known.source == GOODPUT and mbps <= known.mbps * (1 + TOLERANCE):
            mbps = 0.75 * known.mbps + 0.25 * mbps
        self._figures[RX, GOODPUT] = Estimate(mbps, RX, GOODPUT, now, 0.9)

    def measured(self, direction: str, now: float) -> Estimate | None:
        """The best measurement: a fresh one by precedence, else the youngest that has not expired."""
        figures = [e for s in MEASURED if (e := self._unexpired(direction, s, now)) is not None]
        fresh = [e for e in figures if now - e.measured_at <= FRESH_S]
        return fresh[0] if fresh else max(figures, key=lambda e: e.measured_at, default=None)

    def is_fresh(self, direction: str, now: float) -> bool:
        measured = self.measured(direction, now)
        return measured is not None and now - measured.measured_at <= FRESH_S

    def best(self, direction: str, now: float, medium: str = "", ceiling_mbps: float | None = None) -> Bandwidth | None:
        """The figure to report, at most the wired port's `ceiling_mbps`; None when nobody can say."""
        figure = self.measured(direction, now) or self._unexpired(direction, NL80211, now)
        if figure is None and medium in CLASS_MBPS:
            figure = Estimate(CLASS_MBPS[medium], direction, CLASS, now, 0.05)
        if figure is None:
            return None
        if ceiling_mbps is not None and figure.mbps > ceiling_mbps:
            figure = Estimate(ceiling_mbps, direction, figure.source, figure.measured_at, figure.confidence)
        return figure.seen_at(now)

    def _unexpired(self, direction: str, source: str, now: float) -> Estimate | None:
        figure = self._figures.get((direction, source))
        return figure if figure is not None and now - figure.measured_at <= EXPIRES_S[source] else None

    def _settle(self, probe: Estimate) -> None:
        """A probe decides a doubt, unless it leaves one itself: a goodput it contradicts is forgotten."""
        goodput = self._figures.get((probe.direction, GOODPUT))
        if goodput is not None and abs(goodput.mbps - probe.mbps) > TOLERANCE * probe.mbps:
            del self._figures[probe.direction, GOODPUT]
        self._lower_s, self.doubtful = 0.0, probe.confidence < DOUBTFUL_CONFIDENCE


@dataclass(frozen=True, slots=True)
class Goodput:
    mbps: float
    span_s: float


# Fewer outstanding Interests are a request and its answer, not a transfer.
BULK_OUTSTANDING = 2
# A gap between two looks, or a time without a byte, in which nobody knows whether the link was busy.
GAP_S = 0.5
STALL_S = 2.0
RUN_S = 2.0
EMIT_S = 1.0
# A run's window: so many bytes that one packet more or less does not matter, or so long.
WINDOW_BYTES = 16 * 8000
WINDOW_S = 4.0
BULK_DATA_BYTES = 8000


@dataclass(frozen=True, slots=True)
class _Look:
    at: float
    data_bytes: int
    outstanding: int


class GoodputMeter:
    """Goodput of one face from its byte counter, in runs during which the link was kept busy all the time."""

    def __init__(self) -> None:
        self._run: deque[_Look] = deque()
        self._started = self._grew = self._emitted = 0.0

    @property
    def is_running(self) -> bool:
        """Whether a run goes on: then the face is worth a look every tenth of a second."""
        return bool(self._run)

    def on_sample(self, now: float, data_bytes: int, outstanding: int, rtt_s: float | None) -> Goodput | None:
        """A look at the counter; a figure at most once a second. `rtt_s` is the idle link's round trip."""
        last = self._run[-1] if self._run else None
        if outstanding < BULK_OUTSTANDING or (last is not None and self._is_broken(now, data_bytes, last)):
            self._run.clear()
            last = None
        if outstanding < BULK_OUTSTANDING:
            return None
        if last is None:
            self._started = self._grew = self._emitted = now
        elif data_bytes > last.data_bytes:
            self._grew = now
        self._run.append(_Look(now, data_bytes, outstanding))
        while len(self._run) > 2 and now - self._run[1].at > WINDOW_S:
            self._run.popleft()
        return self._figure(now, rtt_s)

    def _is_broken(self, now: float, data_bytes: int, last: _Look) -> bool:
        stalled = data_bytes == last.data_bytes and now - self._grew > STALL_S
        return now - last.at > GAP_S or data_bytes < last.data_bytes or stalled

    def _figure(self, now: float, rtt_s: float | None) -> Goodput | None:
        """The rate over the later half of the run: its first half may have lived on a token bucket's burst."""
        run_s = now - self._started
        if run_s < RUN_S or now - self._emitted < EMIT_S:
            return None
        window = [look for look in self._run if look.at >= self._started + run_s / 2]
        span_s = window[-1].at - window[0].at
        moved = window[-1].data_bytes - window[0].data_bytes
        if moved <= 0 or (moved < WINDOW_BYTES and span_s < WINDOW_S * 0.9):
            return None
        bytes_per_s = moved / span_s
        mean_outstanding = sum(look.outstanding for look in window) / len(window)
        if not _is_queueing(mean_outstanding, bytes_per_s, rtt_s):
            return None
        covered_s, self._emitted = now - self._emitted, now
        return Goodput(bytes_per_s * 8e-6, covered_s)


def _is_queueing(outstanding: float, bytes_per_s: float, rtt_s: float | None) -> bool:
    """Whether more was asked for than an idle link would hold: by Little's law the rest stood in a queue.

    A transfer that waits for its own small window, not for the link, fails this and says nothing of the link.
    """
    if rtt_s is None:
        return outstanding >= 2 * BULK_OUTSTANDING
    return outstanding * BULK_DATA_BYTES >= 1.5 * bytes_per_s * rtt_s
