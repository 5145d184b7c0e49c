"""What the fuzzer calls: each target takes any bytes, and raises only when there is something to mend.

A peer's mistake is a ProtocolError (a ValueError for a name). Besides, every target says what holds of what it accepts.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import dataclass

from gateway.forwarder import packet
from gateway.forwarder.content_store import ContentStore
from gateway.forwarder.faces import link
from gateway.forwarder.faces.base import Face
from gateway.forwarder.forwarder import MAX_LIFETIME_MS, Forwarder
from gateway.forwarder.strategy_choice import ADAPTIVE, BEST_ROUTE, MULTICAST
from gateway.protocol import codec, keys, names
from gateway.protocol.errors import ProtocolError
from tests.fuzz import faces_target, lane_target, management_target, scripts, seeds

PIT_ENTRIES = 16
STORE_BYTES = 16 << 10
_STRATEGIES = (BEST_ROUTE, MULTICAST, ADAPTIVE)
REASSEMBLY_BYTES = 8 << 10
_LINK_HEADER_BYTES = 16
_TICK_S = 0.7


@dataclass(frozen=True, slots=True)
class Target:
    """`share` is that of the inputs which a dear target gets where others get a million."""

    run: Callable[[bytes], None]
    seeds: Callable[[], list[bytes]]
    share: float = 1.0


def split_stream(wire: bytes) -> None:
    packets, used = packet.split_stream(wire)
    assert b"".join(packets) == wire[:used]
    assert all(packets), "an empty packet would be split off for ever"


def decode_link(wire: bytes) -> None:
    read = packet.decode_link(wire)
    assert len(read.fragment) <= packet.MAX_PACKET_BYTES
    assert read.pit_token is None or 1 <= len(read.pit_token) <= 32


def decode_interest(wire: bytes) -> None:
    interest = packet.decode_interest(wire)
    assert interest.name == b"".join(names.components(interest.name))
    assert interest.full_name in wire
    if interest.hop_limit != 0:
        sent = packet.decode_interest(packet.forwarded(interest, strip_hint=True))
        assert (sent.name, sent.digest, sent.hint) == (interest.name, interest.digest, ())
    if interest.nonce is None:
        assert packet.decode_interest(packet.with_nonce(interest, b"once")).nonce == b"once"


def decode_data(wire: bytes) -> None:
    data = packet.decode_data(wire)
    assert data.name == b"".join(names.components(data.name))
    assert data.content in wire and len(data.digest) == 32


def components(wire: bytes) -> None:
    with contextlib.suppress(ValueError):
        assert b"".join(names.components(wire)) == wire
    names.to_uri(wire)


def message(wire: bytes) -> None:
    cls = seeds.MESSAGES[wire[0] % len(seeds.MESSAGES)] if wire else seeds.MESSAGES[0]
    read = codec.decode(cls, wire[1:])
    again = codec.encode(read)
    assert codec.encode(codec.decode(cls, again)) == again
    codec.to_json(read)


def key_packet(wire: bytes) -> None:
    read = keys.parse(wire)
    assert read.wire == wire
    names.to_uri(read.name)
    keys.validity(wire)


class _Sink(Face):
    """A face whose packets go nowhere, as well-formed as they are."""

    def __init__(self, is_local: bool) -> None:
        super().__init__("sink://")
        self.is_local = self.local_fields = is_local

    def transmit(self, wire: bytes, bulk: bool) -> None:
        fragment = packet.decode_link(wire).fragment
        if fragment[:1] == b"\x06":
            packet.decode_data(fragment)
        else:
            packet.decode_interest(fragment)


def forwarder(script: bytes) -> None:
    """Faces send packets, well or ill, as time goes by; when all is over, nothing of it is left."""
    router = Forwarder(ContentStore(STORE_BYTES), region=[names.parse("/net/node/x")])
    router.pit.capacity = PIT_ENTRIES
    faces = [_Sink(is_local) for is_local in (False, True, False)]
    for face in faces:
        router.add_face(face)
    for prefix, face in (("/net", faces[0]), ("/net", faces[1]), ("/localhost", faces[1]), ("/net/node/a", faces[2])):
        router.fib.add(names.parse(prefix), face.id, 1, "static")
    router.strategies.set(b"", _STRATEGIES[len(script) % len(_STRATEGIES)])
    now = 0.0
    for action, wire in scripts.steps(script):
        now += (action >> 2) * _TICK_S
        router.on_timer(now)
        router.receive(faces[(action & 3) % len(faces)], wire, now)
        assert len(router.pit) <= PIT_ENTRIES and router.content_store.size_bytes <= STORE_BYTES
    now += MAX_LIFETIME_MS / 1000 + 1
    router.on_timer(now)
    assert len(router.pit) == 0, "an entry that never expires"
    assert all(face.outstanding == face.waiting == 0 for face in faces), "a count that leaks"


def reassembly(script: bytes) -> None:
    """Fragments of two peers, well or ill, as time goes by; when all is over, none is kept."""
    budget = link.ReassemblyBudget(REASSEMBLY_BYTES)
    peers = [link.Reassembler(budget), link.Reassembler(budget)]
    now = 0.0
    for action, wire in scripts.steps(script):
        now += (action >> 2) * _TICK_S / 10
        with contextlib.suppress(ProtocolError):
            whole = peers[action & 1].add(wire, now)
            assert whole is None or len(whole) <= link.MAX_MESSAGE_BYTES + _LINK_HEADER_BYTES
        assert budget.used_bytes == sum(peer.used_bytes for peer in peers) <= REASSEMBLY_BYTES
    for peer in peers:
        peer.expire(now + link.REASSEMBLY_TIMEOUT_S)
        assert len(peer) == peer.used_bytes == 0, "a fragment that is never given up"


def fragmentation(wire: bytes) -> None:
    """What we send and cut into fragments is whole again at the other end, in whatever order they come."""
    read = packet.decode_link(wire)
    headers = {"pit_token": read.pit_token, "nack_reason": read.nack_reason, "incoming_face": read.incoming_face}
    wire = packet.encode_link(read.fragment, congestion_mark=read.congestion_mark, **headers)
    sent = packet.decode_link(wire) if wire else read
    for mtu in (link.MIN_MTU_BYTES, link.DEFAULT_MTU_BYTES):
        other_end = link.Reassembler(link.ReassemblyBudget())
        parts = link.fragments(wire, mtu, 0xFFFFFFFFFFFFFFFE)
        assert all(len(part) <= mtu for part in parts)
        if len(parts) == 1:
            continue
        came = [other_end.add(part, 0.0) for part in reversed(parts)]
        assert came[:-1] == [None] * (len(parts) - 1) and came[-1] is not None
        assert packet.decode_link(came[-1]) == sent


TARGETS = {
    "split-stream": Target(split_stream, seeds.streams),
    "decode-link": Target(decode_link, seeds.links),
    "decode-interest": Target(decode_interest, seeds.interests),
    "decode-data": Target(decode_data, seeds.datas),
    "components": Target(components, seeds.names_),
    "message": Target(message, seeds.message_wires),
    "key-packet": Target(key_packet, seeds.signed),
    "forwarder": Target(forwarder, seeds.scripts),
    "lanes": Target(lane_target.lanes, lane_target.seeds, share=0.1),
    "faces": Target(faces_target.faces, faces_target.seed_scripts, share=0.02),
    "management": Target(management_target.management, management_target.seeds, share=0.2),
    "fragmentation": Target(fragmentation, seeds.long_links),
    "reassembly": Target(reassembly, seeds.fragment_scripts),
}


def _defect(wire: bytes) -> None:
    if wire[:1] == b"\x06":
        wire[5000]


# Not fuzzed: by it the tests see that a finding is found.
_DEFECT = Target(_defect, lambda: [b"\x05\x00"])


def find(name: str) -> Target:
    return _DEFECT if name == "defect" else TARGETS[name]


def call(name: str, wire: bytes) -> None:
    """Runs a target; whatever it raises now is a bug."""
    with contextlib.suppress(ProtocolError):
        find(name).run(wire)
