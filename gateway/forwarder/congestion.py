"""How many Interests a consumer keeps in flight, and how long it waits for each: pure, `now` and RTTs in seconds.

CUBIC (RFC 9438) in packets, with the retransmission timer of RFC 6298. The window is reduced at most once a round trip:
by a mark or a Nack, by losses that are more than a radio's own, and, before all of these, when answers come so late
that a queue must stand somewhere. Then it falls to what the path carries without that queue, so that the hellos that
share the links get through, and the round trip of the empty path is seen again. What a layer below has repaired comes
late once and is no sign of a queue: the shortest of the recent round trips counts.
"""

from __future__ import annotations

from dataclasses import dataclass

# Packets of 8 kB: with what the first answers add they fit the shortest queue of a face, 64 kB. (TCP begins with 15 kB,
# RFC 6928, but here an index comes before the bulk, and with it a first round trip.)
INITIAL_WINDOW = 6.0
MIN_WINDOW = 2.0
# 400 packets of 8 kB: 20 Mbit/s over 100 ms thirteen times, or 1 Gbit/s over 25 ms; it fits a stream face's buffer.
MAX_WINDOW = 400.0
INITIAL_RTO_S, MAX_RTO_S = 1.0, 4.0
# What the timer has beyond the smoothed round trip, however steady that is: the jitter of a busy node.
MIN_MARGIN_S = 0.2
# And in round trips of the empty path: a link below that repairs what it lost takes up to 2.3 of them in all.
_MARGIN_SHARE = 1.5
# With more in flight than this, a round trip tells less.
_FEW = 4.0
# A packet that is so much larger than all before takes longer on each link of the path; one as small as that tells
# nothing of what the large ones take.
_LARGER = 2

# RFC 9438: the speed of growth (packets/s³), what a reduction leaves, and the growth of Reno with that reduction.
_C, _BETA, _ALPHA = 0.4, 0.7, 3 * (1 - 0.7) / (1 + 0.7)
# Slow start ends when the fastest of so many answers is late by this share of the round trip, or by this time.
_START_SAMPLES, _START_SHARE, _START_MIN_S = 4, 0.125, 0.012
# A mark comes while the queue is still short (RFC 8511).
_BETA_OF_MARK = 0.85
# It tells of a burst while the fastest answers are as fast as ever.
_BURST_S, _BURST_SHARE = 0.005, 0.05
# A delay alone never takes more than half at once: the round trip may have grown for another reason.
_BETA_OF_DELAY_MIN = 0.5
# A queue of this many seconds, or of half a round trip where that is longer, is no longer a burst.
_QUEUE_TARGET_S = 0.05
# A queue grows step by step. An answer that takes so much longer than the one before comes from farther away.
_JUMP, _JUMP_S = 4.0, 0.02
# A queue that is ours becomes shorter when we ask for less: by less than this share, so often in a row, it is none.
_HELP, _IN_VAIN_MAX = 0.2, 4
# Losses up to this share of the packets, with no queue in sight, are the radio's and not the load's.
_TOLERATED_LOSS = 0.02
_LOSS_WEIGHT = 1 / 64
# Fewer answers may all have been late because each of them was sent again.
_ROUND_SAMPLES = 3
# So often half as much is asked for, for two round trips, and the fastest answer then is the new measure: the answers
# may come from farther away than before, and who came late to a queue that others keep has never seen the path empty.
_BASE_LIFETIME_S, _BASE_LIFETIME_ROUNDS = 15.0, 40
# For so long the next transfer from a holder may go on with this share of the window that the last one ended with, if
# its first answer takes between so much of what that one's took. On a path shorter than this it has nothing to gain.
_LEARNT_LIFETIME_S, _LEARNT_SHARE, _LEARNT_RTT_MIN, _LEARNT_RTT_MAX, _LEARNT_MIN_S = 10.0, 0.5, 0.5, 1.25, 0.02


@dataclass(frozen=True, slots=True)
class Learnt:
    """What a transfer knew of a path when it ended, at that time."""

    size: float
    base_s: float
    ended: float


