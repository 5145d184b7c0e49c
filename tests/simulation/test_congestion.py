"""Links that are shared: transfers get alike shares, and control packets pass bulk by."""

from __future__ import annotations

import asyncio
import statistics
from pathlib import Path

import pytest

from gateway.forwarder.endpoint import FetchError
from gateway.protocol import keys, names
from tests.simulation.network import Network, simulation

HELLO = names.HELLO + names.component("ask", names.KEYWORD)


def jain(shares: list[float]) -> float:
    """Jain's fairness index: 1 when all are alike, 1/n when one has everything."""
    return sum(shares) ** 2 / (len(shares) * sum(share * share for share in shares))


def y_of(net: Network, count: int, rate_mbps: float = 4.0, delays_s: tuple[float, ...] = ()) -> None:
    net.build("h-r-s", has_disks=True, rate_mbps=100.0, delay_s=0.005)
    net.between("r", "s").there.set_rate(rate_mbps)
    for number in range(count):
        net.node(f"c{number}", has_disk=True)
        delay_s = delays_s[number] if delays_s else 0.005
        net.link("s", f"c{number}", delay_s=delay_s, rate_mbps=100.0)
    net.learn_routes()


@pytest.mark.parametrize("count", [2, 4])
def test_transfers_share_a_slow_link_fairly(net: Network, count: int) -> None:
    """Consumers of different blobs behind one slow link get alike shares of it, and fill it together."""
    #
    #                       ┌── c0
    #   h ───── r ───── s ──┼── c1
    #      100     4        └── …          Mbit/s
    #
    y_of(net, count)
    refs = [net.publish("h", 8_000_000, seed=n) for n in range(count)]
    for number, ref in enumerate(refs):
        net.nodes[f"c{number}"].fetch(ref, "h")
    net.run(5)
    before = [net.nodes[f"c{n}"].to["s"].counters.in_data_bytes for n in range(count)]
    net.run(15)
    shares = [float(net.nodes[f"c{n}"].to["s"].counters.in_data_bytes - before[n]) for n in range(count)]
    assert jain(shares) >= 0.9, shares
    assert sum(shares) >= 0.85 * 15 * 500_000, net.table()


def test_a_transfer_that_comes_later_gets_its_share(net: Network) -> None:
    """Who begins when another fills the link already has a fair share within seconds."""
    # the drawing above, with c0 and c1; c1 begins 10 s later
    y_of(net, 2)
    first, second = (net.publish("h", 12_000_000, seed=n) for n in range(2))
    net.nodes["c0"].fetch(first, "h")
    net.run(10)
    net.nodes["c1"].fetch(second, "h")
    net.run(10)
    before = [net.between("s", c).bytes for c in ("c0", "c1")]
    net.run(15)
    shares = [float(net.between("s", c).bytes - b) for c, b in zip(("c0", "c1"), before, strict=True)]
    assert jain(shares) >= 0.85, shares


def test_a_longer_path_is_not_starved(net: Network) -> None:
    """A consumer that is 80 ms away has a share beside one that is 5 ms away."""
    # the drawing above; the link to c1 has a delay of 40 ms
    y_of(net, 2, delays_s=(0.0025, 0.04))
    refs = [net.publish("h", 12_000_000, seed=n) for n in range(2)]
    for number, ref in enumerate(refs):
        net.nodes[f"c{number}"].fetch(ref, "h")
    net.run(5)
    before = [net.between("s", c).bytes for c in ("c0", "c1")]
    net.run(15)
    shares = [float(net.between("s", c).bytes - b) for c, b in zip(("c0", "c1"), before, strict=True)]
    assert jain(shares) >= 0.7, shares


@pytest.mark.parametrize("rate_mbps", [1.0, 4.0, 20.0])
def test_hellos_are_timely_beside_a_transfer(net: Network, rate_mbps: float) -> None:
    """While a transfer fills a link, a small packet waits for little more than the one that is being sent."""
    #
    #   a ═════════ b       a fetches from b; both ask each other who they are, ten times a second
    #
    net.build("a-b", has_disks=True, rate_mbps=rate_mbps, delay_s=0.002)
    net.learn_routes()
    ref = net.publish("b", int(rate_mbps * 125_000 * 12))
    round_trips: dict[str, list[float]] = {"a": [], "b": []}
    for name, other in (("a", "b"), ("b", "a")):
        node = net.nodes[name]
        face = node.internal("hello")
        face.endpoint.serve(HELLO, lambda interest: keys.sign_data(interest.name, bytes(200)))
        node.forwarder.fib.add(HELLO, face.id, 0, "internal")
        node.start(ask_often(net, face.endpoint, node.to[other].id, round_trips[name]))
    transfer = net.nodes["a"].fetch(ref, "b")
    net.run(10)
    assert not transfer.done()
    packet_s = 8200 / (rate_mbps * 125_000)
    for times in round_trips.values():
        assert len(times) >= 90
        assert statistics.median(times) < 0.01 + packet_s and max(times) < 0.02 + 2 * packet_s, max(times)


async def ask_often(net: Network, endpoint, face_id: int, round_trips: list[float]) -> None:  # type: ignore[no-untyped-def]
    while True:
        asked = net.now
        name = HELLO + names.component(net.random.randbytes(8))
        try:
            await endpoint.express(name, next_hop_face=face_id, lifetime_ms=2000)
        except FetchError:
            round_trips.append(2.0)
        else:
            round_trips.append(net.now - asked)
        await asyncio.sleep(max(0.0, asked + 0.1 - net.now))


def test_a_transfer_keeps_the_queue_short(net: Network) -> None:
    """A transfer alone on a slow link fills it without losing to its own queue: marks and delay hold it back."""
    #
    #   a ───────── b       4 Mbit/s, a queue of a quarter of a second
    #
    net.build("a-b", has_disks=True, rate_mbps=4.0, delay_s=0.01)
    net.learn_routes()
    size = 6_000_000
    took = net.wait(net.nodes["a"].fetch(net.publish("b", size), "b"))
    direction = net.between("a", "b").from_("b")
    assert direction.overflowed <= 0.02 * direction.packets, net.table()
    assert took <= 1.15 * size * 8 / 4e6
    assert direction.bulk_bytes <= 1.03 * 1.02 * size


@pytest.mark.parametrize("round_trip_s", [0.02, 0.1, 0.2])
def test_what_is_near_already_never_makes_a_transfer_slower(tmp_path: Path, round_trip_s: float) -> None:
    """A tenth of a blob is in the consumer's own memory: the whole takes no longer for it, or hardly."""
    #
    #   d ── c ───────── r ───────── h       d has fetched a tenth through c, then it went away
    #
    times = []
    for share in (0.0, 0.1):
        directory = tmp_path / str(share)
        directory.mkdir()
        with simulation(directory) as net:
            net.build("c-r-h", has_disks=True, cache_bytes=16 << 20, rate_mbps=20.0, delay_s=round_trip_s / 4)
            net.build("d-c", has_disks=True, rate_mbps=20.0, delay_s=0.001)
            net.learn_routes()
            ref = net.publish("h", 6_000_000)
            net.nodes["d"].fetch(ref, "h")
            while net.nodes["d"].consumer.bytes < share * ref.size:
                net.run(0.05)
            net.nodes["d"].power_off()
            net.run(5)
            times.append(net.wait(net.nodes["c"].fetch(ref, "h")))
    assert times[1] <= 1.2 * times[0], times
