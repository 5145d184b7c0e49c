"""The topology's own checks, and topologies from reports, NetJSON and the generator."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
from scipy.sparse.csgraph import connected_components

from controller.placement import (
    NodeAttributes,
    Topology,
    TopologyError,
    from_netjson,
    from_reports,
    qmp_like,
    to_netjson,
)
from gateway.protocol.messages import Bandwidth, Hardware, InterfaceReport, LinkReport, NodeReport


def graph(links: list[dict[str, object]], names: str = "ab") -> dict[str, object]:
    return {"type": "NetworkGraph", "nodes": [{"id": name} for name in names], "links": links}


def link(source: str, target: str, mbps: object) -> dict[str, object]:
    return {"source": source, "target": target, "properties": {"bandwidth_mbps": mbps}}


def rates(topology: Topology) -> dict[tuple[str, str], float]:
    pairs = zip(topology.edges.tolist(), topology.rates_mbps.tolist(), strict=True)
    return {(topology.names[i], topology.names[j]): rate for (i, j), rate in pairs}


def report(node: str, *links: LinkReport, **more: object) -> NodeReport:
    return NodeReport(node=node, boot_id="1", sequence=1, links=links, **more)  # type: ignore[arg-type]


def test_the_receivers_measurement_comes_before_the_senders() -> None:
    """The rate of a direction is what its receiver measured, and the sender's figure only where there is none."""
    topology = from_reports(
        [
            report("a", LinkReport("b", rx=Bandwidth(5.0, "goodput"), tx=Bandwidth(40.0, "goodput"))),
            report(
                "b", LinkReport("a", rx=Bandwidth(30.0, "probe"), tx=None), LinkReport("c", tx=Bandwidth(7.0, "probe"))
            ),
            report("c", LinkReport("b")),
        ]
    )
    assert rates(topology) == {("a", "b"): 30.0, ("b", "a"): 5.0, ("b", "c"): 7.0}


@pytest.mark.parametrize(
    ("figure", "mbps"),
    [
        (Bandwidth(90.0, "probe", 0.0, 0.3), 90.0),
        (Bandwidth(90.0, "probe", 0.0, 0.15), 45.0),
        (Bandwidth(90.0, "peer", 0.0, 0.15), 45.0),
        (Bandwidth(90.0, "probe", 0.0, 0.001), 9.0),
        (Bandwidth(90.0, "probe", 600.0, 0.15), 90.0),
        (Bandwidth(90.0, "probe", 7200.0, 0.0), 90.0),
        (Bandwidth(90.0, "goodput", 0.0, 0.1), 90.0),
    ],
)
def test_a_doubtful_probe_counts_in_proportion(figure: Bandwidth, mbps: float) -> None:
    """Below a confidence of 0.3 a probe counts for less, at least for a tenth; age alone takes nothing away."""
    topology = from_reports([report("a", LinkReport("b", rx=figure)), report("b")])
    assert rates(topology) == {("b", "a"): pytest.approx(mbps)}


def test_a_guess_by_link_class_never_hides_a_measurement() -> None:
    """A receiver's guess by link class gives way to the sender's measurement, and counts where nobody measured."""
    measured = report("a", LinkReport("b", tx=Bandwidth(12.0, "goodput")))
    guessed = report("b", LinkReport("a", rx=Bandwidth(100.0, "class")))
    assert rates(from_reports([measured, guessed])) == {("a", "b"): 12.0}
    assert rates(from_reports([report("a"), guessed])) == {("a", "b"): 100.0}


def test_speeds_and_current_traffic_are_no_bandwidth() -> None:
    """A link without a measured figure is no edge, whatever its interface's speed and its traffic of the moment."""
    idle = report("a", LinkReport("b", rate_rx_mbps=9.0), interfaces=(InterfaceReport("eth0", speed_mbps=1000.0),))
    assert rates(from_reports([idle, report("b", LinkReport("a", rate_tx_mbps=9.0))])) == {}


def test_a_link_that_one_end_calls_down_is_none() -> None:
    """An end that knows the link only as down takes it away in both directions; a second link that is up keeps it."""
    up, down = LinkReport("b", rx=Bandwidth(5.0, "probe")), LinkReport("a", state="down", rx=Bandwidth(6.0, "probe"))
    assert rates(from_reports([report("a", up), report("b", down)])) == {}
    spare = LinkReport("a", rx=Bandwidth(2.0, "probe"))
    assert rates(from_reports([report("a", up), report("b", down, spare)])) == {("a", "b"): 2.0, ("b", "a"): 5.0}


@pytest.mark.parametrize("mbps", [math.nan, -3.0, 0.0, math.inf, 1e9])
def test_a_figure_that_cannot_be_true_is_left_out_and_named(mbps: float) -> None:
    """A NaN, negative, zero, infinite or absurd rate in a report is no edge, and the notes name the link."""
    topology = from_reports([report("a", LinkReport("b", rx=Bandwidth(mbps, "goodput"))), report("b")])
    assert rates(topology) == {}
    assert "a - b" in topology.notes[0]


