"""Path bandwidth against the enumeration of all simple paths."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import pairwise, permutations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from controller.placement import Topology, TopologyError, metrics, path, path_bandwidth, qmp_like


def simple_paths(topology: Topology, source: int, destination: int) -> Iterator[list[float]]:
    """The link rates of every path without a loop."""
    links = topology.matrix()
    between = [node for node in range(len(topology)) if node not in (source, destination)]
    for length in range(len(between) + 1):
        for via in permutations(between, length):
            rates = [float(links[a, b]) for a, b in pairwise((source, *via, destination))]
            if all(rates):
                yield rates


@settings(max_examples=60, deadline=None)
@given(st.from_type(Topology))
def test_widest_is_the_best_bottleneck_of_all_paths(topology: Topology) -> None:
    """The widest metric is the greatest minimum rate over all directed paths, and 0 where none leads."""
    bandwidth = path_bandwidth(topology, "widest")
    for i in range(len(topology)):
        for j in range(len(topology)):
            best = max((min(rates) for rates in simple_paths(topology, i, j)), default=0.0) if i != j else 0.0
            assert bandwidth[i, j] == best


@settings(max_examples=60, deadline=None)
@given(st.from_type(Topology))
def test_airtime_is_the_bottleneck_of_a_path_of_least_airtime(topology: Topology) -> None:
    """The airtime metric is the slowest link of a path that no other path beats in airtime."""
    bandwidth = path_bandwidth(topology, "airtime")
    for i in range(len(topology)):
        for j in range(len(topology)):
            paths = [(sum(1 / rate for rate in rates), min(rates)) for rates in simple_paths(topology, i, j)]
            least = min((airtime for airtime, _ in paths), default=0.0)
            best = {bottleneck for airtime, bottleneck in paths if airtime <= least + 1e-9}
            assert bandwidth[i, j] in (best if i != j and paths else {0.0})


def test_the_two_metrics_differ_where_a_wide_detour_costs_airtime(network: Callable[..., Topology]) -> None:
    """A direct link of 4 beats a detour over three links of 10 in airtime, and loses in width."""
    topology = network("a-b 4, a-c 10, c-d 10, d-b 10")
    a, b = topology.index("a"), topology.index("b")
    assert path_bandwidth(topology, "airtime")[a, b] == 4.0
    assert path_bandwidth(topology, "widest")[a, b] == 10.0


def test_direction_counts(network: Callable[..., Topology]) -> None:
    """Each direction of a path has its own bandwidth, and a one-way link leads one way only."""
    topology = network("a-b 10 2, b>c 5")
    for metric in metrics():
        bandwidth = path_bandwidth(topology, metric)
        assert bandwidth.tolist() == [[0, 10, 5], [2, 0, 5], [0, 0, 0]]


def test_the_path_is_named_hop_by_hop(network: Callable[..., Topology]) -> None:
    """The least-airtime path has both ends in it; a node reaches itself, and nobody goes against a one-way link."""
    topology = network("a-b 4, a-c 10, c-b 10, b>d 1")
    assert path(topology, "a", "d") == ("a", "c", "b", "d")
    assert path(topology, "a", "a") == ("a",)
    assert path(topology, "d", "a") == ()
    with pytest.raises(TopologyError, match="'z'"):
        path(topology, "a", "z")


def test_paths_of_a_thousand_nodes() -> None:
    """The default metric of a thousand generated nodes reaches everyone, at no rate above the best link."""
    topology = qmp_like(1000, 1)
    bandwidth = path_bandwidth(topology)
    assert (bandwidth > 0).sum() == 1000 * 999
    assert bandwidth.max() == topology.rates_mbps.max()
    assert np.array_equal(np.diag(bandwidth), np.zeros(1000))


def test_an_unknown_metric_is_named() -> None:
    """An unknown metric raises an error that names it and the metrics there are."""
    with pytest.raises(ValueError, match=r"'fastest'.*airtime, widest"):
        path_bandwidth(qmp_like(2, 0), "fastest")
