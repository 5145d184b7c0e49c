"""The fast lane against the ordinary pipelines: the same packets, the same behaviour to the last counter."""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Callable, Iterator
from dataclasses import asdict
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.forwarder import forwarder as forwarder_module
from gateway.forwarder import packet
from gateway.forwarder.content_store import ContentStore
from gateway.forwarder.faces.base import Face
from gateway.forwarder.forwarder import Forwarder
from gateway.protocol import names
from gateway.protocol.names import tlv

SIGNATURE = b"\x16\x03\x1b\x01\x00" + b"\x17\x20" + bytes(32)
FRESH = b"\x14\x04\x19\x02\x03\xe8"  # for one second
BLOBS, NODE, FAR = names.parse("/blob"), names.parse("/node/here"), names.parse("/node/far")


@pytest.fixture(autouse=True, scope="module")
def same_nonces() -> Iterator[None]:
    """An Interest that comes without a nonce gets the same one everywhere."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(forwarder_module.os, "urandom", lambda size: b"0" * size)
        yield


def data(name: bytes, content: bytes = b"content", meta_info: bytes = FRESH) -> bytes:
    return tlv(packet.DATA, tlv(7, name) + meta_info + tlv(0x15, content) + SIGNATURE)


class RecordingFace(Face):
    """Keeps what was sent; with a lane or without one."""

    def __init__(self, name: str, is_local: bool, has_lane: bool) -> None:
        super().__init__(f"face://{name}")
        self.is_local = is_local
        self._queue: list[bytes] = []
        self.sent: list[bytes] = []
        self.lane = self._queue if has_lane else None

    def transmit(self, wire: bytes, bulk: bool) -> None:
        self._queue.append(wire)

    def flush(self) -> None:
        self.sent += self._queue
        self._queue.clear()


class Disk:
    """Has one packet below the blobs' prefix."""

    wire = data(BLOBS + names.component("a"))

    def is_arriving(self, name: bytes, now: float) -> bool:
        return False

    def find(self, name: bytes, can_be_prefix: bool = False, digest: bytes | None = None) -> bytes | None:
        is_it = name == BLOBS + names.component("a")
        return self.wire if is_it and digest in (None, hashlib.sha256(self.wire).digest()) else None


# Prefix, next hop as a place in World.faces, cost.
ROUTES = [
    (names.parse(uri), face, cost)
    for uri, face, cost in (
        ("/a", 1, 1),
        ("/a", 2, 2),
        ("/a/b/c", 0, 0),
        ("/part", 3, 0),
        ("/node/far", 2, 1),
        ("/localhost", 0, 0),
        ("/localhop", 1, 0),
        ("/blob", 1, 1),
    )
]


# What is in the store from the beginning, and since when: fresh, stale, and under names that nobody can just ask for.
STORED = [
    (names.parse("/a/b/") + names.segment(1), 100.0),
    (names.parse("/a/a"), 0.0),
    (names.parse("/a/b") + tlv(2, bytes(32)), 100.0),
    (names.parse("/a/b") + tlv(1, bytes(32)), 100.0),
]


