"""Small placement problems of every kind, and their answers by looking at everything."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from hypothesis import strategies as st

from controller.placement.network.topology import Floats, Indices
from controller.placement.solvers.solution import value_of

Value = Callable[[Floats, Indices, Floats], float]


@dataclass(frozen=True)
class Problem:
    """What every solver takes."""

    bandwidth: Floats
    eligible: Indices
    k: int
    bonus: Floats

    def __len__(self) -> int:
        return len(self.bandwidth)

    def sets(self) -> list[Indices]:
        """All sets of k eligible heads."""
        return [np.array(heads) for heads in combinations(self.eligible, self.k)]

    def best(self, value: Value = value_of) -> float:
        """The largest value of them."""
        return max(value(self.bandwidth, heads, self.bonus) for heads in self.sets())

    def best_replacement(self, heads: Indices, at: int) -> float | None:
        """The largest value with another node in place of one head."""
        others = [node for node in self.eligible if node not in heads]
        return max((self.value_with(heads, at, node) for node in others), default=None)

    def value_with(self, heads: Indices, at: int, node: int) -> float:
        """The value with a node in place of a head."""
        return value_of(self.bandwidth, np.where(np.arange(len(heads)) == at, node, heads), self.bonus)


def rates() -> st.SearchStrategy[float]:
    """Few different ones, so that ties and missing paths are common, or any at all."""
    return st.integers(0, 5).map(float) | st.floats(0.0, 100.0)


@st.composite
def problems(draw: st.DrawFn, most: int = 7) -> Problem:
    """Any bandwidth: directed or not, with ties, zeros, nodes that can be no head, and bonuses of either sign."""
    n = draw(st.integers(1, most))
    figures = draw(st.lists(rates(), min_size=n * n, max_size=n * n))
    bandwidth = np.array(figures).reshape(n, n)
    if draw(st.booleans()):
        bandwidth = np.minimum(bandwidth, bandwidth.T)
    np.fill_diagonal(bandwidth, 0.0)
    return draw(with_heads(bandwidth))


@st.composite
def with_heads(draw: st.DrawFn, bandwidth: Floats) -> Problem:
    """Some eligible nodes, some k of them and bonuses."""
    n = len(bandwidth)
    eligible = draw(st.sets(st.integers(0, n - 1), min_size=1))
    k = draw(st.integers(1, len(eligible)))
    bonus = draw(st.lists(st.integers(-4, 4).map(float), min_size=n, max_size=n) | st.just([0.0] * n))
    return Problem(bandwidth, np.array(sorted(eligible)), k, np.array(bonus))


def most_served(rows: Floats, heads: Indices, maximum_members: int) -> float:
    """The largest sum that heads can give to members under the cap, by trying every head for one node after another."""
    best: dict[tuple[int, ...], float] = {(0,) * len(heads): 0.0}
    for node in np.setdiff1d(np.arange(rows.shape[1]), heads):
        after = dict(best)
        for members, value in best.items():
            for at, rate in enumerate(rows[:, node]):
                more = tuple(count + (head == at) for head, count in enumerate(members))
                if more[at] <= maximum_members:
                    after[more] = max(after.get(more, 0.0), value + rate)
        best = after
    return max(best.values())
