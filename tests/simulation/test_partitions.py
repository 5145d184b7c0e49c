"""Links and nodes that fail in the middle of a transfer and come back: it goes on from what is there."""

from __future__ import annotations

import pytest

from gateway.forwarder.endpoint import FetchError
from gateway.protocol import objects
from tests.simulation import contacts
from tests.simulation.gateway import make_gateways
from tests.simulation.network import Network, simulation

SIZE = 1_500_000


@pytest.mark.parametrize("notice", [True, False], ids=["noticed", "unnoticed"])
@pytest.mark.parametrize("away_s", [0.3, 3.0, 20.0])
def test_a_transfer_outlives_a_partition(net: Network, away_s: float, notice: bool) -> None:
    """A link is away for a while, and the transfer goes on soon after; what had arrived does not come again."""
    #
    #   c ───── r ──╳── h        r-h fails after 1 s
    #
    net.build("c-r-h", has_disks=True, rate_mbps=4.0, delay_s=0.01)
    net.learn_routes()
    ref = net.publish("h", SIZE)
    task = net.nodes["c"].fetch(ref, "h")
    link = net.between("r", "h")
    net.at(1.0, link.fail, notice)
    net.at(1.0 + away_s, link.recover)
    took = net.wait(task)
    alone_s = SIZE * 8 / 4e6
    assert took <= alone_s * 1.2 + away_s + 4.5, net.report()
    assert link.from_("h").bulk_bytes <= 1.03 * SIZE + 80 * 8200, net.table()
    assert net.between("c", "r").from_("r").bulk_bytes <= 1.1 * SIZE


def test_a_partition_longer_than_the_patience_ends_the_attempt_and_keeps_the_bytes(net: Network) -> None:
    """The fetch fails and says for what; the next attempt asks only for what is missing."""
    #
    #   c ──╳── h
    #
    net.build("c-h", has_disks=True, rate_mbps=4.0, delay_s=0.01)
    net.learn_routes()
    ref, link = net.publish("h", SIZE), net.between("c", "h")
    net.at(1.5, link.fail)
    with pytest.raises(FetchError, match=r"seg=\d+ did not come"):
        net.wait(net.nodes["c"].fetch(ref, "h", patience_s=10))
    assert 11 < net.now < 13
    link.recover()
    before = link.from_("h").bulk_bytes
    net.wait(net.nodes["c"].fetch(ref, "h"))
    assert before >= 600_000 and link.from_("h").bulk_bytes <= 1.03 * SIZE + 20 * 8200


def test_a_partition_is_healed_by_another_way(net: Network) -> None:
    """When the routes have followed, the transfer goes on over the long way round."""
    #
    #   c ───── r ──╳── h
    #   └─ x ── y ── z ─┘      slower, longer
    #
    net.build("c-r-h c-x-y-z-h", has_disks=True, rate_mbps=4.0, delay_s=0.01)
    net.convergence_s = 3.0
    net.learn_routes()
    ref = net.publish("h", SIZE)
    net.at(1.0, net.between("r", "h").fail, True)
    took = net.wait(net.nodes["c"].fetch(ref, "h"))
    assert took <= 1.5 * SIZE * 8 / 4e6 + 3 + 4, net.report()
    total = sum(net.between(a, "c").from_(a).bulk_bytes for a in "rx")
    assert total <= 1.1 * SIZE


def test_a_node_in_transit_restarts(net: Network) -> None:
    """A node on the way loses everything it had in memory; consumers ask again and are served."""
    #
    #   c ───── r ───── h       r is off for 5 s
    #
    net.build("c-r-h", has_disks=True, rate_mbps=4.0, delay_s=0.01)
    net.convergence_s = 0.5
    net.learn_routes()
    ref = net.publish("h", SIZE)
    task = net.nodes["c"].fetch(ref, "h")
    net.at(1.0, net.nodes["r"].power_off)
    net.at(6.0, net.nodes["r"].power_on)
    took = net.wait(task)
    assert took <= 1.2 * SIZE * 8 / 4e6 + 5 + 5, net.report()
    assert net.between("c", "r").from_("r").bulk_bytes <= 1.1 * SIZE


