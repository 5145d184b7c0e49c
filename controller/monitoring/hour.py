"""What an hour of reports says of links and nodes: quantiles, and how much of it each node was heard. Pure."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from controller.monitoring.network import patience_s
from gateway.protocol.messages import Bandwidth, LinkReport, NodeReport

HOUR_S = 3600.0
# A community network's hubs have some 20 neighbours; what claims more than this is cut to those measured most often.
LINKS_PER_NODE = 64
# Two reports of one measurement agree on its moment to within this: ages are rounded, and uptime is read before them.
SAME_MOMENT_S = 1.0

# (source, destination) of a direction, or (from, to) of a stretch of time in Unix seconds.
Pair = tuple[str, str]
Stretch = tuple[float, float]
Weigh = Callable[[Bandwidth], float]


@dataclass(frozen=True, slots=True)
class Quantiles:
    """A figure over some time: the number of samples, and what 10 %, 50 % and 90 % of them do not exceed."""

    samples: int
    low: float
    median: float
    high: float

    @classmethod
    def of(cls, samples: Sequence[float]) -> Quantiles:
        """Of one sample or more, interpolated between neighbouring ones."""
        return cls(len(samples), *(quantile(samples, share) for share in (0.1, 0.5, 0.9)))


@dataclass(frozen=True, slots=True)
class NodeHour:
    """`presence` is for how much of the time that anybody was heard this node was; what it never told is None."""

    presence: float
    reports: int
    free_cpu_percent: Quantiles | None = None
    free_memory_bytes: Quantiles | None = None


class Hour:
    """Collects the reports of an hour, one node after the other, and says what was in them.

    `start` is Unix time, `enrolled` when each node became one; `interval_s` is how often the nodes are asked.
    `weigh` gives the Mbit/s that a figure counts for.
    """

    def __init__(self, start: float, enrolled: Mapping[str, float], interval_s: float, weigh: Weigh) -> None:
        self.start, self.end = start, start + HOUR_S
        self._enrolled, self._interval_s, self._weigh = enrolled, interval_s, weigh
        self._received: dict[Pair, list[float]] = {}
        self._sent: dict[Pair, list[float]] = {}
        self._heard: dict[str, list[Stretch]] = {}
        self._loads: dict[str, tuple[int, list[float], list[float]]] = {}

    def add(self, node: str, reports: Sequence[tuple[float, NodeReport]]) -> None:
        """A node's reports with when they were received (Unix time), oldest first.

        One from before the hour tells only that the node was heard when it began.
        """
        self._heard[node] = list(self._stretches(reports))
        inside = [(moment, report) for moment, report in reports if self.start <= moment < self.end]
        cpu = [100.0 - busy for _, r in inside if (busy := r.load.cpu_percent) is not None and 0 <= busy <= 100]
        memory = [float(free) for _, r in inside if (free := r.load.memory_available_bytes) is not None and free >= 0]
        self._loads[node] = len(inside), cpu, memory
        received, sent = self._samples(node, inside, "rx"), self._samples(node, inside, "tx")
        self._received |= {(other, node): samples for other, samples in received.items()}
        self._sent |= {(node, other): samples for other, samples in sent.items()}

    def links(self) -> dict[Pair, Quantiles]:
        """Mbit/s of each direction that was measured: by who received, else by who sent."""
        return {pair: Quantiles.of(samples) for pair, samples in (self._sent | self._received).items()}

    def nodes(self) -> dict[str, NodeHour]:
        """Every enrolled node; none when nobody was heard, because then it was the controller that was away."""
        watched = _merged(stretch for stretches in self._heard.values() for stretch in stretches)
        found = {}
        for node, enrolled in self._enrolled.items():
            possible_s = _length(watched, enrolled)
            if possible_s > 0:
                heard_s = _length(_merged(self._heard.get(node, ())), enrolled)
                reports, cpu, memory = self._loads.get(node, (0, [], []))
                found[node] = NodeHour(heard_s / possible_s, reports, _quantiles(cpu), _quantiles(memory))
        return found

    def _stretches(self, reports: Sequence[tuple[float, NodeReport]]) -> Iterable[Stretch]:
        for moment, report in reports:
            stretch = max(self.start, moment), min(self.end, moment + patience_s(self._interval_s, report.interval_s))
            if stretch[0] < stretch[1]:
                yield stretch

    def _samples(self, node: str, reports: Sequence[tuple[float, NodeReport]], side: str) -> dict[str, list[float]]:
        """By neighbour, each measurement of this hour once, however many reports repeat it; guesses are none."""
        samples: defaultdict[str, list[float]] = defaultdict(list)
        last: dict[str, tuple[float, float]] = {}
        for received, report in reports:
            for other, figure in self._best(node, report.links, side, received - self.start).items():
                moment = (report.uptime_s or received) - figure.age_s
                before, mbps = last.get(other, (-HOUR_S, 0.0))
                if figure.mbps != mbps or abs(moment - before) > SAME_MOMENT_S:
                    samples[other].append(self._weigh(figure))
                    last[other] = moment, figure.mbps
        most = sorted(samples, key=lambda other: (-len(samples[other]), other))
        return {other: samples[other] for other in most[:LINKS_PER_NODE]}

    def _best(self, node: str, links: Iterable[LinkReport], side: str, age_s: float) -> dict[str, Bandwidth]:
        """By neighbour, the fastest measured figure that is at most so old."""
        best: dict[str, Bandwidth] = {}
        for link in links:
            figure: Bandwidth | None = getattr(link, side)
            if link.state != "up" or link.node == node or link.node not in self._enrolled or figure is None:
                continue
            if figure.source == "class" or figure.age_s > age_s or not 0 < figure.mbps < float("inf"):
                continue
            if link.node not in best or self._weigh(figure) > self._weigh(best[link.node]):
                best[link.node] = figure
        return best


def quantile(samples: Sequence[float], share: float) -> float:
    """What this share of the samples does not exceed, 0 to 1, interpolated."""
    ordered = sorted(samples)
    at = share * (len(ordered) - 1)
    below = int(at)
    above = min(below + 1, len(ordered) - 1)
    return ordered[below] + (at - below) * (ordered[above] - ordered[below])


def _quantiles(samples: Sequence[float]) -> Quantiles | None:
    return Quantiles.of(samples) if samples else None


def _merged(stretches: Iterable[Stretch]) -> list[Stretch]:
    merged: list[Stretch] = []
    for begin, end in sorted(stretches):
        if merged and begin <= merged[-1][1]:
            merged[-1] = merged[-1][0], max(end, merged[-1][1])
        else:
            merged.append((begin, end))
    return merged


def _length(stretches: Iterable[Stretch], since: float) -> float:
    return sum(max(0.0, end - max(begin, since)) for begin, end in stretches)
