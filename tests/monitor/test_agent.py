"""The agent among neighbours, in virtual time over links with rate, delay, burst and loss."""

from __future__ import annotations

import asyncio
from random import Random

import cbor2
import pytest

from gateway.monitor.links import FaceSample, LinkTable
from gateway.monitor.schedule import Demand
from gateway.protocol import codec, keys, names
from gateway.protocol.errors import UnknownKey
from gateway.protocol.messages import Hello, NodeReport
from tests.monitor.virtual import NETWORK, Channel, Node, connect, live, rows, run


@pytest.mark.parametrize("rate_mbps", [0.3, 1.0, 5.0, 21.8, 100.0, 300.0, 1000.0])
@pytest.mark.parametrize("burst_bytes", [0, 16_000, 64_000, 200_000])
def test_link_rate_is_measured_within_a_fifth(rate_mbps: float, burst_bytes: int) -> None:
    """A link of 0.3 to 1000 Mbit/s is measured within 20 %, whatever burst its token bucket lets through."""
    delay_s = 0.0005 if rate_mbps > 100 else 0.005

    async def scene() -> float:
        a, b = Node("a", 1), Node("b", 2)
        connect(a, b, Channel(rate_mbps, delay_s, burst_bytes), Channel(rate_mbps, delay_s, burst_bytes))
        await live(25, a, b)
        assert rows(a)[0]["rx"]["source"] == "probe"
        return float(rows(a)[0]["rx"]["mbps"])

    assert run(scene()) == pytest.approx(rate_mbps, rel=0.2)


@pytest.mark.parametrize(
    ("rate_mbps", "read_every_s"),
    [(0.3, 0.05), (1.0, 0.05), (5.0, 0.02), (21.8, 0.02), (100.0, 0.005), (300.0, 0.004), (1000.0, 0.001)],
)
@pytest.mark.parametrize("burst_bytes", [0, 64_000, 200_000])
def test_link_rate_is_measured_by_a_busy_receiver(rate_mbps: float, read_every_s: float, burst_bytes: int) -> None:
    """A receiver that reads only now and then, and then all at once, finds the link's rate within 20 %."""
    delay_s = 0.0005 if rate_mbps > 100 else 0.005

    async def scene() -> float:
        a, b = Node("a", 1), Node("b", 2)
        channels = [Channel(rate_mbps, delay_s, burst_bytes, read_every_s=read_every_s) for _ in "ab"]
        connect(a, b, *channels)
        await live(25, a, b)
        assert rows(a)[0]["rx"]["source"] == "probe"
        return float(rows(a)[0]["rx"]["mbps"])

    assert run(scene()) == pytest.approx(rate_mbps, rel=0.2)


def test_a_link_that_came_up_late_has_no_loss() -> None:
    """Hellos into the void before a neighbour first answered are not its loss; later ones are."""

    async def scene() -> None:
        a, b = Node("a"), Node("b", 2)
        there, back = Channel(50.0), Channel(50.0, is_cut=True)
        connect(a, b, there, back)
        working = asyncio.ensure_future(live(60, a, b))
        await asyncio.sleep(5)
        assert rows(a)[0]["loss"] is None and rows(a)[0]["state"] == "silent"
        back.is_cut = False
        await asyncio.sleep(20)
        assert rows(a)[0]["loss"] == 0.0
        back.is_cut = True
        await asyncio.sleep(30)
        assert rows(a)[0]["loss"] > 0.0
        await working

    run(scene())


def test_first_figure_comes_promptly_for_both_directions() -> None:
    """Ten seconds after a face came up both ends know what it carries, each direction for itself."""

    async def scene() -> None:
        a, b = Node("a"), Node("b", 2)
        connect(a, b, Channel(30.0), Channel(4.0))
        await live(10, a, b)
        assert rows(a)[0]["rx"]["mbps"] == pytest.approx(4.0, rel=0.2)
        assert rows(a)[0]["tx"]["mbps"] == pytest.approx(30.0, rel=0.2)
        assert (rows(a)[0]["tx"]["source"], rows(b)[0]["tx"]["source"]) == ("peer", "peer")
        assert rows(b)[0]["tx"]["mbps"] == pytest.approx(4.0, rel=0.2)

    run(scene())