def test_a_consumer_that_loses_its_power_asks_only_for_what_was_not_synced(net: Network) -> None:
    """After the restart the segments that the synced bitmap vouches for are not asked for again, all others are."""
    #
    #   c ───── h       c loses its power in mid-transfer, and what its disk had not synced
    #
    net.build("c-h", has_disks=True, rate_mbps=4.0, delay_s=0.01)
    net.learn_routes()
    size = 6_000_000
    ref, node = net.publish("h", size), net.nodes["c"]
    node.fetch(ref, "h")
    net.run(9.0)
    node.power_off()
    came = net.between("c", "h").from_("h").bulk_bytes
    net.run(5)
    node.power_on()
    net.learn_routes()
    left = len(list(node.store.begin(ref).missing()))
    kept = objects.segment_count(size) - left
    assert 250 < kept < objects.segment_count(size) * came / size  # something, but not what was never synced
    net.wait(node.fetch(ref, "h"))
    assert node.store.path(ref.sha256).read_bytes() == net.nodes["h"].store.path(ref.sha256).read_bytes()
    again = net.between("c", "h").from_("h").bulk_bytes - came
    assert again <= 1.03 * left * 8000 + 30 * 8200


def test_a_running_transfer_uses_a_short_contact_at_once(net: Network) -> None:
    """A transfer that has found nobody for long goes on with the first hello of a contact, not at its next timeout."""
    #
    #   c ┄┄┄ h       up for 1 s, away for 30 s, up for 1.5 s
    #
    net.build("c-h", has_disks=True, rate_mbps=20.0, delay_s=0.005)
    make_gateways(net)
    link = net.between("c", "h")
    contacts.windows(net, link, [(0.0, 1.0), (31.0, 32.5)])
    ref = net.publish("h", 20_000_000)
    net.run(0.1)
    task = net.nodes["c"].fetch(ref, "h", patience_s=60)
    net.run(20)
    before = link.from_("h").bulk_bytes
    net.run(20)
    assert not task.done() and 1_000_000 < before < 2_500_000
    assert link.from_("h").bulk_bytes - before >= 0.75 * 1.5 * 20e6 / 8, net.report(10)


def flap(net: Network, loss: float) -> None:
    net.build("c-r-h", has_disks=True, rate_mbps=4.0, delay_s=0.01, loss=loss)
    net.convergence_s = 0.2
    net.learn_routes()
    ref = net.publish("h", SIZE)
    for number, link in enumerate(net.links.values()):
        contacts.flapping(net, link, mean_up_s=4, mean_down_s=3, until_s=300, seed=net.seed + number)
    node = net.nodes["c"]
    tries = 0
    while not node.has(ref):
        tries += 1
        assert tries < 20, net.report()
        try:
            net.wait(node.fetch(ref, "h"))
        except FetchError:
            net.run(1)
    assert node.store.path(ref.sha256).read_bytes() == net.nodes["h"].store.path(ref.sha256).read_bytes()
    assert net.now < 120, net.report()
    assert net.between("c", "r").from_("r").bulk_bytes <= 1.25 * SIZE, net.report()


@pytest.mark.parametrize("seed", [1, 2])
@pytest.mark.parametrize("loss", [0.0, 0.02], ids=["", "lossy"])
def test_a_blob_arrives_over_flapping_links(tmp_path, seed: int, loss: float) -> None:  # type: ignore[no-untyped-def]
    """Links that are up for 4 s and away for 3 s in the mean: the blob arrives whole, and little comes twice."""
    #
    #   c ┄┄┄┄┄ r ┄┄┄┄┄ h
    #
    with simulation(tmp_path, seed) as net:
        flap(net, loss)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(10, 50))
def test_a_blob_arrives_over_flapping_links_every_time(tmp_path, seed: int) -> None:  # type: ignore[no-untyped-def]
    """The same for forty seeds."""
    with simulation(tmp_path, seed) as net:
        flap(net, 0.01 * (seed % 3))
