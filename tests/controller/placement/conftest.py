"""Small networks written by hand (the fixture `network`) and at random (`st.from_type(Topology)`)."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import strategies as st

from controller.placement import NodeAttributes, Topology
from controller.placement.network.topology import assemble

Place = tuple[float | None, float | None]


def draw_by_hand(text: str, places: dict[str, Place] | None = None, **nodes: NodeAttributes) -> Topology:
    """A topology from links such as `a-b 10 4` (there and back), `a>b 3` (one way) and `c` (a lone node)."""
    names: list[str] = []
    rates: dict[tuple[int, int], float] = {}
    for link in text.split(","):
        ends, *speeds = link.split()
        pair = ends.replace(">", "-").split("-")
        names += [name for name in pair if name not in names]
        if len(pair) == 2:
            a, b = (names.index(name) for name in pair)
            rates[a, b] = float(speeds[0])
            if ">" not in ends:
                rates[b, a] = float(speeds[-1])
    names, order = sorted(names), names
    renamed = {(names.index(order[a]), names.index(order[b])): rate for (a, b), rate in rates.items()}
    coordinates = [(places or {}).get(name, (None, None)) for name in names]
    return assemble(names, coordinates, renamed, [nodes.get(name, NodeAttributes()) for name in names])


@pytest.fixture
def network() -> Callable[..., Topology]:
    return draw_by_hand


@st.composite
def any_network(draw: st.DrawFn) -> Topology:
    """Directed networks of any shape: one-way links, several components, equal rates, missing and equal coordinates."""
    n = draw(st.integers(1, 6))
    pairs = [(i, j) for i in range(n) for j in range(n) if i != j]
    rates = draw(st.dictionaries(st.sampled_from(pairs), st.integers(1, 12).map(float))) if pairs else {}
    spots = st.sampled_from([(41.0, 2.0), (41.1, 2.1), (None, None)])
    place = st.tuples(st.floats(41.0, 41.1), st.floats(2.0, 2.1)) | spots
    coordinates = draw(st.lists(place, min_size=n, max_size=n))
    return assemble([f"n{at}" for at in range(n)], coordinates, rates, [NodeAttributes()] * n)


st.register_type_strategy(Topology, any_network())
