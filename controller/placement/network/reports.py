"""The network that the nodes' reports describe."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence

from controller.placement.network.topology import NodeAttributes, Topology, assemble, plausible
from gateway.protocol.messages import Bandwidth, LinkReport, NodeReport

# What was probed, by this end or by the other.
PROBES = ("probe", "peer")
DOUBTFUL = 0.3
# A gateway halves the confidence of a figure with each of these ages, and drops the figure after EXPIRY_S.
HALVING_S, EXPIRY_S = 600.0, 6 * 3600.0

Links = dict[str, list[LinkReport]]


def from_reports(
    reports: Sequence[NodeReport],
    rates: Mapping[tuple[str, str], float] | None = None,
    availability: Mapping[str, float] | None = None,
) -> Topology:
    """The network that the newest reports describe; what cannot be used is left out and named in `notes`.

    The rate of i -> j is what j measured to receive from i, else what i measured to send; never a configured rate
    and never an interface's speed. A doubtful probe counts for less than it says (see weighed()). Where `rates` has a
    low quantile of the past in Mbit/s for (i, j), the smaller of the two counts. `availability` is each node's share of
    time heard, 0 to 1. Only nodes that report are part of it, and links that one of its ends calls up.
    """
    newest = {report.node: report for report in reports}
    names = tuple(sorted(newest))
    index = {name: at for at, name in enumerate(names)}
    notes: list[str] = []
    ends = {name: _links(newest[name], index, notes) for name in names}
    present, rtts_ms = {}, {}
    for source, destination in _pairs(ends):
        sent, received = ends[source].get(destination), ends[destination].get(source)
        rate = _rate(sent, received)
        if rate is not None:
            past = (rates or {}).get((source, destination))
            pair = index[source], index[destination]
            present[pair] = min(rate, past) if plausible(past) else rate
            rtts_ms[pair] = _rtt_ms(sent, received)
    return assemble(
        names,
        [(newest[name].latitude, newest[name].longitude) for name in names],
        present,
        [_attributes(newest[name], (availability or {}).get(name)) for name in names],
        notes,
        rtts_ms,
        _routes(newest, index),
    )


def _attributes(report: NodeReport, availability: float | None) -> NodeAttributes:
    busy, free = report.load.cpu_percent, report.load.memory_available_bytes
    return NodeAttributes(
        zone=report.zone,
        labels=report.labels,
        cpus=report.hardware.cpus,
        memory_bytes=report.hardware.memory_bytes,
        addresses=report.addresses,
        runtimes=report.runtimes,
        availability=availability,
        free_cpu_percent=100.0 - busy if busy is not None and 0 <= busy <= 100 else None,
        free_memory_bytes=free if free is not None and free >= 0 else None,
    )


def _routes(newest: Mapping[str, NodeReport], index: Mapping[str, int]) -> dict[tuple[int, int], int]:
    """The next hop of each node towards each other one, among the nodes that report."""
    return {
        (index[name], index[route.node]): index[route.next_hop]
        for name, report in newest.items()
        for route in report.routes
        if route.node in index and route.next_hop in index and name not in (route.node, route.next_hop)
    }


def _links(report: NodeReport, known: Mapping[str, int], notes: list[str]) -> Links:
    """A node's links by the node at the other end, with figures that can be true."""
    links: Links = {}
    for link in report.links:
        if link.node not in known:
            notes.append(f"link {report.node} - {link.node}: left out, {link.node or 'the other end'} sends no report")
            continue
        notes += [
            f"link {report.node} - {link.node}: {figure.source} of {figure.mbps} Mbit/s is no rate"
            for figure in (link.rx, link.tx)
            if figure is not None and not plausible(figure.mbps)
        ]
        links.setdefault(link.node, []).append(link)
    return links


def _pairs(ends: Mapping[str, Links]) -> list[tuple[str, str]]:
    """Every pair of neighbours, in both directions."""
    told = {(node, other) for node, links in ends.items() for other in links if node != other}
    return sorted(told | {(other, node) for node, other in told})


def _rate(sender: list[LinkReport] | None, receiver: list[LinkReport] | None) -> float | None:
    """The rate from the sender to the receiver as the two ends report it; None when there is no usable link.

    An end that knows the link and calls it down everywhere takes it away. A guess by the class of the link counts
    only when neither end has measured it.
    """
    for end in (sender, receiver):
        if end is not None and all(link.state != "up" for link in end):
            return None
    received = _figures([link.rx for link in receiver or () if link.state == "up"])
    sent = _figures([link.tx for link in sender or () if link.state == "up"])
    for guessed in (False, True):
        for figures in (received, sent):
            rates = [weighed(figure) for figure in figures if (figure.source == "class") == guessed]
            if rates:
                return max(rates)
    return None


def _rtt_ms(sender: list[LinkReport] | None, receiver: list[LinkReport] | None) -> float:
    """The shortest round trip that the sender measured, else that the receiver did, else NaN."""
    for end in (sender, receiver):
        rtts = [link.rtt_ms for link in end or () if link.state == "up" and link.rtt_ms is not None]
        rtts = [rtt for rtt in rtts if 0 <= rtt < math.inf]
        if rtts:
            return min(rtts)
    return math.nan


def weighed(figure: Bandwidth) -> float:
    """The Mbit/s that a figure counts for: a probe of little confidence only in proportion to it.

    A short train of packets errs upwards (a burst that a buffer took, interrupts that came together), so it counts in
    full from DOUBTFUL on, and below that by confidence / DOUBTFUL, never less than a tenth of what it says. The age
    that is in the confidence is taken out again: a link does not shrink because nobody has measured it lately. Without
    a confidence (0, to which that of an old figure is rounded) it counts in full.
    """
    if figure.source not in PROBES or figure.confidence <= 0:
        return figure.mbps
    confidence = figure.confidence * math.exp2(min(figure.age_s, EXPIRY_S) / HALVING_S)
    return figure.mbps * min(1.0, max(0.1, confidence / DOUBTFUL))


def _figures(figures: Iterable[Bandwidth | None]) -> list[Bandwidth]:
    return [figure for figure in figures if figure is not None and plausible(figure.mbps)]
