"""A mixed-integer program that grows by blocks of variables and rows, solved with HiGHS."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
from scipy.optimize import Bounds, LinearConstraint, milp
from scipy.sparse import csr_array

from controller.placement.network.topology import Floats, Indices

GAP = 1e-9  # relative: HiGHS goes on until the optimum is proven, not only nearly so


@dataclass(frozen=True, slots=True, eq=False)
class Outcome:
    """What a run found: the variables' values, None without any, and the largest sum there could be (-inf: none)."""

    values: Floats | None
    bound: float


@dataclass(slots=True, eq=False)
class Program:
    """Maximise the gain of variables between 0 and 1 under rows `sum of coefficient · variable` ≤ or = a limit."""

    gains: list[Floats] = field(default_factory=list)
    integral: list[npt.NDArray[np.bool_]] = field(default_factory=list)
    entries: list[tuple[Indices, Indices, Floats]] = field(default_factory=list)
    lower: list[Floats] = field(default_factory=list)
    upper: list[Floats] = field(default_factory=list)
    variables: int = 0
    rows: int = 0

    def add(self, gains: Floats, integral: bool = False) -> Indices:
        """New variables with these gains; their indices."""
        first, self.variables = self.variables, self.variables + len(gains)
        self.gains.append(gains)
        self.integral.append(np.full(len(gains), integral))
        return np.arange(first, self.variables)

    def limit(self, limits: Floats, *entries: tuple[Indices, Indices, Floats | float], equal: bool = False) -> None:
        """New rows of at most (or equal to) the limits; entries are (row from 0, variable, coefficient)."""
        for row, variable, coefficient in entries:
            self.entries.append((row + self.rows, variable, np.broadcast_to(coefficient, row.shape)))
        self.lower.append(limits if equal else np.full(len(limits), -np.inf))
        self.upper.append(limits)
        self.rows += len(limits)

    def solve(self, seconds: float) -> Outcome:
        """The best values found in so many seconds of wall time."""
        row, column, coefficient = (np.concatenate(part) for part in zip(*self.entries, strict=True))
        matrix = csr_array((coefficient, (row, column)), shape=(self.rows, self.variables))
        result = milp(
            -np.concatenate(self.gains),
            integrality=np.concatenate(self.integral),
            bounds=Bounds(0.0, 1.0),
            constraints=LinearConstraint(matrix, np.concatenate(self.lower), np.concatenate(self.upper)),
            options={"time_limit": max(0.0, seconds), "mip_rel_gap": GAP},
        )
        if result.status == INFEASIBLE:
            return Outcome(None, -np.inf)
        bound = np.inf if result.mip_dual_bound is None else -result.mip_dual_bound
        return Outcome(result.x, bound)


INFEASIBLE = 2  # scipy's status
