"""A node that lies: whatever it answers, its neighbours' stores stay clean and blobs arrive whole."""

from __future__ import annotations

import hashlib

import pytest

from gateway.forwarder import packet
from gateway.forwarder.packet import Interest
from gateway.protocol import keys, names, objects
from gateway.protocol.messages import BlobRef
from tests.simulation.network import Network
from tests.simulation.node import Node

SIZE = 400_000


def forged(interest: Interest) -> bytes:
    """The right name, another content, as long as the real one."""
    return keys.sign_data(interest.name, b"\x66" * 8000)


def silence(interest: Interest) -> None:
    return None


def make_liar(node: Node, answer: object) -> None:
    """From now on the node answers everything below the network's prefix itself."""
    app = node.app(answer=answer)  # type: ignore[arg-type]
    for prefix in (node.network.names.prefix, node.network.names.blobs, node.network.names.nodes):
        node.forwarder.fib.add(prefix, app.id, 0, "app")
    for name in node.network.nodes:
        fib, prefix = node.forwarder.fib, node.network.names.node(name)
        for hop in fib.longest_prefix_match(prefix):
            fib.remove(prefix, hop.face_id)
        fib.add(prefix, app.id, 0, "app")
    node.forwarder.content_store.is_admitting = False


def real_digests(net: Network, ref: BlobRef, content: bytes) -> set[bytes]:
    """The implicit digests of all packets of a blob."""
    blob, counts = net.names.blob(ref.sha256), objects.level_counts(ref.size)
    digests: set[bytes] = set()
    level_content = content
    for level, count in enumerate(counts):
        builder = objects.PacketBuilder(blob, level, count)
        wires = [builder.build(i, level_content[8000 * i : 8000 * i + 8000]) for i in range(count)]
        level_digests = [hashlib.sha256(wire).digest() for wire in wires]
        digests.update(level_digests)
        level_content = b"".join(level_digests)
    return digests


def stores_are_clean(net: Network, ref: BlobRef, real: set[bytes], *honest: str) -> bool:
    """Whether every packet of the blob's name in the memory of these nodes is a real one."""
    blob = net.names.blob(ref.sha256)
    return all(
        hashlib.sha256(stored.wire).digest() in real
        for name in honest
        for packet_name, stored in net.nodes[name].forwarder.content_store.packets.items()
        if packet_name.startswith(blob)
    )


def diamond(net: Network) -> tuple[BlobRef, set[bytes]]:
    """c prefers the way over m."""
    net.build("c-r-m-h r-g-h", has_disks=True, rate_mbps=10.0, delay_s=0.005)
    net.between("r", "g").there.delay_s = net.between("r", "g").back.delay_s = 0.008
    net.learn_routes(spare=1)
    ref = net.publish("h", SIZE)
    return ref, real_digests(net, ref, net.nodes["h"].store.path(ref.sha256).read_bytes())


@pytest.mark.parametrize("answer", [forged, silence], ids=["forged", "nothing"])
def test_a_liar_on_the_preferred_way_does_not_stop_a_blob(net: Network, answer: object) -> None:
    """Forged answers are no answers to Interests with digests, silence times out: the other way brings the blob."""
    #
    #             ┌── m ──┐        m answers everything with forged packets, or nothing
    #   c ─── r ──┤       ├── h
    #             └── g ──┘
    #
    ref, real = diamond(net)
    make_liar(net.nodes["m"], answer)
    took = net.wait(net.nodes["c"].fetch(ref, "h"), limit_s=300)
    assert net.nodes["c"].has(ref) and took < 120, net.report()
    assert stores_are_clean(net, ref, real, "c", "r", "g", "h")


@pytest.mark.parametrize("answer", [forged, silence], ids=["forged", "nothing"])
def test_a_holder_that_lies_is_left_for_the_next_one(net: Network, answer: object) -> None:
    """A holder that the decision names and that lies costs a few retries, then another one is asked."""
    #
    #        m        says that it holds the blob
    #        │
    #   c ── r ── h   holds it
    #
    net.build("c-r-m r-h", has_disks=True, rate_mbps=10.0, delay_s=0.005)
    net.learn_routes()
    ref = net.publish("h", SIZE)
    real = real_digests(net, ref, net.nodes["h"].store.path(ref.sha256).read_bytes())
    make_liar(net.nodes["m"], answer)
    took = net.wait(net.nodes["c"].fetch(ref, "m", "h"), limit_s=300)
    assert took < 30, net.report()
    assert stores_are_clean(net, ref, real, "c", "r", "h")


