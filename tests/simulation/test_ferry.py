"""Blobs that arrive although no end-to-end path exists at any moment: wants, custody and carriers."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from gateway.forwarder.custody.wants import Limits
from gateway.protocol import keys
from gateway.protocol.messages import BlobRef
from tests.simulation import contacts
from tests.simulation.gateway import DAY_S, Gateway, make_gateways
from tests.simulation.network import Network, simulation

BYTES_S = 20e6 / 8
# A packet of 8,000 bytes has 138 more.
PACKETS_SHARE = 1.018


def until_it_has(net: Network, gateway: Gateway, ref: BlobRef, limit_s: float, step_s: float = 1.0) -> float:
    """Lets time pass until a node holds a blob whole; when that was."""
    while net.now < limit_s and not gateway.node.has(ref):
        net.run(step_s)
    assert gateway.node.has(ref), f"not there after {limit_s:g} s\n{net.report()}"
    return net.now


def line_with_ferry(net: Network, stay_s: float, travel_s: float, until_s: float) -> dict[str, Gateway]:
    net.build("A-F-B", has_disks=True, rate_mbps=20.0, delay_s=0.005)
    gateways = make_gateways(net)
    links = [net.between("A", "F"), net.between("F", "B")]
    contacts.ferry(net, links, stay_s=stay_s, travel_s=travel_s, first_s=10, until_s=until_s)
    return gateways


def same(net: Network, ref: BlobRef, *nodes: str) -> bool:
    return len({net.nodes[name].store.path(ref.sha256).read_bytes() for name in nodes}) == 1


def test_a_ferry_carries_a_blob_between_places_that_never_meet(net: Network) -> None:
    """A wants what B holds; F sees A, then B, then A again, and brings it: three contacts, the fewest possible."""
    #
    #   A ┄┄┄ F ┄┄┄ B        F is at A for 10 s, travels for 50 s, is at B for 10 s, …
    #   wants ferry holds
    #
    gateways = line_with_ferry(net, 10, 50, 1000)
    ref = net.publish("B", 2_000_000)
    gateways["A"].want(ref, "B")
    came = until_it_has(net, gateways["A"], ref, 1000)
    assert came < 10 + 2 * 60 + 10 and same(net, ref, "A", "B")
    assert net.between("F", "B").bytes <= 1.05 * ref.size
    assert net.between("A", "F").bytes <= 1.05 * ref.size


def test_a_blob_of_many_contacts_takes_the_fewest_and_one(net: Network) -> None:
    """30 MB over contacts of 4 s at 20 Mbit/s: four loads, each over two links, and no contact in vain."""
    # the drawing above
    stay_s, travel_s = 4.0, 30.0
    gateways = line_with_ferry(net, stay_s, travel_s, 10_000)
    ref = net.publish("B", 30_000_000)
    gateways["A"].want(ref, "B")
    came = until_it_has(net, gateways["A"], ref, 10_000)
    loads = math.ceil(ref.size * PACKETS_SHARE / (stay_s * BYTES_S))
    contact = int((came - 10) // (stay_s + travel_s)) + 1  # the how many-th it was, A's first one counted
    fewest = 2 * loads + 1  # the want goes by the first, then F is at B and at A in turn
    assert contact <= fewest + 1, f"contact {contact}, {fewest} are needed"
    assert net.between("F", "B").bytes <= 1.08 * ref.size
    assert net.between("A", "F").bytes <= 1.08 * ref.size


def test_two_ferries_in_a_row(net: Network) -> None:
    """Wants and blobs change ships in a harbour where the two ferries are at the same time, now and then."""
    #
    #   A ┄┄ F ┄┄ H ┄┄ G ┄┄ B        F sails A–H every 60 s, G sails H–B every 84 s
    #
    net.build("A-F-H-G-B", has_disks=True, rate_mbps=20.0, delay_s=0.005)
    gateways = make_gateways(net)
    contacts.ferry(net, [net.between("A", "F"), net.between("F", "H")], 10, 20, first_s=5, until_s=4000)
    contacts.ferry(net, [net.between("H", "G"), net.between("G", "B")], 12, 30, first_s=20, until_s=4000)
    ref = net.publish("B", 3_000_000)
    gateways["A"].want(ref, "B")
    came = until_it_has(net, gateways["A"], ref, 4000)
    assert came < 900 and same(net, ref, "A", "B")
    assert all(link.bytes <= 1.1 * ref.size for link in net.links.values()), net.table()


def test_ferries_that_meet_at_sea(net: Network) -> None:
    """The carriers hand over to each other directly; no harbour is needed."""
    #
    #   A ┄┄ F ┄┄ G ┄┄ B        F: at A, then at sea beside G, …; G: at sea, then at B
    #
    net.build("A-F-G-B", has_disks=True, rate_mbps=20.0, delay_s=0.005)
    gateways = make_gateways(net)
    for name, first_s in (("A-F", 0.0), ("F-G", 30.0), ("G-B", 60.0)):
        contacts.periodic(net, net.links[name], every_s=90, open_s=8, first_s=first_s, until_s=3000)
    ref = net.publish("B", 3_000_000)
    gateways["A"].want(ref, "B")
    came = until_it_has(net, gateways["A"], ref, 3000)
    # out: 0, 30, 60; back: 60, 120 (30 + 90), 180 (2 × 90)
    assert came < 200 and same(net, ref, "A", "B")


def test_a_message_bus_serves_its_stops(net: Network) -> None:
    """A bus calls at four villages; what each wants from the town comes with one of the next rounds."""
    #
    #        town
    #          ┊
    #   v1 ┄┄ bus ┄┄ v2         the bus stays for 15 s at each place, one after the other, 45 s on the road
    #        ┊    ┊
    #       v3    v4
    #
    net.build("bus-town bus-v1 bus-v2 bus-v3 bus-v4", has_disks=True, rate_mbps=20.0, delay_s=0.005)
    gateways = make_gateways(net)
    stops = [net.between("bus", place) for place in ("town", "v1", "v2", "v3", "v4")]
    contacts.ferry(net, stops, stay_s=15, travel_s=45, first_s=5, until_s=3000)
    shared, single = net.publish("town", 4_000_000, seed=1), net.publish("town", 2_000_000, seed=2)
    for village in ("v1", "v2", "v3", "v4"):
        gateways[village].want(shared, "town")
    gateways["v3"].want(single, "town")
    for village in ("v1", "v2", "v3", "v4"):
        until_it_has(net, gateways[village], shared, 2 * 5 * 60 + 60)
    until_it_has(net, gateways["v3"], single, 2 * 5 * 60 + 60)
    assert net.between("bus", "town").bytes <= 1.06 * (shared.size + single.size), net.table()


def test_what_the_bus_has_it_gives_to_the_next_village(net: Network) -> None:
    """A second village that wants the same is served from the bus, and the town is not asked again."""
    #
    #   town ┄┄ bus ┄┄ v1
    #            ┊
    #           v2 (wants it when v1 has it already)
    #
    net.build("bus-town bus-v1 bus-v2", has_disks=True, rate_mbps=20.0, delay_s=0.005)
    gateways = make_gateways(net)
    stops = [net.between("bus", place) for place in ("v1", "town", "v2")]
    contacts.ferry(net, stops, stay_s=10, travel_s=20, first_s=5, until_s=3000)
    ref = net.publish("town", 4_000_000)
    gateways["v1"].want(ref, "town")
    until_it_has(net, gateways["v1"], ref, 1000)
    before = net.between("bus", "town").bytes
    gateways["v2"].want(ref, "town")
    until_it_has(net, gateways["v2"], ref, net.now + 300)
    assert net.between("bus", "town").bytes - before < 20_000


def test_day_and_night(net: Network) -> None:
    """Two solar links of which one is up in the morning and one in the afternoon: the blob crosses within two days."""
    #
    #   A ┄┄ 7–11 h ┄┄ M ┄┄ 13–19 h ┄┄ B
    #
    net.build("A-M-B", has_disks=True, rate_mbps=2.0, delay_s=0.02)
    gateways = make_gateways(net)
    contacts.day_night(net, net.between("A", "M"), 7, 11, days=4)
    contacts.day_night(net, net.between("M", "B"), 13, 19, days=4)
    ref = net.publish("B", 5_000_000)
    gateways["A"].want(ref, "B")
    came = until_it_has(net, gateways["A"], ref, 4 * DAY_S, step_s=600)
    assert came < DAY_S + 9 * 3600  # out and back in a day, in at seven the next morning


def test_a_ferry_that_loses_its_power_keeps_what_it_carries(net: Network) -> None:
    """Wants and blobs in custody lie on the disk: a power cut at sea costs nothing but time."""
    #
    #   A ┄┄┄ F ┄┄┄ B        F is off after A has told it, and again after it has fetched at B
    #
    gateways = line_with_ferry(net, 10, 50, 2000)
    ref = net.publish("B", 2_000_000)
    gateways["A"].want(ref, "B")
    ferry = net.nodes["F"]
    for off, on in ((30, 35), (100, 110)):
        net.at(off, ferry.power_off)
        net.at(on, ferry.power_on)
    came = until_it_has(net, gateways["A"], ref, 2000)
    assert came < 10 + 2 * 60 + 10 and same(net, ref, "A", "B")
    assert gateways["F"].boots == 3


def test_a_wanter_that_loses_its_power_still_wants(net: Network) -> None:
    """A's own want outlives its power; whoever carries the blob brings it."""
    # the drawing above; A is off for a while
    gateways = line_with_ferry(net, 10, 50, 2000)
    ref = net.publish("B", 2_000_000)
    gateways["A"].want(ref, "B")
    net.at(40, net.nodes["A"].power_off)
    net.at(50, net.nodes["A"].power_on)
    assert until_it_has(net, gateways["A"], ref, 2000) < 10 + 2 * 60 + 10


