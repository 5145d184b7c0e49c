"""The simulator itself: what a link does to a packet, what a power cut does to a node, and that runs repeat."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

import pytest

from gateway.forwarder import packet
from gateway.protocol import keys, names
from tests.simulation.loop import VirtualLoop, run
from tests.simulation.network import Network, TookTooLong, data, simulation
from tests.simulation.routing import tree_to

MBIT_BYTES = 125_000


def sink(net: Network, sender: str, receiver: str) -> list[tuple[float, bytes]]:
    """What arrives at the receiver's end, with the time; its forwarder sees nothing of it."""
    arrived: list[tuple[float, bytes]] = []
    face = net.nodes[receiver].to[sender]
    face.arrive = lambda *wires: arrived.extend((net.now, wire) for wire in wires)  # type: ignore[method-assign]
    return arrived


def pair(net: Network, **link: object) -> tuple[Callable[..., None], list[tuple[float, bytes]]]:
    """a - b: sends from a, and what arrives at b."""
    net.build("a-b", **link)
    face = net.nodes["a"].to["b"]

    def send(size: int, bulk: bool = True) -> None:
        face.transmit(bytes((size & 0xFF,)) * size, bulk)

    return send, sink(net, "a", "b")


# --- links


def test_a_packet_takes_its_bytes_at_the_rate_and_the_delay(net: Network) -> None:
    """n packets handed over at once arrive one after the other, each after its own time on the link."""
    send, arrived = pair(net, rate_mbps=8.0, delay_s=0.02)
    for _ in range(10):
        send(1000)
    net.run(1)
    assert [when for when, _ in arrived] == pytest.approx([0.02 + 0.001 * n for n in range(1, 11)])
    assert net.between("a", "b").there.busy_s == pytest.approx(0.01)


def test_an_idle_link_owes_nothing(net: Network) -> None:
    """Time in which nothing is sent is neither saved up nor charged."""
    send, arrived = pair(net, rate_mbps=8.0, delay_s=0.0)
    send(1000)
    net.run(5)
    send(1000)
    send(1000)
    net.run(5)
    assert [when for when, _ in arrived] == pytest.approx([0.001, 5.001, 5.002])


def test_without_a_rate_only_the_delay_counts(net: Network) -> None:
    """A link without rate has no queue: all packets arrive after the delay, in their order."""
    send, arrived = pair(net, delay_s=0.3)
    for size in (5, 8000, 7):
        send(size)
    net.run(1)
    assert [(when, len(wire)) for when, wire in arrived] == [(0.3, 5), (0.3, 8000), (0.3, 7)]


def test_each_direction_has_its_own_rate(net: Network) -> None:
    """An asymmetric link carries each way at that way's rate, and the two do not wait for each other."""
    net.build("a-b", rate_mbps=(8.0, 1.0), delay_s=0.0)
    there, back = sink(net, "a", "b"), sink(net, "b", "a")
    for _ in range(10):
        net.nodes["a"].to["b"].transmit(bytes(1000), True)
        net.nodes["b"].to["a"].transmit(bytes(1000), True)
    net.run(1)
    assert there[-1][0] == pytest.approx(0.010) and back[-1][0] == pytest.approx(0.080)
    assert net.between("a", "b").from_("b").bytes == 10_000


def test_a_full_queue_drops_bulk_and_keeps_room_for_control(net: Network) -> None:
    """Beyond the queue's bytes bulk is dropped; small control packets still find room."""
    send, arrived = pair(net, rate_mbps=1.0, queue_bytes=10_000, delay_s=0.0)
    for _ in range(20):
        send(1000)
    direction = net.between("a", "b").there
    assert direction.overflowed == 20 - 11 and direction.peak_bytes == 10_000  # one is on the link, ten wait
    for _ in range(5):
        send(100, bulk=False)
    assert direction.overflowed == 9
    net.run(2)
    assert len(arrived) == 16 and direction.packets == 16 and direction.drops == 9


def test_control_goes_ahead_of_bulk_that_waits(net: Network) -> None:
    """A control packet waits for the packet that is on the link, and for no other bulk."""
    send, arrived = pair(net, rate_mbps=1.0, delay_s=0.0)
    for _ in range(5):
        send(1250)
    send(125, bulk=False)
    net.run(1)
    assert [len(wire) for _, wire in arrived] == [1250, 125, 1250, 1250, 1250, 1250]
    assert arrived[1][0] == pytest.approx(0.011)


