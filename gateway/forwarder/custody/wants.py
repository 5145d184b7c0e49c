"""The table of wants: blobs that this node waits for, and those that it gets for others. No file, socket or clock here.

`now` is the table's own time in seconds, which never jumps (clock.py). A want is known by wanter and blob; of two
the newer version counts, and a withdrawal is just a newer version. A want is verified before it is offered here.

Own wants are always taken and come first. Wants of others must fit: `Limits` says how many, how many of one wanter, and
how many bytes of blobs. A new one makes room only from wants that are less urgent, or as urgent but of a wanter that
takes more than its own would with it; of those a withdrawal goes first (it only keeps old copies of a want away), then
the least urgent, then one of the wanter that takes most, the youngest first.
"""

from __future__ import annotations

import enum
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass, field

from gateway.protocol import objects
from gateway.protocol.errors import BlobError
from gateway.protocol.messages import Want

# A want travels over so many nodes at the most.
MAX_HOPS = 8
PRIORITIES = range(10)
HOLDERS_MAX = 16
# How long a neighbour that took a want is not told of it again (unless it restarted), and one that refused.
TAKEN_S, REFUSED_S = 6 * 3600.0, 600.0
_TOLD_MAX = 64

Key = tuple[str, bytes]  # wanter, SHA-256


@dataclass(frozen=True, slots=True)
class Limits:
    """What a node takes into custody: bytes of blobs, wants in all and of one wanter, and for how long."""

    lifetime_s: float
    custody_bytes: int
    wants_max: int = 1024
    per_wanter_max: int = 64


class Answer(enum.StrEnum):
    """What becomes of a want that is offered; the text is for people."""

    TAKEN = "taken"
    KNOWN = "known already"
    OWN = "it is this node's own"
    OLD = "a newer version is known"
    EXPIRED = "its lifetime is over"
    IMPOSSIBLE = "no blob can be like that"
    TOO_LARGE = "larger than all that this node keeps for others"
    TOO_MANY = "its wanter has as many wants here as one may"
    FULL = "no room: everything here is as urgent"

    @property
    def is_refusal(self) -> bool:
        return self not in (Answer.TAKEN, Answer.KNOWN, Answer.OWN)


@dataclass(slots=True)
class Entry:
    """One want; `expires_at` and `since` are the table's time, `since_unix` is for people.

    `told` says until when a neighbour need not be told again, by its name and boot.
    """

    want: Want
    version: int
    packet: bytes
    certificate: bytes
    hops: int
    expires_at: float
    since: float
    since_unix: float
    came_from: str = ""
    told: dict[tuple[str, str], float] = field(default_factory=dict)

    @property
    def key(self) -> Key:
        return self.want.wanter, self.want.blob.sha256

    @property
    def is_waiting(self) -> bool:
        return not self.want.withdrawn


@dataclass(frozen=True, slots=True)
class Offered:
    """A verified want as it came: the signed packet, its version, and what its carrier said of the way so far."""

    want: Want
    version: int
    packet: bytes
    certificate: bytes = b""
    hops: int = 0
    left_s: float = 0.0
    came_from: str = ""