def test_false_configured_rate_changes_nothing() -> None:
    """What a neighbour section claims never reaches a figure: only the section's name crosses the interface."""

    async def scene() -> None:
        a, b = Node("a"), Node("b", 2)
        connect(a, b, Channel(2.0), Channel(2.0), neighbor="rate_1000M")
        await live(12, a, b)
        assert rows(a)[0]["neighbor"] == "rate_1000M"
        assert rows(a)[0]["rx"]["mbps"] == pytest.approx(2.0, rel=0.2)

    run(scene())


def test_probes_take_a_thousandth_of_the_time() -> None:
    """An idle link of 2 Mbit/s carries two hours of monitoring in less than 0.2 % of its capacity."""

    async def scene() -> None:
        a, b = Node("a"), Node("b", 2)
        there, back = Channel(2.0), Channel(2.0)
        connect(a, b, there, back)
        await live(30, a, b)
        first = back.sent_bytes
        tasks = asyncio.ensure_future(live(7200, a, b))
        await tasks
        assert rows(a)[0]["rx"]["age_s"] < 1500
        assert (back.sent_bytes - first) * 8 / 7200 < 0.002 * 2e6

    run(scene())


def test_two_ends_do_not_probe_at_once() -> None:
    """Over twenty starts no two ends of a link ever have a train on the way at the same time."""

    async def scene(seed: int) -> int:
        a, b = Node("a", seed), Node("b", seed + 100)
        connect(a, b, Channel(3.0), Channel(3.0))
        both = 0

        async def look() -> None:
            nonlocal both
            for _ in range(240):
                await asyncio.sleep(0.05)
                both += a.ports[1].outstanding > 3 and b.ports[1].outstanding > 3

        await asyncio.gather(live(12, a, b), look())
        assert rows(a)[0]["rx"] and rows(b)[0]["rx"]
        return both

    assert sum(run(scene(seed)) for seed in range(20)) == 0


def test_round_trip_and_loss_are_measured() -> None:
    """The round trip is the link's, and lost hellos show in the loss of the last 16."""

    async def scene() -> None:
        a, b = Node("a"), Node("b", 2)
        connect(a, b, Channel(50.0, 0.02), Channel(50.0, 0.03, loss=0.4))
        await live(400, a, b)
        row = rows(a)[0]
        assert row["rtt_ms"] == pytest.approx(50.0, rel=0.05)
        assert 0.1 < row["loss"] < 0.75

    run(scene())


def test_cut_link_is_reported_down_and_comes_back() -> None:
    """Three failed hellos take a face down and tell the daemon; it is up again soon after the link is."""

    async def scene() -> None:
        a, b = Node("a"), Node("b", 2)
        there, back = Channel(50.0), Channel(50.0)
        connect(a, b, there, back)
        working = asyncio.ensure_future(live(400, a, b))
        await asyncio.sleep(20)
        there.is_cut = back.is_cut = True
        await asyncio.sleep(100)
        assert rows(a)[0]["state"] == "down"
        assert a.silent == [(1, "b")]
        assert rows(a)[0]["reason"].startswith("unanswered")
        there.is_cut = back.is_cut = False
        await asyncio.sleep(80)
        assert rows(a)[0]["state"] == "up"
        await working

    run(scene())


def test_hello_carries_the_decision_order() -> None:
    """A neighbour's newer head reaches the daemon with the next hello on the face it came from."""

    async def scene() -> None:
        a, b = Node("a"), Node("b", 2)
        connect(a, b, Channel(50.0), Channel(50.0))
        b.order = (3, 9)
        await live(3, a, b)
        face, hello = a.heard[-1]
        assert (face, hello.node, hello.epoch, hello.version) == (1, "b", 3, 9)

    run(scene())


def test_many_neighbours_are_all_measured() -> None:
    """A node with eight neighbours knows all its links, one probe after the other, within half a minute."""

    async def scene() -> None:
        hub = Node("m")
        others = [Node(name, seed) for seed, name in enumerate("abcdwxyz")]
        for index, other in enumerate(others):
            connect(hub, other, Channel(5.0 + index), Channel(5.0 + index))
        await live(30, hub, *others)
        for index, row in enumerate(rows(hub)):
            assert row["rx"]["mbps"] == pytest.approx(5.0 + index, rel=0.2)

    run(scene())


