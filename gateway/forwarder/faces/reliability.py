"""NDNLPv2's reliability for one peer over datagrams: every link packet is acknowledged, and sent again when lost. Pure.

On the wire as in NFD: a packet bears a TxSequence, new each time it is sent, and a Sequence that tells when it came
twice; Acks travel on whatever goes the other way and has room, or on an IDLE packet soon after. Each Ack is told twice
where there is room, so that a lost one costs nothing.

What is lost is found as in RFC 8985 (RACK): a packet sent later has been acknowledged, and the time that this one took
is over, with some patience for reordering. When nothing is acknowledged at all, the oldest packets are sent again as
probes (RFC 9002), ever more rarely; the first Ack then tells of all others. So a delay that grows never doubles the
traffic.

Repairing hides losses from the consumer, also those of a queue that overflows, by which it would know that it asks for
too much. So a packet that is lost while the round trip is much longer than it needs to be, or when very many are lost,
calls for a congestion mark on a packet of Data that follows. What a radio loses does not.

A peer that does not speak this is tried for a moment and then left alone, but for a probe now and then.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass

from gateway.forwarder.faces import link
from gateway.forwarder.faces.link import OVERHEAD_BYTES, SEQUENCE, fields, split
from gateway.forwarder.packet import LP_PACKET, DecodeError
from gateway.protocol.names import number, tlv

ACK, TX_SEQUENCE = 0x0344, 0x0348
_ACK_HEAD, _TX_HEAD = number(ACK) + b"\x08", number(TX_SEQUENCE) + b"\x08"
_SEQUENCE_HEAD, _FRAGMENT_HEAD = bytes((SEQUENCE, 8)), number(link.FRAGMENT)
_SEQUENCE_BYTES, _FIELD_BYTES = 10, 12
# A link packet's own header, Sequence and TxSequence, at their longest; fragments have their place besides.
NUMBERS_BYTES = OVERHEAD_BYTES + _SEQUENCE_BYTES + _FIELD_BYTES
_WRAP = (1 << 64) - 1

# As in NFD: longer than a batch takes, shorter than any timer that waits for it.
ACK_DELAY_S = 0.005
# What waits to be acknowledged, and to be told again: of the latter two batches of a fast link.
ACKS_MAX, TOLD_MAX = 4096, 256
_ACKS_TOGETHER = 32
# At a loss of 10 % each way one packet in 10⁷ is lost eight times; and nobody waits longer than an Interest lives.
SENDINGS_MAX, LIFETIME_S = 8, 4.0
# Before anything is known of the path: longer than most round trips, shorter than a consumer's first timer (1 s).
INITIAL_RTO_S, MAX_RTO_S = 0.5, 1.0
# What the timer has beyond the smoothed round trip, however steady that is: a busy node, a short queue.
MIN_MARGIN_S = 0.03
PROBES = 2
# Patience for reordering: at first a quarter of the round trip, more after each packet that was only late.
REORDERING_SHARE, REORDERING_MIN_S, PATIENCE_MAX = 0.25, 2 * ACK_DELAY_S, 4.0
_PATIENCE_GROWTH, _PATIENCE_DECAY = 1.5, 0.98
# The lowest round trip counts for one to two of these.
_BASE_LIFETIME_S = 10.0
# A queue stands when even the fastest packet of a round trip took so much longer than that; and whoever loses so many
# is asked for too much, or is no link to send bulk over.
_QUEUE_SHARE, _QUEUE_MIN_S, _LOSS_MAX = 0.4, 0.004, 0.3
_SAMPLES_MIN, _MARKS_OWED_MAX = 4, 32
# What may be unacknowledged: 230 Mbit/s over 100 ms, 3 MB; beyond it the oldest is not looked after any more.
OUTSTANDING_MAX = 2048
# Numbers remembered: of packets that came, for doubles; of packets sent again, to see which were only late.
REMEMBERED_MAX, RETIRED_MAX = 4096, 1024
# A peer that has acknowledged nothing for so long, or none of so many, gets one numbered packet an interval: it may
# have learned to speak.
TRIAL_S, TRIAL_PACKETS, TRIAL_INTERVAL_S = 1.0, 256, 0.25
# So many given up in a row mean that it has stopped to.
SILENCE_PACKETS = 64


@dataclass(slots=True)
class ReliabilityCounters:
    """In link packets: sent again, and of these those whose first copy had arrived; given up; come twice."""

    retransmissions: int = 0
    spurious: int = 0
    given_up: int = 0
    doubles: int = 0


class Frame:
    """A link packet without the numbers of a sending. `size` in bytes is with them, without Acks."""

    __slots__ = ("at", "born", "headers", "is_done", "is_tracked", "payload", "sendings", "size", "tx")

    def __init__(self, headers: bytes, payload: bytes, is_tracked: bool) -> None:
        self.headers, self.payload, self.is_tracked = headers, payload, is_tracked
        self.size = len(headers) + len(payload)
        if headers:
            self.size += OVERHEAD_BYTES + _FIELD_BYTES * is_tracked
        self.born = self.at = 0.0
        self.tx = self.sendings = 0
        self.is_done = False

    def __len__(self) -> int:
        return self.size

    def can_be_marked(self) -> bool:
        """Whether it is the place for a congestion mark, and bears none."""
        return len(link.mark(self.headers, self.payload)) > len(self.headers)

    def mark(self) -> None:
        """Adds a congestion mark where there may be one."""
        headers = link.mark(self.headers, self.payload)
        if len(headers) > len(self.headers):
            self.size += len(headers) - len(self.headers) + (0 if self.headers else OVERHEAD_BYTES)
            self.headers = headers

    def on_wire(self, numbers: bytes) -> bytes:
        """The link packet with these fields behind its own; bare when it has none."""
        if not self.headers and not numbers:
            return self.payload
        if not self.payload:
            return tlv(LP_PACKET, self.headers + numbers)
        head = _FRAGMENT_HEAD + number(len(self.payload))
        return tlv(LP_PACKET, b"".join((self.headers, numbers, head, self.payload)))

    def finish(self) -> None:
        """Nothing more is to be done for it: its bytes are let go."""
        self.is_done = True
        self.headers = self.payload = b""


class Reliability:
    """`mtu` is the largest packet that may go out; `sequence` and `tx` are where the numbers begin."""

    def __init__(self, mtu: int, sequence: int, tx: int) -> None:
        self.mtu = mtu
        self._sequence, self._tx = sequence, tx
        self._unacked: dict[int, Frame] = {}  # in the order of sending
        self._retired: dict[int, Frame] = {}  # by the numbers of earlier sendings
        self._lost: list[Frame] = []
        self._fresh: deque[int] = deque(maxlen=ACKS_MAX)
        self._told: deque[int] = deque(maxlen=TOLD_MAX)
        self._acks_due: float | None = None
        self._seen: dict[int, None] = {}
        self._rtt_s, self._variation_s = 0.0, 0.0
        self._base_s = self._next_base_s = float("inf")
        self._base_until = float("-inf")
        # Of this round trip: its end, its fastest packet, and how many were acknowledged and lost.
        self._round_ends, self._fastest_s, self._acked, self._missing = float("-inf"), float("inf"), 0, 0
        self._is_queueing = self._is_losing = False
        self._marks_owed, self._marks_until = 0, float("-inf")
        # The packet sent last of those that are acknowledged: its number, and how long it took.
        self._latest_tx, self._latest_rtt_s = -1, 0.0
        self._loss_due: float | None = None
        self._patience, self._patient_until = 1.0, float("-inf")
        self._probed_at, self._backoff = float("-inf"), 0
        self._trials, self._trial_ends, self._next_trial, self._unheard = 0, float("inf"), float("-inf"), 0
        self.is_answered = False
        self.counters = ReliabilityCounters()

    # --- out

    def frames(self, wire: bytes, now: float) -> list[Frame]:
        """A packet as the link packets that carry it, in fragments where it is too large for one."""
        if not self._is_worth_numbering(now):
            parts = link.cut(wire, self.mtu, self._sequence)
            self._sequence = (self._sequence + len(parts)) & _WRAP
            return [Frame(headers, payload, False) for headers, payload in parts]
        headers, payload = split(wire)
        if len(headers) + len(payload) + NUMBERS_BYTES <= self.mtu:
            parts = [(_SEQUENCE_HEAD + self._sequence.to_bytes(8, "big") + headers, payload)]
        else:
            parts = link.cut(wire, self.mtu - _FIELD_BYTES, self._sequence)
        self._sequence = (self._sequence + len(parts)) & _WRAP
        return [Frame(headers, payload, True) for headers, payload in parts]

    def _is_worth_numbering(self, now: float) -> bool:
        if self.is_answered:
            return True
        if self._trials < TRIAL_PACKETS and now < self._trial_ends:
            if not self._trials:
                self._trial_ends = now + TRIAL_S
            self._trials += 1
            return True
        if now < self._next_trial:
            return False
        self._next_trial = now + TRIAL_INTERVAL_S
        return True

    def outgoing(self, frame: Frame, now: float) -> bytes:
        """A frame as it leaves now, with its number and what is to be acknowledged."""
        acks = b""
        if frame.headers and self._fresh:
            acks = self._take_acks(max(0, self.mtu - frame.size) // _FIELD_BYTES)
        if not frame.is_tracked:
            return frame.on_wire(acks)
        if frame.sendings:
            self.counters.retransmissions += 1
        else:
            frame.born = now
        if len(self._unacked) >= OUTSTANDING_MAX:
            self._give_up(self._unacked.pop(next(iter(self._unacked))), is_silence=False)
        self._tx = (self._tx + 1) & _WRAP
        frame.tx, frame.at = self._tx, now
        frame.sendings += 1
        self._unacked[frame.tx] = frame
        return frame.on_wire(acks + _TX_HEAD + frame.tx.to_bytes(8, "big"))

    def take_lost(self) -> list[Frame]:
        """What is to be sent again; those whose Ack comes before that are done by then."""
        lost, self._lost = self._lost, []
        return lost

    def _take_acks(self, room: int) -> bytes:
        """New Acks behind those that were told once, in the order of the numbers; none where not all have room.

        A fragment has room for one at most: were it used, the others would be told too late.
        """
        fresh, again = len(self._fresh), len(self._told)
        if not fresh or (fresh + again > room and room < _ACKS_TOGETHER):
            return b""
        fresh = min(fresh, room)
        taken = [self._told.popleft() for _ in range(min(again, room - fresh))]
        for _ in range(fresh):
            taken.append(self._fresh.popleft())
            self._told.append(taken[-1])
        if not self._fresh:
            self._acks_due = None
        return b"".join([_ACK_HEAD + tx.to_bytes(8, "big") for tx in taken])

    # --- in

    def incoming(self, wire: bytes, now: float) -> bytes | None:
        """The packet without what this layer added; None when it came before or holds only Acks.

        What its Acks show to be lost is in `take_lost` then. Raises DecodeError for what is no link packet.
        """
        if wire[:1] != bytes((LP_PACKET,)):
            return wire
        kept, acks, sequence, tx = [], [], None, None
        for kind, begin, start, end in fields(wire):
            if kind in (ACK, TX_SEQUENCE, SEQUENCE):
                if end - start != 8:
                    raise DecodeError(f"a sequence number of {end - start} bytes")
                value = int.from_bytes(wire[start:end], "big")
                if kind == ACK:
                    acks.append(value)
                    continue
                if kind == TX_SEQUENCE:
                    tx = value
                    continue
                sequence = value
            kept.append((kind, begin, start, end))
        if acks:
            self._on_acks(acks, now)
        if tx is not None:
            self._acknowledge(tx, now)
        if not kept or (sequence is not None and tx is not None and self._is_double(sequence)):
            return None
        return _rebuilt(wire, kept)

    def _acknowledge(self, tx: int, now: float) -> None:
        self.is_answered = True
        self._fresh.append(tx)
        if self._acks_due is None:
            self._acks_due = now + ACK_DELAY_S

    def _is_double(self, sequence: int) -> bool:
        if sequence in self._seen:
            self.counters.doubles += 1
            return True
        self._seen[sequence] = None
        if len(self._seen) > REMEMBERED_MAX:
            del self._seen[next(iter(self._seen))]
        return False

    def _on_acks(self, acks: Iterable[int], now: float) -> None:
        latest: Frame | None = None
        for tx in acks:
            frame = self._unacked.pop(tx, None)
            if frame is None:
                self._on_late_ack(tx, now)
                continue
            if frame.sendings > 1:
                self._patience = max(1.0, self._patience * _PATIENCE_DECAY)
            self._acked += 1
            if latest is None or frame.at >= latest.at:
                latest = frame
            frame.finish()
        if latest is None:
            return
        self.is_answered, self._unheard, self._backoff = True, 0, 0
        self._measure(now - latest.at, now)
        if latest.tx > self._latest_tx:
            self._latest_tx, self._latest_rtt_s = latest.tx, now - latest.at
        self._detect(now)

    def _on_late_ack(self, tx: int, now: float) -> None:
        """A packet that was taken for lost had arrived; from now on a later one is waited for longer."""
        frame = self._retired.pop(tx, None)
        if frame is None:
            return
        if self._unacked.pop(frame.tx, None) is not None or frame.is_done:
            self.counters.spurious += 1
            if now >= self._patient_until:
                self._patience = min(self._patience * _PATIENCE_GROWTH, PATIENCE_MAX)
                self._patient_until = now + self._rtt_s
        frame.finish()

    def _measure(self, rtt_s: float, now: float) -> None:
        """The estimate of RFC 6298; a packet that is sent again has a number of its own, so that every Ack counts."""
        if self._rtt_s:
            self._variation_s += (abs(self._rtt_s - rtt_s) - self._variation_s) / 4
            self._rtt_s += (rtt_s - self._rtt_s) / 8
        else:
            self._rtt_s, self._variation_s = rtt_s, rtt_s / 2
        if now >= self._base_until:
            self._base_s, self._next_base_s = self._next_base_s, float("inf")
            self._base_until = now + _BASE_LIFETIME_S
        self._next_base_s = min(self._next_base_s, rtt_s)
        self._base_s = min(self._base_s, rtt_s)
        self._fastest_s = min(self._fastest_s, rtt_s)
        if now >= self._round_ends and self._acked >= _SAMPLES_MIN:
            self._end_round(now)

    def _end_round(self, now: float) -> None:
        self._is_queueing = self._is_slow(self._fastest_s)
        self._is_losing = self._missing > _LOSS_MAX * (self._missing + self._acked)
        self._round_ends, self._fastest_s, self._acked, self._missing = now + self._rtt_s, float("inf"), 0, 0

    def _is_slow(self, rtt_s: float) -> bool:
        return rtt_s - self._base_s > max(self._base_s * _QUEUE_SHARE, _QUEUE_MIN_S)

    def take_mark(self, now: float) -> bool:
        """Whether a packet of Data that leaves now shall bear a congestion mark for one that was lost."""
        if not self._marks_owed:
            return False
        if now >= self._marks_until:
            self._marks_owed = 0
            return False
        self._marks_owed -= 1
        return True

    # --- loss

    @property
    def rto_s(self) -> float:
        """How long the oldest packet may remain unanswered, before back-off."""
        if not self._rtt_s:
            return INITIAL_RTO_S
        return self._rtt_s + max(4 * self._variation_s, MIN_MARGIN_S) + ACK_DELAY_S

    def _detect(self, now: float) -> None:
        """Finds what was sent before an acknowledged packet and has had as much time as that one, and some more."""
        window_s = max(self._base_s * REORDERING_SHARE, REORDERING_MIN_S) * self._patience
        wait_s = self._latest_rtt_s + window_s
        self._loss_due, lost = None, []
        for tx, frame in self._unacked.items():
            if tx > self._latest_tx:
                break
            if frame.at + wait_s > now:
                self._loss_due = frame.at + wait_s
                break
            lost.append(tx)
        self._missing += len(lost)
        if lost and (self._is_losing or (self._is_queueing and self._is_slow(self._latest_rtt_s))):
            self._marks_owed = min(self._marks_owed + len(lost), _MARKS_OWED_MAX)
            self._marks_until = now + self._rtt_s
        for tx in lost:
            self._send_again(tx, now)

    def _send_again(self, tx: int, now: float) -> bool:
        frame = self._unacked.pop(tx)
        if frame.sendings >= SENDINGS_MAX or now - frame.born >= LIFETIME_S:
            self._give_up(frame)
            return False
        self._retired[tx] = frame
        if len(self._retired) > RETIRED_MAX:
            del self._retired[next(iter(self._retired))]
        self._lost.append(frame)
        return True

    def _give_up(self, frame: Frame, is_silence: bool = True) -> None:
        frame.finish()
        self.counters.given_up += 1
        self._unheard += is_silence
        if self._unheard >= SILENCE_PACKETS and self.is_answered:
            self.is_answered, self._trials, self._next_trial = False, TRIAL_PACKETS, float("-inf")

    # --- time

    def next_deadline(self) -> float | None:
        """When `on_timer` is to be called; None when nothing waits."""
        due = [at for at in (self._acks_due, self._loss_due) if at is not None]
        oldest = next(iter(self._unacked.values()), None)
        if oldest is not None:
            due.append(oldest.at + LIFETIME_S)
            if self.is_answered:
                due.append(self._probe_due(oldest))
        return min(due) if due else None

    def _probe_due(self, oldest: Frame) -> float:
        return max(oldest.at, self._probed_at) + min(self.rto_s * 2.0**self._backoff, max(MAX_RTO_S, self.rto_s))

    def on_timer(self, now: float) -> list[bytes]:
        """Packets of Acks that found nothing to travel on; what is lost by now is in `take_lost`."""
        if self._loss_due is not None and self._loss_due <= now:
            self._detect(now)
        while self._unacked and next(iter(self._unacked.values())).at + LIFETIME_S <= now:
            self._give_up(self._unacked.pop(next(iter(self._unacked))))
        if self.is_answered and self._unacked and self._probe_due(next(iter(self._unacked.values()))) <= now:
            self._probe(now)
        out = []
        while self._fresh and self._acks_due is not None and self._acks_due <= now:
            out.append(tlv(LP_PACKET, self._take_acks((self.mtu - OVERHEAD_BYTES) // _FIELD_BYTES)))
        return out

    def _probe(self, now: float) -> None:
        self._probed_at = now
        self._backoff = min(self._backoff + 1, 10)
        found = 0
        for tx in list(self._unacked)[: 4 * PROBES]:
            found += self._send_again(tx, now)
            if found == PROBES:
                break


def _rebuilt(wire: bytes, kept: list[tuple[int, int, int, int]]) -> bytes:
    """A link packet of the given fields of another; bare where all that is left beside the fragment is its number."""
    last, _, start, end = kept[-1]
    if last == link.FRAGMENT and len(kept) <= 2 and all(kind == SEQUENCE for kind, *_ in kept[:-1]):
        return wire[start:end]
    return tlv(LP_PACKET, b"".join([wire[begin:end] for _, begin, _, end in kept]))
