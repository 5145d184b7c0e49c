"""Placements: the algorithms on networks worked by hand, their constraints, reasons and errors."""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from controller.placement import (
    NodeAttributes,
    PlacementError,
    Request,
    Topology,
    algorithms,
    command,
    metrics,
    path_bandwidth,
    place,
    qmp_like,
    to_netjson,
)
from controller.placement.clusters import k_means
from gateway.protocol.messages import BlobRef, Constraints, ServiceSpec

Network = Callable[..., Topology]

#  a --10/12-- b --8-- c ---2--- d --6-- e --9/7-- f    two places 11 km apart, each rate there/back
TWO_PLACES = "a-b 10 12, b-c 8, c-d 2, d-e 6, e-f 9 7"
PLACES = {name: (41.0, 2.0 + at * 1e-4) for at, name in enumerate("abc")} | {
    name: (41.1, 2.0 + at * 1e-4) for at, name in enumerate("def")
}


def test_basp_by_hand(network: Network) -> None:
    """BASP takes the node with the largest sum of bandwidth in each cluster, and every node goes to its better head."""
    placement = place(network(TWO_PLACES, PLACES), Request(2), "basp", seed=1)
    assert {head.node: head.bandwidth_mbps for head in placement.heads} == {"b": 10.0, "e": 7.5}
    assert placement.section_members() == {"a": "b", "c": "b", "d": "e", "f": "e"}
    assert placement.mean_bandwidth_mbps == (12 + 8 + 6 + 9) / 4
    reasons = {head.node: head.reason for head in placement.heads}
    assert reasons["b"] == "largest sum of bandwidth to its 2 cluster members: 20.0 Mbit/s, runner-up a 18.0 Mbit/s"


def test_basp_reassigns_nodes_across_clusters(network: Network) -> None:
    """A node whose cluster's head reaches it badly goes to the other head: the paper's third phase."""
    topology = network("a-b 10, b-c 1, c-e 7, d-e 6, e-f 9", PLACES)
    assert place(topology, Request(2), seed=1).section_members()["c"] == "e"


def test_of_equal_heads_the_nearer_one_serves(network: Network) -> None:
    """A node whose own slow link limits it from either head goes to the head that is nearer in airtime."""
    topology = network("a-b 20, b-c 20, c-d 20, d-e 20, a-x 5, e-y 5")
    request = Request(2, Constraints(exclude=("b", "c", "d", "x", "y")))
    assert place(topology, request).section_members() == {"b": "a", "c": "a", "d": "e", "x": "a", "y": "e"}


def test_bandwidth_counts_from_the_head(network: Network) -> None:
    """A node that sends fast is a better head than one that receives fast."""
    placement = place(network("a-b 10 1, a-c 10 1, b-c 2"), Request(1))
    assert placement.heads[0].node == "a"
    assert placement.heads[0].bandwidth_mbps == 10.0


def test_k_means_takes_the_middle_and_random_is_seeded(network: Network) -> None:
    """Naive k-means takes the node nearest the centroid; random depends on its seed and on nothing else."""
    topology = network(TWO_PLACES, PLACES)
    assert {head.node for head in place(topology, Request(2), "kmeans", seed=1).heads} == {"b", "e"}
    draws = {tuple(h.node for h in place(topology, Request(2), "random", seed=seed).heads) for seed in range(40)}
    assert len(draws) > 10
    again = [place(topology, Request(2), "random", seed=4).heads for _ in range(2)]
    assert again[0] == again[1]


def test_the_runner_up_in_a_reason_is_real(network: Network) -> None:
    """Without the winner the stated runner-up wins with the stated figure; a faster link makes it win as well."""
    line = "a-b 10 12, b-c 8, c-d 2"
    first = place(network(line), Request(1)).heads[0]
    assert first.node == "b"
    second = place(network(line), Request(1, Constraints(exclude=("b",)))).heads[0]
    assert f"runner-up {second.node} 20.0 Mbit/s" in first.reason
    assert ": 20.0 Mbit/s" in second.reason


def test_nodes_without_coordinates_follow_their_best_neighbour(network: Network) -> None:
    """A node without coordinates is counted in the cluster of the node with the best path to it."""
    somewhere = {name: place for name, place in PLACES.items() if name != "f"}
    reasons = {head.node: head.reason for head in place(network(TWO_PLACES, somewhere), Request(2), seed=1).heads}
    assert "2 cluster members" in reasons["e"]


