"""Routes to nodes, kept in step with the mesh: asks the kernel, hears the neighbours, writes the FIB.

hellos, silence ─┐
kernel events ───┼─► refresh: peers + addresses + kernel ─► forwarder/routes.py ─► FIB origins "hello" and "mesh"
faces ───────────┘
"""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import logging
import socket
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from gateway.forwarder import routes
from gateway.forwarder.faces.base import Face
from gateway.forwarder.faces.neighbors import Neighbor
from gateway.forwarder.fib import Fib
from gateway.forwarder.routes import Hop, Hops, Known, Peer, Steadier, Way
from gateway.monitor.batman import Originator
from gateway.monitor.kernel_routes import KernelHop
from gateway.monitor.linklayer import host_of
from gateway.protocol.messages import Hello, Reach
from gateway.protocol.names import Name, Network

log = logging.getLogger(__name__)

# A routing daemon that rewrites its table is hundreds of events: the first is followed at once, the others together.
REFRESH_PAUSE_S = 0.05
TICK_S = 1.0
# Without any event: a held route is let go, round trips have changed.
LOOK_S = 5.0
# The hello stays within its packet.
REACH_ROWS = 48
# Faces dialled because no other way leads to a node; closed when they were not needed for so long.
DIRECT_MAX, DIRECT_IDLE_S = 16, 60.0
DIRECT_PREFIX, HEARD_PREFIX = "direct:", "heard:"
# A connection that outlived a shorter outage goes on by itself; after a longer one TCP would wait for as long again.
STALE_S = 2.0


class Kernel(Protocol):
    """gateway.monitor.kernel_routes.KernelRoutes."""

    def hops(self, address: str) -> Sequence[KernelHop]: ...


class Gateway(Protocol):
    """What the routes need of the gateway."""

    @property
    def node(self) -> str: ...
    @property
    def network(self) -> Network: ...
    @property
    def faces(self) -> Mapping[int, Face]: ...
    @property
    def fib(self) -> Fib: ...

    def cost_of(self, neighbor: str) -> int:
        """The cost of a neighbour's link as configured; 1 where nobody configured it."""

    def static_prefixes(self) -> Iterable[Name]:
        """The prefixes of the owner's routes, which stay on top."""

    def addresses(self) -> Mapping[str, Sequence[str]]:
        """Addresses of nodes as far as decisions say."""

    def rtt_ms(self, face_id: int) -> float | None: ...
    def batman(self) -> Sequence[Originator]: ...

    def set_discovered(self, neighbors: Sequence[Neighbor]) -> None:
        """These faces shall be there beside the configured ones."""

    def on_face_lost(self, face: Face) -> None:
        """Nothing goes by this face for now: what waits there is asked elsewhere."""

    def reconnect(self, face: Face | None) -> None:
        """Dials anew: a connection that an outage broke, or with None whatever waits for its next attempt."""

    def on_news(self) -> None:
        """The distances told in hellos have changed."""


@dataclass(slots=True)
class _Heard:
    hello: Hello
    is_mutual: bool
    lost_at: float | None = None


@dataclass(slots=True)
class _Direct:
    uri: str
    used_at: float


