"""The relaxation's bound and what it decides, against brute force."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from controller.placement.network.topology import Floats
from controller.placement.solvers.lagrangian import Median, Relaxation, relax
from tests.controller.placement.brute_force import Problem, problems


def never() -> bool:
    return False


def values(median: Median) -> dict[frozenset[int], float]:
    """The value of every set of k candidates."""
    sets = combinations(range(len(median.nodes)), median.k)
    return {frozenset(chosen): median.value(np.array(chosen)) for chosen in sets}


def by_definition(median: Median, found: Relaxation) -> float:
    """The bound at the prices found: what all pay and the k that earn most."""
    worth = median.opening + np.maximum(median.gives - found.prices, 0.0).sum(axis=1)
    return float(found.prices.sum() + np.sort(worth)[-median.k :].sum())


def spread(n: int) -> Floats:
    """Bandwidth that falls with distance, different in the two directions."""
    random = np.random.default_rng(n)
    places = random.random((n, 2))
    away = np.linalg.norm(places[:, None] - places[None], axis=2)
    bandwidth: Floats = 30.0 * np.exp(-8.0 * away) * (1.0 + random.random((n, 1)))
    np.fill_diagonal(bandwidth, 0.0)
    return bandwidth


@settings(max_examples=200, deadline=None)
@given(problems())
def test_a_median_has_the_value_of_its_heads(problem: Problem) -> None:
    """Written as facility location, the best value of a problem stays what it is."""
    median = Median.of(problem.bandwidth, problem.eligible, problem.k, problem.bonus)
    assert max(values(median).values()) == pytest.approx(problem.best())


@settings(max_examples=200, deadline=None)
@given(problems(), st.floats(0.0, 1.0))
def test_no_set_that_is_worth_more_is_ruled_out(problem: Problem, share: float) -> None:
    """Every set of a larger value than the one given has all candidates that must be in it, and none that can't be."""
    median = Median.of(problem.bandwidth, problem.eligible, problem.k, problem.bonus)
    all_values = values(median)
    ranked = sorted(all_values.values())
    value = ranked[round(share * (len(ranked) - 1))]
    found = relax(median, 0, value, never)
    must, may = (set(part.tolist()) for part in found.decided(0, median.k, value))
    assert not must & may
    for chosen, worth in all_values.items():
        assert worth <= found.bound + 1e-6
        if worth > value + 1e-6:
            assert must <= chosen <= must | may


def test_prices_are_never_below_the_floor_of_a_large_problem() -> None:
    """700 nodes are looked at by a list of entries: the bound is what the definition gives over the whole matrix."""
    median = Median.of(spread(700), np.arange(700), 15, np.zeros(700))
    found = relax(median, 0, 0.0, never, iterations=40)
    assert found.bound == pytest.approx(by_definition(median, found))
    assert found.value == pytest.approx(median.value(found.heads))


def test_the_list_of_a_large_problem_misses_nothing_above_its_floor() -> None:
    """At the lowest prices that are tried, the entries earn what the matrix does."""
    median = Median.of(spread(700), np.arange(700), 15, np.zeros(700))
    offers = median.offers()
    assert offers.floor.max() > 0
    assert offers.surplus(offers.floor) == pytest.approx(np.maximum(median.gives - offers.floor, 0.0).sum(axis=1))


def test_one_head_has_its_bound_at_once() -> None:
    """For k = 1 the first prices give the optimum."""
    median = Median.of(spread(30), np.arange(30), 1, np.zeros(30))
    found = relax(median, 0, 0.0, never, iterations=1)
    assert found.bound == pytest.approx(found.value)
    assert found.value == pytest.approx(max(values(median).values()))


def test_a_forced_candidate_is_always_counted() -> None:
    """The bound with the first candidate forced is one for the sets with it, and may be below those without."""
    median = Median.of(spread(12), np.arange(12), 3, np.where(np.arange(12) == 0, -50.0, 0.0))
    found = relax(median, 1, 0.0, never)
    with_it = max(value for chosen, value in values(median).items() if 0 in chosen)
    assert with_it <= found.bound + 1e-6
    assert found.bound < max(values(median).values())
    assert 0 in found.heads
