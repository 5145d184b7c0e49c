"""The wire: NDN packet format 0.3 and the NDNLPv2 link headers, read and written without intermediate objects.

Names are their TLV values (see gateway.protocol.names). Decoders take the bytes of exactly one packet; whatever is
malformed, cut short or carries an unknown critical field raises DecodeError and nothing else.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable
from dataclasses import dataclass, field

from gateway import lean
from gateway.protocol.errors import ProtocolError
from gateway.protocol.names import IMPLICIT_DIGEST, PARAMETERS_DIGEST, Name, non_negative, number, tlv

INTEREST, DATA, LP_PACKET = 0x05, 0x06, 0x64
MAX_PACKET_BYTES = 8800
MAX_COMPONENTS = 64
DEFAULT_LIFETIME_MS = 4000

NACK_CONGESTION, NACK_DUPLICATE, NACK_NO_ROUTE = 50, 100, 150
NACK_REASONS = {0: "unspecified", NACK_CONGESTION: "congestion", NACK_DUPLICATE: "duplicate", NACK_NO_ROUTE: "no route"}

_NAME, _CAN_BE_PREFIX, _MUST_BE_FRESH, _FORWARDING_HINT = 0x07, 0x21, 0x12, 0x1E
_NONCE, _LIFETIME, _HOP_LIMIT, _PARAMETERS = 0x0A, 0x0C, 0x22, 0x24
_INTEREST_SIGNATURE_INFO, _INTEREST_SIGNATURE_VALUE = 0x2C, 0x2E
_META_INFO, _CONTENT, _SIGNATURE_INFO, _SIGNATURE_VALUE = 0x14, 0x15, 0x16, 0x17
_CONTENT_TYPE, _FRESHNESS, _FINAL_BLOCK = 0x18, 0x19, 0x1A
_FRAGMENT, _SEQUENCE, _FRAGMENT_INDEX, _FRAGMENT_COUNT, _PIT_TOKEN = 0x50, 0x51, 0x52, 0x53, 0x62
_NACK, _NACK_REASON, _INCOMING_FACE, _NEXT_HOP_FACE, _CACHE_POLICY = 0x0320, 0x0321, 0x032C, 0x0330, 0x0334
_CONGESTION_MARK = 0x0340
_HOP_COUNT, _GEO_TAG = 0x54, 0x55
_SHORTEST = {253: 253, 254: 1 << 16, 255: 1 << 32}


class DecodeError(ProtocolError):
    """Bytes that are no packet."""


def read_tlv(wire: bytes, at: int, end: int) -> tuple[int, int, int]:
    """Type, start of the value and its end for the TLV at `at`.

    Raises DecodeError when it does not fit before `end`, or when a number is not in its shortest form: two spellings of
    one name would be two names to every table here.
    """
    try:
        kind = wire[at]
        at += 1
        if kind >= 253:
            kind, at = _long_number(wire, kind, at)
        length = wire[at]
        at += 1
        if length >= 253:
            length, at = _long_number(wire, length, at)
    except IndexError:
        raise DecodeError("a TLV is cut short") from None
    if at + length > end:
        raise DecodeError(f"a TLV of type {kind} and {length} bytes exceeds what it stands in")
    return kind, at, at + length


def _long_number(wire: bytes, first: int, at: int) -> tuple[int, int]:
    stop = at + (1 << (first - 252))
    if stop > len(wire):
        raise DecodeError("a TLV number is cut short")
    value = int.from_bytes(wire[at:stop], "big")
    if value < _SHORTEST[first]:
        raise DecodeError(f"the TLV number {value} in {stop - at} bytes is not in its shortest form")
    return value, stop


def packet_end(buffer: bytes, at: int, limit: int = MAX_PACKET_BYTES + 200) -> int | None:
    """Where the packet at `at` of a stream's buffer ends; None when it is not whole yet.

    Raises DecodeError when it announces more than `limit` bytes: the stream can't be followed any more.
    """
    end, length = len(buffer), 0
    for _ in ("type", "length"):
        if at >= end:
            return None
        length, at = buffer[at], at + 1
        if length >= 253:
            width = 1 << (length - 252)
            length, at = int.from_bytes(buffer[at : at + width], "big"), at + width
            if at > end:
                return None
    if length > limit:
        raise DecodeError(f"a packet announces {length} bytes, at most {limit} are accepted")
    return at + length if at + length <= end else None


def split_stream(buffer: bytes) -> tuple[list[bytes], int]:
    """The whole packets at the start of a stream's buffer and how many bytes they take; raises DecodeError likewise."""
    packets, at = [], 0
    while (end := packet_end(buffer, at)) is not None:
        packets.append(buffer[at:end])
        at = end
    return packets, at