class Mesh:
    """`refresh` brings the FIB up to date; everything that may change it calls `changed`."""

    def __init__(self, gateway: Gateway, kernel: Kernel) -> None:
        self._gateway, self._kernel = gateway, kernel
        self._loop = asyncio.get_running_loop()
        self._heard: dict[int, _Heard] = {}
        # Neighbours that fell silent while their faces stayed up.
        self._silent: set[int] = set()
        self._steadier = Steadier()
        self._chosen: dict[str, Hops] = {}
        self._known: dict[str, Known] = {}
        self._told: tuple[Reach, ...] = ()
        # What stands in the FIB by our hand: (prefix, face, origin) -> cost.
        self._installed: dict[tuple[Name, int, str], int] = {}
        self._refreshed_at = float("-inf")
        self._seen_up: frozenset[int] = frozenset()
        self._timer: asyncio.TimerHandle | None = None
        self._dialled: tuple[tuple[str, str], ...] = ()
        self._direct: dict[str, _Direct] = {}
        self._arrived = asyncio.Event()

    # --- what happens

    def on_hello(self, face_id: int, hello: Hello) -> None:
        is_mutual = any(h.node == self._gateway.node and h.received_of_16 > 0 for h in hello.heard)
        known = self._heard.get(face_id)
        self._silent.discard(face_id)
        self._heard[face_id] = _Heard(hello, is_mutual, known.lost_at if known is not None else None)
        if known is None or known.is_mutual != is_mutual or _matter(known.hello) != _matter(hello):
            self.refresh()

    def on_silence(self, face_id: int) -> None:
        if self._heard.pop(face_id, None) is not None:
            self._silent.add(face_id)
        self.refresh()

    def on_link(self) -> None:
        """A device or an address has changed: who could not be dialled, or is not heard any more, may be there now."""
        self._gateway.reconnect(None)
        silent, self._silent = self._silent, set()
        for face_id in silent:
            if (face := self._gateway.faces.get(face_id)) is not None:
                self._gateway.reconnect(face)

    def changed(self) -> None:
        """Something may have changed: looks at once, and after that not before REFRESH_PAUSE_S has passed."""
        if self._timer is None:
            wait_s = self._refreshed_at + REFRESH_PAUSE_S - self._loop.time()
            if wait_s <= 0:
                self.refresh()
            else:
                self._timer = self._loop.call_later(wait_s, self.refresh)

    async def run(self) -> None:
        """Looks once a second for what no event tells: faces that came and went, and time. Until cancelled."""
        while True:
            await asyncio.sleep(TICK_S)
            now = self._loop.time()
            self._close_idle(now)
            if self._faces_up() != self._seen_up or now - self._refreshed_at >= LOOK_S:
                self.refresh()

    def _faces_up(self) -> frozenset[int]:
        return frozenset(face_id for face_id, face in self._gateway.faces.items() if face.up)

    def stop(self) -> None:
        if self._timer is not None:
            self._timer.cancel()

    # --- what others ask

    def reach(self) -> tuple[Reach, ...]:
        return self._told

    def distance(self, node: str) -> float | None:
        """The sum of link costs to a node; None where no way is known."""
        hops = self._chosen.get(node)
        return float(hops[0].distance) if hops else None

    def rows(self) -> list[dict[str, object]]:
        """The routes for people and programs."""
        return [
            {"node": node, "next_hop": hop.node, "face": hop.face_id, "distance": hop.distance, "cost": hop.cost}
            for node, hops in sorted(self._chosen.items())
            for hop in hops
        ]

    def dial(self, wanted: Sequence[tuple[str, str]]) -> None:
        """The faces to nodes that were heard by multicast, as (name, URI)."""
        self._dialled = tuple(wanted)
        self._set_discovered()

    async def arrive(self, nodes: Iterable[str], patience_s: float = 2.0) -> None:
        """Before something is asked of holders: where no route leads to any of them, a face to one is dialled.

        Returns as soon as there is a route, or after `patience_s`.
        """
        candidates = [node for node in dict.fromkeys(nodes) if node and node != self._gateway.node]
        now = self._loop.time()
        for node in candidates:
            if node in self._direct:
                self._direct[node].used_at = now
        if not candidates or any(self._has_route(node) for node in candidates):
            return
        for node in candidates:
            uri = self._uri_of(node)
            if uri and (node in self._direct or len(self._direct) < DIRECT_MAX):
                log.info("no route to %s: it is dialled at %s", node, uri)
                self._direct[node] = _Direct(uri, now)
                self._set_discovered()
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(patience_s):
                        while not self._has_route(node):
                            self._arrived.clear()
                            await self._arrived.wait()
                return

    # --- the routes

    def refresh(self) -> None:
        """Chooses anew and writes what differs into the FIB."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        now = self._refreshed_at = self._loop.time()
        faces, self._seen_up = self._gateway.faces, self._faces_up()
        for face_id in [f for f in self._heard if f not in faces]:
            del self._heard[face_id]
        ways = _Ways(self._kernel)
        peers = self._peers(now, ways)
        usable = {peer.face_id for peer in peers}
        chosen = routes.choose(
            self._gateway.node, peers, self._addresses(), ways, _relays(self._gateway.batman(), self._hellos())
        )
        self._chosen = self._steadier.settle(now, chosen, lambda hop: hop.face_id in usable)
        self._install(self._desired())
        self._known = self._about(peers)
        self._tell()
        self._arrived.set()

    def _peers(self, now: float, ways: _Ways) -> list[Peer]:
        found = []
        for face_id, heard in self._heard.items():
            face, hello = self._gateway.faces[face_id], heard.hello
            host, zone = host_of(face.uri)
            to_host = ways.of(host, zone)
            self._note_way(now, face, heard, bool(to_host))
            if not (face.up and heard.is_mutual and to_host):
                continue
            found.append(
                Peer(
                    face_id,
                    hello.node,
                    self._gateway.cost_of(face.neighbor),
                    host,
                    frozenset((host, *hello.addresses, *hello.links)),
                    {row.node: row for row in hello.reach},
                    self._gateway.rtt_ms(face_id),
                    to_host,
                )
            )
        return found

    def _note_way(self, now: float, face: Face, heard: _Heard, is_there: bool) -> None:
        """A face whose way has gone is left at once; one whose way is back after a while is dialled anew."""
        if not is_there and heard.lost_at is None:
            heard.lost_at = now
            self._gateway.on_face_lost(face)
        elif is_there and heard.lost_at is not None:
            if now - heard.lost_at > STALE_S:
                self._gateway.reconnect(face)
            heard.lost_at = None

    def _hellos(self) -> list[Hello]:
        return [heard.hello for heard in self._heard.values()]

    def _addresses(self) -> dict[str, list[str]]:
        """Where nodes are that are no neighbours: by decisions, and by what neighbours tell."""
        found = {node: [a for a in known if _is_address(a)] for node, known in self._gateway.addresses().items()}
        for hello in self._hellos():
            for row in hello.reach:
                host = host_of(row.uri)[0]
                if _is_address(host) and host not in (own := found.setdefault(row.node, [])) and len(own) < 4:
                    own.append(host)
        return found

    def _desired(self) -> dict[tuple[Name, int, str], int]:
        static = set(self._gateway.static_prefixes())
        network = self._gateway.network
        desired: dict[tuple[Name, int, str], int] = {}
        for face_id, heard in self._heard.items():
            face = self._gateway.faces[face_id]
            if face.up and heard.lost_at is None:
                desired[network.node(heard.hello.node), face_id, "hello"] = self._gateway.cost_of(face.neighbor)
        for node, hops in self._chosen.items():
            prefix = network.node(node)
            is_owners = network.nodes in static or prefix in static
            for hop in hops:
                if (prefix, hop.face_id, "hello") in desired:
                    desired[prefix, hop.face_id, "hello"] = hop.cost
                elif not is_owners:
                    desired[prefix, hop.face_id, "mesh"] = hop.cost
        return desired

    def _install(self, desired: dict[tuple[Name, int, str], int]) -> None:
        """Only what differs is written: every change of the FIB empties the fast lane's memory."""
        fib, before = self._gateway.fib, self._installed
        self._installed = desired
        for prefix, face_id, origin in before.keys() - desired.keys():
            fib.remove(prefix, face_id, origin)
        for key, cost in desired.items():
            if before.get(key) != cost:
                fib.add(key[0], key[1], cost, key[2])

    def _about(self, peers: Iterable[Peer]) -> dict[str, Known]:
        """What is told of other nodes beside their distance: by ourselves of neighbours, of others by hearsay."""
        known = {row.node: Known(row.uri) for hello in self._hellos() for row in hello.reach}
        for peer in peers:
            hello, face = self._heard[peer.face_id].hello, self._gateway.faces[peer.face_id]
            told = [uri for uri in hello.faces if not _is_link_local(uri)]
            uri = next(iter(told), face.uri if face.neighbor and not _is_link_local(face.uri) else "")
            known[peer.node] = Known(uri, peer.ways[0] if peer.ways else None, peer.rtt_ms)
        return known

    def _tell(self) -> None:
        told = routes.reach_rows(self._chosen, self._known, REACH_ROWS)
        news = [(row.node, row.cost, row.path) for row in told] != [(r.node, r.cost, r.path) for r in self._told]
        self._told = told
        if news:
            self._gateway.on_news()

    # --- direct faces

    def _has_route(self, node: str) -> bool:
        faces = self._gateway.faces
        hops = self._gateway.fib.longest_prefix_match(self._gateway.network.node(node))
        return any((face := faces.get(h.face_id)) is not None and face.up for h in hops)

    def _uri_of(self, node: str) -> str:
        """Where a node may be dialled: where others say, else where decisions say that it is."""
        known = self._known.get(node)
        if known is not None and known.uri:
            return known.uri
        for address in self._gateway.addresses().get(node, ()):
            if _is_address(address) and self._kernel.hops(address):
                return f"tcp6://[{address}]:6363" if ":" in address else f"tcp4://{address}:6363"
        return ""

    def _close_idle(self, now: float) -> None:
        by_name = {face.neighbor: face for face in self._gateway.faces.values() if face.neighbor}
        for node, direct in list(self._direct.items()):
            face = by_name.get(DIRECT_PREFIX + node)
            if face is not None and face.outstanding > 1:  # a hello may be on its way
                direct.used_at = now
            elif now - direct.used_at > DIRECT_IDLE_S:
                del self._direct[node]
                self._set_discovered()

    def _set_discovered(self) -> None:
        heard = {name.removeprefix(HEARD_PREFIX) for name, _ in self._dialled}
        direct = [(DIRECT_PREFIX + node, d.uri) for node, d in self._direct.items() if node not in heard]
        self._gateway.set_discovered([Neighbor(name, uri) for name, uri in (*self._dialled, *direct)])


