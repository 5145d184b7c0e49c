"""The decision engine: from what is to run and what the network is like to a signed head. Its calls block."""

from __future__ import annotations

import functools
import json
import logging
import math
import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Protocol

from controller import decisions
from controller.authority import Authority
from controller.decisions import PathBandwidth, Wanted, Way
from controller.errors import ControllerError
from controller.repository.platform import misfit
from controller.store import Decision, Store
from gateway.protocol import codec, keys
from gateway.protocol.errors import MessageError, ProtocolError
from gateway.protocol.messages import BlobRef, Head, NodeReport, Section, ServiceSpec

if TYPE_CHECKING:
    from controller.placement import Placement, Topology

log = logging.getLogger(__name__)
Links = dict[tuple[str, str], float]
# Node, service, generation and state: what a node says of a service that it cannot run.
Trouble = tuple[str, str, int, str]


class Blobs(Protocol):
    """Where the sections of a decision are put, to be fetched as any blob."""

    def add_bytes(self, content: bytes) -> BlobRef: ...
    def has(self, sha256: bytes) -> bool: ...
    def remove(self, sha256: bytes) -> None: ...


@dataclass(frozen=True, slots=True)
class View:
    """The network as it is known: the reports of live nodes, and the lost ones with the seconds of their silence.

    `crash_loops` are the (node, service) pairs that restart again and again.
    """

    reports: Mapping[str, NodeReport]
    lost: Mapping[str, float] = field(default_factory=dict)
    crash_loops: frozenset[tuple[str, str]] = frozenset()

    @property
    def is_cut_off(self) -> bool:
        """Whether most nodes are silent at once: then it is more likely we who are away than they."""
        return len(self.lost) > len(self.reports)


@dataclass(frozen=True, slots=True)
class _Outcome:
    """One service: its section (None: nothing can be decided yet), and what does not travel."""

    section: Section | None
    notes: dict[str, Any]


