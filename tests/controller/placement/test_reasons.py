"""The reasons of a placement, which follow from its input."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from itertools import pairwise

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from controller.placement import PlacementError, Request, Topology, explain, metrics, path_bandwidth, place, qmp_like
from gateway.protocol.messages import Constraints
from tests.controller.placement.networks import PLACES, TWO_PLACES, Network


def test_every_node_by_hand(network: Network) -> None:
    """A head says why, a member its head, path and slowest link, a refused node the constraint, in a sentence each."""
    topology = network(TWO_PLACES + ", x", PLACES)
    placement = place(topology, Request(1, Constraints(exclude=("b", "d"))))
    told = [str(reason) for reason in explain(topology, placement).all()]
    refused = "; may be no head: excluded by name"
    assert told == [
        "a is a head: largest mean bandwidth: 4.0 Mbit/s, runner-up c 3.7 Mbit/s",
        "b uses a at 10.0 Mbit/s by a > b, where a > b is slowest with 10.0 Mbit/s" + refused,
        "c uses a at 8.0 Mbit/s by a > b > c, where b > c is slowest with 8.0 Mbit/s",
        "d uses a at 2.0 Mbit/s by a > b > c > d, where c > d is slowest with 2.0 Mbit/s" + refused,
        "e uses a at 2.0 Mbit/s by a > b > c > d > e, where c > d is slowest with 2.0 Mbit/s",
        "f uses a at 2.0 Mbit/s by a > b > c > d > e > f, where c > d is slowest with 2.0 Mbit/s",
        "x is reached by no head",
    ]


def test_the_slower_direction_is_told_where_both_count(network: Network) -> None:
    """With direction `both` the path is the one that limits, from the member to its head if that is slower."""
    topology = network("a-b 10 3")
    placement = place(topology, Request(1, Constraints(direction="both", exclude=("b",), minimum_bandwidth_mbps=1.0)))
    assert explain(topology, placement).of("b").slowest_link == ("b", "a", 3.0)


def test_a_target_that_is_missed_is_told(network: Network) -> None:
    """A member whose path misses a target has that among its reasons."""
    topology = network("a-b 10, b-c 2")
    placement = place(topology, Request(1, Constraints(minimum_bandwidth_mbps=6.0)))
    assert "misses a target: 2.0 Mbit/s" in str(explain(topology, placement).of("c"))


def test_an_unknown_node_is_named(network: Network) -> None:
    """A node that is not in the network has no reason."""
    topology = network("a-b 10")
    with pytest.raises(PlacementError, match="no node 'z'"):
        explain(topology, place(topology, Request(1))).of("z")


@settings(max_examples=60, deadline=None)
@given(st.from_type(Topology), st.sampled_from(metrics()))
def test_the_slowest_link_is_the_bandwidth(topology: Topology, metric: str) -> None:
    """The stated path leads from head to member over links that exist, and its slowest has the stated bandwidth."""
    placement = place(topology, Request(1), metric=metric)
    explanation = explain(topology, placement)
    links = topology.matrix()
    for node, member in placement.members.items():
        reason = explanation.of(node)
        assert (reason.path[0], reason.path[-1]) == (member.head, node)
        ends = [topology.index(name) for name in reason.path]
        rates = [links[i, j] for i, j in pairwise(ends)]
        assert reason.slowest_link is not None and min(rates) == reason.slowest_link[2] > 0
        assert metric == "series" or reason.slowest_link[2] == member.bandwidth_mbps
    assert json.loads(json.dumps(explanation.to_json()))


@settings(max_examples=80, deadline=None)
@given(st.integers(0, 1000), st.integers(1, 3), st.sampled_from(["optimal", "greedy"]))
def test_a_reason_changes_with_its_input(seed: int, k: int, algorithm: str) -> None:
    """Without the head, the runner-up that its reason states takes its place with the figure that it states."""
    topology = qmp_like(18, seed)
    placement = place(topology, Request(k), algorithm)
    head = placement.heads[-1]
    stated = re.search(r": ([\d.]+) Mbit/s, runner-up (\S+) ([\d.]+) Mbit/s$", head.reason)
    assert stated is not None
    assert float(stated[1]) == round(placement.mean_bandwidth_mbps, 1)
    others = {other.node for other in placement.heads} - {head.node}
    allowed = {*others, stated[2]}
    changed = place(topology, Request(k, Constraints(exclude=tuple({*topology.names} - allowed))), algorithm)
    assert {other.node for other in changed.heads} == allowed
    assert float(stated[3]) == pytest.approx(changed.mean_bandwidth_mbps, abs=0.0501)
    rivals = set(topology.names) - {other.node for other in placement.heads}
    f = path_bandwidth(topology)
    kept = [topology.index(name) for name in others]
    best = max(_mean(f, [*kept, topology.index(name)]) for name in rivals)
    assert head.runner_up_mbps == pytest.approx(best)


def _mean(f, heads: list[int]) -> float:  # type: ignore[no-untyped-def]
    served = f[heads].max(axis=0)
    served[heads] = 0.0
    return float(served.sum()) / (len(f) - len(heads))


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 1000), st.data())
def test_a_faster_slowest_link_is_not_stated_again(seed: int, data: st.DataObject) -> None:
    """When the stated slowest link of a member's path becomes a hundred times as fast, another reason is stated."""
    topology = qmp_like(15, seed)
    head = data.draw(st.sampled_from(topology.names))
    request = Request(1, Constraints(exclude=tuple({*topology.names} - {head})))
    placement = place(topology, request, metric="widest")
    assume(placement.members)
    member = data.draw(st.sampled_from(sorted(placement.members)))
    reason = explain(topology, placement).of(member)
    assert reason.slowest_link is not None
    source, destination, _ = reason.slowest_link
    link = (topology.edges == [topology.index(source), topology.index(destination)]).all(axis=1)
    faster = replace(topology, rates_mbps=topology.rates_mbps * (1 + 99 * link))
    again = explain(faster, place(faster, request, metric="widest")).of(member)
    assert again.slowest_link != reason.slowest_link
    assert again.bandwidth_mbps >= reason.bandwidth_mbps


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 1000), st.data())
def test_a_refusal_changes_with_its_input(seed: int, data: st.DataObject) -> None:
    """A node that has what its refusal asks for is refused no more, and nobody else's refusal changes."""
    topology = qmp_like(12, seed)
    memory = data.draw(st.lists(st.integers(1, 8), min_size=12, max_size=12))
    nodes = tuple(replace(node, memory_bytes=size << 20) for node, size in zip(topology.nodes, memory, strict=True))
    topology = replace(topology, nodes=nodes)
    request = Request(1, Constraints(minimum_memory_bytes=5 << 20))
    before = place(topology, request, partial=True).refused
    assume(before)
    node = data.draw(st.sampled_from(sorted(before)))
    assert f"has {memory[topology.index(node)]} MiB of memory, 5 MiB are asked for" == before[node]
    at = topology.index(node)
    grown = (*nodes[:at], replace(nodes[at], memory_bytes=5 << 20), *nodes[at + 1 :])
    after = place(replace(topology, nodes=grown), request, partial=True).refused
    assert after == {name: reason for name, reason in before.items() if name != node}
