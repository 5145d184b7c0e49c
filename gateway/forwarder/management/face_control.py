"""Faces made on request, as neighbours of the face manager beside those of the configuration."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Sequence
from typing import Protocol

from gateway.forwarder.faces.base import Face
from gateway.forwarder.faces.neighbors import Neighbor, uri_of
from gateway.forwarder.management.face_status import ON_DEMAND, persistency
from gateway.forwarder.management.faces import FaceRefused

# Each is dialled again and again for as long as the gateway runs.
CREATED_MAX = 64
_PATIENCE_S, _LOOK_S = 2.0, 0.01


class Manager(Protocol):
    """What is asked of gateway.forwarder.faces.manager.FaceManager."""

    @property
    def listening(self) -> Sequence[tuple[str, str, int]]: ...
    def set_neighbors(self, neighbors: Iterable[Neighbor]) -> None: ...
    def face_of(self, neighbor: str) -> Face | None: ...
    def release(self, face: Face) -> None: ...


class ManagedFaces:
    """The one who tells the manager its neighbours; `configured` gives those of the configuration.

    After a change of the configuration `apply` is due. A neighbour made here is called by its URI and ends with the
    gateway: what shall outlast it belongs into the configuration.
    """

    def __init__(self, manager: Manager, configured: Callable[[], Iterable[Neighbor]] = tuple) -> None:
        self._manager, self._configured = manager, configured
        self._created: dict[str, Neighbor] = {}
        self._discovered: tuple[Neighbor, ...] = ()

    def apply(self) -> None:
        """Makes the neighbours' faces what configuration and requests say; one that both name is configured."""
        configured = list(self._configured())
        for neighbor in configured:
            self._created.pop(neighbor.uri, None)
        known = {neighbor.uri for neighbor in (*configured, *self._created.values())}
        discovered = [neighbor for neighbor in self._discovered if neighbor.uri not in known]
        self._manager.set_neighbors([*configured, *self._created.values(), *discovered])

    def set_discovered(self, neighbors: Sequence[Neighbor]) -> None:
        """The neighbours that nobody named but that were heard or are needed; one that somebody names is that one's."""
        if tuple(neighbors) != self._discovered:
            self._discovered = tuple(neighbors)
            self.apply()

    def channels(self) -> Sequence[str]:
        """The local URIs of the sockets that are listened on."""
        return [uri_of(kind.rstrip("46"), (host, port)) for kind, host, port in self._manager.listening]

    async def create(self, uri: str, mtu: int | None = None, is_reliable: bool = False) -> Face:
        """The face to a new neighbour, which is dialled again whenever its connection breaks; raises FaceRefused."""
        if len(self._created) >= CREATED_MAX:
            raise FaceRefused(f"{CREATED_MAX} faces were made on request, which is the limit; destroy one first")
        if uri in self.channels():
            raise FaceRefused(f"{uri} is this gateway itself")
        self._created[uri] = Neighbor(uri, uri, mtu=mtu, is_reliable=is_reliable)
        self.apply()
        for _ in range(int(_PATIENCE_S / _LOOK_S)):
            face = self._manager.face_of(uri)
            if face is not None:
                return face
            await asyncio.sleep(_LOOK_S)
        self._created.pop(uri, None)
        self.apply()
        raise FaceRefused(f"no face to {uri} came into being; is there a route and a socket of this kind?")

    def destroy(self, face: Face) -> None:
        """Raises FaceRefused for a face that the configuration would bring back."""
        if face.uri in self._created:
            del self._created[face.uri]
            self.apply()
        elif persistency(face) == ON_DEMAND:
            self._manager.release(face)
        else:
            raise FaceRefused(f"face {face.id} is neighbor {face.neighbor} of the configuration; remove it there")
