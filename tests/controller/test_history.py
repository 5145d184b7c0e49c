"""Hours in the database: made of stored reports, once, and forgotten in time."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from controller import history as module
from controller import store as store_module
from controller.history import History, series
from controller.store import Store
from gateway.protocol import codec
from tests.controller.fakes import report

HOUR = 3600.0
# The start of an hour.
START = 500_000 * HOUR
EVERY_S = 300.0


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    made = Store(f"sqlite:///{tmp_path}/controller.db")
    for node in ("a", "b"):
        made.add_node(node, b"c", 0.0)
    yield made
    made.close()


def hear(store: Store, node: str, moment: float, **links: float) -> None:
    """A report that arrives at a moment, of a node that reports every five minutes."""
    told = report(node, links, sequence=int(moment), interval_s=EVERY_S)
    store.save_report(node, "b1", told.sequence, codec.encode(told), moment)


def hear_hours(store: Store, first: int, rates: list[float], node: str = "b") -> None:
    """From hour number `first` after START one rate of a -> node an hour."""
    for at, mbps in enumerate(rates):
        for moment in range(0, 3600, int(EVERY_S)):
            hear(store, node, START + (first + at) * HOUR + moment, a=mbps)


def keep(history: History, hours_after: float) -> None:
    for _ in history.keep(START + hours_after * HOUR, EVERY_S):
        pass


def medians(store: Store, pair: tuple[str, str] = ("a", "b")) -> list[float]:
    links, _ = series(store)
    return links[pair].q50.tolist() if pair in links else []


def test_hour_is_kept_when_it_is_over(store: Store) -> None:
    """The hour that is going on is none yet; when it is over its figures are in the database."""
    hear_hours(store, 0, [5.0])
    keep(History(store), 0.99)
    assert medians(store) == []
    keep(History(store), 1.0)
    links, presence = series(store)
    (row,) = links.values()
    assert row.hours.tolist() == [500_000] and row.q10.tolist() == row.q50.tolist() == row.q90.tolist() == [5.0]
    assert presence == {"a": 0.0, "b": 1.0}


def test_restart_counts_nothing_twice_and_makes_up_for_what_was_missed(store: Store) -> None:
    """However often the hours are kept, by whatever process, each is there once, with the same figures."""
    hear_hours(store, 0, [1.0, 2.0, 3.0])
    keep(History(store), 1.2)
    keep(History(store), 1.4)
    again = History(store)
    keep(again, 3.1)
    keep(again, 3.2)
    assert medians(store) == [1.0, 2.0, 3.0]


def test_hour_that_was_kept_survives_its_reports(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """Later reports push the hour's own out of the database; its quantiles stay as they were."""
    hear_hours(store, 0, [1.0])
    keep(History(store), 1.0)
    monkeypatch.setattr(store_module, "HISTORY_PER_NODE", 12)
    hear_hours(store, 1, [2.0])
    keep(History(store), 2.0)
    assert medians(store) == [1.0, 2.0]


def test_crash_in_between_leaves_the_hour_to_be_kept(store: Store) -> None:
    """Nothing is written before all nodes were read."""
    hear_hours(store, 0, [5.0])
    next(History(store).keep(START + HOUR, EVERY_S))
    assert medians(store) == []
    keep(History(store), 1.0)
    assert medians(store) == [5.0]


def test_controller_that_was_away_says_nothing_of_the_nodes(store: Store) -> None:
    """Hours without any report are no absence of anybody."""
    hear_hours(store, 0, [5.0])
    keep(History(store), 1.0)
    keep(History(store), 9.0)
    hear_hours(store, 9, [5.0])
    keep(History(store), 10.0)
    assert series(store)[1]["b"] == 1.0


def test_report_before_the_first_hour_tells_who_was_there(store: Store) -> None:
    """A node whose last report is not yet overdue when an hour begins is present in it from the start."""
    hear(store, "b", START - 60)
    keep(History(store), 0.0)
    for moment in range(0, 3600, 300):
        hear(store, "a", START + moment)
        if moment >= 900:
            hear(store, "b", START + moment)
    keep(History(store), 1.0)
    # Of the hour before, in which nobody else was heard, it was there for all that is known.
    assert series(store)[1]["b"] == pytest.approx((1 + 3540 / 3600) / 2)


def test_clock_that_was_wrong_stops_nothing(store: Store) -> None:
    """Hours kept under a clock that ran ahead are dropped, and history goes on by the right one."""
    hear_hours(store, 5000, [9.0])
    keep(History(store), 5001.0)
    assert medians(store) == [9.0]
    hear_hours(store, 0, [5.0])
    keep(History(store), 1.0)
    assert medians(store) == [5.0]


def test_old_hours_go(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """After the time that is kept, and the oldest first when there are too many rows."""
    monkeypatch.setattr(module, "KEPT_HOURS", 4)
    for at in range(6):
        hear_hours(store, at, [float(at)])
        keep(History(store), at + 1)
    assert medians(store) == [2.0, 3.0, 4.0, 5.0]
    monkeypatch.setattr(module, "LINK_ROWS_MAX", 2)
    hear_hours(store, 6, [6.0])
    keep(History(store), 7)
    assert medians(store) == [5.0, 6.0]


def test_revoked_node_leaves_no_history(store: Store) -> None:
    """Neither of itself nor of the links to it."""
    hear_hours(store, 0, [5.0])
    keep(History(store), 1.0)
    store.revoke_node("a", b"hash")
    assert series(store) == ({}, {"b": 1.0})


def test_low_rate_is_what_one_hour_in_ten_falls_short_of(store: Store) -> None:
    """Of hours with 1, 2 … 11 Mbit/s it is 2; a direction measured for less than six hours has none."""
    history = History(store)
    for at in range(11):
        hear_hours(store, at, [11.0 - at])
        if at < 5:
            hear_hours(store, at, [7.0], "a")
        keep(history, at + 1)
        assert (("a", "b") in history.low_rates(START + (at + 1) * HOUR)) == (at >= 5)
    assert history.low_rates(START + 11 * HOUR) == {("a", "b"): pytest.approx(2.0)}


def test_improved_link_is_believed_after_a_stated_time(store: Store) -> None:
    """65 hours after a link became better its low rate is that of the better link."""
    history = History(store)
    hear_hours(store, 0, [2.0] * 8)
    keep(history, 8)
    for at in range(8, 76):
        hear_hours(store, at, [20.0])
        keep(history, at + 1)
        rate = history.low_rates(START + (at + 1) * HOUR)["a", "b"]
        assert (rate == 20.0) == (at + 1 - 8 >= 65), at


def test_availability_is_the_share_of_a_week(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """A node heard in every other hour was there half of the time; what was before the week does not count."""
    history = History(store)
    assert history.availability(START) == {}
    for at in range(8):
        hear_hours(store, at, [5.0])
        if at % 2:
            hear_hours(store, at, [5.0], "a")
        keep(history, at + 1)
    known = history.availability(START + 8 * HOUR)
    # The last report of an hour still counts for three intervals in the next.
    assert known == {"a": pytest.approx(0.5, abs=0.15), "b": 1.0}
    monkeypatch.setattr(module, "AVAILABILITY_HOURS", 1)
    assert History(store).availability(START + 8 * HOUR) == {"a": 1.0, "b": 1.0}


def test_report_that_cannot_be_read_is_left_out(store: Store) -> None:
    """What another release stored does not stop the hour."""
    hear_hours(store, 0, [5.0])
    store.save_report("b", "b1", 10**9, b"\xa1\x01\x01", START + 3599)
    keep(History(store), 1.0)
    assert medians(store) == [5.0]
