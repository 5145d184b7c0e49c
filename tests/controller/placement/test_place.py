"""place(): members, targets, caps, figures, stand-bys, and what is no input."""

from __future__ import annotations

import json
import math
from collections import Counter
from dataclasses import replace
from itertools import product
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from controller.placement import (
    Paths,
    PlacementError,
    Request,
    Topology,
    algorithms,
    attach,
    metrics,
    path_bandwidth,
    place,
    place_on,
    problem,
    qmp_like,
    symmetric,
)
from gateway.protocol.messages import Constraints
from tests.controller.placement.networks import FREE, PLACES, TWO_PLACES, Network


def only(*heads: str, of: Topology, **wanted: Any) -> Request:
    """A request that leaves no choice."""
    return Request(len(heads), Constraints(exclude=tuple({*of.names} - {*heads}), **wanted))


def test_of_equal_heads_the_nearer_one_serves(network: Network) -> None:
    """A node whose own slow link limits it from either head goes to the head that is nearer in airtime."""
    topology = network("a-b 20, b-c 20, c-d 20, d-e 20, a-x 5, e-y 5")
    placement = place(topology, only("a", "e", of=topology))
    assert placement.section_members() == {"b": "a", "c": "a", "d": "e", "x": "a", "y": "e"}


def test_bandwidth_counts_from_the_head(network: Network) -> None:
    """A node that sends fast is a better head than one that receives fast, unless both directions count."""
    topology = network("a-b 10 1, a-c 10 1, b-c 2")
    placement = place(topology, Request(1))
    assert (placement.heads[0].node, placement.heads[0].bandwidth_mbps) == ("a", 10.0)
    both = place(topology, Request(1, Constraints(direction="both")))
    assert (both.heads[0].node, both.mean_bandwidth_mbps, both.direction) == ("b", (1 + 2) / 2, "both")


def test_the_figures_by_hand(network: Network) -> None:
    """Equation 1 is the mean over members, beside it the mean of the clusters' means; heads count nothing."""
    topology = network(TWO_PLACES, PLACES)
    placement = place(topology, only("a", "e", of=topology), metric="airtime")
    # a serves b at 10 and c at 8; e serves d at 6 and f at 9
    assert placement.section_members() == {"b": "a", "c": "a", "d": "e", "f": "e"}
    assert placement.mean_bandwidth_mbps == (10 + 8 + 6 + 9) / 4
    lonely = place(network("a-b 10, c"), Request(2, Constraints(exclude=("b",))))
    assert (lonely.mean_bandwidth_mbps, lonely.mean_of_cluster_means_mbps) == (10.0, 10.0)
    uneven = network("a-b 10, a-c 20, a-d 30, e-f 4")
    placement = place(uneven, only("a", "e", of=uneven))
    assert placement.mean_bandwidth_mbps == 64 / 4
    assert placement.mean_of_cluster_means_mbps == (20 + 4) / 2


def test_a_path_that_misses_a_target_counts_nothing(network: Network) -> None:
    """A member that no head serves at the target is attached to its best head, counts 0 and is reported."""
    topology = network("a-b 10, b-c 2")
    placement = place(topology, Request(1, Constraints(minimum_bandwidth_mbps=6.0)))
    member = placement.members["c"]
    assert (member.head, member.bandwidth_mbps) == (placement.heads[0].node, 2.0)
    assert placement.mean_bandwidth_mbps == 5.0
    assert placement.violations == {"c": f"2.0 Mbit/s from {member.head}, 6 are asked for"}


def test_a_member_without_a_path_that_counts_has_its_best_head(network: Network) -> None:
    """Where no head serves a member at the target it still goes to the better one; the target itself is enough."""
    topology = network("a-b 10, d-e 10, a>c 2, d>x 3, x>c 3, e-f 6")
    placement = place(topology, only("a", "d", of=topology, minimum_bandwidth_mbps=6.0), metric="widest")
    assert placement.members["c"].head == "d"  # although a is nearer in airtime
    assert list(placement.violations) == ["c", "x"]
    assert placement.mean_bandwidth_mbps == (10 + 10 + 6) / 5


