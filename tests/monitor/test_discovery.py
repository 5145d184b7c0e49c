"""Who is dialled after having been heard by multicast, and for how long."""

from __future__ import annotations

import asyncio
from random import Random

import pytest

from gateway.monitor import discovery
from gateway.monitor.contact import Contact, FaceSample
from gateway.monitor.discovery import DISCOVERED_MAX, SHUN_S, SILENT_S, UNPROVEN_S, YIELD_S, Discovery, choose_uri
from gateway.monitor.linklayer import Address, Interface, LinkLayer
from gateway.monitor.schedule import HelloSchedule
from gateway.protocol import codec, keys, names
from gateway.protocol.messages import Hello
from tests.monitor.virtual import Asked, Channel, Node, connect, live, run

LAYER = LinkLayer(
    (Interface(1, "lo", "up"), Interface(2, "mesh0", "up", mac="02:00:00:00:00:02"), Interface(3, "eth0", "up")),
    (
        Address(1, "127.0.0.1/8", False),
        Address(2, "10.1.0.1/16", True),
        Address(2, "fe80::2/64", False),
        Address(3, "192.0.2.1/24", True),
    ),
)


def hello(node: str, *faces: str) -> Hello:
    return Hello(node, "boot", 1, faces=faces or (f"tcp4://10.1.0.{ord(node[-1])}:6363",))


def contact(face: int, neighbor: str, node: str, uri: str = "tcp4://10.1.0.98:6363", up: bool = True) -> Contact:
    sample = FaceSample(face, neighbor, uri, "tcp4://10.1.0.1:6363", up, False, 0, 0, 0, 0)
    return Contact(sample, HelloSchedule(0.0, Random(1)), node=node)


@pytest.mark.parametrize(
    ("faces", "uri"),
    [
        (["tcp4://192.0.2.9:6363", "tcp4://10.1.0.7:6363"], "tcp4://10.1.0.7:6363"),
        (["tcp6://[fe80::7]:6363"], "tcp6://[fe80::7%mesh0]:6363"),
        (["udp4://10.1.0.7:6363"], "udp4://10.1.0.7:6363"),
        (["tcp4://10.1.0.1:6363"], ""),
        (["tcp4://198.51.100.1:6363", "tcp4://127.0.0.1:6363", "tcp4://224.0.0.1:6363", "unix:///x"], ""),
        (["tcp6://[fe80::7%eth0]:6363", "tcp4://0.0.0.0:6363", "tcp4://[", ""], ""),
    ],
)
def test_only_what_is_on_the_link_is_dialled(faces: list[str], uri: str) -> None:
    """The first face whose address is on the interface itself; nobody makes us dial another network, or ourselves."""
    assert choose_uri(faces, "mesh0", LAYER) == uri


def test_one_of_two_dials() -> None:
    """Of two that hear each other the one whose name sorts first dials at once, the other when nothing has come."""
    first, second = Discovery("a"), Discovery("b")
    assert first.on_announcement(5.0, hello("b"), "mesh0", LAYER)
    assert second.on_announcement(5.0, hello("a"), "mesh0", LAYER)
    assert first.wanted(5.0, []) == (("heard:b", "tcp4://10.1.0.98:6363"),)
    assert second.wanted(5.0, []) == ()
    assert second.next_deadline(5.0) == 5.0 + YIELD_S
    assert second.wanted(5.0 + YIELD_S, [contact(1, "", "a")]) == ()
    assert second.wanted(5.0 + YIELD_S, []) == (("heard:a", "tcp4://10.1.0.97:6363"),)
    assert second.next_deadline(5.0 + YIELD_S) is None


def test_who_has_a_face_is_not_dialled() -> None:
    """A node behind another face, and an address that is a configured neighbour's, are left to those."""
    found = Discovery("a")
    found.on_announcement(0.0, hello("b"), "mesh0", LAYER)
    assert found.wanted(0.0, [contact(1, "", "b")]) == ()
    assert found.wanted(0.0, [contact(1, "cable", "", up=False)]) == ()
    assert found.wanted(0.0, [contact(1, "heard:b", "b")]) != ()


def test_silence_ends_it() -> None:
    """A discovered neighbour is kept while it answers, and until neither it nor an announcement was heard for long."""
    found = Discovery("a")
    found.on_announcement(0.0, hello("b"), "mesh0", LAYER)
    answering = contact(1, "heard:b", "b")
    for now in (1.0, 100.0, 300.0):
        assert found.wanted(now, [answering])
    assert found.wanted(300.0 + SILENT_S - 1, [])
    assert not found.wanted(300.0 + SILENT_S + 1, [])


def test_who_never_answers_is_shunned() -> None:
    """An announcer that no hello ever comes from is let go, and not dialled again for a while."""
    found = Discovery("a")
    found.on_announcement(0.0, hello("b"), "mesh0", LAYER)
    assert found.wanted(UNPROVEN_S - 1, [])
    assert not found.wanted(UNPROVEN_S + 1, [])
    assert not found.on_announcement(UNPROVEN_S + 2, hello("b"), "mesh0", LAYER)
    assert found.on_announcement(UNPROVEN_S + SHUN_S + 2, hello("b"), "mesh0", LAYER)


