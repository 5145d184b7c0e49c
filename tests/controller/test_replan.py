"""When heads move, on plain figures."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from itertools import pairwise

import pytest
from hypothesis import given, strategies

from controller import replan
from controller.replan import Rival, Rules, Unrest

RULES = Rules(gain=0.15, rounds=3, apart_s=60.0, payback_s=100.0)
NEVER = -1e9


class Sums:
    """A head is worth a fixed figure, whoever the others are."""

    def __init__(self, **mbps: float) -> None:
        self.mbps = mbps

    def of(self, heads: Sequence[str]) -> float:
        return sum(self.mbps[head] for head in heads)

    def with_each(self, heads: Sequence[str]) -> Mapping[str, float]:
        return {node: self.of([*heads, node]) for node in self.mbps if node not in heads}


def look(
    rival: Rival | None, now: float, best: str = "b", to_move: float = 0.0, decided: float = NEVER, **mbps: float
) -> tuple[Rival | None, bool]:
    """A look at head a, whose best replacement is `best`."""
    worth = Sums(**({"a": 10.0, "b": 12.0, "c": 13.0} | mbps))
    candidate = Rival((best,), {best: "better"})
    return replan.look(RULES, rival, candidate, ["a"], worth, lambda _: to_move, decided=decided, now=now)


def test_rival_wins_after_so_many_looks() -> None:
    """Three looks a minute apart; what is looked at in between counts neither for nor against it."""
    rival, moves = look(None, 0.0)
    assert rival == Rival(("b",), {"b": "better"}, 1, 0.0) and not moves
    rival, moves = look(rival, 60.0)
    assert not moves
    assert look(rival, 119.0, b=0.0) == (rival, False)
    rival, moves = look(rival, 120.0)
    assert rival is not None and rival.rounds == 3 and moves


def test_rival_is_held_to_its_word() -> None:
    """Other heads that are better now do not help the one that was better before; they begin anew."""
    rival, _ = look(None, 0.0)
    rival, moves = look(rival, 60.0, best="c", b=11.0)
    assert rival is not None and (rival.heads, rival.rounds, moves) == (("c",), 1, False)
    rival, _ = look(rival, 120.0, best="b", b=14.0)
    assert rival is not None and (rival.heads, rival.rounds) == (("c",), 2)


def test_rival_that_is_no_better_any_more_is_forgotten() -> None:
    """One look without enough gain, and all begins from the start."""
    rival, _ = look(None, 0.0)
    assert look(rival, 60.0, b=11.4) == (None, False)


@pytest.mark.parametrize(("b", "is_rival"), [(11.4, False), (11.6, True)])
def test_small_gain_is_none(b: float, is_rival: bool) -> None:
    """Below 15 % measurements wander by themselves."""
    assert (look(None, 0.0, b=b)[0] is not None) == is_rival


@pytest.mark.parametrize(("to_move", "is_rival"), [(199.0, True), (201.0, False)])
def test_gain_must_outweigh_the_bytes(to_move: float, is_rival: bool) -> None:
    """2 Mbit/s more for 100 s are 200 Mbit."""
    assert (look(None, 0.0, to_move=to_move)[0] is not None) == is_rival


def test_heads_that_were_just_chosen_rest() -> None:
    """Fetching the image changes what is measured: the first look after a decision comes an interval later."""
    assert look(None, 59.0, decided=0.0) == (None, False)
    assert look(None, 60.0, decided=0.0)[0] is not None


def test_clock_that_was_set_back_stops_nothing() -> None:
    """A look in the future was no look: the count goes on."""
    rival, _ = look(None, 1e6)
    rival, _ = look(rival, 0.0)
    assert rival is not None and (rival.rounds, rival.seen) == (2, 0.0)


def test_members_without_anything_gain_by_anything() -> None:
    """Heads that reach nobody are beaten by the first that reach somebody."""
    rival, _ = look(None, 0.0, a=0.0, b=0.1)
    assert rival is not None


def test_doubtful_heads_are_beaten_by_worse_ones() -> None:
    """A head that fails a constraint goes in the end, although members lose by it."""
    rival = None
    for at in range(3):
        rival, moves = replan.look(
            RULES,
            rival,
            Rival(("b",)),
            ["a"],
            Sums(a=10.0, b=1.0),
            lambda _: 1e9,
            decided=NEVER,
            now=60.0 * at,
            is_doubtful=True,
        )
    assert moves


def test_guess_is_put_right_at_once() -> None:
    """Where nothing was known when the heads were chosen, the first look decides."""
    worth = Sums(a=10.0, b=12.0)
    at_once = RULES.at_once()
    assert replan.look(at_once, None, Rival(("b",)), ["a"], worth, lambda _: 0.0, decided=0.0, now=0.0)[1]


def test_lasting_change_takes_a_stated_time() -> None:
    """Three looks are two intervals."""
    assert RULES.lasting_s() == 120.0 and Rules().lasting_s() == 10_800.0


@given(
    strategies.lists(strategies.tuples(strategies.floats(0, 600), strategies.floats(0, 100), strategies.floats(0, 100)))
)
def test_moves_never_come_faster_than_the_rules_allow(steps: list[tuple[float, float, float]]) -> None:
    """Whatever is measured whenever, two moves are as far apart as so many looks after a rest."""
    held, rival, decided, now, moves = "a", None, 0.0, 0.0, []
    for pause, a, b in steps:
        now += pause
        other = "b" if held == "a" else "a"
        rival, is_moving = replan.look(
            RULES, rival, Rival((other,)), [held], Sums(a=a, b=b), lambda _: 0.0, decided=decided, now=now
        )
        if is_moving:
            held, rival, decided = other, None, now
            moves.append(now)
    assert all(later - earlier >= RULES.apart_s + RULES.lasting_s() for earlier, later in pairwise([0.0, *moves]))


def test_each_move_makes_the_next_one_wait() -> None:
    """Two moves in a row ask for three times the looks; two quiet days take half of that away; it has an end."""
    twice = Unrest().moved(0.0).moved(0.0)
    assert RULES.looks(twice.seen_at(0.0)) == 9
    assert RULES.looks(twice.seen_at(replan.CALM_S)) == 6
    assert RULES.looks(Unrest(50.0, 0.0).seen_at(0.0)) == 12
    worth, rival, moves = Sums(a=10.0, b=12.0), None, []
    for at in range(9):
        rival, is_moving = replan.look(
            RULES, rival, Rival(("b",)), ["a"], worth, lambda _: 0.0, decided=NEVER, now=60.0 * at, unrest=2.0
        )
        moves.append(is_moving)
    assert moves == [False] * 8 + [True]


def test_unrest_survives_in_notes() -> None:
    """What is written is what is read; anything else is rest."""
    assert Unrest.from_json(json.loads(json.dumps(Unrest(1.5, 9.0).to_json()))) == Unrest(1.5, 9.0)
    assert all(Unrest.from_json(damaged) == Unrest() for damaged in (None, [], "x", ["a", "b"], {}))


def test_rival_survives_in_notes() -> None:
    """What is written is what is read; anything else begins anew."""
    rival = Rival(("a", "b"), {"a": "why"}, 2, 5.5)
    assert Rival.from_json(json.loads(json.dumps(rival.to_json()))) == rival
    for damaged in (
        None,
        {},
        "x",
        [],
        {"heads": 3, "reasons": {}, "rounds": 1, "seen": 0},
        rival.to_json() | {"seen": "x"},
    ):
        assert Rival.from_json(damaged) is None


# --- heads that are lost -------------------------------------------------------------------------------------


def test_only_the_lost_head_is_replaced() -> None:
    """The others stay, whatever else would be better, and the new one has its reason with the runner-up's figure."""
    heads = replan.complete(["a"], 2, [], Sums(a=1.0, b=8.0, c=9.0, d=7.0), 0.15, ["gone"])
    assert list(heads) == ["a", "c"] and heads["a"] == ""
    assert heads["c"] == "takes the place of gone: with it the members have 10.0 Mbit/s in all, with b 9.0"


def test_standby_takes_the_place_if_it_is_nearly_as_good() -> None:
    """In their order; one that is far worse than the best node is passed over."""
    worth = Sums(a=1.0, b=8.0, c=9.0, d=2.0)
    assert list(replan.complete(["a"], 2, ["d", "b"], worth, 0.15, ["gone"])) == ["a", "b"]
    assert "as its stand-by" in replan.complete(["a"], 2, ["b"], worth, 0.15, ["gone"])["b"]
    assert list(replan.complete(["a"], 2, ["d"], worth, 0.15, ["gone"])) == ["a", "c"]


def test_more_replicas_join_and_fewer_leave() -> None:
    """Growing moves nobody; the heads that are missed least go."""
    worth = Sums(a=1.0, b=8.0, c=9.0)
    assert list(replan.complete(["a"], 3, [], worth, 0.15)) == ["a", "c", "b"]
    assert "joins the heads there are" in replan.complete(["a"], 2, [], worth, 0.15)["c"]
    assert list(replan.complete(["a", "b", "c"], 2, [], worth, 0.15)) == ["b", "c"]
    assert list(replan.complete(["a", "b", "c"], 5, [], worth, 0.15)) == ["a", "b", "c"]
