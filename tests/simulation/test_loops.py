"""Rings, meshes with several ways, and links that work one way: nothing storms, nothing circles, blobs still arrive."""

from __future__ import annotations

import itertools

import pytest

from gateway.forwarder.packet import NACK_DUPLICATE, NACK_NO_ROUTE
from gateway.forwarder.strategy_choice import ADAPTIVE, BEST_ROUTE, MULTICAST
from gateway.protocol import keys, names, objects
from tests.simulation.network import App, Network


def full_mesh(net: Network, count: int, strategy: str) -> list[str]:
    """Everybody is everybody's neighbour, and has a route for /p over each; the last one serves it."""
    members = [f"n{number}" for number in range(count)]
    for name in members:
        net.node(name)
    for a, b in itertools.combinations(members, 2):
        net.link(a, b, delay_s=0.005 + 0.001 * len(net.links))
    for name, other in itertools.permutations(members, 2):
        net.nodes[name].route("/p", other)
        net.nodes[name].forwarder.strategies.set(names.parse("/"), strategy)
    return members


@pytest.mark.parametrize("strategy", [BEST_ROUTE, MULTICAST, ADAPTIVE])
def test_an_interest_without_answer_does_not_storm(net: Network, strategy: str) -> None:
    """In a full mesh with routes everywhere an Interest crosses each link at most once in each direction."""
    #
    #        n0 ─── n1
    #        │ ╲ ╱ │ ╲
    #        │  ╳  │  n4  …   each of six nodes is linked to all others, and nobody has the content
    #        │ ╱ ╲ │ ╱
    #        n3 ─── n2
    #
    members = full_mesh(net, 6, strategy)
    consumer = net.nodes[members[0]].app()
    consumer.ask("/p/x", lifetime_ms=2000)
    net.run(10)
    directions = len(net.links) * 2
    interests = sum(end.counters.out_interests for link in net.links.values() for end in link.ends)
    assert interests <= directions, net.table()
    assert all(len(node.forwarder.pit) == 0 for node in net.nodes.values())


@pytest.mark.parametrize("strategy", [BEST_ROUTE, MULTICAST, ADAPTIVE])
def test_a_hundred_interests_in_a_mesh_cost_a_hundred_times_one(net: Network, strategy: str) -> None:
    """With a producer somewhere in the mesh all is answered, at the second asking at the latest, without a storm."""
    # the mesh above; the last node answers
    members = full_mesh(net, 6, strategy)
    producer = net.nodes[members[-1]].app(serve="/p")
    consumer = net.nodes[members[0]].app()
    for number in range(100):
        net.at(0.05 * number, consumer.ask, f"/p/{number}")
        net.at(0.05 * number + 2.0, ask_again, consumer, number)
    net.run(20)
    assert len(consumer.data) == 100
    assert len({interest.name for interest in producer.asked}) == 100
    interests = sum(end.counters.out_interests for link in net.links.values() for end in link.ends)
    assert interests <= 100 * len(net.links) * 2


def test_two_nodes_that_wait_for_each_other_go_on(net: Network) -> None:
    """Two Interests for the same meet on routes that lead through each other: both nodes ask the next one instead."""
    #
    #        ┌── m ──┐
    #   a ──┤  ⇅    ├── d        m prefers n, n prefers m, and both have a way to d as well
    #        └── n ──┘
    #
    net.build("a-m-d a-n-d m-n", delay_s=0.01)
    for name, first, second in (("m", "n", "d"), ("n", "m", "d")):
        net.nodes[name].route("/p", first, cost=1)
        net.nodes[name].route("/p", second, cost=2)
    net.nodes["d"].app(serve="/p")
    one, other = net.nodes["a"].app(), net.nodes["a"].app()
    for app, hop in ((one, "m"), (other, "n")):
        app.local_fields = True
        app.ask("/p/x", next_hop_face=net.nodes["a"].to[hop].id)
    net.run(0.5)
    assert one.contents == other.contents == [b"answer"]


def ask_again(consumer: App, number: int) -> None:
    """What an application does whose Interest brought nothing."""
    if names.parse(f"/p/{number}") not in {data.name for data in consumer.data}:
        consumer.ask(f"/p/{number}")


@pytest.mark.parametrize("size", [3, 8, 20])
def test_routes_that_go_round_end_with_a_nack(net: Network, size: int) -> None:
    """An Interest on routes that form a ring comes round once, is known by its nonce, and its consumer is told."""
    #
    #        n0 ──► n1 ──► n2 ──► …
    #         ▲                   │
    #         └───────────────────┘
    #
    ring = [f"n{number}" for number in range(size)]
    net.build("-".join([*ring, ring[0]]))
    for name, following in zip(ring, [*ring[1:], ring[0]], strict=True):
        net.nodes[name].route("/p", following)
    consumer = net.nodes["n0"].app()
    consumer.ask("/p/x")
    net.run(5)
    interests = sum(end.counters.out_interests for link in net.links.values() for end in link.ends)
    assert interests == size
    assert len(consumer.nacks) == 1 and consumer.nacks[0] in (NACK_DUPLICATE, NACK_NO_ROUTE)
    assert sum(node.forwarder.counters.loops for node in net.nodes.values()) == 1


