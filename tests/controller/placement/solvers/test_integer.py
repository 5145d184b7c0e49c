"""The cap on members against brute force on small problems, and on larger ones against its bound."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from controller.placement.network.topology import Floats, Indices
from controller.placement.solvers.integer import assign, capped
from controller.placement.solvers.median import exact
from tests.controller.placement.brute_force import Problem, most_served, problems


@settings(max_examples=200, deadline=None)
@given(problems(6), st.integers(0, 4))
def test_capped_is_the_optimum_of_all_sets(problem: Problem, maximum_members: int) -> None:
    """No k eligible nodes have a larger value under the cap than those found, and this is proven."""

    def value(bandwidth: Floats, heads: Indices, bonus: Floats) -> float:
        return most_served(bandwidth[heads], heads, maximum_members) + float(bonus[heads].sum())

    solution = capped(problem.bandwidth, problem.eligible, problem.k, problem.bonus, maximum_members)
    assert solution.value == pytest.approx(problem.best(value))
    assert solution.value == pytest.approx(value(problem.bandwidth, solution.heads, problem.bonus))
    assert solution.proven
    assert len(set(solution.heads)) == problem.k
    assert set(solution.heads) <= set(problem.eligible)


def clustered(n: int) -> Floats:
    """Bandwidth that falls with distance, from one crowded corner to the rest."""
    places = np.random.default_rng(n).random((n, 2)) ** 2
    bandwidth: Floats = 30.0 * np.exp(-3.0 * np.linalg.norm(places[:, None] - places[None], axis=2))
    np.fill_diagonal(bandwidth, 0.0)
    return bandwidth


def test_a_cap_that_binds_moves_the_heads() -> None:
    """60 nodes and 4 heads with 14 members each: proven, below the optimum without a cap, above its heads under it."""
    bandwidth, everyone, nothing = clustered(60), np.arange(60), np.zeros(60)
    free = exact(bandwidth, everyone, 4, nothing)
    solution = capped(bandwidth, everyone, 4, nothing, 14)
    assert solution.proven
    assert most_given(bandwidth, free.heads, 14) < solution.value < free.value


def most_given(bandwidth: Floats, heads: Indices, maximum_members: int) -> float:
    """What heads give under the cap."""
    head = assign(bandwidth[heads], heads, maximum_members)
    return float(bandwidth[heads[head], np.arange(len(bandwidth))][head >= 0].sum())


def test_a_cap_that_does_not_bind_changes_nothing() -> None:
    """With room for everybody at each head the optimum is that without a cap."""
    bandwidth, everyone, nothing = clustered(40), np.arange(40), np.zeros(40)
    free, solution = exact(bandwidth, everyone, 3, nothing), capped(bandwidth, everyone, 3, nothing, 37)
    assert solution.value == pytest.approx(free.value)


def test_time_that_is_up_leaves_a_true_bound() -> None:
    """With no time at all there are heads, and a bound that the optimum does not exceed."""
    bandwidth, everyone, nothing = clustered(60), np.arange(60), np.zeros(60)
    best, hasty = (capped(bandwidth, everyone, 4, nothing, 14, seconds) for seconds in (10.0, 0.0))
    assert hasty.value <= best.value <= hasty.bound
    assert not hasty.proven


def test_k_that_does_not_fit_is_named() -> None:
    """More heads than eligible nodes are an error that says so."""
    with pytest.raises(ValueError, match="k is 3; 2 eligible nodes take 1 to 2 heads"):
        capped(np.zeros((3, 3)), np.array([0, 2]), 3, np.zeros(3), 1)
