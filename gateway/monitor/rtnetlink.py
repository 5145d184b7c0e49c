"""Messages of rtnetlink that every gateway reads: a network interface and an address (Linux's linux/rtnetlink.h)."""

from __future__ import annotations

import socket
import struct
import sys
from dataclasses import dataclass

_HEADER_BYTES = 16
_LINK = struct.Struct("=BxHiII")  # family, device type, index, flags, change
_ADDRESS = struct.Struct("=BBBBI")  # family, prefix length, flags, scope, index
_IFLA_ADDRESS, _IFLA_IFNAME, _IFLA_MTU, _IFLA_STATS, _IFLA_OPERSTATE, _IFLA_STATS64 = 1, 3, 4, 7, 16, 23
_IFA_ADDRESS, _IFA_LOCAL = 1, 2
_IFF_UP = 1
_MAC_BYTES = 6
# RFC 2863's states; a device that does not tell (the loopback, say) has its administrative one.
_OPERSTATE_UNKNOWN, _OPERSTATE_UP = 0, 6
# The first counters of rtnl_link_stats: packets in and out, then these.
_COUNTERS = ("rx_bytes", "tx_bytes", "rx_errors", "tx_errors", "rx_dropped", "tx_dropped")


@dataclass(frozen=True, slots=True)
class LinkMessage:
    """`counters` are bytes, errors and drops in and out by name; empty when the device has none."""

    index: int
    name: str
    is_up: bool
    mtu: int
    counters: dict[str, int]
    mac: str = ""


@dataclass(frozen=True, slots=True)
class AddressMessage:
    index: int
    address: str
    prefix_length: int
    scope: int


def parse_link(wire: bytes) -> LinkMessage:
    """An RTM_NEWLINK message; raises struct.error or ValueError when it is none."""
    _, _, index, flags, _ = _LINK.unpack_from(wire, _HEADER_BYTES)
    found = attributes(wire, _HEADER_BYTES + _LINK.size)
    state = found.get(_IFLA_OPERSTATE, b"\0")[0]
    return LinkMessage(
        index,
        found.get(_IFLA_IFNAME, b"").rstrip(b"\0").decode(errors="replace"),
        bool(flags & _IFF_UP) if state == _OPERSTATE_UNKNOWN else state == _OPERSTATE_UP,
        int.from_bytes(found.get(_IFLA_MTU, b""), sys.byteorder),
        _counters(found),
        mac.hex(":") if len(mac := found.get(_IFLA_ADDRESS, b"")) == _MAC_BYTES and any(mac) else "",
    )


def parse_address(wire: bytes) -> AddressMessage | None:
    """An RTM_NEWADDR message; None for a family other than IPv4 and IPv6. Raises struct.error or ValueError."""
    family, prefix_length, _, scope, index = _ADDRESS.unpack_from(wire, _HEADER_BYTES)
    found = attributes(wire, _HEADER_BYTES + _ADDRESS.size)
    packed = found.get(_IFA_LOCAL) or found.get(_IFA_ADDRESS)
    if family not in (socket.AF_INET, socket.AF_INET6) or packed is None:
        return None
    return AddressMessage(index, socket.inet_ntop(family, packed), prefix_length, scope)


def attributes(wire: bytes, at: int) -> dict[int, bytes]:
    """Type -> value of the attributes from `at` on; raises ValueError when one is cut short."""
    found: dict[int, bytes] = {}
    while at + 4 <= len(wire):
        length, kind = struct.unpack_from("=HH", wire, at)
        if length < 4 or at + length > len(wire):
            raise ValueError(f"a netlink attribute of {length} bytes in a message of {len(wire)}")
        found[kind & 0x3FFF] = wire[at + 4 : at + length]
        at += (length + 3) & ~3
    return found


def _counters(found: dict[int, bytes]) -> dict[str, int]:
    """64-bit counters where the kernel has them."""
    for kind, layout in ((_IFLA_STATS64, "=8Q"), (_IFLA_STATS, "=8I")):
        if kind in found:
            return dict(zip(_COUNTERS, struct.unpack_from(layout, found[kind])[2:], strict=True))
    return {}
