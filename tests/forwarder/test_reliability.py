"""Link reliability over an in-process link that loses, delays and reorders; time is an argument."""

from __future__ import annotations

import heapq
import random
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.forwarder import packet
from gateway.forwarder.faces import link, reliability
from gateway.forwarder.faces.reliability import (
    ACK_DELAY_S,
    LIFETIME_S,
    OUTSTANDING_MAX,
    RETIRED_MAX,
    SILENCE_PACKETS,
    TRIAL_INTERVAL_S,
    TRIAL_PACKETS,
    Reliability,
)
from gateway.forwarder.packet import DecodeError
from gateway.protocol import names
from gateway.protocol.names import tlv

MTU = 1400


def interest(number: int) -> bytes:
    return packet.encode_interest(names.parse(f"/p/{number}"), nonce=number.to_bytes(4, "big"))[1]


def send_one(end: Reliability, wire: bytes, now: float) -> bytes:
    """A packet that needs no fragments, as it leaves."""
    (frame,) = end.frames(wire, now)
    return end.outgoing(frame, now)


def kinds(wire: bytes) -> list[int]:
    return [kind for kind, _, _, _ in link.fields(wire)]


def is_bare_ack(wire: bytes) -> bool:
    return wire[0] == packet.LP_PACKET and set(kinds(wire)) == {reliability.ACK}


class Link:
    """Two ends joined by a link that loses a share of the packets, delays each, and some of them more than others."""

    def __init__(self, loss: float, delay_s: float = 0.005, jitter_s: float = 0.002, seed: int = 1) -> None:
        self.ends = (Reliability(MTU, 2**64 - 50, 10), Reliability(MTU, 1, 7_000))
        self.arrived: tuple[list[bytes], list[bytes]] = ([], [])
        self.now, self.carried, self.delay_s, self.jitter_s = 0.0, 0, delay_s, jitter_s
        self.is_lost: Callable[[bytes], bool] = lambda wire: self.random.random() < loss
        self.random, self._order = random.Random(seed), 0
        self._flying: list[tuple[float, int, int, bytes]] = []
        self.most_remembered = 0

    def send(self, end: int, wire: bytes) -> None:
        """The packet leaves this end."""
        one = self.ends[end]
        self._fly(end, [one.outgoing(frame, self.now) for frame in one.frames(wire, self.now)])

    def _fly(self, end: int, wires: list[bytes]) -> None:
        for wire in wires:
            assert len(wire) <= MTU
            self.carried += 1
            self._order += 1
            if not self.is_lost(wire):
                at = self.now + self.delay_s + self.random.uniform(0, self.jitter_s)
                heapq.heappush(self._flying, (at, self._order, 1 - end, wire))

    def _again(self, end: int) -> None:
        one = self.ends[end]
        self._fly(end, [one.outgoing(frame, self.now) for frame in one.take_lost() if not frame.is_done])
        remembered = max(len(one._unacked), len(one._retired))
        self.most_remembered = max(self.most_remembered, remembered)

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
                inner = self.ends[end].incoming(wire, self.now)
                if inner is not None:
                    self.arrived[end].append(inner)
                self._again(end)
            for end, one in enumerate(self.ends):
                self._fly(end, one.on_timer(self.now))
                self._again(end)

    def meet(self) -> None:
        """Lets each end see that the other one acknowledges."""
        for end in (0, 1):
            while not self.ends[end].is_answered:
                self.send(end, interest(1 << 20))
                self.run(self.now + 1.0)
        self.run(self.now + 3 * LIFETIME_S)
        for came in self.arrived:
            came.clear()

    def talk(self, count: int, every_s: float = 0.001, ends: tuple[int, ...] = (0, 1)) -> None:
        """So many packets from each of these ends, one after another, and time for their repair."""
        for number in range(count):
            for end in ends:
                self.send(end, interest(number))
            self.run(self.now + every_s)
        self.run(self.now + 3 * LIFETIME_S)

    def total(self, counter: str) -> int:
        return sum(getattr(end.counters, counter) for end in self.ends)


# --- what is lost