def test_where_both_directions_count_both_must_be_in_time(network: Network) -> None:
    """With direction `both`, a path that is slow on the way back only does not serve."""
    topology = network("a-b 10")
    topology = replace(topology, rtts_ms=np.array([4.0, 40.0]))
    request = Request(1, Constraints(maximum_latency_ms=30.0, exclude=("b",)))
    assert place(topology, request).mean_bandwidth_mbps == 10.0
    both = replace(request, constraints=replace(request.constraints, direction="both"))
    with pytest.raises(PlacementError, match="serves no other node within 30 ms"):
        place(topology, both)


def test_a_path_that_takes_too_long_counts_nothing(network: Network) -> None:
    """A slow round trip does not serve, one that is not known does and is reported all the same."""
    topology = network("a-b 10, b-c 20, c-d 5")
    rtts = {("a", "b"): 4.0, ("b", "c"): 40.0, ("c", "d"): math.nan}
    known = [rtts.get(ends, rtts.get(ends[::-1], math.nan)) for ends in _ends(topology)]
    topology = replace(topology, rtts_ms=np.array(known))
    placement = place(topology, only("b", of=topology, maximum_latency_ms=30.0))
    assert placement.mean_bandwidth_mbps == pytest.approx((10 + 5) / 3)
    assert placement.violations == {
        "c": "a round trip of 40 ms to b, at most 30 ms are asked for",
        "d": "an unknown round trip to b, at most 30 ms are asked for",
    }
    nobody = replace(topology, rtts_ms=np.full(len(topology.edges), 99.0))
    with pytest.raises(PlacementError, match="serves no other node within 30 ms, which is asked for: a, "):
        place(nobody, Request(1, Constraints(maximum_latency_ms=30.0)))


def _ends(topology: Topology) -> list[tuple[str, str]]:
    return [(topology.names[i], topology.names[j]) for i, j in topology.edges.tolist()]


def test_a_head_has_no_more_members_than_asked_for(network: Network) -> None:
    """Members go to another head when theirs is full, and one for whom there is no room is reported."""
    topology = network("a-b 10, a-c 9, a-d 8, a-e 7, e-f 1")
    placement = place(topology, only("a", "e", of=topology, maximum_members=2), metric="widest")
    assert placement.section_members() == {"b": "a", "c": "a", "d": "e", "f": "e"}
    tight = place(topology, only("a", "e", of=topology, maximum_members=1))
    assert len(tight.members) == 2
    assert set(tight.violations) == set(tight.unreached)
    assert "every head that reaches it has its 1 members" in tight.violations.values()
    apart = network("a-b 10, a-c 10, z")
    full = place(apart, only("a", of=apart, maximum_members=1))
    assert len(full.violations) == 1 and {*full.unreached} == {"z", *full.violations}


def test_a_migration_must_be_worth_its_cost(network: Network) -> None:
    """The service stays where it is unless its members gain more than the move costs."""
    topology = network("a-b 10 12, b-c 8, c-d 2")
    assert place(topology, Request(1)).heads[0].node == "b"
    for cost, head in ((1.9, "b"), (2.1, "a")):
        placement = place(topology, Request(1, current=("a",), migration_cost_mbps=cost), metric="airtime")
        assert placement.heads[0].node == head
    assert placement.objective_mbps == placement.mean_bandwidth_mbps == pytest.approx(20 / 3)


def test_a_service_is_drawn_to_what_it_is_near_to(network: Network) -> None:
    """The path from another service's best head counts as often as asked, most on the same node."""
    topology = network("a-b 10, b-c 10, c-d 4, d-e 9")
    assert place(topology, Request(1)).heads[0].node != "e"
    drawn = place(topology, Request(1, near=((("e", "gone"), 8.0),)))
    assert drawn.heads[0].node == "e"
    assert drawn.objective_mbps == pytest.approx((9 + 4 + 4 + 4 + 8 * 10) / 4)  # inside a node as fast as any path


