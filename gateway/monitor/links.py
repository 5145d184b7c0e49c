"""Neighbours and links: one contact a face (who is there, how far, how reliably), one link a neighbour and interface.

Two faces to one neighbour over one interface (each end dialled the other) are one link: one bandwidth, one probe.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from random import Random

from gateway.monitor import hello as hellos
from gateway.monitor.contact import Contact, FaceSample
from gateway.monitor.linklayer import LinkLayer, host_of
from gateway.monitor.rates import BITRATE_SHARE, NL80211, PEER, PROBE, RX, TX, Estimate, GoodputMeter, RateBook
from gateway.monitor.schedule import HURRY_PAUSE_S, Demand, HelloSchedule, ProbeSchedule, Situation
from gateway.monitor.train import ProbeResult
from gateway.protocol.messages import Bandwidth, Heard, Hello, LinkReport

__all__ = ["FaceSample", "Link", "LinkRow", "LinkTable"]

# A round trip measured while so much is outstanding is that of our own queue.
IDLE_OUTSTANDING = 1
SLOW_SHARE = 0.05
SLOW_MBPS_UNKNOWN = 0.1
# A face that carries so much, or such a share of what it can, carries bulk; between two blobs it rests for seconds.
BULK_MBPS, BULK_SHARE = 0.5, 0.25
BULK_PAUSE_S = 5.0
# Links whose last face is gone are remembered for so long: a face that comes back need not be measured again.
FORGET_S = 6 * 3600.0
MAX_LINKS = 1024
FIRST_HELLOS, ACQUAINTANCE_PAUSE_S = 4, 1.0
# So often a change of routes goes on to the next gateway.
NEWS_PAUSE_S = 1.0
# A neighbour's probe of us is over when it has asked for nothing for so long.
SERVED_PAUSE_S = 0.4


@dataclass(frozen=True, slots=True)
class LinkRow:
    """A face for people: what `picasso-gateway links` prints. `state` is `up`, `down` or `silent` (no hello yet)."""

    face: int
    neighbor: str
    node: str
    uri: str
    interface: str
    medium: str
    state: str
    rx: Bandwidth | None
    tx: Bandwidth | None
    rtt_ms: float | None
    loss: float | None
    reason: str


LinkKey = tuple[str, str]


@dataclass(slots=True)
class Link:
    """A neighbour over one interface: its bandwidth figures and when to probe them."""

    node: str
    place: str
    probes: ProbeSchedule
    book: RateBook = field(default_factory=RateBook)
    signal_dbm: int | None = None
    used_at: float = 0.0


class LinkTable:
    """All contacts and links of this node. Nothing here does I/O; `now` is monotonic time in s."""

    def __init__(self, node: str, random: Random) -> None:
        self._node, self._random = node, random
        self.contacts: dict[int, Contact] = {}
        self.links: dict[LinkKey, Link] = {}
        self.layer = LinkLayer()
        self._held_until = 0.0
        self._served_at = float("-inf")
        self._probing: int | None = None
        self._bulk_at = float("-inf")

    # --- faces

    def update(self, now: float, samples: Iterable[FaceSample]) -> None:
        """Takes the faces as they are; a new one is greeted at once, a vanished one is dropped."""
        present = {s.id: s for s in samples if not s.local}
        for gone in self.contacts.keys() - present.keys():
            del self.contacts[gone]
        for face_id, face in present.items():
            contact = self.contacts.get(face_id)
            if contact is None:
                contact = self.contacts[face_id] = Contact(face, HelloSchedule(now, self._random))
            elif face.up and not contact.face.up:
                contact.schedule = HelloSchedule(now, self._random)
                contact.met_at = now
            contact.on_sample(now, face)
            self._measure(now, contact)
            if self._is_bulk(now, contact):
                self._bulk_at = now
        self._forget_old(now)

    def _measure(self, now: float, contact: Contact) -> None:
        """Passive goodput; our own probe's packets are judged by the probe."""
        if self._probing == contact.face.id:
            return
        rtt_s = None if contact.base_rtt_ms is None else contact.base_rtt_ms / 1000
        goodput = contact.meter.on_sample(now, contact.face.in_data_bytes, contact.face.outstanding, rtt_s)
        if goodput is not None and contact.node:
            self._link(now, contact).book.record_goodput(now, goodput.mbps, goodput.span_s)

    def _is_bulk(self, now: float, contact: Contact) -> bool:
        """Whether a face carries blobs, whoever asked for them."""
        link = self.links.get(self._key(contact)) if contact.node else None
        known = link.book.measured(RX, now) if link is not None else None
        limit = BULK_MBPS if known is None else min(BULK_MBPS, BULK_SHARE * known.mbps)
        return self._probing != contact.face.id and contact.carries(now, limit)

    @property
    def is_busy(self) -> bool:
        """Whether some face carries bulk, so that it should be looked at often."""
        return any(c.meter.is_running for c in self.contacts.values())

    def on_layer(self, now: float, layer: LinkLayer) -> None:
        """Takes the kernel's tables; a radio's own figures are taken where the neighbour is its direct peer."""
        self.layer = layer
        for contact in self.contacts.values():
            station = layer.station_of(contact.face.uri) if contact.node else None
            if station is None:
                continue
            link = self._link(now, contact)
            link.signal_dbm = station.signal_dbm
            if station.rx_bitrate_mbps:
                link.book.record(Estimate(station.rx_bitrate_mbps * BITRATE_SHARE, RX, NL80211, now, 0.2))
            if station.expected_mbps:
                link.book.record(Estimate(station.expected_mbps, TX, NL80211, now, 0.3))
            elif station.tx_bitrate_mbps:
                link.book.record(Estimate(station.tx_bitrate_mbps * BITRATE_SHARE, TX, NL80211, now, 0.2))

    # --- hellos

    def due_hellos(self, now: float) -> list[int]:
        """The faces on which to say hello now; each is asked for once until its outcome is told."""
        due = [i for i, c in self.contacts.items() if c.face.up and c.schedule.next_at <= now]
        for face_id in due:
            self.contacts[face_id].schedule.sent()
        return due

    def on_hello(self, now: float, face_id: int, hello: Hello, rtt_s: float) -> bool:
        """Takes an accepted hello; False when it is older than what the neighbour said before (a replay)."""
        contact = self.contacts.get(face_id)
        if contact is None:
            return False
        was_up = contact.state == "up"
        if (hello.node, hello.boot_id) != (contact.node, contact.boot_id):
            contact.forget_neighbor()
            was_up = False
        elif hello.sequence < contact.sequence:
            return False
        order = (hello.epoch, hello.version)
        is_news = (hello.node, hello.boot_id, order) != (contact.node, contact.boot_id, contact.order)
        contact.node, contact.boot_id = hello.node, hello.boot_id
        contact.sequence, contact.order = hello.sequence, order
        contact.outcomes.append(True)
        contact.reason, contact.heard_at = "", now
        if not was_up:
            contact.met_at = now
        if contact.face.outstanding <= IDLE_OUTSTANDING and self._probing != face_id:
            contact.on_rtt(rtt_s * 1000)
        link = self._link(now, contact)
        self._take_heard(now, contact, link, hello)
        is_settled = not is_news and contact.is_mutual and link.book.is_fresh(RX, now) and link.book.is_fresh(TX, now)
        contact.schedule.succeeded(now, is_settled)
        self._hurry_acquaintance(now, contact)
        return True

    def _take_heard(self, now: float, contact: Contact, link: Link, hello: Hello) -> None:
        contact.heard_of_us = hellos.heard_of(self._node, hello.heard)
        told = contact.heard_of_us.rx if contact.heard_of_us is not None else None
        if told is not None:
            link.book.record(Estimate(told.mbps, TX, PEER, now - told.age_s, told.confidence))

    def on_hello_failed(self, now: float, face_id: int, reason: str, sent_at: float = float("inf")) -> bool:
        """Counts a hello without an acceptable answer; True when the face has just gone down by it.

        One that was sent before the neighbour was last heard says nothing: a later one has been answered.
        """
        contact = self.contacts.get(face_id)
        if contact is None or contact.heard_at > sent_at:
            return False
        was_up = contact.state == "up"
        if contact.node:  # before its first answer nobody knows whether anybody is there to lose a hello
            contact.outcomes.append(False)
        contact.reason = reason
        contact.schedule.failed(now)
        return was_up and contact.state == "down"

    def on_asked(self, now: float, face_id: int | None, has_news: bool = False) -> None:
        """A neighbour said hello to us: whoever we do not hear may be back, and one that has news is asked for them."""
        for contact in self._one_or_all(face_id):
            if contact.face.up and (has_news or contact.state != "up"):
                contact.schedule.hurry(now, NEWS_PAUSE_S if has_news else HURRY_PAUSE_S)
            self._hurry_acquaintance(now, contact)

    @staticmethod
    def _hurry_acquaintance(now: float, contact: Contact) -> None:
        """Two that have just met ask once more, so that each knows that the other hears it; not for ever, though."""
        if contact.state == "up" and not contact.is_mutual and len(contact.outcomes) <= FIRST_HELLOS:
            contact.schedule.hurry(now, ACQUAINTANCE_PAUSE_S)

    def tell_news(self, now: float) -> None:
        """What this node says of others has changed: every neighbour is to ask for it."""
        for contact in self.contacts.values():
            contact.has_news = True
            contact.schedule.hurry(now, NEWS_PAUSE_S)

    def on_face_up(self, now: float, face_id: int) -> None:
        """A face has a new connection: a hello that went over the one before is lost, so say it again now."""
        if (contact := self.contacts.get(face_id)) is not None:
            contact.schedule.at_once(now)

    def on_link_event(self, now: float) -> None:
        """A device or an address has changed: every neighbour is greeted at once, since one may just have come."""
        for contact in self.contacts.values():
            contact.schedule.at_once(now)

    def hears(self, face_id: int, node: str) -> bool:
        """Whether this node was the one heard on a face."""
        contact = self.contacts.get(face_id)
        return contact is not None and contact.node == node and contact.state == "up"

    def heard(self, now: float) -> tuple[Heard, ...]:
        """The neighbours this node hears, for its own hello: the best of the faces to each."""
        nodes = {c.node for c in self.contacts.values() if c.node and c.outcomes}
        return tuple(self._heard(now, node) for node in sorted(nodes))

    def _heard(self, now: float, node: str) -> Heard:
        received = max(sum(c.outcomes) for c in self.contacts.values() if c.node == node)
        measured = [m for link in self.links.values() if link.node == node and (m := link.book.measured(RX, now))]
        best = max(measured, key=lambda m: m.mbps, default=None)
        return Heard(node, received, best.seen_at(now) if best is not None else None)

    # --- probes

    def due_probe(self, now: float, demand: Callable[[], Demand]) -> tuple[int, str] | None:
        """The face to probe now and the node behind it; one at a time, the result must be told by on_probe.

        `demand` tells what the links are needed for.
        """
        if self._probing is not None:
            return None
        for contact, link in self._primaries(now):
            if link.probes.is_due(now, self._situation(now, link), demand):
                self._probing = contact.face.id
                contact.meter = GoodputMeter()
                return contact.face.id, contact.node
        return None

    def _situation(self, now: float, link: Link) -> Situation:
        contacts = self._contacts_of(link)
        return Situation(
            met_at=min(c.met_at for c in contacts if c.state == "up"),
            is_unknown=link.book.measured(RX, now) is None,
            is_stale=not link.book.is_fresh(RX, now),
            is_doubtful=link.book.doubtful,
            is_held=now < self._held_until,
            is_slow=self._is_slow(now, link),
            is_bulk=now - self._bulk_at < BULK_PAUSE_S,
            outstanding=sum(c.face.outstanding for c in contacts),
        )

    def on_probe(self, now: float, face_id: int, result: ProbeResult) -> None:
        """Takes a probe's outcome; a failure is kept as its reason and tried again later."""
        self._probing = None
        contact = self.contacts.get(face_id)
        if contact is None or not contact.node:
            return
        contact.probed_at = now
        link = self._link(now, contact)
        if result.mbps is None:
            link.probes.failed(now, result.duration_s, result.reason)
            return
        link.book.record(Estimate(result.mbps, RX, PROBE, now, result.confidence))
        link.probes.succeeded(now, result.duration_s)

    def on_served(self, now: float, face_id: int | None) -> None:
        """A neighbour probes us: ours waits until it is done, and soon it can tell what it found."""
        if now - self._served_at > SERVED_PAUSE_S:
            self._held_until = now + self._random.uniform(0.5, 2.0)
        self._served_at = now
        for contact in self._one_or_all(face_id):
            contact.probed_at = now
        self._held_until = max(self._held_until, now + SERVED_PAUSE_S)

    def ask_results(self, now: float) -> None:
        """Once a neighbour's probe of us is over: ask those who have not told yet how well they hear us."""
        if self._served_at == float("-inf") or now - self._served_at < SERVED_PAUSE_S:
            return
        self._served_at = float("-inf")
        for contact in self.contacts.values():
            if contact.state == "up" and not self._link(now, contact).book.is_fresh(TX, now):
                contact.schedule.hurry(now)

    def _is_slow(self, now: float, link: Link) -> bool:
        """Whether the link carries less than a twentieth of what it can."""
        known = link.book.measured(RX, now)
        limit = SLOW_MBPS_UNKNOWN if known is None else SLOW_SHARE * known.mbps
        return sum(c.last_second_mbps for c in self._contacts_of(link)) < limit

    # --- what is reported

    def next_deadline(self, now: float) -> float:
        """When the next hello is due, or a link may be probed."""
        hello_times = [c.schedule.next_at for c in self.contacts.values() if c.face.up]
        return min([*hello_times, now + 60.0])

    def reports(self, now: float) -> tuple[LinkReport, ...]:
        """One row for each link whose neighbour is known."""
        return tuple(self._report(now, contact, link) for contact, link in self._primaries(now, only_up=False))

    def _report(self, now: float, contact: Contact, link: Link) -> LinkReport:
        interface = self.layer.interface_of(contact.face.local_uri)
        medium = interface.medium if interface else contact.face.medium
        ceiling = interface.speed_mbps if interface else None
        members = self._contacts_of(link)
        return LinkReport(
            node=contact.node,
            neighbor=contact.face.neighbor,
            interface=interface.name if interface else "",
            medium=medium,
            state=contact.state,
            rx=link.book.best(RX, now, medium, ceiling),
            tx=link.book.best(TX, now, medium, ceiling),
            rtt_ms=_rounded(contact.rtt_ms),
            loss=contact.loss,
            signal_dbm=link.signal_dbm,
            rx_bytes=sum(c.face.in_bytes for c in members),
            tx_bytes=sum(c.face.out_bytes for c in members),
            rate_rx_mbps=_rounded(sum(c.rate_rx_mbps for c in members)),
            rate_tx_mbps=_rounded(sum(c.rate_tx_mbps for c in members)),
        )

    def rows(self, now: float) -> tuple[LinkRow, ...]:
        """One row for each face, also for those where nobody answers."""
        return tuple(self._row(now, contact) for _, contact in sorted(self.contacts.items()))

    def _row(self, now: float, contact: Contact) -> LinkRow:
        face = contact.face
        link = self.links.get(self._key(contact)) if contact.node else None
        report = self._report(now, contact, link) if link is not None else None
        reason = contact.reason or (link.probes.last_failure if link is not None else "")
        interface = self.layer.interface_of(face.local_uri)
        return LinkRow(
            face=face.id,
            neighbor=face.neighbor,
            node=contact.node,
            uri=face.uri,
            interface=interface.name if interface else "",
            medium=interface.medium if interface else face.medium,
            state=contact.state,
            rx=report.rx if report else None,
            tx=report.tx if report else None,
            rtt_ms=_rounded(contact.rtt_ms),
            loss=contact.loss,
            reason=reason,
        )

    # --- links and their faces

    def _key(self, contact: Contact) -> LinkKey:
        interface = self.layer.interface_of(contact.face.local_uri)
        return contact.node, interface.name if interface else host_of(contact.face.local_uri)[0]

    def _link(self, now: float, contact: Contact) -> Link:
        key = self._key(contact)
        link = self.links.get(key)
        if link is None:
            schedule = ProbeSchedule(now, self._random, goes_first=self._node < contact.node)
            link = self.links[key] = Link(*key, schedule)
        link.used_at = now
        return link

    def _contacts_of(self, link: Link) -> list[Contact]:
        key = (link.node, link.place)
        return [c for c in self.contacts.values() if c.node and self._key(c) == key]

    def _primaries(self, now: float, only_up: bool = True) -> list[tuple[Contact, Link]]:
        """For each link the face that stands for it: one that is up, configured before accepted, the oldest."""
        best: dict[LinkKey, Contact] = {}
        for contact in sorted(self.contacts.values(), key=_preference):
            if contact.node and (contact.state == "up" or not only_up):
                best.setdefault(self._key(contact), contact)
        return [(contact, self._link(now, contact)) for contact in best.values()]

    def _one_or_all(self, face_id: int | None) -> Sequence[Contact]:
        if face_id is None:
            return list(self.contacts.values())
        contact = self.contacts.get(face_id)
        return [] if contact is None else [contact]

    def _forget_old(self, now: float) -> None:
        """Links without a face expire; and a neighbour that changes its name cannot fill the memory."""
        in_use = {self._key(c) for c in self.contacts.values() if c.node}
        unused = sorted((link.used_at, key) for key, link in self.links.items() if key not in in_use)
        surplus = max(0, len(self.links) - MAX_LINKS)
        for position, (used_at, key) in enumerate(unused):
            if position < surplus or now - used_at > FORGET_S:
                del self.links[key]


def _preference(contact: Contact) -> tuple[bool, bool, int]:
    return contact.state != "up", not contact.face.neighbor, contact.face.id


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 3)
