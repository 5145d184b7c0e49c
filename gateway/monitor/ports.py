"""What the monitor asks of the rest of the gateway; the daemon fits the real parts to it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Protocol

from gateway.monitor.host import HostSample
from gateway.monitor.linklayer import LinkLayer
from gateway.monitor.links import FaceSample
from gateway.monitor.schedule import Demand
from gateway.protocol.keys import Packet
from gateway.protocol.messages import ForwarderCounters, Hello, Reach, RouteReport, ServiceStatus
from gateway.protocol.names import Name


class Interest(Protocol):
    """`incoming_face` is None where the forwarder does not tell it."""

    @property
    def name(self) -> Name: ...
    @property
    def incoming_face(self) -> int | None: ...
    @property
    def parameters(self) -> bytes | None: ...


class Data(Protocol):
    @property
    def content(self) -> bytes: ...


class Endpoint(Protocol):
    """The application's side of an internal face."""

    async def express(
        self,
        name: Name,
        *,
        can_be_prefix: bool = False,
        must_be_fresh: bool = False,
        lifetime_ms: int = 4000,
        parameters: bytes | None = None,
        next_hop_face: int | None = None,
    ) -> Data: ...

    def serve(self, prefix: Name, handler: Callable[[Interest], bytes | Awaitable[bytes | None] | None]) -> None: ...


class Gateway(Protocol):
    """The other parts of the gateway, as far as the monitor needs them. None of these may block."""

    def faces(self) -> Sequence[FaceSample]: ...

    def sign(self, name: Name, content: bytes, freshness_ms: int | None) -> bytes:
        """A Data packet, signed by the node's key when it has one, with a digest before that."""

    def verify(self, wire: bytes) -> Packet:
        """The packet, or raises ProtocolError; UnknownKey leads to on_unknown_key."""

    def decision_order(self) -> tuple[int, int]: ...
    def services(self) -> tuple[ServiceStatus, ...]: ...
    def forwarder_counters(self) -> ForwarderCounters: ...
    def blobs(self) -> tuple[bytes, ...]: ...
    def routes(self) -> tuple[RouteReport, ...]: ...
    def runtimes(self) -> tuple[str, ...]: ...

    def groups(self) -> Sequence[tuple[int, str]]:
        """The multicast faces that are up: id and interface."""

    def listening(self) -> Sequence[tuple[str, str, int]]:
        """Scheme, host and port of each socket that neighbours may dial."""

    def held(self) -> tuple[bytes, ...]:
        """The first 8 bytes of the SHA-256 of each blob held whole or in part, newest first, at most 64."""

    def reach(self) -> tuple[Reach, ...]:
        """The nodes that this node has a route to, nearest first."""

    def demand(self) -> Demand:
        """What the links are needed for: no link is probed while blobs are moving."""

    def dial(self, wanted: Sequence[tuple[str, str]]) -> None:
        """These faces, by name and URI, shall be there, and none that were dialled for the same reason before."""

    def on_hello(self, face_id: int, hello: Hello) -> None:
        """A neighbour is heard on a face: called with every accepted hello."""

    def on_silence(self, face_id: int, node: str) -> None:
        """A neighbour that was heard is not any more: three hellos in a row failed."""

    def on_unknown_key(self, face_id: int, key_name: Name) -> None:
        """A neighbour's hello is signed by a key whose certificate is missing; the next hello tries again."""


class Host(Protocol):
    async def sample(self) -> HostSample: ...


class LinkLayerReader(Protocol):
    async def look(self) -> LinkLayer: ...
    def watch(self, on_change: Callable[[], None]) -> None: ...
