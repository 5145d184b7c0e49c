"""Content store in memory: Data that passed by, within a byte budget, small control Data apart from bulk segments."""

from __future__ import annotations

import bisect
from collections import deque
from collections.abc import Collection, Iterable

from gateway.forwarder.packet import Data, implicit_digest, read_tlv
from gateway.protocol import names
from gateway.protocol.names import IMPLICIT_DIGEST, PARAMETERS_DIGEST, Name

# Data from this size on is bulk; an image of any size must not push decisions and reports out.
BULK_BYTES = 2048
CONTROL_SHARE = 0.25
# What was not asked for again may take this share of a class, so that a scan passes by what was.
PROBATION_SHARE = 0.1
# Python's own cost of an entry (objects, dictionary slot, the name), measured; counted against the budget.
ENTRY_OVERHEAD_BYTES = 320
# Pinned Data is kept whatever happens: heads, certificates and specifications, a few dozen packets.
PINNED_MAX = 1024
# How many packets below a prefix are looked at: an Interest for a short prefix must not cost a walk through the store.
PREFIX_SCAN_MAX = 256
# So many changes are put into the sorted names one by one; after more it is cheaper to sort them anew.
_CHANGES_MAX = 512
# Packets that left out of turn are swept out of their queue when they outnumber the others and this.
_GONE_MIN = 64

_LOCALHOST = names.parse("/localhost")
_NEVER_FRESH = float("-inf")


class Stored:
    """A packet in the store; `is_asked` since it came in, or since its turn to leave came last.

    `is_plain`: who asks for just this name gets this packet; there is no digest in the name, and it is not of this
    machine's own scope. `queue` is None for a pinned packet and for one that has left.
    """

    __slots__ = ("_digest", "is_asked", "is_plain", "name", "queue", "stale_at", "wire")

    def __init__(self, name: Name, wire: bytes, stale_at: float, is_plain: bool, digest: bytes | None = None) -> None:
        self.name, self.wire, self.stale_at, self.is_plain, self._digest = name, wire, stale_at, is_plain, digest
        self.is_asked = False
        self.queue: deque[Stored] | None = None

    @property
    def digest(self) -> bytes:
        """The implicit digest, computed when it is asked for first."""
        if self._digest is None:
            self._digest = implicit_digest(self.wire)
        return self._digest


class _Class:
    """One class's packets in the order in which they leave: S3-FIFO (Yang et al., SOSP 2023), with one bit a packet.

    A packet comes on probation. When its turn comes it stays if it was asked for meanwhile, and so does one that
    comes again soon after it had to leave: who passes once can't push out who is asked for again and again.
    """

    def __init__(self) -> None:
        self.capacity_bytes = self.size_bytes = 0
        self._probation: deque[Stored] = deque()
        self._settled: deque[Stored] = deque()
        self._probation_bytes = self._gone = 0
        # Hashes of the names that left on probation, in two generations.
        self._left: set[int] = set()
        self._left_before: set[int] = set()

    def push(self, packet: Stored, cost_bytes: int) -> None:
        item = hash(packet.name)
        if item in self._left or item in self._left_before:
            queue = self._settled
        else:
            queue = self._probation
            self._probation_bytes += cost_bytes
        packet.queue = queue
        queue.append(packet)
        self.size_bytes += cost_bytes

    def pop(self) -> Stored:
        """The next packet to leave; there must be one."""
        probation, settled = self._probation, self._settled
        while True:
            is_new = self._probation_bytes > self.capacity_bytes * PROBATION_SHARE or (
                self._probation_bytes == self.size_bytes
            )
            queue = probation if is_new else settled
            packet = queue.popleft()
            if packet.queue is not queue:
                self._gone -= 1
                continue
            if is_new:
                self._probation_bytes -= _cost_bytes(packet)
            if packet.is_asked:
                packet.is_asked, packet.queue = False, settled
                settled.append(packet)
                continue
            packet.queue = None
            self.size_bytes -= _cost_bytes(packet)
            if is_new:
                self._remember(packet.name)
            return packet

    def remove(self, packet: Stored) -> None:
        """Takes a packet out before its turn."""
        cost_bytes = _cost_bytes(packet)
        self.size_bytes -= cost_bytes
        if packet.queue is self._probation:
            self._probation_bytes -= cost_bytes
        packet.queue = None
        self._gone += 1
        if self._gone > _GONE_MIN and 2 * self._gone > len(self._probation) + len(self._settled):
            for queue in (self._probation, self._settled):
                live = [one for one in queue if one.queue is queue]
                queue.clear()
                queue.extend(live)
            self._gone = 0

    def _remember(self, name: Name) -> None:
        if 2 * len(self._left) > len(self._settled) + len(self._probation):
            self._left_before, self._left = self._left, set()
        self._left.add(hash(name))


