"""Which decision is in force and what is to be fetched for a newer one: no socket, file, clock or task in here.

A head is accepted when its signature is the controller's and its (epoch, version) is greater than any accepted before.
It is completed (`needs`) with the sections of this node's zone and their specifications, every one by its hash, and
then put in force (`adopt`). Whatever fails is counted with its reason in `rejected`; the decision in force stays.
"""

from __future__ import annotations

import contextlib
import enum
import hashlib
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from gateway.placement_client.decision import (
    BlobNeed,
    Decision,
    Place,
    Placed,
    SectionNeed,
    SpecificationNeed,
    holders,
    image_blobs,
)
from gateway.protocol import codec, keys, names, objects
from gateway.protocol.errors import BlobError, MessageError, ProtocolError, TrustError, UnknownKey
from gateway.protocol.messages import BlobRef, Head, Section, SectionRef, ServiceSpec
from gateway.protocol.names import Name
from gateway.protocol.trust import TrustStore

FIRST_EPOCH = 1  # open from the beginning; the anchor opens each later one
ORDER_LIMIT = 1 << 32  # epoch and version share one 64-bit version number


@dataclass(frozen=True, slots=True)
class Clock:
    """The wall clock at one moment: Unix time, and whether something (NTP, GPS) keeps it right."""

    now: float
    synchronized: bool


class Verdict(enum.Enum):
    NEWER = "newer"
    KNOWN = "known"
    REFUSED = "refused"


class EpochUnproven(TrustError):
    """A head of an epoch that the anchor is not known to have opened; `name` is where its statement is to be had."""

    def __init__(self, name: Name, text: str) -> None:
        super().__init__(text)
        self.name = name


