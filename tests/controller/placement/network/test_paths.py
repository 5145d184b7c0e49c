"""Path bandwidth and latency against the enumeration of all simple paths."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import pairwise, permutations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from controller.placement import NodeAttributes, Topology, TopologyError, metrics, path, path_bandwidth, qmp_like
from controller.placement.network.paths import bottleneck, path_latency, paths_from
from controller.placement.network.topology import assemble

Way = tuple[int, ...]


def simple_paths(topology: Topology, source: int, destination: int) -> Iterator[Way]:
    """Every path between two nodes without a loop."""
    links = topology.matrix()
    between = [node for node in range(len(topology)) if node not in (source, destination)]
    for length in range(len(between) + 1):
        for via in permutations(between, length):
            way = (source, *via, destination)
            if all(links[a, b] for a, b in pairwise(way)):
                yield way


def along(topology: Topology, way: Way) -> list[float]:
    """The rates of a path's links."""
    links = topology.matrix()
    return [float(links[a, b]) for a, b in pairwise(way)]


def airtime(rates: list[float]) -> float:
    return sum(1.0 / rate for rate in rates)


def pairs_of(topology: Topology) -> list[tuple[int, int]]:
    return [(i, j) for i in range(len(topology)) for j in range(len(topology)) if i != j]


@st.composite
def with_routes_and_rtts(draw: st.DrawFn) -> Topology:
    """A network whose nodes report routes, sensible or not, and whose links' round trips are known in part."""
    topology = draw(st.from_type(Topology))
    rtts = draw(st.lists(st.sampled_from([1.0, 2.0, 5.0, math.nan]), min_size=len(topology.edges)))
    rows = pairs_of(topology)
    routes = draw(st.dictionaries(st.sampled_from(rows), st.integers(0, len(topology) - 1))) if rows else {}
    table = np.array([(at, end, hop) for (at, end), hop in routes.items()], dtype=np.int64).reshape(-1, 3)
    return replace(topology, rtts_ms=np.array(rtts[: len(topology.edges)]), routes=table)


@settings(max_examples=60, deadline=None)
@given(st.from_type(Topology))
def test_widest_is_the_best_bottleneck_of_all_paths(topology: Topology) -> None:
    """The widest metric is the greatest minimum rate over all directed paths, and 0 where none leads."""
    bandwidth = path_bandwidth(topology, "widest")
    for i, j in pairs_of(topology):
        best = max((min(along(topology, way)) for way in simple_paths(topology, i, j)), default=0.0)
        assert bandwidth[i, j] == best


@settings(max_examples=60, deadline=None)
@given(st.from_type(Topology))
def test_airtime_is_the_bottleneck_of_a_path_of_least_airtime(topology: Topology) -> None:
    """The airtime metric is the slowest link of a path that no other path beats in airtime; series is that airtime."""
    bandwidth, series = path_bandwidth(topology, "airtime"), path_bandwidth(topology, "series")
    for i, j in pairs_of(topology):
        found = [along(topology, way) for way in simple_paths(topology, i, j)]
        least = min((airtime(rates) for rates in found), default=math.inf)
        assert bandwidth[i, j] in {min(rates) for rates in found if airtime(rates) <= least + 1e-9} or not found
        assert series[i, j] == pytest.approx(1.0 / least)
        assert bool(found) == bool(bandwidth[i, j])


@settings(max_examples=60, deadline=None)
@given(st.from_type(Topology))
def test_hops_come_first_and_airtime_decides_between_equals(topology: Topology) -> None:
    """The hops metric is the slowest link of a path with the fewest hops, and of those one with the least airtime."""
    bandwidth = path_bandwidth(topology, "hops")
    for i, j in pairs_of(topology):
        found = [along(topology, way) for way in simple_paths(topology, i, j)]
        best = min(((len(rates), airtime(rates)) for rates in found), default=(0, 0.0))
        fit = {min(rates) for rates in found if len(rates) == best[0] and airtime(rates) <= best[1] + 1e-9}
        assert bandwidth[i, j] in (fit or {0.0})


@pytest.mark.parametrize(("quick", "slow"), ["bc", "cb"])
def test_of_equally_many_hops_airtime_decides(network: Callable[..., Topology], quick: str, slow: str) -> None:
    """Of two ways with two hops the one with less airtime is taken, whichever comes first."""
    topology = network(f"a-{quick} 5, {quick}-d 5, a-{slow} 9, {slow}-d 2, a-e 50, e-f 50, f-d 50")
    assert path(topology, "a", "d", "hops") == ("a", quick, "d")
    assert path_bandwidth(topology, "hops")[topology.index("a"), topology.index("d")] == 5.0


