"""The wire: vectors in hex, round trips against python-ndn as an independent reference, bytes that are no packet."""

from __future__ import annotations

import hashlib
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from ndn import encoding as reference

from gateway.forwarder import packet
from gateway.forwarder.packet import DecodeError, decode_data, decode_interest, decode_link, split_stream
from gateway.protocol import names


def unhex(text: str) -> bytes:
    """The bytes of hex with a comment to the right of each `#`."""
    return bytes.fromhex("".join(line.partition("#")[0] for line in text.splitlines()))


FULL_INTEREST = unhex("""
    05 4f                               # Interest
       07 2a                            #   Name
          08 01 61                      #     a
          08 03 66 6f 6f                #     foo
          01 20                         #     implicit digest
             00 01 02 03 04 05 06 07 08 09 0a 0b 0c 0d 0e 0f
             10 11 12 13 14 15 16 17 18 19 1a 1b 1c 1d 1e 1f
       21 00                            #   CanBePrefix
       12 00                            #   MustBeFresh
       1e 0c                            #   ForwardingHint
          07 03 08 01 6e                #     /n
          07 05 08 03 6d 65 68          #     /meh
       0a 04 de ad be ef                #   Nonce
       0c 02 07 d0                      #   InterestLifetime 2000 ms
       22 01 40                         #   HopLimit 64
       fc 02 00 00                      #   unknown, not critical
""")

DATA = unhex("""
    06 29                               # Data
       07 06                            #   Name
          08 01 61                      #     a
          32 01 07                      #     seg=7
       14 0c                            #   MetaInfo
          18 01 02                      #     ContentType 2
          19 02 03 e8                   #     FreshnessPeriod 1000 ms
          1a 03 32 01 09                #     FinalBlockId seg=9
       15 02 68 69                      #   Content "hi"
       16 03 1b 01 00                   #   SignatureInfo: DigestSha256
       17 04 aa bb cc dd                #   SignatureValue
       f0 02 00 00                      #   unknown, not critical
""")

LINK = unhex("""
    64 22                               # LpPacket
       51 08 00 00 00 00 00 00 00 01    #   Sequence
       54 01 02                         #   HopCount, as NFD sends it
       62 02 ab cd                      #   PitToken
       fd 03 2c 01 05                   #   IncomingFaceId 5
       fd 03 40 01 01                   #   CongestionMark 1
       50 05 05 03 07 01 08             #   Fragment
""")


def test_every_field_of_an_interest() -> None:
    """All fields are read, the digest is split off the name, and unknown fields that are not critical are ignored."""
    interest = decode_interest(FULL_INTEREST)
    assert interest.name == names.parse("/a/foo")
    assert interest.digest == bytes(range(32))
    assert interest.full_name == names.parse("/a/foo") + b"\x01\x20" + bytes(range(32))
    assert interest.can_be_prefix and interest.must_be_fresh
    assert interest.hint == (names.parse("/n"), names.parse("/meh"))
    assert interest.nonce == bytes.fromhex("deadbeef")
    assert interest.lifetime_ms == 2000
    assert interest.hop_limit == 64
    assert interest.parameters is None


def test_the_smallest_interest() -> None:
    """A name is all that an Interest needs; the rest has the specification's defaults."""
    interest = decode_interest(bytes.fromhex("0505 0703 080161"))
    assert (interest.name, interest.nonce, interest.lifetime_ms, interest.hop_limit) == (b"\x08\x01a", None, 4000, None)
    assert not interest.can_be_prefix and not interest.must_be_fresh and interest.hint == ()


def test_every_field_of_a_data_packet() -> None:
    """All fields are read; the implicit digest is the SHA-256 of the whole packet."""
    data = decode_data(DATA)
    assert data.name == names.parse("/a/seg=7")
    assert (data.content, data.content_type, data.freshness_ms) == (b"hi", 2, 1000)
    assert data.final_block == names.segment(9)
    assert data.digest == hashlib.sha256(DATA).digest()


