"""Generated networks: the paper's statistics, the same for the same seed, small and large."""

from __future__ import annotations

import hashlib
import math
import time

import numpy as np
import pytest
from scipy.sparse import csr_array
from scipy.sparse.csgraph import connected_components, shortest_path

from controller.placement import Topology, TopologyError, qmp_like, to_netjson
from controller.placement.network.generator import NEAR_ALL


def is_connected(topology: Topology) -> bool:
    links = csr_array((topology.rates_mbps, topology.edges.T), shape=(len(topology),) * 2)
    return bool(connected_components(links, connection="strong")[0] == 1)


@pytest.mark.parametrize("seed", range(10))
def test_generated_networks_are_like_the_papers(seed: int) -> None:
    """54 generated nodes have the paper's share of one-way links and its hubs, and all reach each other."""
    topology = qmp_like(54, seed)
    links = topology.matrix() > 0
    either = links | links.T
    one_way = (either & ~(links & links.T)).sum() / either.sum()
    assert is_connected(topology)
    assert 0.50 <= one_way <= 0.60
    assert 10 <= either.sum(axis=1).max() <= 30
    assert 14 <= topology.rates_mbps.mean() <= 30


def test_generated_rates_follow_the_papers_distribution() -> None:
    """Over many links the rates have the exponential's mean and median, and 30 % of links deviate by over 30 %."""
    every = np.concatenate([qmp_like(200, seed).rates_mbps for seed in range(10)])
    assert every.mean() == pytest.approx(21.8, rel=0.05)
    assert np.median(every) == pytest.approx(21.8 * math.log(2), rel=0.1)
    rates_mbps = qmp_like(500, 1, one_way=0.0).matrix()
    there, back = rates_mbps[np.triu_indices(500, 1)], rates_mbps.T[np.triu_indices(500, 1)]
    both = (there > 0) & (back > 0)
    assert both.sum() == (rates_mbps > 0).sum() / 2
    deviation = np.abs(there - back)[both] / np.maximum(there, back)[both]
    assert (deviation > 0.3).mean() == pytest.approx(0.3, abs=0.05)


def test_the_generator_is_seeded() -> None:
    """The same arguments give the same network, and another seed another one."""
    assert to_netjson(qmp_like(20, 5)) == to_netjson(qmp_like(20, 5))
    assert to_netjson(qmp_like(20, 5)) != to_netjson(qmp_like(20, 6))


@pytest.mark.parametrize("n", [1, 2, 3, 4])
def test_small_networks_are_generated(n: int) -> None:
    """One to four nodes are a connected network too."""
    assert is_connected(qmp_like(n, 0))


def test_links_per_node_can_be_chosen() -> None:
    """A sparser network has the links asked for, and never fewer than keep it connected."""
    assert len(qmp_like(20, 1, one_way=0.0, links_per_node=1.5).edges) == 60
    assert len(qmp_like(20, 1, one_way=0.0, links_per_node=0.0).edges) == 38


@pytest.mark.parametrize(("n", "seed", "one_way"), [(0, 0, 0.5), (3, -1, 0.5), (3, 0, 1.5), (3, 0, math.nan)])
def test_the_generator_names_what_it_does_not_accept(n: int, seed: int, one_way: float) -> None:
    """No nodes, a negative seed and a share that is none are refused."""
    with pytest.raises(TopologyError, match="accepted are"):
        qmp_like(n, seed, one_way)
    with pytest.raises(TopologyError, match="links a node"):
        qmp_like(3, 1, links_per_node=math.nan)


def test_fifty_networks_have_the_papers_degree_and_diameter() -> None:
    """Over 50 seeds of 54 nodes the mean of the largest degree is near 20, and the median diameter is 6 hops."""
    degrees, diameters = [], []
    for seed in range(50):
        links = qmp_like(54, seed).matrix() > 0
        either = links | links.T
        degrees.append(either.sum(axis=1).max())
        diameters.append(shortest_path(either.astype(float), unweighted=True).max())
    assert 17 <= np.mean(degrees) <= 22
    assert np.median(diameters) == 6


@pytest.mark.parametrize(
    ("n", "seed", "digest"), [(54, 1, "25126c61"), (NEAR_ALL, 1, "63c8edac"), (NEAR_ALL + 1, 1, "9263b087")]
)
def test_a_seed_stands_for_a_network_for_good(n: int, seed: int, digest: str) -> None:
    """The links and rates that documents and comparisons name by a seed stay what they are."""
    topology = qmp_like(n, seed)
    found = hashlib.sha256(topology.edges.astype("<i8").tobytes() + topology.rates_mbps.astype("<f8").tobytes())
    assert found.hexdigest()[:8] == digest


def test_a_network_of_thirty_thousand_nodes() -> None:
    """The largest networks come within seconds, connected, with the same rates, hubs and near neighbours."""
    began = time.process_time()
    topology = qmp_like(30_000, 2)
    assert time.process_time() - began < 10
    assert is_connected(topology)
    either = np.unique(np.sort(topology.edges, axis=1), axis=0)
    assert len(either) == 84_000
    assert 2 - len(topology.edges) / len(either) == pytest.approx(0.56, abs=0.001)
    assert topology.rates_mbps.mean() == pytest.approx(21.8, rel=0.02)
    assert 20 <= np.bincount(either.ravel()).max() <= 120
    away = np.linalg.norm(topology.coordinates[either[:, 0]] - topology.coordinates[either[:, 1]], axis=1)
    assert np.median(away) < 0.05 * topology.coordinates.std()