def test_a_cluster_is_led_by_its_own_eligible_nodes(network: Network) -> None:
    """Where a cluster's best node is refused, another one of it leads; where all are refused, an outsider does."""
    topology = network("a-b 10 12, b-c 8, c-d 20, d-e 20 25, e-f 20", PLACES)
    assert [h.node for h in place(topology, Request(2, Constraints(exclude=("b",))), seed=1).heads] == ["a", "e"]
    heads = place(topology, Request(2, Constraints(exclude=("a", "b", "c"))), seed=1).heads
    assert "the 3 nodes of a cluster that has no eligible node" in heads[0].reason


def test_no_cluster_stays_empty() -> None:
    """k-means gives every centroid a node, also from first centroids that lose all of theirs on the way."""
    points = np.array([[1.0, 9.0], [5.0, 6.0], [6.0, 1.0], [7.0, 0.0], [8.0, 2.0]])
    for seed in range(20):
        assert sorted(set(k_means(points, 3, np.random.default_rng(seed))[0])) == [0, 1, 2]
    assert len(k_means(np.zeros((4, 2)), 3, np.random.default_rng(0))[1]) == 1


def test_no_coordinates_at_all(network: Network) -> None:
    """Without any coordinates heads are taken one after the other, each the best for the sum over all members."""
    heads = place(network("a-b 10 12, b-c 8, c-d 2 3, d-e 5"), Request(2), "basp").heads
    assert [head.node for head in heads] == ["b", "d"]  # a 12, c 8 and e 5 remain; with e it were 12 + 8 + 5, a tie
    assert "sum of bandwidth from all heads" in heads[1].reason
    assert heads[1].reason.endswith(": 25.0 Mbit/s, runner-up e 25.0 Mbit/s")


CASES = [
    (Constraints(exclude=("b",)), {}, "any", "excluded by name"),
    (Constraints(zone="north"), {}, "any", "is in no zone, 'north' is asked for"),
    (Constraints(zone="north"), {"zone": "northern"}, "any", "is in zone 'northern', not in 'north'"),
    (Constraints(labels=("roof", "ups")), {"labels": ("roof",)}, "any", "lacks the label ups"),
    (Constraints(minimum_cpus=2), {"cpus": 1}, "any", "has 1 CPUs, 2 are asked for"),
    (Constraints(minimum_cpus=2), {}, "any", "has an unknown number of CPUs, 2 are asked for"),
    (Constraints(minimum_memory_bytes=2 << 20), {"memory_bytes": 1 << 20}, "any", "has 1 MiB of memory, 2 MiB"),
    (Constraints(), {"runtimes": ()}, "any", "runs no services"),
    (Constraints(), {"runtimes": ("docker",)}, "oci", "has no oci runtime, only docker"),
]


@pytest.mark.parametrize(("constraints", "attributes", "runtime", "reason"), CASES)
def test_every_constraint_refuses_with_its_reason(
    network: Network, constraints: Constraints, attributes: dict[str, object], runtime: str, reason: str
) -> None:
    """A node that a constraint refuses is no head, and the reason names the constraint and both figures."""
    fit = NodeAttributes("north/1", ("roof", "ups"), 2, 2 << 20, (), ("oci",))
    bad = NodeAttributes(**attributes)  # type: ignore[arg-type]
    placement = place(network("a-b 10, b-c 10", a=fit, b=bad, c=fit), Request(1, constraints, runtime))
    assert reason in placement.refused["b"]
    assert placement.heads[0].node != "b"
    assert "b" in placement.members
    assert list(placement.refused) == ["b"]


def test_the_reduced_sandbox_runs_oci_images(network: Network) -> None:
    """A node whose only runtime is bubblewrap may run what asks for `oci`, and not what asks for `docker`."""
    small = NodeAttributes(runtimes=("bubblewrap",))
    assert place(network("a", a=small), Request(1, runtime="oci")).refused == {}
    with pytest.raises(PlacementError, match="no docker runtime"):
        place(network("a", a=small), Request(1, runtime="docker"))


def test_minimum_bandwidth_refuses_by_the_mean_to_all_others(network: Network) -> None:
    """A node that reaches the others below the minimum is refused with its figure."""
    placement = place(network("a-b 10, b-c 2"), Request(1, Constraints(minimum_bandwidth_mbps=6.0)))
    assert placement.refused == {"c": "reaches the other nodes at 2.0 Mbit/s on average, 6.0 are asked for"}


