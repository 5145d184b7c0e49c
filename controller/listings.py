"""What the database says of the network, as rows for tables and for JSON; works whether the daemon runs or not."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from controller.monitoring.network import patience_s
from controller.records import NodeRow
from controller.repository.publication import Publication
from controller.store import Store
from gateway.protocol import codec, keys, names
from gateway.protocol.errors import ProtocolError
from gateway.protocol.messages import Bandwidth, Head, LinkReport, NodeReport, Section, ServiceSpec, ServiceStatus

Row = dict[str, Any]


def nodes(store: Store, interval_s: float, now: float) -> list[Row]:
    """Every enrolled node with its newest report; `now` is Unix time."""
    return [_node(row, _report(row), interval_s, now) for row in store.nodes()]


def _node(row: NodeRow, report: NodeReport | None, interval_s: float, now: float) -> Row:
    facts: Row = {
        "node": row.name,
        "state": _state(row, report, interval_s, now),
        "seen_s": None if row.received is None else round(now - row.received, 1),
        "enrolled": row.enrolled,
        "problem": row.problem,
    }
    if report is None:
        return facts
    return facts | {
        "zone": report.zone,
        "labels": list(report.labels),
        "latitude": report.latitude,
        "longitude": report.longitude,
        "addresses": list(report.addresses),
        "uptime_s": report.uptime_s,
        "boot_id": report.boot_id,
        "sequence": report.sequence,
        "hardware": codec.to_json(report.hardware),
        "load": codec.to_json(report.load),
        "runtimes": list(report.runtimes),
        "services": [status.name for status in report.services],
        "blobs": len(report.blobs),
        "forwarder": codec.to_json(report.forwarder),
        "software": report.software,
    }


def _state(row: NodeRow, report: NodeReport | None, interval_s: float, now: float) -> str:
    if row.received is None:
        return "never heard"
    if report is None:
        return "not readable"
    return "up" if now - row.received <= patience_s(interval_s, report.interval_s) else "lost"


def links(store: Store, now: float) -> list[Row]:
    """Every directed link with what was measured on it, by whom and how long ago; `mbps` is None where nobody knows."""
    rows: dict[tuple[str, str], Row] = {}
    for node in store.nodes():
        report = _report(node)
        for link in report.links if report is not None else ():
            since = now - (node.received or now)
            _offer(rows, (link.node, node.name), link.rx, link, node.name, since)
            _offer(rows, (node.name, link.node), link.tx, link, node.name, since)
    return [rows[pair] for pair in sorted(rows)]


def _offer(
    rows: dict[tuple[str, str], Row],
    pair: tuple[str, str],
    figure: Bandwidth | None,
    link: LinkReport,
    by: str,
    since: float,
) -> None:
    """Keeps the better of two figures of one direction: measured before guessed, the receiver's before the sender's."""
    row: Row = {
        "from": pair[0],
        "to": pair[1],
        "state": link.state,
        "mbps": None if figure is None else round(figure.mbps, 3),
        "source": "" if figure is None else figure.source,
        "age_s": None if figure is None else round(figure.age_s + since, 1),
        "confidence": None if figure is None else round(figure.confidence, 3),
        "measured_by": by,
        "rtt_ms": link.rtt_ms,
        "loss": link.loss,
        "medium": link.medium,
        "interface": link.interface,
        "signal_dbm": link.signal_dbm,
    }
    known = rows.get(pair)
    if known is None or _rank(row) < _rank(known):
        rows[pair] = row


def _rank(row: Row) -> tuple[bool, bool, bool]:
    return row["mbps"] is None, row["source"] == "class", row["measured_by"] != row["to"]


def services(store: Store) -> list[Row]:
    """Every service that is to run, with what each node says of it."""
    statuses: dict[str, list[tuple[str, ServiceStatus]]] = {}
    for node in store.nodes():
        report = _report(node)
        for status in report.services if report is not None else ():
            statuses.setdefault(status.name, []).append((node.name, status))
    sections = {section.service: section for section, _ in _sections(store)}
    rows = []
    for row in store.services():
        spec = _spec(row.wire)
        placed = {head.node: head for head in sections[row.name].heads} if row.name in sections else {}
        told = dict(statuses.get(row.name, []))
        instances = [
            _instance(node, placed, told.get(node)) for node in [*placed, *sorted(told.keys() - placed.keys())]
        ]
        rows.append(
            {
                "service": row.name,
                "version": row.version,
                "provider": row.provider,
                "replicas": spec.replicas if spec else None,
                "running": sum(i["state"] == "running" and i["health"] != "unhealthy" for i in instances),
                "algorithm": spec.algorithm if spec else "",
                "ports": [[port.host, port.container] for port in spec.ports] if spec else [],
                "image_bytes": sum(b.size for b in (spec.manifest, *spec.blobs)) if spec else None,
                "deployed": row.deployed,
                "instances": instances,
            }
        )
    return rows


def _instance(node: str, placed: Mapping[str, Any], status: ServiceStatus | None) -> Row:
    head = placed.get(node)
    return {
        "node": node,
        "is_head": head is not None,
        "address": head.address if head is not None else "",
        "state": status.state if status is not None else "not reported yet",
        "health": status.health if status is not None else "unknown",
        "version": status.generation if status is not None else None,
        "runtime": status.runtime if status is not None else "",
        "restarts": status.restarts if status is not None else None,
        "started": status.started if status is not None else None,
        "ports": list(status.ports) if status is not None else [],
        "reason": status.reason if status is not None else "",
    }


def placement(store: Store) -> Row:
    """The newest head and, for each service, its heads with the reasons, and the nodes that were refused."""
    row = store.head()
    head = None if row is None else codec.decode(Head, keys.parse(row.wire).content)
    decided = [_placement(section, notes) for section, notes in _sections(store)]
    unplaced = json.loads(store.meta("unplaced", "{}"))
    return {
        "head": None
        if head is None or row is None
        else {
            "epoch": head.epoch,
            "version": head.version,
            "issued": head.issued,
            "expires": head.expires,
            "why": row.why,
        },
        "services": decided,
        "unplaced": [{"service": name, "problem": notes.get("problem", "")} for name, notes in unplaced.items()],
    }


def _placement(section: Section, notes: Row) -> Row:
    return {
        "service": section.service,
        "zone": section.zone,
        "specification": names.to_uri(section.specification),
        "algorithm": section.algorithm,
        "snapshot": section.snapshot,
        "origin": section.origin,
        "heads": [_placed_head(codec.to_json(head), notes) for head in section.heads],
        "standbys": list(section.standbys),
        "members": dict(section.members),
        "metric": notes.get("metric", ""),
        "mean_bandwidth_mbps": notes.get("mean_bandwidth_mbps"),
        "mean_of_cluster_means_mbps": notes.get("mean_of_cluster_means_mbps"),
        "bound_mbps": notes.get("bound_mbps"),
        "gap": notes.get("gap"),
        "proven": notes.get("proven", False),
        "method": notes.get("method", ""),
        "refused": notes.get("refused", {}),
        "unreached": notes.get("unreached", []),
        "violations": notes.get("violations", {}),
        "waits": notes.get("waits", ""),
        "kept": notes.get("kept", ""),
        "problem": notes.get("problem", ""),
    }


def _placed_head(head: Row, notes: Row) -> Row:
    """A head with its figures of the last look, which are newer than those that travelled."""
    bandwidth, reasons = notes.get("bandwidth_mbps", {}), notes.get("reasons", {})
    node = head["node"]
    runner_up, mbps = notes.get("runners_up", {}).get(node, ("", None))
    return head | {
        "runner_up": runner_up,
        "runner_up_mbps": mbps,
        "bandwidth_mbps": bandwidth.get(node, head["bandwidth_mbps"]),
        "reason": reasons.get(node, head["reason"]),
    }


def heads(store: Store) -> list[Row]:
    """The last heads and why each was made, newest first."""
    return [{"epoch": r.epoch, "version": r.version, "issued": r.issued, "why": r.why} for r in store.heads()]


def images(store: Store, network: names.Network) -> list[Row]:
    """What is published."""
    rows = []
    for row in store.publications():
        publication = codec.decode(Publication, row.content)
        rows.append(
            {
                "reference": publication.reference,
                "kind": "image" if publication.image else "file",
                "platform": publication.platform,
                "blobs": len(publication.all_blobs),
                "size_bytes": publication.size_bytes,
                "name": names.to_uri(network.blob(publication.manifest.sha256)),
                "published": row.published,
            }
        )
    return rows


def _report(row: NodeRow) -> NodeReport | None:
    try:
        return None if row.report is None else codec.decode(NodeReport, row.report)
    except ProtocolError:
        return None


def _spec(wire: bytes) -> ServiceSpec | None:
    try:
        return codec.decode(ServiceSpec, keys.parse(wire).content)
    except ProtocolError:
        return None


def _sections(store: Store) -> list[tuple[Section, Row]]:
    return [(codec.decode(Section, d.section), dict(json.loads(d.notes))) for d in store.decisions()]
