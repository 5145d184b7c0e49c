"""Pending Interest Table, and the dead nonce list that remembers loops after an entry is gone."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterator

from gateway.forwarder.faces.base import Face
from gateway.forwarder.packet import Data, Interest, component_ends
from gateway.protocol.names import Name

# What a flood may take: an entry costs about 1 kB, so 40 MB at the most, on a router that has 128.
PIT_CAPACITY = 40_000
# Longer than any loop takes; a nonce and its name's hash cost about 200 bytes, so 6.5 MB at the most.
DEAD_NONCE_LIFETIME_S = 6.0
DEAD_NONCE_CAPACITY = 32_768
# An Interest that asks to be kept longer is kept this long: store and forward is by wants, not by the PIT.
MAX_LIFETIME_MS = 60_000
# One face may take this share of the PIT, so that a flood from there leaves room for everybody else.
PIT_SHARE_OF_FACE = 0.25
# An entry goes at most so much later than its expiry: those that expire within one tick share a timer.
TICK_S = 1 / 16
# With more lengths of prefixes than this pending, a Data packet's own prefixes are fewer.
_PREFIX_LENGTHS_MAX = 8


class InRecord:
    """A downstream that waits, with its Interest; `expiry` is monotonic time."""

    __slots__ = ("expiry", "face", "nonce", "pit_token", "wire")

    def __init__(self, face: Face, nonce: bytes, pit_token: bytes | None, wire: bytes, expiry: float) -> None:
        self.face, self.nonce, self.pit_token, self.wire, self.expiry = face, nonce, pit_token, wire, expiry


class OutRecord:
    """An upstream that was asked; `nack_reason` is set when it said no."""

    __slots__ = ("expiry", "face", "nack_reason", "nonce", "sent")

    def __init__(self, face: Face, nonce: bytes, sent: float, expiry: float, nack_reason: int | None = None) -> None:
        self.face, self.nonce, self.sent, self.expiry, self.nack_reason = face, nonce, sent, expiry, nack_reason


class PitEntry:
    """`next_hop` is the one face that the consumer named: such an Interest waits for that face's answer alone.

    `is_plain` says that its Data needs no look at scope or at digests in the name. Entries of one name that differ in
    anything else hang together by `sibling`.
    """

    __slots__ = (
        "can_be_prefix",
        "digest",
        "expiry",
        "in_records",
        "is_plain",
        "must_be_fresh",
        "name",
        "next_hop",
        "out_records",
        "sibling",
        "timer",
    )

    def __init__(
        self,
        name: Name,
        digest: bytes | None,
        can_be_prefix: bool,
        must_be_fresh: bool,
        next_hop: int | None = None,
        is_plain: bool = False,
    ) -> None:
        self.name, self.digest = name, digest
        self.can_be_prefix, self.must_be_fresh = can_be_prefix, must_be_fresh
        self.next_hop, self.is_plain = next_hop, is_plain
        self.in_records: list[InRecord] = []
        self.out_records: list[OutRecord] = []
        self.expiry = 0.0
        self.timer: dict[PitEntry, None] | None = None
        self.sibling: PitEntry | None = None

    def matches(self, interest: Interest, next_hop: int | None) -> bool:
        return (
            self.next_hop == next_hop
            and self.digest == interest.digest
            and self.can_be_prefix == interest.can_be_prefix
            and self.must_be_fresh == interest.must_be_fresh
        )

    def in_record(self, face: Face) -> InRecord | None:
        """What this downstream asked."""
        return next((record for record in self.in_records if record.face is face), None)

    def out_record(self, face: Face) -> OutRecord | None:
        """What was asked of this upstream."""
        return next((record for record in self.out_records if record.face is face), None)

    def has_nonce(self, nonce: bytes, face: Face) -> bool:
        """Whether an Interest from this face with this nonce has gone round a loop; the same face may send it again."""
        own = self.in_record(face)
        if own is not None and own.nonce == nonce:
            return False
        return any(record.nonce == nonce for record in self.in_records) or any(
            record.nonce == nonce for record in self.out_records
        )

    def pending_upstreams(self, now: float) -> list[OutRecord]:
        """The upstreams that were asked and may still answer."""
        return [r for r in self.out_records if r.nack_reason is None and r.expiry > now]


class Pit:
    """Entries by name without implicit digest, so that a Data packet finds all it satisfies.

    `first` holds the first entry of each name, `prefix_lengths` how many entries with CanBePrefix have a name of so
    many bytes. Timers are a wheel: the entries that expire in one tick, by the tick's number.
    """

    def __init__(self, capacity: int = PIT_CAPACITY) -> None:
        self.first: dict[Name, PitEntry] = {}
        self.prefix_lengths: dict[int, int] = {}
        self.size = 0
        self.capacity = capacity
        self._wheel: dict[int, dict[PitEntry, None]] = {}

    def __len__(self) -> int:
        return self.size

    @property
    def is_full(self) -> bool:
        return self.size >= self.capacity

    def __iter__(self) -> Iterator[PitEntry]:
        for entry in list(self.first.values()):
            yield from _siblings(entry)

    def find(self, interest: Interest, next_hop: int | None = None) -> PitEntry | None:
        return next((e for e in _siblings(self.first.get(interest.name)) if e.matches(interest, next_hop)), None)

    def insert(self, interest: Interest, next_hop: int | None = None) -> PitEntry:
        entry = PitEntry(interest.name, interest.digest, interest.can_be_prefix, interest.must_be_fresh, next_hop)
        first = self.first.setdefault(entry.name, entry)
        if first is not entry:
            first.sibling, entry.sibling = entry, first.sibling
        self.size += 1
        if entry.can_be_prefix:
            length = len(entry.name)
            self.prefix_lengths[length] = self.prefix_lengths.get(length, 0) + 1
        return entry

    def satisfied_by(self, data: Data) -> list[PitEntry]:
        """The entries that a Data packet answers; its digest is computed only if an entry asks for one."""
        same = _siblings(self.first.get(data.name))
        return [e for e in same if e.digest is None or e.digest == data.digest] + self.prefixes_of(data.name)

    def prefixes_of(self, name: Name) -> list[PitEntry]:
        """The entries with CanBePrefix that wait for anything below a shorter name than this one."""
        if not self.prefix_lengths:
            return []
        if len(self.prefix_lengths) <= _PREFIX_LENGTHS_MAX:
            # What is equal to a name in the table ends where that name ends: between two components.
            ends = sorted(length for length in self.prefix_lengths if length < len(name))
        else:
            ends = [0, *component_ends(name)[:-1]] if name else []
        waiting = (e for end in ends for e in _siblings(self.first.get(name[:end])))
        return [e for e in waiting if e.can_be_prefix and e.digest is None]

    def erase(self, entry: PitEntry) -> None:
        first = self.first[entry.name]
        if first is entry:
            if entry.sibling is None:
                del self.first[entry.name]
            else:
                self.first[entry.name] = entry.sibling
        else:
            before = next(e for e in _siblings(first) if e.sibling is entry)
            before.sibling = entry.sibling
        self.size -= 1
        if entry.timer is not None:
            del entry.timer[entry]
            entry.timer = None
        if entry.can_be_prefix:
            length = len(entry.name)
            self.prefix_lengths[length] -= 1
            if not self.prefix_lengths[length]:
                del self.prefix_lengths[length]

    # --- time

    def timer(self, expiry: float) -> dict[PitEntry, None]:
        """The timer of the entries that expire in the same tick; who is put there is given out when that is over."""
        tick = math.ceil(expiry / TICK_S)
        timer = self._wheel.get(tick)
        if timer is None:
            timer = self._wheel[tick] = {}
        return timer

    def set_expiry(self, entry: PitEntry, expiry: float) -> None:
        entry.expiry = expiry
        timer = self.timer(expiry)
        if timer is not entry.timer:
            if entry.timer is not None:
                del entry.timer[entry]
            timer[entry] = None
            entry.timer = timer

    def next_deadline(self) -> float | None:
        """When the next entries are given out; timers whose entries were all satisfied are dropped on the way."""
        while self._wheel:
            tick = min(self._wheel)
            if self._wheel[tick]:
                return tick * TICK_S
            del self._wheel[tick]
        return None

    def pop_expired(self, now: float) -> list[PitEntry]:
        """The entries whose time is over, without a timer from now on."""
        expired: list[PitEntry] = []
        for tick in [tick for tick in self._wheel if tick * TICK_S <= now]:
            expired += self._wheel.pop(tick)
        for entry in expired:
            entry.timer = None
        return expired


def _siblings(entry: PitEntry | None) -> Iterator[PitEntry]:
    while entry is not None:
        following = entry.sibling
        yield entry
        entry = following


class DeadNonceList:
    """Names and nonces of Interests whose entry is gone, for as long as a copy may still be going round."""

    def __init__(self) -> None:
        self._seen: set[int] = set()
        self._order: deque[tuple[float, int]] = deque()

    def __len__(self) -> int:
        return len(self._seen)

    def add(self, name: Name, nonce: bytes, now: float) -> None:
        self._forget(now, DEAD_NONCE_CAPACITY - 1)
        item = hash((name, nonce))
        if item not in self._seen:
            self._seen.add(item)
            self._order.append((now + DEAD_NONCE_LIFETIME_S, item))

    def has(self, name: Name, nonce: bytes, now: float) -> bool:
        self._forget(now, DEAD_NONCE_CAPACITY)
        return bool(self._seen) and hash((name, nonce)) in self._seen

    def _forget(self, now: float, capacity: int) -> None:
        order = self._order
        while order and (order[0][0] <= now or len(order) > capacity):
            self._seen.discard(order.popleft()[1])