def test_what_the_caller_refuses_is_refused(network: Network) -> None:
    """A node that the caller rules out, such as one whose owner refused, is no head and no stand-by."""
    placement = place(network("a-b 10, b-c 10"), Request(1, refusals={"b": "its owner refused"}))
    assert placement.refused == {"b": "its owner refused"}
    assert "b" not in {placement.heads[0].node, *placement.standbys}


def test_too_few_eligible_nodes(network: Network) -> None:
    """Too few eligible nodes are an error that says why each is refused, or a smaller placement when asked for."""
    request = Request(2, Constraints(exclude=("a", "b")))
    topology = network("a-b 10, b-c 10")
    with pytest.raises(PlacementError, match=r"k is 2, but 1 of 3 .* a excluded by name; b excluded by name"):
        place(topology, request)
    assert [head.node for head in place(topology, request, partial=True).heads] == ["c"]
    nobody = place(topology, Request(1, Constraints(exclude=("a", "b", "c"))), partial=True)
    assert (nobody.heads, nobody.members, nobody.unreached) == ((), {}, ("a", "b", "c"))


@pytest.mark.parametrize(
    ("arguments", "options", "named"),
    [
        ((Request(0),), {}, "k is 0; a topology of 3 nodes takes 1 to 3 heads"),
        ((Request(4),), {}, "k is 4"),
        ((Request(1), "optimum"), {}, "'optimum'; accepted: basp, kmeans, random"),
        ((Request(1),), {"metric": "luck"}, "'luck'; accepted: airtime, widest"),
        ((Request(1),), {"seed": -1}, "seed is -1"),
    ],
)
def test_bad_input_is_named(arguments: tuple[object, ...], options: dict[str, object], named: str) -> None:
    """k out of range, an unknown algorithm or metric and a bad seed name the value and what is accepted."""
    with pytest.raises(PlacementError) as refused:
        place(qmp_like(3, 0), *arguments, **options)  # type: ignore[arg-type]
    assert named in str(refused.value)


def test_an_empty_topology_is_named(network: Network) -> None:
    """A network without a node is an error, not a crash."""
    empty = Topology((), np.zeros((0, 2)), np.zeros((0, 2), dtype=np.int64), np.zeros(0), ())
    with pytest.raises(PlacementError, match="no node"):
        place(empty, Request(1))


@settings(max_examples=150, deadline=None)
@given(st.from_type(Topology), st.data())
def test_any_network_is_placed(topology: Topology, data: st.DataObject) -> None:
    """On any network every algorithm gives k different heads, each node its best head, and accounts for all nodes."""
    algorithm, metric = data.draw(st.sampled_from(algorithms())), data.draw(st.sampled_from(metrics()))
    k = data.draw(st.integers(1, len(topology)))
    placement = place(topology, Request(k), algorithm, metric=metric, seed=data.draw(st.integers(0, 9)))
    heads = [head.node for head in placement.heads]
    assert len(set(heads)) == len(heads) == k
    assert sorted([*heads, *placement.members, *placement.unreached]) == sorted(topology.names)
    bandwidth = path_bandwidth(topology, metric)
    rows = bandwidth[[topology.index(head) for head in heads]]
    for node, member in placement.members.items():
        at = topology.index(node)
        assert member.bandwidth_mbps == rows[:, at].max() == bandwidth[topology.index(member.head), at]
    assert all(rows[:, topology.index(node)].max() == 0 for node in placement.unreached)
    total = sum(member.bandwidth_mbps for member in placement.members.values())
    assert placement.mean_bandwidth_mbps == pytest.approx(total / max(1, len(topology) - k))
    for head in placement.heads:
        own = [member.bandwidth_mbps for member in placement.members.values() if member.head == head.node]
        assert head.bandwidth_mbps == pytest.approx(sum(own) / len(own) if own else 0.0)


def test_basp_beats_random_as_in_the_paper() -> None:
    """Over generated networks BASP's mean bandwidth is at least a third above the random baseline's."""
    figures = {"basp": 0.0, "random": 0.0}
    for seed in range(12):
        topology = qmp_like(54, seed)
        for k in (1, 2, 3, 5):
            figures["basp"] += place(topology, Request(k), "basp", seed=seed).mean_bandwidth_mbps
            draws = [place(topology, Request(k), "random", seed=run).mean_bandwidth_mbps for run in range(5)]
            figures["random"] += sum(draws) / len(draws)
    assert figures["basp"] > 1.33 * figures["random"]


