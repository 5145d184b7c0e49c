"""The live network out of the database, and `characterise` on it."""

from __future__ import annotations

import json
import time
from dataclasses import replace

import pytest

from controller.cli import main
from controller.history import History
from controller.observed import observed
from gateway.protocol import codec
from gateway.protocol.messages import Bandwidth, LinkReport
from tests.controller.fakes import Home, report

HOUR, EVERY_S = 3600.0, 300.0


def hear(home: Home, node: str, moment: float, **links: float) -> None:
    """A report that arrives at a moment, of a node that reports every five minutes and sends 0.07 Mbit/s to `a`."""
    rows = tuple(
        LinkReport(other, rx=Bandwidth(mbps, "goodput"), rate_rx_mbps=0.5, rate_tx_mbps=0.07)
        for other, mbps in links.items()
    )
    told = replace(report(node, sequence=int(moment), interval_s=EVERY_S), links=rows)
    home.store.save_report(node, "b1", told.sequence, codec.encode(told), moment)


def live(home: Home, start: float, rates: list[float]) -> float:
    """Hours of a and b, the link a -> b at another rate in each; b is silent in the last hour. Gives the end."""
    for name in ("a", "b"):
        home.store.add_node(name, b"c", start)
    for hour, mbps in enumerate(rates):
        for moment in range(0, 3600, int(EVERY_S)):
            hear(home, "a", start + hour * HOUR + moment)
            if hour < len(rates) - 1:
                hear(home, "b", start + hour * HOUR + moment, a=mbps)
    end = start + len(rates) * HOUR
    for _ in History(home.store).keep(end, EVERY_S):
        pass
    return end


def test_the_past_of_a_link_and_of_nodes(home: Home) -> None:
    """A link's median and low quantile are over its hours, its presence and the nodes' over all hours."""
    end = live(home, 500_000 * HOUR, [4.0, 8.0, 8.0, 0.0])
    _, past = observed(home.store, EVERY_S, end)
    assert past.median_mbps == {("a", "b"): 8.0}
    assert past.low_mbps == {("a", "b"): pytest.approx(4.8)}
    assert past.link_presence == {("a", "b"): 1.0}
    assert past.presence["a"] > 0.99
    assert past.presence["b"] == pytest.approx(0.77, abs=0.05)


def test_a_link_is_present_for_a_share_of_all_hours(home: Home) -> None:
    """The hours count from the first to the last in which any link was measured."""
    start = 500_000 * HOUR
    for name in ("a", "b", "c"):
        home.store.add_node(name, b"c", start)
    for hour in range(4):
        hear(home, "b", start + hour * HOUR, a=5.0)
    hear(home, "c", start + 2 * HOUR, a=5.0)
    for _ in History(home.store).keep(start + 4 * HOUR, EVERY_S):
        pass
    _, past = observed(home.store, EVERY_S, start + 4 * HOUR)
    assert past.link_presence == {("a", "b"): 1.0, ("a", "c"): 0.25}


def test_of_two_counts_the_senders_is_the_traffic(home: Home) -> None:
    """Both ends count what goes over a link; the sender's figure goes before the receiver's."""
    for name, other in (("a", "b"), ("b", "a")):
        home.store.add_node(name, b"c", 0.0)
        hear(home, name, 1000.0, **{other: 5.0})
    assert observed(home.store, EVERY_S, 1000.0)[1].traffic_mbps == {("a", "b"): 0.07, ("b", "a"): 0.07}


def test_lost_nodes_are_not_in_the_topology(home: Home) -> None:
    """A node that is silent is in the presence, and no more in the network; traffic is what is reported now."""
    start = 500_000 * HOUR
    end = live(home, start, [4.0, 8.0])
    assert observed(home.store, EVERY_S, start + HOUR)[0].names == ("a", "b")
    topology, past = observed(home.store, EVERY_S, end)
    assert topology.names == ("a",)
    assert past.traffic_mbps == {}
    hear(home, "b", end, a=9.0)
    topology, past = observed(home.store, EVERY_S, end)
    assert topology.names == ("a", "b")
    assert past.traffic_mbps == {("b", "a"): 0.07, ("a", "b"): 0.5}


def test_an_empty_database_is_an_empty_network(home: Home) -> None:
    """Before the first report there is nothing to see, and that is no error."""
    topology, past = observed(home.store, EVERY_S, 0.0)
    assert (len(topology), dict(past.presence)) == (0, {})


def test_characterise_works_on_the_live_network(home: Home, capsys: pytest.CaptureFixture[str]) -> None:
    """Without a topology the command reads the controller's database: the link counts with its median."""
    start = (time.time() // HOUR - 3) * HOUR
    live(home, start, [4.0, 8.0, 9.0])
    hear(home, "a", time.time())
    hear(home, "b", time.time(), a=50.0)
    assert main(["characterise", "--config", str(home.settings.path), "--json"]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert (printed["nodes"], printed["links"]) == (2, 1)
    assert printed["throughput_mbps"]["maximum"] == 6.0
    assert printed["busiest"][0]["traffic_mbps"] == 0.5
    assert printed["presence"]["count"] == 2
    assert main(["characterise", "--config", str(home.settings.path)]) == 0
    assert "nodes present for 90 % of the time" in capsys.readouterr().out
