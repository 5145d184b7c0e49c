"""NDNLPv2 beyond one packet a datagram: fragments, their reassembly, IDLE packets and congestion marks.

Pure: `now` is monotonic time in seconds. What a fragment carries beside its place in the message (PIT token, Nack,
congestion mark) stands in the first one, as in NFD.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from gateway.forwarder.packet import DATA, LP_PACKET, MAX_PACKET_BYTES, DecodeError, read_tlv
from gateway.protocol.names import non_negative, number, tlv

IDLE = bytes((LP_PACKET, 0))
# A link packet at its longest has so many bytes around its header fields and what it carries.
OVERHEAD_BYTES = 4 + 4
FRAGMENT, SEQUENCE, FRAGMENT_INDEX, FRAGMENT_COUNT = 0x50, 0x51, 0x52, 0x53
CONGESTION_MARK = 0x0340

# What a datagram may carry on a path of which nothing is known: Ethernet less two tunnels' headers.
DEFAULT_MTU_BYTES = 1400
# Room for the smallest useful fragment: the IPv4 minimum every host must take.
MIN_MTU_BYTES = 548
# Outer type and length, Sequence, FragIndex, FragCount, and the fragment's own type and length, at their longest.
_FRAGMENT_OVERHEAD = OVERHEAD_BYTES + 10 + 3 + 3
# What reliability adds to a fragment.
_NUMBER_BYTES = 12
# A packet of 8,800 bytes and its headers take so many fragments at MIN_MTU_BYTES, and as many again.
MAX_FRAGMENTS = 36
MAX_MESSAGE_BYTES = MAX_PACKET_BYTES + 200

# A fragment that is later than this is lost: longer than any queue of ours, and NFD's figure.
REASSEMBLY_TIMEOUT_S = 0.5
# One peer's unfinished packets: a full window of a consumer (256) that lost a fragment each, with what came of 40.
FACE_MESSAGES_MAX = 256
FACE_BYTES_MAX = 384 * 1024
# Where lost fragments are sent again: as long as that goes on, and a third of a window of 3 MB, which is as many as
# have lost a fragment at a loss of 7 %. Such a peer is configured, so that no stranger fills this.
REPAIRED_TIMEOUT_S = 4.0
REPAIRED_MESSAGES_MAX = 512
REPAIRED_BYTES_MAX = 1 << 20
# Of all peers together: what a router of 128 MB can spare.
TOTAL_BYTES_MAX = 4 << 20
# What holding a message or a fragment costs beyond its bytes.
_MESSAGE_COST_BYTES, _PART_COST_BYTES = 400, 80

# As CoDel (RFC 8289) and NFD: the queue must stand for an interval before a packet is marked, then ever more often.
MARK_INTERVAL_S = 0.1
MARK_QUEUE_MAX_BYTES = 64 * 1024
MARK_QUEUE_MIN_BYTES = 16 * 1024
MARK_QUEUE_S = 0.02
_MARK = tlv(CONGESTION_MARK, b"\x01")
MARK_BYTES = len(_MARK)


# --- fields --------------------------------------------------------------------------------------------------


def fields(wire: bytes) -> Iterable[tuple[int, int, int, int]]:
    """Type, begin, start of the value and end of each field of a link packet; raises DecodeError."""
    kind, at, end = read_tlv(wire, 0, len(wire))
    if kind != LP_PACKET or end != len(wire):
        raise DecodeError(f"a packet of type {kind}")
    while at < end:
        begin = at
        kind, start, at = read_tlv(wire, at, end)
        yield kind, begin, start, at


def split(wire: bytes) -> tuple[bytes, bytes]:
    """The header fields of a packet of ours and what is in it; the packet itself when it comes bare."""
    if wire[0] != LP_PACKET:
        return b"", wire
    for kind, begin, start, end in fields(wire):
        if kind == FRAGMENT:
            _, body, _ = read_tlv(wire, 0, len(wire))
            return wire[body:begin], wire[start:end]
    _, body, end = read_tlv(wire, 0, len(wire))
    return wire[body:end], b""


def join(headers: bytes, fragment: bytes) -> bytes:
    """A link packet, or the bare packet when it needs no header."""
    if not headers:
        return fragment
    if fragment:
        headers += number(FRAGMENT) + number(len(fragment)) + fragment
    return tlv(LP_PACKET, headers)


# --- fragments out -------------------------------------------------------------------------------------------


def fragments(wire: bytes, mtu: int, sequence: int) -> list[bytes]:
    """The link packets that carry a packet over a path of `mtu` bytes; the packet itself where it fits.

    They are of one length but for the last, so that the kernel can send them as one train. `sequence` is the first
    one's number; the next packet's is greater by at least their count. Raises ValueError below MIN_MTU_BYTES.
    """
    if len(wire) <= mtu:
        return [wire]
    return [join(headers, payload) for headers, payload in cut(wire, mtu, sequence)]


def cut(wire: bytes, mtu: int, sequence: int) -> list[tuple[bytes, bytes]]:
    """The same as pairs of header fields and what is carried, a packet that fits as its own."""
    if len(wire) <= mtu:
        return [split(wire)]
    if mtu < MIN_MTU_BYTES - _NUMBER_BYTES:
        raise ValueError(f"an MTU of {mtu} bytes; at least {MIN_MTU_BYTES} are needed")
    headers, payload = split(wire)
    room = mtu - _FRAGMENT_OVERHEAD
    first = room - len(headers)
    count = 1 + max(0, -(-(len(payload) - first) // room))
    parts, at = [], 0
    for index in range(count):
        stop = at + (room if index else first)
        place = (
            tlv(SEQUENCE, ((sequence + index) & 0xFFFFFFFFFFFFFFFF).to_bytes(8, "big"))
            + tlv(FRAGMENT_INDEX, non_negative(index))
            + tlv(FRAGMENT_COUNT, non_negative(count))
        )
        parts.append((place if index else place + headers, payload[at:stop]))
        at = stop
    return parts


# --- fragments in --------------------------------------------------------------------------------------------


def is_fragment(wire: bytes) -> bool:
    """Whether a link packet bears a place in a message, by its first field: those numbers are the lowest."""
    if len(wire) < 8 or wire[0] != LP_PACKET:
        return False
    return wire[4 if wire[1] == 253 else 2] in (SEQUENCE, FRAGMENT_INDEX, FRAGMENT_COUNT)


def check_fragment(wire: bytes) -> None:
    """Raises DecodeError for what is no fragment."""
    _decode_fragment(wire)


@dataclass(slots=True)
class _Fragment:
    sequence: int
    index: int
    count: int
    headers: bytes
    payload: bytes


def _decode_fragment(wire: bytes) -> _Fragment:
    sequence, index, count, headers, payload = None, 0, 1, b"", b""
    for kind, begin, start, end in fields(wire):
        if kind == FRAGMENT:
            payload = wire[start:end]
        elif kind in (SEQUENCE, FRAGMENT_INDEX, FRAGMENT_COUNT):
            if end - start not in (1, 2, 4, 8):
                raise DecodeError(f"a number of {end - start} bytes")
            value = int.from_bytes(wire[start:end], "big")
            if kind == SEQUENCE:
                sequence = value
            elif kind == FRAGMENT_INDEX:
                index = value
            else:
                count = value
        else:
            headers += wire[begin:end]
    if sequence is None and count > 1:
        raise DecodeError("a fragment without a sequence number")
    if not index < count <= MAX_FRAGMENTS or (count > 1 and not payload):
        raise DecodeError(
            f"fragment {index} of {count} with {len(payload)} bytes; at most {MAX_FRAGMENTS} are accepted"
        )
    return _Fragment(sequence or 0, index, count, headers, payload)


@dataclass(slots=True)
class _Message:
    """A packet of which some fragments are here."""

    count: int
    deadline: float
    headers: bytes = b""
    parts: dict[int, bytes] = field(default_factory=dict)
    payload_bytes: int = 0
    cost_bytes: int = _MESSAGE_COST_BYTES


class ReassemblyBudget:
    """The memory that all faces' unfinished packets share; who holds most gives way."""

    def __init__(self, total_bytes: int = TOTAL_BYTES_MAX) -> None:
        self.total_bytes, self.used_bytes = total_bytes, 0
        self.users: set[Reassembler] = set()

    def make_room(self) -> None:
        while self.used_bytes > self.total_bytes:
            max(self.users, key=lambda user: user.used_bytes).drop_oldest()


