"""From the heads that an algorithm chose to the placement: members, targets, stand-bys and figures."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

import numpy as np

from controller.placement.answer import Answer
from controller.placement.attach import Attachment, attach
from controller.placement.placement import ClusterHead, Member, Placement
from controller.placement.problem import Problem
from controller.placement.solvers.solution import TOLERANCE
from controller.placement.standby import Replacement, replacements, standbys


def placement_of(problem: Problem, answer: Answer, algorithm: str, refused: Mapping[str, str]) -> Placement:
    """The placement that an answer makes; `seconds` is left to the caller, who has the clock."""
    names, request = problem.topology.names, problem.request
    heads = np.array([choice.node for choice in answer.choices], dtype=np.int64)
    attached = attach(problem, heads)
    others = replacements(problem, heads) if answer.others is None else answer.others
    served = float(attached.counted_mbps.sum())
    placement = Placement(
        algorithm=algorithm,
        metric=problem.paths.metric,
        k=problem.k,
        seed=problem.seed,
        heads=tuple(_heads(problem, answer, attached, others)),
        members=dict(_members(problem, attached)),
        refused=dict(refused),
        unreached=tuple(names[node] for node in attached.without()),
        standbys=tuple(names[node] for node in standbys(problem, heads, others, request.standbys)),
        mean_bandwidth_mbps=problem.mean(served),
        seconds=0.0,
        mean_of_cluster_means_mbps=_mean_of_means(attached),
        objective_mbps=problem.mean(served + float(problem.bonus[heads].sum())),
        method=answer.method,
        violations=dict(_violations(problem, attached)),
        direction=request.direction,
    )
    return placement if answer.bound is None else bounded(placement, problem.mean(answer.bound))


def bounded(placement: Placement, bound_mbps: float | None) -> Placement:
    """The placement with a bound of its objective, which proves it where it leaves nothing to gain; None: no bound."""
    if bound_mbps is None:
        return placement
    objective = placement.objective_mbps
    proven = bound_mbps <= objective + TOLERANCE * max(1.0, abs(objective))
    return replace(placement, bound_mbps=objective if proven else bound_mbps, proven=proven)


def _heads(
    problem: Problem, answer: Answer, attached: Attachment, others: Sequence[Replacement]
) -> Iterator[ClusterHead]:
    means = np.nan_to_num(attached.means(attached.mbps))
    for choice, mean, other in zip(answer.choices, means.tolist(), others, strict=True):
        name = problem.name(choice.node)
        if other is None:
            yield ClusterHead(name, choice.reason, mean)
        else:
            yield ClusterHead(name, choice.reason, mean, problem.name(other[0]), problem.mean(other[1]))


def _members(problem: Problem, attached: Attachment) -> Iterator[tuple[str, Member]]:
    names, nodes = problem.topology.names, np.flatnonzero(attached.head >= 0)
    heads = attached.heads[attached.head[nodes]]
    for node, head, mbps in zip(nodes.tolist(), heads.tolist(), attached.mbps[nodes].tolist(), strict=True):
        yield names[node], Member(names[head], mbps)


def _mean_of_means(attached: Attachment) -> float:
    means = attached.means(attached.counted_mbps)
    known = means[~np.isnan(means)]
    return float(known.mean()) if len(known) else 0.0


def _violations(problem: Problem, attached: Attachment) -> Iterator[tuple[str, str]]:
    """The nodes whose path from their head misses a target of the service, or is not known to meet it."""
    wanted, names = problem.request.constraints, problem.topology.names
    if wanted.maximum_members and (alone := attached.without()):
        reached = problem.paths.rows(attached.heads).max(axis=0, initial=0.0) > 0
        full = f"every head that reaches it has its {wanted.maximum_members} members"
        yield from ((names[node], full) for node in alone if reached[node])
    if not (wanted.minimum_bandwidth_mbps or wanted.maximum_latency_ms):
        return
    latency = problem.paths.latency_rows(attached.heads) if wanted.maximum_latency_ms else None
    for node in np.flatnonzero(attached.head >= 0).tolist():
        head = names[attached.heads[attached.head[node]]]
        if attached.mbps[node] < wanted.minimum_bandwidth_mbps:
            asked = f"{wanted.minimum_bandwidth_mbps:g} are asked for"
            yield names[node], f"{attached.mbps[node]:.1f} Mbit/s from {head}, {asked}"
        elif latency is not None and not latency[attached.head[node], node] <= wanted.maximum_latency_ms:
            ms = float(latency[attached.head[node], node])
            figure = "an unknown round trip" if np.isnan(ms) else f"a round trip of {ms:.0f} ms"
            yield names[node], f"{figure} to {head}, at most {wanted.maximum_latency_ms:g} ms are asked for"