@pytest.mark.parametrize("loss", [0.0, 0.03, 0.1, 0.2])
def test_what_a_lossy_link_loses_is_sent_again(loss: float) -> None:
    """Of 2000 packets each way all arrive, once each, although the link loses up to a fifth of everything."""
    between = Link(loss, delay_s=0.05)
    between.meet()
    between.talk(2000)
    for end in (0, 1):
        came = between.arrived[end]
        assert sorted(came) == sorted(map(interest, range(2000)))
        assert between.ends[end].next_deadline() is None
    # Each loss of a packet costs one more, a lost Ack hardly any.
    assert between.total("retransmissions") <= 4000 * (loss + 2 * loss**2) / (1 - loss) + 12 * bool(loss)
    assert between.total("given_up") == 0


@settings(max_examples=60, deadline=None)
@given(
    st.floats(0, 0.5),
    st.floats(0.0005, 0.4),
    st.floats(0, 1.5),
    st.integers(1, 150),
    st.sampled_from([0.0, 0.0005, 0.01]),
    st.integers(0, 1 << 32),
)
def test_everything_is_delivered_once_or_given_up_in_time(
    loss: float, delay_s: float, reordering: float, count: int, every_s: float, seed: int
) -> None:
    """Whatever a link does, each packet arrives at most once, what did not is counted, and nothing is left behind."""
    between = Link(loss, delay_s, delay_s * reordering, seed)
    between.meet()
    between.talk(count, every_s)
    for end, other in ((0, 1), (1, 0)):
        came = between.arrived[end]
        assert len(came) == len(set(came))
        assert count - len(came) <= between.ends[other].counters.given_up
        one = between.ends[end]
        assert one.next_deadline() is None and not one._unacked
        assert all(frame.is_done and not frame.payload for frame in one._retired.values())


def test_memory_is_bounded() -> None:
    """Ten times what may be outstanding, on a link that answers late and loses much, is held within the limits."""
    between = Link(0.3, delay_s=0.5)
    between.meet()
    for number in range(10 * OUTSTANDING_MAX):
        between.send(0, interest(number))
        if number % 50 == 0:
            between.run(between.now + 0.002)
    between.run(between.now + 3 * LIFETIME_S)
    assert between.most_remembered <= max(OUTSTANDING_MAX, RETIRED_MAX)
    one, other = between.ends
    assert len(other._seen) <= reliability.REMEMBERED_MAX and len(other._fresh) <= reliability.ACKS_MAX
    assert one.counters.given_up > OUTSTANDING_MAX and one.next_deadline() is None


def test_what_a_later_packet_overtook_is_sent_again_soon() -> None:
    """A loss amid others is repaired by the Acks of later packets, a quarter of a round trip after them."""
    between = Link(0.0, delay_s=0.05, jitter_s=0.0)
    between.talk(50)
    lost = iter([False] * 5 + [True])
    between.is_lost = lambda wire: next(lost, False)
    begun = between.now
    for number in range(100, 130):
        between.send(0, interest(number))
        between.run(between.now + 0.001)
    between.run(begun + 0.005 + 0.1 + ACK_DELAY_S + 0.025 + 0.05 + 0.012)
    assert interest(105) in between.arrived[1]
    assert between.ends[0].counters.retransmissions == 1 and between.total("doubles") == 0


def test_the_last_packet_is_repaired_by_a_probe() -> None:
    """A loss that nothing follows is repaired after little more than a round trip."""
    between = Link(0.0, delay_s=0.05, jitter_s=0.001)
    between.talk(100)
    lost = iter([True])
    between.is_lost = lambda wire: next(lost, False)
    begun = between.now
    between.send(0, interest(500))
    between.run(begun + 0.1 + 0.05 + 0.05 + 0.02)
    assert between.arrived[1][-1] == interest(500)
    assert between.ends[0].counters.retransmissions == 1


# --- what is not lost


@pytest.mark.parametrize("delay_s", [0.002, 0.05, 0.15])
def test_lost_acks_cost_next_to_nothing(delay_s: float) -> None:
    """Where only Acks are lost, one packet of thirty, hardly anything is sent twice: each Ack is told twice."""
    between = Link(0.0, delay_s, jitter_s=0.0)
    between.is_lost = lambda wire: is_bare_ack(wire) and between.random.random() < 1 / 30
    between.talk(4000, 0.0006, ends=(0,))
    assert len(between.arrived[1]) == 4000
    assert between.total("retransmissions") <= 20


