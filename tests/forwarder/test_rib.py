"""The RIB against a model that computes every next hop anew, and each rule of inheritance by itself."""

from __future__ import annotations

import math
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from gateway.forwarder import rib
from gateway.forwarder.fib import Fib
from gateway.forwarder.rib import CAPTURE, CHILD_INHERIT, Rib, Route
from gateway.protocol import names

PREFIXES = [names.parse(uri) if uri else b"" for uri in ("", "/a", "/a/b", "/a/b/c", "/a/d", "/ab", "/e/f")]


class World:
    """A RIB with the FIB that follows it."""

    def __init__(self) -> None:
        self.rib, self.fib = Rib(), Fib()

    def add(self, uri: str, face_id: int, **options: Any) -> None:
        rib.apply(self.rib.add(_name(uri), Route(face_id, **options)), self.fib)

    def remove(self, uri: str, face_id: int, origin: int = 0) -> None:
        rib.apply(self.rib.remove(_name(uri), face_id, origin), self.fib)

    def hops(self, uri: str) -> dict[int, int]:
        """The next hops that the FIB has for exactly this prefix."""
        return {hop.face_id: hop.cost for prefix, hops in self.fib for hop in hops if prefix == _name(uri)}


def _name(uri: str) -> bytes:
    return names.parse(uri) if uri != "/" else b""


def test_a_route_serves_longer_prefixes_that_have_their_own() -> None:
    """With child-inherit a route is a next hop of longer prefixes too, until it goes; without it is not."""
    world = World()
    world.add("/a", 1, cost=7)
    world.add("/a/x", 2, cost=3, flags=0)
    world.add("/a/b", 3)
    assert world.hops("/a/b") == {3: 0, 1: 7}
    assert world.hops("/a/x") == {2: 3, 1: 7}
    world.add("/a/x/y", 4)
    assert world.hops("/a/x/y") == {4: 0, 1: 7}
    world.remove("/a", 1)
    assert (world.hops("/a"), world.hops("/a/b"), world.hops("/a/x/y")) == ({}, {3: 0}, {4: 0})


def test_a_prefix_without_routes_of_its_own_has_no_fib_entry() -> None:
    """Inheritance makes no entries: when the last own route goes, the inherited next hops go with it."""
    world = World()
    world.add("/a", 1)
    world.add("/a/b", 2)
    world.remove("/a/b", 2)
    assert [prefix for prefix, _ in world.fib] == [names.parse("/a")]


def test_capture_shuts_out_the_routes_of_shorter_prefixes() -> None:
    """What captures takes nothing from above, and what is below takes from it alone."""
    world = World()
    world.add("/", 1)
    world.add("/a", 2, flags=CAPTURE | CHILD_INHERIT)
    world.add("/a/b", 3)
    world.add("/c", 4)
    assert (world.hops("/a"), world.hops("/a/b"), world.hops("/c")) == ({2: 0}, {3: 0, 2: 0}, {4: 0, 1: 0})
    world.remove("/a", 2)
    assert world.hops("/a/b") == {3: 0, 1: 0}


def test_the_cheapest_route_of_a_face_counts_and_the_own_one_before_the_inherited() -> None:
    """Of several origins the cheapest is the next hop; a route that a prefix has itself hides the inherited cost."""
    world = World()
    world.add("/a", 1, origin=0, cost=9)
    world.add("/a", 1, origin=255, cost=4)
    world.add("/a/b", 1, cost=20)
    assert (world.hops("/a"), world.hops("/a/b")) == ({1: 4}, {1: 20})
    world.remove("/a", 1, 255)
    assert world.hops("/a") == {1: 9}


def test_the_nearest_prefix_is_inherited_from_first() -> None:
    """A face that two shorter prefixes lead to has the cost that the nearer one says."""
    world = World()
    world.add("/", 1, cost=1)
    world.add("/a", 1, cost=50)
    world.add("/a/b", 2)
    assert world.hops("/a/b") == {2: 0, 1: 50}


