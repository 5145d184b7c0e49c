"""The table of wants: admission, room, idempotence, time, and what a neighbour is told."""

from __future__ import annotations

import hashlib
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.forwarder.custody.wants import MAX_HOPS, REFUSED_S, Answer, Limits, Offered, Wants
from gateway.protocol.messages import BlobRef, Want

MB = 1 << 20
HOUR_S = 3600.0
LIMITS = Limits(72 * HOUR_S, 100 * MB, wants_max=50, per_wanter_max=10)


def ref(number: int, size: int = MB) -> BlobRef:
    sha256 = hashlib.sha256(str(number).encode()).digest()
    return BlobRef(sha256, size, hashlib.sha256(sha256).digest())


def offered(wanter: str, number: int = 0, version: int = 1, **options: object) -> Offered:
    """A verified want as a neighbour brings it; `size`, `priority`, `lifetime_s`, `withdrawn` are the want's."""
    told = {k: options.pop(k) for k in ("priority", "lifetime_s", "withdrawn", "holders") if k in options}
    want = Want(ref(number, int(str(options.pop("size", MB)))), wanter, **({"lifetime_s": HOUR_S} | told))  # type: ignore[arg-type]
    packet = repr((wanter, number, version)).encode()
    carried = {"hops": 4, "left_s": HOUR_S} | options
    return Offered(want, version, packet, **carried)  # type: ignore[arg-type]


@pytest.fixture
def wants() -> Wants:
    return Wants("me", LIMITS)


def keys(wants: Wants) -> list[tuple[str, bytes]]:
    return [entry.key for entry in wants.in_order()]


# --- admission


def test_takes_a_want_once(wants: Wants) -> None:
    """The same want by two ways is one entry, and whoever brought it is not told of it."""
    assert wants.offer(0, 0, offered("a", came_from="x")) is Answer.TAKEN
    assert wants.offer(5, 0, offered("a", came_from="y")) is Answer.KNOWN
    assert len(wants) == 1 and wants.custody_bytes == MB
    assert [wants.to_tell(6, node, "1") for node in "xy"] == [[], []]
    assert [entry.key[0] for entry in wants.to_tell(6, "z", "1")] == ["a"]


def test_the_shorter_way_counts(wants: Wants) -> None:
    """A copy that came over fewer hops may go as far as that one."""
    wants.offer(0, 0, offered("a", hops=1))
    wants.offer(1, 0, offered("a", hops=5))
    wants.offer(2, 0, offered("a", hops=2))
    (entry,) = wants
    assert entry.hops == 5
    wants.offer(3, 0, offered("b", hops=10_000))
    assert max(entry.hops for entry in wants) == MAX_HOPS - 1


def test_the_newer_version_counts(wants: Wants) -> None:
    """A renewed want lives longer, a withdrawn one is not waited for any more, and an old copy changes neither."""
    wants.offer(0, 0, offered("a", version=1))
    assert wants.offer(1000, 0, offered("a", version=3, left_s=5000)) is Answer.TAKEN
    assert wants.offer(1001, 0, offered("a", version=2)) is Answer.OLD
    (entry,) = wants
    assert (entry.version, entry.expires_at, entry.since) == (3, 1000 + HOUR_S, 0)
    assert wants.offer(1002, 0, offered("a", version=4, withdrawn=True)) is Answer.TAKEN
    assert keys(wants) == [] and len(wants) == 1 and wants.custody_bytes == 0
    assert wants.offer(1003, 0, offered("a", version=3)) is Answer.OLD


def test_a_withdrawal_is_not_remembered_longer_than_its_want(wants: Wants) -> None:
    """What keeps old copies away may go when these have expired."""
    wants.offer(0, 0, offered("a", left_s=100))
    wants.offer(10, 0, offered("a", version=2, withdrawn=True, left_s=3600))
    assert wants.next_deadline() == 100
    assert [entry.key[0] for entry in wants.expire(100)] == ["a"] and len(wants) == 0


@pytest.mark.parametrize(
    ("want", "answer"),
    [
        (offered("me"), Answer.OWN),
        (offered("a", left_s=0), Answer.EXPIRED),
        (offered("a", lifetime_s=-1.0), Answer.EXPIRED),
        (offered("a", size=101 * MB), Answer.TOO_LARGE),
        (offered("a", size=1 << 60), Answer.IMPOSSIBLE),
        (offered("a", size=-1), Answer.IMPOSSIBLE),
        (offered("a", priority=10), Answer.IMPOSSIBLE),
        (offered("a", holders=("x",) * 17), Answer.IMPOSSIBLE),
        (offered("x" * 65), Answer.IMPOSSIBLE),
    ],
)
def test_refuses_what_cannot_be_kept(wants: Wants, want: Offered, answer: Answer) -> None:
    """Each refusal has its reason, is counted, and leaves nothing behind."""
    assert wants.offer(0, 0, want) is answer
    assert len(wants) == 0
    assert wants.refused == ({answer: 1} if answer.is_refusal else {})