def test_a_little_reordering_repeats_nothing() -> None:
    """Packets that overtake each other by less than a quarter of the round trip are not sent twice."""
    between = Link(0.0, delay_s=0.05, jitter_s=0.009)
    between.talk(3000)
    assert between.total("retransmissions") == 0


def test_patience_grows_with_reordering() -> None:
    """On a path that reorders by a round trip few packets are sent twice: those that were only late teach patience."""
    between = Link(0.0, delay_s=0.05, jitter_s=0.05)
    between.talk(3000)
    assert 0 < between.total("spurious") == between.total("retransmissions") <= 200
    assert between.total("doubles") == between.total("spurious")


def test_a_delay_that_grows_does_not_double_the_traffic() -> None:
    """When a queue adds 400 ms at once, no more than a few probes are sent for the hundreds of packets on their way."""
    between = Link(0.0, delay_s=0.05, jitter_s=0.0)
    between.talk(200, ends=(0,))
    between.delay_s = 0.25
    for number in range(1000, 1400):
        between.send(0, interest(number))
        between.run(between.now + 0.001)
    between.run(between.now + 1)
    assert len(between.arrived[1]) == 600
    assert between.total("retransmissions") <= 10


def test_an_interrupted_link_is_probed_and_then_repaired() -> None:
    """During two seconds of silence a few probes are sent; when the link is back, everything arrives."""
    between = Link(0.0, delay_s=0.02, jitter_s=0.0)
    between.talk(50)
    between.is_lost = lambda wire: True
    for number in range(1000, 1300):
        between.send(0, interest(number))
    carried = between.carried
    between.run(between.now + 2.0)
    assert 4 <= between.carried - carried <= 40
    between.is_lost = lambda wire: False
    between.run(between.now + 2.5)
    assert set(map(interest, range(1000, 1300))) <= set(between.arrived[1])


# --- what a queue loses


class Bottleneck(Link):
    """End 0 sends through a queue of `room_s` seconds behind a rate in packets a second; what has no room is lost."""

    def __init__(self, rate_s: float, room_s: float, delay_s: float, loss: float = 0.0) -> None:
        super().__init__(loss, delay_s, jitter_s=0.0)
        self._rate_s, self._room_s, self._free_at = rate_s, room_s, 0.0
        self.overflowed = 0

    def _fly(self, end: int, wires: list[bytes]) -> None:
        if end == 1:
            super()._fly(end, wires)
            return
        delay_s = self.delay_s
        for wire in wires:
            begins = max(self._free_at, self.now)
            if begins - self.now > self._room_s:
                self.overflowed += 1
                continue
            self._free_at = begins + 1 / self._rate_s
            self.delay_s = delay_s + self._free_at - self.now
            super()._fly(end, [wire])
        self.delay_s = delay_s

    def offer(self, seconds: float, every_s: float) -> int:
        """Sends at this pace; how many marks the sender's packets would bear."""
        marks, number, begun = 0, 0, self.now
        while self.now < begun + seconds:
            number += 1
            marks += self.ends[0].take_mark(self.now)
            self.send(0, interest(number))
            self.run(self.now + every_s)
        return marks


def test_a_queue_that_overflows_calls_for_marks() -> None:
    """Losses of an overflowing queue are told to the consumer by marks, since repairing hides them."""
    path = Bottleneck(rate_s=1000, room_s=0.05, delay_s=0.05)
    path.meet()
    assert path.offer(2.0, 1 / 900) == 0
    assert path.offer(2.0, 1 / 1300) >= 20 and path.overflowed > 100


def test_a_radio_s_losses_call_for_none() -> None:
    """One packet in ten lost at random while no queue stands is repaired and no more: the consumer keeps its pace."""
    path = Bottleneck(rate_s=1000, room_s=0.05, delay_s=0.05, loss=0.1)
    path.meet()
    assert path.offer(5.0, 1 / 700) == 0
    assert path.ends[0].counters.retransmissions > 300