class Reassembler:
    """One peer's fragments. `dropped` counts packets that were given up and fragments that belong to none.

    Messages are kept in the order of their deadlines, because each has the same time: where lost fragments are sent
    again (`is_repaired`) that of several round trips.
    """

    def __init__(self, budget: ReassemblyBudget, is_repaired: bool = False) -> None:
        self._budget = budget
        self._timeout_s = REPAIRED_TIMEOUT_S if is_repaired else REASSEMBLY_TIMEOUT_S
        self._messages_max = REPAIRED_MESSAGES_MAX if is_repaired else FACE_MESSAGES_MAX
        self._bytes_max = REPAIRED_BYTES_MAX if is_repaired else FACE_BYTES_MAX
        self._messages: dict[int, _Message] = {}
        self.used_bytes = 0
        self.dropped = 0

    def __len__(self) -> int:
        return len(self._messages)

    def add(self, wire: bytes, now: float) -> bytes | None:
        """The whole link packet once its last fragment is here; raises DecodeError for what is no fragment."""
        fragment = _decode_fragment(wire)
        if fragment.count == 1:
            return join(fragment.headers, fragment.payload)
        self.expire(now)
        key = (fragment.sequence - fragment.index) & 0xFFFFFFFFFFFFFFFF
        message = self._messages.get(key)
        if message is None:
            message = self._begin(key, fragment.count, now)
        if message.count != fragment.count or fragment.index in message.parts:
            self.dropped += 1
            return None
        message.parts[fragment.index] = fragment.payload
        message.payload_bytes += len(fragment.payload)
        if fragment.index == 0:
            message.headers = fragment.headers
        self._charge(message, len(fragment.payload) + len(message.headers) * (not fragment.index) + _PART_COST_BYTES)
        if message.payload_bytes + len(message.headers) > MAX_MESSAGE_BYTES:
            self._forget(key)
            self.dropped += 1
            return None
        if len(message.parts) < message.count:
            self._bound()
            return None
        self._forget(key)
        return join(message.headers, b"".join(message.parts[index] for index in range(message.count)))

    def next_deadline(self) -> float | None:
        return next((message.deadline for message in self._messages.values()), None)

    def expire(self, now: float) -> None:
        """Gives up the packets whose time is over."""
        while self._messages and next(iter(self._messages.values())).deadline <= now:
            self.drop_oldest()

    def drop_oldest(self) -> None:
        self._forget(next(iter(self._messages)))
        self.dropped += 1

    def close(self) -> None:
        while self._messages:
            self._forget(next(iter(self._messages)))

    def _begin(self, key: int, count: int, now: float) -> _Message:
        message = self._messages[key] = _Message(count, now + self._timeout_s)
        self._budget.users.add(self)
        self._charge(message, _MESSAGE_COST_BYTES, is_new=True)
        return message

    def _charge(self, message: _Message, cost_bytes: int, is_new: bool = False) -> None:
        if not is_new:
            message.cost_bytes += cost_bytes
        self.used_bytes += cost_bytes
        self._budget.used_bytes += cost_bytes

    def _bound(self) -> None:
        while len(self._messages) > self._messages_max or self.used_bytes > self._bytes_max:
            self.drop_oldest()
        self._budget.make_room()

    def _forget(self, key: int) -> None:
        message = self._messages.pop(key)
        self.used_bytes -= message.cost_bytes
        self._budget.used_bytes -= message.cost_bytes
        if not self._messages:
            self._budget.users.discard(self)


