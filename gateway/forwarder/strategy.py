"""Best route with fallback: the cheapest next hop first, the next one on a retransmission or a Nack."""

from __future__ import annotations

from collections.abc import Sequence

from gateway.forwarder.faces.base import Face
from gateway.forwarder.packet import NACK_CONGESTION, NACK_DUPLICATE, NACK_NO_ROUTE
from gateway.forwarder.pit import PitEntry

# A consumer that retransmits faster than this asks for nothing that the first Interest does not bring (as in NFD).
RETRANSMISSION_SUPPRESSION_S = 0.010
# Who joins a pending Interest waits with it; when it is this old it was lost rather than slow, and is sent again.
AGGREGATION_S = 1.0
_SEVERITY = (NACK_CONGESTION, NACK_DUPLICATE, NACK_NO_ROUTE)


def choose(entry: PitEntry, hops: Sequence[Face], is_retransmission: bool, now: float) -> Face | None:
    """The next hop for an Interest that just came in; None when it should wait for what was sent already.

    `hops` are the eligible ones, cheapest first, and not empty.
    """
    pending = entry.pending_upstreams(now)
    if not pending:
        return unused_hop(entry, hops) or hops[0]
    age_s = now - max(record.sent for record in pending)
    if age_s < (RETRANSMISSION_SUPPRESSION_S if is_retransmission else AGGREGATION_S):
        return None
    unused = unused_hop(entry, hops)
    if unused is not None and is_retransmission:
        return unused
    used = [record for record in entry.out_records if record.face in hops]
    return min(used, key=lambda record: record.sent).face if used else hops[0]


def unused_hop(entry: PitEntry, hops: Sequence[Face]) -> Face | None:
    """The cheapest next hop that this Interest has not been sent to."""
    return next((hop for hop in hops if entry.out_record(hop) is None), None)


def combined_reason(entry: PitEntry) -> int:
    """What to tell the downstreams when every upstream said no: the mildest reason, since that one may pass."""
    reasons = {record.nack_reason for record in entry.out_records}
    return next((reason for reason in _SEVERITY if reason in reasons), NACK_NO_ROUTE)
