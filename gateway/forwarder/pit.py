"""Pending Interest Table, and the dead nonce list that remembers loops after an entry is gone."""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field

from gateway.forwarder.packet import Data, Interest, component_ends
from gateway.protocol.names import Name

# What a flood may take: an entry costs about 1.3 kB, so 52 MB at the most, on a router that has 128.
PIT_CAPACITY = 40_000
# Longer than any loop takes; a nonce and its name's hash cost about 200 bytes, so 6.5 MB at the most.
DEAD_NONCE_LIFETIME_S = 6.0
DEAD_NONCE_CAPACITY = 32_768
# Timers of entries that are gone are swept out when they outnumber those that live, and there are more than this.
_STALE_TIMERS = 1024


@dataclass(slots=True)
class InRecord:
    """A downstream that waits: `expiry` is monotonic time."""

    face_id: int
    nonce: bytes
    pit_token: bytes | None
    interest: Interest
    expiry: float


@dataclass(slots=True)
class OutRecord:
    """An upstream that was asked; `nack_reason` is set when it said no."""

    face_id: int
    nonce: bytes
    sent: float
    expiry: float
    nack_reason: int | None = None


@dataclass(slots=True, eq=False)
class PitEntry:
    """`next_hop` is the one face that the consumer named: such an Interest waits for that face's answer alone."""

    name: Name
    digest: bytes | None
    can_be_prefix: bool
    must_be_fresh: bool
    next_hop: int | None = None
    in_records: dict[int, InRecord] = field(default_factory=dict)
    out_records: dict[int, OutRecord] = field(default_factory=dict)
    expiry: float = 0.0
    timer: int = 0
    live: bool = True

    def matches(self, interest: Interest, next_hop: int | None) -> bool:
        return (
            self.next_hop == next_hop
            and self.digest == interest.digest
            and self.can_be_prefix == interest.can_be_prefix
            and self.must_be_fresh == interest.must_be_fresh
        )

    def has_nonce(self, nonce: bytes, face_id: int) -> bool:
        """Whether an Interest from this face with this nonce has gone round a loop; the same face may send it again."""
        own = self.in_records.get(face_id)
        if own is not None and own.nonce == nonce:
            return False
        return any(record.nonce == nonce for record in self.in_records.values()) or any(
            record.nonce == nonce for record in self.out_records.values()
        )

    def pending_upstreams(self, now: float) -> list[OutRecord]:
        """The upstreams that were asked and may still answer."""
        return [r for r in self.out_records.values() if r.nack_reason is None and r.expiry > now]


class Pit:
    """Entries by name without implicit digest, so that a Data packet finds all it satisfies."""

    def __init__(self, capacity: int = PIT_CAPACITY) -> None:
        self._entries: dict[Name, list[PitEntry]] = {}
        self._expiries: list[tuple[float, int, PitEntry]] = []
        self._serial = 0
        self._size = 0
        self._prefix_entries = 0
        self.capacity = capacity

    def __len__(self) -> int:
        return self._size

    @property
    def is_full(self) -> bool:
        return self._size >= self.capacity

    def __iter__(self) -> Iterator[PitEntry]:
        return (entry for entries in list(self._entries.values()) for entry in list(entries))

    def find(self, interest: Interest, next_hop: int | None = None) -> PitEntry | None:
        for entry in self._entries.get(interest.name, ()):
            if entry.matches(interest, next_hop):
                return entry
        return None

    def insert(self, interest: Interest, next_hop: int | None = None) -> PitEntry:
        entry = PitEntry(interest.name, interest.digest, interest.can_be_prefix, interest.must_be_fresh, next_hop)
        self._entries.setdefault(interest.name, []).append(entry)
        self._size += 1
        self._prefix_entries += entry.can_be_prefix
        return entry

    def satisfied_by(self, data: Data) -> list[PitEntry]:
        """The entries that a Data packet answers; its digest is computed only if an entry asks for one."""
        found = [e for e in self._entries.get(data.name, ()) if e.digest is None or e.digest == data.digest]
        if self._prefix_entries and data.name:
            for end in [0, *component_ends(data.name)[:-1]]:
                found += [e for e in self._entries.get(data.name[:end], ()) if e.can_be_prefix and e.digest is None]
        return found

    def erase(self, entry: PitEntry) -> None:
        entry.live = False
        entries = self._entries[entry.name]
        entries.remove(entry)
        if not entries:
            del self._entries[entry.name]
        self._size -= 1
        self._prefix_entries -= entry.can_be_prefix

    def set_expiry(self, entry: PitEntry, expiry: float) -> None:
        if entry.timer and expiry == entry.expiry:
            return
        if len(self._expiries) > 2 * self._size + _STALE_TIMERS:
            self._expiries = [timer for timer in self._expiries if _is_current(timer)]
            heapq.heapify(self._expiries)
        self._serial += 1
        entry.expiry, entry.timer = expiry, self._serial
        heapq.heappush(self._expiries, (expiry, self._serial, entry))

    def next_deadline(self) -> float | None:
        """When the next entry may expire; stale timers of satisfied entries are dropped on the way."""
        heap = self._expiries
        while heap and not _is_current(heap[0]):
            heapq.heappop(heap)
        return heap[0][0] if heap else None

    def pop_expired(self, now: float) -> list[PitEntry]:
        expired = []
        while (deadline := self.next_deadline()) is not None and deadline <= now:
            expired.append(heapq.heappop(self._expiries)[2])
        return expired


def _is_current(timer: tuple[float, int, PitEntry]) -> bool:
    return timer[2].live and timer[2].timer == timer[1]


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
