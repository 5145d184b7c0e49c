"""Faces to whoever is on an interface: NDN's UDP multicast groups, for hellos and nothing else.

An Interest that every neighbour forwards at once is a storm, so other names are dropped here in both directions. Hellos
are `/localhop`: they go one hop. Gateways on the same machine do not hear each other this way.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import random
import socket
import struct
from collections.abc import Callable
from dataclasses import dataclass

from gateway.forwarder import packet
from gateway.forwarder.faces import link
from gateway.forwarder.faces.base import Face
from gateway.forwarder.faces.link import Reassembler, ReassemblyBudget
from gateway.forwarder.faces.udp_socket import Address
from gateway.forwarder.packet import DATA, DecodeError
from gateway.protocol import names

PORT = 56363
GROUPS = {socket.AF_INET: "224.0.23.170", socket.AF_INET6: "ff02::1234"}
# An interface that was not there, or came back as another one, is noticed within this time.
LOOK_S = 5.0
# Senders whose fragments are put together at the same time; hellos are small and seldom fragmented.
SENDERS_MAX = 32
_READS_MAX = 64
_READ_BYTES = 65_535
_HEADER_BYTES = 48
# From linux/in.h and linux/in6.h: without them a socket hears the groups that others joined on other interfaces.
_IP_MULTICAST_ALL, _IPV6_MULTICAST_ALL = 49, 29
_SIOCGIFMTU = 0x8921

Receive = Callable[[Face, list[bytes]], None]


@dataclass(frozen=True, slots=True)
class Interface:
    """A network device as it is now; `mtu` is that of its packets."""

    name: str
    index: int
    mtu: int


def look_up(name: str) -> Interface | None:
    """The device of this name; None while there is none that is up."""
    with contextlib.suppress(OSError), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        request = struct.pack("16si12x", name.encode()[:15], 0)
        mtu = struct.unpack("16si12x", fcntl.ioctl(probe, _SIOCGIFMTU, request))[1]
        return Interface(name, socket.if_nametoindex(name), mtu)
    return None


class MulticastFace(Face):
    """One group on one interface; up while its socket is joined."""

    def __init__(
        self, family: socket.AddressFamily, interface: str, receive: Receive, budget: ReassemblyBudget
    ) -> None:
        self.family, self.interface = family, interface
        host = GROUPS[family]
        uri = f"udp4://{host}:{PORT}" if family == socket.AF_INET else f"udp6://[{host}%{interface}]:{PORT}"
        super().__init__(uri, f"dev://{interface}")
        self.up = False
        self._receive, self._budget = receive, budget
        self._loop = asyncio.get_running_loop()
        self._socket: socket.socket | None = None
        self._group: Address = (host, PORT)
        self._mtu = link.DEFAULT_MTU_BYTES
        self._index = 0
        self._sequence = int.from_bytes(os.urandom(8), "big")
        self._reassemblers: dict[Address, Reassembler] = {}
        # Monotonic time at which each sender was last heard.
        self.heard: dict[Address, float] = {}
        self.out_errors = 0

    def follow(self, interface: Interface | None) -> None:
        """Joins on the device as it is now, or leaves when it is gone; raises OSError when it can not join."""
        if interface is None:
            self._leave()
        elif interface.index != self._index or self._socket is None:
            self._leave()
            self._socket = _joined(self.family, interface)
            self._index = interface.index
            if self.family == socket.AF_INET6:
                self._group = (GROUPS[self.family], PORT, 0, interface.index)
            self._mtu = max(link.MIN_MTU_BYTES, min(interface.mtu - _HEADER_BYTES, link.DEFAULT_MTU_BYTES))
            self._loop.add_reader(self._socket, self._on_readable)
            self.up = True

    def transmit(self, wire: bytes, bulk: bool) -> None:
        if self._socket is None or not _is_hello(wire):
            self.counters.drops += 1
            return
        parts = link.fragments(wire, self._mtu, self._sequence)
        self._sequence += len(parts)
        try:
            for part in parts:
                self._socket.sendto(part, self._group)
                self.counters.out_bytes += len(part)
        except OSError:
            self.counters.drops += 1
            self.out_errors += 1

    def close(self) -> None:
        super().close()
        self._leave()

    def _leave(self) -> None:
        self.up = False
        if self._socket is not None:
            self._loop.remove_reader(self._socket)
            self._socket.close()
            self._socket = None
        for reassembler in self._reassemblers.values():
            reassembler.close()
        self._reassemblers.clear()
        self.heard.clear()

    def _on_readable(self) -> None:
        for _ in range(_READS_MAX):
            if self._socket is None:
                return
            try:
                wire, address = self._socket.recvfrom(_READ_BYTES)
            except (BlockingIOError, InterruptedError):
                return
            except OSError:
                continue
            self._on_datagram(wire, address, self._loop.time())

    def _on_datagram(self, wire: bytes, address: Address, now: float) -> None:
        whole: bytes | None = wire
        try:
            if link.is_fragment(wire):
                whole = self._reassembler_of(address).add(wire, now)
                self.counters.in_bytes += len(wire) - len(whole or b"")
            is_hello = whole is not None and _is_hello(whole)
        except DecodeError:
            self.counters.in_bytes += len(wire)
            self.counters.undecodable += 1
            return
        if whole is None:
            return
        if not is_hello:
            self.counters.in_bytes += len(whole)
            self.counters.drops += 1
            return
        self._note(address, now)
        self._receive(self, [whole])

    def _note(self, address: Address, now: float) -> None:
        self.heard.pop(address, None)
        self.heard[address] = now
        if len(self.heard) > SENDERS_MAX:
            del self.heard[next(iter(self.heard))]

    def _reassembler_of(self, address: Address) -> Reassembler:
        reassembler = self._reassemblers.pop(address, None) or Reassembler(self._budget)
        self._reassemblers[address] = reassembler
        if len(self._reassemblers) > SENDERS_MAX:
            self._reassemblers.pop(next(iter(self._reassemblers))).close()
        return reassembler


def _is_hello(wire: bytes) -> bool:
    """Whether it is an Interest or Data of the hello's names, or nothing (IDLE); raises DecodeError."""
    fragment = packet.decode_link(wire).fragment
    if not fragment:
        return True
    if fragment[0] == DATA:
        return packet.decode_data(fragment).name.startswith(names.HELLO)
    return packet.decode_interest(fragment).name.startswith(names.HELLO)