def test_two_faces_to_one_neighbour_are_one_link() -> None:
    """When both ends dialled each other the report has one link, measured once."""

    async def scene() -> None:
        a, b = Node("a"), Node("b", 2)
        connect(a, b, Channel(9.0), Channel(9.0), neighbor="")
        connect(a, b, Channel(9.0), Channel(9.0), neighbor="section")
        await live(20, a, b)
        assert len(rows(a)) == 2
        (link,) = codec.decode(NodeReport, keys.parse(await a.agent.report()).content).links
        assert (link.node, link.neighbor, link.state) == ("b", "section", "up")
        assert a.agent.counters["probes"] == 1

    run(scene())


def test_own_name_at_the_other_end_is_no_neighbour() -> None:
    """A face that leads back to this node is counted and never becomes a link."""

    async def scene() -> None:
        a, twin = Node("a"), Node("a", 2)
        connect(a, twin, Channel(9.0), Channel(9.0))
        await live(5, a, twin)
        assert a.agent.counters["hellos_self"] > 0
        assert rows(a)[0]["state"] == "silent"

    run(scene())


HELLO_B = Hello("b", "0000000001-", 5)


def _forged(content: bytes, node: str = "b") -> bytes:
    return keys.sign_data(names.HELLO + names.component(node) + names.version(1), content)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\xff" * 100,
        b"\x06\x05\x07\x03abc",
        _forged(b""),
        _forged(b"\xa1\x01"),
        _forged(codec.encode(HELLO_B), node="c"),
        _forged(codec.encode(Hello("b" * 65, "x", 1)), node="b" * 65),
        _forged(codec.encode(Hello("", "x", 1)), node=""),
        keys.sign_data(NETWORK.node("b"), codec.encode(HELLO_B)),
    ],
)
def test_broken_hello_is_counted_and_dropped(content: bytes) -> None:
    """Whatever a neighbour answers to a hello, the agent counts it, goes on, and believes nothing of it."""

    async def scene() -> None:
        a, b = Node("a"), Node("b", 2)
        connect(a, b, Channel(9.0), Channel(9.0))
        task = asyncio.ensure_future(live(12, a))
        b.serve(names.HELLO, lambda interest: keys.sign_data(interest.name, content))
        await task
        dropped = a.agent.counters["hellos_malformed"] + a.agent.counters["hellos_unverified"]
        assert dropped >= 3
        assert a.agent.counters["defects"] == 0
        assert a.heard == []
        assert rows(a)[0]["state"] == "silent"

    run(scene())


def test_repeated_old_hello_is_dropped() -> None:
    """A recorded hello that is older than what the neighbour said before does not count as heard."""

    async def scene() -> None:
        a, b = Node("a"), Node("b", 2)
        connect(a, b, Channel(9.0), Channel(9.0))
        answers = [Hello("b", "x", 5), Hello("b", "x", 4), Hello("b", "x", 4), Hello("b", "x", 4)]
        b.serve(
            names.HELLO,
            lambda i: keys.sign_data(i.name, _forged(codec.encode(answers.pop(0)))) if answers else None,
        )
        b.serve(names.PROBE, lambda interest: None)
        await live(45, a)
        assert a.agent.counters["hellos_old"] == 3
        assert a.silent == [(1, "b")]

    run(scene())


def test_lie_about_what_is_heard_is_not_believed() -> None:
    """A peer's impossible or merely guessed figure of our own link is left out."""

    async def scene(mbps: float, source: str) -> object:
        a, b = Node("a"), Node("b", 2)
        connect(a, b, Channel(9.0), Channel(9.0))
        plain = cbor2.loads(codec.encode(HELLO_B))
        plain[7] = [{1: "a", 2: 16, 3: {1: mbps, 2: source, 4: 0.9}}]
        b.serve(names.HELLO, lambda i: keys.sign_data(i.name, _forged(cbor2.dumps(plain))))
        await live(2, a)
        assert rows(a)[0]["state"] == "up"
        return rows(a)[0]["tx"]

    assert run(scene(-3.0, "probe")) is None
    assert run(scene(1e30, "probe")) is None
    assert run(scene(10.0, "class")) is None
    assert run(scene(10.0, "probe"))["mbps"] == 10.0


