"""The link layer without sockets: fragments, reassembly under attack, congestion marks."""

from __future__ import annotations

import itertools
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.forwarder import packet
from gateway.forwarder.faces import link
from gateway.forwarder.faces.link import CongestionMarker, Reassembler, ReassemblyBudget
from gateway.forwarder.packet import DecodeError
from gateway.protocol import keys, names
from gateway.protocol.names import tlv

NAME = names.parse("/p/x")
DATA = keys.sign_data(NAME, random.Random(3).randbytes(8000))


def reassembler(total_bytes: int = link.TOTAL_BYTES_MAX) -> Reassembler:
    return Reassembler(ReassemblyBudget(total_bytes))


def fields(wire: bytes) -> list[int]:
    """The types of a link packet's fields, in their order."""
    return [kind for kind, _, _, _ in link.fields(wire)]


def fragment(sequence: int, index: int, count: int, payload: bytes = b"x") -> bytes:
    return tlv(
        packet.LP_PACKET,
        tlv(link.SEQUENCE, sequence.to_bytes(8, "big"))
        + tlv(link.FRAGMENT_INDEX, names.non_negative(index))
        + tlv(link.FRAGMENT_COUNT, names.non_negative(count))
        + tlv(link.FRAGMENT, payload),
    )


# --- out


def test_what_fits_goes_as_it_is() -> None:
    """A packet of exactly the MTU is not fragmented; one byte more is."""
    assert link.fragments(DATA, len(DATA), 7) == [DATA]
    assert len(link.fragments(DATA, len(DATA) - 1, 7)) == 2


def test_a_fragment_on_the_wire() -> None:
    """The bytes of a fragment are those of NDNLPv2: Sequence of 8 bytes, FragIndex, FragCount, then the Fragment."""
    first, second = link.fragments(b"\x05" + bytes(600), 549, 0x0102)
    # 64 LpPacket, 51 Sequence, 52 FragIndex, 53 FragCount, 50 Fragment
    assert first[:24].hex() == "64fd0221" + "51080000000000000102" + "520100" + "530102" + "50fd020d"
    assert second.hex() == "645e" + "51080000000000000103" + "520101" + "530102" + "504c" + "00" * 76


def test_headers_stand_in_the_first_fragment_in_ascending_order() -> None:
    """The token and the mark travel once, between the place in the message and the fragment, in the order of types."""
    wire = packet.encode_link(DATA, pit_token=b"token", congestion_mark=1)
    parts = link.fragments(wire, 1400, 5)
    assert fields(parts[0]) == [0x51, 0x52, 0x53, 0x62, 0x0340, 0x50]
    assert all(fields(part) == [0x51, 0x52, 0x53, 0x50] for part in parts[1:])
    assert {len(part) for part in parts[:-1]} <= {len(parts[0]), len(parts[0]) + 1}


def test_an_mtu_that_cannot_be_is_refused() -> None:
    """An MTU in which hardly a header fits is an error that names it, where something has to be cut."""
    assert link.fragments(b"\x05\x00", 100, 0) == [b"\x05\x00"]
    with pytest.raises(ValueError, match="100 bytes"):
        link.fragments(DATA, 100, 0)


@settings(max_examples=200, deadline=None)
@given(
    st.integers(0, 8700),
    st.integers(link.MIN_MTU_BYTES, 9000),
    st.integers(0, (1 << 64) - 1),
    st.one_of(st.none(), st.binary(min_size=1, max_size=32)),
    st.integers(0, 1),
    st.randoms(use_true_random=False),
)
def test_every_packet_comes_whole_in_any_order(
    size: int, mtu: int, sequence: int, token: bytes | None, mark: int, shuffled: random.Random
) -> None:
    """Whatever its size, headers and order of arrival, a packet comes out of its fragments byte for byte."""
    wire = packet.encode_link(b"\x06" + shuffled.randbytes(size), pit_token=token, congestion_mark=mark)
    parts = link.fragments(wire, mtu, sequence)
    assert all(len(part) <= mtu for part in parts)
    assert len(parts) == 1 or all(link.is_fragment(part) for part in parts)
    if len(parts) == 1:
        return
    shuffled.shuffle(parts)
    peer = reassembler()
    came = [peer.add(part, 0.0) for part in parts]
    assert came == [None] * (len(parts) - 1) + [wire]
    assert (peer.used_bytes, len(peer), peer.dropped) == (0, 0, 0)


# --- in


