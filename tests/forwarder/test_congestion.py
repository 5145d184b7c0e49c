"""The window and the retransmission timer of a transfer."""

import heapq
import itertools
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.forwarder.congestion import MAX_WINDOW, Window


def answers(window: Window, count: int, rtt_s: float | None, now: float) -> None:
    for _ in range(count):
        window.on_data(rtt_s, now)


class Path:
    """A bottleneck with a queue, driven by one or more windows; sizes in packets, `marks_from` of them are marked."""

    def __init__(
        self,
        rate: float,
        rtt_s: float,
        queue: int = 10_000,
        loss: float = 0.0,
        marks_from: int = 10_000,
        repair_s: float = 0.0,
    ) -> None:
        self.service_s, self.rtt_s, self.queue, self.loss = 1 / rate, rtt_s, queue, loss
        self.marks_from, self.repair_s = marks_from, repair_s
        self.random = random.Random(3)
        self.now = self.free_at = 0.0
        self.delivered: list[int] = []
        self.queues: list[float] = []

    def run(self, windows: list[Window], seconds: float, starts: tuple[float, ...] = ()) -> None:
        """Every window sends whenever it may; what is lost is noticed when the timer says so."""
        events: list[tuple[float, int, str, int, float, bool]] = []
        order = itertools.count()
        in_flight = [0] * len(windows)
        self.delivered = [0] * len(windows)
        heard = [-1.0] * len(windows)
        for who, start in itertools.zip_longest(range(len(windows)), starts, fillvalue=0.0):
            heapq.heappush(events, (start, next(order), "start", int(who), 0.0, False))
        end = self.now + seconds
        while events and events[0][0] < end:
            self.now, _, kind, who, sent, is_marked = heapq.heappop(events)
            window = windows[who]
            if kind == "data":
                in_flight[who] -= 1
                self.delivered[who] += 1
                heard[who] = self.now
                window.on_data(self.now - sent, self.now, is_marked)
            elif kind == "lost":
                in_flight[who] -= 1
                (window.on_loss if heard[who] >= sent else window.on_timeout)(sent, self.now)
            while in_flight[who] < int(window.size):
                in_flight[who] += 1
                waiting = max(0.0, self.free_at - self.now)
                self.queues.append(waiting)
                is_repaired = self.random.random() < self.loss
                if waiting / self.service_s > self.queue or (is_repaired and not self.repair_s):
                    heapq.heappush(events, (self.now + window.rto_s, next(order), "lost", who, self.now, False))
                    continue
                self.free_at = max(self.free_at, self.now) + self.service_s
                at = self.free_at + self.rtt_s + self.repair_s * is_repaired
                mark = waiting / self.service_s > self.marks_from
                heapq.heappush(events, (at, next(order), "data", who, self.now, mark))


def test_starts_with_six_and_doubles_each_round_trip() -> None:
    """Slow start begins with six Interests, and each round trip of answers doubles them."""
    window = Window()
    sizes = []
    for turn in range(4):
        sizes.append(int(window.size))
        answers(window, int(window.size), 0.1, turn * 0.1)
    assert sizes == [6, 12, 24, 48]


def test_grows_as_cubic_does() -> None:
    """After a reduction to 70 % the window is back at its plateau after K seconds (RFC 9438), slow around it."""
    window = Window()
    answers(window, 94, 0.1, 0.0)
    window.on_nack(0.9, 1.0)
    assert window.size == pytest.approx(70)
    climb_s = (100 * 0.3 / 0.4) ** (1 / 3)
    sizes = []
    for step in range(1, int(2 * climb_s / 0.1)):
        answers(window, int(window.size), 0.1, 1.0 + step * 0.1)
        sizes.append(window.size)
    middle = int(climb_s / 0.1)
    assert sizes[middle] == pytest.approx(100, rel=0.02)
    assert sizes[middle] - sizes[middle - 10] < 2 < min(sizes[9] - 70, sizes[-1] - sizes[-10])