class World:
    """A forwarder with a local application, two neighbours and an internal part."""

    def __init__(self, is_fast: bool) -> None:
        self.forwarder = Forwarder(ContentStore(20_000), Disk(), region=(NODE,), blobs=BLOBS)
        self.forwarder.fast_lane.is_open = is_fast
        self.app = RecordingFace("app", True, True)
        self.near = RecordingFace("near", False, True)
        self.far = RecordingFace("far", False, False)
        self.part = RecordingFace("part", True, False)
        self.part.local_fields = True
        self.faces = [self.app, self.near, self.far, self.part]
        for face in self.faces:
            self.forwarder.add_face(face)
        for prefix, face, cost in ROUTES:
            self.forwarder.fib.add(prefix, self.faces[face].id, cost, "static")
        for name, when in STORED:
            self.forwarder.content_store.insert(packet.decode_data(data(name)), when)

    def state(self, now: float) -> dict[str, Any]:
        """All that can be told from outside, and the tables."""
        router = self.forwarder
        for face in self.faces:
            face.flush()
        return {
            "counters": asdict(router.counters),
            "faces": [(f.sent, asdict(f.counters), f.waiting, f.outstanding) for f in self.faces],
            "store": {n: (p.wire, p.stale_at, p.is_plain, p.is_asked) for n, p in router.content_store.packets.items()},
            "pit": sorted(
                (
                    (e.name, e.digest or b"", e.can_be_prefix, e.must_be_fresh, e.next_hop or 0, e.expiry),
                    [(r.face.uri, r.nonce, r.pit_token, r.wire, r.expiry) for r in e.in_records],
                    [(r.face.uri, r.nonce, r.sent, r.expiry, r.nack_reason) for r in e.out_records],
                )
                for e in router.pit
            ),
            "prefixes": router.pit.prefix_lengths,
            "dead": {item for until, item in router.dead_nonces._order if until > now},
        }


# --- packets, good ones and others

components = st.sampled_from(
    [names.component(letter) for letter in "ab"]
    + [names.component("c"), names.segment(1), names.segment(258), names.component("x" * 30)]
)
stems = st.sampled_from(
    [names.parse(uri) for uri in ("/a", "/a/b", "/a/b/c", "/blob", "/part", "/localhost", "/localhop", "/nowhere")]
)
plain_names = st.builds(lambda stem, more: stem + b"".join(more), stems, st.lists(components, max_size=2))
# Digests where they belong and where they don't, names that are none.
odd_names = st.one_of(
    st.builds(lambda name, kind, size: name + tlv(kind, bytes(size)), plain_names, st.integers(0, 2), st.just(32)),
    st.builds(lambda name, kind: tlv(kind, bytes(32)) + name, plain_names, st.integers(1, 2)),
    st.builds(
        lambda name, rest: name + rest, plain_names, st.sampled_from([b"\x08\x09", b"\x00\x00", b"\xfd\x00\x08"])
    ),
    st.just(b""),
    st.just(names.component("a") * 65),
)


def interest(
    name: bytes, digest: str, flags: bytes, hint: bytes, nonce: bytes, fields: list[bytes], token: int | None
) -> bytes:
    """An Interest for a name, or for the packet that `data` makes of it, or for another one."""
    if digest:
        name += tlv(1, hashlib.sha256(data(name, b"content" if digest == "right" else b"other")).digest())
    wire = tlv(packet.INTEREST, tlv(7, name) + flags + hint + nonce + b"".join(fields))
    return wire if token is None else tlv(0x64, tlv(0x62, bytes(token)) + tlv(0x50, wire))


