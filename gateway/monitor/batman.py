"""batman-adv's originators by generic netlink: for each node of the mesh the neighbour that leads there.

The layout is that of Linux's linux/batman_adv.h. A mesh at layer 2 has no IP next hops: its nodes look like one LAN,
and only batman-adv knows through whom it goes.
"""

from __future__ import annotations

import socket
import struct
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from gateway.monitor.netlink import generic_dump
from gateway.monitor.rtnetlink import attributes

FAMILY = b"batadv"
GET_ORIGINATORS = 8
_HEADER_BYTES = 16 + 4  # netlink's and generic netlink's
_MESH_INTERFACE, _HARD_INTERFACE, _ORIGINATOR, _BEST = 3, 6, 9, 22
_LAST_SEEN_MS, _NEIGHBOR, _QUALITY, _THROUGHPUT = 23, 24, 25, 26
_MAC_BYTES = 6
# Nothing heard for so long: batman-adv itself purges an originator after 200 s, too late for us.
_SILENT_MS = 30_000


@dataclass(frozen=True, slots=True)
class Originator:
    """`mac` is reached by the neighbour `next_hop` on device `interface`.

    `quality` is 0 to 255 (batman IV), `throughput_kbps` is batman V's figure; the other one is None.
    """

    mac: str
    next_hop: str
    interface: int
    quality: int | None
    throughput_kbps: int | None


def parse_originator(wire: bytes) -> Originator | None:
    """One message of the dump; None for a neighbour that is not the best one, was not heard, or makes no sense.

    Raises ValueError when an attribute is cut short.
    """
    found = attributes(wire, _HEADER_BYTES)
    mac, next_hop = found.get(_ORIGINATOR, b""), found.get(_NEIGHBOR, b"")
    if _BEST not in found or len(mac) != _MAC_BYTES or len(next_hop) != _MAC_BYTES:
        return None
    seen_ms = _number(found, _LAST_SEEN_MS, "=I")
    if seen_ms is not None and seen_ms > _SILENT_MS:
        return None
    return Originator(
        mac.hex(":"),
        next_hop.hex(":"),
        _number(found, _HARD_INTERFACE, "=I") or 0,
        _number(found, _QUALITY, "=B"),
        _number(found, _THROUGHPUT, "=I"),
    )


def originators(mesh_interfaces: Iterable[int]) -> Sequence[Originator]:
    """The best way to each originator of these batman-adv devices; empty where the kernel has no batman-adv.

    Blocks for a few system calls; raises OSError where netlink is refused.
    """
    found = []
    for index in mesh_interfaces:
        body = struct.pack("=BBHHHI", GET_ORIGINATORS, 1, 0, 8, _MESH_INTERFACE, index)
        found += [o for wire in generic_dump(FAMILY, body) if (o := parse_originator(wire)) is not None]
    return found


def mesh_interfaces() -> list[int]:
    """The batman-adv devices of this machine: those that are called bat<n>, as OpenWrt and Debian call them."""
    return [index for index, name in socket.if_nameindex() if name.startswith("bat") and name[3:].isdigit()]


def _number(found: dict[int, bytes], kind: int, layout: str) -> int | None:
    value = found.get(kind, b"")
    return int(struct.unpack(layout, value)[0]) if len(value) == struct.calcsize(layout) else None
