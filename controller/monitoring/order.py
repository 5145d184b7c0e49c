"""Which of a node's reports is news: by boot id and sequence, because its clock may be wrong."""

from __future__ import annotations

from collections.abc import Collection
from enum import Enum


class Order(Enum):
    NEWER = "newer"
    SAME = "the same"
    OLDER = "older"


def compare(boot_id: str, sequence: int, last_boot: str | None, last_sequence: int, boots: Collection[str]) -> Order:
    """How a report stands to the newest one that was accepted; `boots` are all boot ids seen of this node.

    A boot id that is new is a restart. One that was seen before the last is a replay of old times.
    """
    if boot_id == last_boot:
        if sequence == last_sequence:
            return Order.SAME
        return Order.NEWER if sequence > last_sequence else Order.OLDER
    return Order.OLDER if boot_id in boots else Order.NEWER
