"""What a network is like: the figures of the paper's section 2 on networks worked by hand and on generated ones."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from controller.placement import NodeAttributes, Topology, qmp_like
from controller.placement.study.characterise import Past, characterise, ecdf, summary
from controller.placement.study.command_characterise import busiest_table
from controller.placement.study.command_support import console

Network = Callable[..., Topology]


def test_asymmetry_by_hand(network: Network) -> None:
    """One-way links are a share of the neighbours, deviating ones of the two-way links: 1 - slower / faster."""
    found = characterise(network("a-b 10 6, b-c 8 8, c>d 5, d>a 1, a>c 2"))
    assert found.pairs == 5
    assert found.one_way_share == pytest.approx(3 / 5)
    assert found.deviations == pytest.approx([0.0, 0.4])
    assert found.deviating_share == 0.5
    assert sorted(map(sorted, found.two_way_mbps.tolist())) == [[6.0, 10.0], [8.0, 8.0]]


def test_graph_figures_by_hand(network: Network) -> None:
    """Degrees, components and diameter count neighbours either way."""
    found = characterise(network("a-b 10, b-c 8, c>d 5, e-f 3, g"))
    assert found.degrees.tolist() == [0, 1, 1, 1, 1, 2, 2]
    assert (found.component_sizes, found.diameter) == ((4, 2, 1), 3)
    assert found.reachable_share == (3 * 2 + 3 + 2) / (7 * 6)


def test_the_busiest_link_is_the_one_most_paths_lead_over(network: Network) -> None:
    """Of two halves joined by one link, that one is first, with its share of all pairs' paths; traffic goes before."""
    topology = network("a-c 50, b-c 50, c-d 5, d-e 50, d-f 50")
    busiest = characterise(topology).busiest
    assert {(link.source, link.destination) for link in busiest[:2]} == {("c", "d"), ("d", "c")}
    assert busiest[0].share_of_paths == pytest.approx(9 / 30)
    measured = characterise(topology, Past(traffic_mbps={("a", "c"): 0.07})).busiest[0]
    assert (measured.source, measured.destination, measured.traffic_mbps) == ("a", "c", 0.07)


def test_the_past_replaces_the_moment(network: Network) -> None:
    """A link with a history counts with its median, and shows how much lower it is at its worst."""
    past = Past(
        presence={"a": 1.0, "b": 0.4}, link_presence={("a", "b"): 0.9}, low_mbps={("a", "b"): 3.0},
        median_mbps={("a", "b"): 6.0},
    )  # fmt: skip
    found = characterise(network("a-b 10, b-c 8"), past)
    assert found.rates_mbps.tolist() == [6.0, 8.0, 8.0, 10.0]
    assert found.steadiness.tolist() == [0.5]
    assert (found.presence.tolist(), found.link_presence.tolist()) == ([0.4, 1.0], [0.9])


def test_presence_without_a_history_is_what_the_nodes_say(network: Network) -> None:
    """Where nothing is known of the past, the availability of the nodes that state one is their presence."""
    found = characterise(network("a-b 10, b-c 8", a=NodeAttributes(availability=0.7)))
    assert found.presence.tolist() == [0.7]


def test_generated_networks_are_like_the_papers() -> None:
    """Over generated networks of the paper's size the figures are about those that it printed."""
    found = [characterise(qmp_like(54, seed)) for seed in range(12)]
    assert np.mean([each.rates_mbps.mean() for each in found]) == pytest.approx(21.8, rel=0.1)
    assert np.mean([each.one_way_share for each in found]) == pytest.approx(0.56, abs=0.03)
    assert np.mean([each.deviating_share for each in found]) == pytest.approx(0.30, abs=0.06)
    assert np.mean([each.exponential_distance for each in found]) < 0.08


def test_an_exponential_sample_is_near_an_exponential_distribution(network: Network) -> None:
    """The distance is small for one and large for links that are all alike."""
    assert characterise(network("a-b 10, b-c 10, c-d 10")).exponential_distance == pytest.approx(
        1 - np.exp(-1), abs=0.01
    )


def test_ecdf_and_summary() -> None:
    """A step a value, up to one; an empty sample has a count only."""
    values, share = ecdf(np.array([3.0, 1.0, 2.0, 2.0]))
    assert (values.tolist(), share.tolist()) == ([1, 2, 2, 3], [0.25, 0.5, 0.75, 1.0])
    assert summary(np.arange(11.0))["q25"] == 2.5
    assert summary(np.zeros(0)) == {"count": 0}


@settings(max_examples=100, deadline=None)
@given(st.from_type(Topology))
def test_any_network_has_figures(topology: Topology) -> None:
    """One-way links, lone nodes, no link at all: every figure is a number that JSON can carry."""
    found = characterise(topology).to_json()
    json.dumps(found, allow_nan=False)
    assert sum(found["components"]) == found["nodes"] == len(topology)
    assert found["links"] == len(topology.edges)
    assert 0 <= found["one_way_share"] <= 1


def test_a_large_network_is_characterised_by_some_of_its_paths(monkeypatch: pytest.MonkeyPatch) -> None:
    """Beyond ALL_SOURCES the shares of paths are estimates from SOME_SOURCES nodes, near those of all."""
    topology = qmp_like(300, 5)
    whole = {(link.source, link.destination): link.share_of_paths for link in characterise(topology).busiest}
    monkeypatch.setattr("controller.placement.study.characterise.ALL_SOURCES", 100)
    monkeypatch.setattr("controller.placement.study.characterise.SOME_SOURCES", 150)
    busiest = characterise(topology).busiest[0]
    assert busiest.share_of_paths == pytest.approx(whole[busiest.source, busiest.destination], rel=0.2)


def test_a_nodes_name_is_no_markup(network: Network, capsys: pytest.CaptureFixture[str]) -> None:
    """Names are printed as they are, whatever brackets and colons they have."""
    names = ("[/a]", "[bold]c", ":cat:")
    console().print(busiest_table(characterise(replace(network("a-b 10, b-c 8"), names=names))))
    printed = capsys.readouterr().out
    assert all(name in printed for name in names)
