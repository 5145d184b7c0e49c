"""From signed wires to what this node must run: every signature and hash checked again, whoever handed them over.

Pure: what comes in is bytes, what comes out is values; nothing is read, written or fetched.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field

from gateway.protocol import codec, keys, names
from gateway.protocol.errors import MessageError, ProtocolError, TrustError, UnknownKey
from gateway.protocol.executor_messages import Desired
from gateway.protocol.messages import Head, Section, SectionRef, ServiceSpec
from gateway.protocol.trust import TrustStore

CERTIFICATES_MAX = 10_000


class Refused(Exception):
    """A decision that is not accepted as a whole; the text says why."""


@dataclass(frozen=True, slots=True)
class Generation:
    """One specification of a service; `digest` (of its packet) is what tells generations apart."""

    digest: bytes
    spec: ServiceSpec
    wire: bytes


@dataclass(frozen=True, slots=True)
class Assignment:
    """A service that the decision gives to this node: its generation, or why there is none.

    `refusal` is final for this decision; `pending` says what has not arrived yet, and whatever ran goes on.
    """

    service: str
    generation: Generation | None = None
    refusal: str = ""
    pending: str = ""


@dataclass(frozen=True, slots=True)
class Decision:
    """A verified head and what it means for this node; `used` are the wires worth keeping."""

    head: Head
    assignments: tuple[Assignment, ...]
    used: Desired
    notes: tuple[str, ...] = field(default=())


def verify(desired: Desired, trust: TrustStore, node: str, stored: Decision | None) -> Decision:
    """The decision in `desired`, completed from the `stored` one where a section or specification is in both.

    Raises Refused for a head that is not the controller's, damaged, of another network, or older than the stored one.
    """
    if stored is not None:
        trust.revoked = trust.revoked | frozenset(stored.head.revocations)
        desired = _merge(desired, stored.used)
    notes = add_certificates(trust, desired.certificates)
    head = _head(desired.head, trust)
    if stored is not None:
        _check_order(head, desired.head, stored)
    trust.revoked = trust.revoked | frozenset(head.revocations)
    sections = {hashlib.sha256(wire).digest(): wire for wire in desired.sections}
    specifications = {hashlib.sha256(wire).digest(): wire for wire in desired.specifications}
    assignments, kept_sections, kept_specifications = [], [], []
    for ref in head.sections:
        wire = sections.get(ref.blob.sha256)
        if wire is not None:
            kept_sections.append(wire)
        assignment, digest = _assign(ref, wire, specifications, trust, node)
        if digest in specifications:
            kept_specifications.append(specifications[digest])
        if assignment is not None:
            assignments.append(assignment)
    accepted = tuple(wire for wire in dict.fromkeys(desired.certificates) if wire in set(trust.certificates))
    used = Desired(desired.head, accepted, tuple(kept_sections), tuple(dict.fromkeys(kept_specifications)))
    return Decision(head, _one_each(assignments), used, tuple(notes))


def read_generation(wire: bytes, trust: TrustStore) -> Generation:
    """A specification signed by the provider that its name and its content both state; raises ProtocolError."""
    packet = trust.verify(wire)
    spec = codec.decode(ServiceSpec, packet.content)
    if packet.name != trust.network.service(spec.provider, spec.name, spec.version):
        raise TrustError(f"{names.to_uri(packet.name)} holds {spec.provider}'s {spec.name} version {spec.version}")
    return Generation(packet.digest, spec, wire)


def add_certificates(trust: TrustStore, certificates: tuple[bytes, ...]) -> list[str]:
    """Adds certificates in whatever order they come; those that nothing vouches for are told of and left out.

    Expiry is not judged here: what runs goes on when a certificate ends, and this process has no trusted clock.
    """
    waiting, notes = list(certificates[:CERTIFICATES_MAX]), []
    while waiting:
        unknown = []
        for wire in waiting:
            try:
                trust.add_certificate(wire)
            except UnknownKey as error:
                unknown.append((wire, error))
            except TrustError as error:
                notes.append(f"a certificate is left out: {error}")
        if len(unknown) == len(waiting):
            return notes + [f"a certificate is left out: {error}" for _, error in unknown]
        waiting = [wire for wire, _ in unknown]
    return notes


def _head(wire: bytes, trust: TrustStore) -> Head:
    try:
        packet = trust.verify(wire)
        head = codec.decode(Head, packet.content)
    except ProtocolError as error:
        raise Refused(f"the head is refused: {error}") from error
    if packet.name != trust.network.head_version(head.epoch, head.version):
        raise Refused(
            f"the head is refused: {names.to_uri(packet.name)} holds epoch {head.epoch} version {head.version}"
        )
    if head.network != trust.network.uri:
        raise Refused(f"the head is refused: it is of the network {head.network}, this node is in {trust.network.uri}")
    return head


def _check_order(head: Head, wire: bytes, stored: Decision) -> None:
    if head.order < stored.head.order:
        raise Refused(
            f"the head (epoch {head.epoch}, version {head.version}) is older than the stored one "
            f"(epoch {stored.head.epoch}, version {stored.head.version})"
        )
    if head.order == stored.head.order and wire != stored.used.head:
        raise Refused(f"another head of epoch {head.epoch}, version {head.version} is stored already")


def _merge(desired: Desired, stored: Desired) -> Desired:
    return Desired(
        desired.head,
        tuple(dict.fromkeys((*desired.certificates, *stored.certificates))),
        tuple(dict.fromkeys((*desired.sections, *stored.sections))),
        tuple(dict.fromkeys((*desired.specifications, *stored.specifications))),
    )


def _assign(
    ref: SectionRef, wire: bytes | None, specifications: dict[bytes, bytes], trust: TrustStore, node: str
) -> tuple[Assignment | None, bytes]:
    """What a section gives this node (None: nothing), and the digest of the specification it names."""
    if wire is None:
        return Assignment(ref.service, pending="its section of the decision has not arrived"), b""
    try:
        section = codec.decode(Section, wire)
    except MessageError as error:
        return Assignment(ref.service, refusal=f"its section of the decision is damaged: {error}"), b""
    if (section.service, section.zone) != (ref.service, ref.zone):
        return Assignment(ref.service, refusal=f"its section is of {section.service} in zone {section.zone!r}"), b""
    if node not in (head.node for head in section.heads):
        return None, b""
    digest = section.specification_digest
    if digest not in specifications:
        return Assignment(ref.service, pending="its specification has not arrived"), digest
    try:
        generation = read_generation(specifications[digest], trust)
    except ProtocolError as error:
        return Assignment(ref.service, refusal=f"its specification is refused: {error}"), digest
    if generation.spec.name != ref.service or keys.parse(generation.wire).name != section.specification:
        return Assignment(ref.service, refusal=f"its specification is of {generation.spec.name}"), digest
    return Assignment(ref.service, generation), digest


def _one_each(assignments: list[Assignment]) -> tuple[Assignment, ...]:
    """One assignment a service; a zone's section that gives it to this node counts more than one still missing."""
    chosen: dict[str, Assignment] = {}
    for assignment in assignments:
        current = chosen.get(assignment.service)
        if current is None or (current.generation is None and assignment.generation is not None):
            chosen[assignment.service] = assignment
    return tuple(chosen.values())
