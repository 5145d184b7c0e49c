"""The PIT against a plain list, its timers, and the dead nonce list."""

from __future__ import annotations

import hashlib
import tracemalloc

from hypothesis import given
from hypothesis import strategies as st

from gateway.forwarder import pit
from gateway.forwarder.faces.base import Face
from gateway.forwarder.packet import Data, Interest
from gateway.forwarder.pit import DEAD_NONCE_LIFETIME_S, TICK_S, DeadNonceList, InRecord, OutRecord, Pit, PitEntry
from gateway.protocol import names

some_names = st.lists(st.sampled_from(["a", "b"]), max_size=3).map(
    lambda parts: b"".join(names.component(part) for part in parts)
)
WIRES = {name: b"Data of " + name for name in (b"", names.parse("/a"), names.parse("/a/b"), names.parse("/a/b/a"))}


def digest_of(name: bytes) -> bytes:
    return hashlib.sha256(WIRES.get(name, b"other")).digest()


interests = st.builds(
    lambda name, digest, prefix, fresh: Interest(name, b"", digest(name), prefix, fresh, nonce=b"1234"),
    some_names,
    st.sampled_from([lambda name: None, lambda name: None, digest_of, lambda name: bytes(32)]),
    st.booleans(),
    st.booleans(),
)


def key(interest: Interest) -> tuple[bytes, bytes | None, bool, bool]:
    return interest.name, interest.digest, interest.can_be_prefix, interest.must_be_fresh


@given(st.lists(st.tuples(st.booleans(), interests), max_size=30), st.sampled_from(sorted(WIRES)))
def test_data_finds_all_entries_that_it_satisfies(steps: list[tuple[bool, Interest]], name: bytes) -> None:
    """After any insertions and removals Data finds exactly the entries that a search of all of them finds."""
    table, model = Pit(), {}
    for is_insertion, interest in steps:
        entry = table.find(interest)
        assert entry is model.get(key(interest))
        if is_insertion and entry is None:
            model[key(interest)] = table.insert(interest)
        elif not is_insertion and entry is not None:
            table.erase(model.pop(key(interest)))
    assert len(table) == len(model) == len(list(table))
    expected = [
        entry
        for entry in model.values()
        if (entry.name == name and entry.digest in (None, digest_of(name)))
        or (entry.can_be_prefix and entry.digest is None and name.startswith(entry.name) and name != entry.name)
    ]
    found = table.satisfied_by(Data(name, WIRES[name]))
    assert sorted(map(id, found)) == sorted(map(id, expected))


def test_an_interest_that_names_its_next_hop_is_another() -> None:
    """The face that a consumer names is part of what an entry is."""
    table, interest = Pit(), Interest(names.parse("/a"), b"", nonce=b"1234")
    plain, named = table.insert(interest), table.insert(interest, 7)
    assert table.find(interest) is plain and table.find(interest, 7) is named and table.find(interest, 8) is None


@given(st.lists(st.tuples(st.integers(0, 5), st.floats(0, 50)), max_size=40))
def test_entries_expire_in_order(steps: list[tuple[int, int]]) -> None:
    """An entry expires within a tick after the last expiry it was given, never before, and once."""
    table = Pit()
    entries = [table.insert(Interest(names.component(str(i)), b"", nonce=b"1234")) for i in range(6)]
    latest: dict[int, float] = {}
    for index, when in steps:
        table.set_expiry(entries[index], when)
        latest[index] = when
    for now in (10.0, 25.0, 60.0):
        earliest, deadline = min(latest.values(), default=None), table.next_deadline()
        assert (earliest is None) == (deadline is None)
        assert earliest is None or deadline is None or earliest <= deadline <= earliest + TICK_S
        expired = {entries.index(entry) for entry in table.pop_expired(now)}
        assert {i for i, when in latest.items() if when <= now - TICK_S} <= expired
        assert expired <= {i for i, when in latest.items() if when <= now}
        for index in expired:
            table.erase(entries[index])
            del latest[index]


def test_timers_of_answered_entries_are_swept_out() -> None:
    """A long lifetime costs no memory once the Interest is answered, nor do retransmissions."""
    table = Pit()
    waiting = table.insert(Interest(names.parse("/waiting"), b"", nonce=b"1234"))
    tracemalloc.start()
    for i in range(20_000):
        now = i / 100
        entry = table.insert(Interest(names.parse("/a"), b"", nonce=b"1234"))
        table.set_expiry(entry, now + 60)
        table.set_expiry(waiting, now + 60)
        table.erase(entry)
        assert i % 25 or table.pop_expired(now) == []
    used = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    assert used < 500_000
    assert table.pop_expired(now + 60 + TICK_S) == [waiting]


def record(face: Face, nonce: bytes) -> InRecord:
    return InRecord(face, nonce, None, b"", 4.0)


def test_a_nonce_is_a_duplicate_unless_its_own_face_repeats_it() -> None:
    """A nonce that another face brought, or that was sent out, has looped; the same face may send it again."""
    one, two, upstream = (Face(f"face://{name}") for name in ("one", "two", "upstream"))
    entry = PitEntry(b"", None, False, False)
    entry.in_records.append(record(one, b"one!"))
    entry.out_records.append(OutRecord(upstream, b"one!", 0.0, 4.0))
    assert not entry.has_nonce(b"one!", one)
    assert entry.has_nonce(b"one!", two) and entry.has_nonce(b"one!", upstream)
    entry.in_records[0] = record(one, b"two!")
    assert entry.has_nonce(b"one!", two) and not entry.has_nonce(b"new!", two)


def test_dead_nonces_are_forgotten_in_time() -> None:
    """A nonce is remembered with its name for its lifetime, then no more, whether others are added or not."""
    dead, name = DeadNonceList(), names.parse("/a")
    dead.add(name, b"1234", 0.0)
    assert dead.has(name, b"1234", DEAD_NONCE_LIFETIME_S - 0.1)
    assert not dead.has(name, b"4321", 0.0) and not dead.has(names.parse("/b"), b"1234", 0.0)
    assert not dead.has(name, b"1234", DEAD_NONCE_LIFETIME_S) and len(dead) == 0


def test_dead_nonces_are_bounded() -> None:
    """However many there are, the list keeps the newest up to its capacity."""
    dead, name = DeadNonceList(), names.parse("/a")
    total = pit.DEAD_NONCE_CAPACITY + 100
    for i in range(total):
        dead.add(name, i.to_bytes(4, "big"), 0.0)
    assert len(dead) == pit.DEAD_NONCE_CAPACITY
    assert not dead.has(name, (99).to_bytes(4, "big"), 0.0) and dead.has(name, (100).to_bytes(4, "big"), 0.0)


def test_the_table_says_when_it_is_full() -> None:
    """At its capacity the table is full, and has room again after an entry went."""
    table = Pit(capacity=2)
    entries = [table.insert(Interest(names.component(str(i)), b"", nonce=b"1234")) for i in range(2)]
    assert table.is_full
    table.erase(entries[0])
    assert not table.is_full
