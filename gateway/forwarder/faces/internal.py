"""Faces of the gateway's own parts: an Endpoint in the same process."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from gateway.forwarder.endpoint import Endpoint
from gateway.forwarder.faces.base import Face


class InternalFace(Face):
    """Hands packets to its endpoint, and the endpoint's to `receive`, in the loop's next turn: never in a pipeline.

    What comes together goes on together: a window of Interests is one batch for the forwarder.
    """

    is_local = True
    local_fields = True

    def __init__(self, name: str, receive: Callable[[Face, list[bytes]], None]) -> None:
        super().__init__(f"internal://{name}", f"internal://{name}")
        self._loop = asyncio.get_running_loop()
        self._receive = receive
        self._to_endpoint: list[bytes] = []
        self._from_endpoint: list[bytes] = []
        self.lane = self._to_endpoint
        self.endpoint = Endpoint(self._send)

    def transmit(self, wire: bytes, bulk: bool) -> None:
        if not self._to_endpoint:
            self._loop.call_soon(self._deliver)
        self._to_endpoint.append(wire)

    def flush(self) -> None:
        if self._to_endpoint:
            self._loop.call_soon(self._deliver)

    def close(self) -> None:
        super().close()
        self.endpoint.disconnected()

    def _deliver(self) -> None:
        wires = self._to_endpoint[:]
        self._to_endpoint.clear()
        receive = self.endpoint.receive
        for wire in wires:
            self.counters.out_bytes += len(wire)
            receive(wire)

    def _send(self, wire: bytes) -> None:
        if not self._from_endpoint and self.up:
            self._loop.call_soon(self._submit)
        self._from_endpoint.append(wire)

    def _submit(self) -> None:
        wires, self._from_endpoint = self._from_endpoint, []
        if self.up:
            self._receive(self, wires)
