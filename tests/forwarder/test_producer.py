"""Publishing: blobs of a store, and signed segments that any NDN application can fetch."""

import asyncio
import hashlib
import random
from collections.abc import Callable
from pathlib import Path

import pytest
from ndn.encoding import parse_data

from gateway.forwarder.blobs import BlobStore
from gateway.forwarder.consumer import Consumer
from gateway.forwarder.endpoint import Endpoint, TimedOut
from gateway.forwarder.packet import Interest, decode_interest, encode_interest
from gateway.forwarder.producer import SEGMENT_BYTES, SegmentedContent, publish_segmented, serve_blobs
from gateway.protocol import keys, names
from gateway.protocol.keys import Key, PublicKey
from gateway.protocol.names import Name

NETWORK = names.Network("/guifi/sants")
NAME = names.parse("/guifi/sants/provider/upc/file")
METADATA = NAME + names.component("metadata", names.KEYWORD)
CONTENT = random.Random(4).randbytes(3 * SEGMENT_BYTES + 5)


class Served:
    """A face on which nothing is sent: keeps the handlers."""

    def __init__(self) -> None:
        self.handlers: dict[Name, Callable[[Interest], object]] = {}

    def serve(self, prefix: Name, handler: Callable[[Interest], object]) -> None:
        self.handlers[prefix] = handler

    def ask(self, name: Name, can_be_prefix: bool = False, digest: bytes | None = None) -> object:
        (handler,) = (h for prefix, h in self.handlers.items() if name.startswith(prefix))
        return handler(decode_interest(encode_interest(name, can_be_prefix=can_be_prefix, digest=digest)[1]))


def endpoints() -> tuple[Endpoint, Endpoint]:
    """Two endpoints at the two ends of one face."""
    loop = asyncio.get_running_loop()
    near: Endpoint = Endpoint(lambda wire: loop.call_soon(far.receive, wire))  # type: ignore[arg-type, return-value]
    far: Endpoint = Endpoint(lambda wire: loop.call_soon(near.receive, wire))  # type: ignore[arg-type, return-value]
    return near, far


def test_serves_the_blobs_of_a_store(tmp_path: Path) -> None:
    """Every Interest that the store can answer is answered, by digest, exactly or by prefix; others are not."""
    store, served = BlobStore(tmp_path, NETWORK), Served()
    ref = store.add_bytes(CONTENT)
    serve_blobs(served, NETWORK, store)  # type: ignore[arg-type]
    name = NETWORK.blob(ref.sha256) + names.segment(1)
    wire = store.find(name)
    assert isinstance(wire, bytes)
    assert served.ask(name) == served.ask(name, digest=hashlib.sha256(wire).digest()) == wire
    assert served.ask(NETWORK.blob(ref.sha256), can_be_prefix=True) == store.find(NETWORK.blob(ref.sha256), True)
    assert served.ask(name, digest=bytes(32)) is None
    assert served.ask(NETWORK.blob(bytes(32)) + names.segment(0)) is None
    store.close()


@pytest.mark.parametrize("size", [0, 1, SEGMENT_BYTES, SEGMENT_BYTES + 1, 40 * SEGMENT_BYTES + 9])
@pytest.mark.parametrize("from_file", [True, False])
def test_published_content_is_fetched(tmp_path: Path, size: int, from_file: bool) -> None:
    """Content of any size, from a file or from memory, arrives as it was, found by its unversioned name."""
    content = random.Random(size).randbytes(size)
    path = tmp_path / "file"
    path.write_bytes(content)

    async def transfer() -> bytes:
        near, far = endpoints()
        published = publish_segmented(far, NAME, path if from_file else content)
        parts: list[bytes] = []
        await Consumer(near, NETWORK).fetch_segmented(NAME, lambda offset, chunk: parts.append(chunk))
        published.close()
        return b"".join(parts)

    assert asyncio.run(transfer()) == content


