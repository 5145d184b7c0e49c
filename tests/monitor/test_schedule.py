"""When hellos and probes are due."""

from __future__ import annotations

from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.monitor.schedule import HELLO_FAILURES, HelloSchedule, ProbeSchedule


def test_first_hello_is_due_at_once() -> None:
    """A new face is greeted without delay."""
    assert HelloSchedule(7.0, Random(1)).next_at == 7.0


@given(st.integers(0, 1000))
def test_hellos_back_off_to_a_minute(seed: int) -> None:
    """While nothing changes the pause grows from 10 s to 60 s, each within a quarter of its mean."""
    schedule, now = HelloSchedule(0.0, Random(seed)), 0.0
    schedule.succeeded(now, is_settled=False)
    assert 7.5 <= schedule.next_at - now <= 12.5
    for _ in range(12):
        now = schedule.next_at
        schedule.succeeded(now, is_settled=True)
        assert 7.5 <= schedule.next_at - now <= 75
    assert 45 <= schedule.next_at - now <= 75
    schedule.succeeded(now, is_settled=False)
    assert schedule.next_at - now <= 12.5


def test_dead_neighbour_is_known_within_seconds() -> None:
    """Even after long quiet, three failures follow each other within six seconds."""
    schedule = HelloSchedule(0.0, Random(1))
    for _ in range(9):
        schedule.succeeded(0.0, is_settled=True)
    now = start = 100.0
    for _ in range(HELLO_FAILURES - 1):
        schedule.failed(now)
        now = schedule.next_at
    assert now - start < 6.0
    schedule.failed(now)
    assert schedule.failures == HELLO_FAILURES and schedule.next_at - now > 7.0


def test_hurry_is_limited() -> None:
    """A neighbour that asks all the time does not make us ask all the time, and its last question is not forgotten."""
    schedule = HelloSchedule(0.0, Random(1))
    schedule.succeeded(0.0, is_settled=False)
    schedule.hurry(1.0)
    assert schedule.next_at <= 1.5
    schedule.succeeded(1.5, is_settled=False)
    for now in (2.0, 2.1, 3.0, 4.9):
        schedule.hurry(now)
        assert 5.0 <= schedule.next_at <= 5.5
    schedule.sent()
    schedule.hurry(50.0)
    assert schedule.next_at == float("inf"), "a hello on its way is not doubled"


def _due(schedule: ProbeSchedule, now: float, **changed: bool | int) -> bool:
    situation = {"is_stale": True, "is_doubtful": False, "is_held": False, "is_slow": True, "outstanding": 0} | changed
    return schedule.is_due(now, **situation)  # type: ignore[arg-type]


def test_probe_waits_for_an_idle_link() -> None:
    """No probe while Interests are outstanding or traffic flows; a forgotten Interest holds it up for a minute only."""
    schedule = ProbeSchedule(0.0, Random(1), goes_first=True)
    assert not _due(schedule, 5.0, outstanding=1)
    assert not _due(schedule, 5.5, is_slow=False)
    assert not _due(schedule, 6.0, outstanding=1)
    assert _due(schedule, 6.1)
    assert _due(schedule, 66.0, outstanding=1)


def test_probe_waits_for_others_but_not_for_ever() -> None:
    """While a neighbour probes us ours waits, a few seconds at most."""
    schedule = ProbeSchedule(0.0, Random(1), goes_first=False)
    assert not _due(schedule, 5.0, is_held=True)
    assert _due(schedule, 5.0)
    assert _due(schedule, 10.1, is_held=True)


def test_one_end_goes_first() -> None:
    """The two ends' first probes are at least a second apart."""
    for seed in range(100):
        first, second = (ProbeSchedule(0.0, Random(seed), goes_first=g) for g in (True, False))
        assert second.ready_at - first.ready_at >= 1.0


def test_doubt_borrows_one_pause() -> None:
    """A doubtful figure is probed early once; the pause borrowed is paid back, so that the share of airtime holds."""
    schedule = ProbeSchedule(0.0, Random(1), goes_first=True)
    schedule.succeeded(2.0, 0.5)
    assert not _due(schedule, 10.0)
    assert _due(schedule, 10.0, is_stale=False, is_doubtful=True)
    schedule.succeeded(10.0, 0.5)
    assert not _due(schedule, 400.0, is_stale=False, is_doubtful=True)
    assert schedule.ready_at >= 1000.0


def test_failures_back_off() -> None:
    """A neighbour that answers no probes is tried a few times an hour."""
    schedule, now, tries = ProbeSchedule(0.0, Random(1), goes_first=True), 0.0, 0
    while now < 3600:
        now = max(now, schedule.ready_at)
        tries += 1
        schedule.failed(now, 4.0, "nothing came")
    assert 5 <= tries <= 15
    assert schedule.last_failure == "nothing came"


def test_a_link_event_does_not_wait() -> None:
    """At once means now, also while an answer is awaited; five in a row, then one a second, and none is forgotten."""
    schedule, sent = HelloSchedule(0.0, Random(1)), []
    schedule.sent()
    assert schedule.next_at == float("inf")
    for step in range(200):  # an event every 50 ms for ten seconds
        now = 10.0 + step * 0.05
        schedule.at_once(now)
        if schedule.next_at <= now:
            schedule.sent()
            sent.append(now)
    assert sent[:5] == pytest.approx([10.0, 10.05, 10.1, 10.15, 10.2])
    assert len(sent) <= 15
    assert schedule.next_at < 22.0


def test_an_answer_does_not_put_off_what_an_event_asked_for() -> None:
    """The outcome of an older hello leaves the one that a link event made due as it is."""
    for outcome in ("succeeded", "failed"):
        schedule = HelloSchedule(0.0, Random(1))
        schedule.sent()
        schedule.at_once(1.0)
        if outcome == "succeeded":
            schedule.succeeded(1.1, is_settled=False)
        else:
            schedule.failed(1.1)
        assert schedule.next_at == 1.0
