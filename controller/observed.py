"""The network as the database has it: by the newest report of each live node, and by the history of all of them."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from controller.history import series
from controller.monitoring.hour import Pair
from controller.monitoring.network import patience_s
from controller.placement import Topology, from_reports
from controller.placement.study.characterise import Past
from controller.store import Store
from gateway.protocol import codec
from gateway.protocol.errors import ProtocolError
from gateway.protocol.messages import NodeReport

LOW_SHARE = 0.1


def observed(store: Store, interval_s: float, now: float) -> tuple[Topology, Past]:
    """The topology of the nodes that are not lost at `now` (Unix time), and what is known of the past of all."""
    reports = _live(store, interval_s, now)
    links, presence = series(store)
    heard = [at for found in links.values() for at in (int(found.hours[0]), int(found.hours[-1]))]
    hours = max(heard) - min(heard) + 1 if heard else 0
    return from_reports(reports), Past(
        presence=presence,
        link_presence={pair: len(found.hours) / hours for pair, found in links.items()},
        low_mbps={pair: float(np.quantile(found.q50, LOW_SHARE)) for pair, found in links.items()},
        median_mbps={pair: float(np.median(found.q50)) for pair, found in links.items()},
        traffic_mbps=_traffic(reports),
    )


def _live(store: Store, interval_s: float, now: float) -> list[NodeReport]:
    """The newest report of each node that is not lost; what an earlier release stored and this cannot read is none."""
    found = []
    for row in store.nodes():
        try:
            report = codec.decode(NodeReport, row.report) if row.report is not None else None
        except ProtocolError:
            continue
        if report is not None and now - (row.received or 0.0) <= patience_s(interval_s, report.interval_s):
            found.append(report)
    return found


def _traffic(reports: Iterable[NodeReport]) -> dict[Pair, float]:
    """What each direction carries: as its sender counts it, else as its receiver does."""
    sent: dict[Pair, float] = {}
    received: dict[Pair, float] = {}
    for report in reports:
        for link in report.links:
            if link.rate_tx_mbps is not None:
                sent[report.node, link.node] = sent.get((report.node, link.node), 0.0) + link.rate_tx_mbps
            if link.rate_rx_mbps is not None:
                received[link.node, report.node] = received.get((link.node, report.node), 0.0) + link.rate_rx_mbps
    return received | sent
