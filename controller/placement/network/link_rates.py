"""The rate of a link that a file describes, in Mbit/s: the first of these that it has.

  bandwidth_mbps    the figure itself
  transmit_quality  30 × the share of packets that arrive: 0 to 1, or 2 to 255 as batman-adv counts it
  tx_rate           30 × the share of packets that arrive, in per cent as BMX6 counts it
  link_class        see LINK_CLASSES; a class says nothing of direction, so the link counts both ways
  cost, metric ETX  30 / cost; a packet's and its answer's, so the other way counts the same unless it has a cost itself
  cost, metric TQ   30 / cost; the cost is 255 / TQ, as batman-adv's visualisation gives it

30 Mbit/s is what an outdoor radio on one channel of 20 MHz carries for its users when no packet is lost. Only the first
is a measurement; where the others were used, the topology's notes say so.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from typing import Any

from controller.placement.network.topology import plausible

PERFECT_MBPS = 30.0
LINK_CLASSES = {
    "fiber": 1000.0,
    "ethernet": 1000.0,
    "60ghz": 600.0,
    "5ghz": 50.0,
    "active": 50.0,
    "wireless": 30.0,
    "2.4ghz": 15.0,
    "vpn": 15.0,
}
METRICS = ("ETX", "TQ")
BROKEN_COST = 4096.0  # an ETX from here on is olsrd's word for a broken link

Pair = tuple[int, int]


class LinkRates:
    """The rates and round trips of directed links as they are read one by one, and what is to be said about them.

    Of parallel links the fastest stays.
    """

    def __init__(self, metric: str) -> None:
        self.rtts_ms: dict[Pair, float] = {}
        self._metric = metric.upper()
        self._stated: dict[Pair, float] = {}
        self._implied: dict[Pair, float] = {}
        self._derived: Counter[str] = Counter()
        self._without = 0
        self._refused: list[tuple[str, str]] = []

    def add(self, pair: Pair, label: str, properties: Mapping[str, Any], cost: object) -> None:
        """Takes in the link between a pair of nodes; `label` names it in the notes."""
        what, value, rate = self._estimate(properties, cost)
        if not what:
            self._without += 1
        elif not plausible(rate):
            self._refused.append((label, f"its {what} is {value!r}"))
        else:
            self._keep(pair, what, rate, number(properties.get("rtt_ms")))

    def _keep(self, pair: Pair, what: str, rate: float, rtt_ms: float | None) -> None:
        back = pair[::-1]
        self._stated[pair] = max(rate, self._stated.get(pair, 0.0))
        if what == "link_class":
            self._stated[back] = max(rate, self._stated.get(back, 0.0))
        if what == "ETX":
            self._implied[back] = max(rate, self._implied.get(back, 0.0))
        if what != "bandwidth_mbps":
            self._derived[what] += 1
        if rtt_ms is not None and rtt_ms >= 0:
            self.rtts_ms[pair] = rtt_ms
            self.rtts_ms.setdefault(back, rtt_ms)

    def _estimate(self, properties: Mapping[str, Any], cost: object) -> tuple[str, object, float | None]:
        """What the rate of a link comes from ("" for nothing), that value, and the rate; None when it makes none."""
        for what, rate_of in RULES.items():
            value = properties.get(what)
            if value is not None:
                return what, value, rate_of(value)
        if self._metric in METRICS and cost is not None:
            return self._metric, cost, _by_cost(cost)
        return "", None, None

    @property
    def rates_mbps(self) -> dict[Pair, float]:
        """Mbit/s from the first of a pair to the second."""
        return self._implied | self._stated

    @property
    def problems(self) -> list[str]:
        """The links that were left out."""
        without = [f"links left out, without bandwidth_mbps or what stands for it: {self._without}"]
        refused = [f"{label}: left out, {why}" for label, why in self._refused]
        if len(refused) > 1:
            label, why = self._refused[0]
            refused = [f"links left out for a rate that cannot be: {len(refused)}, the first is {label}: {why}"]
        return (without if self._without else []) + refused

    @property
    def notes(self) -> list[str]:
        """The links that were left out, and what rates are no measurement."""
        derived = [f"links with a rate derived from {what}: {count}" for what, count in sorted(self._derived.items())]
        return derived + self.problems


def number(value: object) -> float | None:
    """A finite number as it is, anything else as None."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        return float(value) if math.isfinite(value) else None
    except OverflowError:  # an integer beyond any float
        return None


def _by_quality(value: object) -> float | None:
    share = number(value)
    if share is None or not 0 <= share <= 255:
        return None
    return PERFECT_MBPS * (share if share <= 1 else share / 255)


def _by_percent(value: object) -> float | None:
    percent = number(value)
    return PERFECT_MBPS * percent / 100 if percent is not None and 0 <= percent <= 100 else None


def _by_class(value: object) -> float | None:
    return LINK_CLASSES.get(value.lower()) if isinstance(value, str) else None


def _by_cost(value: object) -> float | None:
    cost = number(value)
    return PERFECT_MBPS / max(1.0, cost) if cost is not None and 0 < cost < BROKEN_COST else None


RULES = {
    "bandwidth_mbps": number,
    "transmit_quality": _by_quality,
    "tx_rate": _by_percent,
    "link_class": _by_class,
}
