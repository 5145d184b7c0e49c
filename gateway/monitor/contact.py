"""What is known of the other end of one face: who it is, how far away, how reliably it answers."""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass, field

from gateway.monitor.rates import GoodputMeter
from gateway.monitor.schedule import HELLO_FAILURES, HelloSchedule
from gateway.protocol.messages import Heard

HISTORY = 16
# RFC 6298's gain for the smoothed round-trip time.
RTT_GAIN = 1 / 8
TRAFFIC_S = 5.0
# For so long after a probe what a face has carried may have been its packets.
PROBED_S = 2.5
# A little less than the agent's tick, which is never quite a second.
SECOND_S = 0.9


@dataclass(frozen=True, slots=True)
class FaceSample:
    """A face as the forwarder sees it now.

    `neighbor` is the UCI section or empty; `local` faces (unix, internal) are no links; `outstanding` is the number of
    Interests sent on the face and not answered yet; `in_data_bytes` counts the Data packets alone.
    """

    id: int
    neighbor: str
    uri: str
    local_uri: str
    up: bool
    local: bool
    in_bytes: int
    out_bytes: int
    in_data_bytes: int
    outstanding: int
    medium: str = ""


@dataclass(slots=True)
class Contact:
    """What hellos told about the other end of one face."""

    face: FaceSample
    schedule: HelloSchedule
    meter: GoodputMeter = field(default_factory=GoodputMeter)
    node: str = ""
    boot_id: str = ""
    sequence: int = -1
    order: tuple[int, int] = (0, 0)
    heard_of_us: Heard | None = None
    outcomes: deque[bool] = field(default_factory=lambda: deque(maxlen=HISTORY))
    rtt_ms: float | None = None
    base_rtt_ms: float | None = None
    reason: str = ""
    heard_at: float = float("-inf")
    # Since when this neighbour has been up without a break.
    met_at: float = float("inf")
    # When a probe, ours or its own, last went over the face.
    probed_at: float = float("-inf")
    # Something has changed here that this neighbour has not asked for yet.
    has_news: bool = False
    sampled_at: float | None = None
    rate_rx_mbps: float = 0.0
    rate_tx_mbps: float = 0.0
    last_second_mbps: float = 0.0
    _second: tuple[float, int, int] | None = None

    @property
    def state(self) -> str:
        if not self.face.up:
            return "down"
        if not self.node:
            return "silent"
        return "down" if self.schedule.failures >= HELLO_FAILURES else "up"

    @property
    def is_mutual(self) -> bool:
        """Whether each hears the other, by what each says."""
        return self.state == "up" and self.heard_of_us is not None and self.heard_of_us.received_of_16 > 0

    @property
    def loss(self) -> float | None:
        """The share of hellos without an acceptable answer, of the last 16 since the first one: there and back."""
        return round(1 - sum(self.outcomes) / len(self.outcomes), 3) if self.outcomes else None

    def carries(self, now: float, mbps: float) -> bool:
        """Whether so much went over the face in the last whole second, probes left out."""
        return self.last_second_mbps >= mbps and now - self.probed_at > PROBED_S

    def on_rtt(self, rtt_ms: float) -> None:
        self.rtt_ms = rtt_ms if self.rtt_ms is None else self.rtt_ms + RTT_GAIN * (rtt_ms - self.rtt_ms)
        self.base_rtt_ms = rtt_ms if self.base_rtt_ms is None else min(self.base_rtt_ms, rtt_ms)

    def on_sample(self, now: float, face: FaceSample) -> None:
        """Takes the counters; the rates are smoothed over a few seconds."""
        if self.sampled_at is not None and now > self.sampled_at:
            passed_s = now - self.sampled_at
            gain = 1 - math.exp(-passed_s / TRAFFIC_S)
            rx = max(0, face.in_bytes - self.face.in_bytes) * 8e-6 / passed_s
            tx = max(0, face.out_bytes - self.face.out_bytes) * 8e-6 / passed_s
            self.rate_rx_mbps += gain * (rx - self.rate_rx_mbps)
            self.rate_tx_mbps += gain * (tx - self.rate_tx_mbps)
        self.sampled_at, self.face = now, face
        self._count_second(now)

    def _count_second(self, now: float) -> None:
        """The busier direction in the last whole second: a link is idle as soon as its traffic is over."""
        at, rx, tx = self._second or (now, self.face.in_bytes, self.face.out_bytes)
        if now - at >= SECOND_S:
            moved = max(self.face.in_bytes - rx, self.face.out_bytes - tx)
            self.last_second_mbps = max(0, moved) * 8e-6 / (now - at)
            self._second = None
        self._second = self._second or (now, self.face.in_bytes, self.face.out_bytes)

    def forget_neighbor(self) -> None:
        """Somebody else is at the other end, or the same after a restart: its past is not this one's."""
        self.sequence, self.heard_of_us, self.order = -1, None, (0, 0)
        self.outcomes.clear()
        self.rtt_ms = self.base_rtt_ms = None
