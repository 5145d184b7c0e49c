"""Whom a transfer asks: preference, trial, refusal, and the share of each."""

from gateway.forwarder.holders import LOSSES_MAX, REFUSALS_MAX, SLOW_AFTER_S, Holder, Holders, Job, Paths
from gateway.protocol import names

A, B, C = (names.parse(f"/n/node/{name}") for name in "abc")


def hints(holders: list[Holder]) -> list[bytes]:
    return [holder.hint for holder in holders]


def job(index: int = 0) -> Job:
    return Job(index, names.parse(f"/n/blob/{index}"))


def asked(holder: Holder, work: Job, now: float) -> Job:
    work.sent = now
    holder.in_flight[work.name] = work
    return work


def answered(holders: Holders, holder: Holder, work: Job, now: float, size: int = 8000) -> None:
    holder.in_flight.pop(work.name, None)
    holders.on_answer(holder, size, now)


def test_only_the_first_that_delivers_is_asked() -> None:
    """Holders are asked in the order given, each named once; no hint at all is a holder too."""
    holders = Holders([A, B, A, C])
    assert hints(holders.all) == [A, B, C]
    assert hints(holders.active(0.0)) == [A]
    assert hints(Holders([]).all) == [b""] and Holders([b""]).all[0].hint_field == b""


def test_one_that_is_silent_is_left_alone_and_tried_again_with_one_packet() -> None:
    """After two silences the next is asked; a second later one packet goes to the first again beside it."""
    holders, work = Holders([A, B]), job()
    first, second = holders.all
    holders.on_silence(first, work, 3.0)
    assert hints(holders.active(3.0)) == [A]
    holders.on_silence(first, work, 3.0)
    assert hints(holders.active(3.0)) == [B]
    assert hints(holders.active(4.1)) == [A, B]
    assert first.room == 1 and second.room == 6
    assert holders.choose(job(1), holders.active(4.1), 4.1) is first
    asked(first, job(1), 4.1)
    assert holders.choose(job(2), holders.active(4.1), 4.1) is second
    answered(holders, first, job(1), 4.2)
    assert hints(holders.active(4.2)) == [A] and first.room == 6


def test_who_fails_again_is_left_alone_for_longer() -> None:
    """1, 2, 4, 8 s while somebody else delivers."""
    holders, work, now, pauses = Holders([A, B]), job(), 0.0, []
    first = holders.all[0]
    for _ in range(6):
        holders.on_refusal(first, work, now)
        work.refused = None
        pauses.append(first.free_at - now)
        now = first.free_at
    assert pauses == [1, 2, 4, 8, 8, 8]


def test_when_nobody_delivers_all_are_asked_again_soon() -> None:
    """The pause is short at first and grows to a second, however long anybody should have been left alone."""
    holders, now, pauses = Holders([A, B]), 0.0, []
    for _ in range(12):
        for holder in holders.all:
            holders.on_refusal(holder, job(), now)
        again = holders.next_deadline(now)
        assert again is not None and len(holders.active(again)) >= 1
        pauses.append(again - now)
        now = again
    assert pauses[0] <= 0.05 and max(pauses) <= 1.001 and pauses[-1] > 0.5


def test_a_holder_of_parts_is_asked_for_what_it_has() -> None:
    """A refused packet goes to the next holder at once; the first is left only after several refusals in a row."""
    holders = Holders([A, B])
    first, second = holders.all
    answered(holders, first, job(), 0.0)
    for number in range(REFUSALS_MAX - 1):
        work = job(number)
        holders.on_refusal(first, work, 1.0)
        assert holders.choose(work, holders.active(1.0), 1.0) is second
        assert holders.choose(job(99), holders.active(1.0), 1.0) is first
    answered(holders, first, job(), 1.5)
    for number in range(REFUSALS_MAX):
        holders.on_refusal(first, job(number), 2.0)
    assert hints(holders.active(2.0)) == [B]


