"""The network as it is known now: the newest report of each node, when it was heard, and when to ask it again."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from gateway.protocol.messages import NodeReport

# A node is lost when so many of its reports in a row were missed.
MISSED_REPORTS = 3
# A node that did not answer is asked again after this and then twice as long, up to the interval.
RETRY_S = 1.0
# One that was never heard is asked that often for a minute: it has just enrolled, and its route comes with its hello.
GREETING_S = 60.0
# A service that restarts again and again is given up on a node after so many reports in a row that say so.
CRASH_REPORTS = 2


@dataclass(frozen=True, slots=True)
class View:
    """The network as it is known: the reports of live nodes, and the lost ones with the seconds of their silence.

    `crash_loops` are the (node, service) pairs that restart again and again.
    """

    reports: Mapping[str, NodeReport]
    lost: Mapping[str, float] = field(default_factory=dict)
    crash_loops: frozenset[tuple[str, str]] = frozenset()

    @property
    def is_cut_off(self) -> bool:
        """Whether most nodes are silent at once: then it is more likely we who are away than they."""
        return len(self.lost) > len(self.reports)


@dataclass(slots=True)
class _Node:
    due: float
    heard: float
    report: NodeReport | None = None
    failures: int = 0
    # In how many reports in a row each service (name, generation) was in a crash-loop.
    crashes: dict[tuple[str, int], int] = field(default_factory=dict)


class NetworkState:
    """Pure: `now` is monotonic time in seconds. A node has a period of grace from when it is first known here."""

    def __init__(self, interval_s: float) -> None:
        self.interval_s = interval_s
        self._nodes: dict[str, _Node] = {}

    def know(self, nodes: dict[str, NodeReport | None], now: float) -> None:
        """These are the enrolled nodes, with the reports that were stored of them; others are forgotten."""
        for name in [name for name in self._nodes if name not in nodes]:
            del self._nodes[name]
        for name, report in nodes.items():
            self._nodes.setdefault(name, _Node(now, now, report))

    def due(self, now: float) -> list[str]:
        """The nodes to ask now; each is put off until it answered or failed, at the latest by an interval."""
        names = [name for name, node in self._nodes.items() if node.due <= now]
        for name in names:
            self._nodes[name].due = now + self.interval_s
        return names

    def next_deadline(self) -> float | None:
        """When the next node is to be asked; None when there is none."""
        return min((node.due for node in self._nodes.values()), default=None)

    def heard(self, name: str, report: NodeReport | None, now: float) -> None:
        """A node answered; `report` is None when it was the report we had, which is no new sign of life."""
        node = self._nodes.get(name)
        if node is None:
            return
        node.failures = 0
        node.due = now + self.interval_s
        if report is not None:
            node.report, node.heard = report, now
            looping = [(s.name, s.generation) for s in report.services if s.state == "crash-loop"]
            node.crashes = {service: node.crashes.get(service, 0) + 1 for service in looping}

    def failed(self, name: str, now: float) -> None:
        """A node did not answer, or with something that was refused."""
        node = self._nodes.get(name)
        if node is None:
            return
        greeting = node.report is None and now - node.heard < GREETING_S
        doublings = 0 if greeting else min(node.failures, 16)
        node.due = now + min(self.interval_s, RETRY_S * 2.0**doublings)
        node.failures += not greeting

    def view(self, now: float) -> View:
        """All of it at one moment."""
        return View(self.live(now), self.lost(now), self.crash_loops(now))

    def live(self, now: float) -> dict[str, NodeReport]:
        """The newest report of each node that is not lost."""
        return {
            name: node.report
            for name, node in self._nodes.items()
            if node.report is not None and now - node.heard <= self._patience(node)
        }

    def lost(self, now: float) -> dict[str, float]:
        """The nodes that sent reports once and were not heard for too long, and for how many seconds."""
        return {
            name: now - node.heard
            for name, node in self._nodes.items()
            if node.report is not None and now - node.heard > self._patience(node)
        }

    def crash_loops(self, now: float) -> frozenset[tuple[str, str]]:
        """The (node, service) pairs that live nodes have called a crash-loop in their last reports."""
        return frozenset(
            (node, service)
            for node in self.live(now)
            for (service, _), reports in self._nodes[node].crashes.items()
            if reports >= CRASH_REPORTS
        )

    def next_loss(self, now: float) -> float | None:
        """When the next node will be lost unless it is heard."""
        ends = [node.heard + self._patience(node) for node in self._nodes.values() if node.report is not None]
        return min((end for end in ends if end >= now), default=None)

    def _patience(self, node: _Node) -> float:
        return patience_s(self.interval_s, node.report.interval_s if node.report is not None else 0.0)


def patience_s(interval_s: float, own_s: float) -> float:
    """How long a node may be silent: `interval_s` is how often it is asked, `own_s` how often it makes a report."""
    return MISSED_REPORTS * max(interval_s, min(own_s, 10 * interval_s))
