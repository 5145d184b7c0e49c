"""Immutable objects named by their hash: segments fixed to the byte, and the index of their implicit digests.

A blob travels as Data packets of 8,000 bytes of payload. Whoever has the bytes builds the very same packets, so a
packet's implicit digest (the SHA-256 of the whole packet) is known in advance. The digests form a tree: level 0 is the
blob's segments, a packet of level n+1 holds the digests of up to 250 packets of level n, and the digest of the single
packet on top is the `root` in the blob's BlobRef. A consumer that starts from the root asks for every packet by its
implicit digest, so that no forged packet can ever be an answer. A blob of one segment needs no index: its root is the
digest of that segment.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable

from gateway.protocol import names
from gateway.protocol.errors import BlobError
from gateway.protocol.messages import BlobRef
from gateway.protocol.names import Name, tlv

PAYLOAD_BYTES = 8000
DIGEST_BYTES = 32
FANOUT = PAYLOAD_BYTES // DIGEST_BYTES
# 250 ** 4 segments are 31 TB; whoever announces more is lying.
MAX_SEGMENTS = FANOUT**4
MAX_BLOB_BYTES = MAX_SEGMENTS * PAYLOAD_BYTES

# Type, length and the 64 hex digits of the component that names a blob.
BLOB_COMPONENT_BYTES = 66
_LEVELS = {names.component(f"index{level}", names.KEYWORD): level for level in range(1, 5)}
_LEVEL_COMPONENT_BYTES = len(next(iter(_LEVELS)))
_SIGNATURE_INFO = bytes.fromhex("16031b0100")
_SIGNATURE_HEADER = bytes.fromhex("1720")


def segment_count(size: int) -> int:
    """How many segments a blob of `size` bytes has; an empty blob has one, empty."""
    return max(1, -(-size // PAYLOAD_BYTES))


def level_counts(size: int) -> list[int]:
    """The number of packets on each level, the segments first, the single packet whose digest is the root last."""
    counts = [segment_count(size)]
    if size < 0 or counts[0] > MAX_SEGMENTS:
        raise BlobError(f"a blob of {size} bytes: from 0 to {MAX_BLOB_BYTES} can be indexed")
    while counts[-1] > 1:
        counts.append(-(-counts[-1] // FANOUT))
    return counts


def check(ref: BlobRef) -> None:
    """Raises BlobError when a BlobRef from outside cannot be one: digests of another length, an impossible size."""
    if len(ref.sha256) != DIGEST_BYTES or len(ref.root) != DIGEST_BYTES:
        raise BlobError(f"a blob whose digests have {len(ref.sha256)} and {len(ref.root)} bytes, not {DIGEST_BYTES}")
    level_counts(ref.size)


def payload_bytes(size: int, level: int, index: int) -> int:
    """The length of the payload of one packet of a blob of `size` bytes."""
    total = size if level == 0 else level_counts(size)[level - 1] * DIGEST_BYTES
    return min(PAYLOAD_BYTES, total - index * PAYLOAD_BYTES)


def check_payload(ref: BlobRef, level: int, index: int, payload: bytes) -> None:
    """Raises BlobError when a packet, although its digest is right, cannot be that part of the blob."""
    expected = payload_bytes(ref.size, level, index)
    if len(payload) != expected:
        raise BlobError(
            f"blob {ref.sha256.hex()}: packet {index} of level {level} has {len(payload)} bytes,"
            f" {expected} were expected: its root lies"
        )


def packet_name(blob: Name, level: int, index: int) -> Name:
    """`<blob>/seg=i` for a segment, `<blob>/32=index<level>/seg=i` for a page of digests."""
    middle = names.component(f"index{level}", names.KEYWORD) if level else b""
    return blob + middle + names.segment(index)


def parse_packet_name(blobs: Name, name: Name) -> tuple[bytes, int, int] | None:
    """(sha256, level, index) of a packet name below the network's blob prefix; None when it is no such name.

    Only the one spelling that `packet_name` writes is accepted: a packet has one name.
    """
    start = len(blobs)
    sha256 = parse_blob_component(name[start : start + BLOB_COMPONENT_BYTES]) if name.startswith(blobs) else None
    position = parse_position(name[start + BLOB_COMPONENT_BYTES :])
    return None if sha256 is None or position is None else (sha256, *position)


def parse_blob_component(component: bytes) -> bytes | None:
    """The SHA-256 in the component that names a blob; None when it is no such component."""
    try:
        sha256 = bytes.fromhex(component[2:].decode("ascii"))
    except ValueError:
        return None
    return sha256 if len(sha256) == DIGEST_BYTES and component == names.component(sha256.hex()) else None


def parse_position(tail: bytes) -> tuple[int, int] | None:
    """(level, index) in what follows a blob's name in the name of its packet; None when it is something else."""
    level = _LEVELS.get(tail[:_LEVEL_COMPONENT_BYTES], 0)
    if level:
        tail = tail[_LEVEL_COMPONENT_BYTES:]
    index = int.from_bytes(tail[2:10], "big")
    return (level, index) if tail == names.segment(index) else None


