"""What a placement says: heads, members, figures and reasons."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class ClusterHead:
    """A node that runs the service and why; `bandwidth_mbps` is the mean path bandwidth from it to its members.

    `runner_up` would replace it best, all other heads staying, and the objective would be `runner_up_mbps`.
    """

    node: str
    reason: str
    bandwidth_mbps: float
    runner_up: str = ""
    runner_up_mbps: float | None = None


@dataclass(frozen=True, slots=True)
class Member:
    """The head that a node uses, and the path bandwidth from that head to it."""

    head: str
    bandwidth_mbps: float


@dataclass(frozen=True, slots=True)
class Placement:
    """The heads in order, each other node's head, and the nodes that are refused or that no head reaches.

    `mean_bandwidth_mbps` is the paper's equation 1 as a mean over the n - k nodes that are no head: the bandwidth from
    their head to them, 0 for one that no head reaches or whose path misses a target (then it is in `violations`).
    `objective_mbps` is what is maximised: that and what heads count for by closeness and migration. No k heads exceed
    `bound_mbps`. `mean_of_cluster_means_mbps` is the mean over heads that have members of the mean over these.
    """

    algorithm: str
    metric: str
    k: int
    seed: int
    heads: tuple[ClusterHead, ...]
    members: dict[str, Member]
    refused: dict[str, str]
    unreached: tuple[str, ...]
    standbys: tuple[str, ...]
    mean_bandwidth_mbps: float
    seconds: float
    mean_of_cluster_means_mbps: float = 0.0
    objective_mbps: float = 0.0
    bound_mbps: float | None = None
    proven: bool = False
    method: str = ""
    violations: dict[str, str] = field(default_factory=dict)
    direction: str = "down"

    @property
    def gap(self) -> float | None:
        """The share of the bound that the objective may be below the optimum; None where there is no bound."""
        if self.bound_mbps is None:
            return None
        missing = self.bound_mbps - self.objective_mbps
        return 0.0 if self.proven or missing <= 0 else missing / abs(self.bound_mbps or missing)

    def section_members(self) -> dict[str, str]:
        """Each member's head, as a decision's section carries it."""
        return {node: member.head for node, member in self.members.items()}

    def to_json(self) -> dict[str, Any]:
        """The result as `picasso-controller place --json` prints it."""
        return {
            "algorithm": self.algorithm,
            "metric": self.metric,
            "direction": self.direction,
            "k": self.k,
            "seed": self.seed,
            "heads": [_head_json(head) for head in self.heads],
            "members": self.section_members(),
            "standbys": list(self.standbys),
            "refused": self.refused,
            "unreached": list(self.unreached),
            "violations": self.violations,
            "mean_bandwidth_mbps": round(self.mean_bandwidth_mbps, 3),
            "mean_of_cluster_means_mbps": round(self.mean_of_cluster_means_mbps, 3),
            "objective_mbps": round(self.objective_mbps, 3),
            "bound_mbps": _rounded(self.bound_mbps),
            "proven": self.proven,
            "gap": None if self.gap is None else round(self.gap, 6),
            "method": self.method,
            "seconds": round(self.seconds, 6),
        }


def _head_json(head: ClusterHead) -> dict[str, Any]:
    return {
        "node": head.node,
        "reason": head.reason,
        "bandwidth_mbps": round(head.bandwidth_mbps, 3),
        "runner_up": head.runner_up,
        "runner_up_mbps": _rounded(head.runner_up_mbps),
    }


def _rounded(mbps: float | None) -> float | None:
    return None if mbps is None else round(mbps, 3)
