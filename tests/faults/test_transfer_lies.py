"""Forged, poisoned, damaged and missing answers: each costs one retry at most, and none reaches the disk."""

from __future__ import annotations

import asyncio
import itertools
import random
from collections.abc import Callable, Iterator
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from gateway.forwarder import packet
from gateway.forwarder.blob_source import PartialBlob
from gateway.forwarder.blobs import BlobStore
from gateway.forwarder.consumer import Consumer
from gateway.forwarder.endpoint import Endpoint
from gateway.forwarder.faces.manager import Neighbor
from gateway.protocol import keys, names, objects
from gateway.protocol.names import Name
from tests.forwarder.test_faces import Gateway, free_port, running
from tests.simulation.loop import run

NETWORK = names.Network("/test/net")
PAYLOAD = objects.PAYLOAD_BYTES
CONTENT = random.Random(6).randbytes(300 * PAYLOAD + 5)
REF = objects.describe_bytes(NETWORK, CONTENT)
PACKETS = {packet.decode_data(wire).name: wire for wire in objects.packets_of(NETWORK, CONTENT)}
HOLDER, LIAR = NETWORK.node("holder"), NETWORK.node("liar")


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[BlobStore]:
    """A store that fails the test when anything but the blob's own bytes is written to it."""
    write = PartialBlob.write

    def checked(self: PartialBlob, index: int, payload: bytes, level: int = 0) -> None:
        name = objects.packet_name(NETWORK.blob(REF.sha256), level, index)
        assert payload == packet.decode_data(PACKETS[name]).content, f"forged bytes for {names.to_uri(name)}"
        write(self, index, payload, level)

    monkeypatch.setattr(PartialBlob, "write", checked)
    store = BlobStore(tmp_path / "mine", NETWORK)
    yield store
    store.close()


Answers = Callable[[Name], Iterator[tuple[float, bytes]]]


def fetch_from(answers: Answers, store: BlobStore) -> Consumer:
    """Fetches over an endpoint whose other end gives these packets, each so much later; the network is virtual."""

    async def fetch() -> Consumer:
        loop = asyncio.get_running_loop()

        def send(wire: bytes) -> None:
            for delay_s, answer in answers(packet.decode_interest(wire).name):
                loop.call_later(delay_s, endpoint.receive, answer)

        endpoint = Endpoint(send)
        consumer = Consumer(endpoint, NETWORK)
        path = await consumer.fetch_blob(REF, store)
        assert path.read_bytes() == CONTENT
        return consumer

    return run(fetch())


def test_a_forged_flood_of_ten_times_the_traffic_costs_no_interest(store: BlobStore) -> None:
    """Ten forged packets arrive under each name before the real one: they are counted, and it is still waited for."""

    def answers(name: Name) -> Iterator[tuple[float, bytes]]:
        for number in range(10):
            yield 0.001 * number, keys.sign_data(name, b"forged %d" % number)
        yield 0.02, PACKETS[name]

    consumer = fetch_from(answers, store)
    assert consumer.forged == 10 * len(PACKETS)
    assert consumer.interests == consumer.segments == len(PACKETS)


def flipped(wire: bytes) -> bytes:
    """One bit of the content is another."""
    start, stop = packet.content_span(wire)
    at = (start + stop) // 2
    return wire[:at] + bytes((wire[at] ^ 1,)) + wire[at + 1 :]


def truncated(wire: bytes) -> bytes:
    """As long as it says, but cut off and sealed again."""
    data = packet.decode_data(wire)
    return keys.sign_data(data.name, data.content[: len(data.content) // 2], final_block=data.final_block)


DAMAGES: dict[str, Callable[[bytes], bytes]] = {
    "flipped": flipped,
    "truncated": truncated,
    "cut off": lambda wire: wire[: len(wire) // 2],
    "empty": lambda wire: keys.sign_data(packet.decode_data(wire).name, b""),
    "resigned": lambda wire: keys.sign_data(packet.decode_data(wire).name, packet.decode_data(wire).content),
    "of another name": lambda wire: next(other for other in PACKETS.values() if other != wire),
    "junk": lambda wire: b"\x06\x03\x07\x01",
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_segment_costs_one_retry(store: BlobStore, damage: str) -> None:
    """Every packet comes damaged at first: each is asked for a second time, and no third."""
    asked: dict[Name, int] = {}

    def answers(name: Name) -> Iterator[tuple[float, bytes]]:
        asked[name] = asked.get(name, 0) + 1
        yield 0.01, DAMAGES[damage](PACKETS[name]) if asked[name] == 1 else PACKETS[name]

    consumer = fetch_from(answers, store)
    assert max(asked.values()) == 2
    assert consumer.segments == len(PACKETS) and consumer.repeats == sum(asked.values()) - len(PACKETS)


def test_one_damaged_segment_in_ten_hardly_slows_a_transfer(store: BlobStore) -> None:
    """The others go on while the retry is waited for."""
    damaged = set(random.Random(1).sample(sorted(PACKETS), len(PACKETS) // 10))

    def answers(name: Name) -> Iterator[tuple[float, bytes]]:
        yield 0.01, flipped(PACKETS[name]) if name in damaged else PACKETS[name]
        damaged.discard(name)

    consumer = fetch_from(answers, store)
    assert consumer.interests == len(PACKETS) + len(PACKETS) // 10


# --- over sockets: a neighbour that lies, and an honest one

LIES: dict[str, Callable[[packet.Interest], bytes | None]] = {
    "garbage": lambda interest: keys.sign_data(interest.name, random.randbytes(8000)),
    "nothing": lambda interest: None,
    "no packets": lambda interest: b"\x06\xfd\x1f\x40" + bytes(8000),
}


@pytest.mark.parametrize("lie", LIES)
def test_a_neighbour_that_lies_is_left_for_an_honest_one(store: BlobStore, tmp_path: Path, lie: str) -> None:
    """A holder that answers with garbage, or not at all, costs a few Interests; the next one brings the blob."""

    async def fetch() -> None:
        async with AsyncExitStack() as stack:
            ports = [free_port("127.0.0.1") for _ in range(2)]
            uris = [f"tcp4://127.0.0.1:{port}" for port in ports]
            liar, holder = [await stack.enter_async_context(running(uri)) for uri in uris]
            neighbors = tuple(Neighbor(name, uri) for name, uri in zip(("liar", "holder"), uris, strict=True))
            near = await stack.enter_async_context(running(neighbors=neighbors))
            lies = itertools.count()
            liar.serve(NETWORK.prefix, lambda interest: (next(lies), LIES[lie](interest))[1])
            holder.serve(NETWORK.blobs, lambda interest: PACKETS.get(interest.name))
            for gateway, node in ((liar, LIAR), (holder, HOLDER)):
                gateway.forwarder.region = (node,)
            await connected(near)
            near.route(LIAR, "liar")
            near.route(HOLDER, "holder")
            consumer = Consumer(near.app, NETWORK)
            path = await consumer.fetch_blob(REF, store, [LIAR, HOLDER])
            assert path.read_bytes() == CONTENT
            assert consumer.interests <= len(PACKETS) + 10 and next(lies) < 10

    asyncio.run(asyncio.wait_for(fetch(), 30))


async def connected(gateway: Gateway) -> None:
    while not all(gateway.is_up(name) for name in ("liar", "holder")):  # noqa: ASYNC110 - no event tells
        await asyncio.sleep(0.01)