# --- names ---------------------------------------------------------------------------------------------------


def component_ends(name: Name) -> list[int]:
    """The offset after each component, shortest prefix first; raises DecodeError when the bytes are no name."""
    ends, at, end = [], 0, len(name)
    while at < end:
        kind, _, at = read_tlv(name, at, end)
        if not 0 < kind < 65536:
            raise DecodeError(f"a name component of type {kind}")
        ends.append(at)
    if len(ends) > MAX_COMPONENTS:
        raise DecodeError(f"a name of {len(ends)} components, at most {MAX_COMPONENTS} are accepted")
    return ends


# --- Interest ------------------------------------------------------------------------------------------------


@dataclass(slots=True)
class Interest:
    """A decoded Interest; `name` is without the implicit digest, which stands in `digest`.

    `hop_limit_at` and `hint_span` are offsets into `wire`, for the two changes that a forwarder makes on the way.
    """

    name: Name
    wire: bytes
    digest: bytes | None = None
    can_be_prefix: bool = False
    must_be_fresh: bool = False
    hint: tuple[Name, ...] = ()
    nonce: bytes | None = None
    lifetime_ms: int = DEFAULT_LIFETIME_MS
    hop_limit: int | None = None
    parameters: bytes | None = None
    incoming_face: int | None = None
    hop_limit_at: int = 0
    hint_span: tuple[int, int] | None = None

    @property
    def full_name(self) -> Name:
        """The name as on the wire, with the implicit digest where there is one."""
        return self.name if self.digest is None else self.name + tlv(IMPLICIT_DIGEST, self.digest)


def decode_interest(wire: bytes) -> Interest:
    kind, at, end = read_tlv(wire, 0, len(wire))
    if kind != INTEREST or end != len(wire):
        raise DecodeError("not one Interest")
    kind, start, at = read_tlv(wire, at, end)
    if kind != _NAME:
        raise DecodeError("an Interest without a name")
    interest = Interest(wire[start:at], wire)
    parameters_digest = _read_interest_name(interest)
    last_order = 0
    while at < end:
        element = at
        kind, start, at = read_tlv(wire, at, end)
        order = _INTEREST_ORDER.get(kind)
        if order is None:
            _skip_unknown(kind, "Interest")
            continue
        if order <= last_order:
            _skip_unknown(kind, "Interest")
            continue
        last_order = order
        if kind == _PARAMETERS:
            if parameters_digest != hashlib.sha256(wire[element:end]).digest():
                raise DecodeError("an Interest whose parameters do not match their digest")
            interest.parameters = wire[start:at]
        else:
            _read_interest_field(interest, kind, element, start, at)
    if parameters_digest is not None and interest.parameters is None:
        raise DecodeError("an Interest with a parameters digest and no parameters")
    return interest


_INTEREST_ORDER = {
    kind: order
    for order, kind in enumerate(
        (
            _CAN_BE_PREFIX,
            _MUST_BE_FRESH,
            _FORWARDING_HINT,
            _NONCE,
            _LIFETIME,
            _HOP_LIMIT,
            _PARAMETERS,
            _INTEREST_SIGNATURE_INFO,
            _INTEREST_SIGNATURE_VALUE,
        ),
        1,
    )
}


