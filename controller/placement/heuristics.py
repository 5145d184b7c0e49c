"""Placement without a claim to be the best: random, naive k-means, and the paper's BASP, which HANET tightens."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace

import numpy as np

from controller.placement.answer import Answer, Choice
from controller.placement.clusters import cluster_nodes
from controller.placement.eligible import unknown
from controller.placement.network.topology import Floats, Indices
from controller.placement.problem import Problem


def random_heads(problem: Problem) -> Answer:
    """Heads drawn uniformly from the eligible nodes: the baseline, and what a network without placement does."""
    drawn = problem.random().choice(problem.eligible, size=problem.k, replace=False)
    reason = f"drawn at random from {len(problem.eligible)} eligible nodes (seed {problem.seed})"
    return Answer(tuple(Choice(int(node), reason) for node in drawn), "uniform draw")


def naive_k_means(problem: Problem) -> Answer:
    """The eligible node nearest to each centroid of k-means on coordinates: the paper's comparison."""
    cluster, centroids, points = cluster_nodes(problem.paths, problem.k, problem.random())
    choices: list[Choice] = []
    for at, centroid in enumerate(centroids):
        away = np.linalg.norm(points - centroid, axis=1)
        candidates = _candidates(problem, choices, np.flatnonzero((cluster == at) & ~np.isnan(away)))
        if len(candidates):
            size = int((cluster == at).sum())
            what = f"nearest to the centroid of its cluster of {size} nodes" if size > 1 else "alone in its cluster"
            choices.append(_best(problem, candidates, -away[candidates], what, lambda d: f"{-d:.0f} m"))
    return Answer((*choices, *_fill(problem, choices)), "k-means on coordinates")


def basp(problem: Problem) -> Answer:
    """Algorithm 1 of the BASP paper: in each k-means cluster the node with the largest sum of bandwidth to the others.

    Its third phase, every node to the head with the best path, is done by attach() for every algorithm. A cluster
    without an eligible node gets the eligible node outside it that serves it best.
    """
    cluster, centroids, _ = cluster_nodes(problem.paths, problem.k, problem.random())
    choices: list[Choice] = []
    for at in range(len(centroids)):
        members = np.flatnonzero(cluster == at)
        inside = _candidates(problem, choices, members)
        if len(members) == 1 and len(inside):
            choices.append(Choice(int(inside[0]), "alone in its cluster"))
            continue
        candidates = inside if len(inside) else _candidates(problem, choices, np.arange(len(cluster)))
        sums = _sums(problem, candidates, members)
        what = (
            f"largest sum of bandwidth to its {len(members) - 1} cluster members"
            if len(inside)
            else f"largest sum of bandwidth to the {len(members)} nodes of a cluster that has no eligible node"
        )
        choices.append(_best(problem, candidates, sums, what, _mbps))
    return Answer((*choices, *_fill(problem, choices)), "Algorithm 1 of BASP")


def hanet(problem: Problem) -> Answer:
    """BASP among the nodes that pass the hardware tests, see eligible.with_hanet_thresholds()."""
    method = "Algorithm 1 of BASP among the nodes that pass the hardware tests"
    facts = ("free CPU", "free memory", "availability")
    untold = [fact for fact, is_unknown in zip(facts, unknown(problem.topology.nodes), strict=True) if is_unknown]
    return replace(basp(problem), method=method + (f"; no node tells its {' or '.join(untold)}" if untold else ""))


def _sums(problem: Problem, candidates: Indices, members: Indices) -> Floats:
    """The bandwidth from each candidate to the members in all, and its bonus; in blocks, for networks of any size."""
    blocks = np.array_split(candidates, 1 + len(candidates) * len(problem.topology) // 10_000_000)
    sums = [problem.between(block, members).sum(axis=1) for block in blocks]
    return np.concatenate(sums) + problem.bonus[candidates]


def _fill(problem: Problem, choices: list[Choice]) -> list[Choice]:
    """Heads for what coordinates gave no cluster for: each as good for the sum over all members as one head can be."""
    heads = [choice.node for choice in choices]
    rounds: list[tuple[Indices, Floats]] = []
    while len(heads) < problem.k:
        f = problem.paths.bandwidth
        have = f[heads].max(axis=0, initial=0.0)
        candidates = np.setdiff1d(problem.eligible, heads)
        served = np.maximum(f[candidates], have)
        served[:, heads] = 0.0  # a head is no member, neither an earlier one nor the candidate itself
        served[np.arange(len(candidates)), candidates] = problem.bonus[candidates]
        scores = served.sum(axis=1)
        rounds.append((candidates, scores))
        heads.append(int(candidates[_order(scores)[0]]))
    what = "largest sum of bandwidth from all heads to their members (coordinates gave no cluster for it)"
    return [_best(problem, candidates, scores, what, _mbps, heads) for candidates, scores in rounds]


def _candidates(problem: Problem, chosen: Iterable[Choice], among: Indices) -> Indices:
    """The eligible nodes among some that are no head yet."""
    return np.setdiff1d(np.intersect1d(problem.eligible, among), [choice.node for choice in chosen])


def _best(
    problem: Problem,
    candidates: Indices,
    scores: Floats,
    what: str,
    show: Callable[[float], str],
    heads: Sequence[int] = (),
) -> Choice:
    """The candidate with the highest score and a sentence with the next one that is none of the heads."""
    order = _order(scores)
    reason = f"{what}: {show(float(scores[order[0]]))}"
    others = order[1:][~np.isin(candidates[order[1:]], heads)]
    if len(others):
        reason += f", then {problem.name(int(candidates[others[0]]))} {show(float(scores[others[0]]))}"
    else:
        reason += ", the only eligible node there"
    return Choice(int(candidates[order[0]]), reason)


def _order(scores: Floats) -> Indices:
    """The highest score first, of a tie the first by name; sums of the same figures in another order are a tie."""
    return np.argsort(-scores.round(9), kind="stable")


def _mbps(value: float) -> str:
    return f"{value:.1f} Mbit/s"