def test_a_standing_queue_is_marked_and_a_short_one_is_not(net: Network) -> None:
    """Data that waits behind a queue which has stood for an interval bears a CongestionMark; a burst bears none."""
    net.build("a-b", rate_mbps=8.0, queue_bytes=200_000, delay_s=0.0)
    arrived, face = sink(net, "a", "b"), net.nodes["a"].to["b"]
    wire = data("/x", bytes(8000))
    for _ in range(5):
        face.transmit(wire, True)
    net.run(1)
    assert net.between("a", "b").there.marked == 0
    for _ in range(100):
        face.transmit(wire, True)
        face.transmit(wire, True)
        net.run(0.015)
    net.run(1)
    marks = [packet.decode_link(wire).congestion_mark for _, wire in arrived]
    assert 3 <= sum(marks) == net.between("a", "b").there.marked


def test_loss_takes_its_share_and_still_occupies_the_link(net: Network) -> None:
    """Of 2,000 packets a tenth is lost, give or take; what is lost was sent all the same."""
    send, arrived = pair(net, loss=0.1, rate_mbps=800.0, queue_bytes=10_000_000)
    for _ in range(2000):
        send(1000)
    net.run(5)
    direction = net.between("a", "b").there
    assert 150 < direction.lost < 250 and len(arrived) == 2000 - direction.lost
    assert direction.bytes == 2_000_000


def test_a_failed_link_loses_what_waits_and_what_is_under_way(net: Network) -> None:
    """fail() takes everything that has not arrived; after recover() the link is as new."""
    send, arrived = pair(net, rate_mbps=8.0, delay_s=0.5)
    link = net.between("a", "b")
    for _ in range(10):
        send(1000)
    net.run(0.505)  # 5 have arrived, the others are on the way
    link.fail()
    send(1000)
    net.run(1)
    assert len(arrived) == 5 and link.there.cut == 6
    link.recover()
    send(1000)
    net.run(1)
    assert len(arrived) == 6 and arrived[-1][0] == pytest.approx(1.505 + 0.501)


def test_one_way_failure_leaves_the_other_way(net: Network) -> None:
    """fail_one_way(a) cuts what a sends; what b sends arrives, and both faces are up."""
    net.build("a-b")
    there, back = sink(net, "a", "b"), sink(net, "b", "a")
    net.between("a", "b").fail_one_way("a")
    net.nodes["a"].to["b"].transmit(b"x", False)
    net.nodes["b"].to["a"].transmit(b"y", False)
    net.run(1)
    assert there == [] and [wire for _, wire in back] == [b"y"]
    assert net.nodes["a"].to["b"].up and net.nodes["b"].to["a"].up


def test_notice_is_what_tells_the_forwarders(net: Network) -> None:
    """Without notice an Interest waits for its lifetime; with notice it is refused at once."""
    net.build("a-b")
    consumer, link = net.nodes["a"].app(), net.between("a", "b")
    net.nodes["a"].route("/p", "b")
    link.fail()
    consumer.ask("/p/x", lifetime_ms=1000)
    net.run(0.9)
    assert consumer.nacks == [] and len(net.nodes["a"].forwarder.pit) == 1
    net.run(0.2)
    assert len(net.nodes["a"].forwarder.pit) == 0
    link.recover()
    link.fail(notice=True)
    consumer.ask("/p/y")
    net.run(0.01)
    assert consumer.nacks == [packet.NACK_NO_ROUTE]


def test_a_batch_on_a_link_without_rate_goes_by_the_fast_lane(net: Network) -> None:
    """Faces without a rate take the forwarder's batches, and count every byte once."""
    net.build("a-b")
    app, server = net.nodes["a"].app(), net.nodes["b"].app(serve="/p")
    net.nodes["a"].route("/p", "b")
    for number in range(50):
        app.ask(f"/p/{number}")
    net.run(1)
    face = net.nodes["a"].to["b"]
    assert face.lane is not None and len(app.data) == len(server.asked) == 50
    assert face.counters.out_bytes == net.between("a", "b").there.bytes == net.nodes["b"].to["a"].counters.in_bytes


# --- time


def test_the_loop_runs_coroutines_and_events_in_the_order_of_their_times() -> None:
    """Timers of coroutines and events of links are in one queue."""
    seen: list[tuple[str, float]] = []
    with VirtualLoop() as loop:

        async def work() -> None:
            await asyncio.sleep(1.5)
            seen.append(("work", loop.time()))

        for when in (1.0, 2.0):
            loop.at(when, lambda: seen.append(("event", loop.time())))
        loop.run_until_complete(work())
        loop.run_until(3.0)
        assert loop.now == 3.0
    assert seen == [("event", 1.0), ("work", 1.5), ("event", 2.0)]