def test_grows_as_reno_where_that_is_faster() -> None:
    """On a path of short round trips a small window grows by about half a packet a round trip at least."""
    window = Window()
    answers(window, 16, 0.01, 0.0)
    window.on_nack(0.9, 1.0)
    before = window.size
    for step in range(20):
        answers(window, int(window.size), 0.01, 1.0 + step * 0.01)
    assert window.size > before + 20 * 0.45


def test_one_reduction_a_round_trip() -> None:
    """Nacks, marks and losses among the Interests sent before a reduction are one sign of congestion."""
    window = Window()
    answers(window, 58, 0.1, 0.0)
    for burst in range(20):
        window.on_nack(0.9 + burst / 1000, 1.0 + burst / 1000)
    assert window.size == pytest.approx(64 * 0.7)
    window.on_data(0.1, 1.05, is_marked=True)
    assert window.size == pytest.approx(64 * 0.7, rel=0.01)
    window.on_nack(1.1, 1.2)
    assert window.size == pytest.approx(64 * 0.49, rel=0.01)


def test_a_mark_reduces_less_than_a_loss() -> None:
    """A congestion mark takes 15 % when answers are later than they were: its queue is still short (RFC 8511)."""
    window = Window()
    answers(window, 58, 0.1, 0.0)
    window.on_data(0.1, 1.0, is_marked=True)
    assert window.size == 65
    answers(window, 20, 0.11, 1.2)
    window.on_data(0.11, 1.4, is_marked=True)
    window.on_data(0.11, 1.4, is_marked=True)
    assert window.size == pytest.approx(86 * 0.85, rel=0.02)


def test_a_growing_queue_ends_slow_start() -> None:
    """When all round trips are far beyond the shortest, the window falls to what the path carries without a queue."""
    window = Window()
    answers(window, 28, 0.1, 0.0)
    answers(window, 40, 0.3, 1.0)
    answers(window, 2, 0.3, 1.4)
    assert window.size < 45
    before = window.size
    answers(window, 16, 0.1, 1.6)
    assert window.size - before < 2


def test_a_burst_of_our_own_does_not_end_slow_start() -> None:
    """Answers that were late behind each other hold the window for a moment; late ones after that end slow start."""
    window = Window()
    answers(window, 10, 0.1, 0.0)
    answers(window, 24, 0.15, 0.1)
    held = window.size
    assert held < 36
    answers(window, 16, 0.1, 0.2)
    assert window.size >= held + 8
    for turn in range(3):
        answers(window, 24, 0.14, 0.4 + turn * 0.2)
    before = window.size
    answers(window, 16, 0.1, 1.1)
    assert window.size < before + 1


def test_a_short_packet_is_no_measure_for_long_ones() -> None:
    """Eight kB take longer than a short index page on each of ten links, which is no queue."""
    window = Window()
    window.on_data(0.04, 0.0, False, 700)
    for turn in range(1, 6):
        for _ in range(int(window.size)):
            window.on_data(0.075, 0.1 * turn, False, 8300)
        window.on_data(0.04, 0.1 * turn, False, 700)
    assert window.base_s == 0.075 and window.size == 255


def test_few_answers_that_were_all_repaired_are_no_queue() -> None:
    """A round of two answers, both sent again by a link on the way, takes nothing from the window."""
    window = Window()
    answers(window, 2, 0.1, 0.0)
    for turn in range(1, 4):
        window.on_data(0.25, turn * 0.5)
    window.on_data(0.1, 2.0)
    assert window.size == 12


def test_the_next_transfer_goes_on_where_the_last_one_ended() -> None:
    """After a first answer as fast as before half of the window is there; later, or elsewhere, it begins anew."""
    last = Window()
    answers(last, 94, 0.1, 0.0)
    learnt = last.learnt(10.0)
    assert learnt is not None
    for rtt_s, now, size in ((0.1, 11.0, 51), (0.1, 25.0, 7), (0.01, 11.0, 7), (0.2, 11.0, 7)):
        window = Window(learnt)
        window.on_data(rtt_s, now)
        assert window.size == size
    assert window.learnt(30.0) is not None
    near = Window()
    answers(near, 50, 0.001, 0.0)
    assert near.learnt(1.0) is None and Window().learnt(1.0) is None