def _read_interest_name(interest: Interest) -> bytes | None:
    """Splits the implicit digest off the name; the value of the parameters digest, if the name has one."""
    name = interest.name
    if not name:
        raise DecodeError("an Interest with an empty name")
    parameters_digest, at, end = None, 0, len(name)
    count = 0
    while at < end:
        element = at
        kind, start, at = read_tlv(name, at, end)
        count += 1
        if kind in (IMPLICIT_DIGEST, PARAMETERS_DIGEST):
            if at - start != 32:
                raise DecodeError(f"a digest component of {at - start} bytes")
            if kind == PARAMETERS_DIGEST:
                if parameters_digest is not None:
                    raise DecodeError("a name with two parameters digests")
                parameters_digest = name[start:at]
            elif at == end:
                interest.digest, interest.name = name[start:at], name[:element]
            else:
                raise DecodeError("an implicit digest that does not end its name")
        elif not 0 < kind < 65536:
            raise DecodeError(f"a name component of type {kind}")
    if count > MAX_COMPONENTS:
        raise DecodeError(f"a name of {count} components, at most {MAX_COMPONENTS} are accepted")
    return parameters_digest


def _read_interest_field(interest: Interest, kind: int, element: int, start: int, stop: int) -> None:
    wire = interest.wire
    if kind == _NONCE:
        if stop - start != 4:
            raise DecodeError(f"a nonce of {stop - start} bytes")
        interest.nonce = wire[start:stop]
    elif kind == _LIFETIME:
        interest.lifetime_ms = _non_negative(wire, start, stop)
    elif kind == _CAN_BE_PREFIX:
        interest.can_be_prefix = True
    elif kind == _MUST_BE_FRESH:
        interest.must_be_fresh = True
    elif kind == _HOP_LIMIT:
        if stop - start != 1:
            raise DecodeError(f"a hop limit of {stop - start} bytes")
        interest.hop_limit, interest.hop_limit_at = wire[start], start
    elif kind == _FORWARDING_HINT:
        interest.hint_span = element, stop
        interest.hint = _read_names(wire, start, stop)


def _read_names(wire: bytes, at: int, end: int) -> tuple[Name, ...]:
    found = []
    while at < end:
        kind, start, at = read_tlv(wire, at, end)
        if kind != _NAME:
            _skip_unknown(kind, "ForwardingHint")
            continue
        component_ends(wire[start:at])
        found.append(wire[start:at])
    return tuple(found)


def decode_hint(element: bytes) -> tuple[Name, ...]:
    """The names in a ForwardingHint element."""
    kind, start, end = read_tlv(element, 0, len(element))
    if kind != _FORWARDING_HINT or end != len(element):
        raise DecodeError("not one ForwardingHint")
    return _read_names(element, start, end)


def _non_negative(wire: bytes, start: int, stop: int) -> int:
    if stop - start not in (1, 2, 4, 8):
        raise DecodeError(f"a number of {stop - start} bytes")
    return int.from_bytes(wire[start:stop], "big")


def _skip_unknown(kind: int, where: str) -> None:
    """A field that is unknown, or not in its place, may be ignored where its type number says so."""
    if kind <= 31 or kind & 1:
        raise DecodeError(f"{where} with an unknown or misplaced critical field {kind}")