@pytest.mark.parametrize("error_s", [-56 * 365 * DAY_S, 30 * 365 * DAY_S], ids=["1970", "in thirty years"])
def test_a_ferry_whose_clock_is_wrong_by_decades_carries_all_the_same(net: Network, error_s: float) -> None:
    """Lifetimes are counted, not compared with foreign clocks; a clock that jumps in between changes nothing."""
    # the drawing above; F's clock is wrong from the beginning, and right after 60 s
    gateways = line_with_ferry(net, 10, 50, 2000)
    gateways["F"].clock_error_s = error_s
    net.at(60, lambda: setattr(gateways["F"], "clock_error_s", 0.0))
    ref = net.publish("B", 2_000_000)
    gateways["A"].want(ref, "B")
    assert until_it_has(net, gateways["A"], ref, 2000) < 10 + 2 * 60 + 10


def test_a_one_way_link_makes_no_contact(net: Network) -> None:
    """While F does not hear A nothing is handed over and nothing is believed lost; the next good contact does it."""
    # the drawing above; at the first contact F's radio does not hear A
    gateways = line_with_ferry(net, 10, 50, 2000)
    ref = net.publish("B", 2_000_000)
    gateways["A"].want(ref, "B")
    net.at(10.0001, net.between("A", "F").fail_one_way, "A")
    net.run(60)
    assert gateways["F"].custody.snapshot() == []
    came = until_it_has(net, gateways["A"], ref, 2000)
    assert came < 10 + 4 * 60 + 10