# --- congestion ----------------------------------------------------------------------------------------------


class CongestionMarker:
    """When a queue of bytes has stood too long, which packets tell so."""

    def __init__(self, rate_bps: int | None = None) -> None:
        wanted = MARK_QUEUE_MAX_BYTES if rate_bps is None else int(rate_bps / 8 * MARK_QUEUE_S)
        self.threshold_bytes = min(max(wanted, MARK_QUEUE_MIN_BYTES), MARK_QUEUE_MAX_BYTES)
        self._next: float | None = None
        self._count = 0

    @property
    def is_alert(self) -> bool:
        """Whether the queue was too long when it was last seen."""
        return self._next is not None

    def should_mark(self, queued_bytes: int, now: float) -> bool:
        """Asked once for each packet that goes out and could bear a mark; a short queue ends the matter."""
        if queued_bytes <= self.threshold_bytes:
            self._next, self._count = None, 0
            return False
        if self._next is None:
            self._next = now + MARK_INTERVAL_S
            return False
        if now < self._next:
            return False
        self._count += 1
        self._next = now + MARK_INTERVAL_S / (self._count + 1) ** 0.5
        return True


def with_mark(wire: bytes) -> bytes:
    """A packet of ours with a CongestionMark, if it carries Data, or its first fragment, and bears none already."""
    headers, payload = split(wire)
    marked = mark(headers, payload)
    return wire if marked == headers else join(marked, payload)


def mark(headers: bytes, payload: bytes) -> bytes:
    """The same for header fields and what is carried: the header fields with the mark, or as they are."""
    if payload[:1] != bytes((DATA,)):
        return headers
    at, place = 0, 0
    while at < len(headers):
        kind, start, end = read_tlv(headers, at, len(headers))
        if kind == CONGESTION_MARK or (kind == FRAGMENT_INDEX and any(headers[start:end])):
            return headers
        at = end
        if kind < CONGESTION_MARK:
            place = at
    return headers[:place] + _MARK + headers[place:]
