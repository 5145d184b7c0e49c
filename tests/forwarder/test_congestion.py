"""The window and the retransmission timer of a transfer."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.forwarder.congestion import Window


def answers(window: Window, count: int, rtt_s: float | None, now: float) -> None:
    for _ in range(count):
        window.on_data(rtt_s, now)


def test_starts_with_four_and_doubles_each_round_trip() -> None:
    """Slow start begins with four Interests, and each round trip of answers doubles them."""
    window = Window()
    sizes = []
    for turn in range(4):
        sizes.append(int(window.size))
        answers(window, int(window.size), 0.1, turn * 0.1)
    assert sizes == [4, 8, 16, 32]


def test_grows_by_one_a_round_trip_after_a_loss() -> None:
    """After a loss the window grows by about one packet a round trip."""
    window = Window()
    answers(window, 28, 0.1, 0.0)
    window.on_loss(0.9, 1.0)
    assert window.size == 16
    answers(window, 16, 0.1, 1.1)
    assert 16.9 < window.size <= 17


def test_halves_once_for_the_losses_of_one_round_trip() -> None:
    """Losses among the Interests sent before the window was halved are one sign of congestion."""
    window = Window()
    answers(window, 60, 0.1, 0.0)
    for burst in range(20):
        window.on_loss(0.9 + burst / 1000, 1.0 + burst / 1000)
    assert window.size == 32
    window.on_loss(1.1, 1.2)
    assert window.size == 16


def test_a_growing_queue_ends_slow_start() -> None:
    """When round trips grow far beyond the shortest one, the window stops doubling before packets are lost."""
    window = Window()
    answers(window, 12, 0.04, 0.0)
    window.on_data(0.2, 0.2)
    before = window.size
    answers(window, 16, 0.04, 0.3)
    assert window.size - before < 1.1


def test_a_long_queue_stops_growth() -> None:
    """Nothing more is put into a queue that already holds half a second."""
    window = Window()
    window.on_data(0.05, 0.0)
    answers(window, 20, 0.9, 1.0)
    before = window.size
    answers(window, 50, 0.9, 2.0)
    assert window.size == before


def test_the_shortest_round_trip_is_forgotten() -> None:
    """A node that was answered by its own cache at first isn't held to that round trip for ever."""
    window = Window()
    window.on_data(0.001, 0.0)
    answers(window, 9, 0.9, 5.0)
    held = window.size
    answers(window, 9, 0.9, 9.9)
    assert window.size == held
    answers(window, 9, 0.9, 10.1)
    assert window.size > held + 1


def test_timer_follows_rfc_6298() -> None:
    """RTO = SRTT + 4 RTTVAR, with the first sample and the smoothing of RFC 6298."""
    window = Window()
    assert window.rto_s == 1.0
    window.on_data(0.4, 0.0)
    assert window.rto_s == pytest.approx(0.4 + 4 * 0.2)
    window.on_data(0.8, 0.0)
    assert window.rtt_s == pytest.approx(0.45)
    assert window.rto_s == pytest.approx(0.45 + 4 * (0.75 * 0.2 + 0.25 * 0.4))


def test_timer_has_a_floor_and_backs_off() -> None:
    """The timer leaves 200 ms beyond the round trip; a timeout doubles it, up to 4 s, until the next measurement."""
    window = Window()
    answers(window, 50, 0.01, 0.0)
    assert window.rto_s == pytest.approx(0.21)
    for second in range(1, 10):
        window.on_timeout(second - 0.5, float(second))
    assert window.rto_s == 4.0
    window.on_data(None, 11.0)
    assert window.rto_s == 4.0
    window.on_data(0.01, 12.0)
    assert window.rto_s == pytest.approx(0.21)


@given(st.lists(st.tuples(st.sampled_from("dnlt"), st.floats(0.0001, 10), st.floats(0, 5)), max_size=300))
def test_stays_within_bounds(events: list[tuple[str, float, float]]) -> None:
    """Whatever happens, from 2 to 256 Interests are in flight and the timer is from 200 ms to 4 s."""
    window, now = Window(), 0.0
    for kind, rtt_s, pause_s in events:
        now += pause_s
        if kind == "d":
            answers(window, 20, rtt_s, now)
        elif kind == "n":
            window.on_data(None, now)
        elif kind == "l":
            window.on_loss(now - rtt_s, now)
        else:
            window.on_timeout(now - rtt_s, now)
        assert 2 <= window.size <= 256
        assert 0.2 <= window.rto_s <= 4
