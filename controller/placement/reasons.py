"""Why a placement is as it is: for each node, as head, as member and as one that is refused."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from controller.placement.network.paths import bottleneck, paths_from
from controller.placement.network.topology import Topology
from controller.placement.placement import Placement
from controller.placement.request import PlacementError

Way = tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Reason:
    """What is to be said of one node; a head has `why`, a member its head, a refused node the constraint.

    `path` leads from the head to the node (to the head where that is the slower direction and both count);
    `slowest_link` is from, to and Mbit/s.
    """

    node: str
    why: str = ""
    head: str = ""
    bandwidth_mbps: float = 0.0
    path: Way = ()
    slowest_link: tuple[str, str, float] | None = None
    refused: str = ""
    violation: str = ""

    def __str__(self) -> str:
        said = [f"is a head: {self.why}"] if self.why else []
        if self.slowest_link is not None:
            one, other, mbps = self.slowest_link
            way = f"{' > '.join(self.path)}, where {one} > {other} is slowest with {mbps:.1f} Mbit/s"
            said.append(f"uses {self.head} at {self.bandwidth_mbps:.1f} Mbit/s by {way}")
        elif not self.why:
            said.append("is reached by no head")
        said += [f"misses a target: {self.violation}"] if self.violation else []
        said += [f"may be no head: {self.refused}"] if self.refused else []
        return f"{self.node} {'; '.join(said)}"


@dataclass(frozen=True, slots=True)
class Explanation:
    """The reasons of a placement in its topology; a head's paths are looked for when they are first asked for."""

    topology: Topology
    placement: Placement
    _ways: dict[str, dict[str, Way]] = field(default_factory=dict, repr=False)

    def of(self, node: str) -> Reason:
        """The reason of one node; raises PlacementError for one that is not in the topology."""
        placement = self.placement
        refused, violation = placement.refused.get(node, ""), placement.violations.get(node, "")
        for head in placement.heads:
            if head.node == node:
                return Reason(node, why=head.reason, refused=refused)
        member = placement.members.get(node)
        if member is None:
            if node not in placement.unreached:
                raise PlacementError(f"no node {node!r} in this placement of {len(self.topology)} nodes")
            return Reason(node, refused=refused, violation=violation)
        path, slowest = self._slower_way(member.head, node)
        return Reason(node, "", member.head, member.bandwidth_mbps, path, slowest, refused, violation)

    def all(self) -> list[Reason]:
        """The reasons of all nodes, heads first."""
        placement = self.placement
        nodes = [*(head.node for head in placement.heads), *placement.members, *placement.unreached]
        return [self.of(node) for node in nodes]

    def to_json(self) -> list[dict[str, Any]]:
        """As all(), for `--json`."""
        return [
            {
                "node": reason.node,
                "why": reason.why,
                "head": reason.head,
                "bandwidth_mbps": round(reason.bandwidth_mbps, 3),
                "path": list(reason.path),
                "slowest_link": reason.slowest_link,
                "refused": reason.refused,
                "violation": reason.violation,
            }
            for reason in self.all()
        ]

    def _slower_way(self, head: str, node: str) -> tuple[Way, tuple[str, str, float]]:
        ways = [self._way(head, node)]
        if self.placement.direction == "both":
            ways.append(self._way(node, head))
        return min(((way, bottleneck(self.topology, way)) for way in ways), key=lambda found: found[1][2])

    def _way(self, source: str, destination: str) -> Way:
        if source not in self._ways:
            self._ways[source] = paths_from(self.topology, source, metric=self.placement.metric)
        return self._ways[source][destination]


def explain(topology: Topology, placement: Placement) -> Explanation:
    """Why the placement, made on this topology, is as it is."""
    return Explanation(topology, placement)
