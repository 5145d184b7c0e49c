"""A community network whose links are never at rest, and one service on it, half an hour at a time."""

from __future__ import annotations

import math
from collections import defaultdict, deque
from statistics import median

import numpy as np

from controller.decisions import Wanted
from controller.history import LOW_HOURS, LOW_HOURS_MIN, LOW_SHARE
from controller.monitoring.hour import quantile
from controller.monitoring.network import View
from controller.placement import qmp_like
from controller.planner import Decided, Planner
from controller.replan import Rules
from controller.scene import Scene
from gateway.protocol.messages import BlobRef, NodeReport, ServiceSpec
from tests.controller.fakes import report

STEP_S = 1800.0
STEPS_AN_HOUR = 2
DAY = 24 * STEPS_AN_HOUR
BLOB = BlobRef(b"\1" * 32, 40 << 20, b"\2" * 32)
Pair = tuple[str, str]


class Churn:
    """Rates wander over hours and fall in the evening, measurements err, links and nodes go away and come back.

    `moves` are the times (in steps) at which heads changed because others were better, `losses` those at which one was
    gone. `worse` are links with a factor that lasts.
    """

    def __init__(self, nodes: int, seed: int, rules: Rules, replicas: int = 2) -> None:
        network = qmp_like(nodes, seed)
        self.random = np.random.default_rng(seed)
        self.names, self.rules = network.names, rules
        self.pairs: list[Pair] = [(network.names[i], network.names[j]) for i, j in network.edges.tolist()]
        self.rates = network.rates_mbps.copy()
        self.factor = np.ones(len(self.pairs))
        self._drift = np.zeros(len(self.pairs))
        self._up = np.ones(len(self.pairs), dtype=bool)
        self._node_up = dict.fromkeys(network.names, True)
        self._medians: defaultdict[Pair, deque[float]] = defaultdict(lambda: deque(maxlen=LOW_HOURS))
        self._samples: defaultdict[Pair, list[float]] = defaultdict(list)
        self.step = 0
        spec = ServiceSpec("web", 1, "main", BLOB, (BLOB,), replicas=replicas, memory_bytes=0)
        self.wanted = Wanted(spec, b"\x08\x01s", b"d" * 32)
        self.decided: Decided | None = None
        self.moves: list[int] = []
        self.losses: list[int] = []

    @property
    def heads(self) -> set[str]:
        return {head.node for head in self.decided.section.heads} if self.decided is not None else set()

    def run(self, steps: int) -> None:
        for _ in range(steps):
            self._change()
            self._look(self._reports())
            self.step += 1

    def _change(self) -> None:
        draw = self.random.random
        self._drift = 0.94 * self._drift + self.random.normal(0.0, 0.085, len(self.pairs))
        # A link goes away once in four days and for two hours, a node once in three weeks and for three.
        self._up = np.where(
            self._up, draw(len(self.pairs)) > 1 / (4 * DAY), draw(len(self.pairs)) < 1 / (2 * STEPS_AN_HOUR)
        )
        for node in self.names[1:]:
            self._node_up[node] = draw() > 1 / (21 * DAY) if self._node_up[node] else draw() < 1 / (3 * STEPS_AN_HOUR)

    def _reports(self) -> dict[str, NodeReport]:
        evening = 0.6 if 19 <= self.step / STEPS_AN_HOUR % 24 < 23 else 1.0
        noise = np.exp(self._drift + self.random.normal(0.0, 0.15, len(self.pairs)))
        measured = self.rates * self.factor * evening * noise
        links: dict[str, dict[str, float]] = {node: {} for node in self.names if self._node_up[node]}
        for at, (source, destination) in enumerate(self.pairs):
            if self._up[at] and source in links and destination in links:
                links[destination][source] = float(measured[at])
                self._samples[source, destination].append(float(measured[at]))
        if self.step % STEPS_AN_HOUR == STEPS_AN_HOUR - 1:
            for pair, samples in self._samples.items():
                self._medians[pair].append(median(samples))
            self._samples.clear()
        return {node: report(node, rates) for node, rates in links.items()}

    def _look(self, reports: dict[str, NodeReport]) -> None:
        now = self.step * STEP_S
        low = {p: quantile(past, LOW_SHARE) for p, past in self._medians.items() if len(past) >= LOW_HOURS_MIN}
        view = View(reports, {node: math.inf for node in self.names if node not in reports})
        before = self.decided
        outcome = Planner(self.names[0], self.rules, view, Scene(view, low), now).decide(self.wanted, before, [])
        assert outcome.section is not None
        heads = {head.node for head in outcome.section.heads}
        if before is not None and heads != self.heads:
            (self.moves if self.heads <= reports.keys() and len(heads) == len(self.heads) else self.losses).append(
                self.step
            )
        since = before.since if before is not None and heads == self.heads else now
        self.decided = Decided(outcome.section, outcome.notes, since)
