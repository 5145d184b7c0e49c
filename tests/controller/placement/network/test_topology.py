"""The topology's own checks, and what is made of it."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from controller.placement import NodeAttributes, Topology, TopologyError, qmp_like
from controller.placement.network.topology import assemble, plausible, symmetric


@pytest.mark.parametrize(
    ("edges", "given", "named"),
    [
        ([(0, 1)], [math.nan], "a -> b has a rate of nan"),
        ([(0, 1)], [-2.0], "-2.0"),
        ([(0, 0)], [1.0], "a -> a"),
        ([(0, 5)], [1.0], "5"),
        ([(0, 1), (0, 1)], [1.0, 2.0], "two links"),
        ([(0, 1)], [1.0, 2.0], "shape"),
        ([(0, -1)], [1.0], "-1"),
    ],
)
def test_a_topology_refuses_edges_that_make_no_sense(
    edges: list[tuple[int, int]], given: list[float], named: str
) -> None:
    """A rate that is no rate, a loop, a node out of range and a doubled edge are refused by name."""
    nowhere = np.full((2, 2), np.nan)
    with pytest.raises(TopologyError) as refused:
        Topology(("a", "b"), nowhere, np.array(edges), np.array(given), (NodeAttributes(),) * 2)
    assert named in str(refused.value)


def test_a_topology_cannot_be_changed() -> None:
    """The arrays of a topology are read-only."""
    with pytest.raises(ValueError, match="read-only"):
        qmp_like(4, 0).rates_mbps[0] = 1.0


def test_an_unknown_node_is_named_with_those_that_exist() -> None:
    """Asking for a node that is not there names it and some that are."""
    with pytest.raises(TopologyError, match=r"'x'.*gw-0, gw-1"):
        qmp_like(2, 0).index("x")


@pytest.mark.parametrize(
    ("rtts", "routes", "named"),
    [
        ([1.0], [], "2 links"),
        ([1.0, -1.0], [], "b -> a has a round trip of -1.0"),
        ([1.0, math.inf], [], "inf"),
        ([], [(0, 1)], "shape"),
        ([], [(0, 1, 2)], "node 2 of 2"),
        ([], [(0, 1, 1), (0, 1, 0)], "two routes"),
    ],
)
def test_round_trips_and_routes_that_make_no_sense_are_refused(
    rtts: list[float], routes: list[tuple[int, ...]], named: str
) -> None:
    """Round trips of another number or below 0, routes to nowhere and two to one destination are refused by name."""
    with pytest.raises(TopologyError) as refused:
        Topology(
            ("a", "b"),
            np.full((2, 2), np.nan),
            np.array([(0, 1), (1, 0)]),
            np.array([1.0, 2.0]),
            (NodeAttributes(),) * 2,
            rtts_ms=np.array(rtts),
            routes=np.array(routes or np.zeros((0, 3)), dtype=np.int64),
        )
    assert named in str(refused.value)


def test_what_is_not_given_is_unknown() -> None:
    """Without round trips every one is NaN, without routes there is none, and half a coordinate is no place."""
    topology = assemble("ab", [(41.0, None), (91.0, 2.0)], {(0, 1): 5.0}, [NodeAttributes()] * 2)
    assert np.isnan(topology.rtts_ms).tolist() == [True]
    assert topology.routes.shape == (0, 3)
    assert np.isnan(topology.coordinates).all()


def test_links_are_found_by_their_ends(network: Callable[..., Topology]) -> None:
    """Each pair of ends gives the index of its link, -1 where there is none, in the shape asked for."""
    topology = network("a-b 10 2, b>c 5")
    asked = np.array([[0, 1], [2, 1]]), np.array([[1, 0], [1, 2]])
    found = topology.links_between(*asked)
    assert np.where(found >= 0, topology.rates_mbps[found], 0.0).tolist() == [[10.0, 2.0], [0.0, 5.0]]
    assert network("a, b").links_between(np.array([0]), np.array([1])).tolist() == [-1]


@given(st.from_type(Topology))
def test_symmetric_takes_the_slower_direction_of_two_way_links(topology: Topology) -> None:
    """The links left are those that work both ways, at the smaller of the two rates, and the notes count the rest."""
    links, found = topology.matrix(), symmetric(topology)
    assert np.array_equal(found.matrix(), np.minimum(links, links.T))
    lost = len(topology.edges) - len(found.edges)
    assert found.notes == ((f"one-way links left out: {lost}",) if lost else ())


@pytest.mark.parametrize("figure", [math.nan, math.inf, -1.0, 0, 1e12, 10**400, True, "5", None])
def test_what_is_no_rate_is_not_plausible(figure: object) -> None:
    """NaN, infinite, absurd and negative figures, texts and truths are no rate; any other number is."""
    assert not plausible(figure)
    assert plausible(3)
