"""A network as a decision sees it, and what heads are worth in it."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import replace

import pytest
from hypothesis import given, settings, strategies

from controller.monitoring.network import View
from controller.placement import Request, qmp_like
from controller.scene import Case, Scene
from gateway.protocol.messages import Constraints, Load
from tests.controller.fakes import report


def scene(seed: int, nodes: int = 9, busy: str = "") -> Scene:
    """A generated network, by reports; the `busy` node has no CPU free."""
    network = qmp_like(nodes, seed)
    links: defaultdict[str, dict[str, float]] = defaultdict(dict)
    for (i, j), mbps in zip(network.edges.tolist(), network.rates_mbps.tolist(), strict=True):
        links[network.names[j]][network.names[i]] = mbps
    return Scene(
        View({n: report(n, links[n], load=Load(cpu_percent=95.0 if n == busy else 5.0)) for n in network.names})
    )


def case(seed: int, request: Request, algorithm: str = "optimal") -> Case:
    return scene(seed).case(request, algorithm)


@settings(max_examples=25, deadline=None)
@given(strategies.integers(0, 99), strategies.integers(0, 3), strategies.booleans())
def test_one_head_more_is_worth_what_it_would_be_worth(seed: int, heads: int, is_near: bool) -> None:
    """with_each() foretells of(), for every node that is no head, closeness to other services included."""
    near = ((("gw-8",), 3.0),) if is_near else ()
    found = case(seed, Request(4, near=near, current=("gw-0",), migration_cost_mbps=7.0))
    held = [f"gw-{at}" for at in range(heads)]
    offers = found.with_each(held)
    assert offers.keys() == {f"gw-{at}" for at in range(heads, 9)}
    for node, worth in offers.items():
        assert worth == pytest.approx(found.of([*held, node]))


@settings(max_examples=25, deadline=None)
@given(strategies.integers(0, 99), strategies.sampled_from(["optimal", "basp", "random"]))
def test_worth_is_what_the_best_placement_maximises(seed: int, algorithm: str) -> None:
    """The best placement's mean over members is its worth; its heads given again make the same placement."""
    found = case(seed, Request(2), algorithm)
    best = found.best
    assert found.of([head.node for head in best.heads]) == pytest.approx(best.mean_bandwidth_mbps * 7)
    again = found.placement({head.node: head.reason for head in best.heads})
    same = replace(best, seconds=0.0, seed=0)
    assert replace(again, bound_mbps=best.bound_mbps, proven=best.proven) == same
    assert again.bound_mbps == pytest.approx(best.bound_mbps)


def test_migration_counts_for_the_best_placement_and_not_for_worth() -> None:
    """Where moving costs more than it brings, the best placement is the one there is."""
    free = case(3, Request(1))
    (best,) = [head.node for head in free.best.heads]
    other = next(node for node in free.with_each([]) if node != best)
    dear = case(3, Request(1, current=(other,), migration_cost_mbps=1e6))
    assert [head.node for head in dear.best.heads] == [other]
    assert dear.of([best]) == pytest.approx(free.of([best]))


def test_bound_says_nothing_of_heads_that_may_be_none() -> None:
    """Heads that fail a measured constraint may be better than all that pass it; they are not called optimal."""
    (best,) = [head.node for head in case(3, Request(1)).best.heads]
    picky = scene(3, busy=best).case(Request(1, Constraints(minimum_free_cpu_percent=50.0)), "optimal")
    assert best in picky.best.refused and best not in picky.impossible
    held = picky.placement({best: ""})
    assert held.bound_mbps is None and not held.proven


def test_bound_is_for_so_many_heads() -> None:
    """Fewer heads than asked for have more members, and their mean another bound."""
    found = case(3, Request(2))
    assert found.placement({"gw-1": ""}).bound_mbps is None
    assert found.placement({"gw-1": "", "gw-2": ""}).bound_mbps == pytest.approx(found.best.bound_mbps)


def test_past_makes_a_link_no_better() -> None:
    """The low rate of the past counts where it is less than what is measured now."""
    view = View({"a": report("a", {"b": 5.0}), "b": report("b", {"a": 8.0})})
    assert Scene(view, {("a", "b"): 3.0, ("b", "a"): 9.0}).links() == {("a", "b"): 3.0, ("b", "a"): 5.0}


def test_availability_is_known_to_placement() -> None:
    """A node that is seldom heard is refused where the service asks for more."""
    view = View({"a": report("a", {"b": 5.0}), "b": report("b", {"a": 8.0})})
    request = Request(1, Constraints(minimum_availability=0.9))
    found = Scene(view, availability={"a": 0.95, "b": 0.5}).case(request, "optimal").best
    assert [head.node for head in found.heads] == ["a"] and "50 % of the time" in found.refused["b"]


def test_way_is_the_path_of_least_airtime() -> None:
    """Every node behind the first with the airtime of the link to it; nothing where no path leads."""
    view = View({"a": report("a", {"b": 4.0}), "b": report("b", {"a": 2.0, "c": 8.0}), "c": report("c", {"b": 5.0})})
    net = Scene(view)
    assert net.way("a", "c") == [("b", pytest.approx(0.5)), ("c", pytest.approx(0.2))]
    assert net.way("a", "a") == [] and net.way("a", "stranger") == []
