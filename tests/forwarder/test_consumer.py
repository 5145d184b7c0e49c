"""Fetching over a network that loses, delays, reorders, forges and refuses."""

import asyncio
import hashlib
import itertools
import os
import random
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from gateway.forwarder import packet
from gateway.forwarder.blobs import BlobStore, StorageFull
from gateway.forwarder.consumer import Consumer, FetchError
from gateway.forwarder.endpoint import Endpoint
from gateway.forwarder.producer import SegmentedContent, serve_blobs
from gateway.protocol import keys, names, objects
from gateway.protocol.errors import BlobError
from gateway.protocol.messages import BlobRef
from tests.forwarder.fake_network import FakeNetwork, Holder, Silence
from tests.simulation.loop import run

NETWORK = names.Network("/guifi/sants")
PAYLOAD = objects.PAYLOAD_BYTES
A, B = NETWORK.node("a"), NETWORK.node("b")


def content_of(size: int, seed: int = 1) -> bytes:
    return random.Random(seed).randbytes(size)


CONTENT = content_of(259 * PAYLOAD + 17)
REF = objects.describe_bytes(NETWORK, CONTENT)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[BlobStore]:
    store = BlobStore(tmp_path / "mine", NETWORK)
    yield store
    store.close()


@pytest.fixture
def holder(tmp_path: Path) -> Iterator[BlobStore]:
    """Another node's store, which holds CONTENT."""
    store = BlobStore(tmp_path / "theirs", NETWORK)
    store.add_bytes(CONTENT)
    yield store
    store.close()


@pytest.fixture
def network(holder: BlobStore) -> FakeNetwork:
    """A network whose default route leads to the holder."""
    network = FakeNetwork()
    network.holders[b""] = holder.find
    return network


def silent(name: bytes, can_be_prefix: bool, digest: bytes | None) -> bytes | None:
    raise Silence


# --- blobs


def test_fetches_a_blob(network: FakeNetwork, store: BlobStore) -> None:
    """A blob comes whole, every packet asked for once by its digest, and is a file of the store afterwards."""
    consumer, steps = Consumer(network, NETWORK), []
    path = run(consumer.fetch_blob(REF, store, progress=lambda held, size: steps.append((held, size))))
    assert path == store.path(REF.sha256) and path.read_bytes() == CONTENT
    packets = sum(objects.level_counts(len(CONTENT)))
    assert (consumer.interests, consumer.segments, len(set(network.asked))) == (packets, packets, packets)
    assert consumer.bytes == len(CONTENT) + 262 * 32
    assert (consumer.timeouts, consumer.nacks, consumer.forged) == (0, 0, 0)
    assert steps[-1] == (len(CONTENT), len(CONTENT)) and steps == sorted(steps)


@pytest.mark.parametrize("size", [0, 1, PAYLOAD, PAYLOAD + 1, 250 * PAYLOAD + 1])
def test_fetches_blobs_of_every_shape(network: FakeNetwork, holder: BlobStore, store: BlobStore, size: int) -> None:
    """Empty blobs, blobs of one segment and of several index levels all come."""
    ref = holder.add_bytes(content_of(size, seed=5))
    path = run(Consumer(network, NETWORK).fetch_blob(ref, store))
    assert path.read_bytes() == content_of(size, seed=5)


def test_does_not_fetch_what_is_there(network: FakeNetwork, holder: BlobStore) -> None:
    """A blob that the store holds costs no Interest."""
    assert run(Consumer(network, NETWORK).fetch_blob(REF, holder)) == holder.path(REF.sha256)
    assert network.asked == []


def test_survives_loss_and_reordering(network: FakeNetwork, store: BlobStore) -> None:
    """With every seventh packet lost and the others out of order the blob comes all the same."""
    network.loss, network.jitter_s = 0.15, 0.2
    consumer = Consumer(network, NETWORK)
    assert run(consumer.fetch_blob(REF, store)).read_bytes() == CONTENT
    assert consumer.timeouts > 20
    assert consumer.interests == consumer.segments + consumer.timeouts


def test_forged_packets_cannot_answer(network: FakeNetwork, store: BlobStore) -> None:
    """Packets of the right name with another digest are counted and asked for again, none reaches the disk."""
    network.forgery = 0.2
    consumer = Consumer(network, NETWORK)
    assert run(consumer.fetch_blob(REF, store)).read_bytes() == CONTENT
    assert consumer.forged > 20 and consumer.bytes == len(CONTENT) + 262 * 32


