"""The problem that every algorithm solves: path bandwidth as a request counts it, computed only when asked for."""

from __future__ import annotations

import functools
from dataclasses import dataclass

import numpy as np

from controller.placement.network.mutual import is_symmetric, mutual_links
from controller.placement.network.paths import path_bandwidth, path_latency
from controller.placement.network.topology import Floats, Indices, Topology
from controller.placement.request import PlacementError, Request
from controller.placement.solvers.merge_tree import MergeTree
from gateway.protocol.messages import Constraints

MATRIX_NODES = 15_000  # the bandwidth between all of these takes 1.8 GB
ROWS_NODES = 1_000  # from here on, single rows are cheaper than the matrix


class Paths:
    """The path bandwidth f[i, j] in Mbit/s by a metric: as it is, and as it counts under a service's targets.

    With direction `both`, f is the smaller of f[i, j] and f[j, i]. A path that misses a target counts 0; one whose
    latency is unknown does not miss it. Where f is an ultrametric (widest paths that are the same both ways), `tree`
    has all of it and there is no matrix.
    """

    def __init__(self, topology: Topology, metric: str, wanted: Constraints) -> None:
        self.topology, self.metric = topology, metric
        self.minimum_mbps, self.maximum_ms = wanted.minimum_bandwidth_mbps, wanted.maximum_latency_ms
        self._both = wanted.direction == "both"

    def __len__(self) -> int:
        return len(self.topology)

    # --- the whole ---------------------------------------------------------------------------------------------

    @functools.cached_property
    def tree(self) -> MergeTree | None:
        """The merge tree of what counts, where that is an ultrametric."""
        if self._tree is None or self.maximum_ms:
            return None
        return self._tree if not self.minimum_mbps else self._tree_from(self.minimum_mbps)

    @functools.cached_property
    def matrix(self) -> Floats:
        """f (n, n); raises PlacementError for a network that it is too large for."""
        if len(self) > MATRIX_NODES:
            raise PlacementError(
                f"{len(self)} nodes are too many for the {self.metric} bandwidth between all of them, "
                f"{MATRIX_NODES} are accepted; metric widest with direction both has no limit where neither latency "
                "nor members have a maximum"
            )
        if self._tree is not None:
            return self._tree.rows(np.arange(len(self)))
        f = path_bandwidth(self.topology, self.metric)
        return np.minimum(f, f.T) if self._both else f

    @functools.cached_property
    def bandwidth(self) -> Floats:
        """f (n, n) as it counts."""
        if not self.maximum_ms:
            return self._at_least(self.matrix)
        late = self._late(None)
        return self._at_least(np.where(late | late.T if self._both else late, 0.0, self.matrix))

    @functools.cached_property
    def fastest(self) -> float:
        """The fastest path that counts; no less than it where the bandwidth between all nodes is not at hand."""
        if self.tree is not None:
            return float(self.tree.merged_mbps.max(initial=0.0))
        return float((self.bandwidth if self.has_matrix else self.topology.rates_mbps).max(initial=0.0))

    # --- some rows of it ---------------------------------------------------------------------------------------

    def rows(self, sources: Indices) -> Floats:
        """f (s, n) from some nodes."""
        if self._tree is not None:
            return self._tree.rows(sources)
        if self.has_matrix or self._both:
            return self.matrix[sources]
        return path_bandwidth(self.topology, self.metric, sources)

    def columns(self, destinations: Indices) -> Floats:
        """f (d, n) to some nodes."""
        return self.matrix[:, destinations].T if self._tree is None else self._tree.rows(destinations)

    def counted_rows(self, sources: Indices) -> Floats:
        """f (s, n) from some nodes as it counts."""
        if self.tree is not None:
            return self._at_least(self.rows(sources))
        if self.has_matrix or self._both:
            return self.bandwidth[sources]
        rows = self.rows(sources)
        return self._at_least(np.where(self._late(sources), 0.0, rows) if self.maximum_ms else rows)

    def latency_rows(self, sources: Indices) -> Floats:
        """Milliseconds of round trip (s, n) from some nodes, NaN where unknown."""
        return path_latency(self.topology, self.metric, sources)

    @functools.cached_property
    def best_counted(self) -> Floats:
        """The fastest path that counts from each node to any other (n,)."""
        if self.tree is None:
            return np.asarray(self.bandwidth.max(axis=1, initial=0.0))
        best = np.zeros(len(self))
        np.maximum.at(best, self._links[0], self._links[1][:, None])
        return self._at_least(best)

    @property
    def has_matrix(self) -> bool:
        """Whether f is there as a whole already, or at little cost."""
        return "matrix" in self.__dict__ or len(self) < ROWS_NODES

    @property
    def has_bounds(self) -> bool:
        """Whether the network is small enough to bound what heads can serve in it."""
        return self.tree is not None or len(self) <= MATRIX_NODES

    # --- how it is made ----------------------------------------------------------------------------------------

    @functools.cached_property
    def _links(self) -> tuple[Indices, Floats]:
        return mutual_links(self.topology)

    @functools.cached_property
    def _tree(self) -> MergeTree | None:
        """The merge tree of f itself."""
        if self.metric != "widest" or not (self._both or is_symmetric(self.topology)):
            return None
        return self._tree_from(0.0)

    def _tree_from(self, minimum_mbps: float) -> MergeTree:
        ends, rates = self._links
        kept = rates >= minimum_mbps
        return MergeTree.from_links(len(self), ends[kept], rates[kept])

    def _late(self, sources: Indices | None) -> np.ndarray[tuple[int, ...], np.dtype[np.bool_]]:
        # A comparison with NaN is false: what is not known is not late.
        return np.asarray(path_latency(self.topology, self.metric, sources) > self.maximum_ms)

    def _at_least(self, f: Floats) -> Floats:
        return np.where(f >= self.minimum_mbps, f, 0.0) if self.minimum_mbps else f


