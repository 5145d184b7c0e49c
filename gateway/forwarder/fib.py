"""Forwarding Information Base: which faces lead to a name prefix, and at what cost."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from gateway.forwarder.packet import component_ends
from gateway.protocol.names import Name


@dataclass(frozen=True, slots=True)
class NextHop:
    face_id: int
    cost: int
    origin: str


class Fib:
    """Prefix -> next hops, cheapest first. A route is known by prefix, face and origin, as in NFD's RIB.

    `version` grows with every change, for who remembers what was looked up.
    """

    def __init__(self) -> None:
        self._entries: dict[Name, tuple[NextHop, ...]] = {}
        self.version = 0

    def __contains__(self, prefix: Name) -> bool:
        return prefix in self._entries

    def add(self, prefix: Name, face_id: int, cost: int, origin: str) -> None:
        kept = [h for h in self._entries.get(prefix, ()) if (h.face_id, h.origin) != (face_id, origin)]
        hops = sorted([*kept, NextHop(face_id, cost, origin)], key=lambda h: (h.cost, h.face_id))
        self._put(prefix, tuple(hops))

    def remove(self, prefix: Name, face_id: int, origin: str | None = None) -> bool:
        """Removes a face's route for the prefix (every origin's when none is given); whether there was one."""
        old = self._entries.get(prefix, ())
        kept = tuple(h for h in old if h.face_id != face_id or (origin is not None and h.origin != origin))
        self._put(prefix, kept)
        return len(kept) < len(old)

    def remove_face(self, face_id: int) -> None:
        for prefix, hops in list(self._entries.items()):
            self._put(prefix, tuple(h for h in hops if h.face_id != face_id))

    def remove_origin(self, origin: str) -> None:
        for prefix, hops in list(self._entries.items()):
            self._put(prefix, tuple(h for h in hops if h.origin != origin))

    def longest_prefix_match(self, name: Name) -> tuple[NextHop, ...]:
        """The next hops of the longest prefix of `name` that has any, the name itself included."""
        return self._entries.get(self.longest_prefix(name), ())

    def longest_prefix(self, name: Name) -> Name:
        """The longest prefix of `name` that has next hops; the empty name where there is none."""
        entries = self._entries
        if name in entries:
            return name
        for end in reversed(component_ends(name)[:-1]):
            if name[:end] in entries:
                return name[:end]
        return b""

    def __iter__(self) -> Iterator[tuple[Name, tuple[NextHop, ...]]]:
        return iter(sorted(self._entries.items()))

    def __len__(self) -> int:
        return len(self._entries)

    def _put(self, prefix: Name, hops: tuple[NextHop, ...]) -> None:
        self.version += 1
        if hops:
            self._entries[prefix] = hops
        else:
            self._entries.pop(prefix, None)
