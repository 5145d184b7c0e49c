"""The consumer's window and its repetitions."""

from __future__ import annotations

import itertools

from bench.consumer import REORDERING, Repeats


def test_lost_answer_is_asked_for_again() -> None:
    """What was overtaken by REORDERING later answers is asked for again, before anything new, and the window halves."""
    repeats, fresh = Repeats(64), itertools.count()
    asked = repeats.next(fresh, 64)
    assert repeats.on_answers(asked[1 : REORDERING + 1]) == REORDERING
    assert repeats.find_lost() == 0
    repeats.on_answers([asked[REORDERING + 1]])
    assert repeats.find_lost() == 1
    assert repeats.window == 32
    assert repeats.next(fresh, 3) == [0, 64, 65]


def test_window_halves_once_a_round_and_grows_again() -> None:
    """Losses of one round count once; every round without any adds one, up to the first window."""
    repeats, fresh = Repeats(8), itertools.count()
    repeats.next(fresh, 8)
    assert repeats.on_silence() == 8
    assert repeats.window == 4
    for _ in range(20):
        repeats.on_answers(repeats.next(fresh, repeats.window))
        assert repeats.find_lost() == 0
    assert repeats.window == 8


def test_answer_that_comes_twice_counts_once() -> None:
    """A repetition's second answer is not goodput."""
    repeats = Repeats(8)
    repeats.next(iter(range(8)), 8)
    assert repeats.on_answers([1, 1, 2]) == 2
