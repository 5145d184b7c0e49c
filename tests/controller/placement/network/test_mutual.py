"""Undirected links that have the widest paths of both directions."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from controller.placement import Paths, Topology, path_bandwidth, qmp_like, symmetric
from controller.placement.network.mutual import is_symmetric, mutual_links
from controller.placement.solvers.merge_tree import MergeTree
from gateway.protocol.messages import Constraints


def mutual_bandwidth(topology: Topology) -> np.ndarray:
    f = path_bandwidth(topology, "widest")
    return np.minimum(f, f.T)


@settings(max_examples=300, deadline=None)
@given(st.from_type(Topology))
def test_the_tree_of_the_links_has_the_smaller_of_both_directions(topology: Topology) -> None:
    """The widest paths over the links are the smaller of both directions' widest paths, on any network."""
    tree = MergeTree.from_links(len(topology), *mutual_links(topology))
    assert np.array_equal(tree.rows(np.arange(len(topology))), mutual_bandwidth(topology))


def test_larger_networks_too() -> None:
    """Many distinct rates and one-way links make no difference."""
    for seed in range(5):
        topology = qmp_like(80, seed)
        assert not is_symmetric(topology)
        paths = Paths(topology, "widest", Constraints(direction="both"))
        assert paths.tree is not None
        assert np.array_equal(paths.rows(np.arange(80)), mutual_bandwidth(topology))


def test_symmetric_networks_are_seen() -> None:
    """Only a network whose links all have the same rate both ways counts as symmetric."""
    topology = qmp_like(30, 1)
    assert is_symmetric(symmetric(topology)) and not is_symmetric(topology)
    assert Paths(symmetric(topology), "widest", Constraints()).tree is not None
    assert Paths(topology, "widest", Constraints()).tree is None
