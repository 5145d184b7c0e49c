"""Where nodes are drawn."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from controller.placement import Topology
from controller.placement.study.layout import positions

Network = Callable[..., Topology]


def test_coordinates_make_the_map(network: Network) -> None:
    """North is up, east is right, and distances are metres."""
    spots = positions(network("a-b 1", {"a": (41.0, 2.0), "b": (41.001, 2.001)}))
    east, north = spots[1] - spots[0]
    assert 111.1 < north < 111.3
    assert 83.8 < east < 84.0


def test_a_node_without_coordinates_is_near_its_neighbours(network: Network) -> None:
    """It is closer to the one it has a link with than that one is to the others, also over a second such node."""
    topology = network("a-b 1, b-c 1, c-d 1", {"a": (41.0, 2.0), "b": (41.1, 2.0)})
    spots = dict(zip(topology.names, positions(topology), strict=True))
    far = np.linalg.norm(spots["a"] - spots["b"])
    assert np.linalg.norm(spots["c"] - spots["b"]) < 0.1 * far
    assert np.linalg.norm(spots["d"] - spots["c"]) < 0.1 * far


def test_without_coordinates_hops_make_the_map(network: Network) -> None:
    """The ends of a chain are farther apart than its neighbours."""
    spots = positions(network("a-b 1, b-c 1, c-d 1, e-f 1"))
    assert np.linalg.norm(spots[0] - spots[3]) > 2.5 * np.linalg.norm(spots[0] - spots[1]) > 0


@settings(max_examples=100, deadline=None)
@given(st.from_type(Topology))
def test_every_node_has_a_place(topology: Topology) -> None:
    """Any network can be drawn: every node has finite coordinates."""
    spots = positions(topology)
    assert spots.shape == (len(topology), 2)
    assert np.isfinite(spots).all()
