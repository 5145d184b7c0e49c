"""What the gateway tells the monitor of the blobs that its links are needed for."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any
from unittest.mock import MagicMock

import pytest

from gateway.daemon import Fetches, MonitorPorts
from gateway.monitor.schedule import Demand

HERE, ELSEWHERE = b"\x01" * 32, b"\x02" * 32


def _demand(
    wants: tuple[tuple[str, bytes], ...] = (),
    *,
    met: str = "",
    needed: frozenset[bytes] = frozenset(),
    fetching: int = 0,
) -> Demand:
    """Of a gateway that holds the blob HERE, with wants of (wanter, blob) in custody."""
    gateway: Any = MagicMock()
    gateway.fetches = Fetches()
    gateway.fetches.running = fetching
    waiting = [SimpleNamespace(want=SimpleNamespace(wanter=w, blob=SimpleNamespace(sha256=s))) for w, s in wants]
    gateway.custody.wants.in_order.return_value = waiting
    gateway.custody.is_here.side_effect = gateway.blobs.has.side_effect = lambda sha256: sha256 == HERE
    gateway.is_met.side_effect = lambda node: node == met
    gateway.needed_blobs.return_value = set(needed)
    return MonitorPorts(gateway).demand()


def test_nothing_wanted_is_no_demand() -> None:
    """A node that has what it needs and keeps nothing for others needs its links for nothing."""
    assert _demand(needed=frozenset({HERE})) is Demand.NONE


@pytest.mark.parametrize(
    "waiting",
    [
        {"needed": frozenset({ELSEWHERE})},
        {"wants": (("far", HERE),), "met": "near"},
        {"wants": (("near", ELSEWHERE),), "met": "near"},
    ],
)
def test_what_can_not_be_served_now_waits(waiting: dict[str, Any]) -> None:
    """A blob that is missing here, a want of who is not met, and one for what is not here, wait."""
    assert _demand(**waiting) is Demand.WAITING


@pytest.mark.parametrize("moving", [{"fetching": 1}, {"wants": (("near", HERE),), "met": "near"}])
def test_what_moves_or_is_about_to_counts_as_moving(moving: dict[str, Any]) -> None:
    """A fetch, and a want of a neighbour that is met for what is here."""
    assert _demand(**moving) is Demand.MOVING


def test_a_fetch_that_fails_is_over() -> None:
    """However a fetch ends, it is not counted any more."""
    fetches = Fetches()
    with pytest.raises(OSError), fetches, fetches:
        assert fetches.running == 2
        raise OSError
    assert fetches.running == 0