def test_unknown_key_is_told_and_the_hello_is_tried_again() -> None:
    """A hello signed by an unknown key leads to a request for its certificate, and counts once that is there."""

    async def scene() -> None:
        a, b = Node("a"), Node("b", 2)
        connect(a, b, Channel(9.0), Channel(9.0))
        known: list[bytes] = []

        def verify(wire: bytes) -> keys.Packet:
            if not known:
                raise UnknownKey(b"\x08\x01k", "the certificate of k is not known")
            return keys.parse(wire)

        a.verifier = verify
        task = asyncio.ensure_future(live(6, a, b))
        await asyncio.sleep(1)
        assert a.unknown_keys[:1] == [b"\x08\x01k"]
        assert a.heard == []
        known.append(b"k")
        await task
        assert rows(a)[0]["state"] == "up"

    run(scene())


def test_failing_probe_does_not_stop_the_agent() -> None:
    """A neighbour that answers hellos but no probes stays up, with the reason beside its missing figure."""

    async def scene() -> None:
        a, b = Node("a"), Node("b", 2)
        connect(a, b, Channel(9.0), Channel(9.0))
        task = asyncio.ensure_future(live(40, a, b))
        await asyncio.sleep(0)
        await asyncio.sleep(0.01)
        for prefix in [p for p in b.handlers if p.startswith(names.PROBE)]:
            del b.handlers[prefix]
        await task
        row = rows(a)[0]
        assert (row["state"], row["rx"]) == ("up", None)
        assert "0 of 8 packets" in row["reason"]
        assert a.agent.counters["probes_failed"] >= 2

    run(scene())


def test_report_is_fresh_signed_and_rises() -> None:
    """The report is made anew after a second, its name's version rises, and it bears the node's signature."""

    async def scene() -> None:
        key = keys.Key.generate(NETWORK.node("a"))
        a, b = Node("a", key=key, boot=3), Node("b", 2)
        connect(a, b, Channel(9.0), Channel(9.0))
        task = asyncio.ensure_future(live(14, a, b))
        await asyncio.sleep(12)
        prefix = NETWORK.report("a")
        first = keys.parse(await a.ask(prefix) or b"")
        again = keys.parse(await a.ask(prefix) or b"")
        await asyncio.sleep(1.1)
        second = keys.parse(await a.ask(prefix) or b"")
        assert first.wire == again.wire
        versions = [names.last_number(p.name, names.VERSION) or 0 for p in (first, second)]
        assert versions[1] == versions[0] + 1 > 3 << 32
        assert keys.PublicKey(key.name, key.spki).verifies(second)
        report = codec.decode(NodeReport, second.content)
        assert (report.node, report.boot_id[:10], report.runtimes) == ("a", "0000000003", ("oci",))
        assert report.links[0].node == "b" and report.links[0].rx is not None
        assert report.services[0].name == "web" and report.forwarder.interests == 7
        assert await a.ask(prefix + names.version(1)) is None
        assert await a.ask(second.name) == second.wire
        await task

    run(scene())


async def _transfer(node: Node, window: int, seconds: float) -> None:
    """An application that keeps `window` Interests outstanding."""
    until = asyncio.get_running_loop().time() + seconds
    prefix = names.parse("/app/file")

    async def worker(number: int) -> None:
        segment = number << 32
        while asyncio.get_running_loop().time() < until:
            segment += 1
            await node.express(prefix + names.segment(segment), lifetime_ms=30_000, next_hop_face=1)

    await asyncio.gather(*(worker(n) for n in range(window)))


def _serve_file(node: Node) -> None:
    node.serve(names.parse("/app/file"), lambda interest: keys.sign_data(interest.name, bytes(8000)))


def test_application_limited_transfer_does_not_lower_the_figure() -> None:
    """An application that asks for one segment after the other leaves the figure of a faster link as it was."""

    async def scene() -> None:
        a, b = Node("a"), Node("b", 2)
        connect(a, b, Channel(40.0, 0.02), Channel(40.0, 0.02))
        _serve_file(b)
        working = asyncio.ensure_future(live(100, a, b))
        await asyncio.sleep(15)
        for window in (1, 2):
            await _transfer(a, window, 40)
            assert rows(a)[0]["rx"]["mbps"] == pytest.approx(40.0, rel=0.05)
            assert rows(a)[0]["rx"]["source"] == "probe"
        await working

    run(scene())