def test_messages_of_one_peer_are_told_apart() -> None:
    """Fragments of many packets, mixed and doubled, make exactly those packets; each double is counted."""
    wires = [keys.sign_data(names.parse(f"/p/{i}"), bytes([i]) * 5000) for i in range(20)]
    parts, sequence = [], 2**64 - 30
    for wire in wires:
        some = link.fragments(wire, 1400, sequence)
        sequence += len(some)
        parts += [*some[:-1], some[0], some[-1]]
    order = list(range(len(parts)))
    random.Random(5).shuffle(order)
    peer, whole = reassembler(), []
    for i in order:
        came = peer.add(parts[i], 0.0)
        if came is not None:
            whole.append(came)
    assert sorted(whole) == sorted(wires)
    # A double that comes after its packet was whole begins a packet that will never be.
    assert peer.dropped + len(peer) == 20


def test_a_packet_that_lost_a_fragment_is_given_up_in_time() -> None:
    """Unfinished packets go after half a second, are counted, and leave nothing behind."""
    peer = reassembler()
    assert peer.next_deadline() is None
    peer.add(fragment(1, 0, 2), 10.0)
    peer.add(fragment(11, 0, 2), 10.2)
    assert peer.next_deadline() == 10.0 + link.REASSEMBLY_TIMEOUT_S
    peer.expire(10.4)
    assert len(peer) == 2
    assert peer.add(fragment(2, 1, 2), 10.6) is None
    peer.expire(11.2)
    assert (len(peer), peer.used_bytes, peer.dropped) == (0, 0, 3)


def test_what_is_repaired_is_waited_for() -> None:
    """Where lost fragments are sent again, a packet waits for them as long as that goes on, and no longer."""
    peer = Reassembler(ReassemblyBudget(), is_repaired=True)
    first, second = link.fragments(DATA[:2000], 1400, 7)
    peer.add(first, 0.0)
    assert peer.add(second, link.REPAIRED_TIMEOUT_S - 0.1) == DATA[:2000]
    peer.add(first, 10.0)
    assert peer.add(second, 10.0 + link.REPAIRED_TIMEOUT_S) is None
    assert peer.dropped == 1


@pytest.mark.parametrize(
    "bad",
    [
        fragment(1, 2, 2),
        fragment(1, 0, 0),
        fragment(1, 0, link.MAX_FRAGMENTS + 1),
        fragment(1, 0, 1 << 60),
        fragment(1, 0, 2, b""),
        tlv(0x64, b"\x52\x01\x00" + b"\x53\x01\x02" + b"\x50\x01x"),
        tlv(0x64, b"\x51\x03abc" + b"\x52\x01\x00" + b"\x53\x01\x02" + b"\x50\x01x"),
        fragment(1, 0, 2)[:-1],
        fragment(1, 0, 2) + b"\x00",
    ],
    ids=["index", "no count", "too many", "enormous", "empty", "no sequence", "odd number", "cut", "tail"],
)
def test_a_bad_fragment_is_no_packet(bad: bytes) -> None:
    """What can't be a fragment raises DecodeError and is not kept."""
    peer = reassembler()
    with pytest.raises(DecodeError):
        peer.add(bad, 0.0)
    assert (len(peer), peer.used_bytes) == (0, 0)


def test_a_sender_that_contradicts_itself_is_not_believed() -> None:
    """A fragment that gives another count for its packet is dropped, and the packet still comes."""
    peer = reassembler()
    peer.add(fragment(4, 0, 2, b"\x06a"), 0.0)
    assert peer.add(fragment(5, 1, 3, b"other"), 0.0) is None
    assert peer.add(fragment(5, 1, 2, b"b"), 0.0) == b"\x06ab"
    assert peer.dropped == 1


def test_a_message_larger_than_a_packet_is_dropped() -> None:
    """Fragments that add up to more than a packet may have are thrown away before the last one comes."""
    peer = reassembler()
    for index in range(8):
        assert peer.add(fragment(index, index, 10, bytes(1300)), 0.0) is None
    assert peer.dropped >= 1 and peer.used_bytes < 3000


@pytest.mark.parametrize("size", [1, 1300])
def test_a_flood_of_fragments_is_bounded(size: int) -> None:
    """First fragments without end cost one peer no more than its share, and many peers no more than the total."""
    budget = ReassemblyBudget(total_bytes=1 << 20)
    honest, hostile = Reassembler(budget), [Reassembler(budget) for _ in range(8)]
    parts = link.fragments(DATA, 1400, 0)
    assert all(honest.add(part, 0.0) is None for part in parts[:-1])
    for i in range(4000):
        peer = hostile[i % 8]
        peer.add(fragment(i * 40, 0, 36, bytes(size)), 0.0)
        assert len(peer) <= link.FACE_MESSAGES_MAX and peer.used_bytes <= link.FACE_BYTES_MAX
    assert budget.used_bytes == sum(peer.used_bytes for peer in (honest, *hostile)) <= 1 << 20
    assert sum(peer.dropped for peer in hostile) > 1000
    assert honest.add(parts[-1], 0.0) == DATA
    for peer in hostile:
        peer.close()
    assert budget.used_bytes == 0 and not budget.users


