"""What should run here: the stored decision, the generations to go back to, and the owner's policy, as targets."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import replace

from gateway.config import Settings, own_tcp_ports
from gateway.executor import decision as decisions
from gateway.executor import policy as policies
from gateway.executor.decision import Assignment, Decision, Generation, Refused
from gateway.executor.images import Images
from gateway.executor.policy import Policy
from gateway.executor.reconcile import Candidate, Target
from gateway.executor.runtimes.selection import Selection
from gateway.executor.state import BAD_MAX, Record, State
from gateway.protocol import names
from gateway.protocol.errors import ProtocolError
from gateway.protocol.executor_messages import Desired
from gateway.protocol.trust import TrustStore


class DesiredState:
    """The decision in force and its history; not for several threads at once."""

    def __init__(self, settings: Settings, selection: Selection, images: Images | None) -> None:
        self._settings, self._selection, self._images = settings, selection, images
        self._network = names.Network(settings.gateway.network)
        self._state = State(settings.services_dir)
        self._records = self._state.load_records()
        self._previous: dict[str, Generation] = {}
        self.decision = self._load()

    @property
    def notes(self) -> tuple[str, ...]:
        return (*self._state.notes, *(self.decision.notes if self.decision else ()))

    def set_settings(self, settings: Settings) -> None:
        """The owner changed policy or limits."""
        self._settings = settings

    def apply(self, desired: Desired) -> str:
        """Verifies a decision and stores it; the reason when it is refused, and then nothing has changed."""
        try:
            decision = decisions.verify(desired, self._trust(), self._settings.gateway.node, self.decision)
            if self.decision is None or decision.used != self.decision.used:
                self._state.save_desired(decision.used)
        except Refused as error:
            return str(error)
        except OSError as error:
            return f"the decision cannot be stored: {error}"
        self.decision = decision
        if self._images:
            self._images.forget_failures()
        return ""

    def targets(self, now_s: float) -> list[Target]:
        """One target for each service that the decision gives this node; `now_s` is monotonic."""
        if self.decision is None:
            return []
        assignments = self.decision.assignments
        self._previous = self._read_previous(self.decision)
        policy = self._policy()
        specs = [g.spec for a in assignments if (g := a.generation or self._previous.get(a.service))]
        refusals = policies.admit(policy, specs)
        return [self._target(a, refusals.get(a.service, ""), policy, now_s) for a in assignments]

    def generation(self, service: str, digest: bytes) -> Generation | None:
        """The assigned or the previous generation of a service, whichever has this digest."""
        assigned = {a.service: a.generation for a in self.decision.assignments} if self.decision else {}
        for generation in (assigned.get(service), self._previous.get(service)):
            if generation and generation.digest == digest:
                return generation
        return None

    def on_start(self, generation: Generation) -> None:
        """Before the first start of a service: until another is proven, this is the generation to go on with."""
        record = self._record(generation.spec.name)
        if not record.good:
            self._save(replace(record, good=generation.wire))

    def on_proven(self, generation: Generation) -> None:
        """It stayed healthy: from now on it is the one to go back to, and images of older ones may go."""
        record = self._record(generation.spec.name)
        if record.good != generation.wire:
            self._save(replace(record, good=generation.wire))
        if self._images and self.decision:
            self._previous = self._read_previous(self.decision)
            self._images.collect(self._in_use(self.decision))

    def on_bad(self, service: str, digest: bytes) -> None:
        """It did not become healthy: it is not tried again while there is another."""
        record = self._record(service)
        self._save(replace(record, bad=(*record.bad, digest)[-BAD_MAX:]))

    def _in_use(self, decision: Decision) -> Iterator[Generation]:
        yield from (a.generation for a in decision.assignments if a.generation)
        yield from self._previous.values()

    def _load(self) -> Decision | None:
        desired = self._state.load_desired()
        if desired is None:
            return None
        try:
            return decisions.verify(desired, self._trust(), self._settings.gateway.node, None)
        except Refused as error:
            self._state.notes.append(f"the stored decision is not used: {error}")
            return None

    def _trust(self) -> TrustStore:
        path = self._settings.gateway.state_dir / "anchor.ndn"
        try:
            return TrustStore(self._network, path.read_bytes())
        except FileNotFoundError:
            raise Refused(f"this node is not enrolled: there is no anchor in {path}") from None
        except (OSError, ProtocolError) as error:
            raise Refused(f"the anchor cannot be used: {path}: {error}") from error

    def _target(self, assignment: Assignment, refused: str, policy: Policy, now_s: float) -> Target:
        service, wanted = assignment.service, assignment.generation
        previous = self._previous.get(service)
        if self._selection.runtime is None:
            return Target(service, refusal=self._selection.refusal)
        if self._images is None:
            return Target(service, refusal="there is no directory for its image (forwarder.blob_dir is not set)")
        if previous and (policies.refusal(policy, previous.spec) or (wanted and previous.digest == wanted.digest)):
            previous = None
        refusal = assignment.refusal or refused
        if refusal and previous is None:
            candidate = Candidate(wanted.digest, wanted.spec.version) if wanted else None
            return Target(service, candidate, refusal=refusal)
        return Target(
            service,
            self._images.candidate(wanted, now_s) if wanted and not refusal else None,
            self._images.candidate(previous, now_s) if previous else None,
            pending=f"the new one is refused: {refusal}" if refusal else assignment.pending,
            bad=frozenset(self._record(service).bad),
        )

    def _read_previous(self, decision: Decision) -> dict[str, Generation]:
        """The generations to go back to; each is verified again when it was not before."""
        previous: dict[str, Generation] = {}
        trust: TrustStore | None = None
        for assignment in decision.assignments:
            wire = self._record(assignment.service).good
            known = self._previous.get(assignment.service)
            if known is not None and known.wire == wire:
                previous[assignment.service] = known
            elif wire:
                with contextlib.suppress(ProtocolError, Refused):
                    trust = trust or self._trust_of(decision)
                    previous[assignment.service] = decisions.read_generation(wire, trust)
        return previous

    def _trust_of(self, decision: Decision) -> TrustStore:
        trust = self._trust()
        decisions.add_certificates(trust, decision.used.certificates)
        trust.revoked = frozenset(decision.head.revocations)
        return trust

    def _policy(self) -> Policy:
        executor, owner, runtime = self._settings.executor, self._settings.policy, self._selection.runtime
        sizes = executor.memory_bytes, executor.cpu, executor.disk_bytes
        own_ports = own_tcp_ports(self._settings)
        return Policy(owner.allow_providers, owner.allow_ports, *sizes, (runtime.name,) if runtime else (), own_ports)

    def _record(self, service: str) -> Record:
        return self._records.get(service) or Record(service)

    def _save(self, record: Record) -> None:
        assigned = {a.service for a in self.decision.assignments} if self.decision else set()
        kept = {service: each for service, each in self._records.items() if service in assigned}
        self._records = kept | {record.service: record}
        self._state.save_records(self._records)