def test_every_field_of_a_link_packet() -> None:
    """Headers that concern us are read, those that other forwarders send are tolerated."""
    link = decode_link(LINK)
    assert (link.pit_token, link.incoming_face, link.congestion_mark) == (b"\xab\xcd", 5, 1)
    assert link.fragment == bytes.fromhex("0503070108")
    assert decode_link(bytes.fromhex("6400")).fragment == b""  # IDLE
    assert decode_link(DATA).fragment == DATA


def test_link_headers_in_ascending_order() -> None:
    """What we send has its fields ascending and the fragment last; without fields it is the bare packet."""
    wire = packet.encode_link(b"\x05\x00", pit_token=b"\x01", nack_reason=150, incoming_face=300, next_hop_face=2)
    assert wire == unhex("""
        64 1b                           # LpPacket
           62 01 01                     # PitToken
           fd 03 20 05                  # Nack
              fd 03 21 01 96            #   reason 150, no route
           fd 03 2c 02 01 2c            # IncomingFaceId 300
           fd 03 30 01 02               # NextHopFaceId 2
           50 02 05 00                  # Fragment
    """)
    assert packet.encode_link(b"\x05\x00") == b"\x05\x00"


def test_nack_reasons() -> None:
    """A Nack without a reason has reason 0; the reference library reads ours."""
    wire = bytes.fromhex("640d fd032000 5007 0505 0703 080161")
    assert decode_link(wire).nack_reason == 0
    ours = packet.encode_link(bytes.fromhex("05050703080161"), nack_reason=packet.NACK_DUPLICATE)
    reason, fragment = reference.parse_lp_packet(ours)
    assert (reason, bytes(fragment)) == (100, bytes.fromhex("05050703080161"))


@pytest.mark.parametrize(
    ("wire", "reason"),
    [
        ("", "cut short"),
        ("05", "cut short"),
        ("0504 0703 0801", "exceeds"),
        ("0505 0703 080161 00", "not one Interest"),
        ("0605 0703 080161", "not one Interest"),
        ("0504 0703 080161", "exceeds|not one"),
    ],
)
def test_bytes_that_are_not_one_interest(wire: str, reason: str) -> None:
    """An Interest is exactly as long as it says."""
    with pytest.raises(DecodeError, match=reason):
        decode_interest(bytes.fromhex(wire))


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        ("0700", "empty name"),
        ("080161", "without a name"),
        ("0703 080261", "exceeds"),
        ("fd0007 03 080161", "shortest form"),  # type 7 in three bytes
        ("0705 fd0008 0161", "shortest form"),  # the same within the name: no second spelling of a name
        ("0702 0000", "component of type 0"),
        ("0703 080161 0a01 00", "nonce of 1"),
        ("0703 080161 2202 0000", "hop limit of 2"),
        ("0703 080161 0c03 000000", "number of 3"),
        ("0703 080161 2500", "critical"),
        ("0703 080161 1500", "critical"),
        ("0703 080161 0a04 00000000 2100", "critical"),  # CanBePrefix after the nonce
        ("0703 080161 2400", "digest"),  # parameters without their digest
        ("0725 0120" + "00" * 32 + "080161", "does not end"),
        ("0722 0220" + "00" * 32, "no parameters"),
        ("0722 0220" + "00" * 32 + "2400", "do not match"),
        ("0744" + 2 * ("0220" + "00" * 32) + "2400", "two parameters digests"),
        ("0704 0102 0000", "digest component of 2"),
        ("0703 080161 1e03 080161", "critical"),  # a hint that holds no name
    ],
)
def test_interests_that_are_none(body: str, reason: str) -> None:
    """Each malformed Interest is refused, and the error says what is wrong with it."""
    with pytest.raises(DecodeError, match=reason):
        decode_interest(names.tlv(packet.INTEREST, bytes.fromhex(body)))


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        ("0703 080161", "without a signature"),
        ("0703 080161 1603 1b0100", "without a signature"),
        ("1500", "without a name"),
        ("0703 080161 1700 1603 1b0100", "critical"),  # the value before the signature's kind
        ("0703 080161 1501 78 1501 79 1603 1b0100 1700", "critical"),  # two contents
        ("0703 080161 1402 1900 1603 1b0100 1700", "number of 0"),
        ("0703 080161 1404 1801 00 1800 1603 1b0100 1700", "exceeds|critical"),
        ("0703 080161 1402 1a00 1603 1b0100 1700", "one component"),
    ],
)
def test_data_that_is_none(body: str, reason: str) -> None:
    """Each malformed Data packet is refused; two contents would be two meanings for two readers."""
    with pytest.raises(DecodeError, match=reason):
        decode_data(names.tlv(packet.DATA, bytes.fromhex(body)))


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        ("520101", "fragment"),  # FragIndex 1
        ("530102", "fragment"),  # FragCount 2
        ("6200", "PIT token of 0"),
        ("fd03f00100", "critical"),  # 1008 is beyond what may be ignored
        ("fd032900", "critical"),  # 809 is not a multiple of four
        ("fd032000 5009 0607 0703 080161 1500", "Nack"),  # a Nack of Data
        ("fd032000", "Nack"),  # and of nothing
    ],
)
def test_link_packets_that_are_none(body: str, reason: str) -> None:
    """Fragments, unknown critical headers and malformed ones are refused."""
    with pytest.raises(DecodeError, match=reason):
        decode_link(names.tlv(packet.LP_PACKET, bytes.fromhex(body)))
    with pytest.raises(DecodeError, match="type 102"):
        decode_link(names.tlv(102, bytes.fromhex(body)))


