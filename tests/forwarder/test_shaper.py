"""The token bucket: its rate, its order, its bounds, all without a clock."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.forwarder.faces.shaper import BURST_MIN_BYTES, CONTROL_ROOM_BYTES, QUEUE_MIN_BYTES, ShapedWriter, Shaper


def drain(shaper: Shaper[bytes], now: float, until: float) -> tuple[list[bytes], float]:
    """What leaves while timers are kept to, and when the last of it left."""
    left: list[bytes] = list(shaper.pop(now))
    while (deadline := shaper.next_deadline()) is not None and deadline <= until:
        now = deadline
        left += shaper.pop(now)
    return left, now


@pytest.mark.parametrize("rate_bps", [64_000, 1_000_000, 10_000_000, 200_000_000])
def test_the_rate_is_kept(rate_bps: int) -> None:
    """Over ten seconds a face carries its rate, and no more than one burst beyond."""
    shaper, now, left = Shaper(rate_bps, 0.0), 0.0, 0
    packet = bytes(8000)
    while now < 10.0:
        while shaper.push(packet, bulk=True):
            pass
        left += sum(map(len, shaper.pop(now)))
        deadline = shaper.next_deadline()
        assert deadline is not None and deadline > now
        now = deadline
    allowed = rate_bps / 8 * 10
    assert allowed * 0.97 <= left <= allowed * 1.02 + BURST_MIN_BYTES + len(packet)


def test_control_packets_overtake_bulk() -> None:
    """A small packet leaves before the bulk that was queued earlier, and keeps its order among its own."""
    shaper = Shaper(1_000_000, 0.0)
    for i in range(5):
        shaper.push(bytes([i]) * 8000, bulk=True)
    shaper.pop(0.0)
    shaper.push(b"first", bulk=False)
    shaper.push(b"second", bulk=False)
    left, _ = drain(shaper, 0.0, 10.0)
    assert left[:2] == [b"first", b"second"]
    assert [wire[0] for wire in left[2:]] == sorted(wire[0] for wire in left[2:])


def test_a_queue_full_of_bulk_still_takes_control() -> None:
    """Bulk is dropped at the queue's limit; control packets have room beyond it, and that too has an end."""
    shaper = Shaper(100_000, 0.0)
    while shaper.push(bytes(4000), bulk=True):
        pass
    assert QUEUE_MIN_BYTES - 4000 < shaper.queued_bytes <= QUEUE_MIN_BYTES
    assert shaper.push(bytes(200), bulk=False)
    while shaper.push(bytes(200), bulk=False):
        pass
    assert shaper.queued_bytes <= QUEUE_MIN_BYTES + CONTROL_ROOM_BYTES


def test_fragments_of_a_packet_go_together_or_not_at_all() -> None:
    """What is of no use without each other is queued whole or dropped whole, and a small packet goes between."""
    shaper: Shaper[bytes] = Shaper(100_000, 0.0)
    assert shaper.push_all([bytes(1400)] * 40, bulk=True)
    queued_bytes = shaper.queued_bytes
    assert not shaper.push_all([bytes(1400)] * 7, bulk=True)
    assert shaper.queued_bytes == queued_bytes
    shaper.pop(0.0)
    shaper.push(b"control", bulk=False)
    left, _ = drain(shaper, 0.0, 10.0)
    assert left[0] == b"control" and len(left) == 40 - BURST_MIN_BYTES // 1400 - 1 + 1


def test_what_is_sent_again_goes_ahead_of_bulk() -> None:
    """Repeated packets leave in their order before bulk and behind control, and also when the queue is full."""
    shaper: Shaper[bytes] = Shaper(100_000, 0.0)
    while shaper.push(b"bulk" + bytes(996), bulk=True):
        pass
    shaper.pop(0.0)
    shaper.push_first([b"first", b"second"])
    shaper.push(b"control", bulk=False)
    left, _ = drain(shaper, 0.0, 10.0)
    assert left[:3] == [b"control", b"first", b"second"] and left[3].startswith(b"bulk")


def test_headers_and_what_goes_past_the_queue_are_paid_for() -> None:
    """A link's rate is that of whole IP packets, and of Acks that did not wait."""
    times = []
    for overhead_bytes, charged_bytes in ((0, 0), (100, 0), (0, 5_000)):
        shaper: Shaper[bytes] = Shaper(800_000, 0.0, overhead_bytes)
        shaper.charge(charged_bytes)
        shaper.push_all([bytes(400)] * 100, bulk=True)
        times.append(drain(shaper, 0.0, 10.0)[1])
    plain, with_headers, with_acks = times
    assert with_headers - plain == pytest.approx(0.1, abs=0.01)
    assert with_acks - plain == pytest.approx(0.05, abs=0.01)


@given(st.lists(st.tuples(st.integers(1, 9000), st.booleans(), st.floats(0, 0.5)), max_size=40))
def test_nothing_is_lost_or_made_up(packets: list[tuple[int, bool, float]]) -> None:
    """Whatever was taken leaves once, each class in its order, and the count of queued bytes ends at nothing."""
    shaper, now, left = Shaper(500_000, 0.0), 0.0, []
    taken: dict[bool, list[bytes]] = {True: [], False: []}
    for number, (size, bulk, pause_s) in enumerate(packets):
        wire = number.to_bytes(2, "big") + (b"B" if bulk else b"C") + bytes(size)
        if shaper.push(wire, bulk):
            taken[bulk].append(wire)
        now += pause_s
        left += shaper.pop(now)
    rest, _ = drain(shaper, now, now + 1000)
    left += rest
    assert [wire for wire in left if wire[2:3] == b"B"] == taken[True]
    assert [wire for wire in left if wire[2:3] == b"C"] == taken[False]
    assert shaper.queued_bytes == 0 and shaper.next_deadline() is None


def test_the_writer_keeps_the_rate_on_the_loop() -> None:
    """Driven by the event loop the rate holds within 15 %, and an unshaped writer writes at once."""

    async def measure() -> tuple[int, float, int]:
        loop = asyncio.get_running_loop()
        written: list[bytes] = []
        writer = ShapedWriter(4_000_000, written.append)
        begun, dropped = loop.time(), 0
        while loop.time() - begun < 1.0:
            dropped += not writer.push(bytes(8000), bulk=True)
            await asyncio.sleep(0.002)
        spent, count = loop.time() - begun, sum(map(len, written))
        writer.close()
        ShapedWriter(None, written.append).push(b"at once", bulk=False)
        assert written[-1] == b"at once"
        return count, spent, dropped

    count, spent, dropped = asyncio.run(measure())
    expected = 500_000 * spent
    assert 0.85 * expected <= count <= 1.15 * expected + BURST_MIN_BYTES
    assert dropped > 0
