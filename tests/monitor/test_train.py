"""Rates from the arrivals of a packet train."""

from __future__ import annotations

from collections.abc import Callable
from random import Random

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from gateway.monitor.train import BUDGET_BYTES, PAYLOAD_BYTES, Arrival, Probe, slope


def _arrivals(count: int, gap_s: float, burst: int = 0) -> list[Arrival]:
    return [Arrival(max(0, i - burst) * gap_s, 8000) for i in range(count)]


def test_even_train() -> None:
    """8000 bytes every 10 ms are 6.4 Mbit/s."""
    found = slope(_arrivals(32, 0.01))
    assert found is not None and found.is_steady and found.mbps == pytest.approx(6.4)


@pytest.mark.parametrize("burst", [4, 10, 16, 20, 24, 28])
def test_burst_is_left_out_or_seen(burst: int) -> None:
    """A burst through a token bucket is either outside the later half, or makes the train unsteady."""
    found = slope(_arrivals(32, 0.01, burst))
    assert found is not None
    assert not found.is_steady or found.mbps == pytest.approx(6.4, rel=0.2)


def test_one_late_packet_does_not_matter() -> None:
    """A pause of a second before one packet of a long train leaves the rate as it is."""
    arrivals = [Arrival(a.at + (1.0 if i > 100 else 0.0), 8000) for i, a in enumerate(_arrivals(128, 0.001))]
    found = slope(arrivals)
    assert found is not None and found.mbps < 64.0 * 1.2