def test_an_interest_never_goes_back_where_it_came_from(net: Network) -> None:
    """A node whose only route leads back to the sender says that it has none."""
    #
    #   a ◄──► b       each takes the other for the way to /p
    #
    net.build("a-b")
    net.nodes["a"].route("/p", "b")
    net.nodes["b"].route("/p", "a")
    consumer = net.nodes["a"].app()
    consumer.ask("/p/x")
    consumer.ask("/p/y", hop_limit=9)
    net.run(5)
    assert consumer.nacks == [NACK_NO_ROUTE] * 2
    assert net.nodes["b"].to["a"].counters.out_interests == 0


@pytest.mark.parametrize("limit", [1, 2, 5])
def test_the_hop_limit_ends_an_interest(net: Network, limit: int) -> None:
    """An Interest with HopLimit h crosses h - 1 links: the last hop it may take is to an application."""
    #
    #   n0 ──► n1 ──► n2 ──► n3 ──► n4 ──► n5 ──► n6 ──► n7
    #
    line = [f"n{number}" for number in range(8)]
    net.build("-".join(line))
    for name, following in itertools.pairwise(line):
        net.nodes[name].route("/p", following)
    net.nodes["n7"].app(serve="/p")
    consumer = net.nodes["n0"].app()
    consumer.ask("/p/x", hop_limit=limit, lifetime_ms=1000)
    net.run(5)
    crossed = [name for name, link in net.links.items() if link.ends[0].counters.out_interests]
    assert len(crossed) == limit - 1 and consumer.data == []


def test_a_copy_that_comes_late_by_a_longer_way_is_known(net: Network) -> None:
    """When the entry has expired its nonce is still known: the copy on the slow way is not forwarded again."""
    #
    #         ┌── slow: 3 s ──┐
    #   a ────┤               ├── c ──► d     multicast at a; d never answers
    #         └── b ──────────┘
    #
    net.build("a-b-c-d", delay_s=0.01)
    net.link("a", "c", delay_s=3.0)
    a = net.nodes["a"]
    a.route("/p", "b")
    a.route("/p", "c")
    net.nodes["b"].route("/p", "c")
    net.nodes["c"].route("/p", "d")
    a.forwarder.strategies.set(names.parse("/"), MULTICAST)
    net.nodes["d"].app(serve="/p", answer=lambda interest: None)
    a.app().ask("/p/x", lifetime_ms=1000)
    net.run(10)
    assert net.between("c", "d").from_("c").packets == 1
    assert net.nodes["c"].forwarder.counters.loops == 1


def grid(net: Network, side: int, **link: float) -> None:
    """side × side nodes g00, g01, …; neighbours are linked."""
    for row, column in itertools.product(range(side), range(side)):
        net.node(f"g{row}{column}", has_disk=True)
    for row, column in itertools.product(range(side), range(side)):
        if column + 1 < side:
            net.link(f"g{row}{column}", f"g{row}{column + 1}", **link)
        if row + 1 < side:
            net.link(f"g{row}{column}", f"g{row + 1}{column}", **link)


@pytest.mark.parametrize("strategy", [BEST_ROUTE, ADAPTIVE])
def test_a_transfer_in_a_grid_of_many_ways_costs_one_way(net: Network, strategy: str) -> None:
    """With two next hops everywhere a blob still crosses only its shortest way, but for a probe now and then."""
    #
    #   g00 ─ g01 ─ g02 ─ g03
    #    │     │     │     │
    #   g10 ─ g11 ─ g12 ─ g13
    #    │     │     │     │        g33 fetches from g00: six links
    #   g20 ─ g21 ─ g22 ─ g23
    #    │     │     │     │
    #   g30 ─ g31 ─ g32 ─ g33
    #
    grid(net, 4, rate_mbps=20.0, delay_s=0.005)
    for node in net.nodes.values():
        node.forwarder.strategies.set(names.parse("/"), strategy)
    net.learn_routes(spare=1)
    ref = net.publish("g00", 1_000_000)
    net.wait(net.nodes["g33"].fetch(ref, "g00"))
    assert net.bytes <= 1.1 * 6 * ref.size, net.table()


