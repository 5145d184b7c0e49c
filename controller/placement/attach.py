"""Every member to its best head: the third phase of the paper's Algorithm 1, for every algorithm alike."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.sparse import csr_array
from scipy.sparse.csgraph import dijkstra

from controller.placement.network.paths import least_airtime
from controller.placement.network.topology import Floats, Indices, Topology
from controller.placement.problem import Problem
from controller.placement.solvers.assignment import assign

EXACT_TIES = 1_000_000  # heads × nodes up to which a tie is broken by the airtime from each head
NO_HEAD = -1


@dataclass(frozen=True, slots=True, eq=False)
class Attachment:
    """For each node the position of its head in `heads` (-1: it is one, or has none) and the path's bandwidth.

    `counted_mbps` is 0 where that path misses a target of the service.
    """

    heads: Indices
    head: Indices
    mbps: Floats
    counted_mbps: Floats

    def means(self, mbps: Floats) -> Floats:
        """The mean over each head's members of a figure (n,), NaN for a head without members."""
        count = self.members()
        has = self.head >= 0
        total = np.bincount(self.head[has], weights=mbps[has], minlength=len(self.heads))
        return np.where(count > 0, total / np.maximum(count, 1), np.nan)

    def without(self) -> list[int]:
        """The nodes that are no head and have none."""
        return [int(node) for node in np.setdiff1d(np.flatnonzero(self.head < 0), self.heads)]

    def members(self) -> Indices:
        """How many members each head has."""
        return np.bincount(self.head[self.head >= 0], minlength=len(self.heads))


def attach(problem: Problem, heads: Indices) -> Attachment:
    """Each node that is no head to its best one, of a tie to the nearest in airtime, at most `maximum_members` each.

    One that no head reaches as the targets ask is attached to the best all the same.
    """
    n = len(problem.topology)
    if not len(heads):
        return Attachment(heads, np.full(n, NO_HEAD), np.zeros(n), np.zeros(n))
    mbps, counted = problem.paths.rows(heads), problem.paths.counted_rows(heads)
    if problem.maximum_members:
        head = assign(_preferring_counted(mbps, counted), heads, problem.maximum_members)
    else:
        head = _nearest_of_the_best(problem.topology, heads, _preferring_counted(mbps, counted))
    head[heads] = NO_HEAD
    node = np.arange(n)
    head = np.where((head >= 0) & (mbps[head, node] > 0), head, NO_HEAD)
    has = head >= 0
    return Attachment(heads, head, np.where(has, mbps[head, node], 0.0), np.where(has, counted[head, node], 0.0))


def _preferring_counted(mbps: Floats, counted: Floats) -> Floats:
    """Figures that rank paths that count by their bandwidth, and below all of them the others by theirs."""
    if np.array_equal(counted, mbps):
        return mbps
    slowest = counted.min(where=counted > 0, initial=mbps.max())
    return np.where(counted > 0, counted, 1e-6 * slowest * mbps / mbps.max())


def _nearest_of_the_best(topology: Topology, heads: Indices, mbps: Floats) -> Indices:
    """For each node the head with the most bandwidth to it.

    Ties are common: what limits a node's bandwidth is often its own last link, whoever the head is.
    """
    best = mbps.max(axis=0)
    if mbps.size <= EXACT_TIES:
        return np.asarray(np.where(mbps == best, least_airtime(topology, heads)[0], np.inf).argmin(axis=0))
    nearest, node = _nearest_head(topology, heads), np.arange(len(topology))
    is_best = (nearest >= 0) & (mbps[nearest, node] == best)
    return np.where(is_best, nearest, mbps.argmax(axis=0))


def _nearest_head(topology: Topology, heads: Indices) -> Indices:
    """For each node the head from which a megabit takes the least airtime, by one sweep from all; -1 without any."""
    weights = csr_array((1.0 / topology.rates_mbps, topology.edges.T), shape=(len(topology), len(topology)))
    _, _, source = dijkstra(weights, indices=heads, min_only=True, return_predecessors=True)
    position = np.full(len(topology) + 1, NO_HEAD)
    position[heads] = np.arange(len(heads))
    return position[np.where(source < 0, len(topology), source)]