def test_oversized_packets_are_refused() -> None:
    """A packet of 8,800 bytes passes, one byte more does not, bare or in a link packet."""
    for excess in (0, 1):
        wire = names.tlv(packet.DATA, bytes(packet.MAX_PACKET_BYTES - 4 + excess))
        for form in (wire, packet.encode_link(wire, pit_token=b"\x01")):
            if excess:
                with pytest.raises(DecodeError, match="8801"):
                    decode_link(form)
            else:
                assert decode_link(form).fragment == wire


def test_names_that_are_too_deep() -> None:
    """A name of 64 components passes, one of 65 does not."""
    assert len(packet.component_ends(b"\x08\x00" * 64)) == 64
    for decode in (packet.component_ends, lambda n: decode_interest(packet.encode_interest(n)[1])):
        with pytest.raises(DecodeError, match="65"):
            decode(b"\x08\x00" * 65)


def test_fields_out_of_place_that_may_be_ignored() -> None:
    """A second hop limit and parameters before the lifetime are ignored as the specification allows."""
    interest = decode_interest(bytes.fromhex("050b 0703 080161 220105 220107"))
    assert interest.hop_limit == 5


def test_stripping_the_hint_takes_nothing_else() -> None:
    """Without its hint and with one hop less an Interest is otherwise the same, and the header stays shortest."""
    hint = [names.parse("/n/" + "x" * 240)]
    options: dict[str, Any] = {"hop_limit": 9, "parameters": b"p", "nonce": b"1234", "must_be_fresh": True}
    with_hint = decode_interest(packet.encode_interest(names.parse("/a"), hint=hint, **options)[1])
    without = packet.encode_interest(names.parse("/a"), **{**options, "hop_limit": 8})[1]
    assert packet.forwarded(with_hint, strip_hint=True) == without
    assert decode_interest(packet.forwarded(with_hint, strip_hint=False)).hint == tuple(hint)
    assert packet.forwarded(decode_interest(FULL_INTEREST), strip_hint=False)[:-5] == FULL_INTEREST[:-5]


# --- against the reference

components = st.tuples(st.sampled_from([8, 8, 8, 32, 50, 54, 300]), st.binary(max_size=20)).map(
    lambda pair: names.tlv(pair[0], pair[1])
)
nonempty_names = st.lists(components, min_size=1, max_size=6)


