"""Members to heads under a cap, against brute force."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from controller.placement.solvers.assignment import assign
from tests.controller.placement.brute_force import Problem, most_served, problems


@settings(max_examples=300, deadline=None)
@given(problems(), st.integers(0, 4), st.data())
def test_assign_gives_the_most_under_the_cap(problem: Problem, maximum_members: int, data: st.DataObject) -> None:
    """No head has too many members, heads are none, and no other assignment has a larger sum."""
    heads = data.draw(st.sampled_from(problem.sets()))
    rows = problem.bandwidth[heads]
    head = assign(rows, heads, maximum_members)
    served = np.flatnonzero(head >= 0)
    assert (head[heads] == -1).all()
    assert np.bincount(head[served], minlength=1).max() <= maximum_members
    assert (rows[head[served], served] > 0).all()
    assert rows[head[served], served].sum() == pytest.approx(most_served(rows, heads, maximum_members))


def test_assign_pushes_members_along() -> None:
    """Node 3 has no head but 0, so node 4 moves to head 1, and node 5 from there to head 2."""
    rows = np.array([[0, 0, 0, 9, 9, 0], [0, 0, 0, 0, 8, 7], [0, 0, 0, 0, 0, 6]], dtype=np.float64)
    assert list(assign(rows, np.arange(3), 1)) == [-1, -1, -1, 0, 1, 2]


def test_a_rate_of_nothing_is_no_head() -> None:
    """A node that is pushed off its head goes to nobody rather than to a head without a path to it."""
    rows = np.array([[0, 0, 3, 2], [0, 0, 0, 0]], dtype=np.float64)
    assert list(assign(rows, np.array([0, 1]), 1)) == [-1, -1, 0, -1]