def _joined(family: socket.AddressFamily, interface: Interface) -> socket.socket:
    """A socket that hears the group on this device only, and sends there, one hop and not to itself."""
    group = GROUPS[family]
    sock = socket.socket(family, socket.SOCK_DGRAM)
    try:
        sock.setblocking(False)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET:
            member = socket.inet_aton(group) + bytes(4) + struct.pack("=i", interface.index)
            for option, value in (
                (_IP_MULTICAST_ALL, 0),
                (socket.IP_MULTICAST_LOOP, 0),
                (socket.IP_MULTICAST_TTL, 1),
                (socket.IP_MULTICAST_IF, member),
                (socket.IP_ADD_MEMBERSHIP, member),
            ):
                sock.setsockopt(socket.IPPROTO_IP, option, value)
            sock.bind((group, PORT))
        else:
            member = socket.inet_pton(family, group) + struct.pack("=i", interface.index)
            for option, value in (
                (socket.IPV6_V6ONLY, 1),
                (_IPV6_MULTICAST_ALL, 0),
                (socket.IPV6_MULTICAST_LOOP, 0),
                (socket.IPV6_MULTICAST_HOPS, 1),
                (socket.IPV6_MULTICAST_IF, interface.index),
                (socket.IPV6_JOIN_GROUP, member),
            ):
                sock.setsockopt(socket.IPPROTO_IPV6, option, value)
            sock.bind((group, PORT, 0, interface.index))
    except BaseException:
        sock.close()
        raise
    return sock


async def keep_joined(faces: list[MulticastFace], report: Callable[[MulticastFace, OSError], None]) -> None:
    """Follows the faces' interfaces as they come and go, until cancelled; `report` hears why a group is not joined."""
    while True:
        for face in faces:
            try:
                face.follow(look_up(face.interface))
            except OSError as error:
                report(face, error)
        await asyncio.sleep(LOOK_S * random.uniform(0.75, 1.25))
