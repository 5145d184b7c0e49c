"""A decision as this node holds it: the signed head, the sections that concern it, and the specifications they name."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace

from gateway.protocol.messages import BlobRef, Head, PlacedHead, Section, SectionRef, ServiceSpec
from gateway.protocol.names import Name

Place = tuple[str, str]  # zone and service


@dataclass(frozen=True, slots=True)
class Placed:
    """A section with its specification.

    `refusal` says why there will never be one; `section` is None when it cannot be read.
    """

    ref: SectionRef
    wire: bytes
    section: Section | None
    specification: ServiceSpec | None = None
    specification_wire: bytes = b""
    refusal: str = ""

    @property
    def settled(self) -> bool:
        """Nothing more is to be fetched for it, apart from blobs."""
        return self.specification is not None or self.refusal != ""

    def refused(self, reason: str) -> Placed:
        return replace(self, specification=None, specification_wire=b"", refusal=reason)

    def head_of(self, node: str) -> PlacedHead | None:
        """The entry of `node` among the heads of this service."""
        heads = self.section.heads if self.section is not None else ()
        return next((head for head in heads if head.node == node), None)

    def role_of(self, node: str) -> str:
        """`head`, `standby`, `member` or nothing."""
        if self.section is None:
            return ""
        if self.head_of(node) is not None:
            return "head"
        if node in self.section.standbys:
            return "standby"
        return "member" if node in self.section.members else ""


@dataclass(slots=True)
class Decision:
    """A verified head and what is held of it so far; `source` says where the head came from."""

    head: Head
    head_wire: bytes
    source: str
    zone: str
    placed: dict[Place, Placed] = field(default_factory=dict)

    @property
    def refs(self) -> list[SectionRef]:
        """The sections that concern this node: those of its zone and those of the whole network."""
        return [ref for ref in self.head.sections if ref.zone in ("", self.zone)]

    @property
    def complete(self) -> bool:
        return not self.missing_sections and all(placed.settled for placed in self.placed.values())

    @property
    def missing_sections(self) -> list[SectionRef]:
        return [ref for ref in self.refs if (ref.zone, ref.service) not in self.placed]

    def unsettled(self) -> list[Placed]:
        """The sections whose specification is still to be fetched."""
        return [placed for placed in self.placed.values() if not placed.settled]

    def in_order(self) -> Iterator[Placed]:
        """The sections that are held, in the order of the head."""
        for ref in self.refs:
            placed = self.placed.get((ref.zone, ref.service))
            if placed is not None:
                yield placed

    @property
    def sections(self) -> tuple[bytes, ...]:
        return tuple(placed.wire for placed in self.in_order())

    @property
    def specifications(self) -> tuple[bytes, ...]:
        """The packets of the specifications, each once."""
        wires = (placed.specification_wire for placed in self.in_order() if placed.specification is not None)
        return tuple(dict.fromkeys(wires))


@dataclass(frozen=True, slots=True)
class SectionNeed:
    ref: SectionRef


@dataclass(frozen=True, slots=True)
class SpecificationNeed:
    """The packet `name` with the implicit digest that the section at `place` states."""

    place: Place
    name: Name
    digest: bytes


@dataclass(frozen=True, slots=True)
class BlobNeed:
    """A blob of a service that is to run here, and the nodes to ask for it, in order."""

    ref: BlobRef
    service: str
    holders: tuple[str, ...]


def image_blobs(specification: ServiceSpec) -> tuple[BlobRef, ...]:
    """Every blob of the service's image, the small manifest first, each once."""
    return tuple(dict.fromkeys((specification.manifest, *specification.blobs)))


def holders(section: Section, node: str, distance: Callable[[str], float]) -> tuple[str, ...]:
    """Who may have the service's blobs: the parent named for this node, other heads (nearest first), the origin.

    The origin itself asks itself first: its own name leads to the repository beside it.
    """
    own = next((head for head in section.heads if head.node == node), None)
    others = sorted({head.node for head in section.heads} - {node}, key=lambda name: (distance(name), name))
    parent = own.parent if own is not None else section.parents.get(node, "")
    elsewhere = [name for name in (parent, *others, section.origin) if name and name != node]
    return tuple(dict.fromkeys([node, *elsewhere] if section.origin == node else elsewhere))
