"""Faces of the gateway's own parts: an Endpoint in the same process."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from gateway.forwarder.endpoint import Endpoint
from gateway.forwarder.faces.base import Face


class InternalFace(Face):
    """Hands packets to its endpoint, and the endpoint's to `receive`, in the loop's next turn: never in a pipeline."""

    is_local = True
    local_fields = True

    def __init__(self, name: str, receive: Callable[[Face, bytes], None]) -> None:
        super().__init__(f"internal://{name}", f"internal://{name}")
        self._loop = asyncio.get_running_loop()
        self.endpoint = Endpoint(lambda wire: self._defer(lambda: receive(self, wire)))

    def transmit(self, wire: bytes, bulk: bool) -> None:
        self.counters.out_bytes += len(wire)
        self._defer(lambda: self.endpoint.receive(wire))

    def close(self) -> None:
        super().close()
        self.endpoint.disconnected()

    def _defer(self, action: Callable[[], None]) -> None:
        if self.up:
            self._loop.call_soon(action)