def test_the_timer_leaves_a_link_time_to_repair() -> None:
    """On a long path the timer has a round trip and a half beyond, which a repair by the link below may take."""
    window = Window()
    answers(window, 200, 0.3, 0.0)
    assert window.rto_s == pytest.approx(0.75)


def test_what_a_lower_layer_repaired_is_no_queue() -> None:
    """Some answers that come a round trip late, since a link sent them again, reduce nothing."""
    window = Window()
    for turn in range(50):
        answers(window, 20, 0.1, turn * 0.1)
        answers(window, 5, 0.25, turn * 0.1)
    assert window.size == MAX_WINDOW


def test_a_few_losses_without_a_queue_reduce_nothing() -> None:
    """One packet in a hundred that a radio loses costs itself alone; one in ten reduces the window."""
    window = Window()
    answers(window, 300, 0.1, 0.0)
    before = window.size
    for turn in range(5):
        window.on_loss(1.0 + turn, 1.1 + turn)
        answers(window, 100, 0.1, 1.2 + turn)
    assert window.size >= before
    for turn in range(5):
        window.on_loss(7.0 + turn, 7.1 + turn)
        answers(window, 9, 0.1, 7.2 + turn)
    assert window.size < before / 2


def test_silence_begins_anew() -> None:
    """A timeout with nothing heard since leaves two Interests in flight, and slow start up to 70 % of what was."""
    window = Window()
    answers(window, 94, 0.1, 0.0)
    window.on_timeout(0.5, 1.0)
    assert window.size == 2
    answers(window, 68, 0.1, 1.2)
    assert window.size == pytest.approx(70)
    answers(window, 1, 0.1, 1.3)
    assert window.size < 71


def test_the_shortest_round_trip_is_forgotten() -> None:
    """A node that was answered by its own cache at first isn't held to that round trip for ever."""
    window = Window()
    window.on_data(0.001, 0.0)
    for second in range(1, 60):
        answers(window, 4, 0.9, float(second))
    assert window.base_s == 0.9
    assert window.size > 4


def test_what_was_near_says_nothing_of_what_is_far() -> None:
    """After a tenth from this machine's own memory, the first answers over the network are no queue."""
    window = Window()
    answers(window, 60, 0.001, 0.0)
    sizes = [window.size]
    for turn in range(10):
        answers(window, 40, 0.2, 0.5 + 0.2 * turn)
        sizes.append(window.size)
    assert sizes == sorted(sizes) and window.base_s == 0.2


def test_a_path_that_is_a_little_longer_is_noticed() -> None:
    """40 ms more are taken for a queue at first; within a minute they belong to the path."""
    window = Window()
    answers(window, 40, 0.1, 0.0)
    for turn in range(1, 300):
        answers(window, 20, 0.14, 0.2 * turn)
    assert window.base_s == 0.14


def test_a_contact_begins_anew() -> None:
    """After an outage neither the doubled timer nor the collapsed window of the silence holds."""
    window = Window()
    answers(window, 20, 0.05, 0.0)
    for second in range(1, 6):
        window.on_timeout(second - 0.1, float(second))
    assert window.rto_s > 2
    window.begin_again()
    assert window.rto_s == 1.0 and window.size == 6


