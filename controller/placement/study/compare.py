"""The paper's comparison for any network: its Figure 8 (bandwidth by k and algorithm) and its Table 1 (heads, time)."""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from controller.placement.network.topology import Floats, Indices, Topology
from controller.placement.place import check, place_on
from controller.placement.placement import Placement
from controller.placement.problem import Paths
from controller.placement.request import PlacementError, Request
from controller.placement.solvers.solution import TOLERANCE
from controller.placement.study import graph

# These depend on their seed, so that their figure is a mean over runs; of the others one run says everything.
SEEDED = ("random", "kmeans", "basp", "hanet")
ALGORITHMS = ("random", "kmeans", "basp", "greedy", "optimal")
RUNS = 75  # the paper's 5 runs of 15 repetitions
TIMED_RUNS = 5  # the first ones compute the path bandwidth anew, as a single placement does; the others share it
NOTE_LENGTH = 200
ALL_HOPS = 5000  # nodes between all of which the hops are counted: a matrix of 200 MB

Step = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class HeadFigures:
    """A head as the paper's Table 1 has it: neighbours, their average degree, its cluster's size and diameter in hops.

    The diameter is the longest of the network's shortest ways between two nodes of the cluster; None beyond ALL_HOPS
    nodes, and for a cluster that has no such way.
    """

    node: str
    degree: int
    connectivity: float
    members: int
    diameter: int | None


@dataclass(frozen=True, slots=True)
class Row:
    """An algorithm's figures for one k: means over its runs, and the heads of the run nearest the mean.

    `seconds` is the median CPU time of whole placements, the path bandwidth included.

    No placement of this k has an objective above `bound_mbps`. `gap` is the share of it that the mean over the runs
    lacks, None where no bound is known; `proven` says that it lacks nothing.
    """

    algorithm: str
    k: int
    runs: int
    mean_bandwidth_mbps: float
    deviation_mbps: float
    lowest_mbps: float
    highest_mbps: float
    mean_of_cluster_means_mbps: float
    seconds: float
    heads: tuple[HeadFigures, ...]
    bound_mbps: float | None = None
    proven: bool = False
    gap: float | None = None

    def to_json(self) -> dict[str, Any]:
        """The figures of the row."""
        figures = asdict(self)
        return {name: round(value, 6) if isinstance(value, float) else value for name, value in figures.items()}


@dataclass(frozen=True, slots=True)
class Comparison:
    """The rows of all k and algorithms, in the order asked for, on a network by a metric.

    `notes` name what could not be placed.
    """

    nodes: int
    links: int
    metric: str
    rows: tuple[Row, ...]
    notes: tuple[str, ...] = ()

    @property
    def algorithms(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(row.algorithm for row in self.rows))

    def of(self, algorithm: str) -> tuple[Row, ...]:
        """The rows of an algorithm."""
        return tuple(row for row in self.rows if row.algorithm == algorithm)

    def to_json(self) -> dict[str, Any]:
        """All rows as `picasso-controller compare --json` prints them."""
        facts = {"nodes": self.nodes, "links": self.links, "metric": self.metric, "notes": list(self.notes)}
        return facts | {"rows": [row.to_json() for row in self.rows]}


def compare(
    topology: Topology,
    ks: Sequence[int],
    algorithms: Sequence[str] = ALGORITHMS,
    *,
    runs: int = RUNS,
    metric: str = "routed",
    request: Request | None = None,
    step: Step = lambda what: None,
    clock: Callable[[], float] = time.process_time,
) -> Comparison:
    """Places each k by each algorithm, seeds 0 to `runs` - 1 where it has one; `step` is told before each placement.

    `request` has the constraints; its k is replaced. An algorithm that its constraints leave too few nodes is noted.
    Raises PlacementError for what makes no sense on this topology.
    """
    if runs < 1:
        raise PlacementError(f"{runs} runs are none; 1 and more are accepted")
    asked = [replace(request or Request(1), k=k) for k in sorted(ks)]
    for algorithm in algorithms:
        check(topology, asked[-1], algorithm, metric, 0)
    measures = _Measures.of(topology)
    paths = Paths(topology, metric, asked[0].constraints)
    rows: list[Row] = []
    refused: dict[str, str] = {}
    for wanted in asked:
        found: dict[str, list[Placement]] = {}
        for algorithm in algorithms:
            if algorithm not in refused:
                try:
                    found[algorithm] = _run(paths, wanted, algorithm, runs, step, clock)
                except PlacementError as error:
                    refused[algorithm] = f"{algorithm} places nothing from k = {wanted.k} on: {_short(str(error))}"
        bound = _bound([run for placements in found.values() for run in placements])
        if bound is None and found:
            bound = _bound([place_on(paths, wanted, "greedy", bound=True)])
        rows += [_row(placements, bound, measures) for placements in found.values()]
    return Comparison(len(topology), len(topology.edges), metric, tuple(rows), tuple(refused.values()))