@settings(max_examples=300, deadline=None)
@given(st.lists(st.binary(max_size=60).map(lambda tail: b"\x64" + bytes([len(tail)]) + tail), max_size=30))
def test_random_bytes_do_no_harm(wires: list[bytes]) -> None:
    """Random link packets either are no fragments, raise DecodeError, or are kept within bounds."""
    peer = reassembler()
    for now, wire in enumerate(wires):
        if link.is_fragment(wire):
            try:
                peer.add(wire, now / 10)
            except DecodeError:
                continue
    peer.close()
    assert peer.used_bytes == 0


@settings(max_examples=200, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 12), st.integers(0, 5), st.integers(0, 5), st.binary(max_size=4)), max_size=60)
)
def test_the_account_is_always_right(made: list[tuple[int, int, int, bytes]]) -> None:
    """After any fragments, true or false, what is charged is what is held."""
    budget = ReassemblyBudget()
    peer = Reassembler(budget)
    for now, (sequence, index, count, payload) in enumerate(made):
        try:
            peer.add(fragment(sequence, index, count, payload), now / 20)
        except DecodeError:
            assert index >= count or not payload
        assert peer.used_bytes == budget.used_bytes == sum(m.cost_bytes for m in peer._messages.values())
        assert (peer in budget.users) == (len(peer) > 0)


def test_a_fragment_that_is_the_whole_message_passes() -> None:
    """A packet with a sequence number and no other place comes at once, without it."""
    wire = tlv(0x64, tlv(link.SEQUENCE, bytes(8)) + b"\x62\x01t" + tlv(link.FRAGMENT, b"\x05\x00"))
    assert link.is_fragment(wire)
    assert reassembler().add(wire, 0.0) == tlv(0x64, b"\x62\x01t" + tlv(link.FRAGMENT, b"\x05\x00"))
    assert not link.is_fragment(link.IDLE) and packet.decode_link(link.IDLE).fragment == b""


# --- congestion


def test_a_queue_that_stands_is_marked_ever_more_often() -> None:
    """No mark in the first interval of a standing queue, then at distances that shrink with the square root."""
    marker = CongestionMarker()
    times = [ms / 1000 for ms in range(1000) if marker.should_mark(100_000, ms / 1000)]
    assert times[0] == pytest.approx(0.1, abs=0.002)
    pauses = [later - earlier for earlier, later in itertools.pairwise(times)]
    assert pauses == [pytest.approx(0.1 / (2 + i) ** 0.5, abs=0.002) for i in range(len(pauses))]
    assert len(times) > 20


def test_a_queue_that_empties_is_forgiven() -> None:
    """A burst shorter than the interval is never marked, nor the next one sooner for it."""
    marker = CongestionMarker()
    for begin in range(10):
        assert not any(marker.should_mark(100_000, begin + ms / 1000) for ms in range(99))
        assert not marker.should_mark(0, begin + 0.1)


def test_a_slow_link_has_a_shorter_queue() -> None:
    """The threshold is 20 ms of a face's rate, between 16 and 64 kB."""
    assert CongestionMarker(1_000_000).threshold_bytes == 16 * 1024
    assert CongestionMarker(16_000_000).threshold_bytes == 40_000
    assert CongestionMarker(10**9).threshold_bytes == CongestionMarker(None).threshold_bytes == 64 * 1024


@pytest.mark.parametrize("token", [None, b"t"])
def test_data_is_marked_and_nothing_else(token: bytes | None) -> None:
    """A mark stands in its place among the fields of Data; Interests and Nacks stay as they are."""
    marked = link.with_mark(packet.encode_link(DATA, pit_token=token))
    found = packet.decode_link(marked)
    assert (found.fragment, found.pit_token, found.congestion_mark) == (DATA, token, 1)
    assert fields(marked) == ([0x62] if token else []) + [0x0340, 0x50]
    assert link.with_mark(marked) is marked
    first, second = link.fragments(packet.encode_link(DATA[:2000], pit_token=token), 1400, 7)
    assert fields(link.with_mark(first)) == [0x51, 0x52, 0x53] + ([0x62] if token else []) + [0x0340, 0x50]
    assert link.with_mark(second) is second
    looks_like_data = fragment(7, 1, 2, b"\x06\x03abc")
    assert link.with_mark(looks_like_data) is looks_like_data
    interest = packet.encode_interest(NAME)[1]
    for other in (interest, packet.encode_link(interest, pit_token=b"t", nack_reason=150), link.IDLE):
        assert link.with_mark(other) is other
