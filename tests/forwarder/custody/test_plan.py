"""What is fetched next and from whom, as pure decisions."""

from __future__ import annotations

from collections.abc import Callable

from gateway.forwarder.custody.plan import (
    FAR_RETRY_S,
    GRACE_S,
    NEAR_MAX,
    NEAR_RETRY_S,
    Contact,
    Fetch,
    Plan,
    Surroundings,
)
from gateway.forwarder.custody.wants import Limits, Wants
from gateway.protocol.messages import BlobRef
from tests.forwarder.custody.test_wants import MB, offered, ref

LIMITS = Limits(1e6, 1000 * MB)


class Desk:
    """A table, a plan, and surroundings that a test arranges."""

    def __init__(self) -> None:
        self.wants = Wants("me", LIMITS)
        self.plan = Plan(self.wants)
        self.contacts: dict[str, Contact] = {}
        self.held: set[bytes] = set()
        self.reachable: set[str] = set()
        self.fits: Callable[[BlobRef], bool] = lambda ref: True

    @property
    def around(self) -> Surroundings:
        return Surroundings(self.contacts, self.held.__contains__, self.fits, self.reachable.__contains__)

    def meet(self, node: str, *numbers: int) -> None:
        self.contacts[node] = Contact(node, len(self.contacts), "1", {ref(n).sha256[:8] for n in numbers})

    def want(self, wanter: str, number: int, now: float = 0.0, **options: object) -> None:
        told = offered(wanter, number, lifetime_s=1e6, left_s=1e6, **options)
        if wanter == "me":
            self.wants.put_own(now, 0, told)
        else:
            self.wants.offer(now, 0, told)

    def next(self, *running: Fetch, now: float = 0.0) -> Fetch | None:
        return self.plan.next(now, self.around, running)

    def all(self, now: float = 0.0) -> list[Fetch]:
        """Everything that would run at the same time."""
        running: list[Fetch] = []
        while (fetch := self.plan.next(now, self.around, running)) is not None:
            running.append(fetch)
        return running


def test_own_first_then_priority_then_age() -> None:
    """One fetch at a time from a neighbour, in this order."""
    desk = Desk()
    for number, wanter, priority in ((1, "a", 5), (2, "b", 3), (3, "c", 3), (4, "me", 9)):
        desk.want(wanter, number, now=number, priority=priority)
    desk.meet("x", 1, 2, 3, 4)
    order = []
    for _ in range(4):
        (fetch,) = desk.all()
        order.append(fetch.ref)
        desk.held.add(fetch.ref.sha256)
    assert order == [ref(4), ref(2), ref(3), ref(1)]
    assert desk.next() is None


def test_several_neighbours_at_once_up_to_a_limit() -> None:
    """Each has its own fetch, and there are not more than a few."""
    desk = Desk()
    for number in range(10):
        desk.want("a", number)
        desk.meet(f"n{number}", number)
    fetches = desk.all()
    assert len(fetches) == NEAR_MAX and len({fetch.near for fetch in fetches}) == NEAR_MAX


def test_others_that_hold_it_come_after() -> None:
    """All neighbours that hold a blob are hints; one that waits for it itself, and has a part, is the last."""
    desk = Desk()
    for wanter in ("a", "n1"):
        desk.want(wanter, 1)
    for node in ("n1", "n2", "n3"):
        desk.meet(node, 1)
    fetch = desk.next()
    assert fetch is not None and fetch.holders == ("n2", "n3", "n1")


def test_the_only_wanter_has_nothing_to_give() -> None:
    """What the wanter itself has in part is of no use to anybody."""
    desk = Desk()
    desk.want("a", 1)
    desk.meet("a", 1)
    assert desk.all() == []
    desk.meet("x")
    assert [fetch.near for fetch in desk.all()] == [""]


def test_no_room_no_fetch_for_others() -> None:
    """An own blob is fetched whatever there is."""
    desk = Desk()
    desk.fits = lambda ref: False
    desk.want("a", 1)
    desk.want("me", 2)
    desk.meet("x", 1, 2)
    assert [fetch.ref for fetch in desk.all()] == [ref(2)]


def test_far_only_for_others_and_only_while_somebody_is_met() -> None:
    """A node's own far fetches are the placement client's; alone in the field nothing can come."""
    desk = Desk()
    desk.want("me", 1)
    desk.want("a", 2, holders=("h1", "h2"))
    assert desk.all() == []
    desk.meet("x")
    assert desk.all() == [Fetch(ref(2), "", ("h1", "h2", ""), False)]


