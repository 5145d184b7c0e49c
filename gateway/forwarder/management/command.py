"""Management commands as they come: module, verb, parameters and signature, in both forms that clients send.

Format 0.2 has four more name components (timestamp, nonce, signature info, signature value), format 0.3 is a signed
Interest with empty application parameters and the digest of all that at the end of its name.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from gateway.forwarder.management.encoding import NAME, elements, read_name, read_uint
from gateway.forwarder.packet import DecodeError, read_tlv
from gateway.protocol import names
from gateway.protocol.names import Name

DIGEST_SHA256, ED25519 = 0, 5
_SIGNATURE_TYPE, _KEY_LOCATOR = 0x1B, 0x1C
_NONCE, _TIME, _SEQUENCE = 0x26, 0x28, 0x2A
_DATA_INFO, _DATA_VALUE = 0x16, 0x17
_PARAMETERS, _INTEREST_INFO, _INTEREST_VALUE = 0x24, 0x2C, 0x2E
# Behind the parameters, in format 0.2.
_TRAILING_COMPONENTS = 4


class Asked(Protocol):
    """What of an Interest is looked at (gateway.forwarder.packet.Interest)."""

    @property
    def name(self) -> Name: ...
    @property
    def wire(self) -> bytes: ...
    @property
    def parameters(self) -> bytes | None: ...
    @property
    def incoming_face(self) -> int | None: ...
    @property
    def can_be_prefix(self) -> bool: ...
    @property
    def lifetime_ms(self) -> int: ...


@dataclass(frozen=True, slots=True)
class Signature:
    """A signature and what it covers; `time_ms` is Unix time, `nonce` and `sequence` are the signer's."""

    form: int
    kind: int
    key_name: Name | None
    covered: bytes
    value: bytes
    nonce: bytes | None = None
    time_ms: int | None = None
    sequence: int | None = None


def read_signature(interest: Asked, trailing: Sequence[bytes]) -> Signature | None:
    """The signature of a command, None when it bears none; `trailing` are the name components after the verb.

    Raises DecodeError when it is malformed.
    """
    if interest.parameters is not None:
        return _read_interest_signature(interest)
    if len(trailing) > _TRAILING_COMPONENTS:
        return _read_name_signature(interest.name, trailing[-_TRAILING_COMPONENTS:])
    return None


def _read_name_signature(name: Name, trailing: Sequence[bytes]) -> Signature:
    time_ms, nonce, info, value = (names.value(part) for part in trailing)
    kind, key_name, fields = _read_info(_only(info, _DATA_INFO))
    covered = name[: len(name) - len(trailing[-1])]
    if fields:
        raise DecodeError("a nonce, time or sequence number in the signature of a command that has them in its name")
    return Signature(2, kind, key_name, covered, _only(value, _DATA_VALUE), nonce, read_uint(time_ms))


def _read_interest_signature(interest: Asked) -> Signature | None:
    """It covers the name without its digest, and everything from the parameters to the signature info."""
    wire = interest.wire
    _, at, end = read_tlv(wire, 0, len(wire))
    parameters = info = value = None
    while at < end:
        start = at
        kind, inner, at = read_tlv(wire, at, end)
        if kind == _PARAMETERS:
            parameters = start
        elif kind == _INTEREST_INFO:
            info = wire[inner:at]
        elif kind == _INTEREST_VALUE:
            value = start, wire[inner:at]
    if parameters is None or info is None or value is None:
        return None
    parts = names.components(interest.name)
    signed_name = b"".join(part for part in parts if part[0] != names.PARAMETERS_DIGEST)
    kind, key_name, fields = _read_info(info)
    time_ms, sequence = fields.get(_TIME), fields.get(_SEQUENCE)
    return Signature(
        3,
        kind,
        key_name,
        signed_name + wire[parameters : value[0]],
        value[1],
        fields.get(_NONCE),
        None if time_ms is None else read_uint(time_ms),
        None if sequence is None else read_uint(sequence),
    )


def _read_info(info: bytes) -> tuple[int, Name | None, dict[int, bytes]]:
    kind, key_name, fields = None, None, {}
    for field, value in elements(info):
        if field == _SIGNATURE_TYPE:
            kind = read_uint(value)
        elif field == _KEY_LOCATOR:
            locator = next(elements(value), None)
            if locator is not None and locator[0] == NAME:
                key_name = read_name(locator[1])
        elif field in (_NONCE, _TIME, _SEQUENCE):
            fields[field] = value
    if kind is None:
        raise DecodeError("a signature without a type")
    return kind, key_name, fields


def _only(wire: bytes, expected: int) -> bytes:
    """The value of the one TLV of the expected type."""
    kind, start, end = read_tlv(wire, 0, len(wire))
    if kind != expected or end != len(wire):
        raise DecodeError(f"a TLV of type {kind} where the signature's {expected} is due")
    return wire[start:end]
