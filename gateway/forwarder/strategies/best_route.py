"""Best route with fallback: the cheapest next hop first, the next one on a retransmission or a Nack.

The fast lane does the same for a name that nobody waits for yet: it sends to the cheapest next hop.
"""

from __future__ import annotations

from collections.abc import Sequence

from gateway.forwarder.faces.base import Face
from gateway.forwarder.pit import PitEntry
from gateway.forwarder.strategies.base import is_suppressed, longest_unasked, unused_hop


class BestRoute:
    """Keeps nothing in mind."""

    has_probes = False

    def on_interest(self, entry: PitEntry, hops: Sequence[Face], is_retransmission: bool, now: float) -> Sequence[Face]:
        if is_suppressed(entry, is_retransmission, now):
            return ()
        unused = unused_hop(entry, hops)
        if not entry.pending_upstreams(now):
            return (unused or hops[0],)
        # Who joins late repeats what was lost; who asks again is tired of the next hops that were asked.
        return (unused if unused is not None and is_retransmission else longest_unasked(entry, hops),)

    def on_nack(self, entry: PitEntry, face: Face, hops: Sequence[Face], now: float) -> Face | None:
        return unused_hop(entry, hops)

    def on_data(self, entry: PitEntry, face: Face, now: float) -> None:
        pass

    def on_expiry(self, entry: PitEntry, now: float) -> None:
        pass
