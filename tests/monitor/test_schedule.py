"""When hellos and probes are due."""

from __future__ import annotations

from random import Random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.monitor.schedule import (
    HELLO_FAILURES,
    SETTLED_S,
    STARVED_S,
    Demand,
    HelloSchedule,
    ProbeSchedule,
    Situation,
)


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


def _due(schedule: ProbeSchedule, now: float, demand: Demand = Demand.NONE, **changed: Any) -> bool:
    return schedule.is_due(now, Situation(**{"met_at": 0.0} | changed), lambda: demand)


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


def test_a_short_contact_is_not_probed() -> None:
    """While something is wanted, or when the link was known once, a neighbour is probed when it has stayed for 20 s."""
    for situation in ({"demand": Demand.WAITING}, {"is_unknown": False}):
        schedule = ProbeSchedule(0.0, Random(1), goes_first=True)
        due = [step / 2 for step in range(80) if _due(schedule, step / 2, **situation)]
        assert SETTLED_S <= due[0] <= SETTLED_S + 2.6, situation
        assert not _due(schedule, 100.0, met_at=99.0 - SETTLED_S / 2, **situation), "it went and came back"


def test_the_first_probe_of_a_calm_node_is_early() -> None:
    """Where nothing is wanted and nothing was ever known of the link, nobody waits for 20 s."""
    assert _due(ProbeSchedule(0.0, Random(1), goes_first=True), 2.1)
    assert _due(ProbeSchedule(0.0, Random(1), goes_first=False), 4.6)


@pytest.mark.parametrize("situation", [{"demand": Demand.MOVING}, {"is_bulk": True}])
def test_no_probe_while_blobs_move(situation: dict[str, Any]) -> None:
    """Neither a stale nor a doubtful figure is probed meanwhile, nor at once after it; the two ends take turns then."""
    first, second = (ProbeSchedule(0.0, Random(1), goes_first=g) for g in (True, False))
    for now in range(5, 300):
        assert not _due(first, now, **situation) and not _due(second, now, **situation)
        assert not _due(first, now, is_unknown=False, is_stale=False, is_doubtful=True, **situation)
    began = [next(300 + s / 10 for s in range(100) if _due(end, 300 + s / 10)) for end in (first, second)]
    assert 300.5 < began[0] < began[1] - 0.5 and began[1] < 304.5


def test_a_link_is_not_starved_by_others() -> None:
    """After half an hour of blobs elsewhere a stale figure is probed, once; not while the link itself has traffic."""
    schedule, now, due = ProbeSchedule(0.0, Random(1), goes_first=True), 0.0, []
    while now < 2 * STARVED_S:
        now += 1.0
        assert not _due(schedule, now, Demand.MOVING, is_slow=False)
        if _due(schedule, now, Demand.MOVING):
            due.append(now)
            schedule.succeeded(now, 0.25)
    assert len(due) == 1 and STARVED_S <= due[0] < STARVED_S + SETTLED_S + 10.0


def test_demand_is_asked_only_when_it_matters() -> None:
    """Nobody looks through wants and blobs for a link that is busy, paid for long ago, or held."""
    schedule, asked = ProbeSchedule(0.0, Random(1), goes_first=True), []

    def demand() -> Demand:
        asked.append(1)
        return Demand.NONE

    schedule.is_due(0.1, Situation(met_at=0.0), demand)
    schedule.is_due(5.0, Situation(met_at=0.0, outstanding=1), demand)
    schedule.is_due(5.0, Situation(met_at=0.0, is_stale=False), demand)
    assert not asked
    assert schedule.is_due(6.0, Situation(met_at=0.0), demand) and asked


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
