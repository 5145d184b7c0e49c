"""What makes a link's rate where nobody measured one."""

from __future__ import annotations

import math

import pytest

from controller.placement.network.link_rates import LINK_CLASSES, LinkRates

THERE, BACK = (0, 1), (1, 0)


def read(*links: tuple[tuple[int, int], dict[str, object], object], metric: str = "") -> LinkRates:
    rates = LinkRates(metric)
    for pair, properties, cost in links:
        rates.add(pair, f"link {pair[0]} -> {pair[1]}", properties, cost)
    return rates


@pytest.mark.parametrize(
    ("properties", "mbps"),
    [
        ({"transmit_quality": 1}, 30.0),
        ({"transmit_quality": 0.5}, 15.0),
        ({"transmit_quality": 51}, 6.0),
        ({"tx_rate": 40}, 12.0),
        ({"bandwidth_mbps": 3.5, "transmit_quality": 1, "link_class": "fiber"}, 3.5),
        ({"transmit_quality": 0.5, "link_class": "fiber"}, 15.0),
    ],
)
def test_the_first_figure_makes_the_rate_of_one_direction(properties: dict[str, object], mbps: float) -> None:
    """A measured rate comes before a quality and that before a class; a quality is a share of a perfect link."""
    assert read((THERE, properties, None)).rates_mbps == {THERE: pytest.approx(mbps)}


def test_a_class_counts_both_ways_and_the_fastest_of_parallel_links_stays() -> None:
    """A class says nothing of direction, whichever end it is told of, and in whatever case it is written."""
    slow, fast = (THERE, {"link_class": "VPN"}, None), (BACK, {"link_class": "60GHz"}, None)
    expected = {THERE: LINK_CLASSES["60ghz"], BACK: LINK_CLASSES["60ghz"]}
    assert read(slow, fast).rates_mbps == read(fast, slow).rates_mbps == expected


def test_an_etx_counts_for_the_way_back_that_has_none() -> None:
    """An ETX covers a packet and its answer: the other direction has the same rate unless it has a cost itself."""
    assert read((THERE, {}, 2.0), metric="etx").rates_mbps == {THERE: 15.0, BACK: 15.0}
    assert read((THERE, {}, 2.0), (BACK, {}, 3.0), metric="ETX").rates_mbps == {THERE: 15.0, BACK: 10.0}
    assert read((THERE, {}, 0.1), metric="ETX").rates_mbps == {THERE: 30.0, BACK: 30.0}


def test_a_cost_of_batman_is_one_of_its_direction() -> None:
    """255 / TQ is a cost of one direction; of a metric that is not known a cost says nothing."""
    assert read((THERE, {}, 2.0), metric="TQ").rates_mbps == {THERE: 15.0}
    unknown = read((THERE, {}, 2.0), metric="hops")
    assert (unknown.rates_mbps, len(unknown.problems)) == ({}, 1)


@pytest.mark.parametrize(
    ("properties", "cost"),
    [
        ({"transmit_quality": 0}, None),
        ({"transmit_quality": 256}, None),
        ({"tx_rate": 0}, None),
        ({"tx_rate": 101}, None),
        ({"link_class": "carrier pigeon"}, None),
        ({"link_class": 5}, None),
        ({}, 0),
        ({}, 4096.0),
        ({}, math.inf),
        ({}, "2"),
    ],
)
def test_what_makes_no_rate_leaves_its_link_out(properties: dict[str, object], cost: object) -> None:
    """A link over which nothing arrives, of an unknown class or with an impossible cost is named and left out."""
    rates = read((THERE, properties, cost), metric="ETX")
    assert rates.rates_mbps == {}
    (value,) = properties.values() or (cost,)
    assert rates.problems[0].startswith("link 0 -> 1: left out") and repr(value) in rates.problems[0]


def test_the_notes_count_what_was_not_measured() -> None:
    """How many rates are derived, and from what, stands in the notes; a measured rate needs none."""
    measured, derived = (THERE, {"bandwidth_mbps": 3}, None), (BACK, {"tx_rate": 50}, None)
    assert read(measured).notes == []
    assert read(measured, derived).notes == ["links with a rate derived from tx_rate: 1"]
    assert read(measured, (BACK, {}, None)).notes[0].startswith("links left out, without bandwidth_mbps")
