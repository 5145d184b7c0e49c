"""What a solver of the placement problem answers, and the value that all of them maximise."""

from __future__ import annotations

from dataclasses import dataclass

from controller.placement.network.topology import Floats, Indices

TOLERANCE = 1e-9  # relative: a bound this close to the value is the value


@dataclass(frozen=True, slots=True, eq=False)
class Solution:
    """Heads in the order chosen, their value in Mbit/s, a bound that no k heads exceed, and how they were found.

    `bound` is the value itself when `proven`.
    """

    heads: Indices
    value: float
    bound: float
    proven: bool
    method: str

    @classmethod
    def of(cls, heads: Indices, value: float, bound: float, method: str) -> Solution:
        """A solution, proven when its bound leaves nothing more to gain."""
        proven = bound <= value + TOLERANCE * max(1.0, abs(value))
        return cls(heads, value, value if proven else bound, proven, method)


def value_of(bandwidth: Floats, heads: Indices, bonus: Floats) -> float:
    """The sum over all members of the bandwidth from their best head, plus the heads' bonus; in Mbit/s.

    `bandwidth` (n, n) is from i to j; a head is no member and counts its `bonus` (n,) only.
    """
    served = bandwidth[heads].max(axis=0, initial=0.0)
    served[heads] = bonus[heads]
    return float(served.sum())


def check_heads(eligible: Indices, k: int) -> None:
    """Raises ValueError unless k different eligible nodes are there."""
    if not 1 <= k <= len(eligible):
        raise ValueError(f"k is {k}; {len(eligible)} eligible nodes take 1 to {len(eligible)} heads")
