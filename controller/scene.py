"""The network at the moment of a decision, and what heads of one service are worth in it. Pure, and brings numpy."""

from __future__ import annotations

import functools
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from controller.monitoring.network import View
from controller.placement import Placement, Request, Topology, least_airtime
from controller.placement.answer import Answer, Choice
from controller.placement.attach import attach
from controller.placement.eligible import refusals
from controller.placement.network.reports import from_reports
from controller.placement.network.topology import Floats, Indices
from controller.placement.outcome import bounded, placement_of
from controller.placement.place import DEFAULT_METRIC, check, place_on, problem_of
from controller.placement.problem import Paths, bonus_of

# CPU seconds for the search for one service's optimum; what is found by then has a bound.
TIME_LIMIT_S = 5.0
Links = dict[tuple[str, str], float]


class Scene:
    """The topology by the reports of live nodes, where the past (`rates`, `availability`) makes it no better."""

    def __init__(
        self,
        view: View,
        rates: Mapping[tuple[str, str], float] | None = None,
        availability: Mapping[str, float] | None = None,
    ) -> None:
        reports = list(view.reports.values())
        self.topology: Topology = from_reports(reports, rates, availability)
        # By direction and targets, which services mostly have in common.
        self._paths: dict[tuple[str, float, float], Paths] = {}

    def links(self) -> Links:
        """Mbit/s of each direction."""
        pairs = zip(self.topology.edges.tolist(), self.topology.rates_mbps.tolist(), strict=True)
        return {(self.topology.names[i], self.topology.names[j]): float(rate) for (i, j), rate in pairs}

    def snapshot(self, moment: float) -> str:
        """What a section calls this network; `moment` is Unix time."""
        stamp = time.strftime("%FT%TZ", time.gmtime(moment))
        return f"{len(self.topology)} nodes, {len(self.topology.rates_mbps)} links, {stamp}"

    def way(self, source: str, destination: str) -> list[tuple[str, float]]:
        """The least-airtime path, as DeliveryTree wants it."""
        times, before, index = self._airtimes
        start, at = index.get(source), index.get(destination)
        found: list[tuple[str, float]] = []
        while start is not None and at is not None and at != start:
            previous = int(before[start, at])
            if previous < 0:
                return []
            found.append((self.topology.names[at], float(times[start, at] - times[start, previous])))
            at = previous
        return found[::-1]

    @functools.cached_property
    def _airtimes(self) -> tuple[Floats, Indices, dict[str, int]]:
        times, before = least_airtime(self.topology)
        return times, before, {name: at for at, name in enumerate(self.topology.names)}

    def case(self, request: Request, algorithm: str) -> Case:
        """One service in this network; raises PlacementError."""
        # Fewer nodes than replicas is a state of the network, not a mistake in the service file.
        request = replace(request, k=max(1, min(request.k, len(self.topology))))
        check(self.topology, request, algorithm, DEFAULT_METRIC, 0)
        wanted = request.constraints
        targets = wanted.direction, wanted.minimum_bandwidth_mbps, wanted.maximum_latency_ms
        if targets not in self._paths:
            self._paths[targets] = Paths(self.topology, DEFAULT_METRIC, wanted)
        return Case(self._paths[targets], request, algorithm)


class Case:
    """One service: its best placement (`best`), and what other heads are worth to its members by the same measure.

    Worth is the Mbit/s of all members together, and for closeness to other services; a migration costs nothing in it.
    `impossible` nodes are refused for what they are, the others in `best.refused` for what is measured at the moment.
    """

    def __init__(self, paths: Paths, request: Request, algorithm: str) -> None:
        limit_s = TIME_LIMIT_S
        self.best: Placement = place_on(paths, request, algorithm, partial=True, bound=True, time_limit_s=limit_s)
        self._problem, self._refused = problem_of(paths, request, algorithm, seed=0, partial=True, time_limit_s=limit_s)
        self._closeness = bonus_of(paths, replace(request, migration_cost_mbps=0.0))
        self._index = {name: at for at, name in enumerate(paths.topology.names)}
        self.impossible = refusals(paths, _without_measured(request))
        self.standbys = request.standbys

    def of(self, heads: Sequence[str]) -> float:
        """The worth of heads."""
        nodes = self._nodes(heads)
        attached = attach(replace(self._problem, k=len(nodes)), nodes)
        return float(attached.counted_mbps.sum() + self._closeness[nodes].sum())

    def with_each(self, heads: Sequence[str]) -> dict[str, float]:
        """The worth of heads and one more, for each eligible node that is none, without a cap on members."""
        nodes = self._nodes(heads)
        spare = np.setdiff1d(self._problem.eligible, nodes)
        served = self._problem.between(spare, np.arange(len(self._index)))
        if len(nodes):
            np.maximum(served, self._problem.paths.counted_rows(nodes).max(axis=0), out=served)
        served[:, nodes] = 0.0
        served[np.arange(len(spare)), spare] = 0.0
        values = served.sum(axis=1) + self._closeness[spare] + self._closeness[nodes].sum()
        return {self._problem.name(node): value for node, value in zip(spare.tolist(), values.tolist(), strict=True)}

    def placement(self, heads: Mapping[str, str]) -> Placement:
        """The placement with these heads, each with its reason, under the bound of the best one."""
        choices = tuple(Choice(self._index[node], reason) for node, reason in heads.items())
        problem = replace(self._problem, k=len(choices))
        made = placement_of(problem, Answer(choices, self.best.method), self.best.algorithm, self._refused)
        # The bound is one of a mean over n - k members, and of nodes that may be heads.
        is_bounded = self.best.k == made.k and self._refused.keys().isdisjoint(heads)
        return bounded(made, self.best.bound_mbps if is_bounded else None)

    def _nodes(self, heads: Sequence[str]) -> Indices:
        return np.array([self._index[head] for head in heads], dtype=np.int64)


def _without_measured(request: Request) -> Request:
    """The request without constraints on what changes from minute to minute."""
    wanted = replace(
        request.constraints,
        minimum_availability=0.0,
        minimum_free_cpu_percent=0.0,
        minimum_free_memory_bytes=0,
        minimum_bandwidth_mbps=0.0,
        maximum_latency_ms=0.0,
    )
    return replace(request, constraints=wanted)
