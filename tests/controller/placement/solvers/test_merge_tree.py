"""The merge tree against brute force on the widest paths of small undirected networks."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from controller.placement.network.topology import Floats, Indices
from controller.placement.solvers.merge_tree import MergeTree
from controller.placement.solvers.solution import value_of
from tests.controller.placement.brute_force import Problem, with_heads


@dataclass(frozen=True)
class Case:
    """Links and the problem that their widest paths make."""

    ends: Indices
    rates: Floats
    problem: Problem

    def trees(self) -> tuple[MergeTree, MergeTree]:
        """The same tree twice, from the links and from the matrix."""
        links = MergeTree.from_links(len(self.problem), self.ends, self.rates)
        return links, MergeTree.from_matrix(self.problem.bandwidth)


def widest(n: int, ends: Indices, rates: Floats) -> Floats:
    """The widest path between any two nodes, by Floyd and Warshall."""
    bandwidth = np.zeros((n, n))
    for (one, other), rate in zip(ends, rates, strict=True):
        bandwidth[one, other] = bandwidth[other, one] = max(bandwidth[one, other], rate)
    for via in range(n):
        bandwidth = np.maximum(bandwidth, np.minimum(bandwidth[:, via, None], bandwidth[None, via, :]))
    np.fill_diagonal(bandwidth, 0.0)
    return bandwidth


@st.composite
def cases(draw: st.DrawFn) -> Case:
    """Networks with parallel links, equal rates and several components."""
    n = draw(st.integers(1, 8))
    pairs = [(one, other) for one in range(n) for other in range(n) if one != other]
    links = st.tuples(st.sampled_from(pairs), st.integers(1, 5).map(float) | st.floats(0.1, 100.0))
    drawn = draw(st.lists(links, max_size=14)) if pairs else []
    ends = np.array([pair for pair, _ in drawn], dtype=np.int64).reshape(-1, 2)
    rates = np.array([rate for _, rate in drawn])
    return Case(ends, rates, draw(with_heads(widest(n, ends, rates))))


@settings(max_examples=300, deadline=None)
@given(cases())
def test_best_is_the_optimum_of_all_sets(case: Case) -> None:
    """No k eligible nodes have a larger value than the tree's, which is that of its heads, and proven."""
    problem = case.problem
    for tree in case.trees():
        solution = tree.best(problem.eligible, problem.k, problem.bonus)
        assert solution.value == pytest.approx(problem.best())
        assert solution.value == pytest.approx(value_of(problem.bandwidth, solution.heads, problem.bonus))
        assert solution.proven
        assert solution.bound == solution.value
        assert len(set(solution.heads)) == problem.k
        assert set(solution.heads) <= set(problem.eligible)


@settings(max_examples=200, deadline=None)
@given(cases())
def test_rows_are_the_widest_paths(case: Case) -> None:
    """The tree gives back the bandwidth that it was made from, without a matrix."""
    nodes = np.arange(len(case.problem))
    for tree in case.trees():
        assert np.array_equal(tree.rows(nodes[::-1]), case.problem.bandwidth[::-1])


@settings(max_examples=300, deadline=None)
@given(cases(), st.data())
def test_a_runner_up_is_the_best_single_replacement(case: Case, data: st.DataObject) -> None:
    """For the best heads as for any others, each runner-up has the value that it states, and no other node more."""
    problem, tree = case.problem, case.trees()[0]
    best = tree.best(problem.eligible, problem.k, problem.bonus).heads
    for heads in (best, data.draw(st.sampled_from(problem.sets()))):
        for at, runner_up in enumerate(tree.runners_up(heads, problem.eligible, problem.bonus)):
            most = problem.best_replacement(heads, at)
            if most is None:
                assert runner_up is None
            else:
                assert runner_up is not None
                assert runner_up[1] == pytest.approx(most)
                assert runner_up[1] == pytest.approx(problem.value_with(heads, at, runner_up[0]))


def test_a_chain_by_hand() -> None:
    """Of a-b 10, b-c 4 and c-d 8 one head of each fast pair is best, and the pairs count for each other with k = 1."""
    tree = MergeTree.from_links(4, np.array([[0, 1], [1, 2], [2, 3]]), np.array([10.0, 4.0, 8.0]))
    everyone, nothing = np.arange(4), np.zeros(4)
    one = tree.best(everyone, 1, nothing)
    two = tree.best(everyone, 2, nothing)
    assert (list(one.heads), one.value) == ([0], 10.0 + 4.0 + 4.0)
    assert (list(two.heads), two.value) == ([0, 2], 10.0 + 8.0)
    assert tree.runners_up(two.heads, everyone, nothing) == [(1, 18.0), (3, 18.0)]


def test_one_node_is_a_tree() -> None:
    """A node alone serves nobody and counts its bonus."""
    tree = MergeTree.from_links(1, np.empty((0, 2), dtype=np.int64), np.empty(0))
    assert tree.best(np.array([0]), 1, np.array([3.0])).value == 3.0
    assert tree.runners_up(np.array([0]), np.array([0]), np.array([3.0])) == [None]


def test_links_without_a_positive_rate_are_none() -> None:
    """Rates of 0, below and NaN join nothing."""
    ends = np.array([[0, 1], [1, 2], [2, 3]])
    tree = MergeTree.from_links(4, ends, np.array([0.0, -5.0, np.nan]))
    assert not tree.rows(np.arange(4)).any()


@pytest.mark.parametrize("k", [0, 3])
def test_k_that_does_not_fit_is_named(k: int) -> None:
    """No head, or more heads than eligible nodes, is an error that says so."""
    tree = MergeTree.from_links(3, np.array([[0, 1]]), np.array([1.0]))
    with pytest.raises(ValueError, match=f"k is {k}; 2 eligible nodes take 1 to 2 heads"):
        tree.best(np.array([0, 2]), k, np.zeros(3))


def test_a_country_takes_a_moment() -> None:
    """30,000 nodes in a row of links, the deepest tree there is, with 100 heads: no recursion, no matrix."""
    n = 30_000
    ends = np.stack((np.arange(n - 1), np.arange(1, n)), axis=1)
    tree = MergeTree.from_links(n, ends, np.arange(n - 1, 0, -1.0))
    solution = tree.best(np.arange(n), 100, np.zeros(n))
    served = tree.rows(solution.heads).max(axis=0)
    served[solution.heads] = 0.0
    assert solution.value == pytest.approx(served.sum())
    assert len(tree.runners_up(solution.heads, np.arange(n), np.zeros(n))) == 100
