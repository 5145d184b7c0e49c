"""The TLV blocks of NFD's management protocol: control parameters, control responses, dataset fields.

They are read and written here rather than by python-ndn's models, which load its security packages: five megabytes that
a forwarder would keep for ever because one application registered a prefix.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from gateway.forwarder.packet import DecodeError, component_ends, read_tlv
from gateway.protocol.names import Name, non_negative, tlv

CONTROL_PARAMETERS, CONTROL_RESPONSE = 0x68, 0x65
STATUS_CODE, STATUS_TEXT = 0x66, 0x67
NAME, FACE_ID, URI, COST, STRATEGY, FLAGS = 0x07, 0x69, 0x72, 0x6A, 0x6B, 0x6C
ORIGIN, MASK, EXPIRATION_PERIOD, LOCAL_URI = 0x6F, 0x70, 0x6D, 0x81


@dataclass(frozen=True, slots=True)
class ControlParameters:
    """What a command asks for and what a response confirms; a field that is not there is None.

    `expiration_ms` and `base_congestion_interval_ns` have the units of the protocol, `congestion_threshold` is bytes.
    """

    name: Name | None = None
    face_id: int | None = None
    uri: str | None = None
    local_uri: str | None = None
    origin: int | None = None
    cost: int | None = None
    capacity: int | None = None
    count: int | None = None
    base_congestion_interval_ns: int | None = None
    congestion_threshold: int | None = None
    mtu: int | None = None
    flags: int | None = None
    mask: int | None = None
    strategy: Name | None = None
    expiration_ms: int | None = None
    persistency: int | None = None


# In the order of the protocol's specification.
_KINDS = {
    "name": NAME,
    "face_id": FACE_ID,
    "uri": URI,
    "local_uri": LOCAL_URI,
    "origin": ORIGIN,
    "cost": COST,
    "capacity": 0x83,
    "count": 0x84,
    "base_congestion_interval_ns": 0x87,
    "congestion_threshold": 0x88,
    "mtu": 0x89,
    "flags": FLAGS,
    "mask": MASK,
    "strategy": STRATEGY,
    "expiration_ms": EXPIRATION_PERIOD,
    "persistency": 0x85,
}
_FIELDS = {kind: field for field, kind in _KINDS.items()}


def uint(kind: int, value: int) -> bytes:
    return tlv(kind, non_negative(value))


def text(kind: int, value: str) -> bytes:
    return tlv(kind, value.encode())


def elements(wire: bytes) -> Iterator[tuple[int, bytes]]:
    """Type and value of each TLV; raises DecodeError."""
    at, end = 0, len(wire)
    while at < end:
        kind, start, at = read_tlv(wire, at, end)
        yield kind, wire[start:at]


def read_uint(value: bytes) -> int:
    if len(value) not in (1, 2, 4, 8):
        raise DecodeError(f"a number of {len(value)} bytes")
    return int.from_bytes(value, "big")


def read_text(value: bytes) -> str:
    try:
        return value.decode()
    except UnicodeDecodeError as error:
        raise DecodeError(f"a text that is not UTF-8: {value[:40].hex()}") from error


def read_name(value: bytes) -> Name:
    component_ends(value)
    return value


def decode_parameters(wire: bytes) -> ControlParameters:
    """The parameters in a ControlParameters TLV; unknown fields are left out. Raises DecodeError."""
    blocks = list(elements(wire))
    if len(blocks) != 1 or blocks[0][0] != CONTROL_PARAMETERS:
        raise DecodeError("the parameters are not one ControlParameters block")
    found: dict[str, Name | str | int] = {}
    for kind, value in elements(blocks[0][1]):
        field = _FIELDS.get(kind)
        if field is not None:
            found[field] = _read_field(kind, value)
    return ControlParameters(**found)  # type: ignore[arg-type]


def _read_field(kind: int, value: bytes) -> Name | str | int:
    if kind == NAME:
        return read_name(value)
    if kind == STRATEGY:
        inner = list(elements(value))
        if not inner or inner[0][0] != NAME:
            raise DecodeError("a strategy without a name")
        return read_name(inner[0][1])
    if kind in (URI, LOCAL_URI):
        return read_text(value)
    return read_uint(value)


def encode_parameters(parameters: ControlParameters) -> bytes:
    blocks = []
    for field, kind in _KINDS.items():
        value = getattr(parameters, field)
        if value is None:
            continue
        if kind == STRATEGY:
            value = tlv(NAME, value)
        elif isinstance(value, str):
            value = value.encode()
        elif isinstance(value, int):
            value = non_negative(value)
        blocks.append(tlv(kind, value))
    return tlv(CONTROL_PARAMETERS, b"".join(blocks))


def encode_response(status: int, reason: str, body: ControlParameters | None) -> bytes:
    """A ControlResponse; python-ndn takes one without a body for broken, so that there always is one."""
    fields = uint(STATUS_CODE, status) + text(STATUS_TEXT, reason) + encode_parameters(body or ControlParameters())
    return tlv(CONTROL_RESPONSE, fields)
