"""place(topology, request, algorithm) -> Placement: one entry for the controller, the command and the evaluation."""

from __future__ import annotations

import time
from dataclasses import replace

import numpy as np

from controller.placement.algorithms import ALGORITHMS
from controller.placement.answer import Answer
from controller.placement.eligible import refusals, with_hanet_thresholds
from controller.placement.network.paths import metrics
from controller.placement.network.topology import Topology
from controller.placement.optimum import bound_of
from controller.placement.outcome import bounded, placement_of
from controller.placement.placement import Placement
from controller.placement.problem import Paths, Problem, bonus_of
from controller.placement.request import PlacementError, Request

DEFAULT_METRIC = metrics()[0]
NAMED = 100  # so many reasons a message gives, and nodes for each


def place(
    topology: Topology,
    request: Request,
    algorithm: str = "optimal",
    *,
    metric: str = DEFAULT_METRIC,
    seed: int = 0,
    partial: bool = False,
    bound: bool = False,
    time_limit_s: float = 10.0,
) -> Placement:
    """Heads for a request, the same for the same arguments unless `time_limit_s` of CPU cuts a search short.

    `partial` takes as many heads as there are eligible nodes, perhaps none. `bound` asks for an upper bound also where
    the algorithm has none of its own; the placement's `seconds` are without that. Raises PlacementError.
    """
    return place_on(
        Paths(topology, metric, request.constraints),
        request,
        algorithm,
        seed=seed,
        partial=partial,
        bound=bound,
        time_limit_s=time_limit_s,
    )


def place_on(
    paths: Paths,
    request: Request,
    algorithm: str,
    *,
    seed: int = 0,
    partial: bool = False,
    bound: bool = False,
    time_limit_s: float = 10.0,
) -> Placement:
    """As place(), on paths that several calls may share if metric, direction and targets are the same.

    `seconds` is then without the metric from the second call on.
    """
    started = time.perf_counter()
    check(paths.topology, request, algorithm, paths.metric, seed, partial)
    problem, refused = problem_of(paths, request, algorithm, seed=seed, partial=partial, time_limit_s=time_limit_s)
    answer = ALGORITHMS[algorithm](problem) if problem.k else Answer((), "no node is eligible")
    placement = placement_of(problem, answer, algorithm, refused)
    placement = replace(placement, seconds=time.perf_counter() - started)
    if bound and placement.bound_mbps is None and problem.k and paths.has_bounds:
        value = placement.objective_mbps * problem.members
        return bounded(placement, problem.mean(bound_of(problem, value)))
    return placement


def problem_of(
    paths: Paths, request: Request, algorithm: str, *, seed: int, partial: bool, time_limit_s: float
) -> tuple[Problem, dict[str, str]]:
    """What the algorithm is to solve, and the refused nodes with their reasons; raises PlacementError."""
    asked = with_hanet_thresholds(request, paths.topology.nodes) if algorithm == "hanet" else request
    refused = refusals(paths, asked)
    names = paths.topology.names
    eligible = np.array([at for at, name in enumerate(names) if name not in refused], dtype=np.int64)
    k = min(request.k, len(eligible)) if partial else request.k
    if k > len(eligible):
        raise PlacementError(_too_few(paths.topology, request, refused))
    return Problem(paths, request, eligible, k, bonus_of(paths, request), seed, time_limit_s), refused


def check(topology: Topology, request: Request, algorithm: str, metric: str, seed: int, partial: bool = False) -> None:
    """Raises PlacementError for what no network could be asked, or this one is too small for (unless `partial`)."""
    if algorithm not in ALGORITHMS:
        raise PlacementError(f"unknown algorithm {algorithm!r}; accepted: {', '.join(ALGORITHMS)}")
    if metric not in metrics():
        raise PlacementError(f"unknown metric {metric!r}; accepted: {', '.join(metrics())}")
    if not len(topology):
        raise PlacementError("the topology has no node; a placement needs at least one")
    if request.k < 1 or (request.k > len(topology) and not partial):
        raise PlacementError(f"k is {request.k}; a topology of {len(topology)} nodes takes 1 to {len(topology)} heads")
    if seed < 0:
        raise PlacementError(f"seed is {seed}; 0 and above are accepted")
    request.check()


def _too_few(topology: Topology, request: Request, refused: dict[str, str]) -> str:
    """Each reason with the nodes that it refuses."""
    nodes: dict[str, list[str]] = {}
    for node, reason in refused.items():
        nodes.setdefault(reason, []).append(node)
    told = [f"{reason}: {', '.join(some[:NAMED])}{_more(len(some))}" for reason, some in nodes.items()]
    heads = f"{len(topology) - len(refused)} of {len(topology)} nodes may be a head"
    return f"k is {request.k}, but {heads}; {'; '.join(told[:NAMED])}{_more(len(told))}"


def _more(count: int) -> str:
    return f" and {count - NAMED} more" if count > NAMED else ""
