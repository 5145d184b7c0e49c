"""The delivery tree of a decision at work: bytes on every link of a simulated network against the bound."""

from __future__ import annotations

from pathlib import Path

import pytest

from controller import decisions
from tests.controller.test_decisions import ways
from tests.simulation.network import Network, simulation
from tests.simulation.test_tree import SIZE, sixteen

# A packet's own bytes (3.7 % with the Interest that asks for it) are in what is measured, and not in the bound.
OVER_THE_BOUND = 1.05


def way_of(net: Network) -> decisions.Way:
    links = {name: link.there.rate_mbps or 1000.0 for name, link in net.links.items()}
    return ways(*links, **{name.replace("-", "_"): rate for name, rate in links.items()})


def needed_links(net: Network, fetching: list[str]) -> set[str]:
    """The links of the smallest tree that joins the origin and these nodes, in a network that is a tree."""
    way, found = way_of(net), set()
    for node in fetching:
        here = "o"
        for there, _ in way("o", node):
            found.add(net.between(here, there).name)
            here = there
    return found


@pytest.mark.parametrize(
    ("heads", "standbys"),
    [
        (list("abcdefghijklmnp"), []),
        (["h", "k", "p"], ["m"]),
        (["d", "i", "n"], ["a", "j", "l", "g"]),
        (["h", "i", "j"], []),
    ],
    ids=["everybody", "leaves", "mixed", "one branch"],
)
def test_each_link_of_the_tree_carries_the_image_once(tmp_path: Path, heads: list[str], standbys: list[str]) -> None:
    """Heads and stand-bys that fetch at once from their parents: one copy on each link of the best tree, no other.

    At a fork that fetches nothing itself the branches must keep pace: what it remembers is its store's size.
    """
    with simulation(tmp_path) as net:
        sixteen(net)
        ref = net.publish("o", SIZE)
        tree = decisions.DeliveryTree("o", way_of(net))
        parents = tree.attach(heads) | tree.attach(standbys)
        net.wait(*(net.nodes[node].fetch(ref, parent, "o") for node, parent in parents.items()))
        needed = needed_links(net, heads + standbys)
        assert {name for name, link in net.links.items() if link.bytes} == needed
        for name in needed:
            assert net.links[name].bytes <= OVER_THE_BOUND * SIZE, f"{name}: {net.links[name].bytes / SIZE:.3f}"
        assert sum(node.consumer.repeats for node in net.nodes.values()) == 0
