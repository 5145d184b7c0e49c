"""The p-median problem as facility location, and upper bounds for it by Lagrangian relaxation."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Self

import numpy as np

from controller.placement.network.topology import Floats, Indices
from controller.placement.solvers.solution import TOLERANCE, check_heads

ITERATIONS = 400
PATIENCE = 10  # iterations without a better bound before the step is halved
SMALLEST_STEP = 1e-3
DENSE = 250_000  # figures up to which a matrix is faster than a list of its entries
FLOOR_RANK = 6  # of a node's candidates, this many times n / k are looked at in a large problem

Late = Callable[[], bool]


def deadline(seconds: float, clock: Callable[[], float]) -> Late:
    """Whether so many seconds of a clock are over, from now on."""
    end = clock() + seconds
    return lambda: clock() >= end


def slack(value: float) -> float:
    """How far a bound may be above a value that is the optimum, for the rounding of sums."""
    return TOLERANCE * max(1.0, abs(value))


@dataclass(frozen=True, slots=True, eq=False)
class Median:
    """k of the candidates `nodes` (e,): each gives `gives` (e, n) Mbit/s to every node and adds `opening` (e,).

    A head that is no member is written as one that gives itself the most that anybody could, and pays that for its
    opening. So the value of a set of heads is its coverage, the sum over all nodes of the most that a head gives,
    plus a sum over the heads: submodular, because coverage is.
    """

    nodes: Indices
    gives: Floats
    opening: Floats
    k: int

    @classmethod
    def of(cls, bandwidth: Floats, eligible: Indices, k: int, bonus: Floats) -> Median:
        """The problem for a bandwidth (n, n) and a bonus (n,); raises ValueError when k heads do not fit."""
        check_heads(eligible, k)
        gives = bandwidth[eligible]
        own = gives.max(axis=0)[eligible]
        gives[np.arange(len(eligible)), eligible] = own
        return cls(eligible, gives, bonus[eligible] - own, k)

    def value(self, chosen: Indices) -> float:
        """The value of some candidates as heads."""
        return float(self.gives[chosen].max(axis=0).sum() + self.opening[chosen].sum())

    def only(self, among: Indices) -> Self:
        """The problem with some of the candidates."""
        return replace(self, nodes=self.nodes[among], gives=self.gives[among], opening=self.opening[among])

    def offers(self) -> Offers:
        """What the candidates offer at prices."""
        return Offers.of(self) if self.gives.size <= DENSE or self.k == 1 else _LargeOffers.of_large(self)


@dataclass(frozen=True, slots=True, eq=False)
class Offers:
    """What candidates give to nodes that pay prices from `floor` (n,) to `most` (n,); `start` (n,) is a good guess."""

    median: Median
    floor: Floats
    start: Floats
    most: Floats

    @classmethod
    def of(cls, median: Median) -> Offers:
        """Prices from 0 to the most that a node could be given, at first about what k heads give who are apart."""
        count, n = median.gives.shape
        rank = max(1, count // (2 * median.k))
        start = np.partition(median.gives, count - rank, axis=0)[-rank] if median.k > 1 else np.zeros(n)
        return cls(median, np.zeros(n), start, median.gives.max(axis=0))

    def surplus(self, prices: Floats) -> Floats:
        """What each candidate (e,) earns: the sum of what it gives above the prices."""
        earned: Floats = np.maximum(self.median.gives - prices, 0.0).sum(axis=1)
        return earned

    def served(self, chosen: Indices, prices: Floats) -> Indices:
        """How many of some candidates earn at each node (n,)."""
        count: Indices = (self.median.gives[chosen] > prices).sum(axis=0)
        return count


@dataclass(frozen=True, slots=True, eq=False)
class _LargeOffers(Offers):
    """Offers above a floor below which no good price is, as a list: it is a small part of a large matrix.

    `rates` to node `column`, candidate by candidate: those of candidate `rows` begin at `starts`.
    """

    rates: Floats
    column: Indices
    rows: Indices
    starts: Indices

    @classmethod
    def of_large(cls, median: Median) -> _LargeOffers:
        count = len(median.nodes)
        last, guess = max(0, count - FLOOR_RANK * count // median.k), count - max(1, count // (2 * median.k))
        ranked = np.partition(median.gives, [last, guess], axis=0)
        floor, start = ranked[last] if last else np.zeros(ranked.shape[1]), ranked[guess]
        above = median.gives > floor
        counts = above.sum(axis=1)
        rows = np.flatnonzero(counts)
        starts = (np.cumsum(counts) - counts)[rows]
        most = median.gives.max(axis=0)
        return cls(median, floor, start, most, median.gives[above], np.nonzero(above)[1], rows, starts)

    def surplus(self, prices: Floats) -> Floats:
        earned = np.zeros(len(self.median.nodes))
        earned[self.rows] = np.add.reduceat(np.maximum(self.rates - prices[self.column], 0.0), self.starts)
        return earned


@dataclass(frozen=True, slots=True, eq=False)
class Relaxation:
    """An upper bound by `prices` (n,): what each node pays for being served, as far as a head gives more than that.

    `worth` (e,) is what a candidate earns by these prices with its opening; the bound is the sum of the prices and of
    the k largest worths. `heads` are the best set of candidates that once were these, `value` is theirs.
    """

    bound: float
    prices: Floats
    worth: Floats
    heads: Indices
    value: float

    def decided(self, forced: int, k: int, value: float) -> tuple[Indices, Indices]:
        """The candidates besides the forced ones without which no set is worth more than a value, and those left over.

        What is neither can be in no such set: with it in the place of the last of the k, the bound is too low.
        """
        if k == len(self.worth):
            return np.arange(forced, k), np.arange(0)
        worth = self.worth[forced:]
        order = np.argsort(-worth, kind="stable")
        last, following = worth[order[k - forced - 1]], worth[order[k - forced]]
        spare = self.bound - value - slack(value)
        inside = order[: k - forced]
        must = inside[worth[inside] - following >= spare]
        may = np.setdiff1d(order[last - worth[order] < spare], must)
        return must + forced, may + forced


def relax(
    median: Median, forced: int, value: float, late: Late, prices: Floats | None = None, iterations: int = ITERATIONS
) -> Relaxation:
    """The best bound of a subgradient search that stops when it comes down to `value`, or when it is late.

    "Each node has one head" is relaxed: sum over i of x_ij = 1 is charged at the price u_j, so that candidate i earns
    opening + sum over j of max(0, gives_ij - u_j) and the k candidates of largest worth are best, the first `forced`
    among them in any case. The steps are Polyak's (Held, Wolfe and Crowder 1974).
    """
    offers = median.offers()
    prices = offers.start if prices is None else np.maximum(prices, offers.floor)
    values: dict[bytes, float] = {}
    best: Relaxation | None = None
    step, bad = 2.0, 0
    for _ in range(iterations):
        worth = median.opening + offers.surplus(prices)
        heads = _largest(worth, forced, median.k)
        bound = float(prices.sum() + worth[heads].sum())
        if best is None or bound < best.bound:
            key = np.sort(heads).tobytes()
            values[key] = values[key] if key in values else median.value(heads)
            best, bad = _better(best, Relaxation(bound, prices, worth, heads, values[key])), 0
        elif (bad := bad + 1) == PATIENCE:
            step, bad, prices = step / 2, 0, best.prices
        value = max(value, best.value)
        gradient = 1.0 - offers.served(heads, prices)
        length = float(gradient @ gradient)
        if best.bound <= value + slack(value) or not length or step < SMALLEST_STEP or late():
            break
        prices = np.clip(prices - step * (bound - value) / length * gradient, offers.floor, offers.most)
    assert best is not None
    return best


def _largest(worth: Floats, forced: int, k: int) -> Indices:
    """The forced candidates and those of largest worth, k in all."""
    if k in (forced, len(worth)):
        return np.arange(k)
    free = np.argpartition(-worth[forced:], k - forced - 1)[: k - forced] + forced
    return np.concatenate((np.arange(forced), free))


def _better(best: Relaxation | None, found: Relaxation) -> Relaxation:
    """The new bound with the better heads of the two."""
    if best is None or found.value >= best.value:
        return found
    return replace(found, heads=best.heads, value=best.value)
