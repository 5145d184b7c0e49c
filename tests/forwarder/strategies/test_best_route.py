"""Best route with fallback, as decisions about one entry."""

from __future__ import annotations

import pytest

from gateway.forwarder.faces.base import Face
from gateway.forwarder.packet import NACK_CONGESTION, NACK_DUPLICATE, NACK_NO_ROUTE
from gateway.forwarder.pit import OutRecord, PitEntry
from gateway.forwarder.strategies.base import (
    AGGREGATION_S,
    RETRANSMISSION_SUPPRESSION_S,
    combined_reason,
    unused_hop,
)
from gateway.forwarder.strategies.best_route import BestRoute

CHEAP, DEAR, DEAREST, OTHER = (Face(f"face://{name}") for name in ("cheap", "dear", "dearest", "other"))
HOPS = [CHEAP, DEAR, DEAREST]


def entry(*asked: tuple[Face, float], nacks: dict[Face, int] | None = None, lifetime_s: float = 4.0) -> PitEntry:
    """An entry whose Interest was sent to these faces at these times."""
    made = PitEntry(b"", None, False, False)
    for face, sent in asked:
        made.out_records.append(OutRecord(face, b"1234", sent, sent + lifetime_s, (nacks or {}).get(face)))
    return made


def choose(pending: PitEntry, hops: list[Face], is_retransmission: bool, now: float) -> Face | None:
    chosen = BestRoute().on_interest(pending, hops, is_retransmission, now)
    assert len(chosen) <= 1
    return chosen[0] if chosen else None


def test_a_new_interest_goes_to_the_cheapest() -> None:
    """The first Interest goes to the cheapest next hop."""
    assert choose(entry(), HOPS, False, 0.0) is CHEAP


def test_who_joins_waits() -> None:
    """Another consumer's Interest waits for the pending one, until that is so old that it must be lost."""
    assert choose(entry((CHEAP, 0.0)), HOPS, False, AGGREGATION_S - 0.01) is None
    assert choose(entry((CHEAP, 0.0)), HOPS, False, AGGREGATION_S) is CHEAP


def test_retransmissions_try_the_others_in_turn() -> None:
    """Each retransmission takes the cheapest next hop not asked yet, then the one asked longest ago."""
    late = RETRANSMISSION_SUPPRESSION_S
    assert choose(entry((CHEAP, 0.0)), HOPS, True, late / 2) is None
    assert choose(entry((CHEAP, 0.0)), HOPS, True, late) is DEAR
    assert choose(entry((CHEAP, 0.0), (DEAR, 0.1)), HOPS, True, 0.101 + late) is DEAREST
    assert choose(entry((CHEAP, 0.3), (DEAR, 0.1), (DEAREST, 0.2)), HOPS, True, 1.0) is DEAR


def test_an_upstream_that_said_no_does_not_hold_others_up() -> None:
    """With nothing pending any more the next Interest is sent at once, to a next hop not asked yet if there is one."""
    refused = entry((CHEAP, 0.0), nacks={CHEAP: NACK_NO_ROUTE})
    assert choose(refused, HOPS, False, 0.001) is DEAR
    assert choose(refused, [CHEAP], False, 0.001) is CHEAP
    assert choose(entry((CHEAP, 0.0), lifetime_s=0.5), HOPS, False, 0.6) is DEAR
    assert BestRoute().on_nack(refused, CHEAP, HOPS, 0.001) is DEAR


def test_hops_that_are_all_new_after_a_change_of_routes() -> None:
    """When routes changed under a pending Interest, one that joins late still finds a way."""
    assert choose(entry((OTHER, 0.0)), HOPS, False, AGGREGATION_S) is CHEAP
    assert unused_hop(entry((CHEAP, 0.0), (DEAR, 0.0), (DEAREST, 0.0)), HOPS) is None


@pytest.mark.parametrize(
    ("nacks", "expected"),
    [
        ({CHEAP: NACK_NO_ROUTE, DEAR: NACK_CONGESTION}, NACK_CONGESTION),
        ({CHEAP: NACK_NO_ROUTE, DEAR: NACK_DUPLICATE}, NACK_DUPLICATE),
        ({CHEAP: NACK_NO_ROUTE, DEAR: NACK_NO_ROUTE}, NACK_NO_ROUTE),
        ({CHEAP: 0, DEAR: 7777}, NACK_NO_ROUTE),
    ],
)
def test_the_mildest_reason_is_passed_on(nacks: dict[Face, int], expected: int) -> None:
    """Of several reasons the consumer hears the one that may pass soonest; unknown ones are no route."""
    assert combined_reason(entry((CHEAP, 0.0), (DEAR, 0.0), nacks=nacks)) == expected
