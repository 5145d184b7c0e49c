"""Measures of a graph: on networks worked by hand, and against counting everything."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from controller.placement import Topology, qmp_like
from controller.placement.network.paths import path
from controller.placement.study import graph

Network = Callable[..., Topology]


def test_degree_and_neighbourhood_connectivity(network: Network) -> None:
    """A link either way makes neighbours; a node's neighbourhood connectivity is the mean degree of its neighbours."""
    neighbours = graph.adjacency(network("a-b 1, a-c 1, a>d 1, c>d 1, e"))
    assert graph.degrees(neighbours).tolist() == [3, 1, 2, 2, 0]
    assert graph.neighbourhood_connectivity(neighbours).tolist() == [5 / 3, 3.0, 2.5, 2.5, 0.0]


def test_components_are_numbered_by_size(network: Network) -> None:
    """The largest component is number 0, whatever its nodes are called."""
    assert graph.components(graph.adjacency(network("a, b-c 1, d-e 1, e>f 1"))).tolist() == [2, 1, 1, 0, 0, 0]


@settings(max_examples=200, deadline=None)
@given(st.from_type(Topology))
def test_the_diameter_is_the_longest_shortest_way(topology: Topology) -> None:
    """It is the greatest finite number of hops between any two nodes."""
    neighbours = graph.adjacency(topology)
    hops = graph.hops_from(neighbours, np.arange(len(topology)))
    assert graph.diameter(neighbours) == hops[np.isfinite(hops)].max()


def test_the_diameter_of_larger_networks() -> None:
    """Also where the way to it is not to look at everything."""
    for seed in range(20):
        neighbours = graph.adjacency(qmp_like(120, seed, links_per_node=1.2))
        assert graph.diameter(neighbours) == graph.hops_from(neighbours, np.arange(120)).max()


@settings(max_examples=100, deadline=None)
@given(st.from_type(Topology))
def test_path_loads_count_the_links_of_all_paths(topology: Topology) -> None:
    """Following every least-airtime path by itself and counting its links gives the same."""
    counted = dict.fromkeys(map(tuple, topology.edges.tolist()), 0)
    paths = 0
    for source in topology.names:
        for destination in topology.names:
            way = [topology.index(node) for node in path(topology, source, destination)]
            paths += len(way) > 1
            for link in itertools.pairwise(way):
                counted[link] += 1
    loads, number = graph.path_loads(topology, np.arange(len(topology)))
    assert (loads.tolist(), number) == (list(counted.values()), paths)


def test_path_loads_of_some_sources(network: Network) -> None:
    """Only the paths from the sources count."""
    topology = network("a-b 1, b-c 1")
    links = {(topology.names[a], topology.names[b]): at for at, (a, b) in enumerate(topology.edges)}
    loads, paths = graph.path_loads(topology, np.array([topology.index("a")]))
    assert {link: int(loads[at]) for link, at in links.items() if loads[at]} == {("a", "b"): 2, ("b", "c"): 1}
    assert paths == 2
