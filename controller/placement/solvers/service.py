"""A service that is placed together with others."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from controller.placement.network.topology import Floats, Indices


@dataclass(frozen=True, slots=True, eq=False)
class Service:
    """A service to be placed with others: `k` heads among `eligible`, for `bandwidth` (n, n) and `bonus` (n,) Mbit/s.

    Each head takes `demand` (resources,) of its node. `apart` are the other services, by position, whose nodes it must
    not share; `near` says for how many members' worth the bandwidth counts from another service's best head to each
    head of this one, where on the same node it is as large as the largest bandwidth.
    """

    bandwidth: Floats
    eligible: Indices
    k: int
    bonus: Floats
    demand: Floats
    apart: tuple[int, ...] = ()
    near: Mapping[int, float] = field(default_factory=dict)

    def between_heads(self) -> Floats:
        """Bandwidth from a head of another service (n,) to one of this (n,)."""
        bandwidth = self.bandwidth.copy()
        np.fill_diagonal(bandwidth, bandwidth.max(initial=0.0))
        return bandwidth
