"""The demonstration's network before anything runs: links, routes and configuration files."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from controller.demo.plan import CONTROLLER, Plan, Route, demo_topology, gateway_uci, make_plan, routes, section_name
from controller.placement import qmp_like
from gateway import uci


def plan_of(gateways: int, seed: int) -> Plan:
    return make_plan(gateways, seed, "/picasso/demo-x", "127.70.3", Path("/tmp/demo"))


def follow(plan: Plan, start: str, destination: str, fallback_at: str = "") -> list[str]:
    """The nodes an Interest passes; `fallback_at` has lost its primary next hop."""
    way, prefix = [start], f"{plan.network}/node/{destination}"
    while way[-1] != destination:
        hops = [route for route in routes(plan, way[-1]) if route.prefix == prefix]
        way.append(hops[1 if way[-1] == fallback_at else 0].neighbor)
        assert len(way) <= len(plan.topology) + 1, f"a loop: {way}"
    return way


@settings(max_examples=15, deadline=None)
@given(st.integers(3, 12), st.integers(0, 500))
def test_routes_lead_everywhere_and_fallbacks_do_not_loop(gateways: int, seed: int) -> None:
    """From every node the primary routes lead to every other one, and so does the fallback of any one node."""
    plan = plan_of(gateways, seed)
    for start in plan.topology.names:
        for destination in plan.topology.names:
            if start != destination:
                follow(plan, start, destination)
                prefix = f"{plan.network}/node/{destination}"
                hops = [route for route in routes(plan, start) if route.prefix == prefix]
                assert 1 <= len(hops) <= 2
                if len(hops) == 2:
                    assert hops[0].cost <= hops[1].cost
                    assert hops[0].neighbor != hops[1].neighbor
                    assert start not in follow(plan, start, destination, fallback_at=start)[1:]


def test_the_primary_route_is_the_fastest_for_the_data() -> None:
    """The next hop is on the path where the Data takes the least airtime, of all simple paths."""
    plan = plan_of(5, 3)

    def airtime(way: list[str]) -> float:
        return sum(1 / plan.rate_mbps(later, earlier) for earlier, later in pairwise(way))

    def ways(way: list[str], destination: str) -> list[list[str]]:
        if way[-1] == destination:
            return [way]
        onward = [other for other in plan.neighbors(way[-1]) if other not in way]
        return [found for other in onward for found in ways([*way, other], destination)]

    for destination in plan.topology.names[1:]:
        best = min(airtime(way) for way in ways(["gw-0"], destination))
        assert airtime(follow(plan, "gw-0", destination)) == pytest.approx(best)


def test_the_default_route_leads_to_the_controller() -> None:
    """The network's prefix is routed as the controller's gateway is, and not at all on that gateway itself."""
    plan = plan_of(8, 7)
    for node in plan.gateways:
        default = [(r.neighbor, r.cost) for r in routes(plan, node) if r.prefix == plan.network]
        assert default == [(r.neighbor, r.cost) for r in routes(plan, node) if r.prefix.endswith(f"/node/{CONTROLLER}")]
    assert all(route.prefix != plan.network for route in routes(plan, CONTROLLER))


@pytest.mark.parametrize("seed", range(8))
def test_the_network_can_be_run_and_measured(seed: int) -> None:
    """Links work both ways at 2 to 30 Mbit/s, and the controller's only neighbour is the gateway with the fewest."""
    topology = demo_topology(8, seed)
    rates = topology.matrix()
    assert np.array_equal(rates > 0, rates.T > 0)
    assert topology.rates_mbps.min() >= 2.0
    assert topology.rates_mbps.max() <= 30.0
    degree = (qmp_like(8, seed, one_way=0.0, links_per_node=1.5).matrix() > 0).sum(axis=1)
    assert np.flatnonzero(rates[topology.index(CONTROLLER)]).tolist() == [degree.argmin()]


def test_the_configuration_says_what_the_plan_says() -> None:
    """A gateway's file read back has its addresses, a neighbor for each link with its rate, and all its routes."""
    plan = plan_of(8, 7)
    document = uci.parse(gateway_uci(plan, "gw-0", "secret"))

    def values(section: uci.Section) -> dict[str, tuple[str, ...]]:
        return {option.name: tuple(option.values) for option in section.options}

    sections = [(section.type, section.name, values(section)) for section in document.sections]
    found = {name: options for kind, name, options in sections if kind == "neighbor"}
    assert set(found) == {section_name(other) for other in plan.neighbors("gw-0")}
    for other in plan.neighbors("gw-0"):
        assert found[section_name(other)]["uri"] == (f"tcp4://{plan.addresses[other]}:6363",)
        assert found[section_name(other)]["rate"] == (f"{plan.rate_mbps('gw-0', other) * 1000:.0f}K",)
    routed = [
        Route(options["prefix"][0], options["neighbor"][0], int(options["cost"][0]))
        for kind, _, options in sections
        if kind == "route"
    ]
    assert routed == [Route(r.prefix, section_name(r.neighbor), r.cost) for r in routes(plan, "gw-0")]
    gateway = next(options for kind, _, options in sections if kind == "gateway")
    assert (gateway["token"], gateway["node"]) == (("secret",), ("gw-0",))
    executor = [next(o for kind, _, o in sections if kind == "executor")["runtime"]]
    controllers = uci.parse(gateway_uci(plan, CONTROLLER, ""))
    executor += [values(s)["runtime"] for s in controllers.sections if s.type == "executor"]
    assert executor == [("auto",), ("none",)]
