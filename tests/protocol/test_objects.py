"""Hash-named objects: packets fixed to the byte, and the tree of their implicit digests."""

import hashlib
import itertools

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from ndn.encoding import MetaInfo, make_data, parse_data
from ndn.security.signer.sha256_digest_signer import DigestSha256Signer

from gateway.protocol import names, objects
from gateway.protocol.errors import BlobError
from gateway.protocol.messages import BlobRef

NETWORK = names.Network("/picasso")
PAYLOAD = objects.PAYLOAD_BYTES
digests = st.binary(min_size=32, max_size=32)
# Around every change of shape: segments, pages, pages of pages.
sizes = st.one_of(
    st.integers(0, 3 * PAYLOAD),
    st.sampled_from([250, 251, 500, 501]).flatmap(lambda n: st.integers(n * PAYLOAD - 1, n * PAYLOAD + 1)),
)


def sha256(wire: bytes) -> bytes:
    return hashlib.sha256(wire).digest()


def content_of(size: int) -> bytes:
    return bytes(range(251)) * (size // 251) + bytes(range(size % 251))


# --- the bytes themselves


@pytest.mark.parametrize(
    ("content", "packet", "root"),
    [
        (
            b"picasso\n",
            "068e"  # Data
            " 0754 08077069636173736f 0804626c6f62"  # Name: /picasso/blob
            " 0840"  # the SHA-256 in hex digits
            "6462623834353235643866303033353162353930656134323031346233643536"
            "6237343338313736366362346266666532306463656232346437336138353239"
            " 320100"  # seg=0
            " 1405 1a03 320100"  # MetaInfo: FinalBlockId seg=0, neither ContentType nor FreshnessPeriod
            " 1508 7069636173736f0a"  # Content
            " 1603 1b0100"  # SignatureInfo: DigestSha256
            " 1720 ea02335505f9c42a6c2653cd7e532b982bd9a1c4cee11502ffcdd942991cb2c3",
            "8d2389a7ca0ea69e5b75a0bd153928b9ed93c8c95fe3eedfcfb0981d0e742613",
        ),
        (
            b"",
            "0686 0754 08077069636173736f 0804626c6f62 0840"
            "6533623063343432393866633163313439616662663463383939366662393234"
            "3237616534316534363439623933346361343935393931623738353262383535"
            " 320100"
            " 1405 1a03 320100 1500 1603 1b0100"
            " 1720 e9749522ad90edc0eb328326f6ba032acf0802b35e32335bcde93f847af5a5a6",
            "997c2434351d777f80655263b58df780648adbaedef73086ffc3717994c75c30",
        ),
    ],
)
def test_packet_of_one_segment(content: bytes, packet: str, root: str) -> None:
    """The packet of a small blob has exactly these bytes, and its digest is the root."""
    wire = bytes.fromhex(packet.replace(" ", ""))
    assert objects.packets_of(NETWORK, content) == [wire]
    assert objects.describe_bytes(NETWORK, content) == BlobRef(sha256(content), len(content), bytes.fromhex(root))
    assert sha256(wire).hex() == root


def test_root_of_two_levels() -> None:
    """The blob of 2,000,001 bytes in which byte i is i mod 251 has 251 segments, 2 pages and this root."""
    packets = objects.packets_of(NETWORK, content_of(2_000_001))
    assert len(packets) == 251 + 2 + 1
    # /picasso/blob/<hex>/32=index1/seg=1 and /32=index2/seg=0
    assert sha256(packets[-2]).hex() == "67d518342e24d4ebaf0e3fd509acacad081b99059a6260e6d7f962a2be34d564"
    assert sha256(packets[-1]).hex() == "74f6f56007fa17fcdec2048095bc279aee8a3ff8406c4f8dc4ed834513a04bc2"
    assert objects.describe_bytes(NETWORK, content_of(2_000_001)).root == sha256(packets[-1])


@given(st.integers(0, 3), st.integers(0, 70_000), st.integers(1, 70_000), st.binary(max_size=300))
def test_packets_are_plain_ndn_data(level: int, index: int, count: int, payload: bytes) -> None:
    """A general NDN library builds the same bytes from the same parts, and reads them back."""
    blob = NETWORK.blob(sha256(payload))
    wire = objects.PacketBuilder(blob, level, count).build(index, payload)
    name = objects.packet_name(blob, level, index)
    meta = MetaInfo(content_type=None, final_block_id=names.segment(count - 1))
    assert wire == bytes(make_data(names.components(name), meta, payload, DigestSha256Signer()))
    read_name, _, read_payload, _ = parse_data(wire)
    assert b"".join(bytes(c) for c in read_name) == name and bytes(read_payload or b"") == payload


def test_the_largest_packet_fits() -> None:
    """A full segment with the highest number, below a long network prefix, stays within a packet's 8,800 bytes."""
    blob = names.Network("/" + "/".join(["network"] * 60)).blob(bytes(32))
    builder = objects.PacketBuilder(blob, 4, objects.MAX_SEGMENTS)
    assert len(builder.build(objects.MAX_SEGMENTS - 1, bytes(PAYLOAD))) <= 8800


# --- the tree


@given(sizes)
@example(0)
@example(PAYLOAD)
def test_every_packet_is_reached_from_the_root(size: int) -> None:
    """From the root down every page holds the digests of the packets below it; the segments make the content."""
    content = content_of(size)
    ref, packets = objects.describe_bytes(NETWORK, content), objects.packets_of(NETWORK, content)
    counts = objects.level_counts(size)
    assert sum(counts) == len(packets)
    levels, at = [], 0
    for count in counts:
        levels.append(packets[at : at + count])
        at += count
    expected = [ref.root]
    for level in reversed(range(len(levels))):
        assert [sha256(packet) for packet in levels[level]] == expected
        payloads = [bytes(parse_data(packet)[2] or b"") for packet in levels[level]]
        for index, payload in enumerate(payloads):
            objects.check_payload(ref, level, index, payload)
        joined = b"".join(payloads)
        expected = [joined[start : start + 32] for start in range(0, len(joined), 32)]
    assert joined == content


@given(st.integers(0, 2 * 250 * PAYLOAD))
def test_one_bit_changes_the_root(bit: int) -> None:
    """Another content of the same name would have another root: no packet can be replaced."""
    content = bytearray(content_of(2 * 250 * PAYLOAD // 8 + 1))
    digest = sha256(content)
    honest = objects.describe(NETWORK, digest, len(content), objects.split(bytes(content)).__getitem__)[0]
    content[bit // 8] ^= 1 << (bit % 8)
    lying = objects.describe(NETWORK, digest, len(content), objects.split(bytes(content)).__getitem__)[0]
    assert honest.root != lying.root


@given(st.integers(0, objects.MAX_BLOB_BYTES))
@example(0)
@example(objects.MAX_BLOB_BYTES)
def test_level_counts(size: int) -> None:
    """Each level has a 250th of the packets below it, rounded up, to the single one on top; at most five levels."""
    counts = objects.level_counts(size)
    assert counts[0] == max(1, -(-size // PAYLOAD)) and counts[-1] == 1 and len(counts) <= 5
    for below, above in itertools.pairwise(counts):
        assert 250 * (above - 1) < below <= 250 * above


@given(st.integers(0, objects.MAX_BLOB_BYTES))
def test_payloads_add_up(size: int) -> None:
    """The payload lengths of a level add up to what it carries, the last one being the short one."""
    for level, count in enumerate(objects.level_counts(size)):
        carried = size if level == 0 else objects.level_counts(size)[level - 1] * 32
        last = objects.payload_bytes(size, level, count - 1)
        assert (count - 1) * PAYLOAD + last == carried and 0 <= last <= PAYLOAD
        assert count == 1 or objects.payload_bytes(size, level, 0) == PAYLOAD


@pytest.mark.parametrize("size", [-1, objects.MAX_BLOB_BYTES + 1, 1 << 64])
def test_impossible_sizes_are_refused(size: int) -> None:
    """A size that no blob can have raises BlobError, which tells it."""
    with pytest.raises(BlobError, match=str(size)):
        objects.check(BlobRef(bytes(32), size, bytes(32)))


@given(st.binary(max_size=40), st.binary(max_size=40))
def test_digests_of_another_length_are_refused(first: bytes, second: bytes) -> None:
    """A BlobRef is accepted only with two digests of 32 bytes."""
    if len(first) == len(second) == 32:
        objects.check(BlobRef(first, 1, second))
    else:
        with pytest.raises(BlobError, match=f"{len(first)} and {len(second)} bytes"):
            objects.check(BlobRef(first, 1, second))


@given(st.integers(0, 20_000), st.integers(0, 8_001))
def test_payloads_of_another_length_are_refused(size: int, length: int) -> None:
    """A segment of a length that it cannot have is refused with both lengths."""
    ref = BlobRef(bytes(32), size, bytes(32))
    expected = objects.payload_bytes(size, 0, 0)
    if length == expected:
        objects.check_payload(ref, 0, 0, bytes(length))
    else:
        with pytest.raises(BlobError, match=f"has {length} bytes, {expected} were expected"):
            objects.check_payload(ref, 0, 0, bytes(length))


# --- names of packets


@given(digests, st.integers(0, 4), st.integers(0, (1 << 64) - 1))
def test_packet_names_read_back(digest: bytes, level: int, index: int) -> None:
    """What packet_name writes parse_packet_name reads."""
    name = objects.packet_name(NETWORK.blob(digest), level, index)
    assert objects.parse_packet_name(NETWORK.blobs, name) == (digest, level, index)
    assert objects.parse_packet_name(names.Network("/other").blobs, name) is None


@given(st.binary(max_size=120))
def test_any_bytes_are_a_packet_name_or_none(tail: bytes) -> None:
    """Whatever follows the blob prefix, the answer is None or the parts of exactly that name."""
    name = NETWORK.blobs + tail
    parsed = objects.parse_packet_name(NETWORK.blobs, name)
    assert parsed is None or objects.packet_name(NETWORK.blob(parsed[0]), *parsed[1:]) == name


@given(digests, st.integers(0, 4), st.integers(0, 70_000), st.data())
def test_a_changed_name_is_another_or_none(digest: bytes, level: int, index: int, data: st.DataObject) -> None:
    """A packet has one name: another spelling (longer numbers, capital hex, leading zeros) is not understood."""
    name = bytearray(objects.packet_name(NETWORK.blob(digest), level, index))
    at = data.draw(st.integers(len(NETWORK.blobs), len(name) - 1))
    change = data.draw(st.sampled_from(["flip", "cut", "insert"]))
    if change == "flip":
        name[at] ^= data.draw(st.integers(1, 255))
    elif change == "cut":
        del name[at]
    else:
        name.insert(at, data.draw(st.integers(0, 255)))
    parsed = objects.parse_packet_name(NETWORK.blobs, bytes(name))
    assert parsed is None or objects.packet_name(NETWORK.blob(parsed[0]), *parsed[1:]) == name


@pytest.mark.parametrize(
    "tail",
    [
        "",
        "320200 05".replace(" ", ""),  # seg in two bytes where one is enough
        "32 fd0001 05".replace(" ", ""),  # a length in three bytes
        "3200",  # no digits
        "2007 696e6465783031 320100".replace(" ", ""),  # index01
        "2006 696e64657830 320100".replace(" ", ""),  # index0
        "2006 696e64657835 320100".replace(" ", ""),  # index5, above any blob
        "0806 696e64657831 320100".replace(" ", ""),  # index1 as a generic component
        "360100",  # a version
        "320100 320100".replace(" ", ""),
    ],
)
def test_other_spellings_are_no_packet_names(tail: str) -> None:
    """Names that only resemble a packet's are refused."""
    name = NETWORK.blob(bytes(range(32))) + bytes.fromhex(tail)
    assert objects.parse_packet_name(NETWORK.blobs, name) is None