def test_window_opens_and_stays_bounded(network: FakeNetwork, holder: BlobStore, store: BlobStore) -> None:
    """A long transfer starts with four Interests in flight and never has more than 400."""
    ref = holder.add_bytes(content_of(1500 * PAYLOAD))
    network.delay_s = 0.2
    peaks: list[int] = []
    run(Consumer(network, NETWORK).fetch_blob(ref, store, progress=lambda *_: peaks.append(network.peak)))
    assert peaks[0] <= 8 and 200 < network.peak <= 400


def test_a_slow_link_is_filled_but_not_flooded(network: FakeNetwork, store: BlobStore) -> None:
    """Over 1 MB/s the transfer takes hardly longer than it must, and less than a second of packets is queued."""
    network.rate_bytes_s = 1e6

    async def timed() -> float:
        start = asyncio.get_running_loop().time()
        await Consumer(network, NETWORK).fetch_blob(REF, store)
        return asyncio.get_running_loop().time() - start

    assert run(timed()) < 1.2 * 263 * 8.1e3 / 1e6
    assert network.peak * 8000 / 1e6 < 0.7


def test_the_window_shrinks_to_what_the_network_carries(network: FakeNetwork, store: BlobStore) -> None:
    """Where everything beyond 20 packets in flight is lost, the transfer settles below and comes through."""
    network.capacity, network.delay_s = 20, 0.05

    async def timed() -> float:
        start = asyncio.get_running_loop().time()
        await Consumer(network, NETWORK).fetch_blob(REF, store)
        return asyncio.get_running_loop().time() - start

    assert run(timed()) < 5
    assert len(network.asked) < 1.5 * 263


def test_one_failure_of_many_turns_the_hints_once(network: FakeNetwork, holder: BlobStore, store: BlobStore) -> None:
    """When all that is in flight is refused by one holder, the next in order is asked, and none is passed over."""

    def pages_only(name: bytes, can_be_prefix: bool, digest: bytes | None) -> bytes | None:
        return holder.find(name, can_be_prefix, digest) if b"index" in name else None

    others = [NETWORK.node(name) for name in ("c", "d", "e", "f", "g", "h", "i")]
    network.holders = {A: pages_only, B: holder.find, **dict.fromkeys(others, holder.find)}
    consumer = Consumer(network, NETWORK)
    run(consumer.fetch_blob(REF, store, hints=[A, B, *others]))
    assert consumer.nacks >= 4
    assert {hint for _, hint in network.asked} == {A, B}


def test_turns_to_the_next_hint_on_nack(network: FakeNetwork, holder: BlobStore, store: BlobStore) -> None:
    """A holder that has nothing costs a few Interests, then all go to the next."""
    network.holders = {A: lambda *_: None, B: holder.find}
    consumer = Consumer(network, NETWORK)
    run(consumer.fetch_blob(REF, store, hints=[A, B]))
    assert consumer.nacks == sum(hint == A for _, hint in network.asked) == 1


def test_turns_to_the_next_hint_on_silence(network: FakeNetwork, holder: BlobStore, store: BlobStore) -> None:
    """A holder that does not answer is left after two timeouts of a packet."""
    network.holders = {A: silent, B: holder.find}
    consumer = Consumer(network, NETWORK)
    run(consumer.fetch_blob(REF, store, hints=[A, B]))
    assert [hint for _, hint in network.asked[:3]] == [A, A, B]
    assert consumer.timeouts == 2


def test_goes_round_holders_of_parts(network: FakeNetwork, holder: BlobStore, store: BlobStore) -> None:
    """Two holders of one half each are enough: the hints are tried in turn, and round again."""

    def half(parity: int) -> Holder:
        def find(name: bytes, can_be_prefix: bool, digest: bytes | None) -> bytes | None:
            position = objects.parse_packet_name(NETWORK.blobs, name)
            assert position is not None
            is_held = position[1] > 0 or position[2] % 2 == parity
            return holder.find(name, can_be_prefix, digest) if is_held else None

        return find

    network.holders = {A: half(0), B: half(1)}
    consumer = Consumer(network, NETWORK)
    assert run(consumer.fetch_blob(REF, store, hints=[A, B])).read_bytes() == CONTENT