def test_a_forged_flood_that_nobody_asked_for_changes_nothing(net: Network) -> None:
    """Ten forged packets under each name of a running transfer: none is stored, none passed on, none written."""
    #
    #   h ──── r ──── c
    #          │
    #          m   pushes forged Data for the names that c is asking for
    #
    net.build("h-r-c r-m", has_disks=True, rate_mbps=10.0, delay_s=0.005)
    net.learn_routes()
    ref = net.publish("h", SIZE)
    real = real_digests(net, ref, net.nodes["h"].store.path(ref.sha256).read_bytes())
    blob, count = net.names.blob(ref.sha256), objects.segment_count(SIZE)
    push, forgeries = (
        net.nodes["m"].to["r"],
        [keys.sign_data(objects.packet_name(blob, 0, index), b"\x66" * 800) for index in range(count)],
    )
    for number, wire in enumerate(forgeries * 10):
        net.at(0.001 * number, push.transmit, wire, False)
    took = net.wait(net.nodes["c"].fetch(ref, "h"))
    net.run(1)
    assert net.nodes["c"].store.path(ref.sha256).read_bytes() == net.nodes["h"].store.path(ref.sha256).read_bytes()
    assert stores_are_clean(net, ref, real, "c", "r", "h")
    assert net.nodes["r"].forwarder.counters.unsolicited == 10 * count
    assert took < 1.5 * SIZE * 8 / 10e6
    assert net.between("r", "c").from_("r").packets <= 1.1 * sum(objects.level_counts(SIZE))


def test_a_packet_that_poisoned_a_store_by_name_does_not_answer_by_digest(net: Network) -> None:
    """Somebody asked by name and got a forgery that is now stored on the way: who asks by digest gets the real one."""
    #
    #   c ──── r ──── m      m answered an Interest without digest, then it goes away
    #          │
    #          h
    #
    net.build("c-r-m r-h", has_disks=True, rate_mbps=10.0, delay_s=0.005)
    net.learn_routes()
    ref = net.publish("h", SIZE)
    real = real_digests(net, ref, net.nodes["h"].store.path(ref.sha256).read_bytes())
    make_liar(net.nodes["m"], forged)
    accomplice = net.nodes["c"].app()
    net.nodes["c"].route("/net/blob", "r")
    net.nodes["r"].route("/net/blob", "m")
    for index in range(10):
        accomplice.ask(names.to_uri(objects.packet_name(net.names.blob(ref.sha256), 0, index)))
    net.run(1)
    assert len(accomplice.data) == 10
    assert not stores_are_clean(net, ref, real, "r")
    net.nodes["m"].power_off()
    net.wait(net.nodes["c"].fetch(ref, "h"))
    assert net.nodes["c"].store.path(ref.sha256).read_bytes() == net.nodes["h"].store.path(ref.sha256).read_bytes()
    assert stores_are_clean(net, ref, real, "c", "r")


def test_replayed_segments_of_another_blob_are_no_answer(net: Network) -> None:
    """Real packets under wrong names, and wrong segments of the right blob, are not taken either."""
    #
    #   c ──── m      m answers each Interest for a segment with the real packet of the next one
    #   │
    #   h
    #
    net.build("c-m c-h", has_disks=True, rate_mbps=10.0, delay_s=0.005)
    net.learn_routes()
    ref = net.publish("h", SIZE)
    blob, store = net.names.blob(ref.sha256), net.nodes["h"].store

    def neighbour_of(interest: Interest) -> bytes | None:
        position = objects.parse_position(interest.name[len(blob) :])
        return None if position is None else store.find(objects.packet_name(blob, position[0], position[1] + 1))

    make_liar(net.nodes["m"], neighbour_of)
    net.wait(net.nodes["c"].fetch(ref, "m", "h"), limit_s=120)
    assert net.nodes["c"].store.path(ref.sha256).read_bytes() == store.path(ref.sha256).read_bytes()


def test_nacks_of_a_liar_only_cost_its_own_way(net: Network) -> None:
    """A node that refuses everything is passed over within a round trip."""
    #
    #             ┌── m ──┐      m has no routes
    #   c ─── r ──┤       ├── h
    #             └── g ──┘
    #
    ref, _ = diamond(net)
    fib = net.nodes["m"].forwarder.fib
    fib.remove_origin("mesh")
    took = net.wait(net.nodes["c"].fetch(ref, "h"))
    assert took < 2 * SIZE * 8 / 10e6, net.report()
    assert packet.NACK_NO_ROUTE in packet.NACK_REASONS
