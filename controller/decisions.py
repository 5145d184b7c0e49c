"""From placements to what is signed: sections, the way each head gets the image, and the head over all of it. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from gateway.protocol.messages import BlobRef, Head, NodeReport, PlacedHead, Section, SectionRef, ServiceSpec
from gateway.protocol.names import Name

if TYPE_CHECKING:
    from controller.placement import Placement

# The path that packets take from one node to another: every node behind the first with the airtime of the link to it,
# in seconds a megabit; empty when there is none.
Way = Callable[[str, str], Sequence[tuple[str, float]]]

# A link counts as changed when its bandwidth differs by this share of the greater value.
LINK_CHANGE = 0.25


@dataclass(frozen=True, slots=True)
class Wanted:
    """A service that is to run: its specification, the name and the implicit digest of the packet that holds it."""

    spec: ServiceSpec
    specification: Name
    digest: bytes
    zone: str = ""


def section_of(
    wanted: Wanted,
    placement: Placement,
    origin: str,
    reports: Mapping[str, NodeReport],
    way: Way,
    snapshot: str,
) -> Section:
    """What the gateways are told of one service."""
    placed = [PlacedHead(head.node, head.reason, round(head.bandwidth_mbps, 3)) for head in placement.heads]
    heads, parents = _with_delivery(placed, placement.standbys, origin, reports, way)
    return Section(
        service=wanted.spec.name,
        zone=wanted.zone,
        specification=wanted.specification,
        specification_digest=wanted.digest,
        algorithm=placement.algorithm,
        snapshot=snapshot,
        origin=origin,
        heads=heads,
        standbys=placement.standbys,
        members=placement.section_members(),
        parents=parents,
    )


def _with_delivery(
    heads: Sequence[PlacedHead], standbys: Sequence[str], origin: str, reports: Mapping[str, NodeReport], way: Way
) -> tuple[tuple[PlacedHead, ...], dict[str, str]]:
    """The heads with address and parent, and the stand-bys' parents."""
    tree = DeliveryTree(origin, way)
    parents = tree.attach([head.node for head in heads])
    placed = tuple(replace(h, address=address_of(reports.get(h.node)), parent=parents[h.node]) for h in heads)
    return placed, tree.attach([node for node in standbys if node not in parents])


class DeliveryTree:
    """From which node each node fetches an image so that few links carry it twice: grown from the origin.

    Gateways on the way answer from their stores, so what a node adds is the airtime of its path from the last node that
    has the image passing anyway. Next comes the node that adds least (Takahashi and Matsuyama, 1980). It gets a parent
    whose branch that last node is on: asked for by another branch, the same packet would be waited for in both
    directions of a link. Nobody waits for what is fetched with less haste: heads are attached before stand-bys.
    """

    def __init__(self, origin: str, way: Way) -> None:
        self.origin, self._way = origin, way
        # Every node that the image passes, with the node that fetches it last before or there.
        self._branch = {origin: origin}

    def attach(self, nodes: Sequence[str]) -> dict[str, str]:
        """The parent of each; one that nobody reaches asks the origin, the origin asks nobody."""
        parents = {node: "" for node in nodes if node == self.origin}
        waiting = [node for node in nodes if node != self.origin]
        while waiting:
            offers = [offer for node in waiting if (offer := self._best_offer(node)) is not None]
            if not offers:
                break
            *_, node, parent = min(offers)
            parents[node] = parent
            self._grow(parent, node)
            waiting.remove(node)
        return parents | dict.fromkeys(waiting, self.origin)

    def _best_offer(self, node: str) -> tuple[bool, float, float, bool, str, str] | None:
        offers = (self._offer(node, parent) for parent in sorted(set(self._branch.values())))
        return min((offer for offer in offers if offer is not None), default=None)

    def _offer(self, node: str, parent: str) -> tuple[bool, float, float, bool, str, str] | None:
        """How well a parent suits, smaller is better; None when no path leads from there."""
        if node == parent:
            return None
        branch, added_s, whole_s = parent, 0.0, 0.0
        for passed, airtime_s in self._way(parent, node):
            added_s += airtime_s
            whole_s += airtime_s
            if passed in self._branch and passed != node:
                branch, added_s = self._branch[passed], 0.0
        if not whole_s:
            return None
        return branch != parent, round(added_s, 9), round(whole_s, 9), parent != self.origin, node, parent

    def _grow(self, parent: str, node: str) -> None:
        for passed, _ in self._way(parent, node):
            self._branch.setdefault(passed, parent)
        self._branch[node] = node


def address_of(report: NodeReport | None) -> str:
    """The host at which users reach a node: the first address it reports that is not bound to one link or machine."""
    hosts = [host for text in (report.addresses if report is not None else ()) if (host := _host(text))]
    usable = [host for host in hosts if not host.lower().startswith(("fe80:", "169.254."))]
    routed = [host for host in usable if not host.startswith("127.0.0.") and host != "::1"]
    return next(iter(routed or usable), "")


def _host(text: str) -> str:
    if "://" not in text:
        return text
    try:
        parts = urlsplit(text)
        return "" if parts.scheme == "unix" or parts.hostname in ("0.0.0.0", "::") else parts.hostname or ""
    except ValueError:
        return ""


def same_heads(one: Section, other: Section) -> bool:
    """Whether the same nodes run the service."""
    return {head.node for head in one.heads} == {head.node for head in other.heads}


def same_decision(one: Section, other: Section) -> bool:
    """Whether two sections tell the gateways the same; bandwidth figures and the snapshot's name do not count."""
    return _substance(one) == _substance(other)


def _substance(section: Section) -> Section:
    heads = tuple(replace(head, bandwidth_mbps=0.0, reason="") for head in section.heads)
    return replace(section, heads=heads, snapshot="")


def changed_links(
    before: Mapping[tuple[str, str], float], after: Mapping[tuple[str, str], float]
) -> list[tuple[str, str]]:
    """The directed links that came, went, or whose measured bandwidth changed enough to look at placements again."""
    return sorted(
        link
        for link in before.keys() | after.keys()
        if abs(before.get(link, 0.0) - after.get(link, 0.0))
        > LINK_CHANGE * max(before.get(link, 0.0), after.get(link, 0.0))
    )


def compose_head(
    network: str,
    order: tuple[int, int],
    issued: float,
    lifetime_s: float,
    sections: Iterable[tuple[Section, BlobRef]],
    revocations: tuple[bytes, ...] = (),
) -> Head:
    """The head over these sections, in a fixed order."""
    refs = (SectionRef(section.zone, section.service, blob) for section, blob in sections)
    ordered = tuple(sorted(refs, key=lambda ref: (ref.zone, ref.service)))
    return Head(network, order[0], order[1], issued, issued + lifetime_s, ordered, revocations)


def next_order(epoch: int, last: tuple[int, int] | None) -> tuple[int, int]:
    """The order of the next head: the next version, or the first of an epoch that the anchor has raised."""
    if last is None or epoch > last[0]:
        return epoch, 1
    return last[0], last[1] + 1
