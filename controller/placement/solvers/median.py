"""Placement for any bandwidth, directed ones too: the p-median problem, greedily with a bound and exactly."""

from __future__ import annotations

import heapq
import itertools
import math
import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from controller.placement.network.topology import Floats, Indices
from controller.placement.solvers.lagrangian import Late, Median, Relaxation, deadline, relax, slack
from controller.placement.solvers.solution import Solution, value_of

BLOCK = 4_000_000  # figures of the matrix that are looked at together
BRANCH_ITERATIONS = 60  # of the relaxation below the root, which begins with its parent's prices
ENUMERATED = 2_000_000  # figures compared at most when all sets of heads that are left are looked at


def greedy(
    bandwidth: Floats,
    eligible: Indices,
    k: int,
    bonus: Floats,
    *,
    seconds: float = 15.0,
    clock: Callable[[], float] = time.process_time,
) -> Solution:
    """k eligible heads by lazy greedy and swaps, with an upper bound by Lagrangian relaxation.

    `bandwidth` (n, n) and `bonus` (n,) in Mbit/s. The search is cut short after `seconds` of `clock`. Raises
    ValueError when k heads do not fit.
    """
    median = Median.of(bandwidth, eligible, k, bonus)
    late = deadline(seconds, clock)
    chosen, relaxed = heuristic(median, late)
    heads = median.nodes[chosen]
    return Solution.of(heads, value_of(bandwidth, heads, bonus), relaxed.bound, "lazy greedy and swaps")


def exact(
    bandwidth: Floats,
    eligible: Indices,
    k: int,
    bonus: Floats,
    *,
    seconds: float = 10.0,
    clock: Callable[[], float] = time.process_time,
) -> Solution:
    """k eligible heads of the largest value, or the best found after `seconds` of `clock` with its bound.

    `bandwidth` (n, n) and `bonus` (n,) in Mbit/s. Raises ValueError when k heads do not fit.
    """
    median = Median.of(bandwidth, eligible, k, bonus)
    chosen, bound = solve(median, deadline(seconds, clock))
    heads = median.nodes[chosen]
    return Solution.of(heads, value_of(bandwidth, heads, bonus), bound, "branch and bound by Lagrangian relaxation")


def solve(median: Median, late: Late) -> tuple[Indices, float]:
    """The best candidates, and a bound of their value: the value itself unless it became late."""
    chosen, relaxed = heuristic(median, late)
    search = _Search(median, chosen, median.value(chosen), late)
    bound = search.run(relaxed)
    return search.chosen, bound


def bound(bandwidth: Floats, eligible: Indices, k: int, bonus: Floats, value: float) -> float:
    """A value in Mbit/s that no k eligible heads exceed; `value` is the best known one. Raises ValueError."""
    median = Median.of(bandwidth, eligible, k, bonus)
    return max(value, relax(median, 0, value, lambda: False).bound)


def runners_up(bandwidth: Floats, heads: Indices, eligible: Indices, bonus: Floats) -> list[tuple[int, float] | None]:
    """For each head the eligible node that replaces it best, and the value then; None when no node is left."""
    candidates = np.concatenate((heads, np.setdiff1d(eligible, heads)))
    if len(candidates) == len(heads):
        return [None] * len(heads)
    median = Median.of(bandwidth, candidates, len(heads), bonus)
    gains = _swaps(median, np.arange(len(heads)))
    best = gains.argmax(axis=0)
    value = value_of(bandwidth, heads, bonus)
    return [(int(candidates[at]), value + float(gains[at, head])) for head, at in enumerate(best)]


def heuristic(median: Median, late: Late) -> tuple[Indices, Relaxation]:
    """Heads by greedy and swaps, and by swaps from the heads of the relaxation where these are better."""
    chosen = _improve(median, _lazy_greedy(median), late)
    relaxed = relax(median, 0, median.value(chosen), late)
    other = _improve(median, relaxed.heads, late)
    return (other if median.value(other) > median.value(chosen) else chosen), relaxed


def _lazy_greedy(median: Median) -> Indices:
    """One head after another, each of the largest gain; by submodularity an old gain is a bound of the new one."""
    served = np.zeros(median.gives.shape[1])
    gains = median.gives.sum(axis=1) + median.opening
    queue = [(-gain, at) for at, gain in enumerate(gains.tolist())]
    heapq.heapify(queue)
    chosen: list[int] = []
    while len(chosen) < median.k:
        _, at = queue[0]
        gain = float(np.maximum(median.gives[at] - served, 0.0).sum() + median.opening[at])
        heapq.heapreplace(queue, (-gain, at))
        if queue[0][1] == at:
            heapq.heappop(queue)
            chosen.append(at)
            served = np.maximum(served, median.gives[at])
    return np.array(chosen)