def test_a_named_holder_fetches_only_for_itself() -> None:
    """What others say is here, or in the repository beside this node, is not fetched back; a's word binds a alone."""
    desk = Desk()
    desk.want("a", 1, holders=("x", "me"))
    desk.meet("x", 1)
    assert desk.all() == []
    desk.want("b", 1, now=1.0, holders=("x",))
    assert [fetch.near for fetch in desk.all()] == ["x"]
    alone = Desk()
    alone.want("a", 1, holders=("me",))
    alone.want("me", 1, holders=("me",))
    alone.meet("x", 1)
    assert [fetch.is_own for fetch in alone.all()] == [True]


def test_who_can_fetch_itself_is_left_to_do_so_for_a_while() -> None:
    """A wanter with a route, if it is no neighbour; after the grace it is helped all the same."""
    desk = Desk()
    desk.want("a", 1)
    desk.meet("x")
    desk.reachable.add("a")
    assert desk.all() == []
    assert len(desk.all(now=GRACE_S + 1)) == 1
    desk.meet("a")
    assert len(desk.all()) == 1


def test_a_failure_waits_and_the_wait_doubles() -> None:
    """Near from seconds to a minute; one that is heard is asked at once, unless it has failed time and again."""
    desk = Desk()
    desk.want("me", 1)
    desk.meet("x", 1)
    now, waits = 0.0, []
    for _ in range(8):
        fetch = desk.next(now=now)
        assert fetch is not None
        desk.plan.failed(now, fetch)
        assert desk.next(now=now) is None
        deadline = desk.plan.next_deadline(now)
        assert deadline is not None
        waits.append(deadline - now)
        now = deadline
    assert waits[:3] == [NEAR_RETRY_S[0] * n for n in (1, 2, 4)] and waits[-1] == NEAR_RETRY_S[1]
    fetch = Fetch(ref(1), "x", ("x",), True)
    desk.plan.failed(now, fetch)
    desk.plan.met("x", is_new=False)
    assert desk.next(now=now) is None
    desk.plan.failed(now, fetch, has_moved=True)
    assert desk.next(now=now) is None
    desk.plan.met("x", is_new=False)
    assert desk.next(now=now) is not None
    desk.plan.failed(now + 1e3, fetch)
    desk.plan.met("x", is_new=True)
    assert desk.next(now=now) is not None


def test_a_new_neighbour_is_a_new_chance_for_far_fetches() -> None:
    """Only a new one; one that is just heard again is not."""
    desk = Desk()
    desk.want("a", 1)
    desk.meet("x")
    (fetch,) = desk.all()
    desk.plan.failed(0.0, fetch)
    desk.plan.met("x", is_new=False)
    assert desk.all() == [] and desk.plan.next_deadline(0.0) == FAR_RETRY_S[0]
    desk.plan.met("y", is_new=True)
    assert desk.all() == [fetch]


def test_what_is_announced_is_fetched_even_for_this_node() -> None:
    """A custodian over several hops, or a stick, says that it has an own blob; if it is not there, that was it."""
    desk = Desk()
    desk.want("me", 1)
    desk.plan.announce(ref(1).sha256, "far-away")
    (fetch,) = desk.all()
    assert fetch == Fetch(ref(1), "", ("far-away", ""), True)
    desk.plan.failed(0.0, fetch)
    assert desk.all(now=1e5) == []


def test_what_is_to_stop() -> None:
    """Nobody wants it, its neighbour has gone, an own want is to go first there, or a neighbour has it after all."""
    desk = Desk()
    for number in range(4):
        desk.want("a", number)
    desk.meet("x", 1, 2, 3)
    running = [Fetch(ref(n), near, (near,), False) for n, near in ((1, "x"), (2, "gone"), (3, ""), (9, "x"))]
    assert desk.plan.to_stop(0.0, desk.around, running) == [running[1], running[2], running[3]]
    desk.want("me", 7)
    desk.meet("x", 1, 7)
    assert running[0] in desk.plan.to_stop(0.0, desk.around, running)
    own = Fetch(ref(7), "x", ("x",), True)
    assert desk.plan.to_stop(0.0, desk.around, [own]) == []


def test_two_blobs_of_one_hash_have_turns() -> None:
    """The one that has failed less often is tried, so that a liar does not stand in the way."""
    desk = Desk()
    desk.want("liar", 1, size=5, priority=0)
    desk.want("a", 1)
    desk.meet("x", 1)
    first = desk.next()
    assert first is not None and first.ref == ref(1, 5)
    desk.plan.failed(0.0, first)
    second = desk.next(now=100.0)
    assert second is not None and second.ref == ref(1)