def test_marks_of_yesterday_are_not_put_on_what_comes_later() -> None:
    """Marks that found no packet to go on within a round trip are forgotten."""
    path = Bottleneck(rate_s=1000, room_s=0.05, delay_s=0.05)
    path.meet()
    path.offer(2.0, 1 / 1300)
    path.run(path.now + 3 * LIFETIME_S)
    assert not path.ends[0].take_mark(path.now)


# --- who does not speak it


def test_a_peer_that_never_acknowledges_costs_nothing() -> None:
    """To a peer that does not speak this, packets go bare but for a few; nothing is sent twice or remembered long."""
    one, bare = Reliability(MTU, 0, 0), 0
    for number in range(10_000):
        wire = send_one(one, interest(number), number / 1000)
        bare += wire == interest(number)
    assert bare >= 10_000 - TRIAL_PACKETS - 10 / TRIAL_INTERVAL_S - 1
    assert len(one._unacked) <= TRIAL_PACKETS + 10 / TRIAL_INTERVAL_S + 1
    assert one.on_timer(100.0) == [] and one.take_lost() == [] and one.next_deadline() is None
    assert one.counters.retransmissions == 0


def test_a_peer_that_learns_to_speak_is_served() -> None:
    """A peer that was silent and is restarted with reliability on gets numbered packets again at its first Ack."""
    one, other = Reliability(MTU, 0, 0), Reliability(MTU, 0, 0)
    for number in range(TRIAL_PACKETS + 1):
        send_one(one, interest(number), 0.0)
    assert send_one(one, interest(1), 0.1) == interest(1)
    probe = send_one(one, interest(2), 1.0)
    assert kinds(probe) == [0x51, 0x0348, 0x50]
    other.incoming(probe, 1.0)
    (acks,) = other.on_timer(1.0 + ACK_DELAY_S)
    one.incoming(acks, 1.01)
    assert one.is_answered and kinds(send_one(one, interest(3), 1.02)) == [0x51, 0x0348, 0x50]


def test_a_peer_that_stops_speaking_is_left_alone() -> None:
    """A peer restarted without reliability gets bare packets once so many have been given up."""
    between = Link(0.0)
    between.talk(10)
    between.is_lost = lambda wire: True
    for number in range(SILENCE_PACKETS):
        between.send(0, interest(number))
    assert between.ends[0].is_answered
    between.run(between.now + 3 * LIFETIME_S)
    one = between.ends[0]
    assert not one.is_answered and one.next_deadline() is None
    send_one(one, interest(1), between.now)
    assert send_one(one, interest(2), between.now) == interest(2)


# --- on the wire


def test_acks_travel_on_packets_or_soon_alone() -> None:
    """An Ack goes with the next packet the other way; where there is none an IDLE packet brings it after 5 ms."""
    ours, theirs = Reliability(MTU, 0, 0), Reliability(MTU, 0, 0)
    assert theirs.incoming(send_one(ours, interest(1), 0.0), 0.0) == interest(1)
    back = send_one(theirs, interest(2), 0.001)
    # 51 Sequence, 0344 Ack, 0348 TxSequence, 50 Fragment: ascending, the fragment last
    assert kinds(back) == [0x51, 0x0344, 0x0348, 0x50]
    ours.incoming(back, 0.002)
    assert ours.next_deadline() == 0.002 + ACK_DELAY_S
    (alone,) = ours.on_timer(0.01)
    assert kinds(alone) == [0x0344]
    assert theirs.incoming(alone, 0.011) is None
    assert ours.next_deadline() is None and theirs.next_deadline() is None


def test_each_ack_is_told_twice() -> None:
    """The next packet with new Acks also repeats those of the one before, and no others."""
    ours, theirs = Reliability(MTU, 0, 0), Reliability(MTU, 0, 100)
    told = []
    for number in range(3):
        ours.incoming(send_one(theirs, interest(number), 0.0), 0.0)
        wire = send_one(ours, interest(number), 0.0)
        told.append([wire[end - 1] for kind, _, _, end in link.fields(wire) if kind == reliability.ACK])
    assert told == [[101], [101, 102], [102, 103]]


