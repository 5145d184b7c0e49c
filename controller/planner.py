"""One service: from what was decided of it and the network as it is to its section. Pure."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from controller import decisions, replan
from controller.decisions import Wanted
from controller.monitoring.network import View
from controller.obstacles import Obstacles, must_keep
from controller.replan import Rival, Rules, Unrest
from gateway.protocol.messages import NodeReport, Section, ServiceSpec

if TYPE_CHECKING:
    from controller.placement import Placement, Request
    from controller.scene import Case, Scene


@dataclass(frozen=True, slots=True)
class Decided:
    """What is decided of a service: its section, the notes beside it, and since when (Unix time) its heads are so."""

    section: Section
    notes: Mapping[str, Any]
    since: float


@dataclass(frozen=True, slots=True)
class Neighbour:
    """Another service, with the heads that it has or gets."""

    spec: ServiceSpec
    heads: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Outcome:
    """One service: its section (None: nothing can be decided yet), what does not travel, when to look again."""

    section: Section | None
    notes: dict[str, Any]
    recheck: float = math.inf


@dataclass(frozen=True, slots=True)
class Planner:
    """Decides on services one at a time, by the same rules, in one scene; `now` is Unix time."""

    origin: str
    rules: Rules
    view: View
    scene: Scene
    now: float

    def decide(self, wanted: Wanted, before: Decided | None, others: Sequence[Neighbour]) -> Outcome:
        """The section of a service, given what is decided of the others."""
        is_same = before is not None and before.section.specification_digest == wanted.digest
        obstacles = Obstacles.of(wanted, before.notes if before is not None and is_same else {}, self.view)
        known = obstacles.notes()
        if before is not None and before.section.heads and (reason := must_keep(before.section, wanted, self.view)):
            kept = replace(before.section, specification=wanted.specification, specification_digest=wanted.digest)
            return Outcome(kept, {**before.notes, "kept": reason, **known})
        try:
            case, problem = self._case_around(wanted, before, obstacles, others)
        except ValueError as error:
            return Outcome(before.section if before is not None and is_same else None, {"problem": str(error), **known})
        unrest = Unrest.from_json(before.notes.get("unrest")) if before is not None else Unrest()
        choice = self._choose(wanted, before, case, unrest)
        section = self._section(wanted, before, case, choice)
        notes = _notes(choice.placement, case.best, wanted, self.view, problem)
        notes |= {"unrest": (unrest.moved(self.now) if choice.is_move else unrest).to_json()}
        if choice.rival is not None:
            notes |= {"rival": choice.rival.to_json(), "waits": choice.waits}
        # Heads that were chosen before anything was measured are put right by the first measurement.
        was_guess = (
            before is None or bool(before.notes.get("is_guess")) or not decisions.same_heads(before.section, section)
        )
        notes["is_guess"] = was_guess and not case.best.mean_bandwidth_mbps
        return Outcome(section, notes | known, choice.recheck)

    # --- the problem -------------------------------------------------------------------------------------------

    def _case_around(
        self, wanted: Wanted, before: Decided | None, obstacles: Obstacles, others: Sequence[Neighbour]
    ) -> tuple[Case, str]:
        """The problem without the nodes on which it crashes, unless it must stay; and what is wrong."""

        def case(refusals: dict[str, str]) -> Case:
            return self.scene.case(self._request(wanted, before, refusals, others), wanted.spec.algorithm)

        nodes = ", ".join(sorted(obstacles.crashes))
        if wanted.spec.volumes and nodes:
            return case(obstacles.impossible), f"crash-loop on {nodes}; it stays where its volumes are"
        around = case(obstacles.all)
        if nodes and not around.best.heads:
            # Then it is the service that is faulty, not the nodes; there it may recover from what it waits for.
            return case(obstacles.impossible), f"crash-loop on every node that may run it: {nodes}"
        return around, ""

    def _request(
        self, wanted: Wanted, before: Decided | None, refusals: dict[str, str], others: Sequence[Neighbour]
    ) -> Request:
        from controller.placement import Request, beside

        spec, now = wanted.spec, self.view.reports
        held = {head.node for head in before.section.heads} if before is not None else set()
        # What a new head costs at least: whatever is worth that is a rival, and then its own nodes are asked.
        to_move = [missing_mbit(spec, [node], now) for node in now.keys() - held] if held else []
        zone = spec.constraints.zone or wanted.zone
        own = replace(
            Request.for_service(spec, refusals),
            constraints=replace(spec.constraints, zone=zone, near=_near(spec, others)),
            current=tuple(sorted(held & now.keys())),
            migration_cost_mbps=min(to_move, default=0.0) / self.rules.payback_s,
        )
        requests = {other.spec.name: Request.for_service(other.spec) for other in others}
        return beside(spec.name, requests | {spec.name: own}, {other.spec.name: other.heads for other in others})

    # --- the heads ---------------------------------------------------------------------------------------------

    def _choose(self, wanted: Wanted, before: Decided | None, case: Case, unrest: Unrest) -> _Choice:
        """Who is to be head, and why: those who are, as long as they can and nobody else was better for long."""
        best = {head.node: head.reason for head in case.best.heads}
        if before is None or not before.section.heads or before.section.algorithm != case.best.algorithm:
            return _Choice(case.best)
        held = {head.node: head.reason for head in before.section.heads}
        kept = [node for node in held if node in self.view.reports and node not in case.impossible]
        spare = self.view.reports.keys() - case.best.refused.keys() - set(kept)
        count = min(wanted.spec.replicas, len(kept) + len(spare))
        if len(kept) < len(held) or len(kept) != count:
            heads = replan.complete(kept, count, self._standbys(before), case, self.rules.gain, held.keys() - kept)
            return _Choice(case.placement({node: why or held[node] for node, why in heads.items()}), True)
        # Data in volumes does not move with a service, and drawn heads are not drawn again to see if they are better.
        if wanted.spec.volumes or wanted.spec.algorithm == "random" or not best:
            return _Choice(case.placement(held), True)
        return self._compare(wanted, before, case, held, unrest)

    def _compare(self, wanted: Wanted, before: Decided, case: Case, held: dict[str, str], unrest: Unrest) -> _Choice:
        """The heads that are, or their rival when it has been better for long enough."""
        best = {head.node: head.reason for head in case.best.heads}
        doubtful = [node for node in held if node in case.best.refused]
        if doubtful:
            kept = [node for node in held if node not in doubtful]
            best = replan.complete(kept, len(held), self._standbys(before), case, self.rules.gain, doubtful)
        rules = self.rules.at_once() if before.notes.get("is_guess") else self.rules
        rival, moves = replan.look(
            rules,
            self._rival(before, case),
            Rival(tuple(best), best),
            list(held),
            case,
            lambda heads: missing_mbit(wanted.spec, set(heads) - held.keys(), self.view.reports),
            decided=before.since,
            now=self.now,
            unrest=unrest.seen_at(self.now),
            is_doubtful=bool(doubtful),
        )
        if rival is not None and moves:
            heads = {node: rival.reasons.get(node) or held.get(node, "") for node in rival.heads}
            return _Choice(case.placement(heads), is_move=True)
        looks = rules.looks(unrest.seen_at(self.now))
        waits = "" if rival is None else _waits(rival, case, list(held), looks, rules.apart_s)
        looked = rival.seen if rival is not None else before.since
        is_over = rival is None and (self.now >= looked + rules.apart_s or set(best) == held.keys())
        recheck = math.inf if is_over else looked + rules.apart_s
        return _Choice(case.placement(held), True, False, rival, waits, recheck)

    def _rival(self, before: Decided, case: Case) -> Rival | None:
        """Who was better at the last look, if all of them may still be heads."""
        rival = Rival.from_json(before.notes.get("rival"))
        possible = self.view.reports.keys() - case.best.refused.keys()
        return rival if rival is not None and possible.issuperset(rival.heads) else None

    def _standbys(self, before: Decided) -> list[str]:
        """The stand-bys that are, as far as they are there."""
        return [node for node in before.section.standbys if node in self.view.reports]

    # --- the section -------------------------------------------------------------------------------------------

    def _section(self, wanted: Wanted, before: Decided | None, case: Case, choice: _Choice) -> Section:
        placement, snapshot = choice.placement, self.scene.snapshot(self.now)
        if before is not None and choice.keeps:
            # They have the image: others take their turn only where one is missing.
            ready = [node for node in self._standbys(before) if node not in case.impossible]
            heads = {head.node for head in placement.heads}
            order = [node for node in dict.fromkeys((*ready, *placement.standbys)) if node not in heads]
            placement = replace(placement, standbys=tuple(order[: case.standbys]))
        section = decisions.section_of(wanted, placement, self.origin, self.view.reports, self.scene.way, snapshot)
        if before is not None and decisions.same_heads(before.section, section):
            return replace(section, snapshot=before.section.snapshot)
        return section


@dataclass(frozen=True, slots=True)
class _Choice:
    """The heads with all that follows from them; `keeps` when they grew out of those before.

    With `is_move` a rival won. `rival` is who may be better, `waits` says so in words, and at `recheck` it is time to
    look at it again.
    """

    placement: Placement
    keeps: bool = False
    is_move: bool = False
    rival: Rival | None = None
    waits: str = ""
    recheck: float = math.inf


def missing_mbit(spec: ServiceSpec, nodes: Iterable[str], reports: Mapping[str, NodeReport]) -> float:
    """What has to be moved so that these nodes hold the image, by what they say they hold."""
    blobs = (spec.manifest, *spec.blobs)
    return sum(_mbit(blob.size) for node in nodes for blob in blobs if blob.sha256 not in reports[node].blobs)


def _mbit(size_bytes: int) -> float:
    return 8e-6 * size_bytes


def _waits(rival: Rival, case: Case, held: Sequence[str], looks: int, apart_s: float) -> str:
    has, would = case.of(held), case.of(rival.heads)
    more = f"{would / has - 1:+.0%}" if has > 0 else f"{would:.1f} Mbit/s in all"
    return (
        f"{', '.join(rival.heads)} may be better ({more}): so at {rival.rounds} of {looks} looks, "
        f"{apart_s / 60:.0f} min apart"
    )


def _near(spec: ServiceSpec, others: Sequence[Neighbour]) -> dict[str, float]:
    """How much traffic it exchanges with other services, whichever of the two says so."""
    near = dict(spec.constraints.near)
    for other in others:
        if weight := max(near.get(other.spec.name, 0.0), other.spec.constraints.near.get(spec.name, 0.0)):
            near[other.spec.name] = weight
    return near


def _notes(placement: Placement, best: Placement, wanted: Wanted, view: View, problem: str) -> dict[str, Any]:
    """What is known of a decision and does not travel."""
    lost = {node: f"lost: not heard for {seconds:.0f} s" for node, seconds in view.lost.items()}
    if not problem and len(placement.heads) < wanted.spec.replicas:
        problem = f"{len(placement.heads)} of {wanted.spec.replicas} replicas: no other node may run it"
    runners_up = {h.node: [h.runner_up, round(h.runner_up_mbps, 3)] for h in placement.heads if h.runner_up_mbps}
    notes = {
        "refused": best.refused | lost,
        "unreached": list(placement.unreached),
        "violations": placement.violations,
        "mean_bandwidth_mbps": round(placement.mean_bandwidth_mbps, 3),
        "mean_of_cluster_means_mbps": round(placement.mean_of_cluster_means_mbps, 3),
        "objective_mbps": round(placement.objective_mbps, 3),
        "bound_mbps": None if placement.bound_mbps is None else round(placement.bound_mbps, 3),
        "gap": placement.gap,
        "proven": placement.proven,
        "method": best.method,
        "metric": placement.metric,
        # The figures of now are no reason for a new head.
        "bandwidth_mbps": {head.node: round(head.bandwidth_mbps, 3) for head in placement.heads},
        "reasons": {head.node: head.reason for head in best.heads},
        "runners_up": runners_up,
    }
    return notes | ({"problem": problem} if problem else {})
