"""The algorithms on networks worked by hand, and the optimum against brute force."""

from __future__ import annotations

import math
from dataclasses import replace
from itertools import combinations

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
    metrics,
    path_bandwidth,
    place,
    qmp_like,
    symmetric,
)
from controller.placement.clusters import cluster_nodes, k_means
from controller.placement.place import place_on
from controller.placement.solvers.solution import value_of
from gateway.protocol.messages import Constraints
from tests.controller.placement.networks import FREE, PLACES, TWO_PLACES, Network


def test_basp_by_hand(network: Network) -> None:
    """BASP takes the node with the largest sum of bandwidth in each cluster, and every node goes to its better head."""
    placement = place(network(TWO_PLACES, PLACES), Request(2), "basp", seed=1)
    assert {head.node: head.bandwidth_mbps for head in placement.heads} == {"b": 10.0, "e": 7.5}
    assert placement.section_members() == {"a": "b", "c": "b", "d": "e", "f": "e"}
    assert placement.mean_bandwidth_mbps == (12 + 8 + 6 + 9) / 4
    reasons = {head.node: head.reason for head in placement.heads}
    assert reasons["b"] == "largest sum of bandwidth to its 2 cluster members: 20.0 Mbit/s, then a 18.0 Mbit/s"


def test_basp_reassigns_nodes_across_clusters(network: Network) -> None:
    """A node whose cluster's head reaches it badly goes to the other head: the paper's third phase."""
    topology = network("a-b 10, b-c 1, c-e 7, d-e 6, e-f 9", PLACES)
    assert place(topology, Request(2), "basp", seed=1).section_members()["c"] == "e"


def test_k_means_takes_the_middle_and_random_is_seeded(network: Network) -> None:
    """Naive k-means takes the node nearest the centroid; random depends on its seed and on nothing else."""
    topology = network(TWO_PLACES, PLACES)
    assert {head.node for head in place(topology, Request(2), "kmeans", seed=1).heads} == {"b", "e"}
    draws = {tuple(h.node for h in place(topology, Request(2), "random", seed=seed).heads) for seed in range(40)}
    assert len(draws) > 10
    again = [place(topology, Request(2), "random", seed=4).heads for _ in range(2)]
    assert again[0] == again[1]


def test_the_next_candidate_of_basp_is_real(network: Network) -> None:
    """Without the winner the candidate stated after it wins with the stated figure."""
    line = "a-b 10 12, b-c 8, c-d 2"
    first = place(network(line), Request(1), "basp").heads[0]
    assert first.node == "b"
    second = place(network(line), Request(1, Constraints(exclude=("b",))), "basp").heads[0]
    assert f"then {second.node} 20.0 Mbit/s" in first.reason
    assert ": 20.0 Mbit/s" in second.reason


def test_nodes_without_coordinates_follow_their_best_neighbour(network: Network) -> None:
    """A node without coordinates is counted in the cluster of the node with the best path to it, either way."""
    somewhere = {name: place for name, place in PLACES.items() if name != "f"}
    placement = place(network(TWO_PLACES, somewhere), Request(2), "basp", seed=1)
    assert "2 cluster members" in {head.node: head.reason for head in placement.heads}["e"]
    one_way = Paths(network(TWO_PLACES.replace("e-f 9 7", "f>e 9"), somewhere), "widest", Constraints())
    cluster, _, _ = cluster_nodes(one_way, 2, np.random.default_rng(1))
    assert cluster[5] == cluster[4]


def test_a_node_that_reaches_nobody_is_in_no_cluster(network: Network) -> None:
    """A node without coordinates that no path joins to one with coordinates follows nobody."""
    paths = Paths(network(TWO_PLACES + ", x", PLACES), "widest", Constraints())
    cluster, _, _ = cluster_nodes(paths, 2, np.random.default_rng(1))
    assert cluster.tolist()[6] == -1 and min(cluster[:6]) == 0


def test_basp_counts_closeness_and_migration(network: Network) -> None:
    """What a candidate counts for by itself is part of its sum in the cluster."""
    topology = network(TWO_PLACES, PLACES)
    assert place(topology, Request(1), "basp").heads[0].node == "b"
    request = Request(1, current=("c",), migration_cost_mbps=100.0)
    assert place(topology, request, "basp").heads[0].node == "c"
    assert place(topology, Request(1, near=((("f",), 50.0),)), "basp").heads[0].node == "f"


def test_a_cluster_is_led_by_its_own_eligible_nodes(network: Network) -> None:
    """Where a cluster's best node is refused, another one of it leads; where all are refused, an outsider does."""
    topology = network("a-b 10 12, b-c 8, c-d 20, d-e 20 25, e-f 20", PLACES)
    without_b = Request(2, Constraints(exclude=("b",)))
    assert [head.node for head in place(topology, without_b, "basp", seed=1).heads] == ["a", "e"]
    heads = place(topology, Request(2, Constraints(exclude=("a", "b", "c"))), "basp", seed=1).heads
    assert "the 3 nodes of a cluster that has no eligible node" in heads[0].reason