def test_a_thousand_names_put_out_no_neighbour() -> None:
    """However many names are announced, there is a limit, and nodes that have answered keep their place."""
    found = Discovery("a")
    found.on_announcement(0.0, hello("b"), "mesh0", LAYER)
    real = contact(1, "heard:b", "b")
    found.wanted(0.0, [real])
    for i in range(1000):
        found.on_announcement(i * 0.01, hello(f"n{i}", f"tcp4://10.1.{i // 250}.{i % 250 + 2}:6363"), "mesh0", LAYER)
        assert len(found.wanted(i * 0.01, [real])) <= DISCOVERED_MAX
    assert ("heard:b", "tcp4://10.1.0.98:6363") in found.wanted(9.99, [real])


# --- the agent ---------------------------------------------------------------------------------------------------


def member(name: str) -> Node:
    node = Node(name)
    node.layer, node.networks, node.sockets = LAYER, [(90, "mesh0")], [("tcp4", "0.0.0.0", 6363)]
    return node


def test_announcement_is_short_and_says_where() -> None:
    """On each network a signed hello of a few hundred bytes: the node, and where it may be dialled."""

    async def scene() -> None:
        a = member("a")
        await live(300, a)
        packet = keys.parse(a.announced[0])
        said = codec.decode(Hello, packet.content)
        assert said.node == "a" and said.faces[0] == "tcp4://10.1.0.1:6363"
        assert "fe80::2" in said.links and "02:00:00:00:00:02" in said.links
        assert len(a.announced[0]) < 500
        assert 5 <= len(a.announced) <= 12  # at once, then less and less often

    run(scene())


def test_heard_stranger_is_dialled_and_answered() -> None:
    """Who hears an unknown node dials it, and announces itself at once so that it is heard too."""

    async def scene() -> None:
        a = member("a")
        living = asyncio.ensure_future(live(10, a))
        await asyncio.sleep(3)
        before = len(a.announced)
        wire = keys.sign_data(names.HELLO + names.component("b") + names.version(1), codec.encode(hello("b")), None)
        interest = Asked(discovery.HERE + names.component(b"\x01" * 32, names.PARAMETERS_DIGEST), 90, wire)
        assert a.handlers[names.HELLO](interest) is None
        await asyncio.sleep(1)
        assert a.dialled == [(("heard:b", "tcp4://10.1.0.98:6363"),)]
        assert len(a.announced) == before + 1
        a.handlers[names.HELLO](Asked(interest.name, 90, b"\x06\x03abc"))
        a.handlers[names.HELLO](Asked(interest.name, 1, wire))
        assert a.agent.counters["announcements_malformed"] + a.agent.counters["announcements_unverified"] == 1
        assert a.agent.counters["announcements_heard"] == 2
        await living

    run(scene())


def test_both_know_that_both_hear() -> None:
    """Within a second of a link's coming up each end knows from the other's hello that it is heard."""

    async def scene() -> None:
        a, b = Node("a", 1), Node("b", 2)
        connect(a, b, Channel(20.0, 0.02), Channel(20.0, 0.02))
        await live(1.0, a, b)
        assert a.agent.table.contacts[1].is_mutual and b.agent.table.contacts[1].is_mutual

    run(scene())


def test_one_way_deafness_is_not_mutual() -> None:
    """A neighbour that answers but never says that it hears us is no way for the mesh, and is not asked for ever."""

    async def scene() -> None:
        a, b = Node("a", 1), Node("b", 2)
        connect(a, b, Channel(20.0), Channel(20.0))
        b.verifier = _refuse
        await live(20.0, a, b)
        contact = a.agent.table.contacts[1]
        assert contact.state == "up" and not contact.is_mutual
        assert a.agent.counters["hellos_accepted"] <= 12

    run(scene())


def _refuse(wire: bytes) -> keys.Packet:
    raise ValueError("not believed")


def test_link_event_is_a_hello_at_once() -> None:
    """After a link event a hello is out in the loop's next turn, whatever is waited for; a bad cable has its limit."""

    async def scene() -> None:
        a, b = member("a"), Node("b", 2)
        there = Channel(20.0)
        connect(a, b, there, Channel(20.0))
        living = asyncio.ensure_future(live(120, a, b))
        await asyncio.sleep(60)
        there.is_cut = True
        a.agent.on_link_event()
        await asyncio.sleep(0.001)
        announced = len(a.announced)
        there.is_cut = False
        accepted = a.agent.counters["hellos_accepted"]
        a.agent.on_link_event()
        await asyncio.sleep(0.001)
        assert len(a.announced) == announced + 1
        await asyncio.sleep(0.05)
        assert a.agent.counters["hellos_accepted"] == accepted + 1
        await asyncio.sleep(3)  # the lost one's failure counts for nothing
        assert a.agent.table.contacts[1].schedule.failures == 0
        sent = a.ports[1].out_bytes, len(a.announced)
        for _ in range(200):
            a.agent.on_link_event()
            await asyncio.sleep(0.05)
        assert len(a.announced) - sent[1] <= 20
        await living

    run(scene())


def test_news_are_asked_for_at_once() -> None:
    """When a node's routes change its neighbours have them within a second or two, not at the next hello."""

    async def scene() -> None:
        a, b = Node("a", 1), Node("b", 2)
        connect(a, b, Channel(20.0), Channel(20.0))
        living = asyncio.ensure_future(live(260, a, b))
        await asyncio.sleep(240)
        heard = len(b.heard)
        a.agent.tell_news()
        await asyncio.sleep(1.5)
        assert len(b.heard) == heard + 1
        await living

    run(scene())