def test_any_network_by_the_tree_as_by_the_matrix() -> None:
    """The optimum on the merge tree is that of branch and bound on the same paths."""
    for seed, k in product(range(6), (1, 3, 6)):
        topology = symmetric(qmp_like(40, seed))
        by_tree = place(topology, Request(k), metric="widest", bound=True)
        matrix = Paths(topology, "widest", Constraints(maximum_latency_ms=1e9))
        by_matrix = place_on(matrix, Request(k, Constraints(maximum_latency_ms=1e9)), "optimal")
        assert "merge tree" in by_tree.method and "branch and bound" in by_matrix.method
        assert by_tree.proven and by_matrix.proven
        assert by_tree.objective_mbps == pytest.approx(by_matrix.objective_mbps)


def test_a_target_leaves_a_tree() -> None:
    """Without the links below a target the tree still gives the optimum that the matrix gives."""
    for seed, k in product(range(4), (1, 3, 6)):
        topology = symmetric(qmp_like(40, seed))
        wanted = Constraints(minimum_bandwidth_mbps=20.0)
        by_tree = place(topology, Request(k, wanted), metric="widest")
        unbounded = replace(wanted, maximum_latency_ms=1e9)
        by_matrix = place_on(Paths(topology, "widest", unbounded), Request(k, unbounded), "optimal")
        assert "merge tree" in by_tree.method and "branch and bound" in by_matrix.method
        assert by_tree.objective_mbps == pytest.approx(by_matrix.objective_mbps)


def test_every_algorithm_gets_a_bound_when_asked() -> None:
    """With `bound` a heuristic's placement says how far it is from the optimum at most, and without it says nothing."""
    topology = qmp_like(30, 7)
    optimum = place(topology, Request(3))
    for name in ("basp", "kmeans", "random", "greedy"):
        placement = place(topology, Request(3), name, seed=2, bound=True)
        assert placement.bound_mbps is not None and placement.gap is not None
        assert placement.objective_mbps <= optimum.objective_mbps + 1e-9 <= placement.bound_mbps + 2e-9
        assert placement.objective_mbps >= (1 - placement.gap) * placement.bound_mbps - 1e-9
        assert place(topology, Request(3), name, seed=2).bound_mbps is None or name == "greedy"


def test_stand_bys_replace_a_head_best() -> None:
    """The first stand-by is the runner-up of a head, no stand-by is a head, and none is refused."""
    topology = qmp_like(20, 2)
    request = Request(1, Constraints(exclude=("gw-00",)), standbys=30)
    placement = place(topology, request)
    assert placement.standbys[0] == placement.heads[0].runner_up
    assert sorted([*placement.standbys, placement.heads[0].node, "gw-00"]) == sorted(topology.names)
    without = place(topology, replace(request, constraints=Constraints(exclude=("gw-00", placement.heads[0].node))))
    assert without.heads[0].node == placement.standbys[0]
    assert without.objective_mbps == pytest.approx(placement.heads[0].runner_up_mbps)
    assert place(topology, replace(request, standbys=0)).standbys == ()
    gone = ["gw-00", placement.heads[0].node]
    for standby in placement.standbys[:5]:
        left = place(topology, replace(request, constraints=Constraints(exclude=tuple(gone))))
        assert left.heads[0].node == standby
        gone.append(standby)


def test_stand_bys_of_several_heads_come_by_what_they_are_worth() -> None:
    """Of the runners-up of the heads the one that leaves the larger mean comes first."""
    placement = place(qmp_like(30, 5), Request(4), metric="airtime")
    worth = {
        head.runner_up: head.runner_up_mbps or 0.0
        for head in sorted(placement.heads, key=lambda h: h.runner_up_mbps or 0.0)
    }
    assert len(worth) > 1
    assert list(placement.standbys) == sorted(worth, key=lambda node: -worth[node])[:2]


