"""Services placed together, against brute force on small problems."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import combinations, product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from controller.placement.network.topology import Floats
from controller.placement.solvers.joint import Joint, joint
from controller.placement.solvers.median import exact
from controller.placement.solvers.service import Service
from controller.placement.solvers.solution import value_of
from tests.controller.placement.brute_force import rates

Heads = Mapping[int, tuple[int, ...]]


@st.composite
def services(draw: st.DrawFn) -> tuple[list[Service], Floats]:
    """One to three services on a few nodes, often with room for all of them, and often near to or apart from others."""
    n, count = draw(st.integers(2, 5)), draw(st.integers(1, 3))
    capacity = draw(st.lists(st.integers(1, 6).map(float), min_size=2 * n, max_size=2 * n))
    return [draw(service(n, at, count)) for at in range(count)], np.array(capacity).reshape(n, 2)


@st.composite
def service(draw: st.DrawFn, n: int, own: int, count: int) -> Service:
    """A service with one or two heads."""
    bandwidth = np.array(draw(st.lists(rates(), min_size=n * n, max_size=n * n))).reshape(n, n)
    np.fill_diagonal(bandwidth, 0.0)
    eligible = sorted(draw(st.sets(st.integers(0, n - 1), min_size=1)))
    others = st.sampled_from([at for at in range(count) if at != own] or [count])
    return Service(
        bandwidth,
        np.array(eligible),
        draw(st.integers(1, 2)),
        np.array(draw(st.lists(st.integers(-3, 3).map(float), min_size=n, max_size=n))),
        np.array(draw(st.lists(st.integers(0, 3).map(float), min_size=2, max_size=2))),
        tuple(draw(st.sets(others, max_size=1))) if count > 1 else (),
        draw(st.dictionaries(others, st.integers(1, 3).map(float))) if count > 1 else {},
    )


def placements(wanted: Sequence[Service], placed: Sequence[int], capacity: Floats) -> Iterator[Heads]:
    """Every choice of heads for some of the services that keeps capacity and distance."""
    for choice in product(*(combinations(wanted[at].eligible, wanted[at].k) for at in placed)):
        heads = dict(zip(placed, choice, strict=True))
        used = np.zeros_like(capacity)
        for at, chosen in heads.items():
            used[list(chosen)] += wanted[at].demand
        apart = all(not {*heads[at]} & {*heads.get(other, ())} for at in placed for other in wanted[at].apart)
        if apart and (used <= capacity).all():
            yield heads


def value_together(wanted: Sequence[Service], heads: Heads) -> float:
    """The services' values, and what each has from being near to others."""
    total = 0.0
    for at, chosen in heads.items():
        bandwidth = wanted[at].bandwidth
        total += value_of(bandwidth, np.array(chosen), wanted[at].bonus)
        for other, weight in wanted[at].near.items():
            for head in chosen if other in heads else ():
                ways = [bandwidth.max() if head == near else bandwidth[near, head] for near in heads[other]]
                total += weight * float(max(ways))
    return total


@settings(max_examples=200, deadline=None)
@given(services())
def test_joint_is_the_optimum_of_all_placements(problem: tuple[list[Service], Floats]) -> None:
    """Those placed are the first that find room, and no placement of them has a larger sum."""
    wanted, capacity = problem
    placed: list[int] = []
    for at in range(len(wanted)):
        if any(True for _ in placements(wanted, [*placed, at], capacity)):
            placed.append(at)
    solutions = joint(wanted, capacity)
    found = {at: tuple(solution.heads) for at, solution in enumerate(solutions) if solution is not None}
    assert list(found) == placed
    best = max((value_together(wanted, heads) for heads in placements(wanted, placed, capacity)), default=0.0)
    assert value_together(wanted, found) == pytest.approx(best)
    assert sum(solution.value for solution in solutions if solution is not None) == pytest.approx(best)
    assert all(solution is None or solution.proven for solution in solutions)
    assert {at: {*heads} for at, heads in found.items()} in (
        [{at: {*heads} for at, heads in other.items()} for other in placements(wanted, placed, capacity)]
    )


def test_services_far_apart_come_near_for_their_traffic() -> None:
    """Alone each is best at its own end; the more the traffic counts, the nearer the second comes to the first."""
    bandwidth = np.array([[0.0, 8.0, 1.0], [8.0, 0.0, 1.0], [1.0, 1.0, 0.0]])
    free = Service(bandwidth, np.array([0]), 1, np.zeros(3), np.ones(1))

    def head_of_the_second(weight: float) -> int:
        drawn = Service(bandwidth, np.arange(3), 1, np.array([0.0, 0.0, 20.0]), np.ones(1), near={0: weight})
        solutions = joint([free, drawn], np.ones((3, 1)))
        assert solutions[1] is not None
        return int(solutions[1].heads[0])

    assert [head_of_the_second(weight) for weight in (0.0, 1.0, 2.0)] == [2, 2, 1]


