"""One origin, many consumers: how often each link carries the same bytes."""

from __future__ import annotations

from pathlib import Path

import pytest

from gateway.protocol import objects
from tests.simulation import contacts
from tests.simulation.network import Network, simulation
from tests.simulation.routing import tree_to

SIZE = 2_000_000
# Sixteen nodes as in the drawing of the first test.
TREE = "o-a-d-h d-i d-j a-e-k e-l o-b-f-m f-n o-c-g-p"


def sixteen(net: Network) -> None:
    """The tree, with radio-like rates: the nearer to the origin the faster."""
    for chain, rate in (("o-a o-b o-c", 60.0), ("a-d a-e b-f c-g", 30.0)):
        net.build(chain, has_disks=True, rate_mbps=rate, delay_s=0.004)
    net.build("d-h d-i d-j e-k e-l f-m f-n g-p", has_disks=True, rate_mbps=12.0, delay_s=0.004)
    net.learn_routes()


def copies(net: Network, size: int) -> dict[str, float]:
    """How often the blob crossed each link, by its full packets."""
    packets = sum(objects.level_counts(size))
    return {
        d.name: round(d.bulk_bytes / (packets * size / objects.segment_count(size)), 2)
        for link in net.links.values()
        for d in (link.there, link.back)
    }


def test_sixteen_nodes_fetch_one_blob_from_their_parents(net: Network) -> None:
    """All ask their parents at once: each link carries the blob once and no link back up; 5 % for all else."""
    #
    #                    o  origin
    #            ┌───────┼────────┐
    #            a       b        c            60 Mbit/s
    #         ┌──┴──┐    │        │
    #         d     e    f        g            30 Mbit/s
    #       ┌─┼─┐  ┌┴┐  ┌┴┐       │
    #       h i j  k l  m n       p            12 Mbit/s
    #
    sixteen(net)
    ref = net.publish("o", SIZE)
    parents = tree_to(net, "o")
    assert len(net.nodes) == 16 and len(parents) == 15
    tasks = [net.nodes[name].fetch(ref, parent) for name, parent in parents.items()]
    took = net.wait(*tasks)
    bound = SIZE * len(parents)
    assert net.bytes <= 1.05 * bound, net.table()
    assert all(share <= 1.03 or share == 0 for share in copies(net, SIZE).values()), net.table()
    slowest_s = SIZE * 8 / 12e6
    assert took < 1.5 * slowest_s


def test_who_asks_the_origin_is_answered_on_the_way(net: Network) -> None:
    """The same without a delivery tree: all ask the origin, and pending Interests and stores merge what they ask."""
    # the tree of the first test
    sixteen(net)
    ref = net.publish("o", SIZE)
    net.wait(*(node.fetch(ref, "o") for name, node in net.nodes.items() if name != "o"))
    assert net.bytes <= 1.10 * SIZE * 15, net.table()


def test_a_late_comer_costs_one_link(net: Network) -> None:
    """Who asks when its parent has the blob gets it from there: nothing moves on any other link."""
    # the tree of the first test; p comes late
    sixteen(net)
    ref = net.publish("o", SIZE)
    parents = tree_to(net, "o")
    net.wait(*(net.nodes[name].fetch(ref, parent) for name, parent in parents.items() if name != "p"))
    before = {name: link.bytes for name, link in net.links.items()}
    net.wait(net.nodes["p"].fetch(ref, "g"))
    moved = {name for name, link in net.links.items() if link.bytes != before[name]}
    assert moved == {"g-p"}
    assert net.between("g", "p").bytes <= 1.05 * SIZE


def test_children_pull_from_a_growing_blob(net: Network) -> None:
    """A child is done soon after its parent, not twice as late: segments pass on while the blob is growing."""
    #
    #   o ──── a ──── b ──── c ──── d       10 Mbit/s each
    #
    net.build("o-a-b-c-d", has_disks=True, rate_mbps=10.0, delay_s=0.005)
    net.learn_routes()
    ref = net.publish("o", SIZE)
    done: dict[str, float] = {}
    tasks = []
    for parent, child in zip("oabc", "abcd", strict=True):
        task = net.nodes[child].fetch(ref, parent)
        task.add_done_callback(lambda _, child=child: done.setdefault(child, net.now))
        tasks.append(task)
    net.wait(*tasks)
    assert done["d"] < 1.25 * done["a"], done
    assert net.bytes <= 1.05 * 4 * SIZE