@given(
    nonempty_names,
    st.booleans(),
    st.booleans(),
    st.lists(nonempty_names, max_size=2),
    st.binary(min_size=4, max_size=4),
    st.integers(0, 2**32),
    st.none() | st.integers(0, 255),
    st.none() | st.binary(max_size=300),
)
def test_interests_as_the_reference_writes_them(
    parts: list[bytes],
    can_be_prefix: bool,
    must_be_fresh: bool,
    hint: list[list[bytes]],
    nonce: bytes,
    lifetime_ms: int,
    hop_limit: int | None,
    parameters: bytes | None,
) -> None:
    """What python-ndn encodes we decode, and what we encode is what python-ndn encodes, to the byte."""
    param = reference.InterestParam(
        can_be_prefix=can_be_prefix,
        must_be_fresh=must_be_fresh,
        nonce=int.from_bytes(nonce, "big"),
        lifetime=lifetime_ms,
        hop_limit=hop_limit,
        forwarding_hint=hint,
    )
    theirs = bytes(reference.make_interest(parts, param, parameters))
    interest = decode_interest(theirs)
    assert interest.can_be_prefix is can_be_prefix and interest.must_be_fresh is must_be_fresh
    assert (interest.nonce, interest.lifetime_ms, interest.hop_limit) == (nonce, lifetime_ms, hop_limit)
    assert interest.hint == tuple(b"".join(one) for one in hint)
    assert interest.parameters == parameters
    full_name, ours = packet.encode_interest(
        b"".join(parts),
        can_be_prefix=can_be_prefix,
        must_be_fresh=must_be_fresh,
        hint=[b"".join(one) for one in hint],
        lifetime_ms=lifetime_ms,
        hop_limit=hop_limit,
        parameters=parameters,
        nonce=nonce,
    )
    assert interest.full_name == full_name
    if lifetime_ms != packet.DEFAULT_LIFETIME_MS:
        assert ours == theirs
    else:
        assert decode_interest(ours).full_name == interest.full_name


@given(
    nonempty_names,
    st.binary(max_size=400),
    st.none() | st.integers(0, 2**16),
    st.none() | st.integers(0, 2**40),
    st.none() | components,
)
def test_data_as_the_reference_writes_it(
    parts: list[bytes], content: bytes, content_type: int | None, freshness_ms: int | None, final_block: bytes | None
) -> None:
    """What python-ndn encodes as Data we decode."""
    meta = reference.MetaInfo(content_type=content_type, freshness_period=freshness_ms, final_block_id=final_block)
    from ndn.security.signer.sha256_digest_signer import DigestSha256Signer

    wire = bytes(reference.make_data(parts, meta, content, DigestSha256Signer()))
    data = decode_data(wire)
    assert data.name == b"".join(parts) and data.content == content and data.final_block == final_block
    assert (data.content_type, data.freshness_ms) == (content_type or 0, freshness_ms or 0)


@given(nonempty_names, st.booleans(), st.none() | st.binary(max_size=30))
def test_an_added_nonce_changes_nothing_else(parts: list[bytes], can_be_prefix: bool, parameters: bytes | None) -> None:
    """An Interest to which a nonce is added equals the one that was made with it, parameters' digest included."""
    wire = packet.encode_interest(b"".join(parts), can_be_prefix=can_be_prefix, parameters=parameters, nonce=b"abcd")[1]
    _, start, end = packet.read_tlv(wire, 0, len(wire))
    bare = names.tlv(packet.INTEREST, wire[start:end].replace(b"\x0a\x04abcd", b"", 1))
    interest = decode_interest(bare)
    assert interest.nonce is None
    assert packet.with_nonce(interest, b"abcd") == wire