def test_work_of_threads_takes_no_time_and_its_errors_come_back() -> None:
    """What goes to an executor is done on the spot; its exception is raised where it is awaited."""

    async def work() -> float:
        loop = asyncio.get_running_loop()
        assert await asyncio.to_thread(lambda: 7) == 7
        with pytest.raises(ZeroDivisionError):
            await loop.run_in_executor(None, lambda: 1 // 0)
        async with asyncio.timeout(5):
            await asyncio.sleep(4)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(1):
                await asyncio.sleep(4)
        return loop.time()

    assert run(work()) == 5.0


def test_waiting_for_what_never_happens_is_an_error() -> None:
    """A coroutine that nobody will wake is told so, instead of standing still forever."""

    async def work() -> None:
        await asyncio.get_running_loop().create_future()

    with pytest.raises(RuntimeError, match="nothing is scheduled"):
        run(work())


def test_an_error_in_an_event_ends_the_run(net: Network) -> None:
    """A bug in a handler is not swallowed."""

    def bug() -> None:
        raise ValueError("bug")

    net.loop.call_later(1.0, bug)
    with pytest.raises(ValueError, match="bug"):
        net.run(2)


def test_what_takes_too_long_is_told_with_its_trace(net: Network) -> None:
    """wait() gives up at its limit and shows links and packets in words."""
    net.build("a-b", has_disks=True)
    ref = net.publish("b", 20_000)
    net.nodes["a"].route("/net/blob", "b")
    net.between("a", "b").fail()
    with pytest.raises(TookTooLong) as error:
        net.wait(net.nodes["a"].fetch(ref), limit_s=3)
    text = str(error.value)
    assert "a-b fails" in text and "Interest /net/blob/" in text and "[cut]" in text and "a>b" in text


# --- runs


def lossy_run(directory: Path, seed: int) -> tuple[int, int, float]:
    directory.mkdir()
    with simulation(directory, seed) as net:
        net.build("a-b-c", has_disks=True, rate_mbps=20.0, loss=0.02)
        net.learn_routes()
        ref = net.publish("a", 400_000)
        net.nodes["c"].route("/p", "b")
        net.nodes["c"].app().ask("/p/with-a-random-nonce")
        took = net.wait(net.nodes["c"].fetch(ref, "a"))
        return net.fingerprint, net.bytes, took


def test_the_same_seed_gives_the_same_run(tmp_path: Path) -> None:
    """Every packet's time and bytes are the same with the same seed, and others with another."""
    first, again, other = (lossy_run(tmp_path / str(n), seed) for n, seed in enumerate((1, 1, 2)))
    assert first == again
    assert first[0] != other[0] and first[2] != other[2]


# --- power


def test_a_node_without_power_does_nothing_more(net: Network) -> None:
    """No coroutine of it goes on, not even in its finally; nothing it would answer is answered."""
    net.build("a-b")
    seen: list[str] = []

    async def work() -> None:
        try:
            while True:
                await asyncio.sleep(1)
                seen.append("tick")
        finally:
            seen.append("finally")

    net.nodes["b"].start(work())
    net.nodes["b"].app(serve="/p")
    net.nodes["a"].route("/p", "b")
    net.run(2.5)
    net.nodes["b"].power_off()
    consumer = net.nodes["a"].app()
    consumer.ask("/p/x")
    net.run(10)
    assert seen == ["tick", "tick"] and consumer.data == []
    net.nodes["b"].power_on()
    net.nodes["b"].app(serve="/p")
    consumer.ask("/p/y")
    net.run(1)
    assert consumer.contents == [b"answer"]


def test_a_simulation_ends_with_nodes_that_lost_power_at_any_moment(tmp_path: Path) -> None:
    """Whatever a coroutine was waiting for when its power went, the simulation can be closed."""
    for number in range(30):
        with simulation(tmp_path) as net:
            net.build("a-b")
            node, event = net.nodes["a"], asyncio.Event()

            async def work(event: asyncio.Event = event) -> None:
                while True:
                    await event.wait()
                    event.clear()
                    await asyncio.sleep(0.01)

            for _ in range(3):
                node.start(work())
            net.run(0.1)
            for step in range(20):
                net.at(0.1 + 0.01 * step, event.set)
            net.at(0.1 + 0.005 * number, node.power_off)
            net.run(1)


def test_a_power_cut_takes_what_was_not_synced(net: Network) -> None:
    """Whole blobs stay; of a partial one the segments that no bitmap on the disk vouches for are garbage."""
    net.build("a", has_disks=True)
    store, network = net.nodes["a"].store, net.names
    whole = net.publish("a", 30_000)
    content = net.random.randbytes(24_000)
    from gateway.protocol import objects

    ref = objects.describe_bytes(network, content)
    partial = store.begin(ref)
    leaves = [
        objects.PacketBuilder(network.blob(ref.sha256), 0, 3).build(i, content[8000 * i : 8000 * i + 8000])
        for i in range(3)
    ]
    partial.write(0, b"".join(packet.implicit_digest(wire) for wire in leaves), 1)
    partial.write(0, content[:8000])
    partial.sync()
    partial.write(1, content[8000:16000])
    net.nodes["a"].power_off()
    net.nodes["a"].power_on()
    again = net.nodes["a"].store
    assert again is not store and again.has(whole.sha256)
    left = again.begin(ref)
    assert list(left.missing()) == [1, 2]
    path = net.directory / "a" / "partial" / ref.sha256.hex()  # type: ignore[operator]
    assert path.read_bytes()[:16_000] == content[:8000] + b"\xee" * 8000
    again.release(left)


def test_configured_routes_are_back_after_a_start(net: Network) -> None:
    """route() outlives the power, like the file that it stands for; what was learnt does not."""
    net.build("a-b")
    net.nodes["a"].route("/p", "b")
    net.nodes["a"].forwarder.fib.add(names.parse("/q"), net.nodes["a"].to["b"].id, 1, "mesh")
    net.nodes["a"].power_off()
    net.nodes["a"].power_on()
    fib = net.nodes["a"].forwarder.fib
    assert [hop.face_id for hop in fib.longest_prefix_match(names.parse("/p/x"))] == [net.nodes["a"].to["b"].id]
    assert fib.longest_prefix_match(names.parse("/q")) == ()


# --- routes


def test_routes_take_the_least_time_and_spare_ones_never_lead_back(net: Network) -> None:
    """The fast way round is taken before the slow direct link; a spare next hop is nearer to the target."""
    #        b
    #   fast/ \fast
    #      a---c---d      a-c is slow
    #       slow
    for name in "abcd":
        net.node(name)
    net.link("a", "b", 0.001, rate_mbps=100.0)
    net.link("b", "c", 0.001, rate_mbps=100.0)
    net.link("a", "c", 0.001, rate_mbps=1.0)
    net.link("c", "d", 0.001, rate_mbps=100.0)
    net.learn_routes(spare=1)
    a = net.nodes["a"]
    hops = a.forwarder.fib.longest_prefix_match(net.names.node("d"))
    assert [a.forwarder.faces[hop.face_id].neighbor for hop in hops] == ["b", "c"]
    c = net.nodes["c"]
    hops = c.forwarder.fib.longest_prefix_match(net.names.node("d"))
    assert [c.forwarder.faces[hop.face_id].neighbor for hop in hops] == ["d"]
    assert tree_to(net, "d") == {"c": "d", "b": "c", "a": "b"}


def test_routes_follow_a_failure_after_the_convergence_time(net: Network) -> None:
    """With convergence_s the routes change so much later, and change back."""
    net.build("a-b-d a-c-d")
    net.convergence_s = 1.0
    net.learn_routes()
    a, link = net.nodes["a"], net.between("b", "d")

    def via() -> str:
        hops = a.forwarder.fib.longest_prefix_match(net.names.node("d"))
        return a.forwarder.faces[hops[0].face_id].neighbor

    assert via() == "b"
    link.fail()
    net.run(0.9)
    assert via() == "b"
    net.run(0.2)
    assert via() == "c"
    link.recover()
    net.run(1.1)
    assert via() == "b"


def test_the_trace_speaks_of_interests_data_and_nacks(net: Network) -> None:
    """Packets are told by kind and name, with hashes cut short, and events stand between them."""
    net.build("a-b")
    net.nodes["a"].route("/p", "b")
    consumer = net.nodes["a"].app()
    net.nodes["b"].app(serve="/p/yes", answer=lambda interest: keys.sign_data(interest.name, b"1234"))
    consumer.ask("/p/yes/" + "ab" * 32)
    consumer.ask("/p/no")
    net.run(1)
    net.between("a", "b").fail()
    text = "\n".join(net.trace.lines())
    for words in ("Interest /p/yes/abababab…", "Data /p/yes/abababab… (4 B)", "Nack (no route) /p/no", "a-b fails"):
        assert words in text, text
    assert net.trace.notes() == ["a-b fails"]