def bonus_of(paths: Paths, request: Request) -> Floats:
    """What each node would add as a head by itself (n,): closeness to other services' heads, less a migration."""
    index = {name: at for at, name in enumerate(paths.topology.names)} if request.near else {}
    bonus = np.zeros(len(paths))
    for heads, weight in request.near:
        nodes = np.array([index[head] for head in heads if head in index], dtype=np.int64)
        if len(nodes):
            best = paths.counted_rows(nodes).max(axis=0)
            best[nodes] = paths.fastest  # inside a node is faster than any path
            bonus += weight * best
    if request.current and request.migration_cost_mbps:
        bonus -= request.migration_cost_mbps * np.isin(paths.topology.names, request.current, invert=True)
    return bonus


@dataclass(frozen=True, slots=True, eq=False)
class Problem:
    """k heads among the `eligible` nodes (ascending), each with its `bonus` (n,) in Mbit/s, for a request.

    `seed` is for what is random, `seconds` of CPU are there to be spent.
    """

    paths: Paths
    request: Request
    eligible: Indices
    k: int
    bonus: Floats
    seed: int = 0
    seconds: float = 10.0

    @property
    def topology(self) -> Topology:
        return self.paths.topology

    @property
    def maximum_members(self) -> int:
        """How many members a head may have; 0 is any number."""
        return self.request.constraints.maximum_members

    @property
    def members(self) -> int:
        """How many nodes are no head, at least 1, to divide by."""
        return max(1, len(self.topology) - self.k)

    def random(self) -> np.random.Generator:
        return np.random.default_rng(self.seed)

    def name(self, node: int) -> str:
        return self.topology.names[node]

    def between(self, sources: Indices, destinations: Indices) -> Floats:
        """The bandwidth that counts from some nodes to some (s, d)."""
        if self.paths.tree is None and self.paths.has_matrix:
            return self.paths.bandwidth[np.ix_(sources, destinations)]
        return self.paths.counted_rows(sources)[:, destinations]

    def mean(self, value: float) -> float:
        """A sum over members in Mbit/s as a mean over the nodes that are no head."""
        return value / self.members