@given(
    st.none() | st.binary(min_size=1, max_size=32),
    st.none() | st.sampled_from([0, 50, 100, 150, 70_000]),
    st.none() | st.integers(0, 2**40),
    st.none() | st.integers(0, 2**20),
    st.integers(0, 300),
)
def test_link_headers_round_trip(
    token: bytes | None, reason: int | None, incoming: int | None, next_hop: int | None, mark: int
) -> None:
    """Every header that we write we read."""
    fragment = bytes.fromhex("05050703080161")
    wire = packet.encode_link(
        fragment,
        pit_token=token,
        nack_reason=reason,
        incoming_face=incoming,
        next_hop_face=next_hop,
        congestion_mark=mark,
    )
    link = decode_link(wire)
    assert link == packet.LinkPacket(fragment, token, reason, incoming, next_hop, False, mark)


# --- bytes of any kind

SAMPLES = (FULL_INTEREST, DATA, LINK, packet.encode_interest(names.parse("/a"), parameters=b"xyz")[1])


def decode_all(wire: bytes) -> None:
    """Everything that the pipelines do to the bytes of one link packet."""
    link = decode_link(wire)
    if link.fragment[:1] == b"\x06":
        assert isinstance(decode_data(link.fragment).content, bytes)
    elif link.fragment:
        interest = decode_interest(link.fragment)
        if interest.nonce is None:
            interest = decode_interest(packet.with_nonce(interest, b"1234"))
        if interest.hop_limit != 0:
            decode_interest(packet.forwarded(interest, strip_hint=True))


@given(st.binary(max_size=200))
@example(b"\x64\xfe\xff\xff\xff\xff")
@example(b"\xff" * 30)
def test_random_bytes_raise_decode_errors_only(wire: bytes) -> None:
    """Bytes that are no packet raise DecodeError and nothing else."""
    for decode in (decode_all, decode_interest, decode_data, packet.component_ends):
        try:
            decode(wire)
        except DecodeError:
            continue


@given(st.sampled_from(SAMPLES), st.data())
def test_damaged_packets_raise_decode_errors_only(wire: bytes, draw: st.DataObject) -> None:
    """A packet cut short or with some bytes changed is read or refused with DecodeError, never anything else."""
    damaged = bytearray(wire[: draw.draw(st.integers(0, len(wire)))])
    for _ in range(draw.draw(st.integers(0, 3))):
        if damaged:
            damaged[draw.draw(st.integers(0, len(damaged) - 1))] = draw.draw(st.integers(0, 255))
    for decode in (decode_all, decode_interest, decode_data):
        try:
            decode(bytes(damaged))
        except DecodeError:
            continue


@pytest.mark.parametrize("wire", SAMPLES)
def test_every_truncation_is_refused(wire: bytes) -> None:
    """No prefix of a packet is a packet."""
    for length in range(len(wire)):
        with pytest.raises(DecodeError):
            decode_all(wire[:length])


# --- streams


@given(st.lists(st.sampled_from(SAMPLES), max_size=8), st.data())
def test_streams_are_cut_into_their_packets(wires: list[bytes], draw: st.DataObject) -> None:
    """However a stream arrives in pieces, its packets come out whole and in order."""
    stream = b"".join(wires)
    cuts = sorted(draw.draw(st.lists(st.integers(0, len(stream)), max_size=6)))
    found, buffer = [], b""
    for start, stop in zip([0, *cuts], [*cuts, len(stream)], strict=True):
        buffer += stream[start:stop]
        packets, used = split_stream(buffer)
        found += packets
        buffer = buffer[used:]
    assert found == wires and buffer == b""


@pytest.mark.parametrize("header", ["06fd2400", "06fe00010000", "06ff0000000100000000", "fd0380fe7fffffff"])
def test_a_stream_that_announces_too_much_is_refused(header: str) -> None:
    """A length beyond what a packet may have is refused as soon as it is read, before its bytes arrive."""
    with pytest.raises(DecodeError, match="announces"):
        split_stream(bytes.fromhex(header))


@given(st.binary(max_size=60))
def test_random_streams_are_cut_or_refused(stream: bytes) -> None:
    """Any bytes are cut into pieces that are a prefix of the stream, or refused."""
    try:
        packets, used = split_stream(stream)
    except DecodeError:
        return
    assert b"".join(packets) == stream[:used]