@settings(max_examples=150, deadline=None)
@given(st.from_type(Topology), st.data())
def test_any_network_is_placed(topology: Topology, data: st.DataObject) -> None:
    """On any network every algorithm gives k different heads, each node its best head, and accounts for all nodes."""
    topology = replace(topology, nodes=(FREE,) * len(topology))
    algorithm, metric = data.draw(st.sampled_from(algorithms())), data.draw(st.sampled_from(metrics()))
    k = data.draw(st.integers(1, len(topology)))
    placement = place(topology, Request(k), algorithm, metric=metric, seed=data.draw(st.integers(0, 9)))
    heads = [head.node for head in placement.heads]
    assert len(set(heads)) == len(heads) == k
    assert sorted([*heads, *placement.members, *placement.unreached]) == sorted(topology.names)
    bandwidth = path_bandwidth(topology, metric)
    rows = bandwidth[[topology.index(head) for head in heads]]
    for node, member in placement.members.items():
        at = topology.index(node)
        assert member.bandwidth_mbps == rows[:, at].max() == bandwidth[topology.index(member.head), at]
    assert all(rows[:, topology.index(node)].max() == 0 for node in placement.unreached)
    total = sum(member.bandwidth_mbps for member in placement.members.values())
    assert placement.mean_bandwidth_mbps == pytest.approx(total / max(1, len(topology) - k))
    for head in placement.heads:
        own = [member.bandwidth_mbps for member in placement.members.values() if member.head == head.node]
        assert head.bandwidth_mbps == pytest.approx(sum(own) / len(own) if own else 0.0)


@st.composite
def constraints(draw: st.DrawFn) -> Constraints:
    """Any constraints that are in range."""
    share = st.sampled_from([0.0, 0.5, 1.0])
    return Constraints(
        minimum_cpus=draw(st.integers(0, 4)),
        minimum_bandwidth_mbps=draw(st.sampled_from([0.0, 5.0, 50.0])),
        exclude=tuple(draw(st.sets(st.sampled_from(["n0", "n1", "elsewhere"])))),
        minimum_availability=draw(share),
        maximum_latency_ms=draw(st.sampled_from([0.0, 10.0])),
        maximum_members=draw(st.integers(0, 3)),
        direction=draw(st.sampled_from(["down", "both"])),
        minimum_free_cpu_percent=100 * draw(share),
        near={"web": 1.0},
    )


@settings(max_examples=150, deadline=None)
@given(st.from_type(Topology), constraints(), st.data())
def test_any_constraints_are_kept(topology: Topology, wanted: Constraints, data: st.DataObject) -> None:
    """Whatever is asked for, heads are not refused, none has too many members, and who misses a target is told."""
    n = len(topology)
    node = st.sampled_from([FREE, replace(FREE, cpus=1), replace(FREE, free_cpu_percent=None, availability=0.6)])
    rtt = st.sampled_from([math.nan, 1.0, 20.0])
    rtts = np.array(data.draw(st.lists(rtt, min_size=len(topology.edges), max_size=len(topology.edges))))
    nodes = tuple(data.draw(st.lists(node, min_size=n, max_size=n)))
    topology = replace(topology, nodes=nodes, rtts_ms=rtts)
    request = Request(data.draw(st.integers(1, n)), wanted, cpu=1.0, reserved={"n1": (3.5, 0)}, current=("n2", "gone"))
    algorithm, metric = data.draw(st.sampled_from(algorithms())), data.draw(st.sampled_from(metrics()))
    placement = place(topology, request, algorithm, metric=metric, partial=True, bound=True)
    heads = [head.node for head in placement.heads]
    assert not {*heads, *placement.standbys} & placement.refused.keys()
    assert len(heads) == min(request.k, n - len(placement.refused))
    assert sorted([*heads, *placement.members, *placement.unreached]) == sorted(topology.names)
    if wanted.maximum_members:
        assert max(Counter(placement.section_members().values()).values(), default=0) <= wanted.maximum_members
    slow = {name for name, member in placement.members.items() if member.bandwidth_mbps < wanted.minimum_bandwidth_mbps}
    assert slow <= placement.violations.keys()
    assert placement.bound_mbps is None or placement.bound_mbps >= placement.objective_mbps - 1e-9
    assert json.loads(json.dumps(placement.to_json(), allow_nan=False))


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 200), st.sampled_from(algorithms()), st.integers(1, 4))
def test_large_networks_are_placed_as_small_ones(seed: int, algorithm: str, k: int) -> None:
    """Rows of bandwidth that are made one by one give the placement that the matrix gives."""
    topology = replace(qmp_like(24, seed), nodes=(FREE,) * 24)
    request = Request(k, standbys=0)
    small = place(topology, request, algorithm, seed=seed)
    limit, problem.ROWS_NODES = problem.ROWS_NODES, 0
    try:
        large = place(topology, request, algorithm, seed=seed)
    finally:
        problem.ROWS_NODES = limit
    assert [head.node for head in large.heads] == [head.node for head in small.heads]
    assert (large.members, large.mean_bandwidth_mbps) == (small.members, pytest.approx(small.mean_bandwidth_mbps))


