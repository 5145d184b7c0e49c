"""Who becomes a head: one function an algorithm, behind one registry."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np

from controller.placement.clusters import cluster_nodes
from controller.placement.topology import Floats, Indices, Topology


@dataclass(frozen=True, slots=True, eq=False)
class Problem:
    """k heads among the `eligible` nodes, with the path bandwidth f[i, j] in Mbit/s and a seed for what is random."""

    topology: Topology
    bandwidth: Floats
    eligible: Indices
    k: int
    seed: int

    def random(self) -> np.random.Generator:
        return np.random.default_rng(self.seed)

    def name(self, node: int) -> str:
        return self.topology.names[node]


@dataclass(frozen=True, slots=True)
class Choice:
    """A head, and why it and no other."""

    node: int
    reason: str


Algorithm = Callable[[Problem], list[Choice]]


def random_heads(problem: Problem) -> list[Choice]:
    """Heads drawn uniformly from the eligible nodes: the baseline, and what a network without placement does."""
    drawn = problem.random().choice(problem.eligible, size=problem.k, replace=False)
    reason = f"drawn at random from {len(problem.eligible)} eligible nodes (seed {problem.seed})"
    return [Choice(int(node), reason) for node in drawn]


def naive_k_means(problem: Problem) -> list[Choice]:
    """The eligible node nearest to each centroid of k-means on coordinates: the paper's comparison."""
    cluster, centroids, points = cluster_nodes(problem.topology, problem.k, problem.bandwidth, problem.random())
    choices: list[Choice] = []
    for at, centroid in enumerate(centroids):
        away = np.linalg.norm(points - centroid, axis=1)
        candidates = _candidates(problem, choices, np.flatnonzero((cluster == at) & ~np.isnan(away)))
        candidates = candidates[~np.isnan(away[candidates])]
        if len(candidates):
            size = int((cluster == at).sum())
            what = f"nearest to the centroid of its cluster of {size} nodes" if size > 1 else "alone in its cluster"
            choices.append(_best(problem, candidates, -away[candidates], what, lambda d: f"{-d:.0f} m"))
    return choices + _fill(problem, choices)


def basp(problem: Problem) -> list[Choice]:
    """Algorithm 1 of the BASP paper: in each k-means cluster the node with the largest sum of bandwidth to the others.

    Its third phase, every node to the head with the best path, is done by place() for every algorithm. A cluster
    without an eligible node gets the eligible node outside it that serves it best.
    """
    cluster, centroids, _ = cluster_nodes(problem.topology, problem.k, problem.bandwidth, problem.random())
    choices: list[Choice] = []
    for at in range(len(centroids)):
        members = np.flatnonzero(cluster == at)
        inside = _candidates(problem, choices, members)
        if len(members) == 1 and len(inside):
            choices.append(Choice(int(inside[0]), "alone in its cluster"))
            continue
        candidates = inside if len(inside) else _candidates(problem, choices, np.arange(len(problem.topology)))
        sums = problem.bandwidth[np.ix_(candidates, members)].sum(axis=1)
        what = (
            f"largest sum of bandwidth to its {len(members) - 1} cluster members"
            if len(inside)
            else f"largest sum of bandwidth to the {len(members)} nodes of a cluster that has no eligible node"
        )
        choices.append(_best(problem, candidates, sums, what, _mbps))
    return choices + _fill(problem, choices)


def _fill(problem: Problem, choices: list[Choice]) -> list[Choice]:
    """Heads for what coordinates gave no cluster for: each as good for the sum over all members as one head can be."""
    filled: list[Choice] = []
    while len(choices) + len(filled) < problem.k:
        heads = [choice.node for choice in choices + filled]
        have = problem.bandwidth[heads].max(axis=0, initial=0.0)
        candidates = _candidates(problem, choices + filled, np.arange(len(problem.topology)))
        served = np.maximum(problem.bandwidth[candidates], have)
        served[:, heads] = 0.0  # a head is no member, neither an earlier one nor the candidate itself
        served[np.arange(len(candidates)), candidates] = 0.0
        what = "largest sum of bandwidth from all heads to their members (coordinates gave no cluster for it)"
        filled.append(_best(problem, candidates, served.sum(axis=1), what, _mbps))
    return filled


def _candidates(problem: Problem, chosen: Iterable[Choice], among: Indices) -> Indices:
    """The eligible nodes among some that are no head yet."""
    return np.setdiff1d(np.intersect1d(problem.eligible, among), [choice.node for choice in chosen])


def _best(problem: Problem, candidates: Indices, scores: Floats, what: str, show: Callable[[float], str]) -> Choice:
    """The candidate with the highest score (the first by name order of a tie) and a sentence with the runner-up."""
    order = np.argsort(-scores, kind="stable")
    reason = f"{what}: {show(float(scores[order[0]]))}"
    if len(order) > 1:
        reason += f", runner-up {problem.name(int(candidates[order[1]]))} {show(float(scores[order[1]]))}"
    else:
        reason += ", the only eligible node there"
    return Choice(int(candidates[order[0]]), reason)


def _mbps(value: float) -> str:
    return f"{value:.1f} Mbit/s"


ALGORITHMS: dict[str, Algorithm] = {"basp": basp, "kmeans": naive_k_means, "random": random_heads}


def algorithms() -> tuple[str, ...]:
    """The names of the placement algorithms, the default first."""
    return tuple(ALGORITHMS)
