"""Link reliability over an in-process link that loses, delays and reorders; time is an argument."""

from __future__ import annotations

import heapq
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.forwarder import packet
from gateway.forwarder.faces import link
from gateway.forwarder.faces.reliability import ACK_DELAY_S, HEADER_BYTES, OUTSTANDING_MAX, Reliability
from gateway.forwarder.packet import DecodeError
from gateway.protocol import names
from gateway.protocol.names import tlv

MTU = 1400


def interest(number: int) -> bytes:
    return packet.encode_interest(names.parse(f"/p/{number}"), nonce=number.to_bytes(4, "big"))[1]


class Link:
    """Two ends joined by a link that loses a share of the packets and delays each by a little."""

    def __init__(self, loss: float, seed: int = 1) -> None:
        self.ends = (Reliability(MTU, 2**64 - 50, 10), Reliability(MTU, 1, 7_000))
        self.arrived: tuple[list[bytes], list[bytes]] = ([], [])
        self.now, self.carried = 0.0, 0
        self._loss, self._random, self._order = loss, random.Random(seed), 0
        self._flying: list[tuple[float, int, int, bytes]] = []

    def send(self, end: int, wire: bytes) -> None:
        """The packet leaves this end."""
        self._fly(end, [self.ends[end].outgoing(wire, self.now)])

    def _fly(self, end: int, wires: list[bytes]) -> None:
        for wire in wires:
            assert len(wire) <= MTU
            self.carried += 1
            self._order += 1
            if self._random.random() >= self._loss:
                at = self.now + self._random.uniform(0.004, 0.006)
                heapq.heappush(self._flying, (at, self._order, 1 - end, wire))

    def run(self, until: float) -> None:
        """Lets the time pass."""
        while True:
            deadlines = [at for end in self.ends if (at := end.next_deadline()) is not None]
            at = min([*deadlines, *(flying[0] for flying in self._flying[:1]), until])
            self.now = max(at, self.now)
            if at >= until:
                return
            while self._flying and self._flying[0][0] <= self.now:
                _, _, end, wire = heapq.heappop(self._flying)
                inner, again = self.ends[end].incoming(wire, self.now)
                if inner is not None:
                    self.arrived[end].append(packet.decode_link(inner).fragment)
                self._fly(end, again)
            for end, one in enumerate(self.ends):
                self._fly(end, one.on_timer(self.now))

    def got(self, end: int) -> list[bytes]:
        return [wire for wire in self.arrived[end] if wire]


@pytest.mark.parametrize("loss", [0.0, 0.05, 0.2])
def test_what_a_lossy_link_loses_is_sent_again(loss: float) -> None:
    """Of 2000 packets each way nearly all arrive, once each, although the link loses up to a fifth of everything."""
    between = Link(loss)
    for number in range(2000):
        for end in (0, 1):
            between.send(end, interest(number))
        between.run(between.now + 0.001)
    between.run(between.now + 5)
    for end in (0, 1):
        came = between.got(end)
        assert len(came) == len(set(came))
        assert len(came) >= 2000 * (1 - 2 * loss**4) - 1
        assert between.ends[end].next_deadline() is None
    if not loss:
        assert sum(end.retransmissions + end.given_up for end in between.ends) == 0


def test_acks_travel_on_packets_or_soon_alone() -> None:
    """An Ack goes with the next packet the other way; where there is none an IDLE packet brings it after 5 ms."""
    ours, theirs = Reliability(MTU, 0, 0), Reliability(MTU, 0, 0)
    inner, _ = theirs.incoming(ours.outgoing(interest(1), 0.0), 0.0)
    assert inner is not None and packet.decode_link(inner).fragment == interest(1)
    back = theirs.outgoing(interest(2), 0.001)
    # 51 Sequence, 0344 Ack, 0348 TxSequence, 50 Fragment: ascending, the fragment last
    assert [kind for kind, _, _, _ in link.fields(back)] == [0x51, 0x0344, 0x0348, 0x50]
    ours.incoming(back, 0.002)
    assert ours.next_deadline() == 0.002 + ACK_DELAY_S
    (alone,) = ours.on_timer(0.01)
    assert [kind for kind, _, _, _ in link.fields(alone)] == [0x0344]
    assert theirs.incoming(alone, 0.011) == (link.IDLE, [])
    assert ours.next_deadline() is None and theirs.next_deadline() is None


def test_a_peer_that_never_acknowledges_is_left_alone() -> None:
    """Nothing is sent twice to a peer that does not speak this, and what is remembered of it is bounded."""
    one = Reliability(MTU, 0, 0)
    for number in range(2 * OUTSTANDING_MAX):
        one.outgoing(interest(number), 0.0)
    assert one.given_up == OUTSTANDING_MAX
    assert one.on_timer(100.0) == [] and one.next_deadline() is None
    assert (one.retransmissions, one.given_up) == (0, 2 * OUTSTANDING_MAX)


def test_what_three_packets_overtook_is_sent_at_once() -> None:
    """The third Ack of later packets brings the lost one again before any timer."""
    one, other = Reliability(MTU, 0, 0), Reliability(MTU, 0, 0)
    sent = [one.outgoing(interest(number), 0.0) for number in range(4)]
    again = []
    for wire in sent[1:]:
        other.incoming(wire, 0.001)
        again.append(one.incoming(other.outgoing(interest(9), 0.001), 0.002)[1])
    assert again[:2] == [[], []] and len(again[2]) == 1
    inner, _ = other.incoming(again[2][0], 0.003)
    assert inner is not None and packet.decode_link(inner).fragment == interest(0)


def test_fragments_have_room_for_the_numbers() -> None:
    """A packet in fragments stays below the MTU with its numbers and Acks, and is put together at the other end."""
    ours, theirs = Reliability(MTU, 0, 0), Reliability(MTU, 0, 0)
    for number in range(10):
        ours.incoming(theirs.outgoing(interest(number), 0.0), 0.0)
    data = b"\x06" + bytes(8000)
    whole, reassembler = [], link.Reassembler(link.ReassemblyBudget())
    for part in link.fragments(data, MTU - HEADER_BYTES, 77):
        wire = ours.outgoing(part, 0.0)
        assert len(wire) <= MTU
        inner, _ = theirs.incoming(wire, 0.0)
        assert inner is not None and link.is_fragment(inner)
        whole.append(reassembler.add(inner, 0.0))
    assert whole[-1] == data


@settings(max_examples=200, deadline=None)
@given(st.lists(st.tuples(st.sampled_from([0x50, 0x51, 0x62, 0x0344, 0x0348]), st.integers(0, 20)), max_size=8))
def test_foreign_numbers_do_no_harm(parts: list[tuple[int, int]]) -> None:
    """Acks for what was never sent, double numbers and odd lengths raise DecodeError or pass, and nothing else."""
    one = Reliability(MTU, 0, 0)
    one.outgoing(interest(1), 0.0)
    wire = tlv(0x64, b"".join(tlv(kind, bytes(size)) for kind, size in parts))
    try:
        inner, again = one.incoming(wire, 0.0)
        assert again == []
    except DecodeError:
        assert any(kind in (0x51, 0x0344, 0x0348) and size != 8 for kind, size in parts)
    else:
        assert inner is not None
        assert [kind for kind, _, _, _ in link.fields(inner)] == [kind for kind, _ in parts if kind < 0x0344]
