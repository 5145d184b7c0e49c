"""The p-median solvers against brute force on small problems, and against their own bounds on larger ones."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from controller.placement.network.topology import Floats
from controller.placement.solvers.median import bound, exact, greedy, runners_up
from controller.placement.solvers.solution import value_of
from tests.controller.placement.brute_force import Problem, problems


def directed(n: int, seed: int) -> Floats:
    """The bandwidth of a random directed network, whose optimum takes some search."""
    bandwidth = np.random.default_rng(seed).exponential(20.0, (n, n))
    np.fill_diagonal(bandwidth, 0.0)
    return bandwidth


@settings(max_examples=300, deadline=None)
@given(problems())
def test_exact_is_the_optimum_of_all_sets(problem: Problem) -> None:
    """No k eligible nodes have a larger value than the one found, which is that of its heads, and proven."""
    solution = exact(problem.bandwidth, problem.eligible, problem.k, problem.bonus)
    assert solution.value == pytest.approx(problem.best())
    assert solution.value == pytest.approx(value_of(problem.bandwidth, solution.heads, problem.bonus))
    assert solution.proven
    assert solution.bound == solution.value
    assert len(set(solution.heads)) == problem.k
    assert set(solution.heads) <= set(problem.eligible)


@settings(max_examples=300, deadline=None)
@given(problems())
def test_bounds_are_never_below_the_optimum(problem: Problem) -> None:
    """Greedy's bound and the bound alone stay above every set of heads, and greedy's value below its bound."""
    solution = greedy(problem.bandwidth, problem.eligible, problem.k, problem.bonus)
    best = problem.best()
    assert solution.bound >= best - 1e-6
    assert solution.value <= best + 1e-6
    alone = bound(problem.bandwidth, problem.eligible, problem.k, problem.bonus, solution.value)
    assert alone >= max(best - 1e-6, solution.value)
    assert solution.proven == (solution.bound == solution.value)


@settings(max_examples=200, deadline=None)
@given(problems(), st.data())
def test_a_runner_up_is_the_best_single_replacement(problem: Problem, data: st.DataObject) -> None:
    """For any heads, each runner-up has the value that it states, and no other node has more."""
    heads = data.draw(st.sampled_from(problem.sets()))
    for at, runner_up in enumerate(runners_up(problem.bandwidth, heads, problem.eligible, problem.bonus)):
        most = problem.best_replacement(heads, at)
        if most is None:
            assert runner_up is None
        else:
            assert runner_up is not None
            assert runner_up[1] == pytest.approx(most)
            assert runner_up[1] == pytest.approx(problem.value_with(heads, at, runner_up[0]))


@pytest.mark.parametrize("seed", range(3))
def test_exact_branches_where_the_bound_does_not_meet(seed: int) -> None:
    """40 nodes of which 4 are to be heads: what branch and bound finds is what all 91,390 sets have at most."""
    bandwidth, nothing = directed(40, seed), np.zeros(40)
    solution = exact(bandwidth, np.arange(40), 4, nothing)
    pairs = [(a, b) for a in range(40) for b in range(a)]
    most = np.array([np.maximum(bandwidth[a], bandwidth[b]) for a, b in pairs])
    for at, (a, b) in enumerate(pairs):
        most[at, [a, b]] = np.inf  # a head is no member; taken off below
    best = 0.0
    for at, pair in enumerate(pairs):
        apart = [other for other in range(at) if not {*pair} & {*pairs[other]}]
        served = np.maximum(most[apart], most[at])
        best = max(best, float(np.where(np.isinf(served), 0.0, served).sum(axis=1).max(initial=0.0)))
    assert solution.proven
    assert solution.value == pytest.approx(best)


def test_greedy_alone_is_improved_by_swaps() -> None:
    """The node that is best alone, c, has no place among the best two, a and e: greedy's first choice is given up."""
    bandwidth = np.zeros((5, 5))
    bandwidth[2, [0, 1, 3, 4]] = 3.0
    bandwidth[0, 1] = bandwidth[4, 3] = 5.9
    bandwidth[[0, 4], 2] = 5.9
    solution = greedy(bandwidth, np.arange(5), 2, np.zeros(5))
    assert sorted(solution.heads) == [0, 4]
    assert solution.value == pytest.approx(3 * 5.9)
    assert solution.proven


