"""place(topology, request, algorithm) -> Placement: one entry for the controller, the command and the evaluation."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

import numpy as np

from controller.placement.algorithms import ALGORITHMS, Choice, Problem
from controller.placement.eligible import refusals
from controller.placement.paths import METRICS, least_airtime, path_bandwidth
from controller.placement.request import PlacementError, Request
from controller.placement.topology import Floats, Indices, Topology


@dataclass(frozen=True, slots=True)
class ClusterHead:
    """A node that runs the service and why; `bandwidth_mbps` is the mean path bandwidth from it to its members."""

    node: str
    reason: str
    bandwidth_mbps: float


@dataclass(frozen=True, slots=True)
class Member:
    """The head that a node uses, and the path bandwidth from that head to it."""

    head: str
    bandwidth_mbps: float


@dataclass(frozen=True, slots=True)
class Placement:
    """The heads in order, each other node's head, and the nodes that are refused or that no head reaches.

    `mean_bandwidth_mbps` is the paper's equation 1 as a mean over the n - k nodes that are no head: the bandwidth from
    their head to them, 0 for one that no head reaches.
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

    def section_members(self) -> dict[str, str]:
        """Each member's head, as a decision's section carries it."""
        return {node: member.head for node, member in self.members.items()}

    def to_json(self) -> dict[str, Any]:
        """The result as `picasso-controller place --json` prints it."""
        return {
            "algorithm": self.algorithm,
            "metric": self.metric,
            "k": self.k,
            "seed": self.seed,
            "heads": [
                {"node": head.node, "reason": head.reason, "bandwidth_mbps": round(head.bandwidth_mbps, 3)}
                for head in self.heads
            ],
            "members": self.section_members(),
            "standbys": list(self.standbys),
            "refused": self.refused,
            "unreached": list(self.unreached),
            "mean_bandwidth_mbps": round(self.mean_bandwidth_mbps, 3),
            "seconds": round(self.seconds, 6),
        }


def place(
    topology: Topology,
    request: Request,
    algorithm: str = "basp",
    *,
    metric: str = "airtime",
    seed: int = 0,
    partial: bool = False,
) -> Placement:
    """Heads for a request, the same for the same arguments; bandwidth counts from a head to its members.

    `partial` takes as many heads as there are eligible nodes, perhaps none. Raises PlacementError.
    """
    started = time.perf_counter()
    _check(topology, request, algorithm, metric, seed)
    bandwidth = path_bandwidth(topology, metric)
    refused = refusals(topology, request, bandwidth)
    eligible = np.array([at for at, name in enumerate(topology.names) if name not in refused], dtype=np.int64)
    k = min(request.k, len(eligible)) if partial else request.k
    if k > len(eligible):
        raise PlacementError(_too_few(topology, request, refused))
    problem = Problem(topology, bandwidth, eligible, k, seed)
    choices = ALGORITHMS[algorithm](problem) if k else []
    heads, members, unreached = _attach(topology, bandwidth, choices)
    served = sum(member.bandwidth_mbps for member in members.values())
    return Placement(
        algorithm=algorithm,
        metric=metric,
        k=k,
        seed=seed,
        heads=heads,
        members=members,
        refused=refused,
        unreached=unreached,
        standbys=_standbys(problem, choices, request.standbys),
        mean_bandwidth_mbps=served / max(1, len(topology) - k),
        seconds=time.perf_counter() - started,
    )


def _check(topology: Topology, request: Request, algorithm: str, metric: str, seed: int) -> None:
    if algorithm not in ALGORITHMS:
        raise PlacementError(f"unknown algorithm {algorithm!r}; accepted: {', '.join(ALGORITHMS)}")
    if metric not in METRICS:
        raise PlacementError(f"unknown metric {metric!r}; accepted: {', '.join(METRICS)}")
    if not len(topology):
        raise PlacementError("the topology has no node; a placement needs at least one")
    if not 1 <= request.k <= len(topology):
        raise PlacementError(f"k is {request.k}; a topology of {len(topology)} nodes takes 1 to {len(topology)} heads")
    if seed < 0:
        raise PlacementError(f"seed is {seed}; 0 and above are accepted")


def _too_few(topology: Topology, request: Request, refused: dict[str, str]) -> str:
    left = len(topology) - len(refused)
    reasons = "; ".join(f"{node} {reason}" for node, reason in refused.items())
    return f"k is {request.k}, but {left} of {len(topology)} nodes may be a head: {reasons}"


def _attach(
    topology: Topology, bandwidth: Floats, choices: list[Choice]
) -> tuple[tuple[ClusterHead, ...], dict[str, Member], tuple[str, ...]]:
    """Every node to the head with the best path to it (the paper's third phase), of a tie the one nearest in airtime.

    Ties are common: what limits a node's bandwidth is often its own last link, whoever the head is.
    """
    if not choices:
        return (), {}, topology.names
    nodes: Indices = np.array([choice.node for choice in choices])
    from_heads = bandwidth[nodes]
    best = np.lexsort((least_airtime(topology, nodes)[0].T, -from_heads.T))[:, 0]
    rates = from_heads.max(axis=0)
    is_member = rates > 0
    is_member[nodes] = False
    members = {
        topology.names[node]: Member(topology.names[nodes[best[node]]], float(rates[node]))
        for node in np.flatnonzero(is_member)
    }
    heads = []
    for at, choice in enumerate(choices):
        own = rates[is_member & (best == at)]
        heads.append(ClusterHead(topology.names[choice.node], choice.reason, float(own.mean()) if len(own) else 0.0))
    unreached = tuple(topology.names[node] for node in np.setdiff1d(np.flatnonzero(~is_member), nodes))
    return tuple(heads), members, unreached


def _standbys(problem: Problem, choices: list[Choice], count: int) -> tuple[str, ...]:
    """The eligible nodes to take over, the one with the most bandwidth to all others first."""
    spare = np.setdiff1d(problem.eligible, [choice.node for choice in choices])
    order = np.argsort(-problem.bandwidth[spare].sum(axis=1), kind="stable")
    return tuple(problem.name(int(node)) for node in spare[order][: max(0, count)])
