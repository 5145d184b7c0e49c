"""Faces over stream sockets: unix and TCP."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import logging
import os
import socket
import sys
from collections.abc import Callable

from gateway.forwarder.faces import link
from gateway.forwarder.faces.base import Face
from gateway.forwarder.faces.link import CongestionMarker
from gateway.forwarder.faces.shaper import ShapedWriter
from gateway.forwarder.packet import DecodeError

log = logging.getLogger(__name__)

# A reader this far behind gets no more until it catches up: what is dropped is asked for again. More than the largest
# window of a consumer (400 packets of 8 kB).
WRITE_BUFFER_MAX_BYTES = 4 << 20
# So many buffers Linux takes in one system call.
_IOV_MAX = 1024
# Linux' SIOCOUTQNSD: what TCP has taken and not sent yet. A limit to that (TCP_NOTSENT_LOWAT) would show it in the
# transport's buffer, but costs three quarters of a fast link's throughput; so it is asked, and now and then is enough.
_SIOCOUTQNSD = 0x894B
_LOOK_INTERVAL_S = 0.01
# Among so many packets at the end of a batch is the one that bears a congestion mark.
_MARKABLE = 8
# A neighbour that lost its power says nothing; its face must fall within the time of two hellos.
_USER_TIMEOUT_MS = 20_000
_KEEPALIVE_IDLE_S, _KEEPALIVE_INTERVAL_S, _KEEPALIVE_COUNT = 10, 5, 2

# The first packet of a connection that a gateway makes to a neighbour: an empty link packet (IDLE), which every
# forwarder ignores. Applications on the neighbour's machine come from the same address and don't send it.
GREETING = b"\x64\x00"
GREETING_PATIENCE_S = 30.0

# Takes what came, tells how many bytes of it were whole packets.
Receive = Callable[[Face, bytes], int]
Lost = Callable[["StreamFace", asyncio.Transport], None]


class StreamFace(Face):
    """A face that outlives its connections: it is up while a transport is attached.

    Packets written in one turn of the loop leave in one system call.
    """

    def __init__(
        self, uri: str, local_uri: str, neighbor: str = "", is_local: bool = False, rate_bps: int | None = None
    ):
        super().__init__(uri, local_uri, neighbor)
        self.is_local, self.is_marking = is_local, not is_local
        self._marker, self._owes_mark = CongestionMarker(rate_bps), False
        self._unsent_bytes, self._look_at = 0, float("-inf")
        self._loop = asyncio.get_running_loop()
        self._writer = ShapedWriter(rate_bps, self._write)
        self._outgoing: list[bytes] = []
        self.lane = None if rate_bps else self._outgoing
        self._descriptor = -1
        self.transport: asyncio.Transport | None = None
        self.up = False

    def attach(self, transport: asyncio.Transport) -> None:
        self.transport, self.up = transport, True
        self.peer_socket = transport.get_extra_info("socket")
        self._descriptor = self.peer_socket.fileno()

    def greet(self) -> None:
        """Says that a gateway is at this end; before anything else is sent on a connection that it made."""
        self._write(GREETING)

    def detach(self) -> None:
        self.transport, self.peer_socket, self.up = None, None, False
        self._outgoing.clear()
        self._owes_mark = False

    def close(self) -> None:
        self._writer.close()
        self.flush()
        if self.transport is not None:
            self.transport.close()
        self.detach()

    def transmit(self, wire: bytes, bulk: bool) -> None:
        if not self._writer.push(wire, bulk):
            self.counters.drops += 1

    def _write(self, wire: bytes) -> None:
        if not self._outgoing:
            self._loop.call_soon(self.flush)
        self._outgoing.append(wire)

    def flush(self) -> None:
        """Sends what was written in this turn of the loop, as far as the reader is not too far behind."""
        outgoing, transport = self._outgoing, self.transport
        if not outgoing:
            return
        waiting_bytes = transport.get_write_buffer_size() if transport is not None else WRITE_BUFFER_MAX_BYTES
        sizes_bytes = sum(map(len, outgoing))
        while waiting_bytes + sizes_bytes > WRITE_BUFFER_MAX_BYTES and outgoing:
            sizes_bytes -= len(outgoing.pop())
            self.counters.drops += 1
        if self.is_marking and transport is not None and outgoing:
            standing_bytes = waiting_bytes + self._writer.queued_bytes + self._look()
            if standing_bytes or self._marker.is_alert:
                sizes_bytes += self._mark(standing_bytes)
        if transport is not None and outgoing:
            self.counters.out_bytes += sizes_bytes
            self._send(transport, waiting_bytes)
        outgoing.clear()

    def _look(self) -> int:
        """The bytes that the kernel has not sent, as of late."""
        now = self._loop.time()
        if now >= self._look_at:
            self._look_at, self._unsent_bytes = now + _LOOK_INTERVAL_S, unsent_bytes(self._descriptor)
        return self._unsent_bytes

    def _mark(self, standing_bytes: int) -> int:
        """Marks the last Data of a batch when the backlog has stood too long; by how many bytes that is longer."""
        if self._marker.should_mark(standing_bytes, self._loop.time()):
            self._owes_mark = True
        elif not self._marker.is_alert:
            self._owes_mark = False
        if not self._owes_mark:
            return 0
        outgoing = self._outgoing
        for place in range(len(outgoing) - 1, max(-1, len(outgoing) - 1 - _MARKABLE), -1):
            wire = outgoing[place]
            marked = link.with_mark(wire)
            if marked is not wire:
                outgoing[place], self._owes_mark = marked, False
                return len(marked) - len(wire)
        return 0

    def _send(self, transport: asyncio.Transport, waiting_bytes: int) -> None:
        """Hands packets to the kernel where they lie; what it does not take waits in the transport."""
        outgoing, sent = self._outgoing, 0
        if not waiting_bytes and not transport.is_closing():
            with contextlib.suppress(OSError):  # the transport meets the same error, and deals with it
                sent = os.writev(self._descriptor, outgoing[:_IOV_MAX])
        rest = b"".join(outgoing) if not sent else _rest(outgoing, sent)
        if rest:
            transport.write(rest)


def unsent_bytes(descriptor: int) -> int:
    """What a TCP socket has taken and not sent yet; 0 where the kernel doesn't tell."""
    try:
        return int.from_bytes(fcntl.ioctl(descriptor, _SIOCOUTQNSD, bytes(4)), sys.byteorder)
    except OSError:
        return 0


