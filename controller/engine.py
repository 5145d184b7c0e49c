"""The decision engine: from what is to run and what the network is like to a signed head. Its calls block."""

from __future__ import annotations

import json
import logging
import math
import time
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Protocol

from controller import decisions
from controller.authority import Authority
from controller.decisions import Wanted
from controller.errors import ControllerError
from controller.history import History
from controller.monitoring.network import View
from controller.obstacles import Trouble, troubles
from controller.planner import Decided, Neighbour, Outcome, Planner
from controller.replan import Rules
from controller.store import Decision, Store
from gateway.protocol import codec, keys
from gateway.protocol.errors import MessageError, ProtocolError
from gateway.protocol.messages import BlobRef, Head, Section, ServiceSpec

if TYPE_CHECKING:
    from controller.scene import Scene

__all__ = ["Engine", "View"]

log = logging.getLogger(__name__)
Place = tuple[str, str]  # a service and its zone
# Links of a large network change all the time: looking at what that changes takes at most this share of the time.
LOOKING_SHARE = 0.05


class Blobs(Protocol):
    """Where the sections of a decision are put, to be fetched as any blob."""

    def add_bytes(self, content: bytes) -> BlobRef: ...
    def has(self, sha256: bytes) -> bool: ...
    def remove(self, sha256: bytes) -> None: ...


class Engine:
    """Decides and signs; keeps the links and nodes of its last decision to tell whether a new look is worth it."""

    def __init__(
        self,
        authority: Authority,
        store: Store,
        blobs: Blobs,
        origin: str,
        zone: str,
        lifetime_s: float,
        rules: Rules | None = None,
    ) -> None:
        self._authority, self._store, self._blobs = authority, store, blobs
        self.origin, self.zone, self.lifetime_s = origin, zone, lifetime_s
        self.rules = rules or Rules()
        self.history = History(store)
        self._links: dict[tuple[str, str], float] = {}
        self._nodes: frozenset[str] = frozenset()
        self._troubles: frozenset[Trouble] = frozenset()
        # What was said last of each thing that is wrong, so that a lasting problem is said once.
        self._said: dict[str, str] = {}
        # When a placement that may be better is to be looked at again.
        self._recheck = math.inf
        # When placements were computed, and for how long after that changed links are no reason to look.
        self._looked, self._rest_s = 0.0, 0.0

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
        if new_troubles := troubles(view) - self._troubles:
            node, service, _, state = min(new_troubles)
            return f"{node} {'refuses' if state == 'refused' else 'is in a crash-loop with'} {service}"
        if moment >= self._recheck:
            return "a better placement is looked at again"
        if 0 <= moment - self._looked < self._rest_s:
            return ""
        if changed := decisions.changed_links(self._links, self._scene(view, moment).links()):
            return f"{len(changed)} links changed, {changed[0][0]} -> {changed[0][1]} among them"
        return ""

    def decide(self, view: View, why: str, now: float | None = None) -> Head | None:
        """Places every active service and signs a new head if that changed anything; None when all stays as it is.

        Services are placed one after the other: each sees what the others take, and where they are.
        `now` is Unix time. Raises ControllerError when the head cannot be signed or stored; the last one stays then.
        """
        moment, started = time.time() if now is None else now, time.monotonic()
        previous = {(row.service, row.zone): row for row in self._store.decisions()}
        before = {place: _read(row) for place, row in previous.items()}
        scene = self._scene(view, moment)
        planner = Planner(self.origin, self.rules, view, scene, moment)
        services = {(wanted.spec.name, wanted.zone): wanted for wanted in self._wanted()}
        sections: dict[Place, Section | None] = {place: d.section for place, d in before.items() if place in services}
        outcomes: dict[Place, Outcome] = {}
        for place, wanted in services.items():
            others = [_neighbour(services[at], section) for at, section in sections.items() if at != place]
            outcomes[place] = planner.decide(wanted, before.get(place), others)
            sections[place] = outcomes[place].section
        self._links, self._nodes, self._troubles = scene.links(), frozenset(view.reports), troubles(view)
        self._looked, self._rest_s = moment, (time.monotonic() - started) / LOOKING_SHARE
        self._recheck = min((outcome.recheck for outcome in outcomes.values()), default=math.inf)
        return self._publish(outcomes, previous, before, why, moment)

    def renew(self, now: float | None = None) -> Head | None:
        """Signs the same decisions anew when half of the head's lifetime is over; None when it is not."""
        moment = time.time() if now is None else now
        head = self.current()
        if head is None or moment < (head.issued + head.expires) / 2:
            return None
        kept = self._store.decisions()
        return self._sign([(codec.decode(Section, d.section), d) for d in kept], "renewed", moment)

    def _scene(self, view: View, moment: float) -> Scene:
        from controller.scene import Scene

        return Scene(view, self.history.low_rates(moment), self.history.availability(moment))

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

    # --- the head ----------------------------------------------------------------------------------------------

    def _publish(
        self,
        outcomes: dict[Place, Outcome],
        previous: dict[Place, Decision],
        before: dict[Place, Decided],
        why: str,
        now: float,
    ) -> Head | None:
        rows = []
        changed = previous.keys() != {place for place, outcome in outcomes.items() if outcome.section is not None}
        for place, outcome in outcomes.items():
            self._say_where(place, outcome)
            if outcome.section is None:
                continue
            section, notes, known = outcome.section, json.dumps(outcome.notes), before.get(place)
            if known is not None and decisions.same_decision(known.section, section):
                rows.append((known.section, replace(previous[place], notes=notes)))
                continue
            changed = True
            since = known.since if known is not None and decisions.same_heads(known.section, section) else now
            rows.append((section, Decision(*place, codec.encode(section), notes, since)))
        self._store.set_meta(
            "unplaced", json.dumps({f"{s}": o.notes for (s, _), o in outcomes.items() if not o.section})
        )
        head = self.current()
        changed = changed or head is None or self._authority.epoch() > head.epoch
        if not changed and head is not None and head.revocations == self._store.revocations():
            self._store.update_notes([decision for _, decision in rows])
            return None
        return self._sign(rows, why, now)

    def _say_where(self, place: Place, outcome: Outcome) -> None:
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


def _read(row: Decision) -> Decided:
    try:
        notes: dict[str, Any] = dict(json.loads(row.notes))
        return Decided(codec.decode(Section, row.section), notes, row.decided)
    except (MessageError, ValueError) as error:
        raise ControllerError(f"the stored decision on {row.service} cannot be read: {error}") from error


def _neighbour(wanted: Wanted, section: Section | None) -> Neighbour:
    return Neighbour(wanted.spec, tuple(head.node for head in section.heads) if section is not None else ())