def test_stand_bys_are_eligible_and_ordered(network: Network) -> None:
    """Stand-bys are the best connected eligible nodes that are no head, as many as asked for."""
    topology = network("a-b 10, b-c 8, c-d 2, b-e 9")
    placement = place(topology, Request(1, Constraints(exclude=("a",)), standbys=2))
    assert [placement.heads[0].node, *placement.standbys] == ["b", "e", "c"]
    assert place(topology, Request(1, standbys=0)).standbys == ()


def test_a_request_is_made_from_a_specification() -> None:
    """A provider's specification gives k, constraints and runtime."""
    blob = BlobRef(bytes(32), 1, bytes(32))
    wanted = Constraints(zone="sants")
    specification = ServiceSpec("web", 1, "p", blob, (), runtime="oci", replicas=3, constraints=wanted)
    assert Request.for_service(specification, {"a": "lost"}) == Request(3, wanted, "oci", {"a": "lost"})


def run_command(*arguments: str) -> int:
    parser = argparse.ArgumentParser()
    command.add_arguments(parser)
    return command.run(parser.parse_args(arguments))


def test_the_command_prints_json(capsys: pytest.CaptureFixture[str]) -> None:
    """`place --json` prints the documented keys with the figures of place()."""
    assert run_command("--topology", "qmp:20:3", "--k", "2", "--json") == 0
    printed = json.loads(capsys.readouterr().out)
    placement = place(qmp_like(20, 3), Request(2))
    assert printed["members"] == placement.section_members()
    assert [head["node"] for head in printed["heads"]] == [head.node for head in placement.heads]
    assert set(printed["heads"][0]) == {"node", "reason", "bandwidth_mbps"}
    assert {"algorithm", "metric", "k", "mean_bandwidth_mbps", "seconds"} <= set(printed)
    assert printed["mean_bandwidth_mbps"] == pytest.approx(placement.mean_bandwidth_mbps, abs=1e-3)


def test_the_command_reads_a_file_and_explains(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """`place` on a NetJSON file prints every head with its reason and its members."""
    file = tmp_path / "net.json"
    file.write_text(json.dumps(to_netjson(qmp_like(9, 1))))
    assert run_command("--topology", str(file), "--k", "2", "--metric", "widest") == 0
    printed = capsys.readouterr().out
    for head in place(qmp_like(9, 1), Request(2), metric="widest").heads:
        assert f"{head.node}  {head.reason}" in printed


@pytest.mark.parametrize(
    ("source", "options", "named"),
    [
        ("qmp:x:1", (), "'qmp:54:7'"),
        ("qmp:0:1", (), "0 nodes"),
        ("missing.json", (), "No such file"),
        ("broken.json", (), "line 2"),
        ("binary.json", (), "UTF-8"),
        ("qmp:5:1", ("--k", "9"), "k is 9"),
        ("qmp:5:1", ("--algorithm", "magic"), "'magic'"),
    ],
)
def test_the_command_names_bad_input(
    source: str, options: tuple[str, ...], named: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A topology that is none and arguments out of range end with status 2 and a message that names them."""
    (tmp_path / "broken.json").write_text('{"type":\n oops}')
    (tmp_path / "binary.json").write_bytes(b"\xff\xfe")
    path = source if source.startswith("qmp:") else str(tmp_path / source)
    assert run_command("--topology", path, *options) == 2
    assert named in capsys.readouterr().err


def test_coordinates_scale_with_latitude(network: Network) -> None:
    """A degree of longitude is shorter than one of latitude, so the nearest node is told in metres."""
    places = {"a": (60.0, 10.0), "b": (60.0, 10.15), "c": (60.1, 10.0), "d": (60.0, 9.9), "e": (59.9, 10.0)}
    reason = place(network("a-b 1, a-c 1, a-d 1, a-e 1", places), Request(1), "kmeans").heads[0].reason
    metres = float(reason.split(": ")[1].split(" m")[0])
    assert metres == pytest.approx(0.01 * 111_195 * math.cos(math.radians(60)), rel=0.02)
