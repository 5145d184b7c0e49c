"""Who would take a head's place: the runner-up of each head, and the stand-bys of them all."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from controller.placement.attach import attach
from controller.placement.network.topology import Indices
from controller.placement.problem import Problem
from controller.placement.solvers import median

# A node and the value in Mbit/s with it in the place of a head; None when no node is left.
Replacement = tuple[int, float] | None


def replacements(problem: Problem, heads: Indices) -> list[Replacement]:
    """For each head the eligible node that replaces it best, all other heads staying, and the value then.

    Under a cap on members the node is the one without it, its value is under it. None for all in a network so large
    that the bandwidth between all nodes was not needed before.
    """
    paths = problem.paths
    if paths.tree is not None:
        found = paths.tree.runners_up(heads, problem.eligible, problem.bonus)
    elif paths.has_matrix:
        found = median.runners_up(paths.bandwidth, heads, problem.eligible, problem.bonus)
    else:
        return [None] * len(heads)
    return _under_the_cap(problem, heads, found) if problem.maximum_members else list(found)


def _under_the_cap(problem: Problem, heads: Indices, found: Sequence[Replacement]) -> list[Replacement]:
    capped: list[Replacement] = []
    for at, other in enumerate(found):
        replaced = heads.copy()
        replaced[at] = heads[at] if other is None else other[0]
        value = attach(problem, replaced).counted_mbps.sum() + problem.bonus[replaced].sum()
        capped.append(None if other is None else (other[0], float(value)))
    return capped


def standbys(problem: Problem, heads: Indices, others: Sequence[Replacement], count: int) -> list[int]:
    """The eligible nodes that replace a head best, the best first; `others` are the runners-up of the heads."""
    count = min(count, len(np.setdiff1d(problem.eligible, heads)))
    chosen: list[int] = []
    while len(chosen) < count and any(others):
        best = {node: -value for node, value in sorted((o for o in others if o is not None), key=lambda o: o[1])}
        chosen += [node for node in sorted(best, key=lambda node: (best[node], node)) if node not in chosen]
        left = np.setdiff1d(problem.eligible, chosen)
        others = replacements(replace(problem, eligible=left), heads)
    if len(chosen) < count:
        chosen += _fastest_links(problem, np.setdiff1d(problem.eligible, [*heads.tolist(), *chosen]))
    return chosen[: max(0, count)]


def _fastest_links(problem: Problem, nodes: Indices) -> list[int]:
    """Nodes by what their own links send in all: what can be said without paths."""
    topology = problem.topology
    sent = np.bincount(topology.edges[:, 0], weights=topology.rates_mbps, minlength=len(topology))
    return [int(node) for node in nodes[np.argsort(-sent[nodes], kind="stable")]]