def test_an_empty_hint_asks_without_one(network: FakeNetwork, store: BlobStore) -> None:
    """`b""` among the hints stands for the Interest's own route."""
    network.holders[A] = lambda *_: None
    run(Consumer(network, NETWORK).fetch_blob(REF, store, hints=[A, b""]))
    assert {hint for _, hint in network.asked} == {A, b""}


@pytest.mark.parametrize(("holder_of_a", "reason"), [(lambda *_: None, "no route"), (silent, "no answer within")])
def test_gives_up_without_progress(network: FakeNetwork, store: BlobStore, holder_of_a: Holder, reason: str) -> None:
    """After 30 s in which nothing came the error names the blob, the packet, the holder and the last reason."""
    network.holders = {A: holder_of_a}

    async def timed() -> float:
        start = asyncio.get_running_loop().time()
        with pytest.raises(FetchError) as raised:
            await Consumer(network, NETWORK).fetch_blob(REF, store, hints=[A])
        text = str(raised.value)
        assert REF.sha256.hex() in text and "index2" in text and "seg=0" in text
        assert names.to_uri(A) in text and reason in text
        return asyncio.get_running_loop().time() - start

    assert 30 <= run(timed()) <= 36
    assert len(network.asked) < 60


def test_an_outage_shorter_than_the_patience_is_bridged(network: FakeNetwork, store: BlobStore) -> None:
    """A transfer goes on after the network was away for 20 s."""

    async def fetch_through_outage() -> Path:
        consumer = Consumer(network, NETWORK)
        fetch = asyncio.ensure_future(consumer.fetch_blob(REF, store))
        await asyncio.sleep(0.1)
        network.is_up = False
        await asyncio.sleep(20)
        network.is_up = True
        return await fetch

    assert run(fetch_through_outage()).read_bytes() == CONTENT


def test_what_arrived_is_kept(network: FakeNetwork, store: BlobStore) -> None:
    """A fetch that was cancelled or failed is taken up where it ended, also by another process."""

    async def cancelled_and_failed() -> int:
        consumer = Consumer(network, NETWORK)
        fetch = asyncio.ensure_future(consumer.fetch_blob(REF, store))
        await asyncio.sleep(0.06)
        fetch.cancel()
        with pytest.raises(asyncio.CancelledError):
            await fetch
        network.is_up = False
        with pytest.raises(FetchError):
            await consumer.fetch_blob(REF, store, patience_s=2)
        return consumer.segments

    held = run(cancelled_and_failed())
    assert 5 < held < 200
    again = BlobStore(store.directory, NETWORK)
    network.is_up, network.asked = True, []
    assert run(Consumer(network, NETWORK).fetch_blob(REF, again)).read_bytes() == CONTENT
    assert len(network.asked) == 263 - held
    again.close()