@pytest.mark.parametrize("seed", range(6))
def test_no_single_swap_improves_greedy(seed: int) -> None:
    """Local search goes on until no other node in the place of a head is worth more."""
    bandwidth, everyone, nothing = directed(60, seed), np.arange(60), np.zeros(60)
    solution = greedy(bandwidth, everyone, 8, nothing)
    for runner_up in runners_up(bandwidth, solution.heads, everyone, nothing):
        assert runner_up is not None
        assert runner_up[1] <= solution.value * (1 + 1e-9)


def test_a_bonus_moves_a_head() -> None:
    """Two nodes that serve alike are told apart by what they add by themselves."""
    bandwidth = np.array([[0.0, 5.0, 7.0], [5.0, 0.0, 7.0], [0.0, 0.0, 0.0]])
    assert list(exact(bandwidth, np.arange(3), 1, np.array([1.0, 0.0, 0.0])).heads) == [0]
    assert list(exact(bandwidth, np.arange(3), 1, np.array([0.0, 1.0, 0.0])).heads) == [1]


def test_a_large_problem_has_a_close_bound() -> None:
    """With 700 nodes only the larger figures of each column are looked at, and the bound is still one, and close."""
    n, k = 700, 15
    places = np.random.default_rng(5).random((n, 2))
    away = np.linalg.norm(places[:, None] - places[None], axis=2)
    bandwidth = 30.0 * np.exp(-8.0 * away) * (1.0 + np.random.default_rng(6).random((n, 1)))
    np.fill_diagonal(bandwidth, 0.0)
    solution = greedy(bandwidth, np.arange(n), k, np.zeros(n))
    heads = exact(bandwidth, np.arange(n), k, np.zeros(n), seconds=5.0)
    assert solution.value <= heads.value * (1 + 1e-9) <= solution.bound * (1 + 1e-9) <= solution.value * 1.01


def test_time_that_is_up_leaves_a_true_bound() -> None:
    """With no time at all there are heads, and a bound that the optimum does not exceed."""
    bandwidth, nothing = directed(30, 1), np.zeros(30)
    best = exact(bandwidth, np.arange(30), 4, nothing)
    for solve in (greedy, exact):
        hasty = solve(bandwidth, np.arange(30), 4, nothing, seconds=0.0)
        assert hasty.value <= best.value < hasty.bound < math.inf
        assert not hasty.proven


def test_the_clock_is_what_the_caller_says() -> None:
    """Time is up when the given clock says so."""
    ticks = iter(range(10_000))
    bandwidth = directed(30, 1)
    hasty = exact(bandwidth, np.arange(30), 4, np.zeros(30), seconds=5.0, clock=lambda: float(next(ticks)))
    assert not hasty.proven
    assert next(ticks) < 20


def test_the_same_problem_has_the_same_answer() -> None:
    """Nothing is left to chance."""
    bandwidth = directed(50, 3)
    first, second = (exact(bandwidth, np.arange(50), 5, np.zeros(50)) for _ in range(2))
    assert list(first.heads) == list(second.heads)


@pytest.mark.parametrize("k", [0, 3])
def test_k_that_does_not_fit_is_named(k: int) -> None:
    """No head, or more heads than eligible nodes, is an error that says so."""
    for solve in (greedy, exact):
        with pytest.raises(ValueError, match=f"k is {k}; 2 eligible nodes take 1 to 2 heads"):
            solve(np.zeros((3, 3)), np.array([0, 2]), k, np.zeros(3))
