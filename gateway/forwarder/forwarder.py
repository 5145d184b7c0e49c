"""The forwarding pipelines, pure: packets come in through `receive`, leave through faces, and `now` is an argument.

The pipelines bear the names of the NFD developer's guide. A content store in memory and a store of blobs on disk answer
first; what they can't answer is aggregated in the PIT and sent along the FIB, for the holder's node name where the
Interest bears a ForwardingHint.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

from gateway.forwarder import packet
from gateway.forwarder.content_store import ContentStore
from gateway.forwarder.faces.base import Face
from gateway.forwarder.fast_lane import FastLane
from gateway.forwarder.fib import Fib, NextHop
from gateway.forwarder.packet import MAX_PACKET_BYTES, Data, DecodeError, Interest, LinkPacket
from gateway.forwarder.pit import (
    DEAD_NONCE_LIFETIME_S,
    MAX_LIFETIME_MS,
    PIT_SHARE_OF_FACE,
    DeadNonceList,
    InRecord,
    OutRecord,
    Pit,
    PitEntry,
)
from gateway.forwarder.strategies.adaptive import Adaptive
from gateway.forwarder.strategies.base import Strategy, combined_reason, unused_hop
from gateway.forwarder.strategies.best_route import BestRoute
from gateway.forwarder.strategies.multicast import Multicast
from gateway.forwarder.strategy_choice import ADAPTIVE, BEST_ROUTE, MULTICAST, StrategyChoice
from gateway.protocol import names
from gateway.protocol.names import Name

LOCALHOST = names.parse("/localhost")
LOCALHOP = names.parse("/localhop")


class PacketSource(Protocol):
    """A store of immutable packets behind the content store (gateway.forwarder.blobs.BlobStore)."""

    def find(self, name: Name, can_be_prefix: bool = False, digest: bytes | None = None) -> bytes | None: ...
    def is_arriving(self, name: Name, now: float) -> bool: ...


@dataclass(slots=True)
class Counters:
    """What the forwarder did since it started; `blob_*` count Interests for blob packets only."""

    in_interests: int = 0
    in_data: int = 0
    in_nacks: int = 0
    hits: int = 0
    misses: int = 0
    blob_hits: int = 0
    blob_misses: int = 0
    satisfied: int = 0
    unsatisfied: int = 0
    unsolicited: int = 0
    loops: int = 0
    no_route: int = 0
    pit_full: int = 0
    scope_violations: int = 0
    undecodable: int = 0


class Forwarder:
    """`region` are this node's own names: a ForwardingHint that names one has arrived.

    `blobs` is the network's blob prefix, for the counters.
    """

    def __init__(
        self,
        content_store: ContentStore,
        disk: PacketSource | None = None,
        region: Sequence[Name] = (),
        blobs: Name = b"",
    ) -> None:
        self.fib, self.pit, self.content_store = Fib(), Pit(), content_store
        self.strategies = StrategyChoice()
        self._strategies: dict[str, Strategy] = {
            BEST_ROUTE: BestRoute(),
            MULTICAST: Multicast(),
            ADAPTIVE: Adaptive(self.fib.longest_prefix),
        }
        self.dead_nonces = DeadNonceList()
        self.disk, self.region, self.blobs = disk, tuple(region), blobs
        self.faces: dict[int, Face] = {}
        self.counters = Counters()
        self.on_face_removed: Callable[[Face], None] = lambda face: None
        self._last_face_id = 255  # as in NFD: the small numbers are reserved
        self.fast_lane = FastLane(self)

    # --- faces and timers

    def add_face(self, face: Face) -> int:
        self._last_face_id += 1
        face.id = self._last_face_id
        self.faces[face.id] = face
        return face.id

    def remove_face(self, face: Face) -> None:
        """Forgets a face and its routes; who waits behind it no longer does."""
        self.fib.remove_face(face.id)
        self.faces.pop(face.id, None)
        face.close()
        self.on_face_removed(face)

    def next_deadline(self) -> float | None:
        return self.pit.next_deadline()

    def on_timer(self, now: float) -> None:
        for entry in self.pit.pop_expired(now):
            self._expire(entry, now)

    def on_face_down(self, face: Face, now: float) -> None:
        """What was asked of a face that just went down is asked elsewhere at once, as if it had sent Nacks."""
        for entry in self.pit:
            record = entry.out_record(face)
            if record is not None and record.nack_reason is None:
                record.nack_reason = packet.NACK_NO_ROUTE
                self._try_next(entry, face, now)

    # --- packets

    def receive(self, face: Face, wire: bytes, now: float) -> None:
        """One link packet from a face; a bad one is counted and dropped."""
        if _is_one_packet(wire):
            self.receive_stream(face, wire, now)
        else:
            self._receive_slowly(face, wire, now)

    def receive_batch(self, face: Face, wires: Sequence[bytes], now: float) -> None:
        """Link packets that came together, one in each datagram; what they cause leaves together."""
        if all(map(_is_one_packet, wires)):
            self.receive_stream(face, b"".join(wires), now)
        else:
            for wire in wires:
                self.receive(face, wire, now)

    def receive_stream(self, face: Face, chunk: bytes, now: float) -> int:
        """The whole packets at the start of what came from a stream; how many bytes they are.

        Raises DecodeError when the stream can't be followed any more.
        """
        at = 0
        try:
            while True:
                at = self.fast_lane.receive(face, chunk, at, now)
                end = packet.packet_end(chunk, at)
                if end is None:
                    return at
                self._receive_slowly(face, chunk[at:end], now)
                at = end
        finally:
            self.fast_lane.flush()

    def _receive_slowly(self, face: Face, wire: bytes, now: float) -> None:
        """The pipelines for any packet at all."""
        face.counters.in_bytes += len(wire)
        try:
            link = packet.decode_link(wire)
            if not link.fragment:
                return
            if link.fragment[0] == packet.DATA:
                self.on_incoming_data(face, packet.decode_data(link.fragment), link, now)
                return
            interest = packet.decode_interest(link.fragment)
        except DecodeError:
            face.counters.undecodable += 1
            self.counters.undecodable += 1
            return
        if link.nack_reason is not None:
            self.on_incoming_nack(face, interest, link.nack_reason, now)
        else:
            self.on_incoming_interest(face, interest, link, now)

    @property
    def routing_version(self) -> int:
        """Another number after every change to what the routes of a prefix are."""
        return self.fib.version + self.strategies.version

    def has_best_route(self, prefix: Name) -> bool:
        """Whether all names below the prefix go by the best-route strategy."""
        return self.strategies.find(prefix) == BEST_ROUTE and all(
            strategy == BEST_ROUTE or not chosen.startswith(prefix) for chosen, strategy in self.strategies
        )

    def has_route(self, prefix: Name, is_local: bool = False) -> bool:
        """Whether this very prefix has a next hop that is up; with `is_local`, an application of this machine."""
        hops = self.fib.longest_prefix_match(prefix) if prefix in self.fib else ()
        faces = [face for hop in hops if (face := self.faces.get(hop.face_id)) is not None]
        return any(face.up and (face.is_local or not is_local) for face in faces)

    def _strategy(self, name: Name) -> Strategy:
        return self._strategies[self.strategies.find(name)]

    # --- Interest

    def on_incoming_interest(self, face: Face, interest: Interest, link: LinkPacket, now: float) -> None:
        self.counters.in_interests += 1
        face.counters.in_interests += 1
        if not face.is_local and interest.name.startswith(LOCALHOST):
            self.counters.scope_violations += 1
            return
        if interest.hop_limit == 0:
            return
        if interest.nonce is None:
            interest = packet.decode_interest(packet.with_nonce(interest, os.urandom(4)))
        elif self.dead_nonces.has(interest.full_name, interest.nonce, now):
            self.on_interest_loop(face, interest, link.pit_token)
            return
        assert interest.nonce is not None
        next_hop = link.next_hop_face if face.local_fields else None
        entry = self.pit.find(interest, next_hop)
        if entry is not None and entry.expiry <= now:
            self._expire(entry, now)
            entry = None
        if entry is not None and entry.has_nonce(interest.nonce, face):
            self.on_interest_loop(face, interest, link.pit_token)
            return
        found = self._find_stored(interest, now) if entry is None else None
        if found is not None:
            self.on_content_store_hit(face, found, link.pit_token)
        else:
            self.on_content_store_miss(face, interest, link.pit_token, next_hop, entry, now)

    def _find_stored(self, interest: Interest, now: float) -> bytes | None:
        is_blob = bool(self.blobs) and interest.name.startswith(self.blobs)
        stored = self.content_store.find(
            interest.name, now, interest.can_be_prefix, interest.must_be_fresh, interest.digest
        )
        wire = stored.wire if stored is not None else None
        if wire is None and self.disk is not None and not interest.must_be_fresh:
            wire = self.disk.find(interest.name, interest.can_be_prefix, interest.digest)
        if wire is None:
            self.counters.misses += 1
            self.counters.blob_misses += is_blob
        else:
            self.counters.hits += 1
            self.counters.blob_hits += is_blob
        return wire

    def on_interest_loop(self, face: Face, interest: Interest, pit_token: bytes | None) -> None:
        self.counters.loops += 1
        face.send_nack(interest.wire, packet.NACK_DUPLICATE, pit_token)

    def on_content_store_hit(self, face: Face, wire: bytes, pit_token: bytes | None) -> None:
        face.send_data(wire, pit_token)

    def on_content_store_miss(
        self,
        face: Face,
        interest: Interest,
        pit_token: bytes | None,
        next_hop: int | None,
        entry: PitEntry | None,
        now: float,
    ) -> None:
        hops = self._eligible_hops(face, interest) if next_hop is None else self._named_hop(next_hop, interest)
        record = entry.in_record(face) if entry is not None else None
        is_arriving = self._is_arriving(interest, now)
        is_asked = entry is not None and record is not None and bool(entry.pending_upstreams(now))
        if not (hops or is_arriving or is_asked):
            self._refuse(face, interest, pit_token, entry, now)
            return
        if entry is None:
            if self.pit.is_full or face.waiting >= self.pit.capacity * PIT_SHARE_OF_FACE:
                self.counters.pit_full += 1
                face.send_nack(interest.wire, packet.NACK_CONGESTION, pit_token)
                return
            entry = self.pit.insert(interest, next_hop)
        assert interest.nonce is not None
        expiry = now + min(interest.lifetime_ms, MAX_LIFETIME_MS) / 1000
        is_retransmission = record is not None
        if record is None:
            face.waiting += 1
            entry.in_records.append(InRecord(face, interest.nonce, pit_token, interest.wire, expiry))
        else:
            record.nonce, record.pit_token, record.wire = interest.nonce, pit_token, interest.wire
            record.expiry = expiry
        self.pit.set_expiry(entry, max(r.expiry for r in entry.in_records))
        if not hops or is_arriving:
            return
        strategy = self._strategy(entry.name)
        upstreams = strategy.on_interest(entry, hops, is_retransmission, now) or _past_mutual_wait(entry, hops, now)
        for place, hop in enumerate(upstreams):
            if place and strategy.has_probes:
                nonce = os.urandom(4)
                interest = replace(interest, nonce=nonce, wire=packet.with_other_nonce(interest, nonce))
            self.on_outgoing_interest(entry, interest, hop, face.id, expiry, now)

    def _is_arriving(self, interest: Interest, now: float) -> bool:
        """Whether what is asked of this node as a holder is on its way here anyway: it crosses the link once."""
        return (
            self.disk is not None
            and bool(interest.hint)
            and self.has_arrived(interest.hint)
            and self.disk.is_arriving(interest.name, now)
        )

    def on_outgoing_interest(
        self, entry: PitEntry, interest: Interest, face: Face, incoming_face: int, expiry: float, now: float
    ) -> None:
        assert interest.nonce is not None
        record = entry.out_record(face)
        if record is None:
            face.outstanding += 1
            entry.out_records.append(OutRecord(face, interest.nonce, now, expiry))
        else:
            record.nonce, record.sent, record.expiry, record.nack_reason = interest.nonce, now, expiry, None
        wire = packet.forwarded(interest, self.has_arrived(interest.hint))
        face.send_interest(wire, incoming_face if face.local_fields else None)

    def on_interest_finalize(self, entry: PitEntry, now: float, remember: bool = True) -> None:
        """The entry goes; its nonces are remembered, so that a copy still on its way is not taken for a new one."""
        if remember:
            self.remember_nonces(entry, now)
        for out_record in entry.out_records:
            out_record.face.outstanding -= 1
        for in_record in entry.in_records:
            in_record.face.waiting -= 1
        self.pit.erase(entry)

    def remember_nonces(self, entry: PitEntry, now: float) -> None:
        full_name = entry.name if entry.digest is None else entry.name + names.tlv(names.IMPLICIT_DIGEST, entry.digest)
        for record in entry.out_records:
            self.dead_nonces.add(full_name, record.nonce, now)

    def _expire(self, entry: PitEntry, now: float) -> None:
        self.counters.unsatisfied += 1
        self._strategy(entry.name).on_expiry(entry, now)
        self.on_interest_finalize(entry, now)

    def _refuse(
        self, face: Face, interest: Interest, pit_token: bytes | None, entry: PitEntry | None, now: float
    ) -> None:
        """There is no route for this downstream; whoever else waits for the same goes on waiting."""
        self.counters.no_route += 1
        face.send_nack(interest.wire, packet.NACK_NO_ROUTE, pit_token)
        record = entry.in_record(face) if entry is not None else None
        if entry is None or record is None:
            return
        entry.in_records.remove(record)
        face.waiting -= 1
        if not entry.in_records:
            self._expire(entry, now)

    def has_arrived(self, hint: Iterable[Name]) -> bool:
        """Whether a ForwardingHint names this node or its region."""
        return any(own.startswith(delegation) for delegation in hint for own in self.region)

    def _eligible_hops(self, face: Face, interest: Interest) -> list[Face]:
        if not interest.hint or self.has_arrived(interest.hint):
            return self._usable(self.fib.longest_prefix_match(interest.name), face, interest)
        for delegation in interest.hint:
            hops = self._usable(self.fib.longest_prefix_match(delegation), face, interest)
            if hops:
                return hops
        return []

    def _usable(self, hops: Sequence[NextHop], face: Face, interest: Interest) -> list[Face]:
        """The next hops, each face once, that are up, in the Interest's scope, and not where it came from."""
        only_local = (
            interest.hop_limit == 1
            or interest.name.startswith(LOCALHOST)
            or (not face.is_local and interest.name.startswith(LOCALHOP))
        )
        usable: list[Face] = []
        for hop in hops:
            upstream = self.faces.get(hop.face_id)
            if upstream is None or not upstream.up or upstream is face or (only_local and not upstream.is_local):
                continue
            if upstream not in usable:
                usable.append(upstream)
        return usable

    def _named_hop(self, face_id: int, interest: Interest) -> list[Face]:
        face = self.faces.get(face_id)
        if face is None or not face.up or (not face.is_local and interest.name.startswith(LOCALHOST)):
            return []
        return [face]

    def _reject(self, entry: PitEntry, reason: int, now: float) -> None:
        for record in entry.in_records:
            if record.expiry > now:
                record.face.send_nack(record.wire, reason, record.pit_token)
        self._expire(entry, now)

    # --- Data

    def on_incoming_data(self, face: Face, data: Data, link: LinkPacket, now: float) -> None:
        self.counters.in_data += 1
        face.counters.in_data += 1
        face.counters.in_data_bytes += len(data.wire)
        if not face.is_local and data.name.startswith(LOCALHOST):
            self.counters.scope_violations += 1
            return
        # Only a face that was asked may answer: nobody off the path can put Data into the store.
        entries = self.pit.satisfied_by(data)
        if all(entry.out_record(face) is None for entry in entries):
            self.counters.unsolicited += 1
            return
        is_stored = not link.no_cache and not data.name.startswith(LOCALHOP) and not data.name.startswith(LOCALHOST)
        is_stored = is_stored and self.content_store.insert(data, now)
        for entry in entries:
            if entry.next_hop is None or entry.out_record(face) is not None:
                self._satisfy(entry, face, data, link.congestion_mark, is_stored, now)

    def _satisfy(self, entry: PitEntry, face: Face, data: Data, mark: int, is_stored: bool, now: float) -> None:
        self.counters.satisfied += 1
        for record in entry.in_records:
            if record.face is not face and record.expiry > now:
                record.face.send_data(data.wire, record.pit_token, mark)
        self._strategy(entry.name).on_data(entry, face, now)
        # A late copy of the Interest is answered by the store, unless this Data is no answer to it there (as in NFD).
        is_short_lived = entry.must_be_fresh and data.freshness_ms < DEAD_NONCE_LIFETIME_S * 1000
        self.on_interest_finalize(entry, now, remember=is_short_lived or not is_stored)

    # --- Nack

    def on_incoming_nack(self, face: Face, interest: Interest, reason: int, now: float) -> None:
        self.counters.in_nacks += 1
        face.counters.in_nacks += 1
        for next_hop in (None, face.id):
            entry = self.pit.find(interest, next_hop)
            record = entry.out_record(face) if entry is not None else None
            if entry is not None and record is not None and record.nonce == interest.nonce:
                record.nack_reason = reason
                self._try_next(entry, face, now)

    def _try_next(self, entry: PitEntry, face: Face, now: float) -> None:
        """An upstream said no: another one gets its turn as the strategy says; when all said no, so do we."""
        for record in entry.in_records:
            if record.expiry <= now or entry.next_hop is not None:
                continue
            interest = packet.decode_interest(record.wire)
            hops = self._eligible_hops(record.face, interest)
            hop = self._strategy(entry.name).on_nack(entry, face, hops, now)
            if hop is not None:
                self.on_outgoing_interest(entry, interest, hop, record.face.id, record.expiry, now)
                return
        if not entry.pending_upstreams(now):
            self._reject(entry, combined_reason(entry), now)


def _past_mutual_wait(entry: PitEntry, hops: Sequence[Face], now: float) -> Sequence[Face]:
    """Another next hop when everybody who was asked asks us for the same: each would wait for the other's answer.

    Their nonces differ where a probe and its Interest meet, so that nobody takes it for a loop.
    """
    pending = entry.pending_upstreams(now)
    if not pending or any(entry.in_record(record.face) is None for record in pending):
        return ()
    unused = unused_hop(entry, hops)
    return () if unused is None else (unused,)


def _is_one_packet(wire: bytes) -> bool:
    """Whether a datagram is exactly one packet, written as nearly all are."""
    size = len(wire)
    if not 2 < size <= MAX_PACKET_BYTES or wire[0] >= 253:
        return False
    return wire[1] == size - 2 < 253 or (wire[1] == 253 and size > 4 and wire[2] << 8 | wire[3] == size - 4)