class Engine:
    """Decides and signs; keeps the links and nodes of its last decision to tell whether a new look is worth it."""

    def __init__(
        self, authority: Authority, store: Store, blobs: Blobs, origin: str, zone: str, lifetime_s: float
    ) -> None:
        self._authority, self._store, self._blobs = authority, store, blobs
        self.origin, self.zone, self.lifetime_s = origin, zone, lifetime_s
        self._links: Links = {}
        self._nodes: frozenset[str] = frozenset()
        self._troubles: frozenset[Trouble] = frozenset()
        # What was said last of each thing that is wrong, so that a lasting problem is said once.
        self._said: dict[str, str] = {}
        # When placements that rest are to be looked at again.
        self._recheck = math.inf

    def current(self) -> Head | None:
        """The newest head; None before the first."""
        row = self._store.head()
        return None if row is None else codec.decode(Head, keys.parse(row.wire).content)

    def reason_to_look(self, view: View, now: float | None = None) -> str:
        """Why placements should be computed again for this view; empty when nothing has changed enough."""
        moment = time.time() if now is None else now
        if view.is_cut_off:
            return ""
        nodes = frozenset(view.reports)
        if not self._nodes and not nodes and self.current() is None:
            return "the network is new"  # an empty head is an answer; without one, every question waits in vain
        if gone := sorted(self._nodes - nodes):
            return f"lost {', '.join(gone)}"
        if new := sorted(nodes - self._nodes):
            return f"new {', '.join(new)}"
        if new_troubles := _troubles(view) - self._troubles:
            node, service, _, state = min(new_troubles)
            return f"{node} {'refuses' if state == 'refused' else 'is in a crash-loop with'} {service}"
        if moment >= self._recheck:
            return "bandwidth changed a while ago, and still is"
        if changed := decisions.changed_links(self._links, _links(_topology(view))):
            return f"{len(changed)} links changed, {changed[0][0]} -> {changed[0][1]} among them"
        return ""

    def decide(self, view: View, why: str, now: float | None = None) -> Head | None:
        """Places every active service and signs a new head if that changed anything; None when all stays as it is.

        `now` is Unix time. Raises ControllerError when the head cannot be signed or stored; the last one stays then.
        """
        moment = time.time() if now is None else now
        previous = {(d.service, d.zone): d for d in self._store.decisions()}
        self._recheck = math.inf
        topology = _topology(view)
        bandwidth = _path_bandwidth(topology)
        outcomes: dict[tuple[str, str], _Outcome] = {}
        for wanted in self._wanted():
            place = (wanted.spec.name, wanted.zone)
            outcomes[place] = self._decide_service(wanted, previous.get(place), view, topology, bandwidth, moment)
        self._links, self._nodes, self._troubles = _links(topology), frozenset(view.reports), _troubles(view)
        return self._publish(outcomes, previous, why, moment)

    def renew(self, now: float | None = None) -> Head | None:
        """Signs the same decisions anew when half of the head's lifetime is over; None when it is not."""
        moment = time.time() if now is None else now
        head = self.current()
        if head is None or moment < (head.issued + head.expires) / 2:
            return None
        kept = self._store.decisions()
        return self._sign([(codec.decode(Section, d.section), d) for d in kept], "renewed", moment)

    # --- one service -------------------------------------------------------------------------------------------

    def _wanted(self) -> list[Wanted]:
        found = []
        for row in self._store.services():
            try:
                packet = self._authority.trust.verify(row.wire)
                spec = codec.decode(ServiceSpec, packet.content)
            except ProtocolError as error:
                self._say(
                    logging.ERROR,
                    f"specification {row.name}",
                    f"service {row.name} version {row.version} is left out: {error}",
                )
                continue
            found.append(Wanted(spec, packet.name, packet.digest, spec.constraints.zone or self.zone))
        return found

    def _decide_service(
        self,
        wanted: Wanted,
        before: Decision | None,
        view: View,
        topology: Topology,
        bandwidth: PathBandwidth,
        moment: float,
    ) -> _Outcome:
        previous, notes = _read(before)
        told = notes if _same_version(previous, wanted) else {}
        known = {"refusals": _refusals(wanted, told, view.reports), "crashes": _crashes(wanted, told, view)}
        if previous is not None and previous.heads and (reason := _must_keep(previous, wanted, view)):
            kept = replace(previous, specification=wanted.specification, specification_digest=wanted.digest)
            return _Outcome(kept, notes | {"kept": reason} | known)
        try:
            placement, problem = _place_around(topology, wanted, view, known["refusals"], known["crashes"])
        except ValueError as error:
            section = previous if previous is not None and _same_version(previous, wanted) else None
            return _Outcome(section, {"problem": str(error)} | known)
        notes = _notes(placement, wanted, view, problem) | known
        section = None
        if previous is not None and before is not None and previous.heads:
            age_s = moment - before.decided
            if not decisions.should_move(previous, placement, view.reports, bandwidth, age_s):
                section = decisions.kept_section(previous, wanted, self.origin, view.reports, bandwidth, _way(topology))
                if decisions.should_move(previous, placement, view.reports, bandwidth, decisions.HOLD_S):
                    self._recheck = min(self._recheck, before.decided + decisions.HOLD_S)
        if section is None:
            snapshot = _snapshot(topology, moment)
            section = decisions.section_of(wanted, placement, self.origin, view.reports, _way(topology), snapshot)
        return _Outcome(section, notes | _figures(section, placement))

    # --- the head ----------------------------------------------------------------------------------------------

    def _publish(
        self, outcomes: dict[tuple[str, str], _Outcome], previous: dict[tuple[str, str], Decision], why: str, now: float
    ) -> Head | None:
        rows = []
        changed = previous.keys() != {place for place, outcome in outcomes.items() if outcome.section is not None}
        for place, outcome in outcomes.items():
            self._say_where(place, outcome)
            if outcome.section is None:
                continue
            section = outcome.section
            before = previous.get(place)
            known, _ = _read(before)
            if before is not None and known is not None and decisions.same_decision(known, section):
                rows.append((known, replace(before, notes=json.dumps(outcome.notes))))
                continue
            changed = True
            decided = before.decided if before is not None and _same_heads(known, section) else now
            rows.append((section, Decision(*place, codec.encode(section), json.dumps(outcome.notes), decided)))
        self._store.set_meta(
            "unplaced", json.dumps({f"{s}": o.notes for (s, _), o in outcomes.items() if not o.section})
        )
        head = self.current()
        changed = changed or head is None or self._authority.epoch() > head.epoch
        if not changed and head is not None and head.revocations == self._store.revocations():
            self._store.update_notes([decision for _, decision in rows])
            return None
        return self._sign(rows, why, now)

    def _say_where(self, place: tuple[str, str], outcome: _Outcome) -> None:
        problem = outcome.notes.get("problem", "no reason is known")
        text = f"service {place[0]} is placed nowhere: {problem}" if outcome.section is None else ""
        self._say(logging.WARNING, f"place {place}", text)

    def _say(self, level: int, what: str, text: str) -> None:
        """Logs what is wrong with something when that changes; an empty text says that it is right."""
        if text and text != self._said.get(what):
            log.log(level, "%s", text)
        self._said[what] = text

    def _sign(self, rows: list[tuple[Section, Decision]], why: str, now: float) -> Head:
        last = self.current()
        order = decisions.next_order(self._authority.epoch(), None if last is None else last.order)
        issued = max(now, last.issued) if last is not None else now
        sections = [(section, self._blobs.add_bytes(decision.section)) for section, decision in rows]
        network, revocations = self._authority.network.uri, self._store.revocations()
        head = decisions.compose_head(network, order, issued, self.lifetime_s, sections, revocations)
        wire = self._authority.sign_head(head)
        dropped = self._store.save_head(order, wire, issued, why, [decision for _, decision in rows])
        self._forget(dropped)
        log.info("head %d.%d: %s", *order, why)
        return head

    def _forget(self, dropped: list[bytes]) -> None:
        """Removes the sections that only heads name that are no longer kept."""
        if not dropped:
            return
        kept = {blob for row in self._store.heads() for blob in _section_blobs(row.wire)}
        for blob in {blob for wire in dropped for blob in _section_blobs(wire)} - kept:
            self._blobs.remove(blob)


