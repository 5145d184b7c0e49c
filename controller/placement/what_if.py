"""What would be: without a node, with a link of twice the rate, with more heads."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from controller.placement.network.topology import MAXIMUM_RATE_MBPS, Topology
from controller.placement.place import DEFAULT_METRIC, place
from controller.placement.placement import Placement
from controller.placement.request import PlacementError, Request

NAMED = 8  # so many nodes a sentence names


@dataclass(frozen=True, slots=True)
class WhatIf:
    """A question, the placement as the network is, and as it would be."""

    question: str
    before: Placement
    after: Placement

    def difference(self) -> list[str]:
        """What changes, a sentence each: the mean bandwidth, heads, members, who is reached and who misses a target."""
        before, after = self.before, self.after
        means = f"{before.mean_bandwidth_mbps:.1f} to {after.mean_bandwidth_mbps:.1f} Mbit/s"
        change = after.mean_bandwidth_mbps - before.mean_bandwidth_mbps
        said = [f"mean bandwidth from {means} ({change:+.1f})"]
        old, new = [head.node for head in before.heads], [head.node for head in after.heads]
        gone, come = [node for node in old if node not in new], [node for node in new if node not in old]
        said.append(_heads(gone, come))
        moved = [
            node
            for node, member in before.members.items()
            if node in after.members and after.members[node].head != member.head
        ]
        said += [f"another head for {_some(moved)}"] if moved else []
        for what, one, other in (
            ("reached by no head any more", before.unreached, after.unreached),
            ("reached now", after.unreached, before.unreached),
            ("missing a target now", tuple(before.violations), tuple(after.violations)),
            ("missing no target any more", tuple(after.violations), tuple(before.violations)),
        ):
            nodes = [node for node in other if node not in one and (node in after.members or node in after.unreached)]
            said += [f"{what}: {_some(nodes)}"] if nodes else []
        return said

    def to_json(self) -> dict[str, Any]:
        """The question with both placements and the difference, for `--json`."""
        return {
            "question": self.question,
            "before": self.before.to_json(),
            "after": self.after.to_json(),
            "difference": self.difference(),
        }


def what_if(
    topology: Topology,
    request: Request,
    algorithm: str = "optimal",
    *,
    without: str = "",
    doubled: tuple[str, str] | None = None,
    more: int = 0,
    metric: str = DEFAULT_METRIC,
    seed: int = 0,
    partial: bool = False,
    bound: bool = False,
) -> WhatIf:
    """One request in the network as it is, and without a node, with a link of twice the rate, or with `more` heads.

    Raises PlacementError where either cannot be placed or the link does not exist, and unless exactly one of the three
    is asked; TopologyError for a node that does not exist.
    """
    if (bool(without), doubled is not None, bool(more)).count(True) != 1:
        raise PlacementError("a what-if asks one thing: without a node, with a link doubled, or with more heads")
    changed, wanted = topology, request
    if without:
        question, changed = f"without {without}", _without(topology, without)
    elif doubled is not None:
        question, changed = f"with {' - '.join(doubled)} of twice the rate", _doubled(topology, *doubled)
    else:
        question, wanted = f"with {more} more head{'s' * (more > 1)}", replace(request, k=request.k + more)
    before, after = (
        place(at, asked, algorithm, metric=metric, seed=seed, partial=partial, bound=bound)
        for at, asked in ((topology, request), (changed, wanted))
    )
    return WhatIf(question, before, after)


def _without(topology: Topology, name: str) -> Topology:
    """The network without a node, its links, and the routes of others by it."""
    gone = topology.index(name)
    kept = np.arange(len(topology)) != gone
    position = np.cumsum(kept) - 1
    links, routes = (topology.edges != gone).all(axis=1), (topology.routes != gone).all(axis=1)
    return replace(
        topology,
        names=tuple(other for other in topology.names if other != name),
        coordinates=topology.coordinates[kept],
        edges=position[topology.edges[links]],
        rates_mbps=topology.rates_mbps[links],
        nodes=tuple(node for at, node in enumerate(topology.nodes) if at != gone),
        rtts_ms=topology.rtts_ms[links],
        routes=position[topology.routes[routes]],
    )


def _doubled(topology: Topology, one: str, other: str) -> Topology:
    """The network with a link of twice the rate in each direction that it has."""
    ends = {topology.index(one), topology.index(other)}
    link = np.array([set(edge) == ends for edge in topology.edges.tolist()], dtype=bool)
    if not link.any():
        raise PlacementError(f"there is no link between {one} and {other}")
    rates = np.where(link, np.minimum(2 * topology.rates_mbps, MAXIMUM_RATE_MBPS), topology.rates_mbps)
    return replace(topology, rates_mbps=rates)


def _heads(gone: list[str], come: list[str]) -> str:
    if gone and come:
        return f"{_some(come)} instead of {_some(gone)}"
    if come:
        return f"{_some(come)} as a further head"
    return f"{_some(gone)} is no head" if gone else "the same heads"


def _some(nodes: list[str]) -> str:
    return ", ".join(nodes[:NAMED]) + (f" and {len(nodes) - NAMED} more" if len(nodes) > NAMED else "")
