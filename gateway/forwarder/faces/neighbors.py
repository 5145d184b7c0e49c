"""Faces to configured neighbours: dialled, kept, and made one where both ends dial.

A neighbour is one face. Over TCP both ends may connect; where both do, the connection that the smaller address made
stays, so that both ends agree without a word.
"""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import logging
import os
import random
import socket
from collections.abc import Callable, Coroutine, Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol, cast
from urllib.parse import urlsplit

from gateway.forwarder.faces.base import Face
from gateway.forwarder.faces.datagram import Address, DatagramChannel, DatagramFace
from gateway.forwarder.faces.stream import StreamConnection, StreamFace
from gateway.forwarder.faces.udp_socket import is_here
from gateway.forwarder.forwarder import Forwarder

log = logging.getLogger(__name__)

DEFAULT_PORT = 6363
RECONNECT_MIN_S, RECONNECT_MAX_S = 0.5, 30.0
DIAL_TIMEOUT_S = 10.0
# A lost first packet is sent again by the kernel after a second, which is a quarter of a short contact: a link that has
# just come up loses it often, because the other end's route comes a moment later. So it is given up early, at first.
FIRST_PATIENCES_S = (0.1, 0.2, 0.4, 0.8)
# Two ends that dial at once have met within this time; who dials later has lost the connection that we still think is
# there. A connection that did not last so long does not end the back-off.
SETTLED_S = 5.0


@dataclass(frozen=True, slots=True)
class Neighbor:
    """A configured peer; `rate_bps` caps what we send to it, it is never taken for a measurement.

    `mtu` is the largest UDP payload that its path carries, where the kernel's own idea of it is wrong. With
    `is_reliable`, at both ends, lost datagrams are sent again.
    """

    name: str
    uri: str
    cost: int = 1
    rate_bps: int | None = None
    mtu: int | None = None
    is_reliable: bool = False

    def is_same_link(self, other: Neighbor) -> bool:
        return replace(self, cost=other.cost) == other


class Sockets(Protocol):
    """What the neighbours' faces need of who owns the listening sockets."""

    @property
    def listening(self) -> Sequence[tuple[str, str, int]]:
        """Kind, host and port of each."""

    def limit(self, face: Face, is_here: bool) -> None:
        """Holds a face that leads off this machine to its limits."""

    async def udp_channel(self, scheme: str, peer: Address) -> DatagramChannel: ...
    def receive_stream(self, face: Face, chunk: bytes) -> int: ...
    def lost(self, face: StreamFace, transport: asyncio.Transport) -> None: ...
    def release(self, face: Face) -> None:
        """Closes a face that a peer had before it was known to be a neighbour."""

    def release_streams(self, hosts: frozenset[str]) -> None:
        """The same for all TCP faces from these addresses."""

    def spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]: ...
    def came_up(self, face: Face) -> None:
        """A face has come up, or got another connection: whoever greets neighbours should know."""


@dataclass(slots=True)
class _Peer:
    """A neighbour's face, who made its connection, and when (monotonic)."""

    neighbor: Neighbor
    face: Face | None = None
    task: asyncio.Task[None] | None = None
    addresses: frozenset[str] = frozenset()
    dialed: bool = False
    since: float = 0.0
    is_reported: bool = False
    lost: asyncio.Event = field(default_factory=asyncio.Event)
    # Ends the wait for the next attempt.
    hurry: asyncio.Event = field(default_factory=asyncio.Event)