def _section_blobs(head: bytes) -> set[bytes]:
    return {ref.blob.sha256 for ref in codec.decode(Head, keys.parse(head).content).sections}


def _read(decision: Decision | None) -> tuple[Section | None, dict[str, Any]]:
    if decision is None:
        return None, {}
    try:
        return codec.decode(Section, decision.section), dict(json.loads(decision.notes))
    except (MessageError, ValueError) as error:
        raise ControllerError(f"the stored decision on {decision.service} cannot be read: {error}") from error


def _same_heads(one: Section | None, other: Section) -> bool:
    return one is not None and {head.node for head in one.heads} == {head.node for head in other.heads}


def _same_version(previous: Section | None, wanted: Wanted) -> bool:
    return previous is not None and previous.specification_digest == wanted.digest


def _must_keep(previous: Section, wanted: Wanted, view: View) -> str:
    """Why the heads must stay although the network changed; empty when they need not."""
    if view.is_cut_off:
        heard, known = len(view.reports), len(view.reports) + len(view.lost)
        return f"only {heard} of {known} nodes are heard: the controller may be cut off itself"
    silent = [head.node for head in previous.heads if head.node not in view.reports]
    if wanted.spec.volumes and silent:
        return f"{', '.join(silent)} is silent and may still write to the volumes of the service"
    return ""


def _refusals(wanted: Wanted, notes: Mapping[str, Any], reports: Mapping[str, NodeReport]) -> dict[str, str]:
    """Nodes that refused this version, now or before: a refusal is not forgotten because the service moved away."""
    known = {str(node): str(reason) for node, reason in dict(notes.get("refusals", {})).items()}
    for node, report in reports.items():
        for status in report.services:
            if status.name == wanted.spec.name and status.generation in (0, wanted.spec.version):
                if status.state == "refused":
                    known[node] = f"refuses it: {status.reason or 'no reason given'}"
                elif status.state == "running":
                    known.pop(node, None)
    return known


def _crashes(wanted: Wanted, notes: Mapping[str, Any], view: View) -> dict[str, str]:
    """Nodes on which this version crashes again and again, now or before: it is not tried there a second time."""
    known = {str(node): str(reason) for node, reason in dict(notes.get("crashes", {})).items()}
    for node, service in sorted(view.crash_loops):
        for status in view.reports[node].services if service == wanted.spec.name and node in view.reports else ():
            if (status.name, status.state) == (service, "crash-loop") and status.generation in (0, wanted.spec.version):
                # The executor's reason goes on with the time of its next try, which is of no interest here.
                why = status.reason.partition("; next try")[0] or "no reason given"
                known.setdefault(node, f"crash-loop: version {wanted.spec.version} ended again and again there ({why})")
    return known


def _misfits(platform: str, reports: Mapping[str, NodeReport]) -> dict[str, str]:
    """The nodes whose processor cannot run an image for this platform."""
    found = {node: misfit(platform, report.hardware.architecture) for node, report in reports.items()}
    return {node: reason for node, reason in found.items() if reason}