def _run(
    paths: Paths, request: Request, algorithm: str, runs: int, step: Step, clock: Callable[[], float]
) -> list[Placement]:
    found = []
    for seed in range(runs if algorithm in SEEDED else 1):
        step(f"{algorithm}, k = {request.k}")
        on = paths if seed >= TIMED_RUNS else Paths(paths.topology, paths.metric, request.constraints)
        started = clock()
        placement = place_on(on, request, algorithm, seed=seed)
        found.append(replace(placement, seconds=clock() - started))
    return found


def _short(text: str) -> str:
    return text if len(text) <= NOTE_LENGTH else f"{text[:NOTE_LENGTH]} …"


def steps(ks: Sequence[int], algorithms: Sequence[str], runs: int) -> int:
    """How many placements compare() makes."""
    return len(ks) * sum(runs if algorithm in SEEDED else 1 for algorithm in algorithms)


def _bound(placements: Sequence[Placement]) -> float | None:
    """The least objective that no placement of this k exceeds, by the placements that come with a bound."""
    return min((p.bound_mbps for p in placements if p.bound_mbps is not None), default=None)


def _row(placements: Sequence[Placement], bound: float | None, measures: _Measures) -> Row:
    means = [placement.mean_bandwidth_mbps for placement in placements]
    mean = statistics.fmean(means)
    typical = min(placements, key=lambda placement: abs(placement.mean_bandwidth_mbps - mean))
    missing = 0.0 if bound is None else max(0.0, bound - statistics.fmean(p.objective_mbps for p in placements))
    gap = None if bound is None else missing / abs(bound or 1.0)
    return Row(
        algorithm=typical.algorithm,
        k=typical.k,
        runs=len(placements),
        mean_bandwidth_mbps=mean,
        deviation_mbps=statistics.stdev(means) if len(means) > 1 else 0.0,
        lowest_mbps=min(means),
        highest_mbps=max(means),
        mean_of_cluster_means_mbps=statistics.fmean(p.mean_of_cluster_means_mbps for p in placements),
        seconds=statistics.median(p.seconds for p in placements[:TIMED_RUNS]),
        heads=measures.heads(typical),
        bound_mbps=bound,
        proven=gap is not None and gap <= TOLERANCE,
        gap=gap,
    )


@dataclass(frozen=True, slots=True)
class _Measures:
    """What Table 1 needs of a network, computed once."""

    index: dict[str, int]
    degree: Indices
    connectivity: Floats
    hops: Floats | None

    @classmethod
    def of(cls, topology: Topology) -> _Measures:
        neighbours = graph.adjacency(topology)
        n = len(topology)
        return cls(
            {name: at for at, name in enumerate(topology.names)},
            graph.degrees(neighbours),
            graph.neighbourhood_connectivity(neighbours),
            graph.hops_from(neighbours, np.arange(n)) if n <= ALL_HOPS else None,
        )

    def heads(self, placement: Placement) -> tuple[HeadFigures, ...]:
        clusters = {head.node: [self.index[head.node]] for head in placement.heads}
        for node, member in placement.members.items():
            clusters[member.head].append(self.index[node])
        return tuple(
            HeadFigures(
                node,
                int(self.degree[cluster[0]]),
                float(self.connectivity[cluster[0]]),
                len(cluster) - 1,
                self._diameter(cluster),
            )
            for node, cluster in clusters.items()
        )

    def _diameter(self, cluster: Sequence[int]) -> int | None:
        longest = math.inf if self.hops is None else float(self.hops[np.ix_(cluster, cluster)].max())
        return int(longest) if math.isfinite(longest) else None