def test_no_cluster_stays_empty() -> None:
    """k-means gives every centroid a node, also from first centroids that lose all of theirs on the way."""
    points = np.array([[1.0, 9.0], [5.0, 6.0], [6.0, 1.0], [7.0, 0.0], [8.0, 2.0]])
    for seed in range(20):
        assert sorted(set(k_means(points, 3, np.random.default_rng(seed))[0])) == [0, 1, 2]
    assert len(k_means(np.zeros((4, 2)), 3, np.random.default_rng(0))[1]) == 1


def test_coordinates_scale_with_latitude(network: Network) -> None:
    """A degree of longitude is shorter than one of latitude, so the nearest node is told in metres."""
    places = {"a": (60.0, 10.0), "b": (60.0, 10.15), "c": (60.1, 10.0), "d": (60.0, 9.9), "e": (59.9, 10.0)}
    reason = place(network("a-b 1, a-c 1, a-d 1, a-e 1", places), Request(1), "kmeans").heads[0].reason
    metres = float(reason.split(": ")[1].split(" m")[0])
    assert metres == pytest.approx(0.01 * 111_195 * math.cos(math.radians(60)), rel=0.02)


def test_no_coordinates_at_all(network: Network) -> None:
    """Without any coordinates heads are taken one after the other, each the best for the sum over all members."""
    heads = place(network("a-b 10 12, b-c 8, c-d 2 3, d-e 5"), Request(2), "basp").heads
    assert [head.node for head in heads] == ["b", "d"]  # a 12, c 8 and e 5 remain; with e it were 12 + 8 + 5, a tie
    assert "sum of bandwidth from all heads" in heads[1].reason
    assert heads[1].reason.endswith(": 25.0 Mbit/s, then e 25.0 Mbit/s")
    everyone = place(network("a-b 10 12, b-c 8"), Request(3), "basp").heads
    assert all(head.reason.endswith("the only eligible node there") for head in everyone)


def test_basp_needs_no_matrix() -> None:
    """On a merge tree BASP finds the sums, and so the heads and reasons, that the matrix of the same paths gives."""
    topology = qmp_like(60, 2)
    tree = Paths(topology, "widest", Constraints(direction="both"))
    matrix = Paths(symmetric(topology), "widest", Constraints(maximum_latency_ms=1e9))
    f = path_bandwidth(topology, "widest")
    matrix.bandwidth[:] = np.minimum(f, f.T)
    assert tree.tree is not None and matrix.tree is None
    one, other = (place_on(paths, Request(4), "basp", seed=3) for paths in (tree, matrix))
    assert [(head.node, head.reason) for head in one.heads] == [(head.node, head.reason) for head in other.heads]


def test_hanet_tests_the_hardware_and_basp_does_not(network: Network) -> None:
    """HANET refuses a head that is busy, short of memory, often away or silent about it, each with its figure."""
    nodes = {
        "a": replace(FREE, free_cpu_percent=10.0),
        "b": replace(FREE, free_memory_bytes=1 << 20),
        "c": replace(FREE, availability=0.5),
        "d": replace(FREE, free_cpu_percent=None),
        "e": replace(FREE, availability=None),
        "f": FREE,
    }
    topology = network(TWO_PLACES, PLACES, **nodes)
    placement = place(topology, Request(1), "hanet")
    assert [head.node for head in placement.heads] == ["f"]
    assert placement.refused == {
        "a": "has 10 % of its CPU free, 25 % are asked for",
        "b": "has 1 MiB of memory free, 64 MiB are asked for",
        "c": "was heard 50 % of the time, 90 % are asked for",
        "d": "has an unknown share of its CPU free, 25 % are asked for",
        "e": "was heard an unknown share of the time, 90 % are asked for",
    }
    assert not place(topology, Request(1), "basp").refused
    modest = Constraints(minimum_free_cpu_percent=5.0, minimum_free_memory_bytes=1 << 20, minimum_availability=0.4)
    assert sorted(place(topology, Request(1, modest), "hanet").refused) == ["d", "e"]


def test_hanet_tests_nothing_that_no_node_tells(network: Network) -> None:
    """On a map without hardware HANET is BASP and says so; what the service asks for itself is tested all the same."""
    topology = network(TWO_PLACES, PLACES)
    placement = place(topology, Request(1), "hanet")
    assert [head.node for head in placement.heads] == [head.node for head in place(topology, Request(1), "basp").heads]
    assert placement.method.endswith("no node tells its free CPU or free memory or availability")
    with pytest.raises(PlacementError, match="unknown share of the time"):
        place(topology, Request(1, Constraints(minimum_availability=0.5)), "hanet")


def test_hanet_finds_heads_in_a_generated_network() -> None:
    """Most nodes of a generated network pass the hardware tests, some do not."""
    placement = place(qmp_like(54, 7), Request(3), "hanet")
    assert len(placement.heads) == 3
    assert 3 <= len(placement.refused) <= 27