def _place_around(
    topology: Topology, wanted: Wanted, view: View, refusals: Mapping[str, str], crashes: Mapping[str, str]
) -> tuple[Placement, str]:
    """A placement away from the nodes on which the service crashes, unless it must stay; and what is wrong with it."""
    impossible = _misfits(wanted.spec.platform, view.reports) | dict(refusals)
    nodes = ", ".join(sorted(crashes))
    if wanted.spec.volumes and crashes:
        return _place(topology, wanted, impossible), f"crash-loop on {nodes}; it stays where its volumes are"
    placement = _place(topology, wanted, dict(crashes) | impossible)
    if crashes and not placement.heads:
        # Then it is the service that is faulty, not the nodes; there it may recover from what it waits for.
        return _place(topology, wanted, impossible), f"crash-loop on every node that may run it: {nodes}"
    return placement, ""


def _figures(section: Section, placement: Placement) -> dict[str, Any]:
    """The heads' figures as they are now, which is no reason for a new head, and what speaks for those chosen again."""
    return {
        "bandwidth_mbps": {head.node: head.bandwidth_mbps for head in section.heads},
        "reasons": {head.node: head.reason for head in placement.heads},
    }


def _notes(placement: Placement, wanted: Wanted, view: View, problem: str) -> dict[str, Any]:
    lost = {node: f"lost: not heard for {seconds:.0f} s" for node, seconds in view.lost.items()}
    notes: dict[str, Any] = {
        "refused": placement.refused | lost,
        "unreached": list(placement.unreached),
        "mean_bandwidth_mbps": round(placement.mean_bandwidth_mbps, 3),
        "metric": placement.metric,
    }
    if problem:
        notes["problem"] = problem
    elif len(placement.heads) < wanted.spec.replicas:
        notes["problem"] = f"{len(placement.heads)} of {wanted.spec.replicas} replicas: no other node may run it"
    return notes


def _troubles(view: View) -> frozenset[Trouble]:
    return frozenset(
        (node, status.name, status.generation, status.state)
        for node, report in view.reports.items()
        for status in report.services
        if status.state == "refused" or (status.state == "crash-loop" and (node, status.name) in view.crash_loops)
    )


# --- placement, which brings numpy ---------------------------------------------------------------------------


def _topology(view: View) -> Topology:
    from controller.placement import from_reports

    return from_reports(list(view.reports.values()))


def _snapshot(topology: Topology, moment: float) -> str:
    stamp = time.strftime("%FT%TZ", time.gmtime(moment))
    return f"{len(topology)} nodes, {len(topology.rates_mbps)} links, {stamp}"


def _links(topology: Topology) -> Links:
    pairs = zip(topology.edges.tolist(), topology.rates_mbps.tolist(), strict=True)
    return {(topology.names[i], topology.names[j]): float(rate) for (i, j), rate in pairs}


def _path_bandwidth(topology: Topology) -> PathBandwidth:
    from controller.placement import path_bandwidth

    matrix = path_bandwidth(topology)
    index = {name: at for at, name in enumerate(topology.names)}

    def bandwidth(source: str, destination: str) -> float:
        i, j = index.get(source), index.get(destination)
        return float(matrix[i, j]) if i is not None and j is not None else 0.0

    return bandwidth


@functools.lru_cache(maxsize=1)
def _way(topology: Topology) -> Way:
    """The paths of a topology, which all services of one decision share."""
    from controller.placement import least_airtime

    times, before = least_airtime(topology)
    index = {name: at for at, name in enumerate(topology.names)}

    def way(source: str, destination: str) -> list[tuple[str, float]]:
        start, at = index.get(source), index.get(destination)
        found: list[tuple[str, float]] = []
        while start is not None and at is not None and at != start:
            previous = int(before[start, at])
            if previous < 0:
                return []
            found.append((topology.names[at], float(times[start, at] - times[start, previous])))
            at = previous
        return found[::-1]

    return way


def _place(topology: Topology, wanted: Wanted, refusals: Mapping[str, str]) -> Placement:
    from controller.placement import Request, place

    request = Request.for_service(wanted.spec, refusals)
    zone = wanted.zone
    if zone and not request.constraints.zone:
        request = replace(request, constraints=replace(request.constraints, zone=zone))
    # Fewer nodes than replicas is a state of the network, not a mistake in the service file.
    request = replace(request, k=max(1, min(request.k, len(topology))))
    return place(topology, request, wanted.spec.algorithm, partial=True)
