"""Several services on the nodes of one network, which share what these have, keep apart, or are near to each other."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from controller.placement.answer import Answer, Choice
from controller.placement.network.topology import Floats, Indices, Topology
from controller.placement.optimum import answer_of
from controller.placement.outcome import bounded, placement_of
from controller.placement.place import DEFAULT_METRIC, place_on, problem_of
from controller.placement.placement import Placement
from controller.placement.problem import Paths, Problem
from controller.placement.request import PlacementError, Request
from controller.placement.solvers.joint import joint
from controller.placement.solvers.service import Service
from controller.placement.solvers.solution import Solution

JOINT_NODES = 2_000  # the solver of all services copies the bandwidth between all nodes several times
MIB = float(1 << 20)
MILLICORES = 1000.0
Heads = Mapping[str, Sequence[str]]


def several(
    topology: Topology,
    services: Sequence[tuple[str, Request]],
    algorithms: Mapping[str, str] | None = None,
    *,
    metric: str = DEFAULT_METRIC,
    seed: int = 0,
    partial: bool = False,
    time_limit_s: float = 10.0,
) -> dict[str, Placement]:
    """A placement for each service by name, where nodes have room for all heads on them; `optimal` unless said else.

    What one alone would have is kept where that goes together. Else `optimal` services are placed for the largest sum
    of what all are worth. With other algorithms, a cap on members or more than JOINT_NODES nodes, one is placed after
    the other in the order given, and the bounds are those of each alone.
    Raises PlacementError as place() does, naming the service.
    """
    shared = _Shared(topology, services, algorithms or {}, metric, seed, partial, time_limit_s)
    alone = {name: shared.place(name, {}) for name in shared.requests}
    if shared.goes_together(alone):
        return alone
    return (shared.jointly() if shared.can_be_joined else None) or shared.one_after_the_other(alone)


def beside(name: str, requests: Mapping[str, Request], heads: Heads) -> Request:
    """The request of one of several services beside the heads of others.

    What these take is reserved, their nodes are refused where one of the two wants to be apart, and those that this
    one is near to are known to it by their heads.
    """
    request = requests[name]
    wanted = request.constraints
    reserved, refused = dict(request.reserved), dict(request.refusals)
    near = list(request.near)
    for other, nodes in heads.items():
        if other == name:
            continue
        for node in nodes:
            cpu, memory = reserved.get(node, (0.0, 0))
            reserved[node] = cpu + requests[other].cpu, memory + requests[other].memory_bytes
            if _are_apart(name, other, requests):
                refused.setdefault(node, f"runs {other}, from which it is to be apart")
        if other in wanted.near and nodes:
            near.append((tuple(nodes), wanted.near[other]))
    return replace(request, reserved=reserved, refusals=refused, near=tuple(near))


def _are_apart(one: str, other: str, requests: Mapping[str, Request]) -> bool:
    return other in requests[one].constraints.apart or one in requests[other].constraints.apart


class _Shared:
    """The services in one network; those with equal direction and targets share their paths."""

    def __init__(
        self,
        topology: Topology,
        services: Sequence[tuple[str, Request]],
        algorithms: Mapping[str, str],
        metric: str,
        seed: int,
        partial: bool,
        time_limit_s: float,
    ) -> None:
        self.topology, self.requests = topology, dict(services)
        self.algorithms = {name: algorithms.get(name, "optimal") for name in self.requests}
        self._metric, self._seed, self._partial, self._time_limit_s = metric, seed, partial, time_limit_s
        self._known: dict[tuple[float, float, str], Paths] = {}
        if len(self.requests) < len(services):
            raise PlacementError(f"{len(services)} services have {len(self.requests)} names; each needs its own")

    @property
    def can_be_joined(self) -> bool:
        """Whether joint() solves it: all services ask for the optimum, none for a cap on members."""
        is_capped = any(request.constraints.maximum_members for request in self.requests.values())
        are_optimal = set(self.algorithms.values()) == {"optimal"}
        return are_optimal and not is_capped and len(self.topology) <= JOINT_NODES

    def paths(self, name: str) -> Paths:
        wanted = self.requests[name].constraints
        key = wanted.minimum_bandwidth_mbps, wanted.maximum_latency_ms, wanted.direction
        if key not in self._known:
            self._known[key] = Paths(self.topology, self._metric, wanted)
        return self._known[key]

    def place(self, name: str, heads: Heads) -> Placement:
        """One service beside the heads of others; raises PlacementError with its name."""
        try:
            return place_on(
                self.paths(name),
                beside(name, self.requests, heads),
                self.algorithms[name],
                seed=self._seed,
                partial=self._partial,
                bound=True,
                time_limit_s=self._time_limit_s,
            )
        except PlacementError as error:
            raise PlacementError(f"{name}: {error}") from error

    def problem(self, name: str, heads: Heads) -> tuple[Problem, dict[str, str]]:
        """One service beside the heads of others as a problem, with the nodes that are refused."""
        request, algorithm = beside(name, self.requests, heads), self.algorithms[name]
        return problem_of(
            self.paths(name), request, algorithm, seed=self._seed, partial=True, time_limit_s=self._time_limit_s
        )

    def goes_together(self, placements: Mapping[str, Placement]) -> bool:
        """Whether no head is refused beside the others, and no service would rather be nearer to another."""
        if any(other in self.requests for request in self.requests.values() for other in request.constraints.near):
            return False
        heads = _heads(placements)
        return not any(refused.keys() & {*heads[name]} for name in heads for refused in [self.problem(name, heads)[1]])

    def jointly(self) -> dict[str, Placement] | None:
        """The optimum of all services together; None where one finds no place. All have the `seconds` of the whole."""
        started, names = time.perf_counter(), list(self.requests)
        problems = [self.problem(name, {})[0] for name in names]
        demands = np.array([_units(request.cpu, request.memory_bytes) for request in self.requests.values()])
        services = [
            Service(
                problem.paths.bandwidth,
                problem.eligible,
                problem.k,
                problem.bonus,
                demand,
                tuple(names.index(other) for other in names if _are_apart(name, other, self.requests)),
                {names.index(other): w for other, w in problem.request.constraints.near.items() if other in names},
            )
            for name, problem, demand in zip(names, problems, demands, strict=True)
        ]
        found = [solution for solution in joint(services, self._capacity(demands), self._time_limit_s) if solution]
        if len(found) < len(names):
            return None
        solutions = dict(zip(names, found, strict=True))
        heads = {name: self._names(solution.heads) for name, solution in solutions.items()}
        told = {name: self._told(name, heads, solution) for name, solution in solutions.items()}
        return {name: replace(told[name], seconds=time.perf_counter() - started) for name in names}

    def _capacity(self, demands: Floats) -> Floats:
        """What each node has for the heads on it (n, 2), as demands count; an unknown amount is no limit."""
        room = np.array([_units(node.cpus or math.inf, node.memory_bytes or math.inf) for node in self.topology.nodes])
        taken = np.zeros_like(room)
        for request in self.requests.values():
            for node, (cpu, memory) in request.reserved.items():
                if node in self.topology.names:
                    at = self.topology.index(node)
                    taken[at] = np.maximum(taken[at], _units(cpu, memory))
        return np.asarray(np.clip(room - taken, 0.0, demands.sum(axis=0)))

    def one_after_the_other(self, alone: Mapping[str, Placement]) -> dict[str, Placement]:
        """Each service beside those before it; told beside all others."""
        placed: dict[str, Placement] = {}
        for name in self.requests:
            placed[name] = self.place(name, _heads(placed))
        return {name: self._settled(name, placed, alone[name]) for name in placed}

    def _settled(self, name: str, placed: Mapping[str, Placement], alone: Placement) -> Placement:
        """A placement told beside where the others are in the end; its bound is that of the service alone."""
        problem, refused = self.problem(name, _heads(placed))
        placement = placed[name]
        problem = replace(problem, k=placement.k)
        choices = tuple(Choice(self.topology.index(head.node), head.reason) for head in placement.heads)
        told = placement_of(problem, Answer(choices, placement.method), placement.algorithm, refused)
        told = replace(told, seconds=placement.seconds)
        if alone.bound_mbps is None or alone.k != told.k:
            return told
        weight = sum(w for other, w in self.requests[name].constraints.near.items() if other in self.requests)
        return bounded(told, alone.bound_mbps + problem.mean(weight * problem.paths.fastest * problem.k))

    def _told(self, name: str, heads: Heads, solution: Solution) -> Placement:
        """The placement of one service of a joint solution."""
        problem, refused = self.problem(name, heads)
        answer = answer_of(problem, solution, " beside the other services")
        return placement_of(problem, answer, self.algorithms[name], refused)

    def _names(self, nodes: Indices) -> tuple[str, ...]:
        return tuple(self.topology.names[node] for node in nodes)


def _units(cpu: float, memory_bytes: float) -> tuple[float, float]:
    """Cores in whole thousandths and memory in MiB, in which sums are exact."""
    return np.round(cpu * MILLICORES), memory_bytes / MIB


def _heads(placements: Mapping[str, Placement]) -> dict[str, tuple[str, ...]]:
    return {name: tuple(head.node for head in placement.heads) for name, placement in placements.items()}
