"""Routing Information Base: the routes that applications and operators ask for, and the next hops that follow.

A route is known by prefix, face and origin. With `CHILD_INHERIT` it serves longer prefixes too, where they have routes
of their own; `CAPTURE` shuts a prefix and what is below it off from the routes of shorter ones. Each change gives the
updates that make the FIB follow, with one next hop a prefix and face: the cheapest route's, own before inherited.
Pure: `now` is monotonic time in seconds.
"""

from __future__ import annotations

import bisect
import heapq
import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from gateway.forwarder.fib import Fib
from gateway.forwarder.packet import component_ends
from gateway.protocol.names import Name

CHILD_INHERIT, CAPTURE = 1, 2
# What the FIB calls the origin of every next hop that comes from here.
FIB_ORIGIN = "application"


@dataclass(frozen=True, slots=True)
class Route:
    """`expiry` is when the route ends by itself, infinity when it does not."""

    face_id: int
    origin: int = 0
    cost: int = 0
    flags: int = CHILD_INHERIT
    expiry: float = math.inf


@dataclass(frozen=True, slots=True)
class FibUpdate:
    """The prefix's next hop by this face has this cost from now on; with None there is none any more."""

    prefix: Name
    face_id: int
    cost: int | None


class Rib:
    """Prefix -> routes; what stands in the FIB because of them is remembered, so that updates are differences."""

    def __init__(self) -> None:
        self._routes: dict[Name, dict[tuple[int, int], Route]] = {}
        self._prefixes: list[Name] = []
        self._hops: dict[Name, dict[int, int]] = {}
        self._of_face: dict[int, set[Name]] = {}
        self._expiries: list[tuple[float, Name, int, int]] = []
        self._size = 0

    def __len__(self) -> int:
        """How many routes there are."""
        return self._size

    def __iter__(self) -> Iterator[tuple[Name, tuple[Route, ...]]]:
        """Every prefix with its own routes, by face and origin."""
        for prefix in list(self._prefixes):
            routes = self._routes[prefix]
            yield prefix, tuple(routes[key] for key in sorted(routes))

    def routes(self, prefix: Name) -> tuple[Route, ...]:
        return tuple(self._routes.get(prefix, {}).values())

    def add(self, prefix: Name, route: Route) -> list[FibUpdate]:
        """Adds a route, or replaces the one of the same face and origin."""
        key = route.face_id, route.origin
        routes = self._routes.get(prefix)
        if routes is None:
            routes = self._routes[prefix] = {}
            bisect.insort(self._prefixes, prefix)
        old = routes.get(key)
        self._size += old is None
        routes[key] = route
        self._of_face.setdefault(route.face_id, set()).add(prefix)
        if route.expiry != math.inf:
            self._drop_stale_timers()
            heapq.heappush(self._expiries, (route.expiry, prefix, *key))
        return self._follow(prefix, (route, old))

    def remove(self, prefix: Name, face_id: int, origin: int) -> list[FibUpdate]:
        """Removes a route; one that is not there changes nothing."""
        old = self._take(prefix, face_id, origin)
        return [] if old is None else self._follow(prefix, (old,))

    def remove_face(self, face_id: int) -> list[FibUpdate]:
        """Removes every route to a face that is gone."""
        updates: list[FibUpdate] = []
        for prefix in sorted(self._of_face.get(face_id, ())):
            doomed = [route for route in self.routes(prefix) if route.face_id == face_id]
            for route in doomed:
                self._take(prefix, face_id, route.origin)
            updates += self._follow(prefix, doomed)
        return updates

    def next_deadline(self) -> float | None:
        """When the next route ends by itself."""
        heap = self._expiries
        while heap and not self._is_current(heap[0]):
            heapq.heappop(heap)
        return heap[0][0] if heap else None

    def on_timer(self, now: float) -> list[FibUpdate]:
        """Removes the routes whose time is over."""
        updates: list[FibUpdate] = []
        while (deadline := self.next_deadline()) is not None and deadline <= now:
            _, prefix, face_id, origin = heapq.heappop(self._expiries)
            updates += self.remove(prefix, face_id, origin)
        return updates

    # --- what follows

    def _take(self, prefix: Name, face_id: int, origin: int) -> Route | None:
        routes = self._routes.get(prefix, {})
        route = routes.pop((face_id, origin), None)
        if route is None:
            return None
        self._size -= 1
        if not any(other == face_id for other, _ in routes):
            self._of_face[face_id].discard(prefix)
            if not self._of_face[face_id]:
                del self._of_face[face_id]
        if not routes:
            del self._routes[prefix]
            del self._prefixes[bisect.bisect_left(self._prefixes, prefix)]
        return route

    def _follow(self, prefix: Name, changed: Iterable[Route | None]) -> list[FibUpdate]:
        """The updates after a change of these routes: of the prefix alone, unless others inherit from it."""
        concerned = [prefix]
        if any(route is not None and route.flags for route in changed):
            start = bisect.bisect_right(self._prefixes, prefix)
            # No component's type begins with 0xff, so this is behind every longer name.
            stop = bisect.bisect_left(self._prefixes, prefix + b"\xff", start)
            concerned += self._prefixes[start:stop]
        return [update for each in concerned for update in self._update(each)]

    def _update(self, prefix: Name) -> list[FibUpdate]:
        old, new = self._hops.get(prefix, {}), self._next_hops(prefix)
        if new:
            self._hops[prefix] = new
        else:
            self._hops.pop(prefix, None)
        gone = [FibUpdate(prefix, face_id, None) for face_id in old if face_id not in new]
        return gone + [FibUpdate(prefix, face_id, cost) for face_id, cost in new.items() if old.get(face_id) != cost]

    def _next_hops(self, prefix: Name) -> dict[int, int]:
        """Face -> cost: the own routes, then those of shorter prefixes, nearest first, up to one that captures."""
        own = self._routes.get(prefix)
        if own is None:
            return {}
        hops = _cheapest(own.values())
        if any(route.flags & CAPTURE for route in own.values()):
            return hops
        for end in reversed([0, *component_ends(prefix)[:-1]] if prefix else ()):
            routes = self._routes.get(prefix[:end], {}).values()
            inherited = _cheapest(route for route in routes if route.flags & CHILD_INHERIT)
            hops = inherited | hops
            if any(route.flags & CAPTURE for route in routes):
                break
        return hops

    def _is_current(self, timer: tuple[float, Name, int, int]) -> bool:
        expiry, prefix, face_id, origin = timer
        route = self._routes.get(prefix, {}).get((face_id, origin))
        return route is not None and route.expiry == expiry

    def _drop_stale_timers(self) -> None:
        """A route that is refreshed again and again leaves timers behind; they are swept out when most are stale."""
        if len(self._expiries) > 2 * self._size + 64:
            self._expiries = [timer for timer in self._expiries if self._is_current(timer)]
            heapq.heapify(self._expiries)


def apply(updates: Iterable[FibUpdate], fib: Fib) -> None:
    """Makes the FIB follow."""
    for update in updates:
        if update.cost is None:
            fib.remove(update.prefix, update.face_id, FIB_ORIGIN)
        else:
            fib.add(update.prefix, update.face_id, update.cost, FIB_ORIGIN)


def _cheapest(routes: Iterable[Route]) -> dict[int, int]:
    hops: dict[int, int] = {}
    for route in routes:
        hops[route.face_id] = min(route.cost, hops.get(route.face_id, route.cost))
    return hops