def test_a_want_does_not_change_its_blob(wants: Wants) -> None:
    """A new version of another size, which no room was made for, is refused."""
    wants.offer(0, 0, offered("a"))
    assert wants.offer(1, 0, offered("a", version=2, size=99 * MB)) is Answer.IMPOSSIBLE
    assert wants.custody_bytes == MB


def test_lifetime_is_the_least_of_three(wants: Wants) -> None:
    """What the wanter signed, what the carrier says is left, and what this node allows."""
    wants.offer(0, 0, offered("a", lifetime_s=500.0, left_s=1e9))
    wants.offer(0, 0, offered("b", lifetime_s=1e9, left_s=600.0))
    wants.offer(0, 0, offered("c", lifetime_s=1e9, left_s=1e9))
    assert [entry.expires_at for entry in wants] == [500, 600, LIMITS.lifetime_s]


# --- room


def test_bytes_are_counted_once_for_all_who_want_a_blob(wants: Wants) -> None:
    """A second wanter of a blob costs nothing, and the blob counts until the last one has gone."""
    assert wants.offer(0, 0, offered("a", size=90 * MB)) is Answer.TAKEN
    assert wants.offer(0, 0, offered("b", size=90 * MB)) is Answer.TAKEN
    assert wants.custody_bytes == 90 * MB
    wants.remove(("a", ref(0).sha256))
    assert wants.custody_bytes == 90 * MB
    wants.remove(("b", ref(0).sha256))
    assert wants.custody_bytes == 0


def test_own_wants_need_no_room(wants: Wants) -> None:
    """They are taken whatever is in custody, come first, and what others want of them is not charged."""
    for number in range(10):
        wants.offer(0, 0, offered(f"n{number}", number, size=10 * MB, priority=0))
    wants.put_own(1, 0, offered("me", 77, size=1000 * MB, priority=9))
    assert keys(wants)[0] == ("me", ref(77).sha256) and len(keys(wants)) == 11
    assert wants.offer(2, 0, offered("a", 77, size=1000 * MB)) is Answer.TAKEN
    assert wants.custody_bytes == 100 * MB


def test_the_urgent_displaces_the_less_urgent(wants: Wants) -> None:
    """Of those that are less urgent the least urgent goes, the youngest of them first; nothing goes for an equal."""
    for number, priority in enumerate((5, 7, 9, 9, 5)):
        wants.offer(number, 0, offered(f"n{number}", number, size=20 * MB, priority=priority))
    assert wants.offer(9, 0, offered("new", 10, size=20 * MB, priority=9)) is Answer.FULL
    assert wants.offer(9, 0, offered("new", 11, size=20 * MB, priority=6)) is Answer.TAKEN
    assert [key[0] for key in keys(wants)] == ["n0", "n4", "new", "n1", "n2"]
    assert wants.evictions == 1


def test_who_takes_most_gives_way(wants: Wants) -> None:
    """Among equals a wanter makes room only from those that take more than it would itself."""
    for number in range(10):
        wants.offer(number, 0, offered("greedy", number, size=10 * MB))
    for number in range(10, 20):
        wants.offer(number, 0, offered("modest", number, size=10 * MB))
    shares = [sum(key[0] == wanter for key in keys(wants)) for wanter in ("greedy", "modest")]
    assert shares == [5, 5] and wants.custody_bytes == 100 * MB


def test_nothing_is_evicted_for_what_does_not_fit_after_all(wants: Wants) -> None:
    """A refusal leaves the table as it was."""
    wants.offer(0, 0, offered("a", 0, size=50 * MB, priority=1))
    wants.offer(0, 0, offered("b", 1, size=40 * MB, priority=9))
    before = keys(wants)
    assert wants.offer(1, 0, offered("c", 2, size=70 * MB, priority=5)) is Answer.FULL
    assert keys(wants) == before and wants.evictions == 0


def test_one_wanter_has_so_many_wants(wants: Wants) -> None:
    """Its more urgent ones displace its own less urgent ones, never another's; withdrawals are no hindrance."""
    wants.offer(0, 0, offered("other", 99, priority=9))
    for number in range(10):
        wants.offer(number, 0, offered("a", number, priority=5))
    assert wants.offer(20, 0, offered("a", 20, priority=5)) is Answer.TOO_MANY
    assert wants.offer(20, 0, offered("a", 21, priority=4)) is Answer.TAKEN
    wants.offer(21, 0, offered("a", 3, version=2, withdrawn=True))
    assert wants.offer(22, 0, offered("a", 22, priority=5)) is Answer.TAKEN
    assert sum(key[0] == "a" for key in keys(wants)) == 10 and ("other", ref(99).sha256) in keys(wants)


