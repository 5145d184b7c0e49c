"""What is to be placed, and the error that says why it cannot be."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from gateway.protocol.messages import Constraints, ServiceSpec


class PlacementError(ValueError):
    """A placement that cannot be made; the message names what is wrong and what would be accepted."""


@dataclass(frozen=True, slots=True)
class Request:
    """`k` heads under constraints; `refusals` are nodes that the caller knows to be impossible, with the reason."""

    k: int
    constraints: Constraints = field(default_factory=Constraints)
    runtime: str = "any"
    refusals: Mapping[str, str] = field(default_factory=dict)
    standbys: int = 2

    @classmethod
    def for_service(cls, specification: ServiceSpec, refusals: Mapping[str, str] | None = None) -> Request:
        """The request that a provider's specification makes."""
        return cls(
            k=specification.replicas,
            constraints=specification.constraints,
            runtime=specification.runtime,
            refusals=refusals or {},
        )
