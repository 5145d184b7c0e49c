"""Who becomes a head: one function an algorithm, behind one registry."""

from __future__ import annotations

from collections.abc import Callable

from controller.placement.answer import Answer
from controller.placement.heuristics import basp, hanet, naive_k_means, random_heads
from controller.placement.optimum import greedy, optimal
from controller.placement.problem import Problem

Algorithm = Callable[[Problem], Answer]

ALGORITHMS: dict[str, Algorithm] = {
    "optimal": optimal,
    "greedy": greedy,
    "basp": basp,
    "hanet": hanet,
    "kmeans": naive_k_means,
    "random": random_heads,
}


def algorithms() -> tuple[str, ...]:
    """The names of the placement algorithms, the default first."""
    return tuple(ALGORITHMS)