def test_number_is_limited(wants: Wants) -> None:
    """No more wants than the table has places, however small they are."""
    answers = [wants.offer(n, 0, offered(f"n{n}", n, size=1)) for n in range(60)]
    assert answers == [Answer.TAKEN] * 50 + [Answer.FULL] * 10 and len(wants) == 50


# --- meetings


def test_order_of_telling(wants: Wants) -> None:
    """Own wants and withdrawals first, then others' withdrawals, then by priority and age; not the neighbour's own."""
    wants.offer(0, 0, offered("a", 0, priority=5))
    wants.offer(1, 0, offered("b", 1, priority=2))
    wants.offer(2, 0, offered("c", 2, withdrawn=True))
    wants.offer(3, 0, offered("n", 3))
    wants.put_own(4, 0, offered("me", 4, priority=9))
    assert [e.key[0] for e in wants.to_tell(5, "n", "1")] == ["me", "c", "b", "a"]


def test_a_neighbour_is_told_once(wants: Wants) -> None:
    """Until it has restarted, or hours have passed; one that refused is asked again after ten minutes."""
    wants.offer(0, 0, offered("a", 0, lifetime_s=1e6, left_s=1e6))
    wants.offer(0, 0, offered("b", 1, lifetime_s=1e6, left_s=1e6))
    a, b = wants.to_tell(1, "n", "boot1")
    wants.told(a, 1, "n", "boot1")
    wants.told(b, 1, "n", "boot1", REFUSED_S)
    assert wants.to_tell(2, "n", "boot1") == []
    assert wants.to_tell(2, "n", "boot2") == [a, b]
    assert wants.to_tell(700, "n", "boot1") == [b]
    assert wants.to_tell(7 * HOUR_S, "n", "boot1") == [a, b]


def test_a_want_ends_after_so_many_hops() -> None:
    """Passed along a chain of nodes it stops at the last that it may reach."""
    chain = [Wants(f"n{number}", LIMITS) for number in range(12)]
    entry = chain[0].put_own(0, 0, offered("n0"))
    reached = 0
    while entry.hops > 0:
        reached += 1
        brought = replace(offered("n0"), hops=entry.hops - 1, came_from=f"n{reached - 1}")
        assert chain[reached].offer(0, 0, brought) is Answer.TAKEN
        (entry,) = chain[reached]
    assert reached == MAX_HOPS
    assert chain[reached].to_tell(0, "next", "1") == []


# --- what is written


def test_changes_are_collected_until_they_are_taken(wants: Wants) -> None:
    """Each change is written once, and again if the disk did not take it."""
    wants.offer(0, 0, offered("a", 0))
    wants.offer(0, 0, offered("b", 1))
    written, removed = wants.take_changes()
    assert sorted(e.key[0] for e in written) == ["a", "b"] and removed == []
    assert wants.take_changes() == ([], [])
    wants.remove(("a", ref(0).sha256))
    written, removed = wants.take_changes()
    assert (written, removed) == ([], [("a", ref(0).sha256)])
    wants.put_back(written, removed)
    assert wants.take_changes() == (written, removed)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.sampled_from(["me", *(f"n{n}" for n in range(12))]),
            st.integers(0, 15),
            st.integers(1, 4),
            st.integers(0, 9),
            st.sampled_from([1, MB, 30 * MB, 60 * MB, 101 * MB]),
            st.booleans(),
            st.floats(0, 200),
        ),
        max_size=60,
    )
)
def test_never_more_than_the_limits(steps: list[tuple[str, int, int, int, int, bool, float]]) -> None:
    """Whatever is offered, the table keeps to its limits, loses no own want, and its sums are right."""
    wants = Wants("me", Limits(500.0, 100 * MB, wants_max=8, per_wanter_max=3))
    own: set[bytes] = set()
    now = 0.0
    for wanter, number, version, priority, size, withdrawn, pause in steps:
        now += pause
        own -= {entry.key[1] for entry in wants.expire(now) if wants.is_own(entry)}
        told = offered(wanter, number, version, priority=priority, size=size, withdrawn=withdrawn, lifetime_s=400.0)
        if wanter == "me":
            wants.put_own(now, 0, told)
            own.add(told.want.blob.sha256)
        else:
            wants.offer(now, 0, told)
        entries = list(wants)
        others = [e for e in entries if e.key[0] != "me"]
        assert len(others) <= 8
        assert all(sum(e.key[0] == w for e in others) <= 3 for w in {e.key[0] for e in others})
        assert {e.key[1] for e in entries if e.key[0] == "me"} == own
        waiting_own = {e.key[1] for e in entries if e.key[0] == "me" and e.is_waiting}
        sizes: dict[bytes, int] = {}
        for e in others:
            if e.is_waiting and e.key[1] not in waiting_own:
                sizes[e.key[1]] = max(sizes.get(e.key[1], 0), e.want.blob.size)
        assert wants.custody_bytes == sum(sizes.values())