def test_services_apart_share_no_node() -> None:
    """Two services that are best on the same node, with room for both, and one says that it must be alone."""
    for apart in (((), (0,)), ((1,), ())):
        best = np.array([5.0, 3.0])
        wanted = [Service(np.zeros((2, 2)), np.arange(2), 1, best, np.ones(1), away) for away in apart]
        heads = [solution.heads[0] for solution in joint(wanted, np.full((2, 1), 9.0)) if solution]
        assert sorted(heads) == [0, 1]


@pytest.mark.parametrize("talker", [0, 1])
def test_rounds_bring_together_what_has_traffic(talker: int) -> None:
    """The second service comes beside the first, whichever of the two it is that is near to the other."""
    bandwidth = np.array([[0.0, 8.0, 1.0], [8.0, 0.0, 1.0], [1.0, 1.0, 0.0]])
    near: list[dict[int, float]] = [{}, {}]
    near[talker][1 - talker] = 10.0
    first = Service(bandwidth, np.array([0]), 1, np.zeros(3), np.ones(1), near=near[0])
    second = Service(bandwidth, np.arange(3), 1, np.array([0.0, 0.0, 9.0]), np.ones(1), near=near[1])
    together = Joint([first, second], np.ones((3, 1)), np.inf, lambda: 0.0)
    together.find_places()
    improved = together.rounds({0: np.array([0]), 1: np.array([2])})
    assert {at: list(heads) for at, heads in improved.items()} == {0: [0], 1: [1]}


def test_starts_are_placements_within_the_capacity() -> None:
    """One service after another: who comes first has its best node, and each start keeps the capacity."""
    wanted = [Service(np.zeros((3, 3)), np.arange(3), 1, np.array([5.0, 3.0, 0.0]), np.ones(1)) for _ in range(2)]
    together = Joint(wanted, np.ones((3, 1)), np.inf, lambda: 0.0)
    together.find_places()
    first, second, _ = ([int(heads[at][0]) for at in range(2)] for heads in together.starts())
    assert (first, second) == ([0, 1], [1, 0])


def test_a_service_without_room_is_the_one_that_is_none() -> None:
    """Two services want the only node; the first has it."""
    wanted = Service(np.zeros((2, 2)), np.array([1]), 1, np.zeros(2), np.ones(1))
    first, second = joint([wanted, wanted], np.ones((2, 1)))
    assert first is not None
    assert list(first.heads) == [1]
    assert second is None


def test_a_node_that_is_overbooked_only_takes_none() -> None:
    """Capacity below 0 on one node leaves the others as they are."""
    wanted = Service(np.zeros((2, 2)), np.arange(2), 1, np.array([5.0, 0.0]), np.ones(1))
    (only,) = joint([wanted], np.array([[-1.0], [1.0]]))
    assert only is not None
    assert list(only.heads) == [1]


def test_no_services_have_no_placement() -> None:
    """Nothing to place is an empty answer."""
    assert joint([], np.ones((2, 1))) == []


def test_services_that_do_not_meet_are_placed_by_themselves() -> None:
    """With room for both on every node, each has the heads that it would have alone."""
    bandwidth = np.random.default_rng(7).exponential(20.0, (30, 30))
    np.fill_diagonal(bandwidth, 0.0)
    wanted = [Service(bandwidth * (1 + at), np.arange(30), 3, np.zeros(30), np.ones(1)) for at in range(2)]
    alone = exact(bandwidth, np.arange(30), 3, np.zeros(30))
    for solution in joint(wanted, np.full((30, 1), 2.0)):
        assert solution is not None
        assert {*solution.heads} == {*alone.heads}
        assert solution.proven


def test_time_that_is_up_leaves_heads_and_a_true_bound() -> None:
    """Three services that want the same nodes: without any time all have heads within the capacity, and a bound."""
    bandwidth = np.random.default_rng(7).exponential(20.0, (9, 9))
    np.fill_diagonal(bandwidth, 0.0)
    wanted = [Service(bandwidth, np.arange(9), 2, np.zeros(9), np.ones(1)) for _ in range(3)]
    best, hasty = ([s for s in joint(wanted, np.ones((9, 1)), seconds) if s] for seconds in (10.0, 0.0))
    assert len({int(head) for solution in hasty for head in solution.heads}) == 6
    total = sum(solution.value for solution in best)
    assert all(solution.proven for solution in best)
    assert sum(solution.value for solution in hasty) <= total * (1 + 1e-9)
    assert sum(s.value for s in hasty) + hasty[0].bound - hasty[0].value >= total * (1 - 1e-9)
