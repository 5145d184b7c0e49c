"""The FIB against a plain list of routes."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from gateway.forwarder.fib import Fib, NextHop
from gateway.protocol import names

# Few letters, so that prefixes of each other and equal names are common.
some_names = st.lists(st.sampled_from(["a", "b", "ab"]), max_size=4).map(
    lambda parts: b"".join(names.component(part) for part in parts)
)
faces, costs, origins = st.integers(1, 4), st.integers(0, 3), st.sampled_from(["static", "app", "hello"])
changes = st.lists(
    st.one_of(
        st.tuples(st.just("add"), some_names, faces, costs, origins),
        st.tuples(st.just("remove"), some_names, faces, st.none() | origins),
        st.tuples(st.just("remove_face"), faces),
        st.tuples(st.just("remove_origin"), origins),
    ),
    max_size=25,
)


class Model:
    """Routes as a dictionary by prefix, face and origin."""

    def __init__(self) -> None:
        self.routes: dict[tuple[bytes, int, str], int] = {}

    def add(self, prefix: bytes, face: int, cost: int, origin: str) -> None:
        self.routes[prefix, face, origin] = cost

    def remove(self, prefix: bytes, face: int, origin: str | None) -> bool:
        return self._drop(lambda key: key[:2] == (prefix, face) and origin in (None, key[2]))

    def remove_face(self, face: int) -> None:
        self._drop(lambda key: key[1] == face)

    def remove_origin(self, origin: str) -> None:
        self._drop(lambda key: key[2] == origin)

    def _drop(self, is_meant) -> bool:  # type: ignore[no-untyped-def]
        before = len(self.routes)
        self.routes = {key: cost for key, cost in self.routes.items() if not is_meant(key)}
        return len(self.routes) < before

    def match(self, name: bytes) -> set[tuple[int, int, str]]:
        parts = names.components(name)
        for length in range(len(parts), -1, -1):
            prefix = b"".join(parts[:length])
            found = {(face, cost, origin) for (p, face, origin), cost in self.routes.items() if p == prefix}
            if found:
                return found
        return set()


@given(changes, some_names)
def test_longest_prefix_match_is_that_of_the_model(steps: list[tuple], name: bytes) -> None:  # type: ignore[type-arg]
    """After any changes a name's next hops are all those of its longest prefix, the cheapest first."""
    fib, model = Fib(), Model()
    for kind, *arguments in steps:
        result, expected = getattr(fib, kind)(*arguments), getattr(model, kind)(*arguments)
        assert result == expected
    hops = fib.longest_prefix_match(name)
    assert {(hop.face_id, hop.cost, hop.origin) for hop in hops} == model.match(name)
    assert [hop.cost for hop in hops] == sorted(hop.cost for hop in hops)
    assert len(fib) == len({key[0] for key in model.routes})
    assert {prefix for prefix, _ in fib} == {key[0] for key in model.routes}


def test_a_prefix_is_whole_components() -> None:
    """A route for /a says nothing about /ab, and one for the empty name is the default."""
    fib = Fib()
    fib.add(names.parse("/a"), 1, 0, "static")
    assert fib.longest_prefix_match(names.parse("/ab")) == ()
    fib.add(b"", 2, 0, "static")
    assert fib.longest_prefix_match(names.parse("/ab")) == (NextHop(2, 0, "static"),)
    assert fib.longest_prefix_match(names.parse("/a/b")) == (NextHop(1, 0, "static"),)
    assert fib.longest_prefix_match(b"") == (NextHop(2, 0, "static"),)


def test_a_new_cost_replaces_the_old() -> None:
    """A route is known by prefix, face and origin; adding it again changes its cost and thereby its place."""
    fib, prefix = Fib(), names.parse("/a")
    fib.add(prefix, 1, 5, "static")
    fib.add(prefix, 2, 3, "static")
    fib.add(prefix, 1, 1, "static")
    assert [(hop.face_id, hop.cost) for hop in fib.longest_prefix_match(prefix)] == [(1, 1), (2, 3)]
