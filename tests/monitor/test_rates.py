"""Which bandwidth figure is believed."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.monitor.rates import (
    CLASS,
    GOODPUT,
    NL80211,
    PEER,
    PRECEDENCE,
    PROBE,
    RX,
    TX,
    Estimate,
    GoodputMeter,
    RateBook,
)


def _book(*figures: tuple[float, str, float]) -> RateBook:
    book = RateBook()
    for mbps, source, at in figures:
        if source == GOODPUT:
            book.record_goodput(at, mbps, 1.0)
        else:
            book.record(Estimate(mbps, RX, source, at, 0.5))
    return book


@pytest.mark.parametrize(("better", "worse"), [(PROBE, PEER), (PEER, NL80211), (PROBE, NL80211)])
def test_precedence_of_sources(better: str, worse: str) -> None:
    """Of two fresh figures the better source's is reported, whichever came last."""
    for figures in ([(10.0, better, 0.0), (99.0, worse, 1.0)], [(99.0, worse, 0.0), (10.0, better, 1.0)]):
        best = _book(*figures).best(RX, 2.0)
        assert best is not None and (best.mbps, best.source) == (10.0, better)


def test_goodput_comes_before_an_agreeing_probe() -> None:
    """Our own transfers' goodput is the first source."""
    best = _book((10.0, PROBE, 0.0), (9.5, GOODPUT, 1.0)).best(RX, 2.0)
    assert best is not None and best.source == GOODPUT


def test_link_class_is_the_last_resort() -> None:
    """Without any figure the medium's class is reported with next to no confidence, and nothing for a loopback."""
    best = RateBook().best(RX, 5.0, "wireless")
    assert best is not None and best.source == CLASS and best.confidence <= 0.05
    assert RateBook().best(RX, 5.0, "loopback") is None


def test_wired_speed_is_an_upper_bound_only() -> None:
    """A port of 100 Mbit/s cuts a larger figure, never raises a smaller one, and is no figure by itself."""
    fast, slow = _book((300.0, PROBE, 0.0)), _book((7.0, PROBE, 0.0))
    assert fast.best(RX, 1.0, "ethernet", 100.0).mbps == 100.0  # type: ignore[union-attr]
    assert slow.best(RX, 1.0, "ethernet", 100.0).mbps == 7.0  # type: ignore[union-attr]
    assert RateBook().best(RX, 1.0, "", 100.0) is None


def test_stale_goodput_gives_way_to_a_fresh_probe() -> None:
    """Ten minutes later a probe is believed before the goodput; until then the old figure fades."""
    book = _book((10.0, GOODPUT, 0.0))
    old = book.best(RX, 1200.0)
    assert old is not None and (old.source, old.age_s) == (GOODPUT, 1200.0)
    assert old.confidence == pytest.approx(0.9 / 4)
    book.record(Estimate(9.0, RX, PROBE, 1200.0, 0.8))
    assert book.best(RX, 1201.0).source == PROBE  # type: ignore[union-attr]


def test_everything_expires() -> None:
    """A figure of yesterday is no figure."""
    assert _book((10.0, PROBE, 0.0)).best(RX, 86400.0) is None


def test_directions_are_apart() -> None:
    """What comes in says nothing of what goes out."""
    assert _book((10.0, PROBE, 0.0)).best(TX, 1.0) is None


def test_probe_settles_a_doubt() -> None:
    """Low goodput makes a figure doubtful; the probe after it ends the doubt and decides the value."""
    book = _book((20.0, GOODPUT, 0.0), (5.0, GOODPUT, 1.0))
    assert book.doubtful and book.best(RX, 1.0).mbps == 20.0  # type: ignore[union-attr]
    book.record(Estimate(5.2, RX, PROBE, 2.0, 0.8))
    assert not book.doubtful
    assert book.best(RX, 3.0).mbps == 5.2  # type: ignore[union-attr]


@given(st.lists(st.tuples(st.floats(allow_nan=True), st.sampled_from(PRECEDENCE[1:]), st.floats(0, 1e5))))
def test_figures_are_always_plausible(figures: list[tuple[float, str, float]]) -> None:
    """Whatever is recorded, what is reported is a positive number of Mbit/s with a confidence of 0 to 1."""
    best = _book(*figures).best(RX, 1e5)
    assert best is None or (0 < best.mbps <= 100_000 and 0 <= best.confidence <= 1 and best.age_s >= 0)


def _feed(meter: GoodputMeter, mbps: float, outstanding: int, seconds: float, step_s: float = 0.1) -> list[float]:
    """What the meter says of a transfer of constant rate, with an idle round trip of 10 ms."""
    found = []
    for tick in range(int(seconds / step_s)):
        now = tick * step_s
        goodput = meter.on_sample(now, int(mbps * 125_000 * now), outstanding, 0.01)
        if goodput is not None:
            found.append(goodput.mbps)
    return found


@pytest.mark.parametrize("mbps", [0.3, 3.0, 100.0])
def test_busy_face_gives_its_goodput(mbps: float) -> None:
    """A face with bulk outstanding all the time gives its rate, about once a second."""
    found = _feed(GoodputMeter(), mbps, 400, 20.0)
    assert 1 <= len(found) <= 20
    assert found == pytest.approx([mbps] * len(found), rel=0.05)


def test_window_limited_transfer_gives_nothing() -> None:
    """Two outstanding segments over 10 ms are 12.8 Mbit/s on any link: this is the window, not the link."""
    assert _feed(GoodputMeter(), 12.0, 2, 20.0) == []


def test_rare_looks_give_nothing() -> None:
    """Looks two seconds apart do not show that the link was busy between them."""
    assert _feed(GoodputMeter(), 10.0, 100, 60.0, step_s=2.0) == []


def test_interruption_ends_a_run() -> None:
    """A moment without outstanding Interests starts the count anew."""
    meter = GoodputMeter()
    for tick in range(200):
        outstanding = 0 if tick % 15 == 0 else 100
        assert meter.on_sample(tick * 0.1, tick * 100_000, outstanding, 0.01) is None


def test_stalled_link_gives_no_goodput() -> None:
    """A dead link with Interests outstanding is no slow link."""
    meter = GoodputMeter()
    assert all(meter.on_sample(tick * 0.1, 5_000_000, 50, 0.01) is None for tick in range(300))


def test_a_probe_without_confidence_leaves_a_doubt() -> None:
    """Its figure is taken for now, and the link is due for another; a sure one settles that."""
    book = RateBook()
    book.record(Estimate(10.0, RX, PROBE, 0.0, 0.2))
    assert book.doubtful and book.measured(RX, 1.0) is not None
    book.record(Estimate(30.0, RX, PROBE, 2.0, 0.7))
    assert not book.doubtful
