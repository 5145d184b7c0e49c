"""Which overlay neighbours lead to a node: the mesh's own routes first, what neighbours tell where those say nothing.

Pure: kernel routes, neighbours and what they told come in as values, next hops come out. Distances are sums of link
costs; a path names the nodes on the way, so that no route goes through this node twice (no counting to infinity).

    kernel: to X by IP next hop g
        g is an address of neighbour B          -> B                                       KERNEL
        g is a router that is no gateway        -> the neighbours behind g who know X       BEHIND
    no neighbour on the kernel's way            -> whoever knows X, nearest first           TOLD
    nobody                                      -> a face to X itself, dialled when wanted
"""

from __future__ import annotations

import hashlib
import heapq
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

from gateway.protocol.messages import Reach

# A path longer than this is no path: community networks are under a dozen gateways across.
MAX_HOPS = 12
ID_BYTES = 4
# Kept apart in the FIB's costs, so that each kind comes after all of the one before; distances stay far below.
KERNEL, BEHIND, TOLD = 0, 10_000, 20_000
# A neighbour's own face is put behind those that lie between when there are any.
RELAYED = 30_000
MAX_DISTANCE = 9_999
# For a router that is no gateway in between: how much longer the way by a neighbour may take than the direct one.
DETOUR, DETOUR_MS = 1.5, 5.0


@dataclass(frozen=True, slots=True)
class Way:
    """The kernel's next hop: an address, empty where the destination is on the link, and the device's index."""

    gateway: str
    interface: int


@dataclass(frozen=True, slots=True)
class Peer:
    """An overlay neighbour on a face on which both hear each other.

    `addresses` are all it has, link-local ones too; `host` is the one at the other end of the face; `ways` lead there.
    """

    face_id: int
    node: str
    cost: int = 1
    host: str = ""
    addresses: frozenset[str] = frozenset()
    reach: Mapping[str, Reach] = field(default_factory=dict)
    rtt_ms: float | None = None
    ways: tuple[Way, ...] = ()


@dataclass(frozen=True, slots=True)
class Hop:
    """A next hop towards a node: `distance` is the whole way's, `cost` the FIB's, `path` what lies behind `node`."""

    face_id: int
    node: str
    cost: int
    distance: int
    path: bytes = b""


Hops = tuple[Hop, ...]


def node_id(node: str) -> bytes:
    return hashlib.sha256(node.encode()).digest()[:ID_BYTES]


def choose(
    own: str,
    peers: Iterable[Peer],
    addresses: Mapping[str, Sequence[str]],
    ways_to: Callable[[str], Sequence[Way]],
    relay_of: Callable[[str], str] = lambda node: "",
) -> dict[str, Hops]:
    """The next hops to every known node, best first.

    `addresses` are the nodes' own; `ways_to` asks the kernel; `relay_of` names the neighbour through which a layer-2
    mesh goes to a node, empty where it is none or goes there directly. A neighbour's own face stands among its hops.
    """
    present = sorted(peers, key=lambda peer: (peer.cost, peer.face_id))
    nodes = {p.node for p in present} | {n for p in present for n in p.reach} | set(addresses)
    nodes.discard(own)
    chosen = {}
    for node in sorted(nodes):
        # A neighbour is judged by the address at which its face is: its other interfaces may lie behind somebody else.
        faces = [p for p in present if p.node == node]
        ways = [way for p in faces for way in p.ways]
        if not faces:
            ways = [way for address in addresses.get(node, ()) for way in ways_to(address)]
        hops = _hops(own, node, present, list(dict.fromkeys(ways)), relay_of(node))
        if hops:
            chosen[node] = hops
    return chosen


def _hops(own: str, node: str, peers: Sequence[Peer], ways: Sequence[Way], relay: str) -> Hops:
    direct = [p for p in peers if p.node == node]
    relays = [
        hop
        for peer in peers
        if peer.node != node and (hop := _relay(own, node, peer, ways, relay, direct[0] if direct else None))
    ]
    is_relayed = any(hop.cost < TOLD for hop in relays)
    own_faces = [Hop(p.face_id, node, p.cost + (RELAYED if is_relayed else 0), p.cost) for p in direct]
    if direct and not is_relayed:
        return tuple(own_faces)
    best: dict[int, Hop] = {}
    for hop in sorted([*relays, *own_faces], key=lambda hop: (hop.cost, hop.face_id)):
        best.setdefault(hop.face_id, hop)
    return tuple(best.values())


def _relay(own: str, node: str, peer: Peer, ways: Sequence[Way], relay: str, direct: Peer | None) -> Hop | None:
    """The hop by a neighbour that is not the node itself; None where it is none, or would lead back."""
    told = peer.reach.get(node)
    if told is not None and (leads_through(own, told.path) or len(told.path) >= MAX_HOPS * ID_BYTES):
        return None
    if relay == peer.node or any(way.gateway and way.gateway in peer.addresses for way in ways):
        kind = KERNEL
    elif told is None:
        return None
    elif _is_behind(peer, ways) and (direct is None or _is_between(own, peer, told, direct)):
        kind = BEHIND
    elif direct is None:
        kind = TOLD
    else:
        return None
    # A neighbour on the kernel's way may not know the node yet; then it goes on by the kernel's word as we do.
    distance = min(MAX_DISTANCE, peer.cost + (told.cost if told is not None else 1))
    return Hop(peer.face_id, peer.node, kind + distance, distance, told.path if told is not None else b"")


