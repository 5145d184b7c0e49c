"""That a UDP peer is where its packets say they come from: no reflector for forged addresses. Pure.

Until it has answered a question that only the holder of the address can have seen, a peer gets at most three times the
bytes that came from there (the factor of QUIC, RFC 9000 section 8). The question is a hello with a random component: a
gateway answers with Data of that name, any other forwarder with a Nack; either way the cookie comes back.
"""

from __future__ import annotations

from collections import deque

from gateway.forwarder import packet
from gateway.protocol import names

AMPLIFICATION = 3
COOKIE_BYTES = 8
# A lost question is asked again, but not at the peer's pace.
ASK_AGAIN_S = 1.0
# Answers wait for the proof instead of being lost: the first window of a consumer (4 packets of 8 kB). All of the
# peers that may come unasked together hold 4 MB.
HELD_MAX_BYTES = 36_000
# The name by which gateways ask each other for a hello.
ASK = names.HELLO + names.component("ask", names.KEYWORD)


class AddressProof:
    """What an unproven peer may get; sizes are of UDP payloads."""

    def __init__(self, cookie: bytes) -> None:
        self._cookie = names.component(cookie)
        _, self._question = packet.encode_interest(ASK + self._cookie)
        self._asked = float("-inf")
        self._held: deque[tuple[bytes, bool]] = deque()
        self._held_bytes = 0
        self.is_proven = False
        self.received_bytes = self.sent_bytes = 0

    def on_received(self, size: int) -> None:
        self.received_bytes += size

    def is_answer(self, wire: bytes) -> bool:
        """Whether a packet bears the cookie, and by that proves the address."""
        if self._cookie not in wire:
            return False
        self.is_proven = True
        return True

    def question(self, now: float) -> bytes | None:
        """What is to be asked now, if anything: 51 bytes, which an Interest with a name of two short words pays for."""
        if self.is_proven or now - self._asked < ASK_AGAIN_S or not self.may_send(len(self._question)):
            return None
        self._asked = now
        return self._question

    def may_send(self, size: int) -> bool:
        """Whether a datagram may go; if so it is charged."""
        if self.sent_bytes + size > AMPLIFICATION * self.received_bytes:
            return False
        self.sent_bytes += size
        return True

    def hold(self, wire: bytes, bulk: bool) -> bool:
        """Keeps a packet until the proof; False when there is no room and it is dropped."""
        if self._held_bytes + len(wire) > HELD_MAX_BYTES:
            return False
        self._held.append((wire, bulk))
        self._held_bytes += len(wire)
        return True

    def release(self) -> list[tuple[bytes, bool]]:
        """The packets that were kept; bulk or not."""
        released = list(self._held)
        self._held.clear()
        self._held_bytes = 0
        return released