def test_the_second_version_travels_by_its_changed_layer_only(net: Network) -> None:
    """Layers that a node has are not asked for again: an update costs its new layer."""
    #
    #   o ──── a ──── b
    #
    net.build("o-a-b", has_disks=True, rate_mbps=20.0)
    net.learn_routes()
    layers = [net.publish("o", 600_000, seed=n) for n in range(3)]
    for ref in layers:
        net.wait(net.nodes["b"].fetch(ref, "o"))
    before, changed = net.bytes, net.publish("o", 200_000, seed=9)
    for ref in (*layers[:2], changed):
        net.wait(net.nodes["b"].fetch(ref, "o"))
    assert net.bytes - before <= 1.05 * 2 * changed.size


def test_a_parent_that_dies_is_replaced(net: Network) -> None:
    """A child whose parent loses its power goes on with the next holder, and fetches nothing twice."""
    #
    #       ┌── a ──┐
    #   o ──┤       ├── c      c asks a, then o
    #       └── b ──┘
    #
    net.build("o-a-c o-b-c", has_disks=True, rate_mbps=10.0, delay_s=0.005)
    net.convergence_s = 2.0
    net.learn_routes()
    ref = net.publish("o", SIZE)
    first = net.nodes["a"].fetch(ref, "o")
    child = net.nodes["c"].fetch(ref, "a", "o")
    net.run(0.8)
    net.nodes["a"].power_off()
    net.on_topology_change()
    assert not first.done() and not child.done()
    took = net.wait(child)
    to_c = net.between("a", "c").from_("a").bulk_bytes + net.between("b", "c").from_("b").bulk_bytes
    assert to_c <= 1.1 * SIZE and took < 10, net.report()


def flapping_tree(net: Network, parent_only: bool) -> None:
    sixteen(net)
    net.convergence_s = 0.2
    for number, link in enumerate(net.links.values()):
        contacts.flapping(net, link, mean_up_s=5, mean_down_s=2, until_s=60, seed=100 * net.seed + number)
    ref = net.publish("o", SIZE)
    tasks = [
        net.nodes[name].fetch(ref, *((parent,) if parent_only else (parent, "o")), patience_s=60)
        for name, parent in tree_to(net, "o").items()
    ]
    net.wait(*tasks, limit_s=90)
    assert net.bytes <= 1.10 * SIZE * 15, net.table()


@pytest.mark.parametrize("seed", [1, 2, 3])
@pytest.mark.parametrize("parent_only", [True, False], ids=["parents", "parents, then the origin"])
def test_the_tree_over_flapping_links(tmp_path: Path, seed: int, parent_only: bool) -> None:
    """Links that are up for 5 s and away for 2 s in the mean: everybody gets the blob, nearly one copy a link still."""
    # the tree of the first test
    with simulation(tmp_path, seed) as net:
        flapping_tree(net, parent_only)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(10, 40))
def test_the_tree_over_flapping_links_every_time(tmp_path: Path, seed: int) -> None:
    """The same for thirty seeds."""
    with simulation(tmp_path, seed) as net:
        flapping_tree(net, parent_only=seed % 2 == 0)


@pytest.mark.parametrize("loss", [0.01, 0.03])
def test_the_tree_over_lossy_links(net: Network, loss: float) -> None:
    """Without any repair by the links a loss is repaired over its own link: what is lost comes again, no more."""
    # the tree of the first test
    sixteen(net)
    for link in net.links.values():
        link.there.loss = link.back.loss = loss
    ref = net.publish("o", SIZE)
    net.wait(*(net.nodes[name].fetch(ref, parent) for name, parent in tree_to(net, "o").items()), limit_s=60)
    assert net.bytes <= (1.05 + 2 * loss) * SIZE * 15, net.table()