def test_segments_are_signed_packets_with_conventional_names() -> None:
    """Segments bear version, number, FinalBlockId, freshness and the key's signature, as python-ndn reads them."""
    key = Key.generate(NETWORK.provider("upc"))
    content = SegmentedContent(NAME, CONTENT, key, version=7, freshness_ms=3000)
    wire = content.packet(3)
    name, meta, payload, _ = parse_data(wire)
    assert names.to_uri(b"".join(bytes(c) for c in name)) == "/guifi/sants/provider/upc/file/v=7/seg=3"
    assert bytes(payload or b"") == CONTENT[3 * SEGMENT_BYTES :]
    assert bytes(meta.final_block_id) == names.segment(3) and meta.freshness_period == 3000
    packet = keys.parse(wire)
    assert packet.key_name == key.name
    assert PublicKey(key.name, key.spki).verifies(packet)


def test_content_without_a_key_bears_a_digest() -> None:
    """Without a key the packets are signed with DigestSha256, so that any consumer accepts them."""
    packet = keys.parse(SegmentedContent(NAME, CONTENT).packet(0))
    assert packet.key_name is None
    assert packet.signature == hashlib.sha256(packet.signed).digest()


def test_answers_what_it_has_and_nothing_else() -> None:
    """A prefix finds the first segment, an exact name its packet; other versions, segments and digests find nothing."""
    content, served = SegmentedContent(NAME, CONTENT, version=7), Served()
    served.serve(NAME, content.answer)
    version = NAME + names.version(7)
    first, last = content.packet(0), content.packet(3)
    assert served.ask(NAME, can_be_prefix=True) == served.ask(version, can_be_prefix=True) == first
    assert served.ask(version + names.segment(3)) == last
    assert served.ask(version + names.segment(3), digest=hashlib.sha256(last).digest()) == last
    refused: list[tuple[Name, bool]] = [
        (NAME, False),
        (version, False),
        (version + names.segment(4), False),
        (version + names.tlv(names.SEGMENT, b"\x00\x03"), False),
        (version + names.segment(0) + names.segment(0), True),
        (NAME + names.version(8), True),
        (NAME + names.version(7 << 8), True),
        (METADATA, False),
        (NAME + names.component("other"), True),
    ]
    for name, can_be_prefix in refused:
        assert served.ask(name, can_be_prefix) is None, names.to_uri(name)
    assert served.ask(version + names.segment(3), digest=bytes(32)) is None


def test_metadata_names_the_version() -> None:
    """An RDR metadata Interest brings the versioned name under a version of its own, hardly to be cached."""
    content = SegmentedContent(NAME, CONTENT, version=7)
    wire = content.answer(decode_interest(encode_interest(METADATA, can_be_prefix=True, must_be_fresh=True)[1]))
    assert wire is not None
    name, meta, payload, _ = parse_data(wire)
    parts = [bytes(c) for c in name]
    assert b"".join(parts[:-2]) == METADATA and parts[-1] == names.segment(0)
    assert names.last_number(parts[-2], names.VERSION) is not None
    assert bytes(payload or b"") == names.tlv(7, NAME + names.version(7))
    assert meta.freshness_period == 10 and bytes(meta.final_block_id) == names.segment(0)


def test_version_follows_the_file(tmp_path: Path) -> None:
    """A file's version is the time of its last change, so that publishing it again gives the same names."""
    path = tmp_path / "file"
    path.write_bytes(CONTENT)
    first, again = SegmentedContent(NAME, path), SegmentedContent(NAME, path)
    assert first.versioned == again.versioned and first.packet(0) == again.packet(0)
    assert first.version == path.stat().st_mtime_ns // 1_000_000
    first.close()
    first.close()
    again.close()


def test_recent_packets_are_signed_once(tmp_path: Path) -> None:
    """Packets asked for again are not signed again, and a long object does not fill the memory."""
    content = SegmentedContent(NAME, bytes(400 * SEGMENT_BYTES), version=1)
    assert content.packet(0) is content.packet(0)
    first = content.packet(0)
    for index in range(400):
        content.packet(index)
    assert len(content._recent) <= 256
    assert content.packet(0) is not first and content.packet(0) == first


def test_what_nobody_serves_times_out() -> None:
    """An endpoint without a handler for a name stays silent."""

    async def ask() -> None:
        near, far = endpoints()
        publish_segmented(far, NAME, CONTENT, version=1)
        with pytest.raises(TimedOut):
            await near.express(NAME + names.version(2), can_be_prefix=True, lifetime_ms=20)

    asyncio.run(ask())