class _SortedNames:
    """The names in the store in their order, brought up to date when somebody looks."""

    def __init__(self, present: Collection[Name]) -> None:
        self._present = present
        self._names: list[Name] = []
        self._changed: list[Name] | None = []

    def change(self, name: Name) -> None:
        """This name may have come or gone."""
        changed = self._changed
        if changed is not None:
            changed.append(name)
            if len(changed) > _CHANGES_MAX:
                self._changed, self._names = None, []

    def below(self, prefix: Name) -> tuple[list[Name], int, int]:
        """All names, and where those below a prefix begin and end; no TLV type in a name begins with 0xff."""
        self._update()
        found = self._names
        start = bisect.bisect_left(found, prefix)
        return found, start, bisect.bisect_left(found, prefix + b"\xff", start)

    def _update(self) -> None:
        if self._changed is None:
            self._names = sorted(self._present)
        for name in self._changed or ():
            place = bisect.bisect_left(self._names, name)
            is_there = place < len(self._names) and self._names[place] == name
            if is_there and name not in self._present:
                del self._names[place]
            elif not is_there and name in self._present:
                self._names.insert(place, name)
        self._changed = []


class ContentStore:
    """`packets` is for the forwarder's fast lane; everybody else uses `find`.

    Nothing new comes in while it is not `is_admitting`, nothing is found while it is not `is_serving`.
    """

    def __init__(self, capacity_bytes: int) -> None:
        self.packets: dict[Name, Stored] = {}
        self._sorted = _SortedNames(self.packets.keys())
        self._bulk, self._control = _Class(), _Class()
        self._pinned = 0
        self.is_admitting = self.is_serving = True
        self.set_capacity(capacity_bytes)

    def set_capacity(self, capacity_bytes: int) -> None:
        self.capacity_bytes = capacity_bytes
        self._control.capacity_bytes = int(capacity_bytes * CONTROL_SHARE)
        self._bulk.capacity_bytes = capacity_bytes - self._control.capacity_bytes
        self._evict(self._bulk)
        self._evict(self._control)

    def __len__(self) -> int:
        return len(self.packets)

    @property
    def bulk_bytes(self) -> int:
        return self._bulk.size_bytes

    @property
    def control_bytes(self) -> int:
        return self._control.size_bytes

    @property
    def size_bytes(self) -> int:
        return self._bulk.size_bytes + self._control.size_bytes

    def insert(self, data: Data, now: float) -> bool:
        """Admits a packet; one of the same name is replaced, unless it is pinned. Whether the store holds it now."""
        return self.admit(data.name, data.wire, data.freshness_ms, now, is_plain(data.name))

    def admit(
        self,
        name: Name,
        wire: bytes,
        freshness_ms: int,
        now: float,
        is_plain: bool,
        digest: bytes | None = None,
    ) -> bool:
        """The same for who knows the fields already; `is_plain` as in Stored."""
        packets = self.packets
        if not self.is_admitting:
            return False
        old = packets.get(name)
        if old is not None:
            if old.queue is None:
                return False
            self._erase(old)
        size_bytes = len(wire)
        kind = self._bulk if size_bytes >= BULK_BYTES else self._control
        cost_bytes = size_bytes + len(name) + ENTRY_OVERHEAD_BYTES
        if cost_bytes > kind.capacity_bytes:
            return False
        packet = Stored(name, wire, now + freshness_ms / 1000 if freshness_ms else _NEVER_FRESH, is_plain, digest)
        packets[name] = packet
        self._sorted.change(name)
        kind.push(packet, cost_bytes)
        if kind.size_bytes > kind.capacity_bytes:
            self._evict(kind)
        return True

    def pin(self, data: Data) -> None:
        """Keeps a verified packet until it is unpinned; it never counts as fresh, so that a newer one can be found."""
        old = self.packets.get(data.name)
        if old is None or old.queue is not None:
            if self._pinned >= PINNED_MAX:
                return
            self._pinned += 1
            if old is not None:
                self._erase(old)
        self.packets[data.name] = Stored(data.name, data.wire, _NEVER_FRESH, is_plain(data.name))
        self._sorted.change(data.name)

    def unpin(self, name: Name) -> None:
        packet = self.packets.get(name)
        if packet is not None and packet.queue is None:
            self._pinned -= 1
            self._erase(packet)

    def find(
        self,
        name: Name,
        now: float,
        can_be_prefix: bool = False,
        must_be_fresh: bool = False,
        digest: bytes | None = None,
    ) -> Stored | None:
        """The packet that answers such an Interest; another digest, or stale where fresh is asked, is a miss."""
        if not self.is_serving:
            return None
        packet = self.packets.get(name)
        if packet is None or not self._fits(packet, now, must_be_fresh, digest):
            packet = self._find_below(name, now, must_be_fresh) if can_be_prefix and digest is None else None
        if packet is not None:
            packet.is_asked = True
        return packet

    def erase_below(self, prefix: Name, limit: int | None = None) -> int:
        """Removes what is not pinned below a prefix, at most `limit` packets; how many that were."""
        found, start, stop = self._sorted.below(prefix)
        doomed = [packet for name in found[start:stop] if (packet := self.packets[name]).queue is not None]
        doomed = doomed[:limit]
        for packet in doomed:
            self._erase(packet)
        return len(doomed)

    def _find_below(self, prefix: Name, now: float, must_be_fresh: bool) -> Stored | None:
        """The newest version below a prefix, of it the first segment.

        In the order of names a greater number comes later, since its length comes before its digits.
        """
        found, start, stop = self._sorted.below(prefix)
        last = max(start, stop - PREFIX_SCAN_MAX)
        newest = self._first_fitting((found[place] for place in range(stop - 1, last - 1, -1)), now, must_be_fresh)
        if newest is None or len(newest.name) <= len(prefix):
            return newest
        _, _, end = read_tlv(newest.name, len(prefix), len(newest.name))
        found, start, stop = self._sorted.below(newest.name[:end])
        return self._first_fitting(found[start : min(stop, start + PREFIX_SCAN_MAX)], now, must_be_fresh) or newest

    def _first_fitting(self, found: Iterable[Name], now: float, must_be_fresh: bool) -> Stored | None:
        for name in found:
            packet = self.packets[name]
            if self._fits(packet, now, must_be_fresh, None):
                return packet
        return None

    @staticmethod
    def _fits(packet: Stored, now: float, must_be_fresh: bool, digest: bytes | None) -> bool:
        if must_be_fresh and packet.stale_at <= now:
            return False
        return digest is None or packet.digest == digest

    def _evict(self, kind: _Class) -> None:
        while kind.size_bytes > kind.capacity_bytes:
            name = kind.pop().name
            del self.packets[name]
            self._sorted.change(name)

    def _erase(self, packet: Stored) -> None:
        del self.packets[packet.name]
        self._sorted.change(packet.name)
        if packet.queue is not None:
            (self._bulk if len(packet.wire) >= BULK_BYTES else self._control).remove(packet)


def _cost_bytes(packet: Stored) -> int:
    return len(packet.wire) + len(packet.name) + ENTRY_OVERHEAD_BYTES


def is_plain(name: Name) -> bool:
    """Whether Data of this name is plain, as in Stored."""
    if name.startswith(_LOCALHOST):
        return False
    at = 0
    # Almost no name has such a byte.
    while (b"\x01" in name or b"\x02" in name) and at < len(name):
        kind, _, at = read_tlv(name, at, len(name))
        if kind in (IMPLICIT_DIGEST, PARAMETERS_DIGEST):
            return False
    return True
