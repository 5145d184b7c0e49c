"""Faces over UDP: one socket a listening address, one face a peer."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, Protocol, cast

from gateway.forwarder import packet
from gateway.forwarder.faces.base import Face
from gateway.forwarder.faces.shaper import ShapedWriter
from gateway.forwarder.packet import DecodeError

# Host and port; over IPv6 also the flow and the scope, without which a link-local peer can't be answered.
Address = tuple[str, int] | tuple[str, int, int, int]
# What may wait where the kernel takes no more: a send buffer's worth.
WRITE_BUFFER_MAX_BYTES = 256 * 1024


class _Transport(Protocol):
    """What asyncio's datagram transport offers, write buffer included."""

    def sendto(self, data: bytes, addr: Address) -> None: ...
    def get_write_buffer_size(self) -> int: ...
    def get_extra_info(self, name: str) -> Any: ...
    def is_closing(self) -> bool: ...
    def close(self) -> None: ...


class DatagramFace(Face):
    """A peer at `address`; `last_heard` is monotonic time, for closing peers that came by themselves and went."""

    def __init__(
        self,
        uri: str,
        local_uri: str,
        neighbor: str,
        address: Address,
        channel: DatagramChannel,
        rate_bps: int | None = None,
    ) -> None:
        super().__init__(uri, local_uri, neighbor)
        self.address = address
        self._channel = channel
        self._loop = asyncio.get_running_loop()
        self._writer = ShapedWriter(rate_bps, self._send)
        self.last_heard = self._loop.time()

    def transmit(self, wire: bytes, bulk: bool) -> None:
        if not self._writer.push(wire, bulk):
            self.counters.drops += 1

    def close(self) -> None:
        super().close()
        self._writer.close()
        if self._channel.faces.get(self.address) is self:
            del self._channel.faces[self.address]

    def _send(self, wire: bytes) -> None:
        if self._channel.send(wire, self.address):
            self.counters.out_bytes += len(wire)
        else:
            self.counters.drops += 1


class DatagramChannel(asyncio.DatagramProtocol):
    """A bound UDP socket; `greet` makes a face for a peer that is not known yet, or refuses it.

    A peer makes itself known by a packet: bytes that are none get no face.
    """

    def __init__(
        self, greet: Callable[[DatagramChannel, Address], DatagramFace | None], receive: Callable[[Face, bytes], None]
    ) -> None:
        self._greet, self._receive = greet, receive
        self._loop = asyncio.get_running_loop()
        self._transport: _Transport | None = None
        self._failed = False
        self.undecodable = 0
        self.faces: dict[Address, DatagramFace] = {}

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # Python 3.11's own datagram transport is no DatagramTransport by its class.
        self._transport = cast(_Transport, transport)

    def datagram_received(self, wire: bytes, address: Address) -> None:
        face = self.faces.get(address)
        if face is None and self._is_packet(wire):
            face = self._greet(self, address)
        if face is not None:
            face.last_heard = self._loop.time()
            self._receive(face, wire)

    def error_received(self, error: Exception) -> None:
        """No route, a packet too large, or a peer's port that is closed: the Interest times out, no more."""
        self._failed = True

    def send(self, wire: bytes, address: Address) -> bool:
        """Whether the packet went to the kernel, or waits for it."""
        transport = self._transport
        if transport is None or transport.is_closing() or transport.get_write_buffer_size() > WRITE_BUFFER_MAX_BYTES:
            return False
        self._failed = False
        transport.sendto(wire, address)
        return not self._failed

    def _is_packet(self, wire: bytes) -> bool:
        try:
            fragment = packet.decode_link(wire).fragment
            if fragment[:1] == b"\x06":
                packet.decode_data(fragment)
            elif fragment:
                packet.decode_interest(fragment)
        except DecodeError:
            self.undecodable += 1
            return False
        return True

    @property
    def local_address(self) -> Address:
        assert self._transport is not None
        name = self._transport.get_extra_info("sockname")
        return cast(Address, name)

    def close(self) -> None:
        if self._transport is not None:
            self._transport.close()
