"""When heads move: for a loss at once, for bandwidth only if it lasts and is worth the bytes. Pure; `now` is Unix time.

A better placement on paper is often one that the last measurements flattered: among many candidates the luckiest looks
best. So a rival is held to its word: the same heads have to be better again at several looks, by what is measured then.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

# Each move makes the next one wait as long again, half of that after so much time: who never rests is not chased.
CALM_S = 2 * 86400.0
UNREST_MAX = 3.0

# Mbit that have to be moved so that these nodes can be heads.
Bytes = Callable[[Sequence[str]], float]


@dataclass(frozen=True, slots=True)
class Rules:
    """A rival must give members `gain` more than they have, at `rounds` looks, each `apart_s` or more after the last.

    What members gain in `payback_s` has to be more than what has to be moved: the image, to each new head without it.
    """

    gain: float = 0.15
    rounds: int = 4
    apart_s: float = 3600.0
    payback_s: float = 600.0

    def looks(self, unrest: float = 0.0) -> int:
        """At how many looks a rival must be better, after moves that still count for so many."""
        return math.ceil(self.rounds * (1 + min(unrest, UNREST_MAX)))

    def lasting_s(self, unrest: float = 0.0) -> float:
        """How long a change must last before it moves anything."""
        return (self.looks(unrest) - 1) * self.apart_s

    def at_once(self) -> Rules:
        """For heads that were chosen before anything was measured: the first look that knows more decides."""
        return replace(self, rounds=1, apart_s=0.0)


@dataclass(frozen=True, slots=True)
class Unrest:
    """For how many moves those of the past counted at one moment; they halve in CALM_S."""

    moves: float = 0.0
    at: float = 0.0

    def seen_at(self, now: float) -> float:
        return self.moves * math.exp2(-max(0.0, now - self.at) / CALM_S)

    def moved(self, now: float) -> Unrest:
        """With one move more."""
        return Unrest(self.seen_at(now) + 1, now)

    def to_json(self) -> list[float]:
        return [self.moves, self.at]

    @classmethod
    def from_json(cls, row: Any) -> Unrest:
        """What to_json() gave; rest for anything else."""
        try:
            moves, at = row
            return cls(float(moves), float(at))
        except (TypeError, ValueError):
            return cls()


class Worth(Protocol):
    """What heads are worth: the Mbit/s of all members together."""

    def of(self, heads: Sequence[str]) -> float: ...

    def with_each(self, heads: Sequence[str]) -> Mapping[str, float]:
        """What these heads would be worth with one more, for each node that may be it."""
        ...


@dataclass(frozen=True, slots=True)
class Rival:
    """Heads that were better at so many looks, the last one `seen`, and why each was chosen."""

    heads: tuple[str, ...]
    reasons: Mapping[str, str] = field(default_factory=dict)
    rounds: int = 1
    seen: float = 0.0

    def to_json(self) -> dict[str, Any]:
        return {"heads": list(self.heads), "reasons": dict(self.reasons), "rounds": self.rounds, "seen": self.seen}

    @classmethod
    def from_json(cls, row: Any) -> Rival | None:
        """What to_json() gave; None for anything else, because then the count begins anew."""
        try:
            heads = tuple(str(node) for node in row["heads"])
            reasons = {str(node): str(reason) for node, reason in row["reasons"].items()}
            return cls(heads, reasons, int(row["rounds"]), float(row["seen"]))
        except (AttributeError, KeyError, TypeError, ValueError):
            return None


def look(
    rules: Rules,
    rival: Rival | None,
    best: Rival,
    held: Sequence[str],
    worth: Worth,
    to_move: Bytes,
    *,
    decided: float,
    now: float,
    unrest: float = 0.0,
    is_doubtful: bool = False,
) -> tuple[Rival | None, bool]:
    """The rival after this look, and whether its heads are to be taken.

    `rival` is what the last look left, `best` the best placement now; the heads that are `held` became so when they
    were `decided`; `unrest` is what moves of the past count for. With `is_doubtful` heads, which fail a measured
    constraint, any rival is better.
    """
    if 0 <= now - (decided if rival is None else rival.seen) < rules.apart_s:
        return rival, False  # too soon to be another look: fetching an image, for one, changes what is measured

    def is_better(heads: Sequence[str]) -> bool:
        if set(heads) == set(held):
            return False
        has = worth.of(held)
        gained = worth.of(heads) - has
        return is_doubtful or (gained > rules.gain * abs(has) and gained * rules.payback_s > to_move(heads))

    if rival is not None and is_better(rival.heads):
        rival = replace(rival, rounds=rival.rounds + 1, seen=now)
    elif is_better(best.heads):
        rival = replace(best, rounds=1, seen=now)
    else:
        rival = None
    return rival, rival is not None and rival.rounds >= rules.looks(unrest)


def complete(
    kept: Sequence[str], count: int, standbys: Sequence[str], worth: Worth, gain: float, gone: Collection[str] = ()
) -> dict[str, str]:
    """So many heads out of those kept, each new one with the reason: a stand-by if it is nearly as good as the best.

    Stand-bys have the image already. There are fewer heads when no other node may be one. Of too many those go that
    members miss least.
    """
    heads, reasons = list(kept), dict.fromkeys(kept, "")
    while len(heads) > count:
        heads.remove(max(heads, key=lambda head: worth.of([node for node in heads if node != head])))
    for _ in range(count - len(heads)):
        offers = worth.with_each(heads)
        if not offers:
            break
        best = max(offers, key=lambda node: offers[node])
        ready = [node for node in standbys if node in offers and offers[node] * (1 + gain) >= offers[best]]
        chosen = ready[0] if ready else best
        reasons[chosen] = _why_it_completes(chosen, offers, bool(ready), gone)
        heads.append(chosen)
    return {head: reasons[head] for head in heads}


def _why_it_completes(chosen: str, offers: Mapping[str, float], is_standby: bool, gone: Collection[str]) -> str:
    what = f"takes the place of {', '.join(sorted(gone))}" if gone else "joins the heads there are"
    what += ", as its stand-by" if gone and is_standby else ", as a stand-by" if is_standby else ""
    text = f"{what}: with it the members have {offers[chosen]:.1f} Mbit/s in all"
    others = [node for node in offers if node != chosen]
    if not others:
        return f"{text}; no other node may be a head"
    second = max(others, key=lambda node: offers[node])
    return f"{text}, with {second} {offers[second]:.1f}"