def _is_behind(peer: Peer, ways: Sequence[Way]) -> bool:
    """Whether the kernel's way begins with the router by which this neighbour is reached too."""
    return any(way.gateway and way in peer.ways for way in ways)


def _is_between(own: str, peer: Peer, told: Reach, direct: Peer) -> bool:
    """Whether a neighbour behind the same router lies on the way to another one, as far as can be told from here.

    It does where it goes on by another next hop than back to us, and the round trips add up. On a router with three
    cables, neither of the others is between.
    """
    back = peer.reach.get(own)
    if told.path or back is None or back.way == told.way:
        return False
    if None in (peer.rtt_ms, told.rtt_ms, direct.rtt_ms):
        return False
    assert peer.rtt_ms is not None and told.rtt_ms is not None and direct.rtt_ms is not None
    return peer.rtt_ms + told.rtt_ms <= DETOUR * direct.rtt_ms + DETOUR_MS


def leads_through(node: str, path: bytes) -> bool:
    """Whether a path has this node on it; one that is no path has everybody on it."""
    if len(path) % ID_BYTES:
        return True
    wanted = node_id(node)
    return any(path[a:b] == wanted for a, b in pairwise(range(0, len(path) + 1, ID_BYTES)))


@dataclass(frozen=True, slots=True)
class Known:
    """What a node may tell others of its own neighbour: the round trip, and which IP next hop leads to it."""

    uri: str = ""
    way: Way | None = None
    rtt_ms: float | None = None


def reach_rows(chosen: Mapping[str, Hops], known: Mapping[str, Known], maximum: int) -> tuple[Reach, ...]:
    """What this node tells its neighbours of others: the nearest `maximum` nodes."""
    rows = [(hops[0].distance, node, hops[0]) for node, hops in chosen.items() if hops]
    numbers: dict[Way, int] = {}
    told = []
    for distance, node, hop in heapq.nsmallest(maximum, rows):
        about = known.get(node, Known())
        number = numbers.setdefault(about.way, len(numbers) + 1) if about.way is not None else 0
        is_direct = hop.node == node
        path = b"" if is_direct else node_id(hop.node) + hop.path
        if len(path) <= MAX_HOPS * ID_BYTES:
            told.append(Reach(node, distance, path, about.uri, number, about.rtt_ms if is_direct else None))
    return tuple(told)


# --- hysteresis --------------------------------------------------------------------------------------------------

# Each change of a node's best next hop is one point, also while it is held; points halve every HALF_LIFE_S. At
# HOLD_POINTS the next hop stays although the mesh says otherwise, until they are below RELEASE_POINTS: four changes in
# a row are followed at once, a route that goes on flapping is not, and 20 s after its last change it is free again.
HALF_LIFE_S, HOLD_POINTS, RELEASE_POINTS, POINTS_MAX = 10.0, 4.0, 2.0, 8.0


@dataclass(slots=True)
class _Steady:
    hops: Hops
    wanted: int | None
    points: float = 0.0
    at: float = 0.0
    is_held: bool = False


class Steadier:
    """Lets changes through at once, until a node's route flaps; `now` is monotonic time in s."""

    def __init__(self) -> None:
        self._nodes: dict[str, _Steady] = {}

    def settle(self, now: float, chosen: Mapping[str, Hops], usable: Callable[[Hop], bool]) -> dict[str, Hops]:
        """The next hops to use. One that is not usable any more is never held; while one is, new ones come after it."""
        settled = {}
        for node in chosen.keys() | self._nodes.keys():
            wanted = chosen.get(node, ())
            state = self._nodes.get(node)
            if state is None:
                state = self._nodes[node] = _Steady(wanted, _face(wanted), at=now)
            self._count(now, state, wanted)
            state.hops = self._next(state, wanted, usable)
            if state.hops:
                settled[node] = state.hops
            elif state.points < 0.1:
                del self._nodes[node]
        return settled

    @staticmethod
    def _count(now: float, state: _Steady, wanted: Hops) -> None:
        state.points *= 0.5 ** ((now - state.at) / HALF_LIFE_S)
        state.at = now
        if _face(wanted) != state.wanted:
            state.wanted = _face(wanted)
            state.points = min(POINTS_MAX, state.points + 1.0)
        state.is_held = state.points > (RELEASE_POINTS if state.is_held else HOLD_POINTS)

    @staticmethod
    def _next(state: _Steady, wanted: Hops, usable: Callable[[Hop], bool]) -> Hops:
        first = state.hops[0] if state.hops else None
        if not state.is_held or first is None or first.face_id == _face(wanted) or not usable(first):
            return wanted
        others = tuple(hop for hop in wanted if hop.face_id != first.face_id)
        return (Hop(first.face_id, first.node, 0, first.distance, first.path), *others)


def _face(hops: Hops) -> int | None:
    return hops[0].face_id if hops else None