def test_what_arrived_is_synced_on_the_way(
    network: FakeNetwork, store: BlobStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Long before the end the bitmap on the disk knows what has arrived, and it was not written by the loop."""
    network.rate_bytes_s = 50_000.0
    claimed: list[int] = []

    def look(held: int, size: int) -> None:
        path = store.directory / "partial" / f"{REF.sha256.hex()}.bitmap"
        bits = int.from_bytes(path.read_bytes(), "big").bit_count() if path.exists() else 0
        claimed.append(held // PAYLOAD - bits)

    run(Consumer(network, NETWORK).fetch_blob(REF, store, progress=look))
    assert max(claimed) <= 50


def test_concurrent_fetches_share_the_work(network: FakeNetwork, store: BlobStore) -> None:
    """Two services that want the same layer at once fetch it once."""
    consumer = Consumer(network, NETWORK)

    async def both() -> list[Path]:
        return await asyncio.gather(*(consumer.fetch_blob(REF, store) for _ in range(2)))

    assert run(both()) == [store.path(REF.sha256)] * 2
    assert consumer.interests == 263


def test_who_asks_later_brings_a_holder(network: FakeNetwork, holder: BlobStore, store: BlobStore) -> None:
    """A second request for a blob that does not come names somebody who is there: both have it soon, fetched once."""
    network.holders = {A: silent, B: holder.find}
    consumer = Consumer(network, NETWORK)

    async def both() -> float:
        first = asyncio.ensure_future(consumer.fetch_blob(REF, store, [A]))
        await asyncio.sleep(20)
        asked = asyncio.get_running_loop().time()
        second = asyncio.ensure_future(consumer.fetch_blob(REF, store, [B]))
        assert await first == await second == store.path(REF.sha256)
        return asyncio.get_running_loop().time() - asked

    assert run(both()) < 1
    assert consumer.segments == 263


def test_a_contact_is_used_at_once(network: FakeNetwork, store: BlobStore) -> None:
    """When a link comes back, a transfer that had lost all patience goes on within a round trip."""
    consumer = Consumer(network, NETWORK)

    async def fetch() -> float:
        fetching = asyncio.ensure_future(consumer.fetch_blob(REF, store))
        await asyncio.sleep(0.05)
        network.is_up = False
        await asyncio.sleep(23.3)
        network.is_up = True
        consumer.nudge()
        back = asyncio.get_running_loop().time()
        await fetching
        return asyncio.get_running_loop().time() - back

    assert run(fetch()) < 0.5


def test_a_nudge_repeats_nothing_of_a_transfer_that_goes_well(network: FakeNetwork, store: BlobStore) -> None:
    """A neighbour that comes up costs a transfer from another one no Interest."""
    consumer = Consumer(network, NETWORK)

    async def fetch() -> None:
        fetching = asyncio.ensure_future(consumer.fetch_blob(REF, store))
        while not fetching.done():
            await asyncio.sleep(0.003)
            consumer.nudge()

    run(fetch())
    assert consumer.interests == consumer.segments == 263


def test_a_slow_holder_gets_help(network: FakeNetwork, holder: BlobStore, store: BlobStore) -> None:
    """Where the first holder brings 20 kB/s, the next one is asked beside it, and then instead."""
    served = {A: 0, B: 0}

    def limited(name: bytes, can_be_prefix: bool, digest: bytes | None) -> bytes | None:
        served[A] += 1
        if served[A] > 4 + 2.5 * asyncio.get_running_loop().time():
            raise Silence
        return holder.find(name, can_be_prefix, digest)

    def fast(name: bytes, can_be_prefix: bool, digest: bytes | None) -> bytes | None:
        served[B] += 1
        return holder.find(name, can_be_prefix, digest)

    network.holders = {A: limited, B: fast}

    async def timed() -> float:
        await Consumer(network, NETWORK).fetch_blob(REF, store, [A, B])
        return asyncio.get_running_loop().time()

    assert run(timed()) < 15
    assert served[B] > 200


def test_retransmissions_go_to_the_holder_that_lives(network: FakeNetwork, store: BlobStore) -> None:
    """With one packet in twenty lost on its way, the second holder is not asked for anything."""
    network.holders[A] = network.holders[B] = network.holders[b""]
    network.loss = 0.05
    consumer = Consumer(network, NETWORK)
    run(consumer.fetch_blob(REF, store, [A, B]))
    assert consumer.repeats > 5 and {hint for _, hint in network.asked} == {A}


def lying_ref(named: bytes, carried: bytes) -> tuple[BlobRef, Holder]:
    """A BlobRef with the hash of one content and a tree over another, and who serves it."""
    sha256 = hashlib.sha256(named).digest()
    blob, payloads = NETWORK.blob(sha256), objects.split(carried)
    ref, leaves = objects.describe(NETWORK, sha256, len(carried), payloads.__getitem__)
    packets = {}
    for level, pages in enumerate([payloads, objects.pages(leaves)]):
        builder = objects.PacketBuilder(blob, level, len(pages))
        for index, page in enumerate(pages):
            packets[objects.packet_name(blob, level, index)] = builder.build(index, page)
    return ref, lambda name, can_be_prefix, digest: packets.get(name)


def test_a_root_that_lies_ends_in_an_error(network: FakeNetwork, store: BlobStore) -> None:
    """A blob whose packets fit the root but not the SHA-256 is not accepted, on disk or in memory."""
    named, carried = content_of(20_000), content_of(20_000, seed=2)
    ref, network.holders[b""] = lying_ref(named, carried)
    consumer = Consumer(network, NETWORK)
    for fetch in (consumer.fetch_blob(ref, store), consumer.fetch_bytes(ref)):
        with pytest.raises(BlobError) as raised:
            run(fetch)
        assert ref.sha256.hex() in str(raised.value) and hashlib.sha256(carried).hexdigest() in str(raised.value)
    assert not store.has(ref.sha256) and store.usage_bytes == 0


def test_a_size_that_lies_ends_in_an_error(network: FakeNetwork, holder: BlobStore, store: BlobStore) -> None:
    """A true root under a wrong size is noticed at the first packet of another length."""
    ref = holder.add_bytes(content_of(20_000))
    lying = BlobRef(ref.sha256, 30_000, ref.root)
    consumer = Consumer(network, NETWORK)
    for fetch in (consumer.fetch_blob(lying, store), consumer.fetch_bytes(lying)):
        with pytest.raises(BlobError, match="its root lies"):
            run(fetch)


def test_no_room_is_said_before_anything_is_asked(network: FakeNetwork, tmp_path: Path) -> None:
    """A blob that does not fit the budget is refused without an Interest."""
    store = BlobStore(tmp_path / "tiny", NETWORK, 100_000)
    with pytest.raises(StorageFull, match="disk_cache"):
        run(Consumer(network, NETWORK).fetch_blob(REF, store))
    assert network.asked == []
    store.close()


def test_a_disk_that_fills_up_ends_the_fetch(
    network: FakeNetwork, store: BlobStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """When the disk refuses a segment the fetch ends with StorageFull and nothing hangs."""
    real = os.pwrite

    def refuse(handle: int, payload: bytes, at: int) -> int:
        if at > 100 * PAYLOAD:
            raise OSError(28, "No space left on device")
        return real(handle, payload, at)

    monkeypatch.setattr(os, "pwrite", refuse)
    with pytest.raises(StorageFull, match="No space left"):
        run(Consumer(network, NETWORK).fetch_blob(REF, store))


# --- in memory


@pytest.mark.parametrize("size", [0, 1, PAYLOAD + 1, objects.FANOUT * 100, 1 << 20])
def test_fetches_small_blobs_into_memory(network: FakeNetwork, holder: BlobStore, size: int) -> None:
    """A blob of up to 1 MB comes as bytes, verified, without a store."""
    ref = holder.add_bytes(content_of(size, seed=7))
    network.loss, network.forgery = 0.05, 0.05
    assert run(Consumer(network, NETWORK).fetch_bytes(ref)) == content_of(size, seed=7)


def test_large_blobs_are_not_fetched_into_memory(network: FakeNetwork) -> None:
    """More than 1 MB is refused with the size, without an Interest."""
    with pytest.raises(BlobError, match=str(len(CONTENT))):
        run(Consumer(network, NETWORK).fetch_bytes(REF))
    assert network.asked == []


# --- segmented content


NAME = names.parse("/some/app/file")


def collect(network: FakeNetwork, name: bytes, **options: object) -> bytes:
    """Fetches a segmented object; the writes must be without gaps."""
    content = bytearray()

    def write(offset: int, chunk: bytes) -> None:
        assert offset == len(content)
        content.extend(chunk)

    size = run(Consumer(network, NETWORK).fetch_segmented(name, write, **options))  # type: ignore[arg-type]
    assert size == len(content)
    return bytes(content)


def packets(prefix: bytes, payloads: list[bytes], final: str = "each") -> Holder:
    """Serves segments as applications make them, with the FinalBlockId in each, in the last, or in none."""
    wires = {}
    for index, payload in enumerate(payloads):
        has_final = final == "each" or (final == "last" and index == len(payloads) - 1)
        final_block = names.segment(len(payloads) - 1) if has_final else None
        name = prefix + names.segment(index)
        wires[name] = keys.sign_data(name, payload, 1000, final_block=final_block)

    def find(name: bytes, can_be_prefix: bool, digest: bytes | None) -> bytes | None:
        if can_be_prefix:
            return next((wire for key, wire in wires.items() if key.startswith(name)), None)
        return wires.get(name)

    return find


@pytest.mark.parametrize("final", ["each", "last"])
@pytest.mark.parametrize("versioned", [True, False])
@pytest.mark.parametrize("count", [1, 2, 30])
def test_fetches_segmented_objects(network: FakeNetwork, final: str, versioned: bool, count: int) -> None:
    """Objects with and without a version come in order, also when only the last segment tells that it is the last."""
    payloads = [content_of(100 + seed, seed) for seed in range(count)]
    network.holders[b""] = packets(NAME + (names.version(7) if versioned else b""), payloads, final)
    network.jitter_s = 0.05
    assert collect(network, NAME) == b"".join(payloads)
    assert collect(network, NAME + (names.version(7) if versioned else b"")) == b"".join(payloads)


def test_a_single_packet_is_an_object(network: FakeNetwork) -> None:
    """A Data packet without a segment number, and one segment named exactly, are fetched as they are."""
    wire = keys.sign_data(NAME, b"hello")
    network.holders[b""] = lambda name, *_: wire if name == NAME else None
    assert collect(network, NAME) == b"hello"
    network.holders[b""] = packets(NAME, [b"a", b"b", b"c"])
    assert collect(network, NAME + names.segment(1)) == b"b"


def test_discovery_may_find_a_middle_segment(network: FakeNetwork) -> None:
    """A cache on the way may answer the discovery with any segment; the object comes from its beginning."""
    find = packets(NAME + names.version(7), [b"a", b"b", b"c", b"d"])
    middle = NAME + names.version(7) + names.segment(2)
    network.holders[b""] = lambda name, prefix, digest: find(middle if prefix else name, False, digest)
    assert collect(network, NAME) == b"abcd"
    assert network.asked.count((middle, b"")) == 0


def test_uses_metadata_when_discovery_fails(network: FakeNetwork) -> None:
    """A producer that answers only RDR metadata and exact segments is understood."""
    content = SegmentedContent(NAME, content_of(50_000), version=5)
    metadata = NAME + names.component("metadata", names.KEYWORD)

    def find(name: bytes, can_be_prefix: bool, digest: bytes | None) -> bytes | None:
        if can_be_prefix and name != metadata:
            return None
        return content.answer(SegmentedRequest(name, can_be_prefix))  # type: ignore[arg-type]

    network.holders[b""] = find
    assert collect(network, NAME) == content_of(50_000)


class SegmentedRequest:
    """What SegmentedContent reads of an Interest."""

    digest = None

    def __init__(self, name: bytes, can_be_prefix: bool) -> None:
        self.name, self.can_be_prefix = name, can_be_prefix


def test_metadata_found_by_prefix_is_followed(network: FakeNetwork) -> None:
    """Metadata that answers the discovery itself leads to the object; metadata that is no name is an error."""
    content = SegmentedContent(NAME, b"x" * 20_000, version=5)
    metadata = NAME + names.component("metadata", names.KEYWORD)

    def find(name: bytes, can_be_prefix: bool, digest: bytes | None) -> bytes | None:
        return content.answer(SegmentedRequest(metadata if can_be_prefix else name, can_be_prefix))  # type: ignore[arg-type]

    network.holders[b""] = find
    assert collect(network, NAME) == b"x" * 20_000
    broken = metadata + names.version(1) + names.segment(0)
    network.holders[b""] = lambda *_: keys.sign_data(broken, b"\x07\x05junk")
    with pytest.raises(FetchError, match="its content is no name"):
        collect(network, NAME)


def test_nothing_found_names_the_object(network: FakeNetwork) -> None:
    """A name that nobody answers fails soon, with the name and what the network said."""
    network.holders = {}
    with pytest.raises(FetchError, match=r"/some/app/file: nothing was found: .*no route"):
        collect(network, NAME)
    network.is_up = False
    with pytest.raises(FetchError, match="/some/app/file"):
        collect(network, NAME, hints=[A, B])


def test_a_lost_segment_holds_back_a_bounded_number(network: FakeNetwork) -> None:
    """While one segment is missing at most 1024 others are fetched ahead of it."""
    payloads = [b"%d;" % index for index in range(3000)]
    find = packets(NAME, payloads)
    stuck = NAME + names.segment(5)
    network.holders[b""] = lambda name, prefix, digest: None if name == stuck else find(name, prefix, digest)
    with pytest.raises(FetchError, match=r"seg=5 .*no route"):
        collect(network, NAME, patience_s=3)
    assert len({name for name, _ in network.asked}) <= 1024 + 10


def test_an_application_nack_is_an_error(network: FakeNetwork) -> None:
    """A producer's Data of content type NACK means that there is no such content."""
    wire = bytearray(keys.sign_data(NAME + names.segment(0), b"", 1))
    from ndn.encoding import MetaInfo, make_data
    from ndn.security.signer.sha256_digest_signer import DigestSha256Signer

    wire = bytearray(make_data(names.components(NAME), MetaInfo(content_type=3), b"", DigestSha256Signer()))
    network.holders[b""] = lambda *_: bytes(wire)
    with pytest.raises(FetchError, match="no such content"):
        collect(network, NAME)


@pytest.mark.parametrize("other", ["/guifi/sants", "/somewhere/else"])
def test_a_blobs_name_is_checked_by_its_hash(network: FakeNetwork, other: str) -> None:
    """Below any network's prefix a name …/blob/<sha256> brings those bytes, or an error that names both hashes."""
    content, there = content_of(30_000), names.Network(other)
    sha256 = hashlib.sha256(content).digest()
    segments = [there.blob(sha256) + names.segment(index) for index in range(4)]
    wires = dict(zip(segments, objects.packets_of(there, content), strict=False))

    def find(name: bytes, can_be_prefix: bool, digest: bytes | None) -> bytes | None:
        return wires.get(name + names.segment(0) if can_be_prefix else name)

    network.holders[b""] = find
    assert collect(network, there.blob(sha256)) == content
    forged = there.blob(sha256) + names.segment(2)
    wires[forged] = keys.sign_data(forged, bytes(PAYLOAD), final_block=names.segment(3))
    with pytest.raises(BlobError) as raised:
        collect(network, there.blob(sha256))
    damaged = content[: 2 * PAYLOAD] + bytes(PAYLOAD) + content[3 * PAYLOAD :]
    assert sha256.hex() in str(raised.value) and hashlib.sha256(damaged).hexdigest() in str(raised.value)


# --- over real endpoints


def test_over_two_endpoints(holder: BlobStore, store: BlobStore) -> None:
    """Consumer and producer understand each other through real packets and link headers."""

    async def transfer() -> tuple[Path, int]:
        loop = asyncio.get_running_loop()
        near: Endpoint = Endpoint(lambda wire: loop.call_soon(far.receive, wire))  # type: ignore[arg-type, return-value]
        far: Endpoint = Endpoint(lambda wire: loop.call_soon(near.receive, wire))  # type: ignore[arg-type, return-value]
        serve_blobs(far, NETWORK, holder)
        consumer = Consumer(near, NETWORK)
        path = await consumer.fetch_blob(REF, store)
        size = await consumer.fetch_segmented(NETWORK.blob(REF.sha256), lambda offset, content: None)
        assert consumer.timeouts == 0
        return path, size

    path, size = asyncio.run(transfer())
    assert path.read_bytes() == CONTENT and size == len(CONTENT)


def over_endpoints(
    holder: BlobStore, store: BlobStore, delay_s: float, wrap: Callable[[bytes, int], bytes]
) -> Consumer:
    """Fetches REF over a path of that round trip; `wrap` gets each answer and how many there were before."""

    async def fetch() -> Consumer:
        loop, count = asyncio.get_running_loop(), itertools.count()

        def send(wire: bytes) -> None:
            interest = packet.decode_interest(wire)
            answer = holder.find(interest.name, False, interest.digest)
            assert answer is not None
            number = next(count)
            loop.call_later(delay_s + 2 * (number == 40), endpoint.receive, wrap(answer, number))

        endpoint = Endpoint(send)
        consumer = Consumer(endpoint, NETWORK)
        await consumer.fetch_blob(REF, store)
        return consumer

    return run(fetch())


def test_congestion_marks_reach_the_consumer(holder: BlobStore, store: BlobStore) -> None:
    """A mark in the link header of an answer is counted, and a marked transfer keeps its window small."""
    marked = over_endpoints(holder, store, 0.05, lambda wire, _: packet.encode_link(wire, congestion_mark=1))
    assert marked.marks == marked.segments == 263


def test_a_late_answer_is_as_good(holder: BlobStore, store: BlobStore) -> None:
    """A packet that was given up and asked for again is taken from whichever answer comes first, and counted once."""
    consumer = over_endpoints(holder, store, 0.05, lambda wire, _: wire)
    assert consumer.segments == 263 and consumer.repeats == consumer.timeouts == 1
