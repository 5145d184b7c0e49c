"""The content store against a plain model, and its budgets."""

from __future__ import annotations

import hashlib
import tracemalloc

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.forwarder import content_store
from gateway.forwarder.content_store import BULK_BYTES, ENTRY_OVERHEAD_BYTES, ContentStore
from gateway.forwarder.packet import Data
from gateway.protocol import names

some_names = st.lists(st.sampled_from(["a", "b", "c"]), max_size=3).map(
    lambda parts: b"".join(names.component(part) for part in parts)
)
steps = st.lists(
    st.one_of(
        st.tuples(st.just("insert"), some_names, st.binary(max_size=3), st.integers(0, 5)),
        st.tuples(st.just("pin"), some_names, st.binary(max_size=3)),
        st.tuples(st.just("unpin"), some_names),
        st.tuples(st.just("erase_below"), some_names),
    ),
    max_size=25,
)


class Model:
    """Name -> packet, the time from which it is stale, whether it is pinned."""

    def __init__(self) -> None:
        self.held: dict[bytes, tuple[Data, float, bool]] = {}

    def insert(self, data: Data, now: float) -> None:
        if not self.held.get(data.name, (data, 0.0, False))[2]:
            self.held[data.name] = (data, now + data.freshness_ms / 1000, False)

    def pin(self, data: Data) -> None:
        self.held[data.name] = (data, float("-inf"), True)

    def unpin(self, name: bytes) -> None:
        if name in self.held and self.held[name][2]:
            del self.held[name]

    def erase_below(self, prefix: bytes) -> int:
        doomed = [name for name, (_, _, pinned) in self.held.items() if name.startswith(prefix) and not pinned]
        for name in doomed:
            del self.held[name]
        return len(doomed)

    def answers(self, name: bytes, now: float, can_be_prefix: bool, fresh: bool, digest: bytes | None) -> list[Data]:
        return [
            data
            for held, (data, stale_at, _) in self.held.items()
            if (held == name or (can_be_prefix and digest is None and held.startswith(name)))
            and (not fresh or now < stale_at)
            and digest in (None, data.digest)
        ]


def build(changes: list[tuple]) -> tuple[ContentStore, Model, float]:  # type: ignore[type-arg]
    store, model, now = ContentStore(1 << 20), Model(), 0.0
    for kind, name, *rest in changes:
        if kind == "insert":
            data = Data(name, rest[0], freshness_ms=rest[1] * 1000)
            store.insert(data, now)
            model.insert(data, now)
        elif kind == "pin":
            store.pin(Data(name, rest[0]))
            model.pin(Data(name, rest[0]))
        else:
            assert getattr(store, kind)(name) == getattr(model, kind)(name)
        now += 0.5
    return store, model, now


@given(steps, some_names, st.booleans(), st.booleans(), st.none() | st.binary(max_size=3))
def test_the_store_answers_as_the_model(
    changes: list[tuple],  # type: ignore[type-arg]
    name: bytes,
    can_be_prefix: bool,
    fresh: bool,
    of_wire: bytes | None,
) -> None:
    """A lookup gives a packet that fits by name, freshness and digest whenever there is one, the exact name first."""
    store, model, now = build(changes)
    digest = None if of_wire is None else hashlib.sha256(of_wire).digest()
    found = store.find(name, now, can_be_prefix, fresh, digest)
    answers = model.answers(name, now, can_be_prefix, fresh, digest)
    assert (found is None) == (not answers)
    if found is not None:
        assert found.wire in {data.wire for data in answers if data.name == found.name}
        assert found.name == name or name not in {one.name for one in answers}
    assert len(store) == len(model.held)


@given(steps, some_names)
def test_the_books_balance(changes: list[tuple], prefix: bytes) -> None:  # type: ignore[type-arg]
    """The bytes that are counted are those of what is held, and nothing is left when all is removed."""
    store, model, _ = build(changes)
    counted = [data for data, _, is_pinned in model.held.values() if not is_pinned]
    assert store.size_bytes == sum(len(data.wire) + len(data.name) + ENTRY_OVERHEAD_BYTES for data in counted)
    store.erase_below(b"")
    for name in list(model.held):
        store.unpin(name)
    assert store.size_bytes == len(store) == 0
    assert store.find(prefix, 0.0, can_be_prefix=True) is None


@given(st.lists(st.tuples(st.integers(0, 30), st.integers(1, 6000)), max_size=60), st.integers(0, 40_000))
def test_the_budget_is_kept(packets: list[tuple[int, int]], capacity: int) -> None:
    """Whatever comes, the packets that are held cost no more than the capacity, also after it shrinks."""
    store = ContentStore(40_000)
    for number, size in packets:
        store.insert(Data(names.component(str(number)), bytes(size)), 0.0)
        assert store.size_bytes <= 40_000
    store.set_capacity(capacity)
    assert store.size_bytes <= capacity


def test_the_least_recently_used_leaves_first() -> None:
    """A packet that was asked for survives one that was not."""
    store = ContentStore(4 * (BULK_BYTES + 700))
    for letter in "abc":
        store.insert(Data(names.component(letter), bytes(BULK_BYTES)), 0.0)
    assert store.find(names.component("a"), 0.0) is not None
    store.insert(Data(names.component("d"), bytes(BULK_BYTES)), 0.0)
    held = [letter for letter in "abcd" if store.find(names.component(letter), 0.0)]
    assert held == ["a", "c", "d"]


