"""The forwarder on the event loop: listening sockets, faces that others make, timers."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import grp
import logging
import os
import socket
from collections.abc import Callable, Coroutine, Iterable
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from gateway.forwarder.faces.base import Face
from gateway.forwarder.faces.datagram import Address, DatagramChannel, DatagramFace
from gateway.forwarder.faces.internal import InternalFace
from gateway.forwarder.faces.limits import HERE, FaceLimits, Limits
from gateway.forwarder.faces.link import ReassemblyBudget
from gateway.forwarder.faces.multicast import GROUPS, MulticastFace, keep_joined
from gateway.forwarder.faces.neighbors import DEFAULT_PORT, Neighbor, Neighbors, uri_of
from gateway.forwarder.faces.stream import StreamConnection, StreamFace
from gateway.forwarder.faces.udp_socket import bound, is_here
from gateway.forwarder.forwarder import Forwarder

__all__ = ["FaceError", "FaceManager", "Neighbor"]

log = logging.getLogger(__name__)

# Peers that nobody configured, of each kind: enough for a busy access point, few enough for a small router. They are
# counted apart so that no flood from the network keeps this machine's applications out.
ON_DEMAND_MAX = 128
UDP_IDLE_S = 120.0
# A UDP peer that has not proven its address in this time makes room for one that may.
UNPROVEN_S = 2.0
# The PIT is looked after this often at the most, and at least: an entry that is late by so much harms nobody.
_TIMER_MIN_S, _TIMER_MAX_S = 0.25, 1.0
# A stream that is not read for so long at a time still carries a neighbour's hellos in time (2 s).
PAUSE_MAX_S = 1.0
UNIX_GROUP = "ndn"
_WAYS_OUT = {
    errno.EADDRINUSE: "is another forwarder running? stop it, or listen on another port",
    errno.EADDRNOTAVAIL: "that address is not on this machine",
    errno.EACCES: "run as root, or listen where this user may",
    errno.EPERM: "run as root, or listen where this user may",
}


class FaceError(Exception):
    """A listening address that cannot be used; the text names it, the reason and the way out."""


class FaceManager:
    """Owns every socket of the forwarder; `start` raises FaceError, after that nothing here raises."""

    def __init__(
        self, forwarder: Forwarder, on_new_peer: Callable[[], None] = lambda: None, limits: Limits | None = None
    ) -> None:
        """`on_new_peer` is called when a neighbour's face came into being after `start`, for its routes.

        `limits` hold for each face that leads off this machine, those of limits.HERE for the others.
        """
        self.forwarder = forwarder
        # Called when a face to somebody else has come up.
        self.on_face_up: Callable[[int], None] = lambda face_id: None
        self._face_limits = limits or Limits()
        self._limits: dict[int, FaceLimits] = {}
        self._budget = ReassemblyBudget()
        self._loop = asyncio.get_running_loop()
        self._neighbors = Neighbors(forwarder, self, on_new_peer)
        self._servers: list[asyncio.Server] = []
        self._channels: list[DatagramChannel] = []
        self.listening: list[tuple[str, str, int]] = []
        self._on_demand: dict[Face, str] = {}
        self.multicast: list[MulticastFace] = []
        self._reported_groups: set[MulticastFace] = set()
        self._unix_paths: list[Path] = []
        self._tasks: set[asyncio.Task[None]] = set()
        self._timer: asyncio.TimerHandle | None = None

    # --- life

    async def start(self, listen: Iterable[str], neighbors: Iterable[Neighbor], networks: Iterable[str] = ()) -> None:
        """Listens on the face URIs and dials the neighbours; what was begun before a FaceError, `stop` ends.

        On each interface of `networks` there is a multicast face for hellos.
        """
        for uri in listen:
            await self._listen(uri)
        self.set_neighbors(neighbors)
        self._join(networks)
        self.spawn(self._close_idle())

    async def stop(self) -> None:
        for task in list(self._tasks):
            task.cancel()
        for server in self._servers:
            server.close()
        for face in list(self.forwarder.faces.values()):
            self.forwarder.remove_face(face)
        self._on_demand.clear()
        for channel in self._channels:
            channel.close()
        for path in self._unix_paths:
            path.unlink(missing_ok=True)
        if self._timer is not None:
            self._timer.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def internal(self, name: str) -> InternalFace:
        """A new face for a part of the gateway itself."""
        face = InternalFace(name, self.receive_datagrams)
        self.forwarder.add_face(face)
        return face

    def set_neighbors(self, neighbors: Iterable[Neighbor]) -> None:
        """Makes the configured faces what they should be; who did not change keeps its connection."""
        self._neighbors.set(neighbors)

    def face_of(self, neighbor: str) -> Face | None:
        """A neighbour's face, up or down; None while its name is not resolved."""
        return self._neighbors.face_of(neighbor)

    def came_up(self, face: Face) -> None:
        self.on_face_up(face.id)

    def reconnect(self, face: Face | None) -> None:
        """Dials a neighbour anew whose connection an outage broke; with None, whoever waits for the next attempt."""
        if face is None:
            self._neighbors.hasten()
        elif face in self._on_demand and isinstance(face, StreamFace) and face.transport is not None:
            face.transport.abort()  # whoever dialled it dials again
        else:
            self._neighbors.reconnect(face)

    def spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = self._loop.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._done)
        return task

    def _done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("a task of the faces failed", exc_info=error)

    # --- packets and time

    def receive(self, face: Face, wire: bytes) -> None:
        self.forwarder.receive(face, wire, self._loop.time())
        if self._timer is None:
            self._arm()

    def receive_stream(self, face: Face, chunk: bytes) -> int:
        """What came from a stream; how many bytes of it were whole packets. Raises DecodeError as the forwarder."""
        waiting = face.waiting
        used = self.forwarder.receive_stream(face, chunk, self._loop.time())
        limits = self._limits.get(face.id)
        if limits is not None:
            limits.on_entries(max(0, face.waiting - waiting))
            if limits.is_exceeded(self._loop.time()):
                self._pause(face, limits.debt_s)
        if self._timer is None:
            self._arm()
        return used

    def _pause(self, face: Face, seconds: float) -> None:
        """Reads no more from a stream until its face has paid for what it had; the peer feels it and waits."""
        transport = face.transport if isinstance(face, StreamFace) else None
        if transport is not None and transport.is_reading():
            transport.pause_reading()
            self._loop.call_later(min(seconds, PAUSE_MAX_S), transport.resume_reading)

    def receive_datagrams(self, face: Face, wires: list[bytes]) -> None:
        """Link packets that came in datagrams of their own."""
        now, waiting = self._loop.time(), face.waiting
        limits = self._limits.get(face.id)
        if limits is not None and limits.is_exceeded(now):
            wires = limits.without_interests(wires)
        self.forwarder.receive_batch(face, wires, now)
        if limits is not None and face.waiting > waiting:
            limits.on_entries(face.waiting - waiting)
        if self._timer is None:
            self._arm()

    def limit(self, face: Face, is_here: bool) -> None:
        """Puts limits on a face; one that stays on this machine (`is_here`) may use all of it, but not to flood."""
        limits = HERE if is_here else self._face_limits
        made = self._limits.setdefault(face.id, FaceLimits(face, limits, self._loop.time()))
        if isinstance(face, DatagramFace):
            face.limits = made

    def _arm(self) -> None:
        deadline = self.forwarder.next_deadline()
        if deadline is not None:
            now = self._loop.time()
            self._timer = self._loop.call_at(min(max(deadline, now + _TIMER_MIN_S), now + _TIMER_MAX_S), self._on_timer)

    def _on_timer(self) -> None:
        self._timer = None
        self.forwarder.on_timer(self._loop.time())
        self._arm()

    # --- listening

    async def _listen(self, uri: str) -> None:
        try:
            parts = urlsplit(uri)
            host, port = parts.hostname or "", parts.port if parts.port is not None else DEFAULT_PORT
            if parts.scheme == "unix":
                await self._listen_unix(Path(parts.path))
            elif parts.scheme in ("tcp4", "tcp6"):
                await self._listen_tcp(parts.scheme, host, port)
            elif parts.scheme in ("udp4", "udp6"):
                self._listen_udp(parts.scheme, host, port)
            else:
                raise FaceError(f"listen {uri!r}: unknown kind of face; unix, tcp4, tcp6, udp4 and udp6 are known")
        except ValueError as error:
            raise FaceError(f"listen {uri!r}: {error}; write it like tcp4://0.0.0.0:6363") from error
        except OSError as error:
            known = error.errno is not None and error.errno > 0
            reason = os.strerror(error.errno or 0) if known else str(error)
            way_out = _WAYS_OUT.get(error.errno or 0, "choose another address")
            raise FaceError(f"listen {uri!r}: {reason}; {way_out}") from error

    async def _listen_unix(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.is_socket():
            await self._remove_stale(path)
        server = await self._loop.create_unix_server(self._accept(self._adopt_unix), str(path))
        self._servers.append(server)
        self._unix_paths.append(path)
        with contextlib.suppress(KeyError, PermissionError):
            os.chown(path, -1, grp.getgrnam(UNIX_GROUP).gr_gid)
        path.chmod(0o660)

    @staticmethod
    async def _remove_stale(path: Path) -> None:
        """Removes the socket of a forwarder that was killed; one that answers is another's and stays."""
        try:
            _, writer = await asyncio.open_unix_connection(str(path))
        except (ConnectionRefusedError, FileNotFoundError):
            path.unlink(missing_ok=True)
        else:
            writer.close()
            raise FaceError(f"listen 'unix://{path}': another forwarder answers there; stop it first")

    async def _listen_tcp(self, scheme: str, host: str, port: int) -> None:
        family = socket.AF_INET if scheme == "tcp4" else socket.AF_INET6
        server = await self._loop.create_server(self._accept(self._adopt_tcp), host, port, family=family)
        self._servers.append(server)
        self.listening.append((scheme, host, server.sockets[0].getsockname()[1]))

    def _listen_udp(self, scheme: str, host: str, port: int) -> DatagramChannel:
        udp = bound(socket.AF_INET if scheme == "udp4" else socket.AF_INET6, host, port)
        channel = DatagramChannel(udp, self._greet, self.receive_datagrams, self._budget)
        self._channels.append(channel)
        self.listening.append((scheme, host, channel.local_address[1]))
        return channel

    async def udp_channel(self, scheme: str, peer: Address) -> DatagramChannel:
        """The UDP socket to reach a peer from: that of the kernel's source address, or bound to all, or a new one."""
        is_ipv6 = scheme == "udp6"
        channels = {c.local_address[0]: c for c in self._channels if (":" in c.local_address[0]) == is_ipv6}
        with socket.socket(socket.AF_INET6 if is_ipv6 else socket.AF_INET, socket.SOCK_DGRAM) as probe:
            probe.connect(peer)
            source = probe.getsockname()[0]
        anywhere = "::" if is_ipv6 else "0.0.0.0"
        channel = channels.get(source) or channels.get(anywhere) or next(iter(channels.values()), None)
        return channel or self._listen_udp(scheme, anywhere, 0)

    def _join(self, networks: Iterable[str]) -> None:
        for interface in networks:
            for family in GROUPS:
                self.multicast.append(MulticastFace(family, interface, self.receive_datagrams, self._budget))
        for face in self.multicast:
            self.forwarder.add_face(face)
            self.limit(face, is_here=False)
        if self.multicast:
            self.spawn(keep_joined(self.multicast, self._report_group))

    def _report_group(self, face: MulticastFace, error: OSError) -> None:
        known = error.errno is not None and error.errno > 0
        log.log(
            logging.DEBUG if face in self._reported_groups else logging.WARNING,
            "network %s: the group %s can't be joined: %s; it is tried again and again",
            face.interface,
            face.uri,
            os.strerror(error.errno or 0) if known else error,
        )
        self._reported_groups.add(face)

    # --- faces that others make

    def _accept(self, adopt: Callable[[StreamConnection], StreamFace | None]) -> Callable[[], StreamConnection]:
        return lambda: StreamConnection(adopt, self.receive_stream, self.lost)

    def _adopt_unix(self, connection: StreamConnection) -> StreamFace | None:
        descriptor = connection.transport.get_extra_info("socket").fileno()
        local = connection.transport.get_extra_info("sockname")
        face = StreamFace(f"fd://{descriptor}", f"unix://{local}", is_local=True)
        adopted = self._adopt_stranger(face, "unix", connection)
        if adopted is not None:
            self.limit(adopted, is_here=True)
        return adopted

    def _adopt_tcp(self, connection: StreamConnection) -> StreamFace | None:
        remote = connection.transport.get_extra_info("peername")
        if remote is None:
            return None
        if self._neighbors.at(remote[0]) is None:
            return self._adopt_tcp_stranger(connection)
        connection.wait_for_greeting(lambda is_gateway: self._decide_tcp(connection, is_gateway))
        return None

    def _decide_tcp(self, connection: StreamConnection, is_gateway: bool) -> StreamFace | None:
        """A connection from a neighbour's address: the neighbour itself, or an application on its machine."""
        neighbor = self._neighbors.at(connection.transport.get_extra_info("peername")[0])
        if neighbor is not None and is_gateway:
            return self._neighbors.adopt(neighbor, connection)
        return self._adopt_tcp_stranger(connection)

    def _adopt_tcp_stranger(self, connection: StreamConnection) -> StreamFace | None:
        remote, local = (connection.transport.get_extra_info(end) for end in ("peername", "sockname"))
        face = self._adopt_stranger(StreamFace(uri_of("tcp", remote), uri_of("tcp", local)), "tcp", connection)
        if face is not None:
            self.limit(face, is_here(remote, local))
        return face

    def _adopt_stranger(self, face: StreamFace, kind: str, connection: StreamConnection) -> StreamFace | None:
        if not self._has_room(kind):
            log.warning("%s is refused: %d peers that nobody configured are connected", face.uri, ON_DEMAND_MAX)
            return None
        face.attach(connection.transport)
        self._on_demand[face] = kind
        self.forwarder.add_face(face)
        if kind != "unix":
            self.came_up(face)
        return face

    def _greet(self, channel: DatagramChannel, address: Address) -> DatagramFace | None:
        if not self._has_room("udp") and not self._drop_unproven():
            return None
        face = DatagramFace(uri_of("udp", address), uri_of("udp", channel.local_address), "", address, channel)
        channel.faces[address] = face
        self._on_demand[face] = "udp"
        self.forwarder.add_face(face)
        self.limit(face, face.is_here)
        self.came_up(face)
        return face

    def _drop_unproven(self) -> bool:
        """Closes the face of a peer that may not be there at all; forged addresses must not keep real peers out."""
        limit = self._loop.time() - UNPROVEN_S
        for face in self._on_demand:
            if isinstance(face, DatagramFace) and face.proof is not None and face.created < limit:
                self.release(face)
                return True
        return False

    def _has_room(self, kind: str) -> bool:
        return sum(1 for other in self._on_demand.values() if other == kind) < ON_DEMAND_MAX

    async def _close_idle(self) -> None:
        while True:
            await asyncio.sleep(UDP_IDLE_S / 4)
            limit = self._loop.time() - UDP_IDLE_S
            for face in list(self._on_demand):
                if isinstance(face, DatagramFace) and face.last_heard < limit:
                    self.release(face)
            for face in self.forwarder.faces.values():
                if isinstance(face, DatagramFace):
                    face.refresh_path()
            self._limits = {number: of for number, of in self._limits.items() if number in self.forwarder.faces}

    def release(self, face: Face) -> None:
        """Closes a face that a peer made."""
        self._on_demand.pop(face, None)
        self.forwarder.remove_face(face)
        self.forwarder.on_face_down(face, self._loop.time())

    def release_streams(self, hosts: frozenset[str]) -> None:
        """Closes the faces of TCP peers at these addresses, who turned out to be neighbours: they will dial again."""
        for face, kind in list(self._on_demand.items()):
            if kind == "tcp" and (urlsplit(face.uri).hostname or "").partition("%")[0] in hosts:
                self.release(face)

    def lost(self, face: StreamFace, transport: asyncio.Transport) -> None:
        """A connection broke: the face of a peer that came by itself goes, a neighbour's waits for the next one."""
        if face.transport is not transport:
            return
        face.detach()
        if face in self._on_demand:
            self.release(face)
        else:
            self._neighbors.on_lost(face)
            self.forwarder.on_face_down(face, self._loop.time())