def encode_interest(
    name: Name,
    *,
    can_be_prefix: bool = False,
    must_be_fresh: bool = False,
    hint: Iterable[Name] = (),
    lifetime_ms: int = DEFAULT_LIFETIME_MS,
    hop_limit: int | None = None,
    digest: bytes | None = None,
    parameters: bytes | None = None,
    nonce: bytes | None = None,
) -> tuple[Name, bytes]:
    """The full name (with digests appended) and the wire of an Interest; the nonce is random unless given."""
    tail = b""
    if parameters is not None:
        tail = tlv(_PARAMETERS, parameters)
        name += tlv(PARAMETERS_DIGEST, hashlib.sha256(tail).digest())
    if digest is not None:
        name += tlv(IMPLICIT_DIGEST, digest)
    fields = [tlv(_NAME, name)]
    if can_be_prefix:
        fields.append(b"\x21\x00")
    if must_be_fresh:
        fields.append(b"\x12\x00")
    delegations = b"".join(tlv(_NAME, delegation) for delegation in hint)
    if delegations:
        fields.append(tlv(_FORWARDING_HINT, delegations))
    fields.append(b"\x0a\x04" + (nonce or os.urandom(4)))
    if lifetime_ms != DEFAULT_LIFETIME_MS:
        fields.append(tlv(_LIFETIME, non_negative(lifetime_ms)))
    if hop_limit is not None:
        fields.append(bytes((_HOP_LIMIT, 1, hop_limit)))
    return name, tlv(INTEREST, b"".join(fields) + tail)


def encode_hint(hint: Iterable[Name]) -> bytes:
    """The ForwardingHint element that names these delegations; nothing for none."""
    delegations = b"".join(tlv(_NAME, delegation) for delegation in hint)
    return tlv(_FORWARDING_HINT, delegations) if delegations else b""


def encode_plain_interest(name: Name, digest: bytes | None, hint: bytes, nonce: bytes) -> bytes:
    """An Interest with nothing but a name, perhaps a digest and an encoded hint, and a nonce of 4 bytes; in haste."""
    if digest is not None:
        name = b"%b\x01\x20%b" % (name, digest)
    size = len(name)
    length = size + len(hint) + 8
    if length >= 253:
        return tlv(INTEREST, b"%b%b\x0a\x04%b" % (tlv(_NAME, name), hint, nonce))
    return b"%c%c%c%c%b%b\x0a\x04%b" % (INTEREST, length, _NAME, size, name, hint, nonce)


def forwarded(interest: Interest, strip_hint: bool) -> bytes:
    """The wire that goes to the next hop: one hop less, and no ForwardingHint inside the producer's region."""
    wire = interest.wire
    if interest.hop_limit is not None:
        at = interest.hop_limit_at
        wire = wire[:at] + bytes((interest.hop_limit - 1,)) + wire[at + 1 :]
    if strip_hint and interest.hint_span is not None:
        start, stop = interest.hint_span
        _, body, _ = read_tlv(wire, 0, len(wire))
        wire = tlv(INTEREST, wire[body:start] + wire[stop:])
    return wire


def with_other_nonce(interest: Interest, nonce: bytes) -> bytes:
    """The wire of an Interest with another nonce in place of its own."""
    wire = interest.wire
    _, at, end = read_tlv(wire, 0, len(wire))
    while at < end:
        kind, start, at = read_tlv(wire, at, end)
        if kind == _NONCE:
            return wire[:start] + nonce + wire[at:]
    return wire


def with_nonce(interest: Interest, nonce: bytes) -> bytes:
    """The wire of an Interest that came without a nonce, with one put in its place."""
    wire = interest.wire
    _, body, end = read_tlv(wire, 0, len(wire))
    at = place = body
    while at < end:
        kind, _, at = read_tlv(wire, at, end)
        if kind in (_NAME, _CAN_BE_PREFIX, _MUST_BE_FRESH, _FORWARDING_HINT):
            place = at
    return tlv(INTEREST, wire[body:place] + b"\x0a\x04" + nonce + wire[place:end])


# --- Data ----------------------------------------------------------------------------------------------------


@dataclass(slots=True)
class Data:
    """A decoded Data packet; `final_block` is a component TLV; the signature is judged by gateway.protocol.trust.

    The content stays in `wire`: a cached packet is held once.
    """

    name: Name
    wire: bytes
    content_type: int = 0
    freshness_ms: int = 0
    final_block: bytes | None = None
    content_span: tuple[int, int] = (0, 0)
    _digest: bytes | None = field(default=None, repr=False, compare=False)

    @property
    def content(self) -> bytes:
        start, stop = self.content_span
        return self.wire[start:stop]

    @property
    def digest(self) -> bytes:
        """The implicit digest: the SHA-256 of the whole packet."""
        if self._digest is None:
            self._digest = implicit_digest(self.wire)
        return self._digest


