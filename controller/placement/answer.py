"""What an algorithm answers."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Choice:
    """A head, and why it and no other."""

    node: int
    reason: str


@dataclass(frozen=True, slots=True)
class Answer:
    """The heads in the order chosen, and how they were found.

    `bound` is a sum over members plus the heads' bonus, in Mbit/s, that no k heads exceed; None where nobody looked.
    So for `others`: for each head the node that replaces it best and the value then, None when no node is left.
    """

    choices: tuple[Choice, ...]
    method: str
    bound: float | None = None
    others: tuple[tuple[int, float] | None, ...] | None = None