class RoundTrips:
    """The round trip's estimate, its lowest value and the retransmission timer."""

    def __init__(self) -> None:
        self.rto_s = INITIAL_RTO_S
        # How much longer than that the next Interest is waited for, after timeouts.
        self.patience = 1.0
        self.rtt_s: float | None = None
        self._variation_s = 0.0
        # What a packet takes when nothing waits, and the fastest of late.
        self.base_s = self.lowest_s = self._last_s = float("inf")

    def measure(self, rtt_s: float, in_flight: float, is_small: bool = False) -> None:
        """Takes a round trip; with many in flight each tells less (RFC 7323), but a longer one is believed at once."""
        if is_small:
            pass
        elif rtt_s > _JUMP * self._last_s + _JUMP_S:
            self.base_s = self.lowest_s = rtt_s
        elif rtt_s < self.lowest_s:
            self.lowest_s = rtt_s
            if rtt_s < self.base_s:
                self.base_s = rtt_s
        self._last_s = rtt_s
        if self.rtt_s is None:
            self.rtt_s, self._variation_s = rtt_s, rtt_s / 2
        else:
            error_s = rtt_s - self.rtt_s
            deviation_s = abs(error_s)
            share = 1.0 if deviation_s > self._variation_s or in_flight <= _FEW else _FEW / in_flight
            self._variation_s += (deviation_s - self._variation_s) / 4 * share
            self.rtt_s += error_s / 8 * share
        base_s = self.base_s if self.base_s < self.rtt_s else self.rtt_s
        margin_s = max(4 * self._variation_s, MIN_MARGIN_S, _MARGIN_SHARE * base_s)
        self.rto_s = min(self.rtt_s + margin_s, MAX_RTO_S)
        self.patience = 1.0

    def forget_base(self) -> None:
        """What is asked for from now on takes longer by itself."""
        self.base_s = self.lowest_s = self._last_s = float("inf")

    def back_off(self) -> None:
        """The next wait is longer, until a round trip is measured again."""
        self.patience = min(self.patience * 2, MAX_RTO_S / self.rto_s)


