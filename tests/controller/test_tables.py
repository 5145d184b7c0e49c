"""What people read of a placement."""

from __future__ import annotations

import io
from typing import Any

import pytest
from rich.console import Console

from controller import tables

SERVICE: dict[str, Any] = {
    "service": "web",
    "zone": "",
    "algorithm": "optimal",
    "snapshot": "3 nodes",
    "heads": [{"node": "a", "bandwidth_mbps": 2.0, "parent": "", "address": "", "reason": "why"}],
    "members": {"b": "a"},
    "standbys": [],
    "metric": "routed",
    "mean_bandwidth_mbps": 2.0,
    "gap": 0.0,
    "proven": True,
    "violations": {},
    "refused": {},
    "unreached": [],
    "waits": "",
    "kept": "",
    "problem": "",
}


def text(**facts: Any) -> str:
    output = io.StringIO()
    placement = {"head": None, "services": [SERVICE | facts], "unplaced": []}
    tables.print_placement(Console(file=output, width=200), placement, "")
    return output.getvalue()


@pytest.mark.parametrize(
    ("facts", "quality"),
    [
        ({}, "proven optimal"),
        ({"proven": False, "gap": 0.0412}, "gap ≤ 4.2 %"),
        ({"proven": False, "gap": 0.00001}, "gap ≤ 0.1 %"),
        ({"proven": False, "gap": None}, "gap unknown"),
    ],
)
def test_placement_says_how_good_it_is(facts: dict[str, Any], quality: str) -> None:
    """Proven, or the gap rounded up, so that what is printed is true."""
    assert f"mean bandwidth to a member 2.00 Mbit/s (routed), {quality}\n" in text(**facts)


def test_decision_of_an_earlier_release_says_nothing_of_it() -> None:
    """Notes without figures print none."""
    assert "mean bandwidth" not in text(mean_bandwidth_mbps=None, metric="")


def test_placement_tells_missed_targets_and_what_is_waited_for() -> None:
    """Each on a line of its own."""
    shown = text(violations={"b": "1.0 Mbit/s from a"}, waits="c may be better (+20%)").splitlines()
    assert "  target missed: b: 1.0 Mbit/s from a" in shown and "  c may be better (+20%)" in shown
