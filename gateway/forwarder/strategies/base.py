"""What every strategy is to the forwarder, and what most of them have in common."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from gateway.forwarder.faces.base import Face
from gateway.forwarder.packet import NACK_CONGESTION, NACK_DUPLICATE, NACK_NO_ROUTE
from gateway.forwarder.pit import PitEntry

# A consumer that retransmits faster than this asks for nothing that the first Interest does not bring (as in NFD).
RETRANSMISSION_SUPPRESSION_S = 0.010
# Who joins a pending Interest waits with it; when it is this old it was lost rather than slow, and is sent again.
AGGREGATION_S = 1.0
_SEVERITY = (NACK_CONGESTION, NACK_DUPLICATE, NACK_NO_ROUTE)


class Strategy(Protocol):
    """Decides for one entry at a time; `hops` are the eligible next hops, cheapest first, and `now` is monotonic.

    With `has_probes` only the first next hop that `on_interest` gives is meant to answer. The others are being tried:
    they get nonces of their own, so that where the ways meet again they are not taken for a loop.
    """

    has_probes: bool

    def on_interest(self, entry: PitEntry, hops: Sequence[Face], is_retransmission: bool, now: float) -> Sequence[Face]:
        """Where an Interest that just came in goes; nowhere when it waits for what was sent. `hops` is not empty."""

    def on_nack(self, entry: PitEntry, face: Face, hops: Sequence[Face], now: float) -> Face | None:
        """The next hop to ask in place of one that said no."""

    def on_data(self, entry: PitEntry, face: Face, now: float) -> None:
        """This next hop answered."""

    def on_expiry(self, entry: PitEntry, now: float) -> None:
        """The entry goes without an answer."""


def is_suppressed(entry: PitEntry, is_retransmission: bool, now: float) -> bool:
    """Whether an Interest waits for the answer to what was sent already."""
    pending = entry.pending_upstreams(now)
    if not pending:
        return False
    age_s = now - max(record.sent for record in pending)
    return age_s < (RETRANSMISSION_SUPPRESSION_S if is_retransmission else AGGREGATION_S)


def unused_hop(entry: PitEntry, hops: Sequence[Face]) -> Face | None:
    """The first next hop that this Interest has not been sent to."""
    return next((hop for hop in hops if entry.out_record(hop) is None), None)


def longest_unasked(entry: PitEntry, hops: Sequence[Face]) -> Face:
    """Of next hops that were asked, the one for which that is longest ago; the first when none was."""
    used = [record for record in entry.out_records if record.face in hops]
    return min(used, key=lambda record: record.sent).face if used else hops[0]


def combined_reason(entry: PitEntry) -> int:
    """What to tell the downstreams when every upstream said no: the mildest reason, since that one may pass."""
    reasons = {record.nack_reason for record in entry.out_records}
    return next((reason for reason in _SEVERITY if reason in reasons), NACK_NO_ROUTE)
