"""Topologies as NetJSON NetworkGraphs, read directed: a link leads from its source to its target.

A link's rate is its `properties.bandwidth_mbps`, or what link_rates.py makes of its other figures, and its round trip
`rtt_ms`. The properties of a node: `latitude`, `longitude`, `zone`, `labels`, `runtimes`, `cpus`, `memory_bytes`,
`availability` (0 to 1), `online`, and what is free: `free_cpu_percent`, or what `load1` leaves of the CPUs;
`free_memory_bytes`, or what `memory_used` (0 to 1) leaves of the memory. Its addresses are its `local_addresses`.
"""

from __future__ import annotations

import math
from typing import Any

from controller.placement.network.link_rates import LinkRates, number
from controller.placement.network.topology import NodeAttributes, Topology, TopologyError, assemble

Row = dict[str, Any]
SHOWN = 40  # so many characters of a value that cannot be
FIGURES = {  # from and to
    "latitude": (-90.0, 90.0),
    "longitude": (-180.0, 180.0),
    "cpus": (0.0, math.inf),
    "memory_bytes": (0.0, math.inf),
    "availability": (0.0, 1.0),
    "free_cpu_percent": (0.0, 100.0),
    "free_memory_bytes": (0.0, math.inf),
    "load1": (0.0, math.inf),
    "memory_used": (0.0, 1.0),
}


def from_netjson(document: object) -> Topology:
    """The network of a NetJSON NetworkGraph, parsed already; what cannot be used is left out and named in `notes`.

    A node with `online: false` is left out with its links. Raises TopologyError for what is no such graph, and for one
    whose links all have no rate.
    """
    nodes, links, metric = _parts(document)
    online, offline = _nodes(nodes)
    index = {name: at for at, name in enumerate(online)}
    rates, known, loops = LinkRates(metric), index.keys() | offline, 0
    for link in links:
        source, target, properties = _link(link, known)
        loops += source == target
        if offline.isdisjoint((source, target)) and source != target:
            rates.add((index[source], index[target]), f"link {source} -> {target}", properties, link.get("cost"))
    if rates.problems and not rates.rates_mbps:
        raise TopologyError(
            f"no link of this NetJSON graph has a rate ({'; '.join(rates.problems[:3])}); "
            "'properties.bandwidth_mbps' in Mbit/s is where it belongs"
        )
    return assemble(
        list(online),
        [(number(properties.get("latitude")), number(properties.get("longitude"))) for properties in online.values()],
        rates.rates_mbps,
        [_attributes(properties, name) for name, properties in online.items()],
        [f"node {name}: left out, it is offline" for name in sorted(offline)]
        + _unusable(online)
        + rates.notes
        + ([f"links from a node to itself left out: {loops}"] if loops else []),
        rates.rtts_ms,
    )


def _parts(document: object) -> tuple[list[Row], list[Row], str]:
    kind = document.get("type") if isinstance(document, dict) else None
    if not isinstance(document, dict) or kind != "NetworkGraph":
        raise TopologyError(f"not a NetJSON NetworkGraph: 'type' is {kind!r}, 'NetworkGraph' would be accepted")
    parts = []
    for part in ("nodes", "links"):
        rows = document.get(part)
        if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
            raise TopologyError(f"NetJSON {part!r} must be a list of objects, not {type(rows).__name__}")
        parts.append(rows)
    return parts[0], parts[1], str(document.get("metric"))


def _properties(row: Row, of: str) -> Row:
    properties = row.get("properties", {})
    if not isinstance(properties, dict):
        raise TopologyError(f"NetJSON {of}: 'properties' must be an object, not {type(properties).__name__}")
    return properties


def _nodes(nodes: list[Row]) -> tuple[dict[str, Row], set[str]]:
    """The properties of the nodes that are online, and the names of those that are not."""
    online: dict[str, Row] = {}
    offline: set[str] = set()
    for at, node in enumerate(nodes):
        name = node.get("id")
        if name is None or name == "":
            raise TopologyError(f"NetJSON node number {at + 1} has no 'id'; a node needs a non-empty text there")
        if not isinstance(name, str):
            raise TopologyError(f"NetJSON node number {at + 1}: its id is {name!r}, a text is accepted")
        if not name.isprintable():
            raise TopologyError(f"NetJSON node number {at + 1}: its id is {name!r}, printable characters are accepted")
        if name in online or name in offline:
            raise TopologyError(f"NetJSON node {name!r} is there twice; ids must be unique")
        properties = _properties(node, f"node {name!r}")
        if properties.get("online") is False:
            offline.add(name)
        else:
            online[name] = properties | {"local_addresses": node.get("local_addresses")}
    return online, offline


