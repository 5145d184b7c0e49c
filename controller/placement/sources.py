"""Topologies from what nodes report and from NetJSON files."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any

from controller.placement.topology import NodeAttributes, Topology, TopologyError, assemble, plausible
from gateway.protocol.messages import Bandwidth, LinkReport, NodeReport

# What was probed, by this end or by the other.
PROBES = ("probe", "peer")
DOUBTFUL = 0.3
# A gateway halves the confidence of a figure with each of these ages, and drops the figure after EXPIRY_S.
HALVING_S, EXPIRY_S = 600.0, 6 * 3600.0


def from_reports(reports: Sequence[NodeReport]) -> Topology:
    """The network that the newest reports describe; what cannot be used is left out and named in `notes`.

    The rate of i -> j is what j measured to receive from i, else what i measured to send; never a configured rate
    and never an interface's speed. A doubtful probe counts for less than it says (see weighed()). Only nodes that
    report are part of it, and links that one of its ends calls up.
    """
    newest = {report.node: report for report in reports}
    names = tuple(sorted(newest))
    notes: list[str] = []
    ends = {name: _links(newest[name], newest, notes) for name in names}
    rates: dict[tuple[int, int], float] = {}
    for i, source in enumerate(names):
        for j, destination in enumerate(names):
            rate = _rate(ends[source].get(destination), ends[destination].get(source))
            if i != j and rate is not None:
                rates[i, j] = rate
    return assemble(
        names,
        [(newest[name].latitude, newest[name].longitude) for name in names],
        rates,
        [_attributes(newest[name]) for name in names],
        notes,
    )


def _attributes(report: NodeReport) -> NodeAttributes:
    return NodeAttributes(
        zone=report.zone,
        labels=report.labels,
        cpus=report.hardware.cpus,
        memory_bytes=report.hardware.memory_bytes,
        addresses=report.addresses,
        runtimes=report.runtimes,
    )


def _links(report: NodeReport, known: Iterable[str], notes: list[str]) -> dict[str, list[LinkReport]]:
    """A node's links by the node at the other end, with figures that can be true."""
    links: dict[str, list[LinkReport]] = {}
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


def from_netjson(document: object) -> Topology:
    """A directed NetJSON NetworkGraph: rates in a link's `properties.bandwidth_mbps`, places in a node's properties.

    A link without a rate is left out and counted in `notes`; of parallel links the fastest stays. Raises TopologyError.
    """
    nodes, links = _parts(document)
    attributes: dict[str, NodeAttributes] = {}
    places: list[tuple[float | None, float | None]] = []
    for at, node in enumerate(nodes):
        name = node.get("id")
        if not isinstance(name, str) or not name:
            raise TopologyError(f"NetJSON node number {at + 1} has no 'id'; a node needs a non-empty text there")
        if name in attributes:
            raise TopologyError(f"NetJSON node {name!r} is there twice; ids must be unique")
        properties = _properties(node, f"node {name!r}")
        attributes[name] = _netjson_attributes(properties, name)
        places.append((_number(properties.get("latitude")), _number(properties.get("longitude"))))
    names = list(attributes)
    rates, notes = _netjson_rates(links, {name: at for at, name in enumerate(names)})
    return assemble(names, places, rates, list(attributes.values()), notes)


def _parts(document: object) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    kind = document.get("type") if isinstance(document, dict) else None
    if not isinstance(document, dict) or kind != "NetworkGraph":
        raise TopologyError(f"not a NetJSON NetworkGraph: 'type' is {kind!r}, 'NetworkGraph' would be accepted")
    parts = []
    for part in ("nodes", "links"):
        rows = document.get(part)
        if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
            raise TopologyError(f"NetJSON {part!r} must be a list of objects, not {type(rows).__name__}")
        parts.append(rows)
    return parts[0], parts[1]


def _properties(row: dict[str, Any], of: str) -> dict[str, Any]:
    properties = row.get("properties", {})
    if not isinstance(properties, dict):
        raise TopologyError(f"NetJSON {of}: 'properties' must be an object, not {type(properties).__name__}")
    return properties


def _netjson_attributes(properties: dict[str, Any], name: str) -> NodeAttributes:
    labels = properties.get("labels", [])
    if not isinstance(labels, list) or not all(isinstance(label, str) for label in labels):
        raise TopologyError(f"NetJSON node {name!r}: 'labels' must be a list of texts, not {labels!r}")
    return NodeAttributes(
        zone=str(properties.get("zone", "")),
        labels=tuple(labels),
        cpus=int(_number(properties.get("cpus")) or 0),
        memory_bytes=int(_number(properties.get("memory_bytes")) or 0),
    )


def _netjson_rates(
    links: list[dict[str, Any]], index: dict[str, int]
) -> tuple[dict[tuple[int, int], float], tuple[str, ...]]:
    rates: dict[tuple[int, int], float] = {}
    without = 0
    for link in links:
        ends = link.get("source"), link.get("target")
        label = f"link {ends[0]} -> {ends[1]}"
        for end in ends:
            if not isinstance(end, str) or end not in index:
                raise TopologyError(f"NetJSON {label}: {end!r} is no node of this graph")
        rate = _properties(link, label).get("bandwidth_mbps")
        if rate is None:
            without += 1
            continue
        if not plausible(rate):
            raise TopologyError(f"NetJSON {label}: bandwidth_mbps is {rate!r}; a rate in Mbit/s above 0 is accepted")
        pair = index[str(ends[0])], index[str(ends[1])]
        if pair[0] != pair[1]:
            rates[pair] = max(float(rate), rates.get(pair, 0.0))
    if links and not rates:
        raise TopologyError("no link of this NetJSON graph has a rate; 'properties.bandwidth_mbps' is where it belongs")
    return rates, (f"{without} links without bandwidth_mbps were left out",) if without else ()


def _number(value: object) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return None
    return float(value)


def to_netjson(topology: Topology) -> dict[str, Any]:
    """The NetJSON NetworkGraph that from_netjson reads back to the same names, places and rates."""
    nodes = []
    for name, (latitude, longitude), node in zip(topology.names, topology.coordinates, topology.nodes, strict=True):
        properties: dict[str, Any] = {}
        if not math.isnan(latitude):
            properties |= {"latitude": float(latitude), "longitude": float(longitude)}
        facts = {"zone": node.zone, "labels": list(node.labels), "cpus": node.cpus, "memory_bytes": node.memory_bytes}
        nodes.append({"id": name, "properties": properties | {key: fact for key, fact in facts.items() if fact}})
    links = [
        {
            "source": topology.names[source],
            "target": topology.names[destination],
            "cost": round(1 / rate, 6),
            "properties": {"bandwidth_mbps": float(rate)},
        }
        for (source, destination), rate in zip(topology.edges.tolist(), topology.rates_mbps.tolist(), strict=True)
    ]
    return {
        "type": "NetworkGraph",
        "protocol": "static",
        "version": None,
        "metric": "bandwidth_mbps",
        "nodes": nodes,
        "links": links,
    }
