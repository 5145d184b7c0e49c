"""Emulated topologies on paper: routes, neighbours over plain routers, and the forms in which they are given."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.emulation import topology
from tests.emulation.topology import Link, Topology

#        10              20
#   a ───────── b ─────────── c          a - d - c is two links of 40, so faster than by b
#   │                         │
#   └────────── d ────────────┘
#        40              40
RING = Topology(
    ("a", "b", "c", "d"),
    (Link("a", "b", 10, 10), Link("b", "c", 20, 20), Link("a", "d", 40, 40), Link("d", "c", 40, 40)),
)


def test_routes_take_the_least_airtime() -> None:
    """a reaches c by d and d reaches b by c, because the other way round has a slow link."""
    hops = topology.next_hops(RING)
    assert topology.path(hops, "a", "c") == ["a", "d", "c"]
    assert topology.path(hops, "d", "b") == ["d", "c", "b"]


def test_direction_of_a_slow_link_counts() -> None:
    """What is slow from a to b only is avoided by a, not by b."""
    links = (Link("a", "b", 1, 100), Link("a", "c", 50, 50), Link("c", "b", 50, 50))
    hops = topology.next_hops(Topology(("a", "b", "c"), links))
    assert topology.path(hops, "a", "b") == ["a", "c", "b"]
    assert topology.path(hops, "b", "a") == ["b", "a"]


def test_links_that_are_down_are_not_used() -> None:
    """Without a - d everything goes by b, and with a cut off there is no way."""
    ad, ab = RING.link("d", "a"), RING.link("a", "b")
    assert topology.path(topology.next_hops(RING, [ad]), "a", "c") == ["a", "b", "c"]
    assert topology.path(topology.next_hops(RING, [ad, ab]), "a", "c") == []


def test_overlay_neighbors_across_routers() -> None:
    """Gateways are neighbours when only plain routers lie between them on the kernel's route."""
    line = topology.tree([("g1", "r1", 10), ("r1", "r2", 10), ("r2", "g2", 10), ("g2", "r3", 10), ("r3", "g3", 10)])
    line = Topology(line.nodes, line.links, ("g1", "g2", "g3"))
    assert topology.overlay_neighbors(line) == {"g1": ("g2",), "g2": ("g1", "g3"), "g3": ("g2",)}
    assert topology.delivery_parents(line, "g1") == {"g2": "g1", "g3": "g2"}


def test_qmp_network_is_seeded_and_connected() -> None:
    """The same seed gives the same network; every node has a way to the first."""
    one, other = topology.read("qmp:12:3"), topology.read("qmp:12:3")
    assert one == other != topology.read("qmp:12:4")
    hops = topology.next_hops(one)
    assert all(topology.path(hops, node, one.nodes[0]) for node in one.nodes)


def test_fewer_gateways_than_nodes() -> None:
    """N gateways are spread over the nodes, the first among them; the rest are routers."""
    found = topology.read("qmp:12:3", gateways=4)
    assert len(found.gateways) == 4 and found.gateways[0] == found.nodes[0]
    assert len(found.nodes) == 12


def test_netjson_file(tmp_path: Path) -> None:
    """A NetJSON graph gives nodes, links and rates; a one-way link gets a slow way back."""
    file = tmp_path / "net.json"
    link = {"source": "x", "target": "y", "cost": 1.0, "properties": {"bandwidth_mbps": 12.5}}
    nodes = [{"id": "x"}, {"id": "y"}]
    file.write_text(json.dumps({"type": "NetworkGraph", "nodes": nodes, "links": [link]}))
    (found,) = topology.read(str(file)).links
    assert (found.ends, found.mbps, found.back_mbps) == (("x", "y"), 12.5, topology.SLOWEST_MBPS)


@pytest.mark.parametrize(
    ("text", "gateways", "says"),
    [
        ("qmp:12", None, "qmp:N:SEED is accepted"),
        ("qmp:0:1", None, "accepted are 1 node"),
        ("/nowhere/net.json", None, "No such file"),
        ("qmp:4:1", 5, "the network has 4 nodes"),
    ],
)
def test_wrong_topology_is_refused_with_the_way_out(text: str, gateways: int | None, says: str) -> None:
    """Each refusal names what was given and what would be accepted."""
    with pytest.raises(ValueError, match=says):
        topology.read(text, gateways)


@pytest.mark.parametrize(
    "links",
    [
        (Link("a", "x", 1, 1),),
        (Link("a", "a", 1, 1),),
        (Link("a", "b", 1, 1), Link("b", "a", 1, 1)),
        (Link("a", "b", 0, 1),),
        (Link("a", "b", 1, 1, loss=1.5),),
    ],
)
def test_impossible_links_are_refused(links: tuple[Link, ...]) -> None:
    """Unknown ends, a link to itself, a second one, no rate, more than all lost."""
    with pytest.raises(ValueError, match=r"link [ab] - "):
        Topology(("a", "b"), links)