class Window:
    """The congestion window of one transfer from one holder."""

    def __init__(self, learnt: Learnt | None = None) -> None:
        self.size = INITIAL_WINDOW
        self.loss = 0.0
        self._learnt, self._largest_bytes = learnt, 0
        self._round_trips = RoundTrips()
        self._threshold = MAX_WINDOW
        # CUBIC: the window before the last reduction, when it was, and when growth will be back there.
        self._plateau, self._epoch, self._climb_s = INITIAL_WINDOW, float("-inf"), 0.0
        self._reno = INITIAL_WINDOW
        self._last_cut = float("-inf")
        # The shortest round trip among the Interests of one window: what all of them waited.
        self._round_ends, self._shortest_s, self._queue_s = float("-inf"), float("inf"), 0.0
        self._samples = 0
        self._look_at = float("-inf")
        # In slow start: how many answers have been looked at together, and the fastest of them.
        # When they were late the window stands still; the answers to what is sent from then on decide.
        self._some = 0, float("inf")
        self._suspected: float | None = None
        # Reductions for a queue that did not become shorter, the window before them, and the round trip then.
        self._in_vain, self._before, self._queued_rtt_s = 0, INITIAL_WINDOW, 0.0
        # While the window is small for a moment: when that began and ends, and the size afterwards.
        self._drained: tuple[float, float, float] | None = None

    @property
    def rto_s(self) -> float:
        """How long to wait for the answer to an Interest that is sent now."""
        return self._round_trips.rto_s * self._round_trips.patience

    @property
    def patience(self) -> float:
        """By how much that is longer than the measurements say."""
        return self._round_trips.patience

    def rto_with(self, patience: float) -> float:
        """How long to wait for the answer to an Interest that was sent with this patience."""
        return min(self._round_trips.rto_s * patience, MAX_RTO_S)

    @property
    def rtt_s(self) -> float | None:
        """The smoothed round trip; None before the first."""
        return self._round_trips.rtt_s

    @property
    def base_s(self) -> float:
        return self._round_trips.base_s

    def on_data(self, rtt_s: float | None, now: float, is_marked: bool = False, size_bytes: int = 0) -> None:
        """An answer came; `rtt_s` is None when it may belong to an earlier transmission (Karn's rule)."""
        self.loss -= self.loss * _LOSS_WEIGHT
        if rtt_s is not None:
            if self._learnt is not None:
                self._remember(self._learnt, rtt_s, now)
            if self._drained is None or now - rtt_s >= self._drained[0]:
                is_small = self._is_small(size_bytes)
                self._round_trips.measure(rtt_s, self.size, is_small)
                if not is_small:
                    self._watch_queue(rtt_s, now)
            if is_marked and self._queue_s > max(_BURST_S, self._round_trips.base_s * _BURST_SHARE):
                self._reduce(_BETA_OF_MARK, now - rtt_s, now)
        if self._drained is not None:
            return
        if self.size < self._threshold:
            if self._suspected is None:
                self.size += 1.0
        else:
            self._grow(now)
        if self.size > MAX_WINDOW:
            self.size = MAX_WINDOW

    def on_loss(self, sent: float, now: float) -> None:
        """An Interest that was sent then was lost while others were answered."""
        self.loss += (1.0 - self.loss) * _LOSS_WEIGHT
        if self.loss > _TOLERATED_LOSS or self._queue_s > _QUEUE_TARGET_S:
            self._reduce(_BETA, sent, now)

    def on_nack(self, sent: float, now: float) -> None:
        """A node on the way said that it is congested."""
        self._reduce(_BETA, sent, now)

    def on_timeout(self, sent: float, now: float) -> None:
        """Nothing at all came since that Interest was sent: the window begins anew, and the next wait is longer."""
        if sent >= self._last_cut:
            self._round_trips.back_off()
            self._reduce(_BETA, sent, now)
            self.size = self._reno = MIN_WINDOW

    def begin_again(self) -> None:
        """The path is there again: what was learnt while it was away no longer holds."""
        self._round_trips = RoundTrips()
        self._round_ends, self._shortest_s, self._queue_s = float("-inf"), float("inf"), 0.0
        self._look_at, self._drained, self._suspected = float("-inf"), None, None
        self.size = max(self.size, INITIAL_WINDOW)

    def learnt(self, now: float) -> Learnt | None:
        """For the next transfer over this path; None when nothing is known of it."""
        base_s = self._round_trips.base_s
        if not _LEARNT_MIN_S <= base_s < float("inf") or self._round_trips.patience > 1:
            return None
        size = self._drained[2] if self._drained is not None else self.size
        if size < self._threshold < MAX_WINDOW:  # on its way back to where it had been
            size = self._threshold
        return Learnt(size, base_s, now)

    def _remember(self, learnt: Learnt, rtt_s: float, now: float) -> None:
        """The first answer tells whether the path is what it was."""
        self._learnt = None
        is_alike = _LEARNT_RTT_MIN <= rtt_s / learnt.base_s <= _LEARNT_RTT_MAX
        if is_alike and now - learnt.ended <= _LEARNT_LIFETIME_S + rtt_s:
            self.size = max(self.size, learnt.size * _LEARNT_SHARE)
            self._threshold = max(self.size, learnt.size)

    def _is_small(self, size_bytes: int) -> bool:
        """Whether a packet is too small to tell what a large one takes; the first large one begins the measurement."""
        if size_bytes > _LARGER * self._largest_bytes:
            if self._largest_bytes:
                self._round_trips.forget_base()
                self._shortest_s, self._samples, self._some = float("inf"), 0, (0, float("inf"))
            self._largest_bytes = size_bytes
        return size_bytes * _LARGER < self._largest_bytes

    def _watch_queue(self, rtt_s: float, now: float) -> None:
        self._samples += 1
        if rtt_s < self._shortest_s:
            self._shortest_s = rtt_s
        if self._epoch == float("-inf"):
            self._watch_start(rtt_s, now)
        if now < self._round_ends or self._samples < min(_ROUND_SAMPLES, int(self.size)):
            return
        self._samples = 0
        round_trips, base_s = self._round_trips, self._round_trips.base_s
        shortest_s, self._shortest_s = self._shortest_s, float("inf")
        self._round_ends = now + shortest_s
        self._queue_s = shortest_s - base_s
        if self._drained is not None:
            self._end_drain(now)
        elif now >= self._look_at:
            if self._look_at > float("-inf"):
                self._begin_drain(base_s / shortest_s, now + 2 * shortest_s, now)
            lifetime_s = max(_BASE_LIFETIME_S, _BASE_LIFETIME_ROUNDS * shortest_s)
            self._look_at, round_trips.lowest_s = now + lifetime_s, float("inf")
        elif self._queue_s > max(base_s / 2, _QUEUE_TARGET_S):
            self._on_queue(shortest_s, now - rtt_s, now)
        else:
            self._in_vain = 0

    def _on_queue(self, shortest_s: float, sent: float, now: float) -> None:
        """Falls to what the path carries without the queue; when that helps nothing, the path has become longer."""
        if sent < self._last_cut:
            return
        if self._in_vain and shortest_s > self._queued_rtt_s - _HELP * self._queue_s:
            self._in_vain += 1
        else:
            self._in_vain, self._before = 1, self.size
        self._queued_rtt_s = shortest_s
        if self._in_vain > _IN_VAIN_MAX:
            self._round_trips.base_s = shortest_s
            self._in_vain, self._queue_s = 0, 0.0
            self._threshold = max(self.size, self._before)
            return
        # What waits in the queue is the queue's share of the whole round trip, repairs included.
        queued = self._queue_s / max(self._round_trips.rtt_s or 0.0, shortest_s)
        self._reduce(max(1.0 - queued, _BETA_OF_DELAY_MIN), sent, now)
        # What the path carries is known by now: the window stays near that for long before it tries more.
        self._plateau, self._climb_s, self._queue_s = self.size, 0.0, 0.0

    def _watch_start(self, rtt_s: float, now: float) -> None:
        """Ends slow start when some answers in a row were all late, and again a round trip later (after RFC 9406).

        In between the window stands still. A burst of our own, sent when a page of the index came, passes in that time.
        """
        self._some = (self._some[0] + 1, min(self._some[1], rtt_s))
        if self._some[0] < _START_SAMPLES:
            return
        late_s, self._some = self._some[1] - self._round_trips.base_s, (0, float("inf"))
        if late_s <= max(self._round_trips.base_s * _START_SHARE, _START_MIN_S):
            self._suspected = None
        elif self._suspected is None:
            self._suspected = now
        elif now - rtt_s >= self._suspected:
            self._suspected = None
            self._threshold = self._plateau = self._reno = self.size
            self._epoch, self._climb_s = now, 0.0

    def _begin_drain(self, share: float, ends: float, now: float) -> None:
        after = max(self.size * max(share, _BETA_OF_DELAY_MIN), MIN_WINDOW)
        self._drained = now, ends, after
        self.size = max(after / 2, MIN_WINDOW)

    def _end_drain(self, now: float) -> None:
        assert self._drained is not None
        _, ends, size = self._drained
        lowest_s = self._round_trips.lowest_s
        if now < ends or lowest_s == float("inf"):
            return
        self._drained = None
        self._round_trips.base_s = lowest_s
        self.size = self._reno = self._plateau = self._threshold = max(size, self.size)
        self._epoch, self._climb_s = now, 0.0

    def _reduce(self, beta: float, sent: float, now: float) -> None:
        """Once for all the Interests that were sent before the last reduction."""
        if sent < self._last_cut:
            return
        self._last_cut = self._epoch = now
        self._drained = self._suspected = None
        # Fast convergence: who loses again before the plateau leaves room for others.
        self._plateau = self.size if self.size >= self._plateau else self.size * (1 + beta) / 2
        self.size = self._reno = self._threshold = max(self.size * beta, MIN_WINDOW)
        self._climb_s = (max(0.0, self._plateau - self.size) / _C) ** (1 / 3)

    def _grow(self, now: float) -> None:
        """Towards the plateau and past it, and never slower than Reno would."""
        if self._epoch == float("-inf"):  # slow start went up to the largest window
            return
        rtt_s = self._round_trips.rtt_s or 0.0
        target = self._plateau + _C * (now + rtt_s - self._epoch - self._climb_s) ** 3
        self._reno += (_ALPHA if self._reno < self._plateau else 1.0) / self.size
        if target > self.size:
            self.size += (min(target, 1.5 * self.size) - self.size) / self.size
        if self._reno > self.size:
            self.size = self._reno
