"""The kernel's way to an address, asked of the kernel itself, and word of every change of a route or neighbour.

A lookup is one rtnetlink request (RTM_GETROUTE with RTM_F_FIB_MATCH): longest prefix, metrics, policy rules and the
tables of routing daemons are then as the kernel will use them, and no table of ten thousand routes has to be copied.
It is answered within the system call, so it does not block.
"""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import logging
import socket
import struct
import sys
from collections.abc import Callable
from dataclasses import dataclass

from gateway.monitor.netlink import split_messages
from gateway.monitor.rtnetlink import attributes

log = logging.getLogger(__name__)

_HEADER = struct.Struct("=IHHII")
_ROUTE = struct.Struct("=BBBBBBBBI")  # family, dst_len, src_len, tos, table, protocol, scope, type, flags
_NEXT_HOP = struct.Struct("=HBBi")  # struct rtnexthop: length, flags, hops, interface
_NEIGHBOR = struct.Struct("=BxxxiHBB")  # struct ndmsg: family, interface, state, flags, type
_ERROR = 2
_REQUEST = 1
_NEWROUTE, _GETROUTE = 24, 26
_NEWLINK, _DELADDR = 16, 21
_NEWNEIGH, _DELNEIGH = 28, 29
_FIB_MATCH = 0x2000
_UNICAST, _LOCAL = 1, 2
# RTNH_F_DEAD and RTNH_F_LINKDOWN: the device is gone, or its cable.
_UNUSABLE = 0x1 | 0x10
_DST, _OIF, _GATEWAY, _PRIORITY, _MULTIPATH, _VIA = 1, 4, 5, 6, 9, 18
_NDA_DST, _NUD_FAILED = 1, 0x20
_GROUPS = 0x1 | 0x4 | 0x10 | 0x40 | 0x100 | 0x400  # link, neighbour, IPv4 address and route, IPv6 address and route
_BUFFER_BYTES = 1 << 16
_ANSWER_TIMEOUT_S = 0.5
# A LAN has fewer; an attacker's scan must not fill the memory.
_MAX_FAILED = 4096


@dataclass(frozen=True, slots=True)
class KernelHop:
    """A next hop: its address (empty where the destination is on the link itself), device index, the route's metric."""

    gateway: str
    interface: int
    metric: int = 0


# An address of this machine.
HERE = KernelHop("", 0)


def request(address: str, sequence: int) -> bytes:
    """An RTM_GETROUTE for the route that the kernel would take to an address; raises ValueError when it is none."""
    packed = ipaddress.ip_address(address).packed
    family = socket.AF_INET if len(packed) == 4 else socket.AF_INET6
    body = _ROUTE.pack(family, 8 * len(packed), 0, 0, 0, 0, 0, 0, _FIB_MATCH)
    body += struct.pack("=HH", 4 + len(packed), _DST) + packed
    return _HEADER.pack(_HEADER.size + len(body), _GETROUTE, _REQUEST, sequence, 0) + body


def parse_route(wire: bytes) -> tuple[KernelHop, ...]:
    """The next hops of an RTM_NEWROUTE that can be used; none where the destination is unreachable.

    Raises struct.error or ValueError when it is no such message.
    """
    family, _, _, _, _, _, _, kind, flags = _ROUTE.unpack_from(wire, _HEADER.size)
    if kind == _LOCAL:
        return (HERE,)
    if kind != _UNICAST:
        return ()
    found = attributes(wire, _HEADER.size + _ROUTE.size)
    metric = int.from_bytes(found.get(_PRIORITY, b""), sys.byteorder)
    if _MULTIPATH in found:
        return tuple(_parse_multipath(family, found[_MULTIPATH], metric))
    if flags & _UNUSABLE or _OIF not in found:
        return ()
    return (KernelHop(_gateway(family, found), _number(found[_OIF]), metric),)


def _parse_multipath(family: int, value: bytes, metric: int) -> list[KernelHop]:
    hops, at = [], 0
    while at + _NEXT_HOP.size <= len(value):
        length, flags, _, interface = _NEXT_HOP.unpack_from(value, at)
        if length < _NEXT_HOP.size or at + length > len(value):
            raise ValueError(f"a next hop of {length} bytes in {len(value)}")
        if not flags & _UNUSABLE:
            found = attributes(value[: at + length], at + _NEXT_HOP.size)
            hops.append(KernelHop(_gateway(family, found), interface, metric))
        at += (length + 3) & ~3
    return hops