def test_hanet_does_not_count_the_service_against_itself(network: Network) -> None:
    """A head must have free what the service takes; what it takes there already is no reason to move it away."""
    short = replace(FREE, free_memory_bytes=100 << 20)
    assert list(place(network("a-b 10", a=short, b=FREE), Request(1, memory_bytes=1 << 27), "hanet").refused) == ["a"]
    busy = replace(FREE, cpus=1, free_cpu_percent=20.0, free_memory_bytes=60 << 20)
    topology = network("a-b 10", a=busy, b=FREE)
    request = Request(1, cpu=0.5, memory_bytes=32 << 20)
    assert list(place(topology, request, "hanet").refused) == ["a"]
    assert not place(topology, replace(request, current=("a",)), "hanet").refused


def test_the_default_is_the_optimum() -> None:
    """The first algorithm of the registry, which place() takes, is the optimal one."""
    assert algorithms() == ("optimal", "greedy", "basp", "hanet", "kmeans", "random")
    topology = qmp_like(20, 1)
    assert place(topology, Request(2)).heads == place(topology, Request(2), "optimal").heads


@settings(max_examples=200, deadline=None)
@given(st.from_type(Topology), st.data())
def test_the_optimum_is_that_of_brute_force(topology: Topology, data: st.DataObject) -> None:
    """On any network, by any metric, target, cap and current placement, no other heads have a larger objective."""
    n = len(topology)
    wanted = Constraints(
        minimum_bandwidth_mbps=data.draw(st.sampled_from([0.0, 5.0])),
        maximum_members=data.draw(st.sampled_from([0, 0, 1, 2])),
        direction=data.draw(st.sampled_from(["down", "both"])),
    )
    k = data.draw(st.integers(1, n))
    current = tuple(data.draw(st.lists(st.sampled_from(topology.names), max_size=2)))
    near = ((data.draw(st.lists(st.sampled_from(topology.names), max_size=2)), 2.0),)
    request = Request(k, wanted, current=current, migration_cost_mbps=3.0, near=tuple((tuple(h), w) for h, w in near))
    metric = data.draw(st.sampled_from(metrics()))
    found = place(topology, request, metric=metric, partial=True)
    assert found.proven or not found.k
    sets = combinations([name for name in topology.names if name not in found.refused], found.k)
    others = [
        place(topology, replace(request, k=found.k, refusals=_all_but(topology, heads)), "random", metric=metric)
        for heads in sets
        if found.k
    ]
    assert found.objective_mbps == pytest.approx(max((other.objective_mbps for other in others), default=0.0))


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 500), st.integers(1, 6), st.sampled_from(metrics()), st.booleans())
def test_greedy_is_near_and_says_how_near(seed: int, k: int, metric: str, both: bool) -> None:
    """Greedy's heads have the value that is stated, its bound holds, and its gap is small."""
    topology = qmp_like(25, seed)
    request = Request(k, Constraints(direction="both" if both else "down"))
    greedy, optimum = (place(topology, request, name, metric=metric) for name in ("greedy", "optimal"))
    f = path_bandwidth(topology, metric)
    heads = np.array([topology.index(head.node) for head in greedy.heads])
    value = value_of(np.minimum(f, f.T) if both else f, heads, np.zeros(len(f)))
    assert greedy.objective_mbps * (25 - k) == pytest.approx(value)
    assert greedy.bound_mbps is not None and greedy.gap is not None
    assert 0.95 * optimum.objective_mbps <= greedy.objective_mbps <= optimum.objective_mbps + 1e-9
    assert optimum.objective_mbps <= greedy.bound_mbps + 1e-6
    assert ("mean bandwidth found" in greedy.heads[0].reason) == (not greedy.proven)
    assert greedy.objective_mbps >= (1 - greedy.gap) * optimum.objective_mbps - 1e-6


def test_basp_beats_random_and_the_optimum_basp() -> None:
    """Over generated networks BASP's mean bandwidth is a third above random's, and the optimum's 5 % above that."""
    figures = {"optimal": 0.0, "basp": 0.0, "random": 0.0}
    for seed in range(12):
        paths = Paths(qmp_like(54, seed), "routed", Constraints())
        for k in (1, 2, 3, 5):
            for name in ("optimal", "basp"):
                figures[name] += place_on(paths, Request(k), name, seed=seed).mean_bandwidth_mbps
            draws = [place_on(paths, Request(k), "random", seed=run).mean_bandwidth_mbps for run in range(5)]
            figures["random"] += sum(draws) / len(draws)
    assert figures["basp"] > 1.33 * figures["random"]
    assert figures["optimal"] > 1.05 * figures["basp"]


def test_the_time_limit_ends_the_search() -> None:
    """A search that may take no time at all still answers, with a bound that holds."""
    topology = qmp_like(60, 4)
    hasty, optimum = place(topology, Request(6), time_limit_s=0.0), place(topology, Request(6))
    assert hasty.bound_mbps is not None and optimum.proven
    assert hasty.objective_mbps <= optimum.objective_mbps <= hasty.bound_mbps + 1e-6


def _all_but(topology: Topology, heads: tuple[str, ...]) -> dict[str, str]:
    return dict.fromkeys(set(topology.names) - {*heads}, "not of this set")
