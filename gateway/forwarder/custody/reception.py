"""What others tell of wants: verified, counted against what a face may cost, and handed to the table."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from gateway.forwarder.custody import packets
from gateway.forwarder.custody.plan import Contact
from gateway.forwarder.custody.wants import Answer, Offered, Wants
from gateway.protocol import keys, names
from gateway.protocol.errors import ProtocolError, UnknownKey
from gateway.protocol.keys import Packet
from gateway.protocol.messages import BlobRef, CarriedWant, Want, WantAnswer, WantOffer, WantRefusal
from gateway.protocol.names import Name

log = logging.getLogger(__name__)

# Signatures that one face may have checked: about 1.5 ms each on a PC, 15 on a small router.
CHECKS_BURST, CHECKS_PER_S = 64, 8.0
FACES_MAX = 256
BUSY = "busy: too many signatures to check; come again"
REASON_MAX = 300


class _Unreadable(Exception):
    """Whose want it is can't be told; `is_passing` where it may be in a moment."""

    def __init__(self, reason: str, is_passing: bool) -> None:
        super().__init__(reason[:REASON_MAX])
        self.is_passing = is_passing


class Trust(Protocol):
    """How this node signs, and what of other nodes it believes; raises ProtocolError, UnknownKey among them."""

    def sign(self, name: Name, content: bytes, freshness_ms: int | None = None) -> bytes: ...
    def verify(self, wire: bytes) -> Packet: ...
    def certificate(self, key_name: Name) -> bytes | None: ...
    def add_certificate(self, wire: bytes) -> None: ...


class Here(Protocol):
    """The blobs on this node's disk."""

    def is_here(self, sha256: bytes) -> bool: ...
    def ref(self, sha256: bytes) -> BlobRef | None: ...


@dataclass(slots=True)
class _Checks:
    """What is left to a face of signatures to have checked."""

    left: float
    at: float


class Reception:
    """Judges offers. `now` and `now_unix` are the table's time and Unix time.

    `on_stale_own(offered)` is told of a want of this node that others keep and that it does not know any more.
    """

    def __init__(
        self,
        wants: Wants,
        network: names.Network,
        trust: Trust,
        here: Here,
        *,
        now: Callable[[], float],
        now_unix: Callable[[], float],
        on_withdrawn: Callable[[bytes], None],
        on_stale_own: Callable[[Offered], None],
    ) -> None:
        self._wants, self._network, self._trust, self._here = wants, network, trust, here
        self._now, self._now_unix = now, now_unix
        self._on_withdrawn, self._on_stale_own = on_withdrawn, on_stale_own
        self._checks: dict[int | None, _Checks] = {}
        self.not_believed = 0

    def take(self, offer: WantOffer, contact: Contact | None, face_id: int | None) -> WantAnswer:
        """Takes what may be taken of an offer, and says what was not and why, and what of it is here already."""
        certificates = _by_key(offer.certificates)
        came_from = contact.node if contact is not None else ""
        refusals: list[WantRefusal] = []
        held: list[bytes] = []
        for index, each in enumerate(offer.wants):
            try:
                offered = self._read(each, certificates, came_from, face_id)
            except _Unreadable as error:
                refusals.append(WantRefusal(index, str(error), error.is_passing))
                continue
            answer, want = self._judge(offered), offered.want
            if answer.is_refusal:
                refusals.append(WantRefusal(index, answer.value))
            if want.withdrawn:
                if answer is Answer.TAKEN:
                    self._on_withdrawn(want.blob.sha256)
            elif self._here.is_here(want.blob.sha256) and len(held) < packets.HELD_MAX:
                held.append(want.blob.sha256)
        return WantAnswer(tuple(refusals), tuple(held))

    def _read(self, each: CarriedWant, certificates: dict[Name, bytes], came_from: str, face_id: int | None) -> Offered:
        """A want of which it is certain who wants it; raises _Unreadable."""
        known = self._wants.of_packet(each.packet)
        if known is not None:
            return packets.offered(each, known.want, known.version, known.certificate, came_from)
        if not self._may_check(face_id):
            raise _Unreadable(BUSY, is_passing=True)
        try:
            want, version, certificate = self._verify(each.packet, certificates)
        except UnknownKey as error:
            raise _Unreadable(f"not known yet: {error}", is_passing=True) from error
        except ProtocolError as error:
            self.not_believed += 1
            log.debug("a want from face %s is not believed: %s", face_id, error)
            raise _Unreadable(f"not believed: {error}", is_passing=False) from error
        return packets.offered(each, want, version, certificate, came_from)

    def _judge(self, offered: Offered) -> Answer:
        want = offered.want
        if (self._here.ref(want.blob.sha256) or want.blob) != want.blob:
            return Answer.IMPOSSIBLE
        answer = self._wants.offer(self._now(), self._now_unix(), offered)
        is_known = self._wants.get(want.wanter, want.blob.sha256) is not None
        if answer is Answer.OWN and not want.withdrawn and not is_known and offered.left_s > 0:
            self._on_stale_own(offered)
        return answer

    def _verify(self, wire: bytes, certificates: dict[Name, bytes]) -> tuple[Want, int, bytes]:
        try:
            packet = self._trust.verify(wire)
        except UnknownKey as error:
            if error.key_name not in certificates:
                raise
            self._trust.add_certificate(certificates[error.key_name])
            packet = self._trust.verify(wire)
        want, version = packets.read(self._network, packet)
        certificate = self._trust.certificate(keys.key_name_of(packet.key_name)) if packet.key_name else None
        return want, version, certificate or b""

    def _may_check(self, face_id: int | None) -> bool:
        now = self._now()
        checks = self._checks.pop(face_id, None) or _Checks(CHECKS_BURST, now)
        checks.left = min(CHECKS_BURST, checks.left + (now - checks.at) * CHECKS_PER_S)
        checks.at = now
        self._checks[face_id] = checks  # last used last
        if len(self._checks) > FACES_MAX:
            del self._checks[next(iter(self._checks))]
        if checks.left < 1:
            return False
        checks.left -= 1
        return True


def _by_key(certificates: Sequence[bytes]) -> dict[Name, bytes]:
    """The certificates of an offer by the names of their keys; what is none is left out."""
    found = {}
    for wire in certificates:
        with contextlib.suppress(ProtocolError, ValueError):
            found[keys.key_name_of(keys.parse(wire).name)] = wire
    return found
