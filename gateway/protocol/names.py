"""Names of the network, as the bytes that travel.

A name is the concatenation of its components' TLVs without the outer type and length, so that `name.startswith(prefix)`
is the longest-prefix relation and a slice of a packet is a dictionary key without further work.
"""

from __future__ import annotations

import struct

from ndn.encoding import Component
from ndn.encoding import Name as UriName

Name = bytes

GENERIC, IMPLICIT_DIGEST, PARAMETERS_DIGEST, KEYWORD = 8, 1, 2, 32
SEGMENT, VERSION = 50, 54


def parse(uri: str) -> Name:
    """The name of an NDN URI such as `/guifi/sants/node/x/seg=3`; raises ValueError when it is none."""
    try:
        return b"".join(bytes(c) for c in UriName.from_str(uri))
    except (ValueError, IndexError, OverflowError, struct.error) as error:
        raise ValueError(f"{uri!r} is not an NDN name: {error}") from error


def to_uri(name: Name) -> str:
    """The URI of a name; bytes that are no name are shown in hex rather than raised."""
    try:
        return str(UriName.to_str(list(components(name))))
    except (ValueError, IndexError):
        return "0x" + name.hex()


def components(name: Name) -> list[bytes]:
    """The component TLVs of a name; raises ValueError when the bytes are no name."""
    parts, at, end = [], 0, len(name)
    while at < end:
        _, start = read_number(name, at)
        length, start = read_number(name, start)
        if start + length > end:
            raise ValueError(f"a name component of {length} bytes exceeds its name")
        parts.append(name[at : start + length])
        at = start + length
    return parts


def read_number(wire: bytes, at: int) -> tuple[int, int]:
    """A TLV type or length at `at` and the offset after it; raises ValueError when it is cut short."""
    try:
        first = wire[at]
        if first < 253:
            return first, at + 1
        size = 1 << (first - 252)
    except IndexError:
        raise ValueError("a TLV number is cut short") from None
    if at + 1 + size > len(wire):
        raise ValueError("a TLV number is cut short")
    return int.from_bytes(wire[at + 1 : at + 1 + size], "big"), at + 1 + size


def number(value: int) -> bytes:
    """A TLV type or length in its shortest form."""
    if value < 253:
        return bytes((value,))
    if value < 1 << 16:
        return b"\xfd" + value.to_bytes(2, "big")
    if value < 1 << 32:
        return b"\xfe" + value.to_bytes(4, "big")
    return b"\xff" + value.to_bytes(8, "big")


def non_negative(value: int) -> bytes:
    """An NDN NonNegativeInteger: 1, 2, 4 or 8 bytes."""
    for size in (1, 2, 4):
        if value < 1 << (8 * size):
            return value.to_bytes(size, "big")
    return value.to_bytes(8, "big")


def tlv(kind: int, value: bytes) -> bytes:
    return number(kind) + number(len(value)) + value


def component(value: str | bytes, kind: int = GENERIC) -> bytes:
    return tlv(kind, value.encode() if isinstance(value, str) else value)


def segment(index: int) -> bytes:
    return tlv(SEGMENT, non_negative(index))


def version(value: int) -> bytes:
    return tlv(VERSION, non_negative(value))


def last_number(name: Name, kind: int) -> int | None:
    """The number of the last component when that is of type `kind` (SEGMENT, VERSION), else None."""
    last = components(name)[-1:]
    if not last or Component.get_type(last[0]) != kind:
        return None
    digits = value(last[0])
    return int.from_bytes(digits, "big") if len(digits) in (1, 2, 4, 8) else None


def value(part: bytes) -> bytes:
    """The value of one component."""
    return bytes(Component.get_value(part))


def text(part: bytes) -> str:
    """A generic component as text; raises ValueError when it is of another type or not UTF-8."""
    if Component.get_type(part) != GENERIC:
        raise ValueError(f"{Component.to_str(part)} is no generic component")
    return value(part).decode()


HELLO = parse("/localhop/picasso/hello")
PROBE = parse("/localhop/picasso/probe")


class Network:
    """The names below one network prefix, `N` in docs/protocol.md."""

    def __init__(self, uri: str) -> None:
        self.uri = uri
        self.prefix = parse(uri)
        self.anchor = self.prefix
        self.controller = self._below("controller")
        self.head = self._below("controller", "head")
        self.enrol = self._below("controller", "enrol")
        self.blobs = self._below("blob")
        self.providers = self._below("provider")
        self.nodes = self._below("node")

    def _below(self, *parts: str | bytes) -> Name:
        return self.prefix + b"".join(component(p) for p in parts)

    def provider(self, provider: str) -> Name:
        return self._below("provider", provider)

    def service(self, provider: str, service: str, version_number: int) -> Name:
        return self._below("provider", provider, "service", service) + version(version_number)

    def node(self, node: str) -> Name:
        return self._below("node", node)

    def report(self, node: str) -> Name:
        return self._below("node", node, "report")

    def wants(self, node: str) -> Name:
        """Where a node takes wants of its neighbours into custody, and below which it signs its own."""
        return self._below("node", node, "want")

    def want(self, node: str, sha256: bytes, version_number: int) -> Name:
        return self.wants(node) + component(sha256.hex()) + version(version_number)

    def blob(self, sha256: bytes) -> Name:
        return self.blobs + component(sha256.hex())

    def head_version(self, epoch: int, version_number: int) -> Name:
        return self.head + version(epoch << 32 | version_number)

    def epoch(self, number_of_epoch: int) -> Name:
        """The anchor's statement that heads of this epoch are acceptable; only the anchor signs below `N/KEY`."""
        return self._below("KEY", "epoch") + version(number_of_epoch)