def test_a_neighbour_without_a_report_is_named_in_the_notes() -> None:
    """A link to a node that sends no report is left out, and the notes say so."""
    topology = from_reports([report("a", LinkReport("ghost", rx=Bandwidth(5.0, "goodput")))])
    assert topology.names == ("a",)
    assert "ghost" in topology.notes[0]


def test_a_report_brings_what_eligibility_needs() -> None:
    """Coordinates, zone, labels, hardware, addresses and runtimes of a report reach the topology."""
    hardware = Hardware(cpus=4, memory_bytes=1 << 30)
    said = report(
        "a",
        zone="sants",
        latitude=41.0,
        longitude=2.0,
        labels=("roof",),
        addresses=("10.0.0.1",),
        hardware=hardware,
        runtimes=("oci",),
    )
    topology = from_reports([said, report("b", latitude=41.0)])
    assert topology.nodes[0] == NodeAttributes("sants", ("roof",), 4, 1 << 30, ("10.0.0.1",), ("oci",))
    assert topology.coordinates[0].tolist() == [41.0, 2.0]
    assert np.isnan(topology.coordinates[1]).all()


def test_netjson_is_read_directed_and_the_fastest_parallel_link_stays() -> None:
    """Each NetJSON link counts in its own direction, and of two parallel ones the faster."""
    topology = from_netjson(graph([link("a", "b", 3), link("a", "b", 8.5), link("b", "a", 1)]))
    assert rates(topology) == {("a", "b"): 8.5, ("b", "a"): 1.0}


@pytest.mark.parametrize(
    ("document", "named"),
    [
        ([], "NetworkGraph"),
        ({"type": "NetworkRoutes"}, "NetworkRoutes"),
        ({"type": "NetworkGraph", "nodes": {}, "links": []}, "'nodes'"),
        ({"type": "NetworkGraph", "nodes": [{}], "links": []}, "number 1"),
        (graph([], "aa"), "'a'"),
        (graph([link("a", "z", 1)]), "'z'"),
        (graph([link("a", "b", -1)]), "-1"),
        (graph([link("a", "b", math.nan)]), "nan"),
        (graph([link("a", "b", "fast")]), "'fast'"),
        (graph([link("a", "b", True)]), "True"),
        (graph([{"source": "a", "target": "b"}]), "bandwidth_mbps"),
        (graph([{"source": "a", "target": "b", "properties": 7}]), "a -> b"),
    ],
)
def test_bad_netjson_is_refused_by_name(document: object, named: str) -> None:
    """A NetJSON document that cannot be used raises an error that names the part."""
    with pytest.raises(TopologyError, match=r".") as refused:
        from_netjson(document)
    assert named in str(refused.value)


def test_netjson_round_trip() -> None:
    """A generated topology survives NetJSON text with its names, places, rates and hardware."""
    before = qmp_like(12, 3)
    after = from_netjson(json.loads(json.dumps(to_netjson(before))))
    assert after.names == before.names
    assert np.array_equal(after.coordinates, before.coordinates)
    assert rates(after) == rates(before)
    assert after.nodes == before.nodes


@pytest.mark.parametrize(
    ("edges", "given", "named"),
    [
        ([(0, 1)], [math.nan], "a -> b has a rate of nan"),
        ([(0, 1)], [-2.0], "-2.0"),
        ([(0, 0)], [1.0], "a -> a"),
        ([(0, 5)], [1.0], "5"),
        ([(0, 1), (0, 1)], [1.0, 2.0], "two links"),
        ([(0, 1)], [1.0, 2.0], "shape"),
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


@pytest.mark.parametrize("seed", range(10))
def test_generated_networks_are_like_the_papers(seed: int) -> None:
    """54 generated nodes have the paper's share of one-way links and its hubs, and all reach each other."""
    topology = qmp_like(54, seed)
    links = topology.matrix() > 0
    either = links | links.T
    one_way = (either & ~(links & links.T)).sum() / either.sum()
    assert connected_components(links, connection="strong")[0] == 1
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
    assert connected_components(qmp_like(n, 0).matrix() > 0, connection="strong")[0] == 1


def test_links_per_node_can_be_chosen() -> None:
    """A sparser network has the links asked for, and never fewer than keep it connected."""
    assert len(qmp_like(20, 1, one_way=0.0, links_per_node=1.5).edges) == 60
    assert len(qmp_like(20, 1, one_way=0.0, links_per_node=0.0).edges) == 38


@pytest.mark.parametrize(("n", "seed", "one_way"), [(0, 0, 0.5), (3, -1, 0.5), (3, 0, 1.5), (3, 0, math.nan)])
def test_the_generator_names_what_it_does_not_accept(n: int, seed: int, one_way: float) -> None:
    """No nodes, a negative seed and a share that is none are refused."""
    with pytest.raises(TopologyError, match="accepted are"):
        qmp_like(n, seed, one_way)