@settings(max_examples=100, deadline=None)
@given(with_routes_and_rtts())
def test_routed_follows_the_routes_where_they_lead(topology: Topology) -> None:
    """Hop by hop along the reported routes; with a route or a link missing, or in a circle, on the least airtime."""
    bandwidth, otherwise = path_bandwidth(topology, "routed"), path_bandwidth(topology, "airtime")
    links = topology.matrix()
    hop_at = {(at, end): hop for at, end, hop in topology.routes.tolist()}
    for i, j in pairs_of(topology):
        way = [i]
        while way[-1] != j and len(way) <= len(topology):
            way.append(hop_at.get((way[-1], j), way[-1]))
        rates = [links[a, b] for a, b in pairwise(way)]
        assert bandwidth[i, j] == (min(rates) if way[-1] == j and all(rates) else otherwise[i, j])


@settings(max_examples=60, deadline=None)
@given(with_routes_and_rtts(), st.sampled_from(metrics()))
def test_the_path_explains_bandwidth_and_latency(topology: Topology, metric: str) -> None:
    """What path() names has the metric's bandwidth and round trip, and there is none exactly where both say so."""
    bandwidth, latency = path_bandwidth(topology, metric), path_latency(topology, metric)
    rtts = dict(zip(map(tuple, topology.edges.tolist()), topology.rtts_ms.tolist(), strict=True))
    for i, j in pairs_of(topology):
        names = path(topology, topology.names[i], topology.names[j], metric)
        if not names:
            assert (bandwidth[i, j], latency[i, j]) == (0.0, math.inf)
            continue
        way = tuple(topology.index(name) for name in names)
        rates = along(topology, way)
        assert bandwidth[i, j] == pytest.approx(1.0 / airtime(rates) if metric == "series" else min(rates))
        assert latency[i, j] == pytest.approx(sum(rtts[pair] for pair in pairwise(way)), nan_ok=True)
        if metric != "series":
            assert bottleneck(topology, names)[2] == bandwidth[i, j]


@pytest.mark.parametrize("metric", metrics())
def test_rows_are_those_of_the_matrix(metric: str) -> None:
    """Some sources, in any order, give the rows that all give, whether they are few or many."""
    topology = qmp_like(80, 4)
    topology = replace(topology, rtts_ms=np.ceil(topology.rates_mbps))
    bandwidth, latency = path_bandwidth(topology, metric), path_latency(topology, metric)
    for sources in (np.array([7, 3, 61]), np.arange(79, 30, -1), np.array([], dtype=np.int64)):
        assert np.allclose(path_bandwidth(topology, metric, sources), bandwidth[sources])
        assert np.allclose(path_latency(topology, metric, sources), latency[sources])


@pytest.mark.parametrize("metric", metrics())
@pytest.mark.parametrize("n", [0, 1, 3])
def test_a_network_without_links_has_no_paths(metric: str, n: int) -> None:
    """Without a link nobody reaches anybody, and a node reaches itself in no time."""
    topology = assemble([f"n{at}" for at in range(n)], [(None, None)] * n, {}, [NodeAttributes()] * n)
    assert np.array_equal(path_bandwidth(topology, metric), np.zeros((n, n)))
    assert np.array_equal(path_latency(topology, metric), np.where(np.eye(n), 0.0, np.inf))


def test_the_metrics_differ_where_they_should(network: Callable[..., Topology]) -> None:
    """Width, airtime, hops and a shared radio each judge a direct link and two detours in their own way."""
    topology = network("a-b 1, a-c 10, c-b 5, a-d 12, d-e 12, e-b 12")
    a, b = topology.index("a"), topology.index("b")
    found = {metric: float(path_bandwidth(topology, metric)[a, b]) for metric in metrics()}
    assert found == {"routed": 12.0, "widest": 12.0, "hops": 1.0, "airtime": 12.0, "series": pytest.approx(4.0)}