class Session:
    """The decision in force, the newer one in the making (`draft`), and the floors below which nothing is accepted."""

    def __init__(self, network: names.Network, node: str, zone: str, trust: TrustStore) -> None:
        self.network, self.node, self.zone, self.trust = network, node, zone, trust
        self.decision: Decision | None = None
        self.draft: Decision | None = None
        self.floor_order = (0, 0)
        self.floor_time = 0.0
        self.epoch = FIRST_EPOCH
        self.epoch_wire = b""
        self.rejected: Counter[str] = Counter()
        self.last_rejection = ""

    # --- heads

    @property
    def order(self) -> tuple[int, int]:
        """The (epoch, version) in force; (0, 0) with no decision."""
        return self.decision.head.order if self.decision is not None else (0, 0)

    @property
    def newest(self) -> tuple[int, int]:
        """The greatest (epoch, version) verified so far, in force or not."""
        return max(self.order, self.draft.head.order if self.draft is not None else (0, 0))

    def is_news(self, epoch: int, version: int) -> bool:
        """Whether a head of this number, which somebody says to hold, is worth asking for."""
        in_range = 0 <= epoch < ORDER_LIMIT and 0 <= version < ORDER_LIMIT
        return in_range and (epoch, version) > self.newest and (epoch, version) >= self.floor_order

    def is_clock_trusted(self, clock: Clock) -> bool:
        """A clock that runs behind what is known to have happened is wrong, whatever keeps it."""
        return clock.synchronized and clock.now >= self.floor_time

    def offer_head(self, wire: bytes, source: str, clock: Clock) -> Verdict:
        """Judges a head packet; a newer one becomes the draft.

        Raises UnknownKey or EpochUnproven when a certificate or the anchor's statement must come first.
        """
        known = [d for d in (self.draft, self.decision) if d is not None]
        if any(wire == decision.head_wire for decision in known):
            return Verdict.KNOWN
        try:
            head = self._read_head(wire)
        except UnknownKey:
            raise
        except ProtocolError as error:
            return self._refuse("bad head", f"head from {source}: {error}")
        text = f"head {head.epoch}.{head.version} from {source}"
        if any(head.order == decision.head.order for decision in known):
            return self._refuse("conflicting head", f"{text} differs from the one held under the same number")
        if head.order < max(self.newest, self.floor_order):
            return self._refuse("older head", f"{text} is older than {'.'.join(map(str, self._highest()))}")
        if self.is_clock_trusted(clock) and head.expires < clock.now:
            return self._refuse("expired head", f"{text} expired {clock.now - head.expires:.0f} s ago")
        if head.epoch > self.epoch:
            name = self.network.epoch(head.epoch)
            raise EpochUnproven(name, f"{text}: the anchor has not opened epoch {head.epoch}")
        self._begin(head, wire, source)
        return Verdict.NEWER

    def add_epoch(self, wire: bytes, source: str) -> bool:
        """Takes the anchor's statement that opens an epoch; False (and counted) when it is none."""
        try:
            packet = self.trust.verify(wire)
            epoch = names.last_number(packet.name, names.VERSION)
            if epoch is None or epoch >= ORDER_LIMIT or packet.name != self.network.epoch(epoch):
                raise TrustError(f"{names.to_uri(packet.name)} opens no epoch")
        except ProtocolError as error:
            self.reject("bad epoch", f"epoch statement from {source}: {error}")
            return False
        if epoch > self.epoch:
            self.epoch, self.epoch_wire = epoch, wire
        return True

    def _highest(self) -> tuple[int, int]:
        return max(self.newest, self.floor_order)

    def _refuse(self, reason: str, text: str) -> Verdict:
        self.reject(reason, text)
        return Verdict.REFUSED

    def revocation_of(self, key_name: Name) -> str:
        """Which head revokes a key, in words; empty when the newest verified one does not."""
        newest = self.draft or self.decision
        if newest is None or hashlib.sha256(key_name).digest() not in self.trust.revoked:
            return ""
        return f"revoked by head {newest.head.epoch}.{newest.head.version}"

    def reject(self, reason: str, text: str) -> None:
        """Counts something that was dropped; `text` names it for people."""
        self.rejected[reason] += 1
        self.last_rejection = text[:400]

    def _read_head(self, wire: bytes) -> Head:
        packet = self.trust.verify(wire)
        if not packet.name.startswith(self.network.head):
            raise TrustError(f"{names.to_uri(packet.name)} is not a head")
        head = codec.decode(Head, packet.content)
        if head.network != self.network.uri:
            raise MessageError(f"it is of network {head.network!r}, not {self.network.uri!r}")
        if not (0 <= head.epoch < ORDER_LIMIT and 0 <= head.version < ORDER_LIMIT):
            raise MessageError(f"its number {head.epoch}.{head.version} is out of range")
        if packet.name != self.network.head_version(head.epoch, head.version):
            raise MessageError(f"{names.to_uri(packet.name)} holds head {head.epoch}.{head.version}")
        for ref in head.sections:
            _check_ref(ref.blob, f"section {ref.service}")
        return head

    def _begin(self, head: Head, wire: bytes, source: str) -> None:
        previous = [d for d in (self.draft, self.decision) if d is not None]
        self.draft = Decision(head, wire, source, self.zone)
        self._apply_revocations(head)
        for ref in self.draft.refs:
            for decision in previous:
                placed = decision.placed.get((ref.zone, ref.service))
                if placed is not None and placed.ref == ref:
                    self._carry_over(placed)
                    break

    def _apply_revocations(self, head: Head) -> None:
        # The controller must not be able to shut the anchor out: only the anchor can bring in another controller.
        anchor = hashlib.sha256(keys.key_name_of(keys.parse(self.trust.anchor_wire).name)).digest()
        self.trust.revoked = frozenset(head.revocations) - {anchor}

    def _carry_over(self, placed: Placed) -> None:
        self.add_section(placed.ref, placed.wire)
        if placed.specification_wire:
            try:
                self.add_specification((placed.ref.zone, placed.ref.service), placed.specification_wire)
            except UnknownKey:
                return  # it is fetched again with its certificate

    # --- what a draft needs

    def needs(self) -> list[SectionNeed | SpecificationNeed]:
        """What is still to be fetched: for the draft, or for the decision in force when it went in incomplete."""
        decision = self.draft or self.decision
        if decision is None:
            return []
        found: list[SectionNeed | SpecificationNeed] = [SectionNeed(ref) for ref in decision.missing_sections]
        for placed in decision.unsettled():
            if placed.section is not None:
                place = (placed.ref.zone, placed.ref.service)
                section = placed.section
                found.append(SpecificationNeed(place, section.specification, section.specification_digest))
        return found

    def add_section(self, ref: SectionRef, content: bytes) -> bool:
        """Takes the bytes of a section; False (and counted) when they are not what the head names."""
        decision = self.draft or self.decision
        if decision is None or ref not in decision.refs:
            return False
        where = f"section {ref.service} of zone {ref.zone!r}"
        if hashlib.sha256(content).digest() != ref.blob.sha256:
            self.reject("section hash", f"{where}: {len(content)} bytes that are not {ref.blob.sha256.hex()}")
            return False
        try:
            placed = Placed(ref, content, self._read_section(ref, content))
        except ProtocolError as error:
            placed = Placed(ref, content, None).refused(str(error))
            self.reject("bad section", f"{where}: {error}")
        decision.placed.setdefault((ref.zone, ref.service), placed)
        return True

    def _read_section(self, ref: SectionRef, content: bytes) -> Section:
        section = codec.decode(Section, content)
        if (section.zone, section.service) != (ref.zone, ref.service):
            raise MessageError(f"the section says {section.service!r} of zone {section.zone!r}")
        has_digest = len(section.specification_digest) == objects.DIGEST_BYTES
        if not has_digest or not self._is_below_providers(section.specification):
            raise MessageError("the section names no specification of a provider")
        return section

    def _is_below_providers(self, name: Name) -> bool:
        try:
            names.components(name)
        except ValueError:
            return False
        return name.startswith(self.network.providers)

    def add_specification(self, place: Place, wire: bytes) -> bool:
        """Takes a specification packet; False (and counted) when it is another packet or not to be accepted.

        The right packet (by its digest) that fails verification is refused for good: no other can come in its place.
        Raises UnknownKey when the provider's certificate must come first.
        """
        decision = self.draft or self.decision
        placed = decision.placed.get(place) if decision is not None else None
        if decision is None or placed is None or placed.section is None:
            return False
        if hashlib.sha256(wire).digest() != placed.section.specification_digest:
            self.reject("specification hash", f"specification of {place[1]}: not the packet that the section names")
            return False
        try:
            specification = self._read_specification(placed.section, wire)
        except UnknownKey:
            raise
        except ProtocolError as error:
            self.reject("bad specification", f"specification of {place[1]}: {error}")
            decision.placed[place] = placed.refused(str(error))
            return False
        decision.placed[place] = replace(placed, specification=specification, specification_wire=wire, refusal="")
        return True

    def _read_specification(self, section: Section, wire: bytes) -> ServiceSpec:
        packet = self.trust.verify(wire)
        specification = codec.decode(ServiceSpec, packet.content)
        told = self.network.service(specification.provider, specification.name, max(0, specification.version))
        if packet.name != section.specification or packet.name != told or specification.name != section.service:
            raise MessageError(
                f"{names.to_uri(packet.name)} holds version {specification.version} of {specification.name!r} "
                f"by {specification.provider!r}"
            )
        for ref in image_blobs(specification):
            _check_ref(ref, f"image of {specification.name}")
        return specification

    def add_certificate(self, wire: bytes, source: str, clock: Clock) -> bool:
        """Takes a certificate into the trust store; False (and counted) when it is not acceptable."""
        try:
            self.trust.add_certificate(wire, clock.now if self.is_clock_trusted(clock) else None)
        except TrustError as error:
            self.reject("bad certificate", f"certificate from {source}: {error}")
            return False
        return True

    # --- putting a decision in force

    def is_adoptable(self, give_up: bool) -> bool:
        """Whether the draft may go in force: when complete, or (`give_up`) when what cannot be fetched runs elsewhere.

        One provider whose specification nobody can fetch must not hold up the services of all others; a service that
        runs here keeps the decision it runs by until the new one is whole.
        """
        if self.draft is None or self.draft.missing_sections:
            return False
        return self.draft.complete or (
            give_up and not any(self._runs_here(placed) for placed in self.draft.unsettled())
        )

    def _runs_here(self, placed: Placed) -> bool:
        current = self.decision.placed.get((placed.ref.zone, placed.ref.service)) if self.decision is not None else None
        return current is not None and current.specification is not None and current.head_of(self.node) is not None

    def adopt(self) -> Decision:
        """Puts the draft in force."""
        if self.draft is None:
            raise ValueError("there is no draft to adopt")
        self.decision, self.draft = self.draft, None
        self.floor_order = max(self.floor_order, self.decision.head.order)
        self.floor_time = max(self.floor_time, self.decision.head.issued)
        return self.decision

    def restore(
        self, head: bytes, certificates: Sequence[bytes], sections: Sequence[bytes], specifications: Sequence[bytes]
    ) -> Decision:
        """Puts a stored decision in force, verified like a new one but for its expiry; raises ProtocolError."""
        self._restore_certificates(certificates)
        self._begin(self._read_head(head), head, "disk")
        draft, by_hash = self.draft, {hashlib.sha256(wire).digest(): wire for wire in (*sections, *specifications)}
        assert draft is not None
        try:
            for ref in draft.refs:
                if ref.blob.sha256 not in by_hash:
                    raise MessageError(f"the section {ref.service} of zone {ref.zone!r} is missing")
                self.add_section(ref, by_hash[ref.blob.sha256])
            for placed in draft.unsettled():
                digest = placed.section.specification_digest if placed.section is not None else b""
                if digest in by_hash:
                    with contextlib.suppress(UnknownKey):  # fetched again, with its certificate
                        self.add_specification((placed.ref.zone, placed.ref.service), by_hash[digest])
        except ProtocolError:
            self.draft = None
            raise
        decision = self.adopt()
        self.epoch = max(self.epoch, decision.head.epoch)
        return decision

    def _restore_certificates(self, certificates: Sequence[bytes]) -> None:
        pending = list(certificates)
        while pending:
            refused = [wire for wire in pending if not self._accepts(wire)]
            if len(refused) == len(pending):
                return
            pending = refused

    def _accepts(self, wire: bytes) -> bool:
        try:
            self.trust.add_certificate(wire)
        except TrustError:
            return False
        return True

    # --- blobs

    def blob_needs(self, distance: Callable[[str], float]) -> list[BlobNeed]:
        """Every blob that belongs on this disk: of the services that run here first, then of those we stand by for."""
        found: dict[bytes, BlobNeed] = {}
        placed_here = list(self.decision.in_order()) if self.decision is not None else []
        for role in ("head", "standby"):
            for placed in placed_here:
                if placed.section is None or placed.specification is None or placed.role_of(self.node) != role:
                    continue
                order = holders(placed.section, self.node, distance)
                for ref in image_blobs(placed.specification):
                    found.setdefault(ref.sha256, BlobNeed(ref, placed.ref.service, order))
        return list(found.values())


def _check_ref(ref: BlobRef, where: str) -> None:
    try:
        objects.check(ref)
    except BlobError as error:
        raise MessageError(f"{where}: {error}") from error
    if ref.size < 0:
        raise MessageError(f"{where}: a blob of {ref.size} bytes")