def _link(link: Row, known: set[str]) -> tuple[str, str, Row]:
    source, target = link.get("source"), link.get("target")
    for end in (source, target):
        if not isinstance(end, str) or end not in known:
            raise TopologyError(f"NetJSON link {source!r} -> {target!r}: {end!r} is no node of this graph")
    return str(source), str(target), _properties(link, f"link {source} -> {target}")


def _unusable(nodes: dict[str, Row]) -> list[str]:
    """A note for each kind of figure that cannot be true at some node, which then counts as unknown."""
    notes = []
    for key, (least, most) in FIGURES.items():
        bad = []
        for name, properties in nodes.items():
            value = properties.get(key)
            figure = number(value)
            if value is not None and (figure is None or not least <= figure <= most):
                bad.append((name, value))
        if bad:
            name, value = bad[0]
            notes.append(f"nodes whose {key} cannot be: {len(bad)}, the first is {name} with {_short(value)}")
    return notes


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= SHOWN else text[:SHOWN] + "…"


def _attributes(properties: Row, name: str) -> NodeAttributes:
    zone = properties.get("zone") or ""
    if not isinstance(zone, str):
        raise TopologyError(f"NetJSON node {name!r}: 'zone' must be a text, not {zone!r}")
    return NodeAttributes(
        zone=zone,
        labels=_texts(properties, "labels", name) or (),
        cpus=int(_amount(properties, "cpus") or 0),
        memory_bytes=int(_amount(properties, "memory_bytes") or 0),
        addresses=_texts(properties, "local_addresses", name) or (),
        runtimes=_texts(properties, "runtimes", name),
        availability=_amount(properties, "availability", at_most=1.0),
        free_cpu_percent=_free_cpu_percent(properties),
        free_memory_bytes=_free_memory_bytes(properties),
    )


def _free_cpu_percent(properties: Row) -> float | None:
    free, load = _amount(properties, "free_cpu_percent", at_most=100.0), _amount(properties, "load1")
    if free is not None or load is None:
        return free
    cpus = max(1.0, _amount(properties, "cpus") or 0.0)  # a machine that does not say has one at least
    return max(0.0, 100.0 * (1.0 - load / cpus))


def _free_memory_bytes(properties: Row) -> int | None:
    free, used = _amount(properties, "free_memory_bytes"), _amount(properties, "memory_used", at_most=1.0)
    memory = _amount(properties, "memory_bytes")
    if free is not None:
        return int(free)
    return int(memory * (1.0 - used)) if memory and used is not None else None


def _amount(properties: Row, key: str, at_most: float = math.inf) -> float | None:
    """A number from 0 on; anything else is unknown."""
    amount = number(properties.get(key))
    return amount if amount is not None and 0 <= amount <= at_most else None


def _texts(properties: Row, key: str, name: str) -> tuple[str, ...] | None:
    texts = properties.get(key)
    if texts is None:
        return None
    if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts):
        raise TopologyError(f"NetJSON node {name!r}: {key!r} must be a list of texts, not {texts!r}")
    return tuple(texts)


def to_netjson(topology: Topology) -> dict[str, Any]:
    """The NetJSON NetworkGraph that from_netjson reads back to the same nodes, rates and round trips; no routes."""
    nodes = [
        {"id": name, "local_addresses": list(node.addresses), "properties": _place(latitude, longitude) | _facts(node)}
        for name, (latitude, longitude), node in zip(
            topology.names, topology.coordinates.tolist(), topology.nodes, strict=True
        )
    ]
    links = [
        {
            "source": topology.names[source],
            "target": topology.names[destination],
            "cost": round(1 / rate, 6),
            "properties": {"bandwidth_mbps": rate} | ({} if math.isnan(rtt_ms) else {"rtt_ms": rtt_ms}),
        }
        for (source, destination), rate, rtt_ms in zip(
            topology.edges.tolist(), topology.rates_mbps.tolist(), topology.rtts_ms.tolist(), strict=True
        )
    ]
    return {
        "type": "NetworkGraph",
        "protocol": "static",
        "version": None,
        "metric": "bandwidth_mbps",
        "nodes": nodes,
        "links": links,
    }


def _place(latitude: float, longitude: float) -> Row:
    return {} if math.isnan(latitude) else {"latitude": latitude, "longitude": longitude}


def _facts(node: NodeAttributes) -> Row:
    """What is known of a node: () of runtimes and 0 of what is free are known, other empty values are not."""
    known = {
        "zone": node.zone or None,
        "labels": list(node.labels) or None,
        "cpus": node.cpus or None,
        "memory_bytes": node.memory_bytes or None,
        "runtimes": None if node.runtimes is None else list(node.runtimes),
        "availability": node.availability,
        "free_cpu_percent": node.free_cpu_percent,
        "free_memory_bytes": node.free_memory_bytes,
    }
    return {key: fact for key, fact in known.items() if fact is not None}