@pytest.mark.parametrize(("rate_mbps", "rtt_s"), [(20, 0.1), (2, 0.02), (100, 0.005), (5, 0.3), (50, 0.05)])
def test_fills_a_link_without_a_standing_queue(rate_mbps: float, rtt_s: float) -> None:
    """Over links of community networks 95 % of the rate is used, and half of the time little waits in a queue."""
    path, window = Path(rate_mbps * 125_000 / 8000, rtt_s), Window()
    path.run([window], 60)
    assert path.delivered[0] >= 0.94 * 60 / path.service_s
    waits = sorted(path.queues[len(path.queues) // 10 :])
    assert waits[len(waits) // 2] < max(0.05, rtt_s / 2, 3 * path.service_s)
    assert waits[-1] < 3 * max(0.05, rtt_s, 2 * path.service_s)


def test_repaired_losses_leave_a_link_full() -> None:
    """With 3 % repaired a round trip later by the link itself, 20 Mbit/s over 100 ms are used to nine tenths."""
    path, window = Path(312.5, 0.1, loss=0.03, repair_s=0.15), Window()
    path.run([window], 60)
    assert path.delivered[0] >= 0.9 * 60 * 312.5


def test_a_short_queue_that_drops_is_respected() -> None:
    """Where the queue holds ten packets, most of the rate is used and few are lost."""
    path, window = Path(312.5, 0.05, queue=10), Window()
    path.run([window], 60)
    assert path.delivered[0] >= 0.85 * 60 * 312.5


def test_marks_keep_a_queue_short() -> None:
    """A link that marks from four waiting packets on is full, and its queue stays near there."""
    path, window = Path(312.5, 0.05, marks_from=4), Window()
    path.run([window], 60)
    assert path.delivered[0] >= 0.9 * 60 * 312.5
    waits = sorted(path.queues[len(path.queues) // 10 :])
    assert waits[len(waits) * 9 // 10] < 12 * path.service_s


def test_transfers_share_a_link() -> None:
    """Of four transfers over one link, begun one after the other, none gets less than a quarter of its fair share."""
    path, windows = Path(1250, 0.05), [Window() for _ in range(4)]
    path.run(windows, 120, starts=(0.0, 5.0, 10.0, 15.0))
    assert sum(path.delivered) >= 0.95 * 120 * 1250
    assert min(path.delivered) >= sum(path.delivered) / 16


def test_timer_follows_rfc_6298() -> None:
    """RTO = SRTT + 4 RTTVAR, with the first sample and the smoothing of RFC 6298."""
    window = Window()
    assert window.rto_s == 1.0
    window.on_data(0.4, 0.0)
    assert window.rto_s == pytest.approx(0.4 + 4 * 0.2)
    window.on_data(0.8, 0.0)
    assert window.rtt_s == pytest.approx(0.45)
    assert window.rto_s == pytest.approx(0.45 + 4 * (0.75 * 0.2 + 0.25 * 0.4))


def test_timer_remembers_variation_with_many_in_flight() -> None:
    """One late answer in a window of hundreds is remembered for a round trip, not for eight answers (RFC 7323)."""
    window = Window()
    answers(window, 300, 0.1, 0.0)
    window.on_data(0.4, 1.0)
    answers(window, 30, 0.1, 1.0)
    assert window.rto_s > 0.35


def test_timer_has_a_floor_and_backs_off() -> None:
    """The timer leaves 200 ms beyond the round trip; a timeout doubles it, up to 4 s, until the next measurement."""
    window = Window()
    answers(window, 50, 0.01, 0.0)
    assert window.rto_s == pytest.approx(0.21)
    for second in range(1, 10):
        window.on_timeout(second - 0.5, float(second))
    assert window.rto_s == pytest.approx(4.0)
    window.on_data(None, 11.0)
    assert window.rto_s == pytest.approx(4.0)
    window.on_data(0.01, 12.0)
    assert window.rto_s == pytest.approx(0.21)


@given(st.lists(st.tuples(st.sampled_from("dmnltkb"), st.floats(0.0001, 10), st.floats(0, 5)), max_size=300))
def test_stays_within_bounds(events: list[tuple[str, float, float]]) -> None:
    """Whatever happens, from 2 to 400 Interests are in flight and the timer is from 200 ms to 4 s."""
    window, now = Window(), 0.0
    for kind, rtt_s, pause_s in events:
        now += pause_s
        if kind == "d":
            answers(window, 20, rtt_s, now)
        elif kind == "m":
            window.on_data(rtt_s, now, is_marked=True)
        elif kind == "n":
            window.on_data(None, now)
        elif kind == "b":
            window.begin_again()
        else:
            {"l": window.on_loss, "t": window.on_timeout, "k": window.on_nack}[kind](now - rtt_s, now)
        assert 2 <= window.size <= 400
        assert 0.2 <= window.rto_s <= 4.0001
