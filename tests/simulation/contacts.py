"""When links are there: windows, periods, ferries that call at one place after the other, day and night, bad radio.

Each takes its links down at once and brings them up by its plan; with `notice` (the ordinary case: a radio that
associates, a cable that is plugged in) both ends know. All end at `until_s`.
"""

from __future__ import annotations

import math
import random
from collections.abc import Iterable, Sequence

from tests.simulation.link import Link
from tests.simulation.network import Network

DAY_S = 86_400.0


def windows(net: Network, link: Link, times: Iterable[tuple[float, float]], notice: bool = True) -> None:
    """Up from the first to the second of each pair of times."""
    link.fail(notice)
    for begin, end in times:
        net.at(begin, link.recover)
        net.at(end, link.fail, notice)


def periodic(
    net: Network,
    link: Link,
    every_s: float,
    open_s: float,
    first_s: float = 0.0,
    until_s: float = DAY_S,
    notice: bool = True,
) -> None:
    """Up for `open_s` every `every_s`, at first after `first_s`."""
    count = math.ceil((until_s - first_s) / every_s)
    begins = [net.now + first_s + n * every_s for n in range(count)]
    windows(net, link, [(begin, begin + open_s) for begin in begins], notice)


def day_night(net: Network, link: Link, sunrise_h: float = 7.0, sunset_h: float = 20.0, days: int = 7) -> None:
    """A solar-powered link: up by day. The simulation begins at midnight."""
    hours = [(24 * day + sunrise_h, 24 * day + sunset_h) for day in range(days)]
    windows(net, link, [(begin * 3600, end * 3600) for begin, end in hours])


def ferry(
    net: Network,
    links: Sequence[Link],
    stay_s: float,
    travel_s: float,
    first_s: float = 0.0,
    until_s: float = DAY_S,
    notice: bool = True,
) -> None:
    """One link at a time: a stay at each in turn and round again, with a journey in between."""
    for link in links:
        link.fail(notice)
    leg, when, stop = stay_s + travel_s, net.now + first_s, 0
    while when < until_s:
        link = links[stop % len(links)]
        net.at(when, link.recover)
        net.at(when + stay_s, link.fail, notice)
        when, stop = when + leg, stop + 1


def flapping(
    net: Network,
    link: Link,
    mean_up_s: float,
    mean_down_s: float,
    until_s: float,
    seed: int = 1,
    notice: bool = True,
) -> None:
    """Up and down for times that are exponentially distributed; up at first, and at the end."""
    chance = random.Random(f"{seed} {link.name}")
    when = net.now
    while (when := when + chance.expovariate(1 / mean_up_s)) < until_s:
        net.at(when, link.fail, notice)
        when += chance.expovariate(1 / mean_down_s)
        net.at(min(when, until_s), link.recover)