def test_what_is_not_wanted_any_more_is_not_carried(net: Network) -> None:
    """A gets the blob in another way: the withdrawal reaches F with the next contact, and F lets go."""
    # the drawing above
    gateways = line_with_ferry(net, 10, 50, 2000)
    ref = net.publish("B", 2_000_000)
    gateways["A"].want(ref, "B")
    net.run(60)
    assert [row["wanter"] for row in gateways["F"].custody.snapshot()] == ["A"]
    assert net.publish("A", 2_000_000) == ref
    gateways["A"].custody.satisfied(ref.sha256)
    net.run(400)
    assert gateways["F"].custody.snapshot() == []
    assert net.between("A", "F").bytes < 50_000


def test_a_small_disk_takes_what_fits(net: Network) -> None:
    """A ferry with room for one blob refuses the larger one and brings the other; A is told no lies."""
    # the drawing above; F keeps 3 MB for others
    net.build("A-F-B", has_disks=True, rate_mbps=20.0, delay_s=0.005)
    gateways = make_gateways(net, limits=Limits(lifetime_s=3 * DAY_S, custody_bytes=3_000_000))
    links = [net.between("A", "F"), net.between("F", "B")]
    contacts.ferry(net, links, stay_s=10, travel_s=50, first_s=10, until_s=2000)
    small, large = net.publish("B", 2_000_000, seed=1), net.publish("B", 4_000_000, seed=2)
    gateways["A"].want(large, "B")
    gateways["A"].want(small, "B")
    assert until_it_has(net, gateways["A"], small, 1000) < 200
    assert not net.nodes["F"].has(large) and not net.nodes["A"].has(large)


@pytest.mark.parametrize("answer", [lambda interest: keys.sign_data(interest.name, bytes(8000)), lambda interest: None])
def test_a_neighbour_that_claims_to_hold_everything_wastes_no_contact(net: Network, answer: object) -> None:
    """M says that it has what A wants and answers with forgeries, or nothing; F's short call still brings it."""
    #
    #   M ─── A ┄┄┄ F ┄┄┄ B
    #
    net.build("M-A-F-B", has_disks=True, rate_mbps=20.0, delay_s=0.005)
    gateways = make_gateways(net)
    ref, liar = net.publish("B", 4_000_000), net.nodes["M"]
    liar.forwarder.fib.add(net.names.blobs, liar.app(answer=answer).id, 0, "app")  # type: ignore[arg-type]
    liar.forwarder.disk, liar.forwarder.content_store.is_admitting = None, False
    gateways["M"].told = lambda: [ref.sha256[:8]]
    contacts.ferry(net, [net.between("A", "F"), net.between("F", "B")], 4, 30, first_s=10, until_s=1000)
    gateways["A"].want(ref, "B")
    came = until_it_has(net, gateways["A"], ref, 1000)
    assert came < 10 + 2 * 34 + 4 and same(net, ref, "A", "B")


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_a_ferry_with_bad_radio(tmp_path: Path, seed: int) -> None:
    """With 3 % of all packets lost, hellos and wants among them, the blob comes with two contacts more at the most."""
    #
    #   A ┄┄┄ F ┄┄┄ B        contacts of 4 s
    #
    with simulation(tmp_path, seed) as net:
        gateways = line_with_ferry(net, 4, 30, 2000)
        for link in net.links.values():
            link.there.loss = link.back.loss = 0.03
        ref = net.publish("B", 6_000_000)
        gateways["A"].want(ref, "B")
        assert until_it_has(net, gateways["A"], ref, 2000) < 10 + 4 * 34 + 4