class PacketBuilder:
    """Builds the packets of one level of one blob; `count` is the number of packets on that level."""

    def __init__(self, blob: Name, level: int, count: int) -> None:
        middle = names.component(f"index{level}", names.KEYWORD) if level else b""
        self._prefix = blob + middle
        self._meta = tlv(0x14, tlv(0x1A, names.segment(count - 1)))

    def build(self, index: int, payload: bytes) -> bytes:
        """The Data packet of `payload`, the same bytes on every node."""
        name = self._prefix + names.segment(index)
        signed = tlv(0x07, name) + self._meta + tlv(0x15, payload) + _SIGNATURE_INFO
        return tlv(0x06, signed + _SIGNATURE_HEADER + hashlib.sha256(signed).digest())


def pages(digests: bytes) -> list[bytes]:
    """The payloads of the level above packets with these digests (32 bytes each, in order)."""
    size = FANOUT * DIGEST_BYTES
    return [digests[at : at + size] for at in range(0, len(digests), size)]


def digest_levels(blob: Name, digests: bytes) -> list[bytes]:
    """From the segments' digests to those of the packets of every level; the root is alone on the last."""
    levels = [digests]
    while len(levels[-1]) > DIGEST_BYTES:
        payloads = pages(levels[-1])
        builder = PacketBuilder(blob, len(levels), len(payloads))
        packets = (builder.build(i, payload) for i, payload in enumerate(payloads))
        levels.append(b"".join(hashlib.sha256(packet).digest() for packet in packets))
    return levels


def describe(network: names.Network, sha256: bytes, size: int, read: Callable[[int], bytes]) -> tuple[BlobRef, bytes]:
    """The BlobRef of stored content and its segments' digests; `read(i)` gives the payload of segment i.

    The digest must be known before (it is in every packet's name): hash the content first, then call this.
    """
    blob = network.blob(sha256)
    builder = PacketBuilder(blob, 0, segment_count(size))
    digests = b"".join(hashlib.sha256(builder.build(i, read(i))).digest() for i in range(segment_count(size)))
    return BlobRef(sha256, size, digest_levels(blob, digests)[-1]), digests


def describe_bytes(network: names.Network, content: bytes) -> BlobRef:
    """The BlobRef of content that is in memory."""
    payloads = split(content)
    return describe(network, hashlib.sha256(content).digest(), len(content), payloads.__getitem__)[0]


def packets_of(network: names.Network, content: bytes) -> list[bytes]:
    """Every packet of content that is in memory, its segments first and then its index."""
    blob, payloads = network.blob(hashlib.sha256(content).digest()), split(content)
    builder = PacketBuilder(blob, 0, len(payloads))
    packets = [builder.build(i, payload) for i, payload in enumerate(payloads)]
    levels = digest_levels(blob, b"".join(hashlib.sha256(packet).digest() for packet in packets))
    for level, digests in enumerate(levels[:-1], 1):
        payloads = pages(digests)
        builder = PacketBuilder(blob, level, len(payloads))
        packets += [builder.build(i, payload) for i, payload in enumerate(payloads)]
    return packets


def split(content: bytes) -> list[bytes]:
    """The payloads of the content's segments."""
    return [content[at : at + PAYLOAD_BYTES] for at in range(0, len(content), PAYLOAD_BYTES)] or [b""]


def sha256_of(chunks: Iterable[bytes]) -> bytes:
    digest = hashlib.sha256()
    for chunk in chunks:
        digest.update(chunk)
    return digest.digest()
