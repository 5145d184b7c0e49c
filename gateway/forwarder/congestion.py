"""How many Interests a consumer keeps in flight, and how long it waits for each: pure, `now` and RTTs in seconds.

Slow start and additive increase, multiplicative decrease (RFC 5681) in packets, with the retransmission timer of
RFC 6298. Slow start also ends when a queue builds up: a transfer must not drown the hellos that share its links.
"""

from __future__ import annotations

INITIAL_WINDOW = 4.0
MIN_WINDOW = 2.0
# 256 packets of 8 kB are 2 MB in flight: 160 Mbit/s over a path of 100 ms, more than a mesh of today carries.
MAX_WINDOW = 256.0
INITIAL_RTO_S, MAX_RTO_S = 1.0, 4.0
# What the timer has beyond the smoothed round trip, however steady that is: the jitter of a busy node.
MIN_MARGIN_S = 0.2
# The lowest RTT is forgotten after this time, because the answers may begin to come from a node farther away.
_BASE_LIFETIME_S = 10.0
# Below this much queueing the links are not the limit; above the second no more is asked to wait in their queues.
_QUEUE_BEGINS_S, _QUEUE_LIMIT_S = 0.05, 0.5


class Window:
    """The congestion window and the round-trip estimate of one transfer."""

    def __init__(self) -> None:
        self.size = INITIAL_WINDOW
        self.rto_s = INITIAL_RTO_S
        self.rtt_s: float | None = None
        self._variation_s = 0.0
        self._threshold = MAX_WINDOW
        self._last_cut = float("-inf")
        self._base_s = float("inf")
        self._base_until = float("-inf")

    def on_data(self, rtt_s: float | None, now: float) -> None:
        """An answer came; `rtt_s` is None when it may belong to an earlier transmission (Karn's rule)."""
        queued_s = 0.0
        if rtt_s is not None:
            self._measure(rtt_s)
            if rtt_s <= self._base_s or now >= self._base_until:
                self._base_s, self._base_until = rtt_s, now + _BASE_LIFETIME_S
            queued_s = rtt_s - self._base_s
        if queued_s > max(self._base_s, _QUEUE_BEGINS_S):
            self._threshold = min(self._threshold, self.size)
        if self.size < self._threshold:
            self.size += 1.0
        elif queued_s < _QUEUE_LIMIT_S:
            self.size += 1.0 / self.size
        self.size = min(self.size, MAX_WINDOW)

    def on_loss(self, sent: float, now: float) -> None:
        """A Nack: halves the window, once for all the Interests that were sent before the window was halved."""
        if sent >= self._last_cut:
            self._last_cut = now
            self.size = self._threshold = max(self.size / 2, MIN_WINDOW)

    def on_timeout(self, sent: float, now: float) -> None:
        """A loss that the timer noticed: the next wait is also longer, until an RTT is measured again."""
        if sent >= self._last_cut:
            self.rto_s = min(self.rto_s * 2, MAX_RTO_S)
        self.on_loss(sent, now)

    def _measure(self, rtt_s: float) -> None:
        if self.rtt_s is None:
            self.rtt_s, self._variation_s = rtt_s, rtt_s / 2
        else:
            self._variation_s += (abs(self.rtt_s - rtt_s) - self._variation_s) / 4
            self.rtt_s += (rtt_s - self.rtt_s) / 8
        self.rto_s = min(self.rtt_s + max(4 * self._variation_s, MIN_MARGIN_S), MAX_RTO_S)
