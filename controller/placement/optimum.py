"""Placement that comes with a bound: greedy with swaps, and the optimum by the solver that the structure allows."""

from __future__ import annotations

from controller.placement.answer import Answer, Choice
from controller.placement.problem import Problem
from controller.placement.solvers import median
from controller.placement.solvers.integer import capped
from controller.placement.solvers.solution import Solution
from controller.placement.standby import replacements


def greedy(problem: Problem) -> Answer:
    """Lazy greedy and swaps; a cap on members is left to the attachment, and can only lower what the bound bounds."""
    paths = problem.paths
    return answer_of(
        problem, median.greedy(paths.bandwidth, problem.eligible, problem.k, problem.bonus, seconds=problem.seconds)
    )


def optimal(problem: Problem) -> Answer:
    """The largest value of any k heads, or the best found in `problem.seconds` with its bound.

    A cap on members takes an integer program; widest paths that are the same both ways are an ultrametric, which has
    a tree; everything else is branch and bound.
    """
    paths, eligible, k = problem.paths, problem.eligible, problem.k
    if problem.maximum_members:
        return answer_of(
            problem,
            capped(paths.bandwidth, eligible, k, problem.bonus, problem.maximum_members, problem.seconds),
        )
    if paths.tree is not None:
        return answer_of(problem, paths.tree.best(eligible, k, problem.bonus))
    return answer_of(problem, median.exact(paths.bandwidth, eligible, k, problem.bonus, seconds=problem.seconds))


def bound_of(problem: Problem, value: float) -> float:
    """A value in Mbit/s that no k heads exceed, given the best known one; with a cap on members, that without it."""
    paths = problem.paths
    if paths.tree is not None:
        return paths.tree.best(problem.eligible, problem.k, problem.bonus).bound
    return median.bound(paths.bandwidth, problem.eligible, problem.k, problem.bonus, value)


def answer_of(problem: Problem, solution: Solution, where: str = "") -> Answer:
    """The solution's heads, each with the mean over all members, and what it is with the runner-up in its place."""
    what = "largest mean bandwidth" + ("" if solution.proven else " found") + where
    if problem.k > 1:
        what = f"one of the {problem.k} heads of the {what}"
    if problem.request.near:
        what += ", closeness to other services counted"
    others = replacements(problem, solution.heads)
    choices = []
    for head, other in zip(solution.heads.tolist(), others, strict=True):
        reason = f"{what}: {problem.mean(solution.value):.1f} Mbit/s, "
        if other is None:
            reason += "no other node is eligible"
        else:
            reason += f"runner-up {problem.name(other[0])} {problem.mean(other[1]):.1f} Mbit/s"
        choices.append(Choice(head, reason))
    return Answer(tuple(choices), solution.method, solution.bound, tuple(others))