def test_bulk_transfer_is_a_measurement() -> None:
    """A link that became faster is known by the first bulk transfer over it, without a probe."""

    async def scene() -> None:
        a, b = Node("a"), Node("b", 2)
        back = Channel(5.0)
        connect(a, b, Channel(20.0), back)
        _serve_file(b)
        working = asyncio.ensure_future(live(60, a, b))
        await asyncio.sleep(15)
        assert rows(a)[0]["rx"]["mbps"] == pytest.approx(5.0, rel=0.1)
        back.rate_mbps = 20.0
        await _transfer(a, 32, 8)
        assert rows(a)[0]["rx"]["mbps"] == pytest.approx(20.0, rel=0.1)
        assert rows(a)[0]["rx"]["source"] == "goodput"
        await working

    run(scene())


def test_slower_link_is_found_by_a_probe_after_the_transfer() -> None:
    """A bulk transfer slower than the figure is doubted first; the probe after it decides what is reported."""

    async def scene() -> None:
        a, b = Node("a"), Node("b", 2)
        back = Channel(20.0)
        connect(a, b, Channel(20.0), back)
        _serve_file(b)
        working = asyncio.ensure_future(live(60, a, b))
        await asyncio.sleep(15)
        back.rate_mbps = 4.0
        await _transfer(a, 32, 20)
        assert rows(a)[0]["rx"]["mbps"] == pytest.approx(20.0, rel=0.1)
        await asyncio.sleep(9)
        assert rows(a)[0]["rx"]["mbps"] == pytest.approx(4.0, rel=0.1)
        await working

    run(scene())


def test_bytes_of_a_probe() -> None:
    """Each way a probe of 2, 6, 20 or 100 Mbit/s takes what a quarter of a second carries, and never two megabytes."""

    async def scene(rate_mbps: float) -> int:
        a, b = Node("a"), Node("b", 2)
        delay_s = 0.0005 if rate_mbps > 100 else 0.005
        channels = Channel(rate_mbps, delay_s), Channel(rate_mbps, delay_s)
        connect(a, b, *channels)
        await live(15, a, b)
        assert rows(a)[0]["rx"]["mbps"] == pytest.approx(rate_mbps, rel=0.1)
        return max(channel.sent_bytes for channel in channels)

    for rate_mbps, limit in ((2.0, 200_000), (6.0, 220_000), (20.0, 680_000), (100.0, 1_450_000), (1000.0, 2_100_000)):
        assert run(scene(rate_mbps)) < limit, rate_mbps


def test_a_contact_of_a_ferry_is_left_to_its_blobs() -> None:
    """Contacts of 15 s each take no probe while something is wanted at both ends, one of 40 s takes one each way."""

    async def scene(contact_s: float) -> int:
        a, b = Node("a"), Node("b", 2)
        there, back = Channel(20.0), Channel(20.0)
        connect(a, b, there, back)
        a.demanded = b.demanded = Demand.WAITING
        working = asyncio.ensure_future(live(5 * (contact_s + 60), a, b))
        for _ in range(5):
            there.is_cut = back.is_cut = False
            for node in (a, b):
                node.agent.on_link_event()
            await asyncio.sleep(contact_s)
            there.is_cut = back.is_cut = True
            await asyncio.sleep(60)
        await working
        return a.agent.counters["probes"] + b.agent.counters["probes"]

    assert run(scene(15.0)) == 0
    assert run(scene(40.0)) == 2


def test_who_was_away_or_restarted_is_met_anew() -> None:
    """The 20 s of a contact count from its first hello, and again after silence, a restart, or a face that was down."""
    table = LinkTable("a", Random(1))

    def look(now: float, up: bool = True) -> None:
        table.update(now, [FaceSample(1, "", "tcp4://10.0.0.2:6363", "tcp4://10.0.0.1:6363", up, False, 0, 0, 0, 0)])

    def met_at(now: float, boot_id: str = "1") -> float:
        table.on_hello(now, 1, Hello("b", boot_id, int(now)), 0.01)
        return table.contacts[1].met_at

    look(0.0)
    assert met_at(1.0) == met_at(5.0) == 1.0
    assert met_at(6.0, "2") == met_at(7.0, "2") == 6.0
    for now in (8.0, 9.0, 10.0):
        table.on_hello_failed(now, 1, "unanswered")
    assert met_at(11.0, "2") == 11.0
    look(12.0, up=False)
    look(13.0)
    assert met_at(14.0, "2") == 13.0