def mostly(usual: Any, other: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    """The usual value twice as often as another."""
    return st.one_of(st.just(usual), st.just(usual), other)


def interests_for(names_: st.SearchStrategy[bytes]) -> st.SearchStrategy[bytes]:
    hints = [tlv(0x1E, tlv(7, name)) for name in (NODE, FAR, names.parse("/nowhere"))]
    return st.builds(
        interest,
        names_,
        mostly("", st.sampled_from(["right", "wrong"])),
        mostly(
            b"", st.sampled_from([b"\x12\x00", b"\x21\x00", b"\x21\x00\x12\x00", b"\x12\x00\x21\x00", b"\x12\x01\x00"])
        ),
        mostly(b"", st.sampled_from([*hints, b"\x1e\x02\x07\x05", b"\x1e\x00", hints[0] + b"\xf1\x00"])),
        mostly(b"\x0a\x04one!", st.sampled_from([b"\x0a\x04two!", b"\x0a\x04333!", b"", b"\x0a\x03bad", b"\x0a\x04"])),
        st.lists(
            st.sampled_from(
                [
                    *(
                        b"\x0c\x01\x64",
                        b"\x0c\x02\x03\xe8",
                        b"\x0c\x04\x00\xff\xff\xff",
                        b"\x0c\x03\x00\x00\x01",
                        b"\x0c\x00",
                    ),
                    *(b"\x22\x01\x00", b"\x22\x01\x01", b"\x22\x01\x09", b"\x22\x02\x00\x05", b"\xf0\x00", b"\xf1\x00"),
                ]
            ),
            max_size=2,
        ),
        mostly(None, st.sampled_from([1, 4, 32, 33, 0])),
    )


metas = mostly(
    FRESH,
    st.sampled_from(
        [
            b"",
            b"\x14\x00",
            b"\x14\x05\x1a\x03\x08\x01a",
            b"\x14\x03\x18\x01\x05",
            b"\x14\x02\x19\x09",
            b"\x14\x04\x19\x02",
        ]
    ),
)


def wrapped(wire: bytes, header: bytes) -> bytes:
    return tlv(0x64, header + tlv(0x50, wire)) if header else wire


headers = mostly(
    b"",
    st.sampled_from([b"\xfd\x03\x34\x05\xfd\x03\x35\x01\x01", b"\xfd\x03\x40\x01\x01", b"\x62\x01t", b"\x54\x01\x02"]),
)
answers = st.builds(
    lambda name, content, meta, header: wrapped(data(name, content, meta), header),
    st.one_of(plain_names, plain_names, plain_names, odd_names),
    mostly(b"content", st.sampled_from([b"", b"x" * 300, b"x" * 3000])),
    metas,
    headers,
)
nacks = st.builds(
    lambda wire, reason: packet.encode_link(wire, nack_reason=reason),
    interests_for(plain_names),
    st.sampled_from([50, 150]),
)


def spoiled(wire: bytes, at: int, value: int) -> bytes:
    at %= len(wire)
    return wire[:at] + bytes((value,)) + wire[at + 1 :]


good = st.one_of(interests_for(plain_names), interests_for(plain_names), answers, answers, nacks)
packets = st.one_of(
    good,
    good,
    interests_for(odd_names),
    st.builds(spoiled, good, st.integers(0, 400), st.integers(0, 255)),
    st.just(b"\x64\x00"),
)
batches = st.tuples(
    st.integers(0, 3),  # the face
    st.lists(packets, min_size=1, max_size=6),
    st.sampled_from([0.0, 0.0, 0.01, 0.6, 1.5, 7.0]),  # the time that passes before
    st.booleans(),  # as a stream, or a packet at a time
)


def feed(world: World, face: Face, wires: list[bytes], now: float, is_stream: bool) -> int | str:
    """What the forwarder makes of packets that come together; what it raises for a stream that is none."""
    if not is_stream:
        world.forwarder.receive_batch(face, wires, now)
        return 0
    try:
        return world.forwarder.receive_stream(face, b"".join(wires), now)
    except packet.DecodeError as error:
        return str(error)


@settings(max_examples=150, deadline=None)
@given(st.lists(batches, min_size=1, max_size=8))
def test_both_ways_do_the_same(steps: list[tuple[int, list[bytes], float, bool]]) -> None:
    """Whatever comes, by whatever face and at whatever time, what is sent, counted, kept and awaited is the same."""
    fast, slow, now = World(is_fast=True), World(is_fast=False), 100.0
    for face, wires, passes_s, is_stream in steps:
        now += passes_s
        results = []
        for world in (fast, slow):
            world.forwarder.on_timer(now)
            results.append(feed(world, world.faces[face], wires, now, is_stream))
        assert results[0] == results[1]
        assert fast.state(now) == slow.state(now)


def plain(
    uri: str, nonce: bytes = b"one!", flags: bytes = b"", fields: tuple[bytes, ...] = (), digest: str = ""
) -> bytes:
    return interest(names.parse(uri), digest, flags, b"", b"\x0a\x04" + nonce, list(fields), None)


FRESH_ONLY, ANY_BELOW = b"\x12\x00", b"\x21\x00"
# Steps of face, packet and time, for what chance seldom brings about.
SITUATIONS: dict[str, list[tuple[int, bytes, float]]] = {
    "a late copy of an answered Interest": [
        (0, plain("/a/x", flags=FRESH_ONLY), 0.0),
        (1, data(names.parse("/a/x")), 0.1),
        (2, plain("/a/x"), 0.2),
        (0, plain("/a/x", nonce=b"two!"), 0.3),
    ],
    "names with digests in the store": [
        (0, tlv(5, tlv(7, STORED[2][0]) + b"\x0a\x04one!"), 0.0),
        (0, tlv(5, tlv(7, STORED[3][0]) + b"\x0a\x04one!"), 0.0),
    ],
    "stale in the store": [(0, plain("/a/a", flags=FRESH_ONLY), 0.0), (2, plain("/a/a", nonce=b"two!"), 0.1)],
    "another digest in the store": [
        (0, plain("/a/a", digest="wrong"), 0.0),
        (1, data(names.parse("/a/a")), 0.1),
        (1, data(names.parse("/a/a"), b"other"), 0.2),
        (0, plain("/a/a", nonce=b"two!", digest="right"), 0.3),
        (0, plain("/a/a", nonce=b"333!", digest="wrong"), 0.3),
    ],
    "somebody waits for a prefix": [
        (2, plain("/a/x", flags=ANY_BELOW), 0.0),
        (0, plain("/a/x/y"), 0.1),
        (1, data(names.parse("/a/x/y")), 0.2),
    ],
    "an answer from who was not asked": [
        (0, plain("/a/x"), 0.0),
        (2, data(names.parse("/a/x"), b"forged"), 0.1),
        (1, data(names.parse("/a/x")), 0.2),
    ],
    "one of two who wait has gone": [
        (0, plain("/a/x", fields=(b"\x0c\x01\x64",)), 0.0),
        (2, plain("/a/x", nonce=b"two!"), 0.05),
        (1, data(names.parse("/a/x")), 0.5),
    ],
    "who was asked waits too": [
        (0, plain("/a/x"), 0.0),
        (1, plain("/a/x", nonce=b"two!"), 0.05),
        (1, data(names.parse("/a/x")), 0.5),
    ],
    "two entries of one name": [
        (0, plain("/a/x"), 0.0),
        (0, plain("/a/x", nonce=b"two!", flags=FRESH_ONLY), 0.05),
        (1, data(names.parse("/a/x")), 0.5),
    ],
}


@pytest.mark.parametrize("situation", sorted(SITUATIONS))
def test_both_ways_do_the_same_in(situation: str) -> None:
    """The behaviour is the same in each of these situations too."""
    fast, slow = World(is_fast=True), World(is_fast=False)
    for face, wire, after_s in SITUATIONS[situation]:
        for world in (fast, slow):
            world.forwarder.on_timer(100.0 + after_s)
            world.forwarder.receive_stream(world.faces[face], wire, 100.0 + after_s)
        assert fast.state(100.0 + after_s) == slow.state(100.0 + after_s)
    assert any(face.sent for face in fast.faces) or situation == "names with digests in the store"


@given(st.lists(good, min_size=1, max_size=6), st.data())
def test_a_stream_may_be_cut_anywhere(wires: list[bytes], drawn: st.DataObject) -> None:
    """However a stream is cut into reads, what it causes is what it causes in one piece."""
    whole, cut = World(is_fast=True), World(is_fast=True)
    stream = b"".join(wires)
    used = whole.forwarder.receive_stream(whole.app, stream, 1.0)
    rest = b""
    for chunk in _cut(stream, drawn.draw(st.lists(st.integers(0, len(stream)), max_size=5))):
        rest += chunk
        rest = rest[cut.forwarder.receive_stream(cut.app, rest, 1.0) :]
    assert len(stream) - len(rest) == used
    assert cut.state(1.0) == whole.state(1.0)


def _cut(stream: bytes, places: list[int]) -> list[bytes]:
    ends = sorted([0, *places, len(stream)])
    return [stream[start:stop] for start, stop in itertools.pairwise(ends)]


# --- what must not go the long way

NAME = names.parse("/a/b/") + names.segment(7)
DIGEST = hashlib.sha256(data(NAME)).digest()
HINT = tlv(0x1E, tlv(7, FAR))
USUAL: dict[str, Callable[[], bytes]] = {
    "plain": lambda: interest(NAME, "", b"", b"", b"\x0a\x04new!", [], None),
    "PIT token": lambda: interest(NAME, "", b"", b"", b"\x0a\x04new!", [], 4),
    "MustBeFresh": lambda: interest(NAME, "", b"\x12\x00", b"", b"\x0a\x04new!", [], None),
    "implicit digest": lambda: interest(NAME, "right", b"", b"", b"\x0a\x04new!", [], None),
    "hint": lambda: interest(NAME, "right", b"", HINT, b"\x0a\x04new!", [], None),
    "lifetime": lambda: interest(NAME, "", b"", b"", b"\x0a\x04new!", [b"\x0c\x02\x03\xe8"], None),
    "hop limit": lambda: interest(NAME, "", b"", b"", b"\x0a\x04new!", [b"\x22\x01\x09"], None),
}


@pytest.mark.parametrize("is_stored", [True, False], ids=["hit", "miss"])
@pytest.mark.parametrize("kind", sorted(USUAL))
def test_usual_packets_take_the_fast_lane(monkeypatch: pytest.MonkeyPatch, kind: str, is_stored: bool) -> None:
    """Interests of the usual forms, and Data for them, are finished with on the fast lane."""
    world = World(is_fast=True)
    if is_stored:
        world.forwarder.content_store.insert(packet.decode_data(data(NAME)), 0.0)
    monkeypatch.setattr(world.forwarder, "_receive_slowly", lambda *_: pytest.fail("the long way"))
    world.forwarder.receive_stream(world.app, USUAL[kind](), 0.5)
    if not is_stored:
        upstream = world.far if kind == "hint" else world.near
        assert len(world.forwarder.pit) == upstream.outstanding == 1
        world.forwarder.receive_stream(upstream, data(NAME), 0.6)
    assert world.forwarder.counters.hits == is_stored and len(world.forwarder.pit) == 0
    token = bytes(4) if kind == "PIT token" else None
    assert world.app.sent == [packet.encode_link(data(NAME), pit_token=token)]


def test_a_holder_s_disk_answers_on_the_fast_lane(monkeypatch: pytest.MonkeyPatch) -> None:
    """What this node is asked for as a holder comes from its disk without the long way; what it lacks goes that way."""
    world = World(is_fast=True)
    monkeypatch.setattr(world.forwarder, "_receive_slowly", lambda *_: pytest.fail("the long way"))
    hint = tlv(0x1E, tlv(7, NODE))
    name = BLOBS + names.component("a")
    world.forwarder.receive_stream(world.app, interest(name, "right", b"", hint, b"\x0a\x04new!", [], None), 0.5)
    assert world.app.sent == [Disk.wire] and world.forwarder.counters.blob_hits == 1
    other = interest(BLOBS + names.component("b"), "", b"", hint, b"\x0a\x04new!", [], None)
    with pytest.raises(pytest.fail.Exception):
        world.forwarder.receive_stream(world.app, other, 0.6)


def test_a_changed_route_is_seen_at_once() -> None:
    """What is remembered of the FIB does not outlive a change of it, nor a face that goes down or is removed."""
    world = World(is_fast=True)
    router = world.forwarder

    def ask(number: int) -> None:
        name = names.parse("/a/x") + names.segment(number)
        router.receive_stream(world.app, interest(name, "", b"", b"", b"\x0a\x04new!", [], None), 0.0)
        world.far.flush()

    ask(1)
    router.fib.add(names.parse("/a/x"), world.far.id, 0, "static")
    ask(2)
    router.fib.remove(names.parse("/a/x"), world.far.id)
    ask(3)
    world.near.up = False
    ask(4)
    world.near.up = True
    router.remove_face(world.near)
    ask(5)
    assert (len(world.near.sent), len(world.far.sent)) == (2, 3)
