"""What the placement client needs of the other parts, as interfaces; gateway/daemon.py puts the real ones in."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol

from gateway.protocol.executor_messages import Desired
from gateway.protocol.messages import BlobRef
from gateway.protocol.names import Name


class Packet(Protocol):
    @property
    def wire(self) -> bytes: ...


class Endpoint(Protocol):
    """Expresses Interests; raises one of the errors that the client was given as `unreachable` when nothing comes."""

    async def express(
        self,
        name: Name,
        *,
        can_be_prefix: bool = False,
        must_be_fresh: bool = False,
        lifetime_ms: int = 4000,
        hint: Sequence[Name] = (),
        digest: bytes | None = None,
        parameters: bytes | None = None,
        next_hop_face: int | None = None,
        retries: int = 0,
    ) -> Packet: ...


class Blobs(Protocol):
    """The blobs on this node's disk and the way to get more; errors as those of Endpoint, or BlobError, or OSError.

    `hints` are names of nodes to ask in turn, `b""` asks without a hint; `progress` gets bytes held and size.
    """

    def has(self, sha256: bytes) -> bool: ...

    async def fetch_blob(
        self, ref: BlobRef, hints: Sequence[Name], progress: Callable[[int, int], None] | None = None
    ) -> Path: ...

    async def fetch_bytes(self, ref: BlobRef, hints: Sequence[Name]) -> bytes: ...


class Custody(Protocol):
    """Has neighbours get what can't be reached from here; wanting a blob twice is wanting it once."""

    def want(self, ref: BlobRef, holders: Sequence[str] = (), priority: int = 5) -> None: ...
    def satisfied(self, sha256: bytes) -> None: ...


class Executor(Protocol):
    """Takes the desired state; raises OSError or an `unreachable` error while it cannot be reached."""

    async def apply(self, desired: Desired) -> Any: ...


# Puts a verified packet into the forwarder's store, so that neighbours get it from here. It must count as not fresh:
# a poll with MustBeFresh has to go on to the controller.
Pin = Callable[[bytes], None]
