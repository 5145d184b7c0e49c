"""Rows as tables for people."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

Row = dict[str, Any]


def print_nodes(console: Console, rows: list[Row]) -> None:
    table = _table(
        "node", "zone", "state", "seen", "up for", "cpu %", "memory free", "disk free", "runtimes", "services"
    )
    for row in rows:
        load, services = row.get("load") or {}, row.get("services", [])
        table.add_row(
            *_cells(
                row["node"],
                row.get("zone", ""),
                row["state"],
                duration(row["seen_s"]),
                duration(row.get("uptime_s")),
                number(load.get("cpu_percent")),
                size(load.get("memory_available_bytes")),
                size(load.get("disk_free_bytes")),
                ", ".join(row.get("runtimes", [])),
                ", ".join(services),
            )
        )
    _show(console, table, rows, "no node is enrolled: `picasso-controller enrol NODE` gives a token to one")
    for row in rows:
        if row["problem"] and row["state"] != "up":
            console.print(f"{row['node']}: {row['problem']}", style="yellow", markup=False, highlight=False)


def print_links(console: Console, rows: list[Row]) -> None:
    table = _table("from", "to", "Mbit/s", "source", "age", "confidence", "round trip", "loss", "measured by", "state")
    for row in rows:
        loss = None if row["loss"] is None else 100 * row["loss"]
        table.add_row(
            *_cells(
                row["from"],
                row["to"],
                number(row["mbps"], 2),
                row["source"] or "not measured",
                duration(row["age_s"]),
                number(row["confidence"], 2),
                number(row["rtt_ms"], 1, " ms"),
                number(loss, 0, " %"),
                row["measured_by"],
                row["state"],
            )
        )
    _show(console, table, rows, "no node has reported a link")


def print_services(console: Console, rows: list[Row]) -> None:
    table = _table("service", "version", "node", "role", "state", "health", "runtime", "restarts", "address", "reason")
    for row in rows:
        for instance in row["instances"] or [{}]:
            state = instance.get("state", "placed nowhere")
            table.add_row(
                *_cells(
                    row["service"],
                    row["version"],
                    instance.get("node", ""),
                    "head" if instance.get("is_head") else "",
                    state,
                    instance.get("health", ""),
                    instance.get("runtime", ""),
                    instance.get("restarts"),
                    _addresses(instance, row["ports"]),
                    instance.get("reason", ""),
                )
            )
    _show(console, table, rows, "no service is deployed: `picasso-controller deploy FILE.yaml` deploys one")


def print_placement(console: Console, placement: Row, stamp: str) -> None:
    head = placement["head"]
    if head is None:
        console.print("nothing is decided yet")
    else:
        title = f"head {head['epoch']}.{head['version']}, {stamp}: {head['why']}"
        console.print(title, style="bold", markup=False, highlight=False)
    for service in placement["services"]:
        _print_service_placement(console, service)
    for row in placement["unplaced"]:
        console.print(f"{row['service']}: placed nowhere: {row['problem']}", style="red", markup=False, highlight=False)


def _print_service_placement(console: Console, service: Row) -> None:
    zone = f" in zone {service['zone']}" if service["zone"] else ""
    console.print(f"\n{service['service']}{zone}, {service['algorithm']} on {service['snapshot']}", markup=False)
    table = _table("head", "Mbit/s to its members", "image from", "address", "members", "why")
    for head in service["heads"]:
        members = sorted(node for node, own in service["members"].items() if own == head["node"])
        table.add_row(
            *_cells(
                head["node"],
                number(head["bandwidth_mbps"], 2) if members else "no members",
                head["parent"] or "itself",
                head["address"],
                ", ".join(members),
                head["reason"],
            )
        )
    _show(console, table, service["heads"], "  no node may run it")
    notes = [_quality(service)] if service["heads"] and service["mean_bandwidth_mbps"] is not None else []
    notes += [f"stand-by: {', '.join(service['standbys'])}"] if service["standbys"] else []
    notes += [f"refused {node}: {reason}" for node, reason in sorted(service["refused"].items())]
    notes += [f"reached by no head: {', '.join(service['unreached'])}"] if service["unreached"] else []
    notes += [f"target missed: {node}: {reason}" for node, reason in sorted(service["violations"].items())]
    notes += [text for text in (service["waits"], service["kept"], service["problem"]) if text]
    for note in notes:
        console.print(f"  {note}", markup=False, highlight=False)


def _quality(service: Row) -> str:
    """The mean over members, and how far from the best it may be."""
    mean = f"mean bandwidth to a member {service['mean_bandwidth_mbps']:.2f} Mbit/s ({service['metric']})"
    if service["proven"]:
        return f"{mean}, proven optimal"
    # Rounded up: what it says is to be true.
    return (
        f"{mean}, gap unknown"
        if service["gap"] is None
        else f"{mean}, gap ≤ {math.ceil(1000 * service['gap']) / 10:.1f} %"
    )


def print_images(console: Console, rows: list[Row]) -> None:
    table = _table("name", "kind", "platform", "blobs", "size", "NDN name")
    for row in rows:
        cells = (row["reference"], row["kind"], row["platform"], row["blobs"], size(row["size_bytes"]), row["name"])
        table.add_row(*_cells(*cells))
    _show(console, table, rows, "nothing is published: `picasso-controller publish FILE` publishes an image or a file")


def _addresses(instance: Row, ports: list[list[int]]) -> str:
    address = instance.get("address", "")
    host = f"[{address}]" if ":" in address else address
    return " ".join(f"{host}:{port[0]}" for port in ports) if address else ""


def _table(*columns: str) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in columns:
        table.add_column(column, overflow="fold")
    return table


def _cells(*values: Any) -> Iterable[str]:
    # Names and reasons come from other machines: nothing in them is markup or a control character here.
    return (escape("".join(c for c in _text(value) if c.isprintable())) for value in values)


def _text(value: Any) -> str:
    return "–" if value is None or value == "" else str(value)


def _show(console: Console, table: Table, rows: list[Any], empty: str) -> None:
    console.print(table if rows else empty)


def number(value: float | None, digits: int = 0, unit: str = "") -> str:
    return "" if value is None else f"{value:.{digits}f}{unit}"


def size(value: float | None) -> str:
    """Bytes for people, in powers of 1024."""
    if value is None:
        return ""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if abs(value) < 1024:
            return f"{value:.0f} {unit}" if unit == "B" else f"{value:.1f} {unit}"
        value /= 1024
    return f"{value:.1f} TiB"


def duration(seconds: float | None) -> str:
    """Seconds for people."""
    if seconds is None:
        return ""
    for limit, divisor, unit in ((120, 1, "s"), (7200, 60, "min"), (172800, 3600, "h")):
        if seconds < limit:
            return f"{seconds / divisor:.0f} {unit}"
    return f"{seconds / 86400:.0f} d"
