"""What is to be placed, and the error that says why it cannot be."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

from gateway.protocol.messages import Constraints, ServiceSpec

DIRECTIONS = ("down", "both")


class PlacementError(ValueError):
    """A placement that cannot be made; the message names what is wrong and what would be accepted."""


@dataclass(frozen=True, slots=True)
class Request:
    """`k` heads under constraints; `refusals` are nodes that the caller knows to be impossible, with the reason.

    `cpu` (cores) and `memory_bytes` are what one head takes, `reserved` what services placed before take of a node.
    `current` are the heads now: any other costs `migration_cost_mbps` of the sum over members. `near` has, for each
    service that it exchanges traffic with, that one's heads and for how many members the path from the best of them
    counts.
    """

    k: int
    constraints: Constraints = field(default_factory=Constraints)
    runtime: str = "any"
    refusals: Mapping[str, str] = field(default_factory=dict)
    standbys: int = 2
    cpu: float = 0.0
    memory_bytes: int = 0
    reserved: Mapping[str, tuple[float, int]] = field(default_factory=dict)
    current: tuple[str, ...] = ()
    migration_cost_mbps: float = 0.0
    near: tuple[tuple[tuple[str, ...], float], ...] = ()

    @property
    def direction(self) -> str:
        """`down` or `both`, see Constraints."""
        return self.constraints.direction

    @classmethod
    def for_service(cls, specification: ServiceSpec, refusals: Mapping[str, str] | None = None) -> Request:
        """The request that a provider's specification makes."""
        return cls(
            k=specification.replicas,
            constraints=specification.constraints,
            runtime=specification.runtime,
            refusals=refusals or {},
            cpu=specification.cpu,
            memory_bytes=specification.memory_bytes,
        )

    def check(self) -> None:
        """Raises PlacementError for a figure that is none, or a direction that does not exist."""
        wanted = self.constraints
        figures: dict[str, float] = {
            "minimum_bandwidth_mbps": wanted.minimum_bandwidth_mbps,
            "maximum_latency_ms": wanted.maximum_latency_ms,
            "maximum_members": wanted.maximum_members,
            "minimum_availability": wanted.minimum_availability,
            "minimum_free_cpu_percent": wanted.minimum_free_cpu_percent,
            "minimum_free_memory_bytes": wanted.minimum_free_memory_bytes,
            "cpu": self.cpu,
            "memory_bytes": self.memory_bytes,
            "migration_cost_mbps": self.migration_cost_mbps,
        }
        figures |= {f"near {' '.join(heads)}": weight for heads, weight in self.near}
        figures |= {f"near {service}": weight for service, weight in wanted.near.items()}
        for what, figure in figures.items():
            if not 0 <= figure < math.inf:
                raise PlacementError(f"{what} is {figure}; 0 and above are accepted")
        if wanted.minimum_availability > 1:
            raise PlacementError(
                f"minimum_availability is {wanted.minimum_availability}; a share of 0 to 1 is accepted"
            )
        if wanted.direction not in DIRECTIONS:
            raise PlacementError(f"direction is {wanted.direction!r}; accepted: {', '.join(DIRECTIONS)}")