def test_ties_of_large_networks_go_to_a_best_head(monkeypatch: pytest.MonkeyPatch) -> None:
    """One sweep from all heads breaks ties as well as one from each: every member has the same bandwidth as before."""
    for seed in range(5):
        exact = place(qmp_like(40, seed), Request(4))
        monkeypatch.setattr(attach, "EXACT_TIES", 0)
        swept = place(qmp_like(40, seed), Request(4))
        monkeypatch.undo()
        assert {node: member.bandwidth_mbps for node, member in swept.members.items()} == {
            node: member.bandwidth_mbps for node, member in exact.members.items()
        }


@pytest.mark.parametrize(
    ("arguments", "options", "named"),
    [
        ((Request(0),), {}, "k is 0; a topology of 3 nodes takes 1 to 3 heads"),
        ((Request(4),), {}, "k is 4"),
        ((Request(1), "best"), {}, "'best'; accepted: optimal, greedy, basp, hanet, kmeans, random"),
        ((Request(1),), {"metric": "luck"}, "'luck'; accepted: routed, widest, hops, airtime, series"),
        ((Request(1),), {"seed": -1}, "seed is -1"),
        ((Request(1, Constraints(direction="up")),), {}, "direction is 'up'; accepted: down, both"),
        ((Request(1, Constraints(minimum_bandwidth_mbps=math.nan)),), {}, "minimum_bandwidth_mbps is nan"),
        ((Request(1, Constraints(maximum_latency_ms=-1.0)),), {}, "maximum_latency_ms is -1.0; 0 and above"),
        ((Request(1, Constraints(minimum_availability=90.0)),), {}, "minimum_availability is 90.0; a share of 0 to 1"),
        ((Request(1, Constraints(near={"web": math.inf})),), {}, "near web is inf"),
        ((Request(1, migration_cost_mbps=math.nan),), {}, "migration_cost_mbps is nan"),
        ((Request(1, near=((("gw-0",), math.nan),)),), {}, "near gw-0 is nan"),
    ],
)
def test_bad_input_is_named(arguments: tuple[object, ...], options: dict[str, object], named: str) -> None:
    """What is out of range, unknown or no number is named with its value and what would be accepted."""
    with pytest.raises(PlacementError) as refused:
        place(qmp_like(3, 0), *arguments, **options)  # type: ignore[arg-type]
    assert named in str(refused.value)


def test_an_empty_topology_is_named() -> None:
    """A network without a node is an error, not a crash."""
    empty = Topology((), np.zeros((0, 2)), np.zeros((0, 2), dtype=np.int64), np.zeros(0), ())
    with pytest.raises(PlacementError, match="no node"):
        place(empty, Request(1))


def test_a_network_too_large_for_a_matrix_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the bandwidth between all nodes would not fit, the message says so; widest both ways does without."""
    monkeypatch.setattr(problem, "MATRIX_NODES", 10)
    with pytest.raises(PlacementError, match=r"11 nodes are too many for the routed bandwidth .* 10 are accepted"):
        place(qmp_like(11, 1), Request(1))
    assert place(qmp_like(11, 1), Request(2, Constraints(direction="both")), metric="widest").proven


def test_the_json_has_what_is_documented() -> None:
    """The keys of `place --json`, and each head with its runner-up."""
    printed = place(qmp_like(20, 3), Request(2)).to_json()
    documented = {
        *("algorithm", "metric", "k", "heads", "members", "mean_bandwidth_mbps", "mean_of_cluster_means_mbps"),
        *("bound_mbps", "proven", "seconds"),
    }
    assert documented <= printed.keys()
    assert printed["proven"] is True and printed["bound_mbps"] == printed["objective_mbps"]
    assert {"node", "reason", "runner_up", "runner_up_mbps"} <= printed["heads"][0].keys()