class Wants:
    """The table; `changed` and `removed` collect what is to be written until `take_changes`."""

    def __init__(self, node: str, limits: Limits) -> None:
        self.node, self.limits = node, limits
        self._entries: dict[Key, Entry] = {}
        self._by_blob: defaultdict[bytes, set[Key]] = defaultdict(set)
        self._by_wanter: defaultdict[str, set[Key]] = defaultdict(set)
        self._by_packet: dict[bytes, Key] = {}
        self._changed: set[Key] = set()
        self._order: list[Entry] | None = None
        self.custody_bytes = 0  # of the blobs that only others wait for, each counted once
        self.refused: dict[Answer, int] = defaultdict(int)
        self.evictions = 0

    def __len__(self) -> int:
        return len(self._entries)

    def __iter__(self) -> Iterator[Entry]:
        return iter(self._entries.values())

    def get(self, wanter: str, sha256: bytes) -> Entry | None:
        return self._entries.get((wanter, sha256))

    def of_packet(self, packet: bytes) -> Entry | None:
        """The want that this very packet made, which then need not be verified again."""
        key = self._by_packet.get(packet)
        return None if key is None else self._entries[key]

    def in_order(self) -> list[Entry]:
        """Everything that is waited for, the next to be served first: own wants, then by priority and age.

        The list is the table's own, and is never changed: after a change of the table there is another.
        """
        if self._order is None:
            waiting = (entry for entry in self if entry.is_waiting)
            self._order = sorted(waiting, key=lambda e: (not self.is_own(e), e.want.priority, e.since, e.key))
        return self._order

    def is_own(self, entry: Entry) -> bool:
        return entry.want.wanter == self.node

    def wanters(self, sha256: bytes) -> list[Entry]:
        """Who waits for a blob."""
        entries = [self._entries[key] for key in self._by_blob.get(sha256, ())]
        return [entry for entry in entries if entry.is_waiting]

    def _charge(self, sha256: bytes) -> int:
        waiting = self.wanters(sha256)
        return max((e.want.blob.size for e in waiting), default=0) if not any(map(self.is_own, waiting)) else 0

    # --- changes

    def restore(self, entries: Iterable[Entry]) -> None:
        """Puts back what was on the disk."""
        for entry in entries:
            self._put(entry)
            self._changed.discard(entry.key)

    def put_own(self, now: float, now_unix: float, offered: Offered) -> Entry:
        """Takes a want, or a withdrawal, that this node has signed itself."""
        old = self.get(*_key(offered.want))
        lifetime_s = min(offered.want.lifetime_s, self.limits.lifetime_s)
        entry = self._make(offered, now, now_unix, lifetime_s, old)
        entry.hops = MAX_HOPS
        self._put(entry)
        return entry

    def offer(self, now: float, now_unix: float, offered: Offered) -> Answer:
        """Judges a verified want of another node, and takes it if it may be."""
        answer = self._judge(now, now_unix, offered)
        if answer.is_refusal:
            self.refused[answer] += 1
        return answer

    def _judge(self, now: float, now_unix: float, offered: Offered) -> Answer:
        want = offered.want
        if want.wanter == self.node:
            return Answer.OWN
        if not _is_possible(want):
            return Answer.IMPOSSIBLE
        old = self.get(*_key(want))
        if old is not None and offered.version <= old.version:
            return self._meet_again(now, old, offered)
        if old is not None and old.want.blob != want.blob:
            return Answer.IMPOSSIBLE
        lifetime_s = min(want.lifetime_s, offered.left_s, self.limits.lifetime_s)
        if lifetime_s <= 0:
            return Answer.EXPIRED
        entry = self._make(offered, now, now_unix, lifetime_s, old)
        if old is None and (refusal := self._make_room(entry)) is not None:
            return refusal
        self._put(entry)
        return Answer.TAKEN

    def _meet_again(self, now: float, old: Entry, offered: Offered) -> Answer:
        """The same version by another way: whoever brought it need not be told, and the shorter way counts."""
        if offered.version < old.version:
            return Answer.OLD
        if offered.came_from:
            self._note_told(old, (offered.came_from, ""), now + TAKEN_S)
        if min(offered.hops, MAX_HOPS - 1) > old.hops:
            old.hops = min(offered.hops, MAX_HOPS - 1)
            self._changed.add(old.key)
        return Answer.KNOWN

    def _make(self, offered: Offered, now: float, now_unix: float, lifetime_s: float, old: Entry | None) -> Entry:
        expires_at = now + lifetime_s
        if offered.want.withdrawn and old is not None:
            expires_at = min(expires_at, old.expires_at)  # it need not be remembered longer than what it withdraws
        entry = Entry(
            offered.want,
            offered.version,
            offered.packet,
            offered.certificate,
            max(0, min(offered.hops, MAX_HOPS - 1)),
            expires_at,
            old.since if old is not None else now,
            old.since_unix if old is not None else now_unix,
            offered.came_from,
        )
        if offered.came_from:
            entry.told[offered.came_from, ""] = now + TAKEN_S
        return entry

    def remove(self, key: Key) -> None:
        entry = self._entries.get(key)
        if entry is None:
            return
        self.custody_bytes -= self._charge(key[1])
        del self._entries[key]
        self._order = None
        self._by_packet.pop(entry.packet, None)
        for table, name in ((self._by_blob, key[1]), (self._by_wanter, key[0])):
            keys: set[Key] = table[name]  # type: ignore[index]
            keys.discard(key)
            if not keys:
                del table[name]  # type: ignore[arg-type]
        self.custody_bytes += self._charge(key[1])
        self._changed.add(key)

    def _put(self, entry: Entry) -> None:
        self.remove(entry.key)
        sha256 = entry.want.blob.sha256
        self.custody_bytes -= self._charge(sha256)
        self._entries[entry.key] = entry
        self._order = None
        self._by_packet[entry.packet] = entry.key
        self._by_blob[sha256].add(entry.key)
        self._by_wanter[entry.want.wanter].add(entry.key)
        self.custody_bytes += self._charge(sha256)
        self._changed.add(entry.key)

    def take_changes(self) -> tuple[list[Entry], list[Key]]:
        """What has to be written and what has to be removed since the last call."""
        changed, self._changed = self._changed, set()
        written = [self._entries[key] for key in changed if key in self._entries]
        return written, [key for key in changed if key not in self._entries]

    def put_back(self, written: Iterable[Entry], removed: Iterable[Key]) -> None:
        """The disk did not take these changes: they are to be written again."""
        self._changed.update(entry.key for entry in written)
        self._changed.update(removed)

    # --- room

    def _make_room(self, entry: Entry) -> Answer | None:
        """Evicts what `entry` may displace until it fits; the refusal when it cannot, with nothing evicted."""
        limits, want = self.limits, entry.want
        size = 0 if want.withdrawn or self.wanters(want.blob.sha256) else want.blob.size
        if size > limits.custody_bytes:
            return Answer.TOO_LARGE
        own = self._by_wanter.get(want.wanter, set())
        victims: list[Key] = []
        if len(own) >= limits.per_wanter_max:
            least = max(own, key=lambda key: self._worth(key, {}))
            if self._entries[least].is_waiting and self._entries[least].want.priority <= want.priority:
                return Answer.TOO_MANY
            victims.append(least)
        if not self._fits(size, victims):
            victims = self._find_victims(entry, size, victims)
            if not self._fits(size, victims):
                return Answer.FULL
        for key in victims:
            self.evictions += 1
            self.remove(key)
        return None

    def _fits(self, size: int, without: Collection[Key]) -> bool:
        others = len(self._entries) - len(self._by_wanter.get(self.node, ())) - len(without)
        if others >= self.limits.wants_max:
            return False
        freed = sum(self._charge(key[1]) for key in without if self._is_only(key, without))
        return not size or self.custody_bytes - freed + size <= self.limits.custody_bytes

    def _is_only(self, key: Key, without: Collection[Key]) -> bool:
        """Whether nobody but those in `without` waits for the blob; of those the first counts for all."""
        rest = [e.key for e in self.wanters(key[1]) if e.key not in without]
        return not rest and key == min(k for k in without if k[1] == key[1])

    def _find_victims(self, entry: Entry, size: int, victims: list[Key]) -> list[Key]:
        want, taken = entry.want, {w: self._taken_bytes(w) for w in self._by_wanter}
        taken[want.wanter] = mine = taken.get(want.wanter, 0) + want.blob.size
        candidates = sorted(
            (key for key, e in self._entries.items() if not self.is_own(e) and key not in victims),
            key=lambda key: self._worth(key, taken),
            reverse=True,
        )
        found = list(victims)
        lacking = self.custody_bytes + size - self.limits.custody_bytes
        for key in candidates:
            other = self._entries[key]
            is_lesser = (
                not other.is_waiting
                or other.want.priority > want.priority
                or (other.want.priority == want.priority and taken[key[0]] > mine)
            )
            if want.withdrawn or not is_lesser:
                continue
            found.append(key)
            if other.is_waiting:
                taken[key[0]] -= other.want.blob.size
                lacking -= other.want.blob.size
            if lacking <= 0 and self._fits(size, found):
                break
        return found

    def _taken_bytes(self, wanter: str) -> int:
        entries = (self._entries[key] for key in self._by_wanter.get(wanter, ()))
        return sum(e.want.blob.size for e in entries if e.is_waiting)

    def _worth(self, key: Key, taken: dict[str, int]) -> tuple[bool, int, int, float]:
        """The greater, the sooner it is evicted: withdrawals, the less urgent, of who takes most, and the younger."""
        entry = self._entries[key]
        return not entry.is_waiting, entry.want.priority, taken.get(key[0], 0), entry.since

    # --- time

    def expire(self, now: float) -> list[Entry]:
        """Removes and returns what is over."""
        over = [entry for entry in self if entry.expires_at <= now]
        for entry in over:
            self.remove(entry.key)
        return over

    def next_deadline(self) -> float | None:
        """When the next want expires."""
        return min((entry.expires_at for entry in self), default=None)

    # --- meetings

    def to_tell(self, now: float, node: str, boot_id: str) -> list[Entry]:
        """What a neighbour is to be told, in this order: own wants and withdrawals, then those of others.

        Not what it wants itself or has brought, and nothing that has no hop left.
        """
        found = [e for e in self if e.hops > 0 and e.want.wanter != node and not self._knows(e, now, node, boot_id)]
        return sorted(found, key=lambda e: (not self.is_own(e), e.is_waiting, e.want.priority, e.since, e.key))

    def told(self, entry: Entry, now: float, node: str, boot_id: str, quiet_s: float = TAKEN_S) -> None:
        """A neighbour has answered; it is left in peace with this want for so long."""
        self._note_told(entry, (node, boot_id), now + quiet_s)

    def _knows(self, entry: Entry, now: float, node: str, boot_id: str) -> bool:
        return max(entry.told.get((node, boot_id), 0.0), entry.told.get((node, ""), 0.0)) > now

    def _note_told(self, entry: Entry, who: tuple[str, str], until: float) -> None:
        entry.told.pop(who, None)
        entry.told[who] = until
        while len(entry.told) > _TOLD_MAX:
            del entry.told[next(iter(entry.told))]


def _key(want: Want) -> Key:
    return want.wanter, want.blob.sha256


def _is_possible(want: Want) -> bool:
    try:
        objects.check(want.blob)
    except BlobError:
        return False
    return want.priority in PRIORITIES and 0 < len(want.wanter) <= 64 and len(want.holders) <= HOLDERS_MAX
