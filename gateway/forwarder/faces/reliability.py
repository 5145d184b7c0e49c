"""NDNLPv2's reliability for one peer over datagrams: every link packet is acknowledged, and sent again when lost. Pure.

As in NFD: a packet bears a TxSequence, new each time it is sent; Acks travel on whatever goes the other way, or on an
IDLE packet soon after; what three later packets overtook is lost. A Sequence tells a packet that came twice. A peer
that never acknowledges anything does not speak this, and nothing is sent to it twice.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

from gateway.forwarder.faces.link import IDLE, OVERHEAD_BYTES, SEQUENCE, fields, join, split
from gateway.forwarder.packet import LP_PACKET, DecodeError
from gateway.protocol.names import tlv

ACK, TX_SEQUENCE = 0x0344, 0x0348
_FIELD_BYTES = 3 + 1 + 8
# What `outgoing` adds to a packet that bears no Sequence, with some Acks: to be left free below the MTU.
HEADER_BYTES = OVERHEAD_BYTES + 10 + 4 * _FIELD_BYTES
# Longer than a batch takes, shorter than any timer that waits for it.
ACK_DELAY_S = 0.005
RETRIES_MAX = 3
REORDERING = 3
# One hop: its timer must be faster than that of the consumer behind it (0.2 s and more).
INITIAL_RTO_S, MIN_RTO_S, MAX_RTO_S = 0.1, 0.02, 0.5
# What may be unacknowledged: two windows of a consumer in fragments; beyond it the oldest is not looked after any more.
OUTSTANDING_MAX = 4096
REMEMBERED_MAX = 4096
ACKS_MAX = 4096


@dataclass(slots=True)
class _Sent:
    """A link packet without what this layer adds, when it was sent last, and how often again."""

    wire: bytes
    at: float
    retries: int = 0
    overtaken: int = 0


class Reliability:
    """`mtu` is the largest packet that may go out; `sequence` and `tx` are where the numbers begin."""

    def __init__(self, mtu: int, sequence: int, tx: int) -> None:
        self.mtu = mtu
        self._sequence, self._tx = sequence, tx
        self._unacked: dict[int, _Sent] = {}
        self._acks: deque[int] = deque(maxlen=ACKS_MAX)
        self._acks_due: float | None = None
        self._seen: dict[int, None] = {}
        self._rto_s, self._rtt_s, self._variation_s = INITIAL_RTO_S, 0.0, 0.0
        self.is_answered = False
        self.retransmissions = self.given_up = self.doubles = 0

    # --- out

    def outgoing(self, wire: bytes, now: float) -> bytes:
        """The packet as it goes out, with its numbers and what is to be acknowledged."""
        headers, fragment = split(wire)
        if headers[:1] != bytes((SEQUENCE,)):
            headers = tlv(SEQUENCE, self._sequence.to_bytes(8, "big")) + headers
            self._sequence = (self._sequence + 1) & 0xFFFFFFFFFFFFFFFF
        return self._send(_Sent(join(headers, fragment), now))

    def _send(self, sent: _Sent) -> bytes:
        self._tx += 1
        if len(self._unacked) >= OUTSTANDING_MAX:
            del self._unacked[next(iter(self._unacked))]
            self.given_up += 1
        self._unacked[self._tx] = sent
        headers, fragment = split(sent.wire)
        room = (self.mtu - len(sent.wire) - OVERHEAD_BYTES - _FIELD_BYTES) // _FIELD_BYTES
        return join(headers + self._take_acks(room) + tlv(TX_SEQUENCE, self._tx.to_bytes(8, "big")), fragment)

    def _take_acks(self, count: int) -> bytes:
        taken = [self._acks.popleft() for _ in range(min(count, len(self._acks)))]
        if not self._acks:
            self._acks_due = None
        return b"".join(tlv(ACK, tx.to_bytes(8, "big")) for tx in taken)

    # --- in

    def incoming(self, wire: bytes, now: float) -> tuple[bytes | None, list[bytes]]:
        """The packet without what this layer added, None when it came before, and what is to be sent again at once.

        Raises DecodeError for what is no link packet.
        """
        if wire[:1] != bytes((LP_PACKET,)):
            return wire, []
        headers, again, sequence = b"", [], None
        for kind, begin, start, end in fields(wire):
            if kind in (ACK, TX_SEQUENCE, SEQUENCE) and end - start != 8:
                raise DecodeError(f"a sequence number of {end - start} bytes")
            if kind == ACK:
                again += self._on_ack(int.from_bytes(wire[start:end], "big"), now)
            elif kind == TX_SEQUENCE:
                self._acknowledge(int.from_bytes(wire[start:end], "big"), now)
            elif kind == SEQUENCE:
                sequence = int.from_bytes(wire[start:end], "big")
                headers += wire[begin:end]
            else:
                headers += wire[begin:end]
        if sequence is not None and self._is_double(sequence):
            return None, again
        return (tlv(LP_PACKET, headers) if headers else IDLE), again

    def _acknowledge(self, tx: int, now: float) -> None:
        self._acks.append(tx)
        if self._acks_due is None:
            self._acks_due = now + ACK_DELAY_S

    def _is_double(self, sequence: int) -> bool:
        if sequence in self._seen:
            self.doubles += 1
            return True
        self._seen[sequence] = None
        if len(self._seen) > REMEMBERED_MAX:
            del self._seen[next(iter(self._seen))]
        return False

    def _on_ack(self, tx: int, now: float) -> list[bytes]:
        sent = self._unacked.pop(tx, None)
        if sent is None:
            return []
        self.is_answered = True
        self._measure(now - sent.at)
        lost = []
        for earlier, other in self._unacked.items():
            if earlier > tx:
                break
            other.overtaken += 1
            if other.overtaken >= REORDERING:
                lost.append(earlier)
        return self._again(lost, now)

    def _measure(self, rtt_s: float) -> None:
        """The timer of RFC 6298; a packet that is sent again has a number of its own, so that every answer counts."""
        if self._rtt_s:
            self._variation_s += (abs(self._rtt_s - rtt_s) - self._variation_s) / 4
            self._rtt_s += (rtt_s - self._rtt_s) / 8
        else:
            self._rtt_s, self._variation_s = rtt_s, rtt_s / 2
        self._rto_s = min(max(self._rtt_s + 4 * self._variation_s + ACK_DELAY_S, MIN_RTO_S), MAX_RTO_S)

    # --- time

    def next_deadline(self) -> float | None:
        """When `on_timer` is to be called; None when nothing waits."""
        oldest = next((sent.at + self._rto_s for sent in self._unacked.values()), None)
        due = [at for at in (oldest, self._acks_due) if at is not None]
        return min(due) if due else None

    def on_timer(self, now: float) -> list[bytes]:
        """What is to be sent: packets whose time is over, and Acks that found nothing to travel on."""
        lost = []
        for tx, sent in self._unacked.items():
            if sent.at + self._rto_s > now:
                break
            lost.append(tx)
        out = self._again(lost, now)
        if lost:
            self._rto_s = min(self._rto_s * 2, MAX_RTO_S)
        while self._acks and self._acks_due is not None and self._acks_due <= now:
            out.append(tlv(LP_PACKET, self._take_acks((self.mtu - OVERHEAD_BYTES) // _FIELD_BYTES)))
        return out

    def _again(self, lost: list[int], now: float) -> list[bytes]:
        out = []
        for tx in lost:
            sent = self._unacked.pop(tx)
            if sent.retries >= RETRIES_MAX or not self.is_answered:
                self.given_up += 1
                continue
            self.retransmissions += 1
            out.append(self._send(_Sent(sent.wire, now, sent.retries + 1)))
        return out