def test_a_retransmission_goes_the_same_way_while_the_parent_lives() -> None:
    """One lost packet among others that come is asked of the same holder again, a few times."""
    holders, work = Holders([A, B]), job()
    first, second = holders.all
    for _ in range(LOSSES_MAX - 1):
        holders.on_loss(first, work)
        assert holders.choose(work, holders.active(1.0), 1.0) is first
    holders.on_loss(first, work)
    assert holders.choose(work, holders.active(1.0), 1.0) is second
    assert holders.choose(job(1), holders.active(1.0), 1.0) is first


def test_what_came_forged_is_asked_elsewhere() -> None:
    """The second attempt is made with another holder."""
    holders, work = Holders([A, B]), job()
    work.is_forged = True
    holders.on_loss(holders.all[0], work)
    assert holders.choose(work, holders.active(1.0), 1.0) is holders.all[1]


def test_what_all_refused_waits_and_goes_round_again() -> None:
    """After the last refusal everybody may be asked again, after pauses that grow to a second."""
    holders, work, pauses = Holders([A, B]), job(), []
    for _ in range(8):
        for holder in holders.all:
            holders.exclude(holder, work)
        assert work.refused is None
        pauses.append(holders.pause_s(work))
    assert pauses == [0.05, 0.1, 0.2, 0.4, 0.8, 1, 1, 1]


def slowly(holders: Holders, bytes_s: dict[bytes, float], seconds: int, start: float = 0.0) -> None:
    """Every second each holder that is asked delivers so many bytes."""
    for second in range(seconds + 1):
        now = start + second
        for holder in holders.active(now):
            work = asked(holder, job(int(now)), now)
            holders.on_answer(holder, int(bytes_s[holder.hint]), now)
            holders.measure(now)
            holder.in_flight.pop(work.name)
            holder.in_flight[b"another"] = work


def test_a_slow_holder_gets_help_and_then_gives_up_its_place() -> None:
    """Below half a megabit a second the next one is asked as well; twice as fast, it comes first and alone."""
    holders = Holders([A, B, C])
    assert hints(holders.active(0.0)) == [A]
    slowly(holders, {A: 20_000, B: 30_000, C: 20_000}, int(SLOW_AFTER_S))
    assert hints(holders.active(4.0)) == [A, B]
    slowly(holders, {A: 20_000, B: 200_000, C: 1}, 2 * int(SLOW_AFTER_S) + 1, start=4.0)
    assert hints(holders.active(20.0)) == [B]


def test_a_fast_holder_is_asked_alone() -> None:
    """Other holders get nothing to do while the first one brings enough."""
    holders = Holders([A, B])
    slowly(holders, {A: 100_000, B: 1e6}, 20)
    assert hints(holders.active(20.0)) == [A]


def test_a_contact_puts_its_holder_first() -> None:
    """Holders named later come before the others, and who had failed may be asked at once."""
    holders, work = Holders([A, B]), job()
    first = holders.all[0]
    asked(first, work, 0.0)
    holders.on_refusal(first, job(1), 1.0)
    holders.prefer([C, B])
    assert hints(holders.all) == [C, B, A]
    assert holders.begin_again() == [work] and not first.in_flight
    assert not first.strikes and first.free_at < 1.0


def test_what_was_learnt_of_a_path_is_for_its_holder_alone() -> None:
    """The next transfer begins faster from who delivered before, slowly from others and from who has failed since."""
    paths = Paths()
    for name in (A, C):
        holders = Holders([name], paths)
        holder = holders.all[0]
        for number in range(60):
            answered(holders, holder, job(number), 0.1)
            holder.window.on_data(0.1, 0.1)
        if name == C:
            holders.on_refusal(holder, job(), 0.2)
            for _ in range(REFUSALS_MAX):
                holders.on_refusal(holder, job(), 0.2)
        holders.end(1.0)
    sizes = {}
    for holder in Holders([A, B, C], paths).all:
        holder.window.on_data(0.1, 2.0)
        sizes[holder.hint] = holder.window.size
    assert sizes[A] > 30 and sizes[B] == sizes[C] == 7