def test_widest_is_not_the_least_airtime(network: Callable[..., Topology]) -> None:
    """A direct link of 4 beats a detour over three links of 10 in airtime, and loses in width."""
    topology = network("a-b 4, a-c 10, c-d 10, d-b 10")
    a, b = topology.index("a"), topology.index("b")
    assert path_bandwidth(topology, "airtime")[a, b] == 4.0
    assert path_bandwidth(topology, "widest")[a, b] == 10.0
    assert path(topology, "a", "b", "widest") == ("a", "c", "d", "b")


@pytest.mark.parametrize(
    ("routes", "way"),
    [
        ({"ab": "c", "cb": "d", "db": "b"}, "acdb"),
        ({"ab": "c", "cb": "d"}, "ab"),
        ({"ab": "c", "cb": "a"}, "ab"),
        ({"ab": "d", "db": "b"}, "ab"),
        ({"ab": "a"}, "ab"),
    ],
)
def test_routes_lead_or_are_left(network: Callable[..., Topology], routes: dict[str, str], way: str) -> None:
    """Routes that lead to the destination are followed; with a gap, a circle or a link that is not there, airtime."""
    topology = network("a-b 4, a-c 1, c-d 1, d-b 1")
    index = topology.index
    table = np.array([[index(pair[0]), index(pair[1]), index(hop)] for pair, hop in routes.items()])
    topology = replace(topology, routes=table)
    assert path(topology, "a", "b", "routed") == tuple(way)
    assert path_bandwidth(topology)[index("a"), index("b")] == (1.0 if len(way) > 2 else 4.0)


def test_of_equally_wide_ways_airtime_decides(network: Callable[..., Topology]) -> None:
    """Of two ways with a slowest link of 5 the one with less airtime is taken, although the other begins wider."""
    topology = network("a-b 10, b-z 5, a-c 20, c-d 20, d-e 20, e-z 5")
    assert path(topology, "a", "z", "widest") == ("a", "b", "z")


def test_direction_counts(network: Callable[..., Topology]) -> None:
    """Each direction of a path has its own bandwidth, and a one-way link leads one way only."""
    topology = network("a-b 10 2, b>c 5")
    for metric in set(metrics()) - {"series"}:
        assert path_bandwidth(topology, metric).tolist() == [[0, 10, 5], [2, 0, 5], [0, 0, 0]]


def test_the_path_is_named_hop_by_hop(network: Callable[..., Topology]) -> None:
    """The path has both ends in it; a node reaches itself, and nobody goes against a one-way link."""
    topology = network("a-b 4, a-c 10, c-b 10, b>d 1")
    assert path(topology, "a", "d") == ("a", "c", "b", "d")
    assert path(topology, "a", "a") == ("a",)
    assert path(topology, "d", "a") == ()
    assert paths_from(topology, "a") == {name: path(topology, "a", name) for name in "abcd"}
    for ends in ("az", "za"):
        with pytest.raises(TopologyError, match="'z'"):
            path(topology, *ends)


def test_the_bottleneck_of_a_path_is_named(network: Callable[..., Topology]) -> None:
    """The slowest link comes with its ends and rate; what is no path is refused by name."""
    topology = network("a-b 4, b>c 2, c-d 3")
    assert bottleneck(topology, ("a", "b", "c", "d")) == ("b", "c", 2.0)
    with pytest.raises(TopologyError, match="no link c -> b"):
        bottleneck(topology, ("d", "c", "b"))
    with pytest.raises(TopologyError, match="two nodes"):
        bottleneck(topology, ("a",))


def test_paths_of_a_thousand_nodes_take_less_than_a_second() -> None:
    """Every metric has all pairs of a thousand nodes within a second of CPU: everyone reached, no rate made up."""
    topology = qmp_like(1000, 1)
    for metric in metrics():
        began = time.process_time()
        bandwidth = path_bandwidth(topology, metric)
        assert time.process_time() - began < 1.0, metric
        assert (bandwidth > 0).sum() == 1000 * 999
        assert bandwidth.max() <= topology.rates_mbps.max() * (1 + 1e-12)
        assert np.array_equal(np.diag(bandwidth), np.zeros(1000))


@pytest.mark.parametrize("ask", [path_bandwidth, path_latency, lambda t, metric: path(t, "gw-0", "gw-1", metric)])
def test_an_unknown_metric_is_named(ask: Callable[[Topology, str], object]) -> None:
    """An unknown metric raises an error that names it and the metrics there are."""
    with pytest.raises(ValueError, match=r"'fastest'.*routed, widest, hops, airtime, series"):
        ask(qmp_like(2, 0), "fastest")