def _gateway(family: int, found: dict[int, bytes]) -> str:
    """An IPv4 route may go by an IPv6 next hop (RTA_VIA), as babel makes them."""
    if _VIA in found:
        (family,) = struct.unpack_from("=H", found[_VIA])
        return socket.inet_ntop(family, found[_VIA][2:])
    return socket.inet_ntop(family, found[_GATEWAY]) if _GATEWAY in found else ""


def _number(value: bytes) -> int:
    return int(struct.unpack("=i", value)[0])


def parse_neighbor(wire: bytes) -> tuple[int, str, bool] | None:
    """Device index, address, and whether it did not answer, of an RTM_NEWNEIGH; None for another family."""
    family, interface, state, _, _ = _NEIGHBOR.unpack_from(wire, _HEADER.size)
    packed = attributes(wire, _HEADER.size + _NEIGHBOR.size).get(_NDA_DST)
    if family not in (socket.AF_INET, socket.AF_INET6) or packed is None:
        return None
    return interface, socket.inet_ntop(family, packed), bool(state & _NUD_FAILED)


class KernelRoutes:
    """Lookups and events of this network namespace; where netlink is missing every address counts as one of ours."""

    def __init__(self) -> None:
        self._asking: socket.socket | None = None
        self._events: socket.socket | None = None
        self._sequence = 0
        # Next hops that do not answer ARP or neighbour discovery: the kernel keeps their routes all the same.
        self._failed: set[tuple[int, str]] = set()
        with contextlib.suppress(OSError):
            self._asking = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE)
            self._asking.bind((0, 0))
            self._asking.settimeout(_ANSWER_TIMEOUT_S)

    def hops(self, address: str) -> tuple[KernelHop, ...]:
        """The usable next hops on the kernel's route to an address, without IPv6 zone; empty where there is none."""
        if self._asking is None:
            return (HERE,)
        self._sequence += 1
        try:
            self._asking.send(request(address, self._sequence))
            found = self._answer(self._asking)
        except (OSError, ValueError, struct.error) as error:
            log.debug("the kernel does not tell its way to %s: %s", address, error)
            return (HERE,)
        return tuple(hop for hop in found if (hop.interface, hop.gateway or address) not in self._failed)

    def _answer(self, asking: socket.socket) -> tuple[KernelHop, ...]:
        """The answer to the last question; one that came too late for an earlier question is passed over."""
        while True:
            for kind, wire in split_messages(asking.recv(_BUFFER_BYTES)):
                if struct.unpack_from("=I", wire, 8)[0] != self._sequence:
                    continue
                return parse_route(wire) if kind == _NEWROUTE else ()

    def watch(self, on_change: Callable[[], None], on_link: Callable[[], None]) -> None:
        """Calls `on_change` in the running loop whenever a way may have changed, and `on_link` before it where it was
        a device or an address."""
        try:
            events = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_NONBLOCK, socket.NETLINK_ROUTE)
            events.bind((0, _GROUPS))
        except OSError as error:
            log.info("no netlink events, routes are looked at every second: %s", error)
            return
        self._events = events
        asyncio.get_running_loop().add_reader(events.fileno(), self._on_event, events, on_change, on_link)

    def close(self) -> None:
        """Needs the running loop when `watch` was called."""
        if self._events is not None:
            asyncio.get_running_loop().remove_reader(self._events.fileno())
            self._events.close()
            self._events = None
        if self._asking is not None:
            self._asking.close()
            self._asking = None

    def _on_event(self, events: socket.socket, on_change: Callable[[], None], on_link: Callable[[], None]) -> None:
        is_change = is_link = False
        try:
            while chunk := events.recv(_BUFFER_BYTES):
                for kind, wire in split_messages(chunk):
                    if kind in (_NEWNEIGH, _DELNEIGH):
                        is_change |= self._on_neighbor(kind, wire)
                    else:
                        is_change = True
                        is_link |= _NEWLINK <= kind <= _DELADDR
        except BlockingIOError:
            pass
        except (OSError, ValueError, struct.error):  # ENOBUFS says that events were lost: anything may have changed
            is_change = is_link = True
        if is_link:
            on_link()
        if is_change:
            on_change()

    def _on_neighbor(self, kind: int, wire: bytes) -> bool:
        """Whether a next hop has become silent, or is heard again."""
        found = parse_neighbor(wire)
        if found is None:
            return False
        interface, address, has_failed = found
        key = interface, address
        if has_failed and kind == _NEWNEIGH and key not in self._failed:
            if len(self._failed) >= _MAX_FAILED:
                self._failed.clear()
            self._failed.add(key)
            return True
        if (not has_failed or kind == _DELNEIGH) and key in self._failed:
            self._failed.discard(key)
            return True
        return False