class _Ways:
    """The kernel's ways, each asked for once; as routes.choose wants them."""

    def __init__(self, kernel: Kernel) -> None:
        self._kernel = kernel
        self._found: dict[str, tuple[Way, ...]] = {}

    def __call__(self, address: str) -> tuple[Way, ...]:
        found = self._found.get(address)
        if found is None:
            found = tuple(Way(hop.gateway, hop.interface) for hop in self._kernel.hops(address))
            self._found[address] = found
        return found

    def of(self, host: str, zone: str) -> tuple[Way, ...]:
        """The ways to a face's other end; a link-local one is on its link, and a name is left to the resolver."""
        if zone:
            with contextlib.suppress(OSError):
                return (Way("", socket.if_nametoindex(zone)),)
            return ()
        return self(host) if _is_address(host) else (Way("", 0),)


def _relays(originators: Sequence[Originator], hellos: Iterable[Hello]) -> Callable[[str], str]:
    """By batman-adv: the neighbour through which the mesh goes to a node, empty where it goes there directly."""
    if not originators:
        return lambda node: ""
    owner = {link: hello.node for hello in hellos for link in hello.links}
    relays = {owner[o.mac]: owner[o.next_hop] for o in originators if o.mac in owner and o.next_hop in owner}
    return lambda node: relay if (relay := relays.get(node, "")) != node else ""


def _matter(hello: Hello) -> tuple[object, ...]:
    """What of a hello bears on routes; round trips change with every one and are looked at now and then."""
    rows = tuple((row.node, row.cost, row.path, row.uri, row.way) for row in hello.reach)
    return hello.node, hello.addresses, hello.faces, hello.links, rows


def _is_address(host: str) -> bool:
    try:
        return not ipaddress.ip_address(host).is_unspecified
    except ValueError:
        return False


def _is_link_local(uri: str) -> bool:
    host, zone = host_of(uri)
    return bool(zone) or (_is_address(host) and ipaddress.ip_address(host).is_link_local)


__all__ = ["DIRECT_PREFIX", "HEARD_PREFIX", "Gateway", "Hop", "Kernel", "Mesh"]
