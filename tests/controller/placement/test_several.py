"""Several services on the same nodes: capacity, apart, near, against looking at everything."""

from __future__ import annotations

from dataclasses import replace
from itertools import chain, combinations, product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from controller.placement import (
    NodeAttributes,
    Paths,
    PlacementError,
    Request,
    Topology,
    beside,
    place,
    qmp_like,
)
from controller.placement import several as place_several
from controller.placement.problem import bonus_of
from controller.placement.solvers.solution import value_of
from gateway.protocol.messages import Constraints
from tests.controller.placement.networks import Network

ONE_CPU = NodeAttributes(cpus=1, memory_bytes=128 << 20)
STAR = "a-b 10 1, a-c 10 1, a-d 10 1, a-e 10 1"


def heads_of(placements: dict[str, object]) -> dict[str, set[str]]:
    return {name: {head.node for head in placement.heads} for name, placement in placements.items()}  # type: ignore[attr-defined]


def test_what_goes_together_is_left_alone() -> None:
    """Services that fit on the same nodes are placed as each would be alone, with its own proof."""
    topology = qmp_like(20, 1)
    wanted = [("web", Request(2, cpu=0.5)), ("mail", Request(1, cpu=0.5))]
    found = place_several(topology, wanted)
    for name, request in wanted:
        alone = place(topology, request)
        assert (found[name].heads, found[name].members) == (alone.heads, alone.members)
        assert found[name].proven


def test_a_full_node_takes_no_further_head(network: Network) -> None:
    """Two services that both want the middle cannot both have it, and the loser says who has no room."""
    topology = network(STAR, **dict.fromkeys("abcde", ONE_CPU))
    wanted = [("web", Request(1, cpu=0.6)), ("mail", Request(1, cpu=0.6))]
    found = place_several(topology, wanted)
    one, other = (heads_of(found)[name] for name in ("web", "mail"))
    assert one != other and "a" in one | other
    loser = "web" if "a" in other else "mail"
    assert found[loser].refused["a"] == "has 0.4 of its 1 CPUs left for it, it takes 0.6"


def test_services_keep_apart(network: Network) -> None:
    """One service that wants to be apart is enough for both; the refusal names the other one."""
    topology = network(STAR)
    found = place_several(topology, [("web", Request(1)), ("backup", Request(1, Constraints(apart=("web",))))])
    assert heads_of(found)["web"].isdisjoint(heads_of(found)["backup"])
    (head,) = heads_of(found)["backup"]
    assert found["web"].refused == {head: "runs backup, from which it is to be apart"}


def test_a_service_goes_where_the_other_is(network: Network) -> None:
    """A component that exchanges much traffic with another one leaves its own best place for it."""
    topology = network("a-b 10, b-c 10, c-d 1, d-e 9, e-f 9")
    web = Request(1, Constraints(exclude=tuple("abcdf")))
    alone = place_several(topology, [("web", web), ("database", Request(1))])
    assert heads_of(alone)["database"] <= {"a", "b", "c"}
    drawn = place_several(topology, [("web", web), ("database", Request(1, Constraints(near={"web": 5.0})))])
    assert heads_of(drawn)["database"] == {"e"}
    assert "closeness to other services" in drawn["database"].heads[0].reason


def test_who_finds_no_place_is_named(network: Network) -> None:
    """A service for which the others leave no room is named with the reasons; the others are placed when asked to."""
    topology = network("a-b 10", a=ONE_CPU, b=ONE_CPU)
    wanted = [("web", Request(2, cpu=0.6)), ("mail", Request(1, cpu=0.6))]
    with pytest.raises(PlacementError, match=r"mail: k is 1, but 0 of 2 .* has 0.4 of its 1 CPUs left .*: a, b$"):
        place_several(topology, wanted)
    found = place_several(topology, wanted, partial=True)
    assert [len(found[name].heads) for name in ("web", "mail")] == [2, 0]
    with pytest.raises(PlacementError, match="2 services have 1 names"):
        place_several(topology, [("web", Request(1)), ("web", Request(1))])


def test_each_service_has_its_algorithm() -> None:
    """The algorithm is that of the service, `optimal` where none is said."""
    found = place_several(qmp_like(12, 1), [("web", Request(2)), ("mail", Request(1))], {"mail": "basp"})
    assert [found[name].algorithm for name in ("web", "mail")] == ["optimal", "basp"]


def test_the_bound_of_one_after_the_other_knows_what_is_near(network: Network) -> None:
    """A service is bounded by what it has alone, and what nearness could add at most."""
    topology = network("a-b 10, b-c 10, c-d 4, d-e 9")
    wanted = [
        ("web", Request(1, Constraints(exclude=tuple("abcd")))),
        ("db", Request(1, Constraints(near={"web": 8.0}))),
    ]
    found = place_several(topology, wanted, {"db": "greedy"})["db"]
    assert found.heads[0].node == "e"
    assert found.bound_mbps == pytest.approx(place(topology, Request(1)).mean_bandwidth_mbps + 8 * 10 / 4)


def test_a_smaller_placement_has_no_bound_of_a_larger_one(network: Network) -> None:
    """Where only a part of the heads finds a place beside the others, the bound of all of them says nothing."""
    topology = network(STAR, **dict.fromkeys("abcde", ONE_CPU))
    found = place_several(topology, [("web", Request(4, cpu=0.6)), ("db", Request(2, cpu=0.6))], partial=True)
    assert [len(found[name].heads) for name in ("web", "db")] == [4, 1]
    assert found["web"].bound_mbps is not None and found["db"].bound_mbps is None