class Neighbors:
    """One face a neighbour; `on_new_face` is called for a face that came later than `set`, for its routes."""

    def __init__(self, forwarder: Forwarder, sockets: Sockets, on_new_face: Callable[[], None]) -> None:
        self._forwarder, self._sockets, self._on_new_face = forwarder, sockets, on_new_face
        self._loop = asyncio.get_running_loop()
        self._peers: dict[str, _Peer] = {}

    def set(self, neighbors: Iterable[Neighbor]) -> None:
        """Makes the faces what they should be; a neighbour whose link did not change keeps its connection."""
        wanted = {neighbor.name: neighbor for neighbor in neighbors}
        for name, peer in list(self._peers.items()):
            neighbor = wanted.get(name)
            if neighbor is None or not neighbor.is_same_link(peer.neighbor):
                self._drop(name)
            else:
                peer.neighbor = neighbor
        for name, neighbor in wanted.items():
            if name not in self._peers:
                self._add(neighbor)

    def face_of(self, name: str) -> Face | None:
        peer = self._peers.get(name)
        return peer.face if peer is not None else None

    def _add(self, neighbor: Neighbor) -> None:
        peer = self._peers[neighbor.name] = _Peer(neighbor, addresses=_literal(neighbor.uri))
        if neighbor.uri.startswith("udp"):
            peer.task = self._sockets.spawn(self._open_datagram_face(peer))
            return
        self._sockets.release_streams(peer.addresses)
        face = StreamFace(neighbor.uri, "", neighbor.name, rate_bps=neighbor.rate_bps)
        peer.face = face
        self._forwarder.add_face(face)
        peer.task = self._sockets.spawn(self._keep_connected(peer, face))

    def _drop(self, name: str) -> None:
        peer = self._peers.pop(name)
        if peer.task is not None:
            peer.task.cancel()
        if peer.face is not None:
            self._forwarder.remove_face(peer.face)

    def _report(self, peer: _Peer, error: Exception) -> None:
        """Says once an outage that a neighbour can't be reached, and why."""
        code = getattr(error, "errno", None) or 0
        reason = os.strerror(code) if code > 0 else str(error) or "no answer"
        log.log(
            logging.DEBUG if peer.is_reported else logging.WARNING,
            "neighbor %s at %s can't be reached: %s; it is tried again and again",
            peer.neighbor.name,
            peer.neighbor.uri,
            reason,
        )
        peer.is_reported = True

    async def _resolve(self, neighbor: Neighbor, kind: int) -> list[Address]:
        parts = urlsplit(neighbor.uri)
        family = socket.AF_INET if parts.scheme.endswith("4") else socket.AF_INET6
        found = await self._loop.getaddrinfo(parts.hostname, parts.port or DEFAULT_PORT, family=family, type=kind)
        return [cast(Address, entry[4]) for entry in found]

    # --- UDP

    async def _open_datagram_face(self, peer: _Peer) -> None:
        delay = RECONNECT_MIN_S
        while True:
            try:
                address = (await self._resolve(peer.neighbor, socket.SOCK_DGRAM))[0]
                channel = await self._sockets.udp_channel(urlsplit(peer.neighbor.uri).scheme, address)
                break
            except (OSError, ValueError) as error:
                self._report(peer, error)
            await asyncio.sleep(delay * random.uniform(0.75, 1.25))
            delay = min(delay * 2, RECONNECT_MAX_S)
        old = channel.faces.get(address)
        if old is not None:
            self._sockets.release(old)
        neighbor = peer.neighbor
        local_uri = uri_of("udp", channel.local_address)
        face = DatagramFace(
            neighbor.uri,
            local_uri,
            neighbor.name,
            address,
            channel,
            neighbor.rate_bps,
            neighbor.mtu,
            is_configured=True,
            is_reliable=neighbor.is_reliable,
        )
        channel.faces[address] = face
        peer.face = face
        self._forwarder.add_face(face)
        self._sockets.limit(face, face.is_here)
        self._on_new_face()
        self._sockets.came_up(face)

    # --- TCP

    def at(self, host: str) -> str | None:
        """The one neighbour configured at this address; None where there is none or it can't be told which."""
        host = host.partition("%")[0]
        found = [
            name for name, peer in self._peers.items() if isinstance(peer.face, StreamFace) and host in peer.addresses
        ]
        return found[0] if len(found) == 1 else None

    def adopt(self, name: str, connection: StreamConnection) -> StreamFace | None:
        """The neighbour's face for a connection that it made to us; None when ours stays."""
        peer = self._peers[name]
        face = peer.face
        assert isinstance(face, StreamFace)
        is_recent = self._loop.time() - peer.since < SETTLED_S
        if face.up and peer.dialed and is_recent and self._ours_wins(peer, connection):
            return None
        self._attach(peer, face, connection, dialed=False)
        return face

    def _dialed(self, peer: _Peer, face: StreamFace, connection: StreamConnection) -> StreamFace | None:
        if self._peers.get(peer.neighbor.name) is not peer or (face.up and not self._ours_wins(peer, connection)):
            return None
        self._attach(peer, face, connection, dialed=True)
        face.greet()
        return face

    def _attach(self, peer: _Peer, face: StreamFace, connection: StreamConnection, dialed: bool) -> None:
        if face.transport is not None:
            face.transport.close()
        peer.dialed, peer.since, peer.is_reported = dialed, self._loop.time(), False
        local, remote = (connection.transport.get_extra_info(end) for end in ("sockname", "peername"))
        face.local_uri = uri_of("tcp", local)
        self._sockets.limit(face, is_here(remote, local))
        face.attach(connection.transport)
        self._sockets.came_up(face)
        log.info("face %d (%s, neighbor %s) is up", face.id, face.uri, peer.neighbor.name)

    def hasten(self) -> None:
        """Who waits for the next attempt to dial makes it now: the network has changed."""
        for peer in self._peers.values():
            peer.hurry.set()

    def reconnect(self, face: Face) -> None:
        """Gives up a connection that an outage broke without a word, and dials anew."""
        peer = self._peers.get(face.neighbor)
        if peer is not None and peer.face is face and isinstance(face, StreamFace) and face.transport is not None:
            face.transport.abort()
            peer.hurry.set()

    def _ours_wins(self, peer: _Peer, connection: StreamConnection) -> bool:
        """Whether our address is the smaller one, as both ends see it: by the addresses that they listen on."""
        ours = connection.transport.get_extra_info("sockname")[0]
        theirs = connection.transport.get_extra_info("peername")[0]
        ports = [port for kind, host, port in self._sockets.listening if kind.startswith("tcp") and _covers(host, ours)]
        port = urlsplit(peer.neighbor.uri).port or DEFAULT_PORT
        return _order(ours, ports[0] if ports else 0) < _order(theirs, port)

    def on_lost(self, face: StreamFace) -> None:
        """A neighbour's connection broke; it is dialled again."""
        log.info("face %d (%s, neighbor %s) is down", face.id, face.uri, face.neighbor)
        peer = self._peers.get(face.neighbor)
        if peer is not None:
            peer.lost.set()

    async def _keep_connected(self, peer: _Peer, face: StreamFace) -> None:
        """Dials while no connection is there, backing off with jitter; what the other end dialled is as good."""
        delay = 0.0
        while True:
            peer.lost.clear()
            if face.up:
                await peer.lost.wait()
                if self._loop.time() - peer.since >= SETTLED_S:
                    delay = 0.0
            peer.hurry.clear()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(delay * random.uniform(0.75, 1.25)):
                    await peer.hurry.wait()
                delay = 0.0
            if not face.up:
                await self._dial(peer, face)
            delay = min(max(delay * 2, RECONNECT_MIN_S), RECONNECT_MAX_S)

    async def _dial(self, peer: _Peer, face: StreamFace) -> None:
        try:
            async with asyncio.timeout(DIAL_TIMEOUT_S):
                addresses = await self._resolve(peer.neighbor, socket.SOCK_STREAM)
                hosts = frozenset(address[0].partition("%")[0] for address in addresses)
                if hosts != peer.addresses:
                    peer.addresses = hosts
                    self._sockets.release_streams(hosts)
                sock = await self._connect_soon(addresses[0])
                await self._loop.create_connection(
                    lambda: StreamConnection(
                        lambda c: self._dialed(peer, face, c), self._sockets.receive_stream, self._sockets.lost
                    ),
                    sock=sock,
                )
        except (OSError, ValueError) as error:
            self._report(peer, error)

    async def _connect_soon(self, address: Address) -> socket.socket:
        for patience_s in FIRST_PATIENCES_S:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(patience_s):
                    return await self._connect(address)
        return await self._connect(address)

    async def _connect(self, address: Address) -> socket.socket:
        """Dials from the address it listens on, where that is a specific one: the peer knows us by it."""
        is_ipv6 = ":" in address[0]
        sock = socket.socket(socket.AF_INET6 if is_ipv6 else socket.AF_INET, socket.SOCK_STREAM)
        sock.setblocking(False)
        try:
            for kind, host, _ in self._sockets.listening:
                if kind == ("tcp6" if is_ipv6 else "tcp4") and not _is_unspecified(host):
                    sock.bind((host, 0))
                    break
            await self._loop.sock_connect(sock, address)
        except BaseException:
            sock.close()
            raise
        return sock


def uri_of(kind: str, address: Address) -> str:
    """The face URI of a socket address; `kind` is tcp or udp."""
    host, port = address[0], address[1]
    if ":" not in host:
        return f"{kind}4://{host}:{port}"
    if len(address) == 4 and address[3] and "%" not in host:
        with contextlib.suppress(OSError):
            host = f"{host}%{socket.if_indextoname(address[3])}"
    return f"{kind}6://[{host}]:{port}"


def _literal(uri: str) -> frozenset[str]:
    host = (urlsplit(uri).hostname or "").partition("%")[0]
    try:
        return frozenset({str(ipaddress.ip_address(host))})
    except ValueError:
        return frozenset()


def _is_unspecified(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_unspecified
    except ValueError:
        return not host


def _covers(listening: str, host: str) -> bool:
    return _is_unspecified(listening) or listening.partition("%")[0] == host.partition("%")[0]


def _order(host: str, port: int) -> tuple[int, int]:
    return int(ipaddress.ip_address(host.partition("%")[0])), port