def data_name(wire: bytes) -> Name:
    """The name of a Data packet as nearly all are written, unchecked; empty when it is written otherwise."""
    if len(wire) < 6:
        return b""
    at = 2 if wire[1] < 253 else 4
    size = wire[at + 1]
    return wire[at + 2 : at + 2 + size] if wire[at] == _NAME and size < 253 else b""


def content_span(wire: bytes) -> tuple[int, int]:
    """Where the content of a Data packet begins and ends; raises DecodeError when it has none."""
    _, at, end = read_tlv(wire, 0, len(wire))
    while at < end:
        kind, start, at = read_tlv(wire, at, end)
        if kind == _CONTENT:
            return start, at
    raise DecodeError("a Data packet without content")


def implicit_digest(wire: bytes) -> bytes:
    """The SHA-256 of a whole Data packet: who is asked for digests will have many of them to compute."""
    lean.hash_in_bulk()
    return hashlib.sha256(wire).digest()


def decode_data(wire: bytes) -> Data:
    kind, at, end = read_tlv(wire, 0, len(wire))
    if kind != DATA or end != len(wire):
        raise DecodeError("not one Data packet")
    kind, start, at = read_tlv(wire, at, end)
    if kind != _NAME:
        raise DecodeError("a Data packet without a name")
    data = Data(wire[start:at], wire)
    component_ends(data.name)
    last = seen = 0
    while at < end:
        kind, start, at = read_tlv(wire, at, end)
        if kind <= last or kind not in _DATA_FIELDS:
            _skip_unknown(kind, "Data")
            continue
        last = kind
        if kind == _META_INFO:
            _read_meta_info(data, start, at)
        elif kind == _CONTENT:
            data.content_span = start, at
        else:
            seen += 1
    if seen != 2:
        raise DecodeError("a Data packet without a signature")
    return data


_DATA_FIELDS = frozenset((_META_INFO, _CONTENT, _SIGNATURE_INFO, _SIGNATURE_VALUE))


def _read_meta_info(data: Data, at: int, end: int) -> None:
    wire, last = data.wire, 0
    while at < end:
        kind, start, at = read_tlv(wire, at, end)
        if kind <= last:
            _skip_unknown(kind, "MetaInfo")
            continue
        if kind in (_CONTENT_TYPE, _FRESHNESS, _FINAL_BLOCK):
            last = kind
        if kind == _CONTENT_TYPE:
            data.content_type = _non_negative(wire, start, at)
        elif kind == _FRESHNESS:
            data.freshness_ms = _non_negative(wire, start, at)
        elif kind == _FINAL_BLOCK:
            data.final_block = wire[start:at]
            if len(component_ends(data.final_block)) != 1:
                raise DecodeError("a FinalBlockId that is not one component")
        else:
            _skip_unknown(kind, "MetaInfo")


def decode_freshness(meta_info: bytes) -> int:
    """The FreshnessPeriod of a MetaInfo element, in milliseconds; 0 without one."""
    kind, start, end = read_tlv(meta_info, 0, len(meta_info))
    if kind != _META_INFO or end != len(meta_info):
        raise DecodeError("not one MetaInfo")
    data = Data(b"", meta_info)
    _read_meta_info(data, start, end)
    return data.freshness_ms


# --- NDNLPv2 -------------------------------------------------------------------------------------------------


@dataclass(slots=True)
class LinkPacket:
    """A link packet's header fields and the network packet in it (empty for an IDLE packet)."""

    fragment: bytes
    pit_token: bytes | None = None
    nack_reason: int | None = None
    incoming_face: int | None = None
    next_hop_face: int | None = None
    no_cache: bool = False
    congestion_mark: int = 0


