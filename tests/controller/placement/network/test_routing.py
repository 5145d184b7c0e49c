"""Topologies from what routing daemons print."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controller.placement import Topology, TopologyError
from controller.placement.network.routing import PARSERS, from_routing_daemon, recognise, recognise_text

OLSR_TEXT = """\
Table: Topology
Dest. IP\tLast hop IP\tLQ\tNLQ\tCost
10.0.0.2\t10.0.0.1\t0.500\t0.500\t4.000
10.0.0.1\t10.0.0.2\t0.500\t0.400\t5.000
10.0.0.3\t10.0.0.2\t1.000\t1.000\t1.000
10.0.0.4\t10.0.0.2\t0.000\t0.000\tINFINITE

Table: MID
IP address\tAliases
10.0.0.2\t172.16.0.2;192.168.0.2
"""
OLSR = {
    "topology": [
        {
            "lastHopIP": "10.0.0.1",
            "destinationIP": "10.0.0.2",
            "linkQuality": 0.5,
            "neighborLinkQuality": 0.5,
            "tcEdgeCost": 4096,
        }
    ],
    "mid": [{"main": {"ipAddress": "10.0.0.1"}, "aliases": [{"ipAddress": "172.16.0.1"}]}],
}
BATMAN_TEXT = """\
Table: Topology
MAC 1 MAC 2 TQ TQ Cost
02:00:00:00:00:01 02:00:00:00:00:02 1.000 1.000 1.000
02:00:00:00:00:02 02:00:00:00:00:01 1.000 1.000 2.000
"""
BATMAN = {
    "source_version": "2023.1",
    "vis": [
        {
            "primary": "02:00:00:00:00:01",
            "secondary": ["02:00:00:00:01:01"],
            "neighbors": [{"router": "02:00:00:00:00:01", "neighbor": "02:00:00:00:01:02", "metric": "1.500"}],
        },
        {"primary": "02:00:00:00:00:02", "secondary": ["02:00:00:00:01:02"], "neighbors": []},
    ],
}
BMX6 = [
    {"name": "roof", "links": [{"name": "cellar", "rxRate": 91, "txRate": 50}]},
    {"name": "cellar", "links": [{"name": "roof", "rxRate": 50, "txRate": 0}]},
]


def rates(topology: Topology) -> dict[tuple[str, str], float]:
    """The rates by the last letters of the two names."""
    pairs = zip(topology.edges.tolist(), topology.rates_mbps.tolist(), strict=True)
    return {(topology.names[i][-1], topology.names[j][-1]): round(rate, 6) for (i, j), rate in pairs}


def test_olsr_costs_become_rates_by_direction() -> None:
    """txtinfo: 30 Mbit/s over ETX each way, the same back where the other end has no cost; INFINITE is no link."""
    topology = from_routing_daemon("olsr", OLSR_TEXT)
    assert rates(topology) == {("1", "2"): 7.5, ("2", "1"): 6.0, ("2", "3"): 30.0, ("3", "2"): 30.0}
    assert topology.nodes[topology.index("10.0.0.2")].addresses == ("172.16.0.2", "192.168.0.2")
    assert topology.notes == ("links with a rate derived from ETX: 3",)


def test_olsr_json_has_its_cost_in_1024ths() -> None:
    """jsoninfo: a tcEdgeCost of 4096 is an ETX of 4."""
    assert rates(from_routing_daemon("olsr", json.dumps(OLSR))) == {("1", "2"): 7.5, ("2", "1"): 7.5}


def test_batman_costs_are_of_one_direction() -> None:
    """txtinfo and alfred-vis: 30 Mbit/s over 255 / TQ, between primary addresses."""
    assert rates(from_routing_daemon("batman", BATMAN_TEXT)) == {("1", "2"): 30.0, ("2", "1"): 15.0}
    topology = from_routing_daemon("batman", json.dumps(BATMAN))
    assert rates(topology) == {("1", "2"): 20.0}
    assert topology.nodes[0].addresses == ("02:00:00:00:01:01",)


def test_bmx6_says_what_share_arrives() -> None:
    """b6m: 30 Mbit/s times the txRate in per cent; a direction in which nothing arrives has no link."""
    topology = from_routing_daemon("bmx6", json.dumps(BMX6))
    assert rates(topology) == {("f", "r"): 15.0}
    assert any("cellar -> roof: left out" in note for note in topology.notes)


@pytest.mark.parametrize("daemon", PARSERS)
def test_lines_may_end_as_they_like(daemon: str) -> None:
    """Line ends of another system and a missing last one change nothing."""
    text = {"olsr": OLSR_TEXT, "batman": BATMAN_TEXT, "bmx6": json.dumps(BMX6)}[daemon]
    assert rates(from_routing_daemon(daemon, text.strip().replace("\n", "\r\n"))) == rates(
        from_routing_daemon(daemon, text)
    )


@pytest.mark.parametrize("daemon", PARSERS)
def test_what_is_no_output_is_told_in_words(daemon: str) -> None:
    """The message says what is accepted and nothing of the parser's own errors; names have no control characters."""
    with pytest.raises(TopologyError, match=rf"^this is no output of {daemon}; what .* is accepted$"):
        from_routing_daemon(daemon, '{"vis": 5}')
    with pytest.raises(TopologyError, match=r"its id is 'roof\\x1b', printable"):
        from_routing_daemon(
            "bmx6", json.dumps([{"name": "roof\x1b", "links": [{"name": "b", "rxRate": 1, "txRate": 1}]}])
        )


def test_output_is_recognised() -> None:
    """Each daemon's output is told from the others', and other JSON and text is none of them."""
    assert [recognise(document) for document in (OLSR, BATMAN, BMX6, {"type": "NetworkGraph"}, 5)] == [
        *("olsr", "batman", "bmx6", "", "")
    ]
    assert [recognise_text(text) for text in (OLSR_TEXT, BATMAN_TEXT, "hello")] == ["olsr", "batman", ""]


names = st.sampled_from(["a", "b", None, 5])
links = st.fixed_dictionaries({"name": names, "txRate": st.sampled_from([50, None, "x"]), "rxRate": st.just(1)})
outputs = (
    st.text(max_size=20)
    | st.lists(st.sampled_from([*OLSR_TEXT.splitlines(), *BATMAN_TEXT.splitlines(), "", "1\t2"])).map("\n".join)
    | st.lists(st.fixed_dictionaries({"name": names, "links": st.lists(links)}) | st.just({})).map(json.dumps)
    | st.sampled_from(["{}", "[]", "5", '{"vis": [{}]}', '{"topology": [], "mid": []}', "[" * 100_000, "NaN"])
)


@given(st.sampled_from(list(PARSERS)), outputs)
def test_any_output_is_a_topology_or_refused(daemon: str, text: str) -> None:
    """Whatever a file has, there is a topology or a TopologyError that says more than nothing."""
    try:
        assert len(from_routing_daemon(daemon, text)) >= 0
    except TopologyError as refused:
        assert str(refused)
