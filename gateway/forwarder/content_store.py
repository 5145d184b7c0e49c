"""Content store in memory: Data that passed by, within a byte budget, small control Data apart from bulk segments."""

from __future__ import annotations

import bisect
from collections import OrderedDict
from dataclasses import dataclass

from gateway.forwarder.packet import Data, read_tlv
from gateway.protocol.names import Name

# Data from this size on is bulk; an image of any size must not push decisions and reports out.
BULK_BYTES = 2048
CONTROL_SHARE = 0.25
# Python's own cost of an entry (objects, two dictionary slots, the sorted name), measured; counted against the budget.
ENTRY_OVERHEAD_BYTES = 480
# Pinned Data is kept whatever happens: heads, certificates and specifications, a few dozen packets.
PINNED_MAX = 1024
# How many packets below a prefix are looked at: an Interest for a short prefix must not cost a walk through the store.
PREFIX_SCAN_MAX = 256


@dataclass(slots=True)
class _Entry:
    data: Data
    stale_at: float


class ContentStore:
    """Least recently used packets leave first, in each of the two classes by its own budget."""

    def __init__(self, capacity_bytes: int) -> None:
        self._entries: dict[Name, _Entry] = {}
        self._names: list[Name] = []
        self._bulk: OrderedDict[Name, int] = OrderedDict()
        self._control: OrderedDict[Name, int] = OrderedDict()
        self._pinned: set[Name] = set()
        self.bulk_bytes = 0
        self.control_bytes = 0
        self.set_capacity(capacity_bytes)

    def set_capacity(self, capacity_bytes: int) -> None:
        self.capacity_bytes = capacity_bytes
        self._control_capacity = int(capacity_bytes * CONTROL_SHARE)
        self._bulk_capacity = capacity_bytes - self._control_capacity
        self._evict()

    def __len__(self) -> int:
        return len(self._entries)

    @property
    def size_bytes(self) -> int:
        return self.bulk_bytes + self.control_bytes

    def insert(self, data: Data, now: float) -> bool:
        """Admits a packet; one of the same name is replaced, unless it is pinned. Whether the store holds it now."""
        name = data.name
        if name in self._pinned:
            return False
        if name in self._entries:
            self._erase(name)
        is_bulk = len(data.wire) >= BULK_BYTES
        cost = len(data.wire) + len(name) + ENTRY_OVERHEAD_BYTES
        if cost > (self._bulk_capacity if is_bulk else self._control_capacity):
            return False
        self._entries[name] = _Entry(data, now + data.freshness_ms / 1000)
        bisect.insort(self._names, name)
        if is_bulk:
            self._bulk[name] = cost
            self.bulk_bytes += cost
        else:
            self._control[name] = cost
            self.control_bytes += cost
        self._evict()
        return True

    def pin(self, data: Data) -> None:
        """Keeps a verified packet until it is unpinned; it never counts as fresh, so that a newer one can be found."""
        if data.name not in self._pinned and len(self._pinned) >= PINNED_MAX:
            return
        if data.name in self._entries:
            self._erase(data.name)
        self._entries[data.name] = _Entry(data, float("-inf"))
        bisect.insort(self._names, data.name)
        self._pinned.add(data.name)

    def unpin(self, name: Name) -> None:
        if name in self._pinned:
            self._erase(name)

    def find(
        self,
        name: Name,
        now: float,
        can_be_prefix: bool = False,
        must_be_fresh: bool = False,
        digest: bytes | None = None,
    ) -> Data | None:
        """The packet that answers such an Interest; another digest, or stale where fresh is asked, is a miss."""
        entry = self._entries.get(name)
        if entry is not None and self._fits(entry, now, must_be_fresh, digest):
            self._touch(name)
            return entry.data
        if can_be_prefix and digest is None:
            return self._find_below(name, now, must_be_fresh)
        return None

    def erase_below(self, prefix: Name) -> int:
        """Removes what is not pinned below a prefix; how many packets that were."""
        start, stop = self._range(prefix)
        doomed = [name for name in self._names[start:stop] if name not in self._pinned]
        for name in doomed:
            self._erase(name)
        return len(doomed)

    def _find_below(self, prefix: Name, now: float, must_be_fresh: bool) -> Data | None:
        """The newest version below a prefix, of it the first segment.

        In the order of names a greater number comes later, since its length comes before its digits.
        """
        start, stop = self._range(prefix)
        newest = self._first_fitting(range(stop - 1, max(start, stop - PREFIX_SCAN_MAX) - 1, -1), now, must_be_fresh)
        if newest is None:
            return None
        if len(newest) > len(prefix):
            _, _, end = read_tlv(newest, len(prefix), len(newest))
            start, stop = self._range(newest[:end])
            newest = self._first_fitting(range(start, min(stop, start + PREFIX_SCAN_MAX)), now, must_be_fresh) or newest
        self._touch(newest)
        return self._entries[newest].data

    def _first_fitting(self, places: range, now: float, must_be_fresh: bool) -> Name | None:
        for place in places:
            name = self._names[place]
            if self._fits(self._entries[name], now, must_be_fresh, None):
                return name
        return None

    def _range(self, prefix: Name) -> tuple[int, int]:
        """Where the names below a prefix begin and end; no TLV type in a name begins with 0xff."""
        start = bisect.bisect_left(self._names, prefix)
        return start, bisect.bisect_left(self._names, prefix + b"\xff", start)

    @staticmethod
    def _fits(entry: _Entry, now: float, must_be_fresh: bool, digest: bytes | None) -> bool:
        if must_be_fresh and entry.stale_at <= now:
            return False
        return digest is None or entry.data.digest == digest

    def _touch(self, name: Name) -> None:
        if name in self._bulk:
            self._bulk.move_to_end(name)
        elif name in self._control:
            self._control.move_to_end(name)

    def _evict(self) -> None:
        while self.bulk_bytes > self._bulk_capacity and self._bulk:
            self._erase(next(iter(self._bulk)))
        while self.control_bytes > self._control_capacity and self._control:
            self._erase(next(iter(self._control)))

    def _erase(self, name: Name) -> None:
        del self._entries[name]
        del self._names[bisect.bisect_left(self._names, name)]
        self._pinned.discard(name)
        if name in self._bulk:
            self.bulk_bytes -= self._bulk.pop(name)
        elif name in self._control:
            self.control_bytes -= self._control.pop(name)