def decode_link(wire: bytes) -> LinkPacket:
    """A link packet, also when the network packet comes bare."""
    if len(wire) > 1 and wire[0] in (INTEREST, DATA):
        return LinkPacket(_sized(wire))
    kind, at, end = read_tlv(wire, 0, len(wire))
    if kind != LP_PACKET or end != len(wire):
        raise DecodeError(f"a packet of type {kind}")
    link = LinkPacket(b"")
    while at < end:
        kind, start, at = read_tlv(wire, at, end)
        if kind == _FRAGMENT:
            link.fragment = _sized(wire[start:at])
        elif kind == _PIT_TOKEN:
            if not 1 <= at - start <= 32:
                raise DecodeError(f"a PIT token of {at - start} bytes")
            link.pit_token = wire[start:at]
        elif kind == _NACK:
            link.nack_reason = _read_nack_reason(wire, start, at)
        elif kind in (_INCOMING_FACE, _NEXT_HOP_FACE, _CONGESTION_MARK, _FRAGMENT_INDEX, _FRAGMENT_COUNT):
            _read_link_number(link, kind, _non_negative(wire, start, at))
        elif kind == _CACHE_POLICY:
            link.no_cache = True
        elif kind not in _LINK_IGNORED and not (800 <= kind <= 959 and kind & 3 == 0):
            raise DecodeError(f"a link packet with an unknown critical field {kind}")
    if link.nack_reason is not None and link.fragment[:1] != b"\x05":
        raise DecodeError("a Nack of what is no Interest")
    return link


# NFD puts a hop count on what it sends to other forwarders.
_LINK_IGNORED = frozenset((_SEQUENCE, _HOP_COUNT, _GEO_TAG))


def _sized(network_packet: bytes) -> bytes:
    if len(network_packet) > MAX_PACKET_BYTES:
        raise DecodeError(f"a packet of {len(network_packet)} bytes, at most {MAX_PACKET_BYTES} are accepted")
    return network_packet


def _read_link_number(link: LinkPacket, kind: int, value: int) -> None:
    if kind == _INCOMING_FACE:
        link.incoming_face = value
    elif kind == _NEXT_HOP_FACE:
        link.next_hop_face = value
    elif kind == _CONGESTION_MARK:
        link.congestion_mark = value
    elif value > (1 if kind == _FRAGMENT_COUNT else 0):
        raise DecodeError("a fragment of a link packet: fragments are not reassembled on this face")


def _read_nack_reason(wire: bytes, at: int, end: int) -> int:
    while at < end:
        kind, start, at = read_tlv(wire, at, end)
        if kind == _NACK_REASON:
            return _non_negative(wire, start, at)
    return 0


def encode_link(
    fragment: bytes,
    *,
    pit_token: bytes | None = None,
    nack_reason: int | None = None,
    incoming_face: int | None = None,
    next_hop_face: int | None = None,
    congestion_mark: int = 0,
) -> bytes:
    """A link packet with the given fields in ascending order, the fragment last; the bare packet when there is none."""
    fields = []
    if pit_token is not None:
        fields.append(tlv(_PIT_TOKEN, pit_token))
    if nack_reason is not None:
        reason = tlv(_NACK_REASON, non_negative(nack_reason)) if nack_reason else b""
        fields.append(tlv(_NACK, reason))
    if incoming_face is not None:
        fields.append(tlv(_INCOMING_FACE, non_negative(incoming_face)))
    if next_hop_face is not None:
        fields.append(tlv(_NEXT_HOP_FACE, non_negative(next_hop_face)))
    if congestion_mark:
        fields.append(tlv(_CONGESTION_MARK, non_negative(congestion_mark)))
    if not fields:
        return fragment
    fields.append(number(_FRAGMENT) + number(len(fragment)) + fragment)
    return tlv(LP_PACKET, b"".join(fields))
