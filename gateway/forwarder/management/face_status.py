"""A face as the management protocol describes it: dataset entries, filters, notifications."""

from __future__ import annotations

from dataclasses import dataclass

from gateway.forwarder.faces.base import Face
from gateway.forwarder.management import encoding
from gateway.forwarder.management.encoding import elements, read_text, read_uint, text, uint
from gateway.forwarder.packet import DecodeError
from gateway.protocol.names import tlv

PERSISTENT, ON_DEMAND, PERMANENT = 0, 1, 2
NON_LOCAL, LOCAL = 0, 1
POINT_TO_POINT, MULTI_ACCESS = 0, 1
CREATED, DESTROYED, UP, DOWN = 1, 2, 3, 4

# Bits of a face's flags, and the attribute that tells whether it is on; all but the first are as the face was made.
FLAGS = {1: "local_fields", 2: "is_reliable", 4: "is_marking"}
FLAG_NAMES = {1: "local fields", 2: "reliability", 4: "congestion marking"}

_FACE_STATUS, _EVENT, _EVENT_KIND, _FILTER = 0x80, 0xC0, 0xC1, 0x96
_SCOPE, _PERSISTENCY, _LINK_TYPE, _MTU, _URI_SCHEME = 0x84, 0x85, 0x86, 0x89, 0x83


def scheme_of(uri: str) -> str:
    return uri.partition("://")[0]


def scope(face: Face) -> int:
    return LOCAL if face.is_local else NON_LOCAL


def persistency(face: Face) -> int:
    """What the gateway itself needs stays, neighbours' faces come back, those that peers made end with the peers."""
    if scheme_of(face.uri) == "internal" or link_type(face) == MULTI_ACCESS:
        return PERMANENT
    return PERSISTENT if face.neighbor else ON_DEMAND


def link_type(face: Face) -> int:
    """A face on a whole interface has its device for a local URI."""
    return MULTI_ACCESS if scheme_of(face.local_uri) == "dev" else POINT_TO_POINT


def flags(face: Face) -> int:
    return sum(bit for bit, name in FLAGS.items() if getattr(face, name))


def mtu(face: Face) -> int | None:
    """The largest datagram in bytes; None where packets have no such limit."""
    found = getattr(face, "mtu", None)
    return found if isinstance(found, int) else None


def encode_status(face: Face) -> bytes:
    """A FaceStatus block, in the order that ndn-cxx demands."""
    counters, largest = face.counters, mtu(face)
    fields = [
        _identity(face),
        uint(_SCOPE, scope(face)),
        uint(_PERSISTENCY, persistency(face)),
        uint(_LINK_TYPE, link_type(face)),
        uint(_MTU, largest) if largest is not None else b"",
        uint(0x90, counters.in_interests),
        uint(0x91, counters.in_data),
        uint(0x97, counters.in_nacks),
        uint(0x92, counters.out_interests),
        uint(0x93, counters.out_data),
        uint(0x98, counters.out_nacks),
        uint(0x94, counters.in_bytes),
        uint(0x95, counters.out_bytes),
        uint(encoding.FLAGS, flags(face)),
    ]
    return tlv(_FACE_STATUS, b"".join(fields))


def encode_event(kind: int, face: Face) -> bytes:
    """A FaceEventNotification block."""
    fields = [
        uint(_EVENT_KIND, kind),
        _identity(face),
        uint(_SCOPE, scope(face)),
        uint(_PERSISTENCY, persistency(face)),
        uint(_LINK_TYPE, link_type(face)),
        uint(encoding.FLAGS, flags(face)),
    ]
    return tlv(_EVENT, b"".join(fields))


def _identity(face: Face) -> bytes:
    # ndn-cxx takes no empty URI.
    local = face.local_uri or "null://"
    return uint(encoding.FACE_ID, face.id) + text(encoding.URI, face.uri) + text(encoding.LOCAL_URI, local)


@dataclass(frozen=True, slots=True)
class Filter:
    """What faces/query asks for; a field that is None fits every face."""

    face_id: int | None = None
    scheme: str | None = None
    uri: str | None = None
    local_uri: str | None = None
    scope: int | None = None
    persistency: int | None = None
    link_type: int | None = None

    def fits(self, face: Face) -> bool:
        return all(
            wanted is None or wanted == found
            for wanted, found in (
                (self.face_id, face.id),
                (self.scheme, scheme_of(face.uri)),
                (self.uri, face.uri),
                (self.local_uri, face.local_uri or "null://"),
                (self.scope, scope(face)),
                (self.persistency, persistency(face)),
                (self.link_type, link_type(face)),
            )
        )


def decode_filter(wire: bytes) -> Filter:
    """The filter in a FaceQueryFilter TLV; raises DecodeError, also for a field that is unknown."""
    blocks = list(elements(wire))
    if len(blocks) != 1 or blocks[0][0] != _FILTER:
        raise DecodeError("the query is not one FaceQueryFilter block")
    found: dict[str, str | int] = {}
    for kind, value in elements(blocks[0][1]):
        if kind in _TEXT_FILTERS:
            found[_TEXT_FILTERS[kind]] = read_text(value)
        elif kind in _NUMBER_FILTERS:
            found[_NUMBER_FILTERS[kind]] = read_uint(value)
        else:
            raise DecodeError(f"the query asks for a field of type {kind}, which is not known")
    return Filter(**found)  # type: ignore[arg-type]


_TEXT_FILTERS = {_URI_SCHEME: "scheme", encoding.URI: "uri", encoding.LOCAL_URI: "local_uri"}
_NUMBER_FILTERS = {
    encoding.FACE_ID: "face_id",
    _SCOPE: "scope",
    _PERSISTENCY: "persistency",
    _LINK_TYPE: "link_type",
}
