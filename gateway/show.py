"""The gateway's datasets as tables for people; the JSON form is what programs read."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

_COLUMNS: Mapping[str, Sequence[str]] = {
    "services": ("name", "generation", "role", "state", "health", "runtime", "restarts", "heads", "reason"),
    "links": ("neighbor", "node", "uri", "state", "rx_mbps", "rx_source", "tx_mbps", "tx_source", "rtt_ms", "loss"),
    "faces": ("id", "uri", "neighbor", "node", "up", "in_bytes", "out_bytes", "in_data", "out_data", "drops"),
    "routes": ("prefix", "face", "neighbor", "cost", "origin"),
    "wants": ("blob", "for", "service", "size", "come", "state", "since", "prio", "expires", "from", "problem"),
}


def render(dataset: str, result: Any) -> str:
    """A dataset as text: a table for rows, indented lines for everything else."""
    if dataset in _COLUMNS:
        rows = result if isinstance(result, list) else []
        rows = [_want(row) for row in rows] if dataset == "wants" else rows
        return table(_COLUMNS[dataset], rows) if rows else f"no {dataset}"
    return "\n".join(_lines(result, 0))


def table(columns: Sequence[str], rows: Iterable[Mapping[str, Any]]) -> str:
    """Left-aligned columns, wide enough for their widest cell; columns that are empty everywhere are left out."""
    cells = [[_cell(row.get(column)) for column in columns] for row in rows]
    used = [i for i in range(len(columns)) if any(row[i] for row in cells)]
    lines = [[columns[i] for i in used], *([row[i] for i in used] for row in cells)]
    widths = [max(len(line[i]) for line in lines) for i in range(len(used))]
    return "\n".join("  ".join(c.ljust(w) for c, w in zip(line, widths, strict=True)).rstrip() for line in lines)


def _want(row: Mapping[str, Any]) -> Mapping[str, Any]:
    """A want in the units that people read: who waits for which blob, since when, and from where it may come."""
    size = row.get("size", 0)
    come = row.get("arrived", 0)
    return {
        **row,
        "blob": str(row["blob"])[:16],
        "for": row.get("wanter"),
        "size": f"{size / 1e6:.1f} MB" if size >= 1e6 else f"{size / 1e3:.1f} kB",
        "come": f"{100 * come // size if size else 0} %",
        "since": _duration(row.get("waiting_s")),
        "prio": row.get("priority"),
        "expires": _duration(row.get("expires_s")),
        "from": row.get("coming_from") or row.get("holders"),
    }


def _duration(seconds: float | None) -> str:
    if seconds is None:
        return ""
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.0f} h"


def _cell(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.3g}" if abs(value) < 100 else f"{value:.0f}"
    if isinstance(value, (list, tuple)):
        return " ".join(_cell(item) for item in value)
    return str(value)


def _lines(value: Any, depth: int) -> Iterable[str]:
    indent = "  " * depth
    if not isinstance(value, Mapping):
        yield indent + _cell(value)
        return
    for name, item in value.items():
        if isinstance(item, Mapping) and item:
            yield f"{indent}{name}:"
            yield from _lines(item, depth + 1)
        elif isinstance(item, list) and item and isinstance(item[0], Mapping):
            yield f"{indent}{name}:"
            yield from (f"{indent}  {line}" for line in table(list(item[0]), item).splitlines())
        elif isinstance(item, list) and len(item) > 1 and any(" " in str(each) for each in item):
            yield f"{indent}{name}:"  # sentences would run together in one line
            yield from (f"{indent}  {_cell(each)}" for each in item)
        else:
            yield f"{indent}{name}: {_cell(item) or '-'}"
