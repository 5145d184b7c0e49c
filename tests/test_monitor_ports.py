"""What the gateway tells its monitor."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any
from unittest.mock import MagicMock

import pytest

from gateway.monitor.schedule import Demand
from gateway.monitor_ports import MonitorPorts
from gateway.protocol import names
from gateway.protocol.messages import RouteReport

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
    gateway.fetcher.running = fetching
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


def test_a_plain_forwarder_has_neither_demand_nor_blobs() -> None:
    """Without store, custody and membership there is nothing that the links would be needed for."""
    gateway: Any = MagicMock()
    gateway.fetcher = gateway.custody = gateway.blobs = gateway.placement = None
    gateway.needed_blobs.return_value = {ELSEWHERE}
    ports = MonitorPorts(gateway)
    assert ports.demand() is Demand.NONE
    assert (ports.blobs(), ports.held(), ports.runtimes(), ports.decision_order()) == ((), (), (), (0, 0))


def test_routes_are_those_to_nodes_by_neighbours_that_are_known() -> None:
    """A node's own name, other prefixes and faces whose other end has not said who it is are left out."""
    network = names.Network("/net")

    def hop(face_id: int, cost: int) -> tuple[SimpleNamespace]:
        return (SimpleNamespace(face_id=face_id, cost=cost),)

    gateway: Any = MagicMock()
    gateway.network, gateway.node = network, "a"
    gateway.neighbor_node.side_effect = {1: "b", 2: "", 3: "c"}.get
    gateway.mesh.distance.side_effect = {"far": 5.0}.get
    gateway.forwarder.fib = [
        (network.node("a"), hop(1, 0)),
        (network.node("b"), hop(1, 2)),
        (network.node("far"), hop(3, 1)),
        (network.node("unsaid"), hop(2, 1)),
        (network.node("far") + names.component("report"), hop(1, 1)),
        (network.blobs, hop(1, 1)),
    ]
    assert MonitorPorts(gateway).routes() == (RouteReport("b", "b", 2), RouteReport("far", "c", 5))
