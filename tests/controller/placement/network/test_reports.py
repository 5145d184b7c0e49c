"""Topologies from what nodes report."""

from __future__ import annotations

import math

import numpy as np
import pytest

from controller.placement import NodeAttributes, Topology
from controller.placement.network.reports import from_reports
from gateway.protocol.messages import Bandwidth, Hardware, InterfaceReport, LinkReport, Load, NodeReport, RouteReport


def rates(topology: Topology) -> dict[tuple[str, str], float]:
    pairs = zip(topology.edges.tolist(), topology.rates_mbps.tolist(), strict=True)
    return {(topology.names[i], topology.names[j]): rate for (i, j), rate in pairs}


def rtts(topology: Topology) -> dict[tuple[str, str], float]:
    pairs = zip(topology.edges.tolist(), topology.rtts_ms.tolist(), strict=True)
    return {(topology.names[i], topology.names[j]): rtt for (i, j), rtt in pairs}


def report(node: str, *links: LinkReport, **more: object) -> NodeReport:
    return NodeReport(node=node, boot_id="1", sequence=1, links=links, **more)  # type: ignore[arg-type]


def up(node: str, rx: float, rtt_ms: float | None = None, **more: object) -> LinkReport:
    return LinkReport(node, rx=Bandwidth(rx, "goodput"), rtt_ms=rtt_ms, **more)  # type: ignore[arg-type]


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


def test_hardware_that_is_free_reaches_the_topology() -> None:
    """Free CPU is what the load leaves, free memory as reported, availability as told; what is absurd is unknown."""
    said = report("a", load=Load(cpu_percent=30.0, memory_available_bytes=5 << 20))
    topology = from_reports([said, report("b", load=Load(cpu_percent=300.0))], availability={"a": 0.9, "z": 0.1})
    known = topology.nodes[0]
    assert (known.free_cpu_percent, known.free_memory_bytes, known.availability) == (70.0, 5 << 20, 0.9)
    unknown = topology.nodes[1]
    assert (unknown.free_cpu_percent, unknown.free_memory_bytes, unknown.availability) == (None, None, None)


@pytest.mark.parametrize(("past", "counts"), [(4.0, 4.0), (50.0, 10.0), (math.nan, 10.0), (0.0, 10.0), (-1.0, 10.0)])
def test_the_smaller_of_past_and_present_counts(past: float, counts: float) -> None:
    """A low quantile of the past lowers a rate, never raises it, and makes no link; what is no rate does nothing."""
    topology = from_reports([report("a", up("b", 10.0)), report("b")], rates={("b", "a"): past, ("a", "b"): 3.0})
    assert rates(topology) == {("b", "a"): counts}


def test_round_trips_are_the_senders_else_the_receivers() -> None:
    """A link has the shortest round trip its sender measured, else its receiver's; what is absurd is unknown."""
    a = report("a", up("b", 1.0, 8.0), up("b", 1.0, 5.0), up("b", 1.0, 1.0, state="down"), up("c", 1.0, -3.0))
    topology = from_reports([a, report("b", up("a", 1.0, 7.0)), report("c", up("a", 1.0, math.inf))])
    assert rtts(topology) == {
        ("a", "b"): 5.0,
        ("b", "a"): 7.0,
        ("a", "c"): pytest.approx(math.nan, nan_ok=True),
        ("c", "a"): pytest.approx(math.nan, nan_ok=True),
    }
    one_sided = from_reports([report("a", up("b", 1.0, 5.0)), report("b")])
    assert rtts(one_sided) == {("b", "a"): 5.0}


def test_routes_are_kept_between_nodes_that_report() -> None:
    """A route is kept when its destination and next hop report too and are other nodes than the one that has it."""
    said = [("c", "b"), ("b", "b"), ("ghost", "b"), ("d", "ghost"), ("a", "b")]
    a = report("a", routes=tuple(RouteReport(node, hop) for node, hop in said))
    b = report("b", routes=(RouteReport("a", "b"),))
    topology = from_reports([a, b, report("c"), report("d")])
    assert topology.routes.tolist() == [[0, 1, 1], [0, 2, 1]]


def test_the_newest_report_of_a_node_counts() -> None:
    """Of two reports of a node the later in order counts, and no report at all is a network without nodes."""
    topology = from_reports([report("a", up("b", 5.0)), report("b"), report("a", up("b", 7.0))])
    assert rates(topology) == {("b", "a"): 7.0}
    assert len(from_reports([])) == 0


def test_a_link_of_a_node_to_itself_is_none() -> None:
    """What a node says of a link to itself makes no link."""
    assert rates(from_reports([report("a", up("a", 5.0))])) == {}
