"""What would be, asked of networks worked by hand and of generated ones."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from controller.placement import PlacementError, Request, Topology, TopologyError, place, what_if
from controller.placement.network.topology import NodeAttributes, assemble
from gateway.protocol.messages import Constraints
from tests.controller.placement.networks import PLACES, TWO_PLACES, Network


def test_without_a_node(network: Network) -> None:
    """Without the node that joins two places, the difference names the new heads and those whom nobody reaches."""
    answer = what_if(network(TWO_PLACES, PLACES), Request(1), without="c")
    assert answer.question == "without c"
    assert [head.node for head in answer.before.heads] == ["b"]
    assert answer.difference() == [
        "mean bandwidth from 5.2 to 3.8 Mbit/s (-1.5)",
        "e instead of b",
        "another head for d, f",
        "reached by no head any more: a, b",
    ]
    assert "c" not in {*answer.after.members, *answer.after.unreached}


def test_with_a_link_of_twice_the_rate(network: Network) -> None:
    """A doubled link is twice as fast in both directions, and only it."""
    topology = network(TWO_PLACES, PLACES)
    request = Request(1, Constraints(exclude=tuple("acdef")))
    answer = what_if(topology, request, doubled=("d", "c"))
    assert answer.difference() == ["mean bandwidth from 5.2 to 6.4 Mbit/s (+1.2)", "the same heads"]
    assert answer.after.members["d"].bandwidth_mbps == 4.0
    one_way = network("a>b 5, b-c 9")
    assert what_if(one_way, request, doubled=("b", "a"), partial=True).after.unreached == ("a",)


def test_with_more_heads(network: Network) -> None:
    """One head more is a further one here, and the nodes that go to it are named."""
    answer = what_if(network(TWO_PLACES, PLACES), Request(1), more=1)
    assert answer.question == "with 1 more head"
    assert answer.after.k == 2
    assert "e as a further head" in answer.difference()
    assert "another head for d, f" in answer.difference()
    assert json.loads(json.dumps(answer.to_json()))["difference"] == answer.difference()


def test_routes_by_a_node_go_with_it() -> None:
    """Routes that name the node are gone, the others lead to the same nodes as before."""
    rates = {(0, 1): 5.0, (1, 2): 5.0, (0, 2): 1.0, (2, 3): 9.0}
    routes = {(0, 2): 1, (1, 2): 2, (2, 3): 3}
    topology = assemble("abcd", [(None, None)] * 4, rates, [NodeAttributes()] * 4, routes=routes)
    after = what_if(topology, Request(1, Constraints(exclude=("b", "c", "d"))), without="b").after
    assert {node: member.bandwidth_mbps for node, member in after.members.items()} == {"c": 1.0, "d": 1.0}


@settings(max_examples=60, deadline=None)
@given(st.from_type(Topology), st.data())
def test_before_and_after_are_placements_of_the_networks(topology: Topology, data: st.DataObject) -> None:
    """Before is the placement as it is; a doubled link makes the widest paths no slower, nor does a further head."""
    if len(topology) < 2:
        return
    before = place(topology, Request(1), metric="widest")
    more = what_if(topology, Request(1), more=1, metric="widest")
    assert more.before.heads == before.heads
    if len(topology.edges):
        i, j = topology.edges[data.draw(st.integers(0, len(topology.edges) - 1))]
        doubled = what_if(topology, Request(1), doubled=(topology.names[i], topology.names[j]), metric="widest")
        assert doubled.after.mean_bandwidth_mbps >= doubled.before.mean_bandwidth_mbps - 1e-9
    without = what_if(topology, Request(1), without=topology.names[0], metric="widest")
    smaller = without_first(topology)
    assert without.after.mean_bandwidth_mbps == pytest.approx(
        place(smaller, Request(1), metric="widest").mean_bandwidth_mbps
    )


def without_first(topology: Topology) -> Topology:
    rates = {
        (int(i) - 1, int(j) - 1): float(rate)
        for (i, j), rate in zip(topology.edges, topology.rates_mbps, strict=True)
        if i and j
    }
    places = [(None, None) if np.isnan(x) else (float(x), float(y)) for x, y in topology.coordinates[1:]]
    return assemble(topology.names[1:], places, rates, topology.nodes[1:])


def test_what_cannot_be_asked_is_named(network: Network) -> None:
    """A node, a link or a number of heads that does not exist is named, and one question is asked at a time."""
    topology = network("a-b 5, b-c 5")
    with pytest.raises(TopologyError, match="no node 'z'"):
        what_if(topology, Request(1), without="z")
    with pytest.raises(PlacementError, match="no link between a and c"):
        what_if(topology, Request(1), doubled=("a", "c"))
    with pytest.raises(PlacementError, match="k is 4"):
        what_if(topology, Request(3), more=1)
    with pytest.raises(PlacementError, match="asks one thing"):
        what_if(topology, Request(1))
    with pytest.raises(PlacementError, match="asks one thing"):
        what_if(topology, Request(1), without="a", more=1)
