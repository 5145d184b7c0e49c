"""The gateway as its routes see it (gateway.mesh.Gateway): decisions, costs, faces that are made for them."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from gateway.forwarder.faces.base import Face
from gateway.forwarder.faces.neighbors import Neighbor
from gateway.monitor import batman
from gateway.monitor.batman import Originator
from gateway.protocol import names

if TYPE_CHECKING:
    from gateway.daemon import Gateway

log = logging.getLogger(__name__)

# batman-adv sends no event when a route changes.
BATMAN_LOOK_S = 1.0


class MeshPorts:
    """Fits a Gateway to what gateway.mesh.Mesh asks of it."""

    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway
        self.node, self.network = gateway.node, gateway.network
        self.faces, self.fib = gateway.forwarder.faces, gateway.forwarder.fib
        self._originators: Sequence[Originator] = ()

    def cost_of(self, neighbor: str) -> int:
        return next((n.cost for n in self._gateway.settings.neighbors if n.name == neighbor), 1)

    def static_prefixes(self) -> set[names.Name]:
        return {names.parse(route.prefix) for route in self._gateway.settings.routes}

    def addresses(self) -> Mapping[str, Sequence[str]]:
        """Of the nodes that decisions name as heads: they hold what others want."""
        placement = self._gateway.placement
        decision = placement.session.decision if placement is not None else None
        found: dict[str, list[str]] = {}
        for placed in decision.placed.values() if decision is not None else ():
            for head in placed.section.heads if placed.section is not None else ():
                if head.address and head.node != self.node:
                    found.setdefault(head.node, []).append(head.address)
        return found

    def rtt_ms(self, face_id: int) -> float | None:
        contact = self._gateway.monitor.table.contacts.get(face_id)
        return contact.rtt_ms if contact is not None else None

    def batman(self) -> Sequence[Originator]:
        return self._originators

    def set_discovered(self, neighbors: Sequence[Neighbor]) -> None:
        self._gateway.faces.set_discovered(neighbors)

    def on_face_lost(self, face: Face) -> None:
        self._gateway.forwarder.on_face_down(face, asyncio.get_running_loop().time())

    def reconnect(self, face: Face | None) -> None:
        self._gateway.manager.reconnect(face)

    def on_news(self) -> None:
        self._gateway.monitor.tell_news()

    async def follow_batman(self) -> None:
        """Looks at the originators once a second where there is a batman-adv device, until cancelled."""
        while True:
            interfaces = batman.mesh_interfaces()
            if interfaces or self._originators:
                try:
                    found = await asyncio.to_thread(batman.originators, interfaces)
                except (OSError, ValueError) as error:
                    log.debug("no originators: %s", error)
                    found = ()
                if found != self._originators:
                    self._originators = found
                    self._gateway.mesh.changed()
            await asyncio.sleep(BATMAN_LOOK_S)
