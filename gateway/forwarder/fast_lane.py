"""The pipelines of forwarder.py for the packets that nearly all packets are, on the bytes as they came.

A batch of Interests or Data is read, looked up, answered and forwarded without an object for a packet: slices of the
buffer are the keys of the tables, and what goes out is put into the faces' lanes. Every step bears the name that it has
in the pipelines, and does the same. Whatever is unusual in a packet, a table or a face ends the run: the forwarder
takes that packet the ordinary way and comes back. The two long functions are long because a call costs as much as a
step; nothing is counted or changed in them before it is sure that they can finish with the packet.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from gateway.forwarder import packet
from gateway.forwarder.faces.base import Face
from gateway.forwarder.fib import NextHop
from gateway.forwarder.packet import DATA, DEFAULT_LIFETIME_MS, INTEREST, LP_PACKET, MAX_COMPONENTS, MAX_PACKET_BYTES
from gateway.forwarder.pit import (
    DEAD_NONCE_LIFETIME_S,
    MAX_LIFETIME_MS,
    PIT_SHARE_OF_FACE,
    InRecord,
    OutRecord,
    PitEntry,
)
from gateway.protocol import names
from gateway.protocol.names import Name

if TYPE_CHECKING:
    from gateway.forwarder.forwarder import Forwarder

_NAME, _CAN_BE_PREFIX, _MUST_BE_FRESH, _FORWARDING_HINT = 0x07, 0x21, 0x12, 0x1E
_NONCE, _LIFETIME, _HOP_LIMIT = 0x0A, 0x0C, 0x22
_META_INFO, _CONTENT, _SIGNATURE_INFO, _SIGNATURE_VALUE = 0x14, 0x15, 0x16, 0x17
_FRAGMENT, _PIT_TOKEN = 0x50, 0x62
_NONCE_FIELD_BYTES = 6
# How an implicit digest begins at the end of a name, and how long it is.
_DIGEST, _DIGEST_COMPONENT_BYTES = b"\x01\x20", 34
# A TLV number from here on takes more than one byte.
_LONG = 253
# Component types below are digests.
_FIRST_PLAIN = 3
_TOKEN_MAX_BYTES = 32
_DEAD_NONCE_LIFETIME_MS = DEAD_NONCE_LIFETIME_S * 1000
# So many prefixes, hints and MetaInfos are remembered: what is alive at a time is a few of each.
_REMEMBERED_MAX = 2048
_SCOPED = names.parse("/localhost"), names.parse("/localhop")

Upstreams = tuple[Face, ...]


class FastLane:
    """Takes what it can of a buffer; faces with packets in their lanes are flushed at the end of a batch."""

    def __init__(self, forwarder: Forwarder) -> None:
        self._forwarder = forwarder
        self._touched: list[Face] = []
        # The next hops by prefix and by ForwardingHint as it stands in the packet; None where the pipelines decide.
        self._upstreams: dict[Name, Upstreams | None] = {}
        self._hinted: dict[bytes, Upstreams | None] = {}
        self._routing_version = -1
        self._freshness_ms: dict[bytes, int] = {}
        # For tests that hold both ways to the same behaviour.
        self.is_open = True

    def receive(self, face: Face, buffer: bytes, at: int, now: float) -> int:
        """Takes packets from `at` on; where the first one stands that it can't take, or that is not whole."""
        if not self.is_open:
            return at
        version = self._forwarder.routing_version
        if version != self._routing_version:
            self._routing_version = version
            self._upstreams.clear()
            self._hinted.clear()
        begin, before = at, -1
        while at != before and at < len(buffer):
            before = at
            if buffer[at] == DATA:
                at = self._receive_data(face, buffer, at, now)
            else:
                at = self._receive_interests(face, buffer, at, now)
        face.counters.in_bytes += at - begin
        return at

    def flush(self) -> None:
        """Sends what is in the lanes."""
        for face in self._touched:
            face.flush()
        self._touched.clear()

    # --- Interest

    def _receive_interests(self, face: Face, buffer: bytes, at: int, now: float) -> int:
        forwarder = self._forwarder
        pit, fib, disk, blobs = forwarder.pit, forwarder.fib, forwarder.disk, forwarder.blobs
        store, pending, hinted = forwarder.content_store, pit.first, self._hinted
        in_store = store.packets if store.is_serving else {}
        dead_nonces = forwarder.dead_nonces if len(forwarder.dead_nonces) else None
        lane, touched, end = face.lane, self._touched, len(buffer)
        count = misses = blob_hits = blob_misses = sent = sent_bytes = 0
        # Most Interests of a batch differ from the one before in nothing but the last component.
        parent, upstreams = b"", None
        timer_ms, expiry, timer = -1, 0.0, pit.timer(now)
        try:
            while at < end:
                # The frame: an Interest, bare or behind a PIT token.
                interest_at, stop, pit_token = at, at + 2 + buffer[at + 1], None
                if buffer[at] != INTEREST:
                    interest_at = at + 6 + buffer[at + 3]
                    if (
                        buffer[at] != LP_PACKET
                        or buffer[at + 2] != _PIT_TOKEN
                        or not 0 < buffer[at + 3] <= _TOKEN_MAX_BYTES
                        or buffer[interest_at - 2] != _FRAGMENT
                        or buffer[interest_at - 1] != stop - interest_at
                        or buffer[interest_at] != INTEREST
                        or buffer[interest_at + 1] != stop - interest_at - 2
                    ):
                        break
                    pit_token = buffer[at + 4 : interest_at - 2]
                length = buffer[interest_at + 3]
                name_at = interest_at + 4
                field = name_at + length
                if (
                    stop > end
                    or stop - at >= _LONG + 2
                    or buffer[interest_at + 2] != _NAME
                    or not name_at < field < stop
                ):
                    break
                name = buffer[name_at:field]

                # The fields behind the name: nearly always a nonce and nothing else.
                can_be_prefix = must_be_fresh = False
                hint, lifetime_ms, hop_limit_at = b"", DEFAULT_LIFETIME_MS, 0
                if stop - field != _NONCE_FIELD_BYTES:
                    if buffer[field] == _CAN_BE_PREFIX and buffer[field + 1] == 0:
                        can_be_prefix = True
                        field += 2
                    if buffer[field] == _MUST_BE_FRESH and buffer[field + 1] == 0:
                        must_be_fresh = True
                        field += 2
                    if buffer[field] == _FORWARDING_HINT:
                        hint = buffer[field : field + 2 + buffer[field + 1]]
                        field += len(hint)
                        if hint not in hinted and not self._learn_hint(hint):
                            break
                if buffer[field] != _NONCE or buffer[field + 1] != 4:
                    break
                nonce = buffer[field + 2 : field + 6]
                field += _NONCE_FIELD_BYTES
                if field != stop:
                    if field < stop and buffer[field] == _LIFETIME:
                        size = buffer[field + 1]
                        if size not in (1, 2, 4, 8):
                            break
                        lifetime_ms = int.from_bytes(buffer[field + 2 : field + 2 + size], "big")
                        field += 2 + size
                    if field < stop and buffer[field] == _HOP_LIMIT and buffer[field + 1] == 1:
                        hop_limit_at = field + 2
                        if buffer[hop_limit_at] == 0:
                            break
                        field += 3
                    if field != stop:
                        break

                # on_incoming_interest: a loop is for the pipelines, and so is what somebody waits for already.
                if name in pending or (dead_nonces is not None and dead_nonces.has(name, nonce, now)):
                    break
                wire = None
                stored = in_store.get(name)
                if stored is not None and not stored.is_plain:
                    break
                if stored is None or (must_be_fresh and stored.stale_at <= now):
                    # It is not known to be a name yet, nor whether it ends in a digest.
                    last, digest = len(parent), None
                    name_stop = last + 2 + name[last + 1] if last and name.startswith(parent) else 0
                    if (
                        name_stop != length
                        and (
                            name_stop + _DIGEST_COMPONENT_BYTES != length or name[name_stop : name_stop + 2] != _DIGEST
                        )
                    ) or not _FIRST_PLAIN <= name[last] < _LONG:
                        last, name_stop = _split(name)
                        if not last:
                            break
                        parent = name[:last]
                        upstreams = self._upstreams_of(parent)
                    stored = None
                    if name_stop != length:
                        digest, name = name[name_stop + 2 :], name[:name_stop]
                        if name in pending:
                            break
                        stored = in_store.get(name)
                        if stored is not None and (
                            stored.digest != digest or (must_be_fresh and stored.stale_at <= now)
                        ):
                            stored = None
                if stored is not None:
                    stored.is_asked = True
                    wire = stored.wire
                else:
                    # on_content_store_miss: where it goes is settled first, since the pipelines look at the disk too.
                    next_hops = hinted[hint] if hint else upstreams
                    if can_be_prefix or upstreams is None or name in fib:
                        break
                    upstream: Face | None = None
                    if next_hops:
                        upstream = next_hops[0]
                        if upstream is face or not upstream.up:
                            upstream = next((hop for hop in next_hops if hop is not face and hop.up), None)
                        if upstream is not None and (
                            (hop_limit_at and buffer[hop_limit_at] == 1)
                            or pit.size >= pit.capacity
                            or face.waiting >= pit.capacity * PIT_SHARE_OF_FACE
                        ):
                            break
                    if disk is not None and not must_be_fresh:
                        wire = disk.find(name, False, digest)
                    if wire is None and next_hops is None:  # asked of this node as a holder, which it is not
                        break

                is_blob = blobs and name.startswith(blobs)
                count += 1
                at = stop
                if wire is not None:
                    # on_content_store_hit
                    if is_blob:
                        blob_hits += 1
                    if lane is None:
                        face.send_data(wire, pit_token)
                    else:
                        sent += 1
                        sent_bytes += len(wire)
                        if not lane:
                            touched.append(face)
                        lane.append(wire if pit_token is None else packet.encode_link(wire, pit_token=pit_token))
                    continue

                # on_content_store_miss, on_outgoing_interest
                misses += 1
                if is_blob:
                    blob_misses += 1
                if upstream is None:
                    forwarder.counters.no_route += 1
                    face.send_nack(buffer[interest_at:stop], packet.NACK_NO_ROUTE, pit_token)
                    continue
                if lifetime_ms != timer_ms:
                    timer_ms = lifetime_ms
                    expiry = now + min(lifetime_ms, MAX_LIFETIME_MS) / 1000
                    timer = pit.timer(expiry)
                entry = PitEntry(name, digest, False, must_be_fresh, None, True)
                entry.expiry, entry.timer = expiry, timer
                pending[name] = entry
                timer[entry] = None
                pit.size += 1
                wire = buffer[interest_at:stop]
                entry.in_records.append(InRecord(face, nonce, pit_token, wire, expiry))
                entry.out_records.append(OutRecord(upstream, nonce, now, expiry))
                face.waiting += 1
                upstream.outstanding += 1
                if hop_limit_at:
                    hop_limit = bytes((buffer[hop_limit_at] - 1,))
                    wire = buffer[interest_at:hop_limit_at] + hop_limit + buffer[hop_limit_at + 1 : stop]
                upstream_lane = upstream.lane
                if upstream_lane is None or upstream.local_fields:
                    upstream.send_interest(wire, face.id if upstream.local_fields else None)
                else:
                    upstream.counters.out_interests += 1
                    if not upstream_lane:
                        touched.append(upstream)
                    upstream_lane.append(wire)
        except IndexError:  # cut short, or not what it looked like
            pass
        counters = forwarder.counters
        counters.in_interests += count
        counters.hits += count - misses
        counters.misses += misses
        counters.blob_hits += blob_hits
        counters.blob_misses += blob_misses
        face.counters.in_interests += count
        face.counters.out_data += sent
        face.counters.out_data_bytes += sent_bytes
        return at

    def _upstreams_of(self, prefix: Name) -> Upstreams | None:
        """The next hops of the names that are one component longer than the prefix, the cheapest first."""
        known = self._upstreams
        if prefix not in known:
            if len(known) >= _REMEMBERED_MAX:
                known.clear()
            known[prefix] = self._look_up(prefix)
        return known[prefix]

    def _look_up(self, prefix: Name) -> Upstreams | None:
        forwarder = self._forwarder
        if prefix.startswith(_SCOPED) or not forwarder.has_best_route(prefix):
            return None
        return self._faces(forwarder.fib.longest_prefix_match(prefix))

    def _faces(self, hops: Iterable[NextHop]) -> Upstreams:
        faces = self._forwarder.faces
        return tuple(dict.fromkeys(faces[hop.face_id] for hop in hops if hop.face_id in faces))

    def _learn_hint(self, hint: bytes) -> bool:
        """Whether a ForwardingHint is one and names somebody; where it leads is known afterwards."""
        forwarder, known = self._forwarder, self._hinted
        try:
            delegations = packet.decode_hint(hint)
        except packet.DecodeError:
            return False
        if not delegations:
            return False
        if len(known) >= _REMEMBERED_MAX:
            known.clear()
        if forwarder.has_arrived(delegations):
            known[hint] = None
        else:
            matches = (forwarder.fib.longest_prefix_match(delegation) for delegation in delegations)
            known[hint] = self._faces(hop for hops in matches for hop in hops)
        return True

    # --- Data

    def _receive_data(self, face: Face, buffer: bytes, at: int, now: float) -> int:
        forwarder = self._forwarder
        pit, store, freshness_of = forwarder.pit, forwarder.content_store, self._freshness_ms
        pending, touched, end = pit.first, self._touched, len(buffer)
        count = count_bytes = 0
        try:
            while at < end:
                # The frame.
                if buffer[at] != DATA:
                    break
                length, body = buffer[at + 1], at + 2
                if length >= _LONG:
                    length, body = buffer[at + 2] << 8 | buffer[at + 3], at + 4
                    if buffer[at + 1] != _LONG or length < _LONG:
                        break
                stop = body + length
                size = buffer[body + 1]
                field = body + 2 + size
                if stop > end or stop - at > MAX_PACKET_BYTES or buffer[body] != _NAME or size >= _LONG:
                    break

                # on_incoming_data: the one entry that waits for this name, and asked this face.
                entry = pending.get(buffer[body + 2 : field])
                if entry is None or not entry.is_plain or entry.sibling is not None:
                    break
                asked = entry.out_records
                if len(asked) != 1 or asked[0].face is not face:
                    break
                name = entry.name
                if pit.prefix_lengths and pit.prefixes_of(name):
                    break

                # The fields behind the name, in their order.
                freshness_ms = 0
                if buffer[field] == _META_INFO:
                    meta_info = buffer[field : field + 2 + buffer[field + 1]]
                    field += len(meta_info)
                    known = freshness_of.get(meta_info)
                    if known is None:
                        known = self._learn_meta_info(meta_info)
                        if known is None:
                            break
                    freshness_ms = known
                if buffer[field] == _CONTENT:
                    size = buffer[field + 1]
                    if size < _LONG:
                        field += 2 + size
                    else:
                        content_bytes = buffer[field + 2] << 8 | buffer[field + 3]
                        if size != _LONG or content_bytes < _LONG:
                            break
                        field += 4 + content_bytes
                size = buffer[field + 1]
                if buffer[field] != _SIGNATURE_INFO or size >= _LONG:
                    break
                field += 2 + size
                size = buffer[field + 1]
                if buffer[field] != _SIGNATURE_VALUE or size >= _LONG or field + 2 + size != stop:
                    break
                wire = buffer[at:stop]
                digest = entry.digest
                if digest is not None and packet.implicit_digest(wire) != digest:
                    break

                size = stop - at
                count += 1
                count_bytes += size
                at = stop
                is_stored = store.admit(name, wire, freshness_ms, now, True, digest)
                # satisfy
                for record in entry.in_records:
                    downstream = record.face
                    downstream.waiting -= 1
                    if downstream is face or record.expiry <= now:
                        continue
                    lane = downstream.lane
                    if lane is None:
                        downstream.send_data(wire, record.pit_token)
                        continue
                    counters = downstream.counters
                    counters.out_data += 1
                    counters.out_data_bytes += size
                    if not lane:
                        touched.append(downstream)
                    token = record.pit_token
                    lane.append(wire if token is None else packet.encode_link(wire, pit_token=token))
                # on_interest_finalize
                face.outstanding -= 1
                if not is_stored or (entry.must_be_fresh and freshness_ms < _DEAD_NONCE_LIFETIME_MS):
                    forwarder.remember_nonces(entry, now)
                del pending[name]
                pit.size -= 1
                timer = entry.timer
                if timer is not None:
                    del timer[entry]
        except IndexError:  # cut short, or not what it looked like
            pass
        forwarder.counters.in_data += count
        forwarder.counters.satisfied += count
        face.counters.in_data += count
        face.counters.in_data_bytes += count_bytes
        return at

    def _learn_meta_info(self, meta_info: bytes) -> int | None:
        """The FreshnessPeriod in a MetaInfo element, known from now on; None when it is not a good one."""
        try:
            freshness_ms = packet.decode_freshness(meta_info)
        except packet.DecodeError:
            return None
        if len(self._freshness_ms) >= _REMEMBERED_MAX:
            self._freshness_ms.clear()
        self._freshness_ms[meta_info] = freshness_ms
        return freshness_ms


def _split(name: Name) -> tuple[int, int]:
    """Where the last component of a name begins and ends, an implicit digest behind it apart.

    Zeros for a name of one component, and for one that is none or not written as nearly all are.
    """
    last = at = depth = 0
    while at < len(name):
        if not _FIRST_PLAIN <= name[at] < _LONG or name[at + 1] >= _LONG:
            break
        last, at = at, at + 2 + name[at + 1]
        depth += 1
    is_digest = at + _DIGEST_COMPONENT_BYTES == len(name) and name[at : at + 2] == _DIGEST
    if (at != len(name) and not is_digest) or depth + is_digest > MAX_COMPONENTS:
        return 0, 0
    return last, at
