"""Multicast: every next hop is asked, the first answer counts."""

from __future__ import annotations

from collections.abc import Sequence

from gateway.forwarder.faces.base import Face
from gateway.forwarder.pit import PitEntry
from gateway.forwarder.strategies.base import is_suppressed


class Multicast:
    """Keeps nothing in mind."""

    has_probes = False

    def on_interest(self, entry: PitEntry, hops: Sequence[Face], is_retransmission: bool, now: float) -> Sequence[Face]:
        return () if is_suppressed(entry, is_retransmission, now) else hops

    def on_nack(self, entry: PitEntry, face: Face, hops: Sequence[Face], now: float) -> Face | None:
        return None  # the others were asked with it

    def on_data(self, entry: PitEntry, face: Face, now: float) -> None:
        pass

    def on_expiry(self, entry: PitEntry, now: float) -> None:
        pass
