"""What every face has: an identity, its state, counters, and the link layer's headers."""

from __future__ import annotations

import socket
from dataclasses import dataclass

from gateway.forwarder import packet
from gateway.forwarder.content_store import BULK_BYTES


@dataclass(slots=True)
class FaceCounters:
    in_interests: int = 0
    out_interests: int = 0
    in_data: int = 0
    out_data: int = 0
    in_nacks: int = 0
    out_nacks: int = 0
    in_bytes: int = 0
    out_bytes: int = 0
    in_data_bytes: int = 0
    out_data_bytes: int = 0
    drops: int = 0
    undecodable: int = 0


class Face:
    """One adjacency. `is_local` is the scope of the NDN specification: an application on this machine, not a neighbour.

    `in_bytes` and `out_bytes` count whole link packets as they are handed to the socket or come from it.
    Subclasses implement `transmit`, which queues one link packet and never blocks or raises. One that can send many at
    once has a `lane`: the forwarder's fast lane puts link packets there, counted as sent, and calls `flush` when the
    batch is over, which empties the list and sends or drops what was in it.
    """

    is_local = False
    local_fields = False
    # Fixed at a face's birth: whether it repeats what is lost, and whether it marks what waits long.
    is_reliable = False
    is_marking = False

    def __init__(self, uri: str, local_uri: str = "", neighbor: str = "") -> None:
        self.id = 0
        self.uri, self.local_uri, self.neighbor = uri, local_uri, neighbor
        self.up = True
        self.lane: list[bytes] | None = None
        self.counters = FaceCounters()
        # Interests that we sent there and that are not answered, and those from there that we have not answered.
        self.outstanding = 0
        self.waiting = 0
        # The socket of a face that has one of its own, for who asks the kernel about its other end.
        self.peer_socket: socket.socket | None = None

    def transmit(self, wire: bytes, bulk: bool) -> None:
        raise NotImplementedError

    def flush(self) -> None:
        """Sends what is in the lane."""

    def send_interest(self, wire: bytes, incoming_face: int | None = None) -> None:
        self.counters.out_interests += 1
        if incoming_face is not None:
            wire = packet.encode_link(wire, incoming_face=incoming_face)
        self._count_and_transmit(wire, False)

    def send_data(self, wire: bytes, pit_token: bytes | None, congestion_mark: int = 0) -> None:
        self.counters.out_data += 1
        self.counters.out_data_bytes += len(wire)
        bulk = len(wire) >= BULK_BYTES
        if pit_token is not None or congestion_mark:
            wire = packet.encode_link(wire, pit_token=pit_token, congestion_mark=congestion_mark)
        self._count_and_transmit(wire, bulk)

    def send_nack(self, wire: bytes, reason: int, pit_token: bytes | None) -> None:
        self.counters.out_nacks += 1
        self._count_and_transmit(packet.encode_link(wire, nack_reason=reason, pit_token=pit_token), False)

    def _count_and_transmit(self, wire: bytes, bulk: bool) -> None:
        if self.up:
            self.transmit(wire, bulk)
        else:
            self.counters.drops += 1

    def close(self) -> None:
        """Lets go of the socket; the forwarder has forgotten the face before."""
        self.up = False