def test_a_lost_hello_costs_a_moment_and_not_the_contact(net: Network) -> None:
    """F misses A's first hello, so it cannot check A's signature yet: A tells it again within the same contact."""
    # the drawing of the first test; what F sends in the first 4 ms of the contact is lost
    gateways = line_with_ferry(net, 10, 50, 2000)
    ref, link = net.publish("B", 2_000_000), net.between("A", "F")
    gateways["A"].want(ref, "B")
    net.at(10.0, link.fail_one_way, "F")
    net.at(10.004, link.from_("F").recover)
    net.run(19)
    assert [row["wanter"] for row in gateways["F"].custody.snapshot()] == ["A"], net.report()


# --- at rest


def test_gateways_at_rest_sleep(net: Network) -> None:
    """Gateways that meet nobody and carry nothing wake up a few times an hour; with a want on their disk, too."""
    #
    #   A     M     B      no contact at all; A wants a blob
    #
    net.build("A-M-B", has_disks=True)
    gateways = make_gateways(net)
    for link in net.links.values():
        link.fail(notice=True)
    gateways["A"].want(net.publish("B", 100_000), "B")
    net.run(60)
    turns = net.loop.turns
    net.run(3600)
    assert net.loop.turns - turns <= 3 * 60, f"{net.loop.turns - turns} turns in an hour"


def test_waiting_together_is_quiet(net: Network) -> None:
    """Two neighbours that wait for the same blob, of which neither has a packet, do not ask each other on and on."""
    #
    #   A ─── M ┄┄ B        A wants what B holds; M has taken the want; B does not come for an hour
    #
    net.build("A-M-B", has_disks=True, rate_mbps=2.0)
    gateways = make_gateways(net)
    net.between("M", "B").fail(notice=True)
    ref = net.publish("B", 1_000_000)
    gateways["A"].want(ref, "B")
    net.run(300)
    asked = [net.nodes[name].consumer.interests for name in "AM"]
    net.run(3600)
    more = [net.nodes[name].consumer.interests - before for name, before in zip("AM", asked, strict=True)]
    assert sum(more) <= 1000, f"A and M sent {more} Interests in an hour\n{net.report(12)}"
    net.between("M", "B").recover()
    until_it_has(net, gateways["A"], ref, net.now + 60)


def random_world(net: Network, carriers: int, until_s: float) -> dict[str, Gateway]:
    """Two places and carriers who meet each other and the places at random, a few seconds at a time."""
    everybody = ["A", "B", *(f"m{number}" for number in range(carriers))]
    for name in everybody:
        net.node(name, has_disk=True)
    for number, one in enumerate(everybody):
        for other in everybody[number + 1 :]:
            if {one, other} != {"A", "B"}:
                net.link(one, other, delay_s=0.005, rate_mbps=20.0)
    for link in net.links.values():
        when, meetings = 0.0, []
        while (when := when + net.random.expovariate(1 / 300)) < until_s:
            meetings.append((when, when + 3 + net.random.expovariate(1 / 5)))
            when = meetings[-1][1]
        contacts.windows(net, link, meetings)
    return make_gateways(net)


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_carriers_who_meet_at_random(tmp_path: Path, seed: int) -> None:
    """With five carriers who meet by chance the blob comes within half an hour, and every copy is the right one."""
    #
    #   A ┄┄ m0 ┄┄ m1 ┄┄ …  ┄┄ B       every pair but A–B meets every five minutes in the mean, for eight seconds
    #
    with simulation(tmp_path, seed) as net:
        gateways = random_world(net, 5, 3600)
        ref = net.publish("B", 2_000_000)
        gateways["A"].want(ref, "B")
        until_it_has(net, gateways["A"], ref, 1800, step_s=5)
        assert same(net, ref, *(name for name, node in net.nodes.items() if node.has(ref)))


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(10, 30))
def test_carriers_who_meet_at_random_every_time(tmp_path: Path, seed: int) -> None:
    """The same for twenty seeds, with eight carriers and 10 MB."""
    with simulation(tmp_path, seed) as net:
        gateways = random_world(net, 8, 3600)
        ref = net.publish("B", 10_000_000)
        gateways["A"].want(ref, "B")
        until_it_has(net, gateways["A"], ref, 3600, step_s=5)