def _improve(median: Median, chosen: Indices, late: Late) -> Indices:
    """Local search: swaps of a head for another candidate until none gains; for each head the best, if it still does.

    After the first, the swaps that were worked out together are tried on what the ones before left.
    """
    value = median.value(chosen)
    while median.k < len(median.nodes) and not late():
        gains = _swaps(median, chosen)
        candidates, before = gains.argmax(axis=0), value
        for head in np.argsort(-gains[candidates, np.arange(median.k)], kind="stable"):
            if gains[candidates[head], head] > slack(value) and candidates[head] not in chosen:
                other = chosen.copy()
                other[head] = candidates[head]
                if (swapped := median.value(other)) > value + slack(value):
                    chosen, value = other, swapped
        if value == before:
            break
    return chosen


def _swaps(median: Median, chosen: Indices) -> Floats:
    """What every candidate in place of every head gains (e, k); -inf for the heads themselves.

    A candidate takes the nodes to which it gives more than their best head, and those of the head that goes come to
    the better of it and their second best head (Whitaker 1983). Only gifts above the second best count for anything.
    """
    rows = median.gives[chosen]
    owner, nodes = rows.argmax(axis=0), np.arange(rows.shape[1])
    most = rows[owner, nodes]
    rows[owner, nodes] = 0.0
    second = rows.max(axis=0)
    gains: Floats = np.empty((len(median.nodes), median.k))
    block = max(1, BLOCK // rows.shape[1])
    for first in range(0, len(gains), block):
        gives = median.gives[first : first + block]
        candidate, node = np.nonzero(gives > second)
        gift, count = gives[candidate, node], len(gives)
        taken = np.bincount(candidate, np.maximum(gift - most[node], 0.0), count)
        kept = np.minimum(gift, most[node]) - second[node]
        kept = np.bincount(candidate * median.k + owner[node], kept, count * median.k)
        gains[first : first + block] = kept.reshape(count, median.k) + taken[:, None]
    lost = np.bincount(owner, most - second, median.k) + median.opening[chosen]
    gains += median.opening[:, None] - lost
    gains[chosen] = -np.inf
    return gains


@dataclass(slots=True, eq=False)
class _Search:
    """Branch and bound over sets of heads; `chosen` is the best so far, of `value`."""

    median: Median
    chosen: Indices
    value: float
    late: Late

    def run(self, root: Relaxation) -> float:
        """The bound that is left: the value when all has been searched, else the largest of what has not."""
        everything = np.arange(len(self.median.nodes))
        stack: list[tuple[Indices, Indices, Relaxation]] = [(everything[:0], everything, root)]
        while stack and not self.late():
            inside, free, relaxed = stack.pop()
            stack += self._explore(inside, free, relaxed)
        return max([self.value, *(relaxed.bound for _, _, relaxed in stack)])

    def _explore(
        self, inside: Indices, free: Indices, relaxed: Relaxation
    ) -> list[tuple[Indices, Indices, Relaxation]]:
        """Fixes what the bound decides, as often as it decides anything; then the two halves that are left."""
        while relaxed.bound > self.value + slack(self.value):
            if self._enumerate(inside, free):
                break
            must, may = relaxed.decided(len(inside), self.median.k, self.value)
            if len(may) == len(free):
                return self._halves(inside, free, relaxed)
            among = np.concatenate((inside, free))
            inside, free = np.concatenate((inside, among[must])), among[may]
            relaxed = self._relax(inside, free, relaxed.prices)
        return []

    def _relax(self, inside: Indices, free: Indices, prices: Floats) -> Relaxation:
        """The bound with some heads inside for sure and only the free candidates besides."""
        among = np.concatenate((inside, free))
        relaxed = relax(self.median.only(among), len(inside), self.value, self.late, prices, BRANCH_ITERATIONS)
        self._offer(among[relaxed.heads], relaxed.value)
        return relaxed

    def _offer(self, chosen: Indices, value: float) -> None:
        if value > self.value:
            self.chosen, self.value = chosen, value

    def _enumerate(self, inside: Indices, free: Indices) -> bool:
        """Looks at all sets that are left if these are few."""
        wanted = self.median.k - len(inside)
        count = math.comb(len(free), wanted)
        if count > 1 and count * wanted * self.median.gives.shape[1] > ENUMERATED:
            return False
        served = self.median.gives[inside].max(axis=0, initial=0.0)
        if wanted == 0:
            self._offer(inside, self.median.value(inside))
        elif wanted <= len(free):
            sets = free[np.array(list(itertools.combinations(range(len(free)), wanted)))]
            most = np.maximum(self.median.gives[sets].max(axis=1), served).sum(axis=1)
            values = most + self.median.opening[sets].sum(axis=1) + self.median.opening[inside].sum()
            at = int(values.argmax())
            self._offer(np.concatenate((inside, sets[at])), float(values[at]))
        return True

    def _halves(self, inside: Indices, free: Indices, relaxed: Relaxation) -> list[tuple[Indices, Indices, Relaxation]]:
        """The search without the free candidate of largest worth, and with it, which is to come first."""
        at = int(relaxed.worth[len(inside) :].argmax())
        rest = np.delete(free, at)
        without = self._relax(inside, rest, relaxed.prices)
        inside = np.append(inside, free[at])
        return [(inside[:-1], rest, without), (inside, rest, self._relax(inside, rest, relaxed.prices))]
