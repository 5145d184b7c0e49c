"""Who was heard on a network by multicast, and whom of them to dial: pure, `now` is monotonic time in s.

An announcement is `/localhop/picasso/hello/32=here/<digest>` with the announcer's short hello in its parameters. It
answers no question and brings no answer: whoever hears an unknown node makes a face to it and says hello there, and
only that hello, verified like every other, makes it a neighbour.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from gateway.monitor.contact import Contact
from gateway.monitor.linklayer import LinkLayer, host_of
from gateway.protocol import names
from gateway.protocol.messages import Hello

HERE = names.HELLO + names.component("here", names.KEYWORD)
# A neighbour that was dialled because it was heard is called so, with its node name.
PREFIX = "heard:"
# Faces to nodes that nobody configured; a village square has fewer gateways in sight.
DISCOVERED_MAX = 32
# Both ends hear each other: one dials at once, and the other only when nothing has come by then.
YIELD_S = 1.0
# Announcements come at least every 75 s.
SILENT_S = 180.0
# Who does not answer a hello on its face for so long, or not acceptably, is left alone for a while.
UNPROVEN_S, SHUN_S = 20.0, 60.0


@dataclass(slots=True)
class _Heard:
    uri: str
    since: float
    heard_at: float
    is_proven: bool = False


class Discovery:
    """The nodes heard by multicast; `wanted` are the faces to make to them, as (name, URI)."""

    def __init__(self, own_node: str) -> None:
        self._own = own_node
        self._heard: dict[str, _Heard] = {}
        self._shunned: dict[str, float] = {}

    def on_announcement(self, now: float, hello: Hello, interface: str, layer: LinkLayer) -> bool:
        """Takes what was heard on an interface; True when it is a node that was not heard before."""
        uri = choose_uri(hello.faces, interface, layer)
        if not uri or hello.node == self._own or self._shunned.get(hello.node, 0.0) > now:
            return False
        known = self._heard.get(hello.node)
        if known is not None:
            known.heard_at = now
            if not known.is_proven and known.uri != uri:
                known.uri = uri
            return False
        if len(self._heard) >= DISCOVERED_MAX and not self._make_room(now):
            return False
        self._heard[hello.node] = _Heard(uri, now, now)
        return True

    def _make_room(self, now: float) -> bool:
        """Whether one who never answered could be put out: names that a peer invents displace no neighbour."""
        unproven = [
            (heard.heard_at, node)
            for node, heard in self._heard.items()
            if not heard.is_proven and now - heard.since > YIELD_S
        ]
        if unproven:
            del self._heard[min(unproven)[1]]
        return bool(unproven)

    def wanted(self, now: float, contacts: Iterable[Contact]) -> tuple[tuple[str, str], ...]:
        """The faces to have: to nodes that no other face leads to, as long as they are heard somehow."""
        present = list(contacts)
        others = [c for c in present if not c.face.neighbor.startswith(PREFIX)]
        elsewhere = {c.node for c in others if c.node and c.state == "up"}
        configured = {host_of(c.face.uri) for c in others if c.face.neighbor}
        up = {c.node for c in present if c.state == "up" and c.face.neighbor == PREFIX + c.node}
        for node, heard in list(self._heard.items()):
            if node in up:
                heard.is_proven, heard.heard_at = True, now
            elif not heard.is_proven and now - heard.since > UNPROVEN_S:
                self._shun(now, node)
            elif now - heard.heard_at > SILENT_S:
                del self._heard[node]
        return tuple(
            (PREFIX + node, heard.uri)
            for node, heard in sorted(self._heard.items())
            if node not in elsewhere
            and host_of(heard.uri) not in configured
            and (heard.is_proven or self._own < node or now - heard.since >= YIELD_S)
        )

    def next_deadline(self, now: float) -> float | None:
        """When a node may be dialled that was left to dial us."""
        waiting = (h.since + YIELD_S for node, h in self._heard.items() if not h.is_proven and node < self._own)
        return min((at for at in waiting if at > now), default=None)

    def _shun(self, now: float, node: str) -> None:
        del self._heard[node]
        self._shunned = {n: until for n, until in self._shunned.items() if until > now}
        if len(self._shunned) < DISCOVERED_MAX:
            self._shunned[node] = now + SHUN_S


def choose_uri(faces: Iterable[str], interface: str, layer: LinkLayer) -> str:
    """The first of a node's URIs that is on this very link; empty when there is none.

    Others are not dialled: whoever can send one datagram could send us anywhere.
    """
    for uri in faces:
        host, zone = host_of(uri)
        if not zone and layer.on_link(interface, host):
            return uri.replace(f"[{host}]", f"[{host}%{interface}]") if host.startswith("fe80:") else uri
    return ""
