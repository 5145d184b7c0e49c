import math
from dataclasses import replace

import pytest
from hypothesis import given, strategies

from controller.monitoring import hour as module
from controller.monitoring.hour import HOUR_S, Hour, Quantiles, quantile
from gateway.protocol.messages import Bandwidth, LinkReport, Load, NodeReport

START = 500_000 * HOUR_S
NODES = {"a": 0.0, "b": 0.0, "c": 0.0}


def hour(enrolled: dict[str, float] = NODES) -> Hour:
    return Hour(START, enrolled, 30.0, lambda figure: figure.mbps)


def report(links: dict[str, Bandwidth], node: str = "b", **facts: object) -> NodeReport:
    rows = tuple(LinkReport(other, rx=figure) for other, figure in links.items())
    return replace(NodeReport(node, "boot", 1, links=rows), **facts)  # type: ignore[arg-type]


def reports(rates: list[float], every_s: float = 30.0) -> list[tuple[float, NodeReport]]:
    return [(START + at * every_s, report({"a": Bandwidth(mbps, "probe")})) for at, mbps in enumerate(rates)]


def test_link_has_the_quantiles_of_its_measurements() -> None:
    """Of 101 measurements from 0.1 to 10.1 the 11th, the 51st and the 91st."""
    made = hour()
    made.add("b", reports([(100 - at) / 10 + 0.1 for at in range(101)]))
    (figure,) = made.links().values()
    assert list(made.links()) == [("a", "b")]
    assert figure.samples == 101
    assert (figure.low, figure.median, figure.high) == pytest.approx((1.1, 5.1, 9.1))


def test_measurement_counts_once_however_often_it_is_reported() -> None:
    """Ten reports of one probe that grows older are one sample; the same figure measured again is another."""
    made = hour()
    repeated = [(at, report({"a": Bandwidth(7.0, "probe", age_s=at)}, uptime_s=5000.0 + at)) for at in range(10)]
    again = (10, report({"a": Bandwidth(7.0, "probe", age_s=2.0)}, uptime_s=5010.0))
    made.add("b", [(START + 100 + at, told) for at, told in [*repeated, again]])
    assert made.links()["a", "b"] == Quantiles(2, 7.0, 7.0, 7.0)


def test_only_measurements_of_this_hour_between_enrolled_nodes_count() -> None:
    """Guesses, links that are down, strangers, figures that are no rates, and what was measured before are left out."""
    made = hour()
    rows = (
        LinkReport("a", rx=Bandwidth(5.0, "class")),
        LinkReport("c", rx=Bandwidth(5.0, "probe"), state="down"),
        LinkReport("stranger", rx=Bandwidth(5.0, "probe")),
        LinkReport("b", rx=Bandwidth(5.0, "probe")),
        LinkReport("a", rx=Bandwidth(math.nan, "probe")),
        LinkReport("a", rx=Bandwidth(-1.0, "probe")),
        LinkReport("a", rx=Bandwidth(5.0, "goodput", age_s=61.0)),
    )
    made.add("b", [(START + 60, replace(report({}), links=rows))])
    assert made.links() == {}


def test_receiver_is_believed_before_the_sender() -> None:
    """What the sender measured fills in only where the receiver has nothing to say."""
    made = hour()
    sent = (LinkReport("b", tx=Bandwidth(9.0, "peer")), LinkReport("c", tx=Bandwidth(4.0, "peer")))
    made.add("a", [(START, replace(report({}, "a"), links=sent))])
    made.add("b", reports([5.0]))
    assert {pair: figure.median for pair, figure in made.links().items()} == {("a", "b"): 5.0, ("a", "c"): 4.0}


def test_of_parallel_links_the_fastest_counts() -> None:
    """Two links to one neighbour are one direction."""
    made = hour()
    rows = tuple(LinkReport("a", interface=f"w{at}", rx=Bandwidth(mbps, "probe")) for at, mbps in enumerate((2.0, 6.0)))
    made.add("b", [(START, replace(report({}), links=rows))])
    assert made.links()["a", "b"] == Quantiles(1, 6.0, 6.0, 6.0)


def test_links_of_a_node_are_capped(monkeypatch: pytest.MonkeyPatch) -> None:
    """Those measured most often stay."""
    monkeypatch.setattr(module, "LINKS_PER_NODE", 1)
    made = hour()
    made.add("b", [*reports([5.0, 6.0]), (START + 90, report({"c": Bandwidth(50.0, "probe")}))])
    assert set(made.links()) == {("a", "b")}


def test_presence_is_of_the_time_that_anybody_was_heard() -> None:
    """A node heard for one of two watched half hours was there for half; where nobody was heard, nothing is known."""
    made = hour({"a": 0.0, "b": 0.0, "never": 0.0, "late": START + 1200})
    half = [(START + at * 30.0, report({})) for at in range(60)]
    quarter = [(moment, told) for moment, told in half if moment < START + 900 - 90 + 30]
    made.add("a", half)
    made.add("b", quarter)
    made.add("late", [(moment, told) for moment, told in half if moment >= START + 1200])
    found = made.nodes()
    watched = 1800 - 30 + 90
    assert found["a"].presence == 1.0 and found["a"].reports == 60
    assert found["b"].presence == pytest.approx(900 / watched, abs=0.02)
    assert found["never"].presence == 0.0 and found["late"].presence == 1.0
    assert hour().nodes() == {}


def test_report_before_the_hour_tells_who_was_heard_when_it_began() -> None:
    """A report counts until the next is overdue, not as a sample."""
    made = hour()
    made.add("b", [(START - 45, report({"a": Bandwidth(5.0, "probe")})), (START + 45, report({}))])
    assert made.nodes()["b"].presence == 1.0 and made.nodes()["a"].presence == 0.0
    assert made.nodes()["b"].reports == 1 and made.links() == {}


def test_node_has_quantiles_of_what_it_has_to_spare() -> None:
    """Free CPU is what is not busy; a node that says nothing, or nonsense, has none."""
    made = hour()
    loads = [Load(cpu_percent=10.0 * at, memory_available_bytes=at << 20) for at in range(11)]
    made.add("b", [(START + at, report({}, load=load)) for at, load in enumerate(loads)])
    made.add("a", [(START, report({}, "a", load=Load(cpu_percent=900.0)))])
    assert made.nodes()["b"].free_cpu_percent == Quantiles(11, 10.0, 50.0, 90.0)
    memory = made.nodes()["b"].free_memory_bytes
    assert memory is not None and memory.median == 5 << 20
    assert made.nodes()["a"].free_cpu_percent is None


@given(strategies.lists(strategies.floats(0, 1e6), min_size=1), strategies.floats(0, 1))
def test_quantile_lies_where_its_share_says(samples: list[float], share: float) -> None:
    """At least that share of the samples is at most the quantile's upper neighbour, and it lies among the samples."""
    found = quantile(samples, share)
    assert min(samples) <= found <= max(samples)
    assert sum(value >= found or math.isclose(value, found) for value in samples) >= (1 - share) * (len(samples) - 1)
    assert sum(value <= found or math.isclose(value, found) for value in samples) >= share * (len(samples) - 1)