def test_what_one_end_wants_holds_up_its_probe() -> None:
    """A node that fetches probes nothing; when that is over both figures come within seconds, one after the other."""

    async def scene() -> None:
        a, b = Node("a"), Node("b", 2)
        connect(a, b, Channel(9.0), Channel(9.0))
        a.demanded = b.demanded = Demand.MOVING
        working = asyncio.ensure_future(live(80, a, b))
        await asyncio.sleep(60)
        assert a.agent.counters["probes"] == b.agent.counters["probes"] == 0
        a.demanded = b.demanded = Demand.NONE
        await asyncio.sleep(8)
        assert a.agent.counters["probes"] == b.agent.counters["probes"] == 1
        await working

    run(scene())


def test_bulk_on_one_link_holds_up_the_probes_of_others() -> None:
    """While a node serves a file over one link it probes no other one, nor in the seconds between two files."""

    async def scene() -> None:
        a, b, c = Node("a"), Node("b", 2), Node("c", 3)
        there = Channel(9.0, is_cut=True)
        connect(b, a, Channel(9.0), Channel(9.0))
        connect(a, c, there, Channel(9.0))
        _serve_file(a)
        working = asyncio.ensure_future(live(120, a, b, c))
        await asyncio.sleep(15)
        probes = a.agent.counters["probes"]
        assert probes == 1
        there.is_cut = False
        a.agent.on_link_event()
        c.agent.on_link_event()
        for _ in range(4):
            await _transfer(b, 8, 10)
            await asyncio.sleep(3)
        assert (rows(a)[1]["state"], a.agent.counters["probes"]) == ("up", probes)
        await asyncio.sleep(12)
        assert a.agent.counters["probes"] == probes + 1
        assert rows(a)[1]["rx"]["source"] == "probe"
        await working

    run(scene())


def test_link_that_is_never_idle_follows_its_goodput() -> None:
    """Where a transfer leaves no idle moment for a probe, a minute of lower goodput is believed."""

    async def scene() -> None:
        a, b = Node("a"), Node("b", 2)
        back = Channel(8.0)
        connect(a, b, Channel(8.0), back)
        _serve_file(b)
        working = asyncio.ensure_future(live(120, a, b))
        await asyncio.sleep(15)
        back.rate_mbps = 3.0
        await _transfer(a, 32, 80)
        assert rows(a)[0]["rx"]["mbps"] == pytest.approx(3.0, rel=0.1)
        await working

    run(scene())


def test_a_face_with_a_new_connection_is_greeted_at_once() -> None:
    """Also while the answer to a hello that went over the one before is awaited; the other faces have no part in it."""
    table = LinkTable("a", Random(1))
    samples = [
        FaceSample(i, "", f"tcp4://10.0.0.{i}:6363", "tcp4://10.0.1.1:6363", True, False, 0, 0, 0, 0) for i in (1, 2)
    ]
    table.update(0.0, samples)
    assert table.due_hellos(0.0) == [1, 2]
    table.on_face_up(0.5, 2)
    table.on_face_up(0.5, 99)
    assert table.due_hellos(0.5) == [2]


def test_a_hello_lost_with_its_connection_is_said_again() -> None:
    """The neighbour is heard as soon as the connection is there, not when the lost hello would be given up."""

    async def scene() -> None:
        there = Channel(9.0, is_cut=True)
        a, b = Node("a"), Node("b", 2)
        connect(a, b, there, Channel(9.0))
        living = asyncio.ensure_future(live(1.2, a, b))
        await asyncio.sleep(1.0)
        there.is_cut = False
        assert a.heard == []
        a.agent.on_face_up(1)
        await living
        assert [face for face, _ in a.heard] == [1]

    run(scene())