def test_a_grid_loses_links_one_after_the_other_and_delivers(net: Network) -> None:
    """While links on the way fail, with notice, Nacks and spare next hops lead round them; nothing comes twice."""
    # the grid above; every second one of its links fails during the transfer, but the mesh stays connected
    grid(net, 4, rate_mbps=4.0, delay_s=0.005)
    net.convergence_s = 0.5
    net.learn_routes(spare=1)
    ref = net.publish("g00", 1_000_000)
    task = net.nodes["g33"].fetch(ref, "g00")
    for number, name in enumerate(("g00-g01", "g10-g11", "g20-g21", "g31-g32", "g22-g32", "g12-g13")):
        net.at(0.3 + 0.25 * number, net.links[name].fail, True)
    took = net.wait(task)
    arrived = sum(net.nodes["g33"].to[other].counters.in_data_bytes for other in ("g23", "g32"))
    assert took < 6 and arrived <= 1.1 * ref.size, net.report()


# --- one way, and lopsided


def test_a_slow_way_back_does_not_slow_the_transfer(net: Network) -> None:
    """Data comes at the fast direction's rate although Interests have a twentieth of it."""
    #
    #   a ◄═══ 20 ═══ b
    #     ─── 1 ────►          Mbit/s
    #
    net.build("b-a", has_disks=True, rate_mbps=(20.0, 1.0), delay_s=0.01)
    net.learn_routes()
    ref = net.publish("b", 4_000_000)
    took = net.wait(net.nodes["a"].fetch(ref, "b"))
    assert took <= ref.size * 8 / (0.85 * 20e6), net.table()


def test_the_slow_direction_sets_the_pace_the_other_way_round(net: Network) -> None:
    """Fetching against the asymmetry goes at the slow rate, with a queue that stays short."""
    # the drawing above, with the blob at a
    net.build("b-a", has_disks=True, rate_mbps=(20.0, 1.0), delay_s=0.01)
    net.learn_routes()
    ref = net.publish("a", 500_000)
    took = net.wait(net.nodes["b"].fetch(ref, "a"))
    assert ref.size * 8 / 1e6 <= took <= 1.2 * ref.size * 8 / 1e6
    assert net.between("a", "b").from_("a").overflowed <= 3


@pytest.mark.parametrize("dead", ["there", "back"])
def test_a_one_way_link_is_left_for_the_way_that_works(net: Network, dead: str) -> None:
    """A link that carries only Interests, or only Data, looks up at both ends; retransmissions take the other way."""
    #
    #       ┌─── b ───┐
    #   a ──┤ (a ┄► b, one way only)      a prefers b
    #       └─── c ───┘ d
    #
    net.build("a-b-d a-c-d", has_disks=True, rate_mbps=10.0, delay_s=0.005)
    net.learn_routes(spare=1)
    for node in net.nodes.values():
        node.forwarder.strategies.set(names.parse("/"), ADAPTIVE)
    link = net.between("a", "b")
    link.fail_one_way("a" if dead == "there" else "b")
    ref = net.publish("d", 400_000)
    took = net.wait(net.nodes["a"].fetch(ref, "d"))
    assert took < 15, net.report()
    assert net.between("c", "a").from_("c").bulk_bytes >= ref.size


def test_duplicates_on_two_ways_are_dropped_where_they_meet(net: Network) -> None:
    """Multicast over two ways brings the Data once to each consumer, and no node keeps a pending entry."""
    #
    #       ┌── b ──┐
    #   a ──┤       ├── d
    #       └── c ──┘
    #
    net.build("a-b-d a-c-d", delay_s=0.01)
    for name, hops in {"a": "bc", "b": "d", "c": "d"}.items():
        for hop in hops:
            net.nodes[name].route("/p", hop)
    net.nodes["a"].forwarder.strategies.set(names.parse("/"), MULTICAST)
    producer = net.nodes["d"].app(serve="/p", answer=lambda interest: keys.sign_data(interest.name, b"x" * 1000))
    consumer = net.nodes["a"].app()
    for number in range(50):
        consumer.ask(f"/p/{number}")
    net.run(2)
    assert len(consumer.data) == 50 and len(producer.asked) == 50
    assert all(len(node.forwarder.pit) == 0 for node in net.nodes.values())


def test_two_holders_on_a_ring_each_serve_their_side(net: Network) -> None:
    """Consumers that name the nearer holder first leave the other side of the ring alone."""
    #
    #         n1 ─ n2 ─ n3
    #        /            \
    #   h0 ─                ─ h4         h0 and h4 hold the blob; n2 and n6 are fed half and half by none but
    #        \            /              the nearer side of whom they name
    #         n7 ─ n6 ─ n5
    #
    net.build("h0-n1-n2-n3-h4-n5-n6-n7-h0", has_disks=True, rate_mbps=10.0, delay_s=0.005)
    net.learn_routes()
    ref = net.publish("h0", 600_000)
    assert net.publish("h4", 600_000) == ref
    net.wait(net.nodes["n1"].fetch(ref, "h0", "h4"), net.nodes["n3"].fetch(ref, "h4", "h0"))
    packets = sum(objects.level_counts(ref.size))
    assert net.between("h0", "n1").from_("h0").packets == packets
    assert net.between("n3", "h4").from_("h4").packets == packets
    assert net.between("n1", "n2").bytes == net.between("n2", "n3").bytes == 0