def test_batches_of_arrivals_are_averaged() -> None:
    """Packets that the kernel hands over sixteen at a time give the link's rate all the same."""
    arrivals = [Arrival((i // 16) * 0.016, 8000) for i in range(128)]
    found = slope(arrivals)
    assert found is not None and found.mbps == pytest.approx(64.0, rel=0.2)


def test_what_is_read_at_once_does_not_count_as_fast() -> None:
    """A busy receiver reads 128 packets of a 320 Mbit/s link in a few bursts of 13 µs a packet: still 320 Mbit/s."""
    for reads in ([8, 20, 52, 128], [60, 128], [40, 104, 128], [8, 9, 10, 128], [126, 127, 128], [128]):
        arrivals, done = [], 0
        for read in reads:
            at = 0.001 + read * 0.0002
            arrivals += [Arrival(at + i * 13e-6, 8000) for i in range(read - done)]
            done = read
        found = slope(arrivals, sent=0.0, rtt_s=0.001)
        assert found is not None and 0.75 * 320 < found.mbps <= 1.25 * 320, reads


def test_a_rate_is_never_far_above_that_of_the_whole_train() -> None:
    """Whatever the arrivals look like, the bytes over the time they had bound the figure."""
    random = Random(7)
    for _ in range(300):
        at, arrivals = 0.002, []
        for _ in range(random.choice((8, 32, 128))):
            at += random.choice((0.0, 1e-6, 13e-6, 1e-4, 2e-3, 2e-2))
            arrivals.append(Arrival(at, 8000))
        found = slope(arrivals, sent=0.0)
        assert found is not None and found.mbps <= 1.25 * len(arrivals) * 8000 * 8e-6 / at * 1.001


def test_a_late_note_is_avoided_or_doubted() -> None:
    """A read of a 64 Mbit/s link noted 12 ms late does not make it faster; where it must be used, it is in doubt."""
    found = slope([Arrival(0.001 * max(i, 12), 8000, 0.012 if i <= 12 else 0.0) for i in range(32)])
    assert found is not None and found.mbps == pytest.approx(64.0, rel=0.1) and found.doubt < 0.1
    found = slope([Arrival(0.001 * i if i < 28 else 0.043, 8000, 0.0 if i < 28 else 0.012) for i in range(32)])
    assert found is not None and found.is_steady and found.mbps == pytest.approx(64.0, rel=0.1) and found.doubt < 0.1
    blind = [Arrival(at, 8000, late_s) for at, late_s in ((0.016, 0.012), (0.032, 0.0)) for _ in range(16)]
    found = slope(blind)
    assert found is not None and found.doubt == pytest.approx(0.75)


def test_pauses_are_doubt() -> None:
    """Nothing came for a third of the time measured, whoever paused: nobody knows what the link would have carried."""
    found = slope([Arrival(0.001 * i + (0.008 if i >= 24 else 0.0), 8000) for i in range(32)])
    assert found is not None and not found.is_steady and 0.2 < found.doubt < 0.6
    even = slope(_arrivals(32, 0.001))
    assert even is not None and even.doubt < 0.01


@given(st.lists(st.tuples(st.floats(0, 1e6), st.integers(0, 9000)), max_size=40))
@example([(float(at), 0) for at in range(4)])
def test_slope_takes_anything(arrivals: list[tuple[float, int]]) -> None:
    """No set of arrivals raises, and no rate is negative."""
    found = slope([Arrival(at, size) for at, size in arrivals])
    assert found is None or found.mbps >= 0


def _probe(probe: Probe, arrive: Callable[[int], float]) -> tuple[list[int], float]:
    """Runs a probe whose i-th packet takes `arrive(i)` seconds of the link; the lengths of its trains, and the time."""
    counts, now, index = [], 0.0, 0
    while (train := probe.next_train()) is not None:
        started, count = now, 0
        free, times = now + 0.005, []
        for _ in train:
            if not probe.may_ask(times[-probe.window] if len(times) >= probe.window else started):
                break
            free += arrive(index)
            times.append(free)
            index, count = index + 1, count + 1
            probe.on_arrival(free, PAYLOAD_BYTES)
        counts.append(count)
        now = free
        probe.on_train_end(now, started)
    return counts, now


@pytest.mark.parametrize(
    ("mbps", "limit_bytes"), [(2.0, 192_000), (6.0, 200_000), (20.0, 650_000), (100.0, 1_400_000), (1000.0, 2_000_000)]
)
def test_a_probe_is_short(mbps: float, limit_bytes: int) -> None:
    """It takes a quarter of a second of the link and a tenth more, a slow link longer, and no byte too many."""
    probe = Probe()
    _probe(probe, lambda i: 0.064 / mbps)
    result = probe.result()
    assert result.mbps == pytest.approx(mbps, rel=0.01)
    assert result.received_bytes <= limit_bytes
    assert result.received_bytes * 8e-6 / mbps < (0.275 if mbps > 4 else 0.8)


def test_even_trains_end_early() -> None:
    """A second train that was even and long enough is the last; a short one is followed by what the time allows."""
    assert _probe(Probe(), lambda i: 0.032)[0] == [8, 16]
    counts, _ = _probe(Probe(), lambda i: 0.0032)
    assert counts[:2] == [8, 32] and len(counts) == 3 and sum(counts) <= 80


def test_a_connection_that_wakes_up_slowly_is_given_a_second_train() -> None:
    """The first train came evenly at half the rate: the figure is that of the second."""
    probe = Probe()
    _probe(probe, lambda i: 0.02 if i < 8 else 0.01)
    assert probe.result().mbps == pytest.approx(6.4, rel=0.05)


def test_a_long_train_on_a_slow_link_is_cut_short() -> None:
    """After a burst that promised much no more packets are asked for than are on their way after a quarter second."""
    probe = Probe()
    counts, _ = _probe(probe, lambda i: 0.0 if i < 24 else 0.2)
    assert counts[:2] == [8, 16] and counts[2] < 24
    assert probe.result().mbps == pytest.approx(0.32, rel=0.05)


@pytest.mark.parametrize("every_s", [0.03, 0.06])
def test_a_machine_that_sleeps_now_and_then_measures_all_the_same(every_s: float) -> None:
    """A receiver that looks up only now and then finds 35 Mbit/s, never much more, and says how sure it is."""
    gap_s, figures = 0.064 / 35, []
    for offset in range(20):
        asleep = [(every_s * (k + offset / 20), every_s * (k + offset / 20 + 0.5)) for k in range(-1, 40)]
        probe, now = Probe(), 0.0
        while (train := probe.next_train()) is not None:
            started, free = now, now + 0.002
            for _ in train:
                free += gap_s
                probe.may_ask(now)
                noted = next((until for since, until in asleep if since < free <= until), free)
                probe.on_arrival(noted, PAYLOAD_BYTES)
                now = max(now, noted)
            for due, ran in asleep:
                if started <= ran <= now:
                    probe.on_tick(due, ran)
            probe.on_train_end(now, started)
        figures.append(probe.result())
    for result in figures:
        assert result.mbps is not None and 0.7 * 35 < result.mbps < 1.15 * 35, result
        assert result.confidence < 0.3 or result.mbps == pytest.approx(35, rel=0.2), result


def test_a_train_that_was_noted_late_is_followed_by_another() -> None:
    """Two even trains are enough; not where nobody knows when their packets came, and the figure counts for less."""

    def measure(is_late: bool) -> tuple[list[int], float]:
        probe, now, counts = Probe(), 0.0, []
        while (train := probe.next_train()) is not None:
            started = now
            counts.append(len(train))
            for _ in train:
                assert probe.may_ask(started)
                now += 0.016
                probe.on_arrival(now, PAYLOAD_BYTES)
                if is_late:
                    probe.on_tick(now - 0.03, now)
            probe.on_train_end(now, started)
        return counts, probe.result().confidence

    (punctual, sure), (late, unsure) = measure(False), measure(True)
    assert punctual == late[:2] == [8, 16] and len(late) > 2
    assert 0 < unsure < 0.8 * sure


def test_a_pause_in_the_first_train_is_not_the_link() -> None:
    """Half a second in which some machine slept makes 30 Mbit/s look like 0.2; the next train knows better."""
    probe = Probe()
    counts, _ = _probe(probe, lambda i: 0.064 / 30 + (0.6 if i == 6 else 0.0))
    assert len(counts) > 1
    assert probe.result().mbps == pytest.approx(30.0, rel=0.1)


def test_the_train_of_which_most_is_certain_counts() -> None:
    """An even train is not thrown away for a longer one that paused."""
    probe, now, gap_s, counts = Probe(), 0.0, 0.002, []
    while (train := probe.next_train()) is not None:
        started = now
        counts.append(len(train))
        for index in range(len(train)):
            assert probe.may_ask(started)
            now += gap_s + (0.1 if len(train) > 32 and index == len(train) * 3 // 4 else 0.0)
            probe.on_arrival(now, PAYLOAD_BYTES)
        probe.on_train_end(now, started)
    assert counts[:2] == [8, 32] and counts[2] > 32
    assert probe.result().mbps == pytest.approx(32.0, rel=0.01)


def test_an_uneven_link_is_given_up() -> None:
    """A link that becomes slower and slower is not asked until the bytes are spent; half a second tells no more."""
    probe = Probe()
    counts, took_s = _probe(probe, lambda i: 0.01 * 1.25**i)
    assert len(counts) == 2 and took_s < 2.5
    assert 0 < probe.result().confidence < 0.4


def test_trains_double_within_the_budget() -> None:
    """On a link too fast to tell, the trains double and stop before two megabytes."""
    probe, counts, now = Probe(), [], 0.0
    while (train := probe.next_train()) is not None:
        counts.append(len(train))
        started = now
        for _ in train:
            assert probe.may_ask(now)
            now += 1e-5
            probe.on_arrival(now, PAYLOAD_BYTES)
        probe.on_train_end(now, started)
    assert counts == [8, 16, 32, 64, 128]
    result = probe.result()
    assert result.received_bytes <= BUDGET_BYTES
    assert result.mbps == pytest.approx(6400, rel=0.01)
    assert result.confidence < 0.5


def test_a_long_round_trip_is_filled() -> None:
    """The second train of a link of 20 Mbit/s and 0.1 s has a window that does not run empty in a round trip."""
    probe = Probe()
    train = probe.next_train()
    assert train is not None and probe.window == len(train)
    for index in train:
        assert probe.may_ask(0.0)
        probe.on_arrival(0.1 + index * 0.0032, PAYLOAD_BYTES)
    probe.on_train_end(0.13, 0.0)
    assert probe.next_train() is not None
    assert probe.window * PAYLOAD_BYTES >= 20 * 125_000 * 0.1


def test_lost_packets_end_the_probe() -> None:
    """Nothing is asked for after a loss; too few arrivals are a failure with its reason."""
    probe = Probe()
    for _ in probe.next_train() or ():
        assert probe.may_ask(0.0)
    probe.on_arrival(0.1, PAYLOAD_BYTES)
    probe.on_loss()
    assert not probe.may_ask(0.2)
    probe.on_train_end(4.0, 0.0)
    assert probe.next_train() is None
    result = probe.result()
    assert result.mbps is None and result.reason.startswith("1 of 8 packets")


def test_jitter_keeps_within_a_fifth() -> None:
    """Arrivals of 1 to 100 Mbit/s with 20 % jitter in every gap are measured within 20 %, nineteen times in twenty."""
    random, good = Random(3), 0
    for _ in range(200):
        mbps = 10 ** random.uniform(0, 2)
        at, arrivals = 0.0, []
        for _ in range(32):
            at += 0.064 / mbps * random.uniform(0.8, 1.2)
            arrivals.append(Arrival(at, 8000))
        found = slope(arrivals)
        assert found is not None
        good += abs(found.mbps - mbps) < 0.2 * mbps
    assert good >= 190