def test_packets_of_another_forwarder_are_understood() -> None:
    """A fragment as NFD writes it, with numbers and PIT token, comes out without the numbers, and is acknowledged."""
    one = Reliability(MTU, 0, 0)
    # LpPacket{Sequence, FragIndex, FragCount, PitToken, Ack, TxSequence, Fragment}
    place, token, fragment = "51080000000000000009" + "520100" + "530102", "6204deadbeef", "500106"
    ack, tx = "fd034408" + "00" * 7 + "07", "fd034808" + "00" * 7 + "2a"
    wire = tlv(0x64, bytes.fromhex(place + token + ack + tx + fragment))
    assert one.incoming(wire, 0.0) == tlv(0x64, bytes.fromhex(place + token + fragment))
    assert one.incoming(wire, 0.0) is None
    (acks,) = one.on_timer(1.0)
    assert acks == tlv(0x64, bytes.fromhex(2 * ("fd034408" + "00" * 7 + "2a")))


@settings(max_examples=100, deadline=None)
@given(st.integers(0, 8700), st.integers(link.MIN_MTU_BYTES, 9000), st.booleans())
def test_packets_of_any_size_fit_with_their_numbers(size: int, mtu: int, has_token: bool) -> None:
    """Packets of every size stay within the MTU with their numbers and Acks, and are put together at the other end."""
    ours, theirs = Reliability(mtu, 0, 0), Reliability(mtu, 0, 0)
    for number in range(3):
        ours.incoming(send_one(theirs, interest(number), 0.0), 0.0)
    data = packet.encode_link(b"\x06" + bytes(size), pit_token=b"token" if has_token else None)
    whole, reassembler = [], link.Reassembler(link.ReassemblyBudget())
    for frame in ours.frames(data, 0.0):
        wire = ours.outgoing(frame, 0.0)
        assert len(wire) <= mtu
        inner = theirs.incoming(wire, 0.0)
        assert inner is not None
        whole.append(reassembler.add(inner, 0.0) if link.is_fragment(inner) else inner)
    assert whole[-1] == data and not any(whole[:-1])


def test_a_mark_is_added_to_a_waiting_packet() -> None:
    """A frame of Data gets a congestion mark in its place among the fields; one of a later fragment gets none."""
    one = Reliability(MTU, 0, 0)
    data = packet.encode_link(b"\x06" + bytes(2000), pit_token=b"token")
    first, second = one.frames(data, 0.0)
    size = len(first)
    assert first.can_be_marked() and not second.can_be_marked()
    for frame in (first, first, second):
        frame.mark()
    assert not first.can_be_marked()
    assert len(first) == size + link.MARK_BYTES
    wire = one.outgoing(first, 0.0)
    assert kinds(wire) == [0x51, 0x52, 0x53, 0x62, 0x0340, 0x0348, 0x50] and len(wire) == len(first)


@settings(max_examples=200, deadline=None)
@given(st.lists(st.tuples(st.sampled_from([0x50, 0x51, 0x62, 0x0344, 0x0348]), st.integers(0, 20)), max_size=8))
def test_foreign_numbers_do_no_harm(parts: list[tuple[int, int]]) -> None:
    """Acks for what was never sent, double numbers and odd lengths raise DecodeError or pass, and nothing else."""
    one = Reliability(MTU, 0, 0)
    send_one(one, interest(1), 0.0)
    wire = tlv(0x64, b"".join(tlv(kind, bytes(size)) for kind, size in parts))
    try:
        inner = one.incoming(wire, 0.0)
    except DecodeError:
        assert any(kind in (0x51, 0x0344, 0x0348) and size != 8 for kind, size in parts)
        return
    assert one.take_lost() == []
    left = [(kind, size) for kind, size in parts if kind < 0x0344]
    if inner is None:
        assert not left
    elif left[-1][0] == 0x50 and [kind for kind, _ in left[:-1]] in ([], [0x51]):
        assert inner == bytes(left[-1][1])
    else:
        assert kinds(inner) == [kind for kind, _ in left]
