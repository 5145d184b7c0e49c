"""Placement under constraints that couple heads, by integer programs: members a head may have, services together."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from controller.placement.network.topology import Floats, Indices
from controller.placement.solvers.assignment import assign
from controller.placement.solvers.joint import joint
from controller.placement.solvers.lagrangian import Median, Offers, relax, slack
from controller.placement.solvers.median import heuristic
from controller.placement.solvers.program import Program
from controller.placement.solvers.service import Service
from controller.placement.solvers.solution import Solution

__all__ = ["Service", "assign", "capped", "joint"]


def capped(
    bandwidth: Floats,
    eligible: Indices,
    k: int,
    bonus: Floats,
    maximum_members: int,
    seconds: float = 10.0,
    *,
    clock: Callable[[], float] = time.process_time,
) -> Solution:
    """k eligible heads of the largest value when none serves more than `maximum_members` nodes.

    `bandwidth` (n, n) and `bonus` (n,) in Mbit/s; a node may be left unserved, which counts 0. After `seconds` of
    `clock` the best heads found, with their bound. Raises ValueError when k heads do not fit.
    """
    end = clock() + seconds
    free = Median.of(bandwidth, eligible, k, bonus)
    problem = Capped(free.nodes, free.gives, free.opening, k, maximum_members)
    chosen, _ = heuristic(free, lambda: clock() >= end)
    value = problem.value(chosen)
    relaxed = relax(problem, 0, value, lambda: clock() >= end)
    bound = relaxed.bound
    if relaxed.value > value:
        chosen, value = relaxed.heads, relaxed.value
    if bound > value + slack(value):
        left = np.sort(np.concatenate(relaxed.decided(0, k, value)))
        program, opened = _program(problem.only(left), len(bandwidth))
        outcome = program.solve(end - clock())
        bound = min(bound, max(value, outcome.bound))
        if outcome.values is not None:
            found = left[outcome.values[opened] > 0.5]
            chosen, value = max((chosen, value), (found, problem.value(found)), key=lambda pair: pair[1])
    return Solution.of(eligible[chosen], value, bound, "p-median integer program of what Lagrangian relaxation leaves")


@dataclass(frozen=True, slots=True, eq=False)
class Capped(Median):
    """A median whose heads serve at most `maximum_members` other nodes each."""

    maximum_members: int

    def value(self, chosen: Indices) -> float:
        """The value of some candidates as heads with the best assignment."""
        rows, heads = self.gives[chosen], self.nodes[chosen]
        head = assign(rows, heads, self.maximum_members)
        served = np.flatnonzero(head >= 0)
        bonus = self.opening[chosen] + rows[np.arange(len(heads)), heads]
        return float(rows[head[served], served].sum() + bonus.sum())

    def offers(self) -> Offers:
        """What candidates offer, each to the nodes that pay it most."""
        return _CappedOffers.of(self)


@dataclass(frozen=True, slots=True, eq=False)
class _CappedOffers(Offers):
    median: Capped

    def surplus(self, prices: Floats) -> Floats:
        above, own = self._above(np.arange(len(self.median.nodes)), prices)
        most = min(self.median.maximum_members, above.shape[1])
        first = above.shape[1] - most
        earned: Floats = own + (np.partition(above, first, axis=1)[:, first:].sum(axis=1) if most else 0.0)
        return earned

    def served(self, chosen: Indices, prices: Floats) -> Indices:
        above, _ = self._above(chosen, prices)
        most = min(self.median.maximum_members, above.shape[1])
        paying = np.argsort(-above, axis=1, kind="stable")[:, :most]
        earns = np.take_along_axis(above, paying, axis=1) > 0
        count: Indices = np.bincount(np.append(paying[earns], self.median.nodes[chosen]), minlength=above.shape[1])
        return count

    def _above(self, chosen: Indices, prices: Floats) -> tuple[Floats, Floats]:
        """What some candidates give above the prices: to others (with 0 to themselves), and to themselves."""
        nodes, each = self.median.nodes[chosen], np.arange(len(chosen))
        above = np.maximum(self.median.gives[chosen] - prices, 0.0)
        own = above[each, nodes]
        above[each, nodes] = 0.0
        return above, own


def _program(problem: Capped, n: int) -> tuple[Program, Indices]:
    """The p-median program, and its variables that open a candidate; only these must be whole.

    x_ij serves node j from candidate i: at most y_i each, at most maximum_members · y_i together, and a node has one
    head or is one.
    """
    gives = problem.gives.copy()
    each = np.arange(len(gives))
    bonus = problem.opening + gives[each, problem.nodes]
    gives[each, problem.nodes] = 0.0
    program = Program()
    opened = program.add(bonus, integral=True)
    candidate, node = np.nonzero(gives > 0)
    serves = program.add(gives[candidate, node])
    row = np.arange(len(serves))
    program.limit(np.zeros(len(serves)), (row, serves, 1.0), (row, opened[candidate], -1.0))
    program.limit(np.zeros(len(gives)), (candidate, serves, 1.0), (each, opened, -float(problem.maximum_members)))
    program.limit(np.ones(n), (node, serves, 1.0), (problem.nodes, opened, 1.0))
    program.limit(np.array([float(problem.k)]), (np.zeros_like(opened), opened, 1.0), equal=True)
    return program, opened
