"""Floods and slow readers: memory has a limit, and who behaves goes on being served."""

from __future__ import annotations

import contextlib
import os
import socket
import time
from collections.abc import Iterator

import pytest

from bench import gateways, measure
from bench.gateways import Gateway
from bench.wire import FIRST_NUMBER, Interests
from gateway.forwarder import packet
from gateway.forwarder.forwarder import PIT_SHARE_OF_FACE
from gateway.protocol import names
from tests.simulation.network import Network

FLOOD, FULL_FLOOD = 100_000, 1_000_000
# What a flood may leave in memory: the PIT at its capacity, the nonces that are remembered, and the queues.
GROWTH_MAX_BYTES = 80 << 20
GOODPUT_KEPT = 0.8
PREFIX, VOID = "/bench/data", "/bench/void"
SEGMENT_BYTES = 8000
ALONE_S = 2.0
# Whoever else uses this machine takes time from one part of an attempt or another; a flood takes it from each.
ATTEMPTS = 3

SIZES = [
    pytest.param(FLOOD, id="100000"),
    pytest.param(FULL_FLOOD, id="1000000", marks=[pytest.mark.slow, pytest.mark.timeout(900)]),
]


@pytest.mark.parametrize("interests", SIZES)
def test_flood_of_pending_names_leaves_room_for_others(interests: int) -> None:
    """A neighbour that asks for ever new names gets its share of the PIT, and a consumer beside it every answer."""
    # flooder - a - b (a producer that never answers); consumer and its producer at a
    network = Network()
    a, b = network.node("a"), network.node("b")
    network.node("flooder")
    network.link("flooder", "a")
    network.link("a", "b")
    a.route("/void", "b")
    b.app(serve="/void", answer=lambda interest: None)
    consumer = a.app()
    a.app(serve="/p")
    flooder, pit = a.to["flooder"], a.forwarder.pit
    before = measure.rss_bytes(os.getpid())
    largest = 0
    for number in range(interests):
        _, wire = packet.encode_interest(names.parse("/void") + names.segment(number), nonce=number.to_bytes(4, "big"))
        flooder.arrive(wire)
        if number % 100 == 0:
            largest = max(largest, len(pit))
            consumer.ask(f"/p/{number}")
            network.run(0.002)
            flooder.sent.clear()
            a.to["b"].sent.clear()
    assert len(consumer.data) == interests // 100
    assert pit.capacity * PIT_SHARE_OF_FACE * 0.5 < largest <= pit.capacity * PIT_SHARE_OF_FACE + 1
    assert measure.rss_bytes(os.getpid()) - before < GROWTH_MAX_BYTES
    network.run(60.0)
    assert len(pit) == flooder.waiting == a.to["b"].outstanding == 0


@pytest.fixture
def gateway() -> Iterator[Gateway]:
    """A plain forwarder as its users run it."""
    with gateways.one_gateway() as running:
        yield running


# A share of goodput is only measured on a machine that does nothing else.
@pytest.mark.slow
@pytest.mark.parametrize("kind", ["tcp", "udp", "unix"])
@pytest.mark.parametrize("interests", SIZES)
def test_flooded_gateway_serves_its_other_consumers(gateway: Gateway, kind: str, interests: int) -> None:
    """While a peer asks for ever new names, an application fetches at four fifths of its speed, and memory holds."""
    processors = sorted(os.sched_getaffinity(0))
    os.sched_setaffinity(gateway.pid, processors[:1])  # so that the flooder's own work takes none of its time
    face = {"tcp": gateway.tcp, "udp": gateway.udp, "unix": gateway.unix}[kind]
    if kind == "udp":  # nothing holds the sender back, so that as many again are lost before they are read
        interests *= 3
    kept = []
    with _on(processors[-1:]), gateways.producer(gateway.unix, PREFIX, SEGMENT_BYTES):
        for _ in range(ATTEMPTS):
            kept.append(_goodput_kept(gateway, face, interests))
            if kept[-1] >= GOODPUT_KEPT:
                break
    assert max(kept) >= GOODPUT_KEPT, f"goodput kept: {', '.join(f'{share:.0%}' for share in kept)}"


def _goodput_kept(gateway: Gateway, face: str, interests: int) -> float:
    """An application's goodput during a flood against that before and after it."""
    start = time.monotonic_ns() // 1000 % 4_000_000_000  # names that no attempt before has asked for
    with gateways.consumer(gateway.unix, PREFIX, SEGMENT_BYTES, 0.02, start) as progress:
        time.sleep(ALONE_S)  # meanwhile the store becomes full, and the allocator gets what it wants
        before = measure.rss_bytes(gateway.pid)
        flood = gateways.flood(face, VOID, interests, start)
        growth = measure.rss_bytes(gateway.pid) - before
        time.sleep(ALONE_S)
    assert flood["sent"] == interests
    assert growth < GROWTH_MAX_BYTES
    begin, end, margin_s = flood["from_s"], flood["to_s"], ALONE_S / 2
    alone = (_packets_s(progress, begin - margin_s, begin) + _packets_s(progress, end + margin_s, end + ALONE_S)) / 2
    return _packets_s(progress, begin, end) / alone


def _packets_s(progress: list[tuple[float, int]], start_s: float, stop_s: float) -> float:
    inside = [step for step in progress if start_s <= step[0] <= stop_s]
    return (inside[-1][1] - inside[0][1]) / (stop_s - start_s) if inside else 0.0


@pytest.mark.parametrize("kind", ["unix", "tcp"])
def test_slow_readers_are_bounded(gateway: Gateway, kind: str) -> None:
    """Peers that ask for 100 MB each and read nothing cost the gateway a little memory, and nobody else anything."""
    gateways.populate(gateway, PREFIX, SEGMENT_BYTES, 1000)
    before = measure.rss_bytes(gateway.pid)
    with contextlib.ExitStack() as stack:
        for _ in range(8):
            stack.enter_context(_slow_reader(gateway, kind))
        time.sleep(1.0)
        growth = measure.rss_bytes(gateway.pid) - before
        served = gateways.consume(gateway.unix, PREFIX, SEGMENT_BYTES, count=5000, cached=1000)
    assert served["answered"] == 5000
    assert growth < 48 << 20


@contextlib.contextmanager
def _slow_reader(gateway: Gateway, kind: str) -> Iterator[None]:
    """A connection by which 12,500 packets were asked for."""
    interests = Interests(names.parse(PREFIX), 500)
    with socket.socket(socket.AF_UNIX if kind == "unix" else socket.AF_INET) as sock:
        sock.settimeout(10)
        sock.connect(gateway.unix.removeprefix("unix://") if kind == "unix" else (gateway.address, 6363))
        for start in range(0, 12_500, 500):
            numbers = [FIRST_NUMBER + (start + i) % 1000 for i in range(500)]
            sock.sendall(interests.ask(numbers))
        yield


@contextlib.contextmanager
def _on(processors: list[int]) -> Iterator[None]:
    """What is started meanwhile runs on these processors."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, processors)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)