def test_a_route_ends_when_its_time_is_over() -> None:
    """An expiring route goes at its time, a refreshed one at its new time, and one without time stays."""
    world = World()
    world.add("/a", 1, expiry=10.0)
    world.add("/b", 1, expiry=11.0)
    world.add("/b", 1, expiry=30.0)
    world.add("/c", 1)
    assert world.rib.next_deadline() == 10.0
    rib.apply(world.rib.on_timer(20.0), world.fib)
    assert (world.hops("/a"), world.hops("/b"), world.hops("/c")) == ({}, {1: 0}, {1: 0})
    assert world.rib.next_deadline() == 30.0
    rib.apply(world.rib.on_timer(30.0), world.fib)
    assert world.hops("/b") == {} and world.rib.next_deadline() is None and len(world.rib) == 1


def test_refreshing_a_route_does_not_gather_timers() -> None:
    """A client that refreshes its route for ever costs no more memory than one that registered once."""
    world = World()
    for second in range(2000):
        world.add("/a", 1, expiry=second + 1200.0)
    assert len(world.rib._expiries) < 200


def test_a_face_that_is_gone_takes_its_routes_along() -> None:
    """Every route to it goes, whatever inherited from it too, and what captured no longer does."""
    world = World()
    world.add("/", 1)
    world.add("/a", 2, flags=CAPTURE)
    world.add("/a/b", 3)
    assert world.hops("/a/b") == {3: 0}
    rib.apply(world.rib.remove_face(2), world.fib)
    assert world.hops("/a/b") == {3: 0, 1: 0} and world.hops("/a") == {}
    rib.apply(world.rib.remove_face(3), world.fib)
    assert [prefix for prefix, _ in world.rib] == [b""] and len(world.rib) == 1


def expected(table: Rib, prefix: bytes) -> dict[int, int]:
    """The next hops of a prefix by the rules, from nothing but the routes."""
    rows = dict(table)
    parts = names.components(prefix)
    hops: dict[int, int] = {}
    for length in range(len(parts), -1, -1):
        ancestor = b"".join(parts[:length])
        routes = rows.get(ancestor, ())
        here: dict[int, int] = {}
        for route in routes:
            if length == len(parts) or route.flags & CHILD_INHERIT:
                here[route.face_id] = min(route.cost, here.get(route.face_id, route.cost))
        hops = {**here, **hops}
        if any(route.flags & CAPTURE for route in routes):
            break
    return hops


steps = st.lists(
    st.one_of(
        st.builds(
            lambda *a: ("add", *a),
            st.sampled_from(PREFIXES),
            st.integers(1, 3),
            st.integers(0, 1),
            st.integers(0, 3),
            st.integers(0, 3),
            st.sampled_from([1.0, 2.0, math.inf]),
        ),
        st.builds(lambda *a: ("remove", *a), st.sampled_from(PREFIXES), st.integers(1, 3), st.integers(0, 1)),
        st.builds(lambda face_id: ("remove_face", face_id), st.integers(1, 3)),
        st.builds(lambda now: ("timer", now), st.sampled_from([1.0, 2.0])),
    ),
    max_size=40,
)


@given(steps)
def test_the_fib_always_is_what_the_routes_say(history: list[tuple[Any, ...]]) -> None:
    """After any changes the FIB, led by updates alone, has the next hops that the rules give for the routes there."""
    world = World()
    for action, *values in history:
        if action == "add":
            prefix, face_id, origin, cost, flags, expiry = values
            updates = world.rib.add(prefix, Route(face_id, origin, cost, flags, expiry))
        elif action == "remove":
            updates = world.rib.remove(*values)
        elif action == "remove_face":
            updates = world.rib.remove_face(*values)
        else:
            updates = world.rib.on_timer(*values)
        rib.apply(updates, world.fib)
    found = {prefix: {hop.face_id: hop.cost for hop in hops} for prefix, hops in world.fib}
    assert found == {prefix: expected(world.rib, prefix) for prefix, _ in world.rib}
    assert len(world.rib) == sum(len(routes) for _, routes in world.rib)
    assert set(world.rib._of_face) == {route.face_id for _, routes in world.rib for route in routes}