def test_bulk_does_not_displace_control() -> None:
    """An image that passes leaves every small packet where it is."""
    store = ContentStore(200_000)
    for i in range(20):
        store.insert(Data(names.component(f"report{i}"), bytes(300)), 0.0)
    for i in range(500):
        store.insert(Data(names.component(f"segment{i}"), bytes(8000)), 0.0)
    assert all(store.find(names.component(f"report{i}"), 0.0) for i in range(20))
    assert store.bulk_bytes > 100_000


def test_a_packet_larger_than_the_store_displaces_nothing() -> None:
    """What can't be kept anyway empties no store."""
    store = ContentStore(4000)
    store.insert(Data(names.component("small"), bytes(100)), 0.0)
    store.insert(Data(names.component("medium"), bytes(BULK_BYTES)), 0.0)
    assert not store.insert(Data(names.component("large"), bytes(8000)), 0.0)
    assert len(store) == 2


def test_the_newest_version_and_its_first_segment() -> None:
    """A prefix is answered by the newest version that fits, and of a segmented one by the first segment."""
    store = ContentStore(1 << 20)
    for version in (3, 255, 256, 70_000):
        for segment in (0, 1, 300):
            name = names.parse("/a") + names.version(version) + names.segment(segment)
            store.insert(Data(name, b"x", freshness_ms=1000 if version < 70_000 else 0), 0.0)
    newest = store.find(names.parse("/a"), 0.5, can_be_prefix=True)
    fresh = store.find(names.parse("/a"), 0.5, can_be_prefix=True, must_be_fresh=True)
    assert newest is not None and newest.name == names.parse("/a/v=70000/seg=0")
    assert fresh is not None and fresh.name == names.parse("/a/v=256/seg=0")


def test_a_prefix_of_many_stale_packets_costs_little(monkeypatch: pytest.MonkeyPatch) -> None:
    """A lookup looks at no more packets than it may, and misses rather than walk through the store."""
    store, looked = ContentStore(1 << 22), []
    for i in range(2000):
        store.insert(Data(names.component(f"{i:05}"), b"x"), 0.0)
    fits = store._fits
    monkeypatch.setattr(store, "_fits", lambda *arguments: looked.append(1) or fits(*arguments))
    assert store.find(b"", 1.0, can_be_prefix=True, must_be_fresh=True) is None
    assert len(looked) <= content_store.PREFIX_SCAN_MAX


def test_pinned_packets_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """No more packets are pinned than the maximum, also when they are in the store already."""
    monkeypatch.setattr(content_store, "PINNED_MAX", 3)
    store = ContentStore(1 << 20)
    for i in range(6):
        data = Data(names.component(str(i)), b"x")
        store.insert(data, 0.0)
        store.pin(data)
    assert store.erase_below(b"") == 3


def test_a_packet_is_held_once() -> None:
    """A decoded packet has one copy of its content: what the store counts is what it costs."""
    wire = names.tlv(6, names.tlv(7, names.component("a")) + names.tlv(0x15, bytes(8000)) + b"\x16\x00\x17\x00")
    from gateway.forwarder.packet import decode_data

    data = decode_data(wire)
    assert len(data.content) == 8000
    held = [getattr(data, slot) for slot in Data.__slots__]
    assert sum(len(value) for value in held if isinstance(value, bytes)) < len(wire) + 40


def ask_for(store: ContentStore, prefix: str, count: int) -> int:
    """Asks for packets as a consumer through a gateway does, which keeps what it had to fetch; how many it had."""
    hits = 0
    for i in range(count):
        name = names.parse(prefix) + names.segment(i)
        if store.find(name, 0.0) is not None:
            hits += 1
        else:
            store.insert(Data(name, bytes(8000)), 0.0)
    return hits


def test_a_scan_leaves_what_is_asked_for_again() -> None:
    """An image ten times the store that passes once costs the one that is fetched again and again next to nothing."""
    store = ContentStore(4 << 20)
    for _ in range(3):
        ask_for(store, "/popular", 100)
    for scan in range(3):
        ask_for(store, f"/scan/{scan}", 4000)
        assert ask_for(store, "/popular", 100) >= 95


def test_what_comes_back_soon_is_kept() -> None:
    """A packet that had to leave on probation is kept when it is asked for again soon, so that a set settles."""
    store = ContentStore(4 << 20)
    for scan in range(6):
        ask_for(store, "/popular", 100)
        ask_for(store, f"/scan/{scan}", 400)
    assert ask_for(store, "/popular", 100) >= 95


def test_replacing_costs_no_memory() -> None:
    """A name whose packet changes all the time, and in size, is held once and leaves nothing behind."""
    store = ContentStore(1 << 20)
    for i in range(5000):
        store.insert(Data(names.component("head"), bytes(3000 if i % 2 else 100)), 0.0)
    assert len(store) == 1
    assert sum(len(queue) for kind in (store._bulk, store._control) for queue in (kind._probation, kind._settled)) < 300


def test_an_entry_costs_no_more_than_is_counted() -> None:
    """The overhead that the budget counts covers what Python takes for a packet beyond its bytes."""
    store, count = ContentStore(128 << 20), 20_000
    tracemalloc.start()
    for i in range(count):
        store.insert(Data(names.parse("/some/where") + names.segment(1 << 24 | i), bytes(500), freshness_ms=1000), 0.0)
    used = tracemalloc.get_traced_memory()[0] / count - 500
    tracemalloc.stop()
    assert len(store) == count
    assert used <= ENTRY_OVERHEAD_BYTES <= 2 * used