def _rest(packets: list[bytes], sent: int) -> bytes:
    """What remains of packets when so many bytes have gone."""
    for place, wire in enumerate(packets):
        if sent < len(wire):
            return b"".join((wire[sent:], *packets[place + 1 :]))
        sent -= len(wire)
    return b""


class StreamConnection(asyncio.Protocol):
    """Cuts a stream into packets for its face; a stream that can't be cut any more is closed."""

    def __init__(self, adopt: Callable[[StreamConnection], StreamFace | None], receive: Receive, lost: Lost) -> None:
        self._adopt, self._receive, self._lost = adopt, receive, lost
        self._buffer = b""
        self._decide: Callable[[bool], StreamFace | None] | None = None
        self.face: StreamFace | None = None
        self.transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        _tune(transport.get_extra_info("socket"))
        self.face = self._adopt(self)
        if self.face is None and self._decide is None:
            transport.close()

    def wait_for_greeting(self, decide: Callable[[bool], StreamFace | None]) -> None:
        """Leaves it to the first bytes who is there: `decide(is_gateway)` gives the face, None to close."""
        self._decide = decide
        asyncio.get_running_loop().call_later(GREETING_PATIENCE_S, self._end_wait)

    def _end_wait(self) -> None:
        if self._decide is not None:
            self.transport.close()

    def data_received(self, chunk: bytes) -> None:
        if self._buffer:
            chunk = self._buffer + chunk
        if self._decide is not None:
            if len(chunk) < len(GREETING):
                self._buffer = chunk
                return
            decide, self._decide = self._decide, None
            self.face = decide(chunk.startswith(GREETING))
            if self.face is None:
                self.transport.close()
        face = self.face
        if face is None:
            return
        counted_before = face.counters.in_bytes
        try:
            used = self._receive(face, chunk)
        except DecodeError as error:
            self._drop(face, len(chunk) - (face.counters.in_bytes - counted_before), error)
            return
        self._buffer = chunk[used:]

    def _drop(self, face: StreamFace, rest_bytes: int, error: DecodeError) -> None:
        """The stream can't be followed any more: what is still to be written would not be read in order either."""
        log.warning("face %d (%s) is closed: %s", face.id, face.uri, error)
        face.counters.undecodable += 1
        face.counters.in_bytes += rest_bytes
        self.face = None
        self._lost(face, self.transport)
        self.transport.abort()

    def connection_lost(self, error: Exception | None) -> None:
        face, self.face = self.face, None
        if face is not None:
            face.counters.in_bytes += len(self._buffer)
            self._lost(face, self.transport)


def _tune(sock: socket.socket | None) -> None:
    if sock is None or sock.family == socket.AF_UNIX:
        return
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for option, value in (
        ("TCP_NODELAY", 1),
        ("TCP_USER_TIMEOUT", _USER_TIMEOUT_MS),
        ("TCP_KEEPIDLE", _KEEPALIVE_IDLE_S),
        ("TCP_KEEPINTVL", _KEEPALIVE_INTERVAL_S),
        ("TCP_KEEPCNT", _KEEPALIVE_COUNT),
    ):
        sock.setsockopt(socket.IPPROTO_TCP, getattr(socket, option), value)