def test_what_was_there_before_keeps_its_room(network: Network) -> None:
    """The program of all services leaves alone what is reserved on a node for others."""
    topology = network(STAR, **dict.fromkeys("abcde", ONE_CPU))
    reserved = {"a": (0.5, 0), "gone": (9.0, 0)}
    wanted = [(name, Request(1, cpu=0.4, reserved=reserved)) for name in ("web", "db", "dns")]
    found = place_several(topology, wanted)
    assert sum("a" in heads for heads in heads_of(found).values()) == 1
    assert "integer program" in found["web"].method or "rounds" in found["web"].method


def test_each_service_has_its_targets(network: Network) -> None:
    """Services of different targets and directions do not share their paths."""
    topology = network("a-b 10 1, b-c 4")
    wanted = [
        ("any", Request(1, Constraints(exclude=("b", "c")))),
        ("fast", Request(1, Constraints(exclude=("b", "c"), minimum_bandwidth_mbps=5.0))),
        ("both", Request(1, Constraints(exclude=("b", "c"), direction="both"))),
    ]
    found = place_several(topology, wanted)
    assert [found[name].mean_bandwidth_mbps for name, _ in wanted] == [7.0, 5.0, 1.0]


def test_beside_counts_what_others_take() -> None:
    """What the heads of others take is added to what was reserved before."""
    requests = {
        "web": Request(1, Constraints(near={"mail": 2.0}), reserved={"a": (1.0, 1)}),
        "mail": Request(1, cpu=0.5, memory_bytes=4),
        "dns": Request(1, Constraints(apart=("web",)), cpu=0.25),
    }
    found = beside("web", requests, {"web": ("z",), "mail": ("a", "b"), "dns": ("b",)})
    assert found.reserved == {"a": (1.5, 5), "b": (0.75, 4)}
    assert found.refusals == {"b": "runs dns, from which it is to be apart"}
    assert found.near == ((("a", "b"), 2.0),)


@st.composite
def services(draw: st.DrawFn, n: int) -> list[tuple[str, Request]]:
    """Two or three services of one or two heads that want a share of nodes with one CPU, some apart, some near."""
    names = ["x", "y", "z"][: draw(st.integers(2, 3))]
    wanted = []
    for name in names:
        others = [other for other in names if other != name]
        apart = tuple(draw(st.sets(st.sampled_from(others), max_size=1)))
        near = {
            other: draw(st.sampled_from([0.5, 3.0])) for other in draw(st.sets(st.sampled_from(others), max_size=1))
        }
        k = draw(st.integers(1, min(2, n)))
        wanted.append((name, Request(k, Constraints(apart=apart, near=near), cpu=draw(st.sampled_from([0.3, 0.6])))))
    return wanted


def value(paths: Paths, requests: dict[str, Request], heads: dict[str, tuple[str, ...]]) -> float | None:
    """What the heads of all services are worth; None if a node has no room or two that want to be apart meet."""
    topology = paths.topology
    for node in {*chain(*heads.values())}:
        there = [name for name in heads if node in heads[name]]
        if sum(requests[name].cpu for name in there) > 1.0:
            return None
        if any(other in requests[name].constraints.apart for name, other in product(there, there)):
            return None
    total = 0.0
    for name, nodes in heads.items():
        bonus = bonus_of(paths, beside(name, requests, heads))
        total += value_of(paths.bandwidth, np.array([topology.index(node) for node in nodes]), bonus)
    return total


@settings(max_examples=60, deadline=None)
@given(st.from_type(Topology), st.data())
def test_the_optimum_of_all_services_is_that_of_brute_force(topology: Topology, data: st.DataObject) -> None:
    """No other heads of all services together are worth more, and where none fit, that is said."""
    topology = replace(topology, nodes=(ONE_CPU,) * len(topology))
    wanted = data.draw(services(len(topology)))
    requests = dict(wanted)
    sets = [list(combinations(topology.names, request.k)) for request in requests.values()]
    paths = Paths(topology, "airtime", Constraints())
    values = [value(paths, requests, dict(zip(requests, heads, strict=True))) for heads in product(*sets)]
    best = max((worth for worth in values if worth is not None), default=None)
    if best is None:
        with pytest.raises(PlacementError, match="nodes may be a head"):
            place_several(topology, wanted, metric="airtime")
        return
    found = place_several(topology, wanted, metric="airtime")
    heads = {name: tuple(head.node for head in placement.heads) for name, placement in found.items()}
    assert value(paths, requests, heads) == pytest.approx(best)
    total = sum(p.objective_mbps * max(1, len(topology) - p.k) for p in found.values())
    assert total == pytest.approx(best)
    assert all(placement.proven for placement in found.values())


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 300), st.data())
def test_one_after_the_other_keeps_the_constraints(seed: int, data: st.DataObject) -> None:
    """With an algorithm that no program has, the services still have room, keep apart, and state bounds that hold."""
    topology = qmp_like(14, seed)
    wanted = data.draw(services(14))
    requests = dict(wanted)
    found = place_several(topology, wanted, dict.fromkeys(requests, "greedy"), metric="airtime")
    heads = {name: tuple(head.node for head in placement.heads) for name, placement in found.items()}
    paths = Paths(topology, "airtime", Constraints())
    worth = value(paths, requests, heads)
    assert worth is not None
    assert worth == pytest.approx(sum(p.objective_mbps * (14 - p.k) for p in found.values()))
    best = place_several(topology, wanted, metric="airtime")
    assert worth <= sum(p.objective_mbps * (14 - p.k) for p in best.values()) + 1e-6
    assert all(p.bound_mbps is not None and p.bound_mbps >= p.objective_mbps - 1e-9 for p in found.values())
    if not any(request.constraints.near for request in requests.values()):
        assert all(best[name].objective_mbps <= found[name].bound_mbps + 1e-6 for name in found)
