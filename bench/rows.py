"""What the benches share: rows that are measured, the table that they make, and the command around it."""

from __future__ import annotations

import argparse
import json
import os
import platform
import signal
import statistics
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Generic, TypeVar

from bench.gateways import BenchError

Run = dict[str, Any]
Scale = TypeVar("Scale")


@dataclass(frozen=True, slots=True)
class Row(Generic[Scale]):
    """One line of a table: `measure` gives the runs, each with its `figure`; None is a figure without a target.

    `published` has what others reached, in the order of the bench's columns; `summary` makes one figure of the runs'.
    """

    name: str
    work: str
    unit: str
    target: float | None
    published: Sequence[str]
    measure: Callable[[Scale], list[Run]]
    at_least: bool = False
    summary: Callable[[Sequence[float]], float] = statistics.median


@dataclass(slots=True)
class Figure:
    """A row's outcome; `figure` is None when it could not be measured, with the `error`."""

    figure: float | None = None
    reached: bool | None = False
    error: str = ""
    runs: list[Run] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Bench(Generic[Scale]):
    """A table: its rows, who else reached something (JSON key and column title), and how much is measured."""

    rows: Sequence[Row[Scale]]
    published: Mapping[str, str]
    full: Scale
    quick: Scale


def measure_row(row: Row[Scale], scale: Scale) -> Figure:
    """Measures a row; one that cannot be measured has no figure and has not reached its target."""
    figure = Figure()
    try:
        figure.runs = row.measure(scale)
    except (BenchError, OSError, subprocess.TimeoutExpired) as error:
        figure.error = str(error)
        return figure
    value = figure.figure = row.summary([run["figure"] for run in figure.runs])
    if row.target is None:
        figure.reached = None
    else:
        figure.reached = value >= row.target if row.at_least else value <= row.target
    return figure


_OUTCOMES = {True: "reached", False: "not reached", None: "–"}


def render(bench: Bench[Any], rows: Sequence[Row[Any]], figures: Sequence[Figure]) -> str:
    """The table as Markdown."""
    titles = ["work", "figure", "lowest–highest run", "to reach", "", *bench.published.values()]
    lines = [f"| {' | '.join(titles)} |".replace("|  |", "| |"), "|---" * len(titles) + "|"]
    for row, figure in zip(rows, figures, strict=True):
        if figure.figure is None:
            cells = ["failed", "–"]
        else:
            runs = [run["figure"] for run in figure.runs]
            cells = [f"**{_number(figure.figure)} {row.unit}**", f"{_number(min(runs))}–{_number(max(runs))}"]
        cells.append("–" if row.target is None else f"{'≥' if row.at_least else '≤'} {_number(row.target)}")
        cells += [_OUTCOMES[figure.reached], *_published(bench, row).values()]
        lines.append(" | ".join([f"| {row.work}", *cells]) + " |")
    return "\n".join(lines)


def _published(bench: Bench[Any], row: Row[Any]) -> dict[str, str]:
    return dict(zip(bench.published, row.published or ("–",) * len(bench.published), strict=True))


def _number(value: float) -> str:
    if 99 <= value < 100:  # 99.98 % is not 100 %
        return f"{value:.4g}"
    return f"{value:.0f}" if abs(value) >= 100 else f"{value:.3g}"


def machine() -> dict[str, Any]:
    """Where the figures come from."""
    models = [line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")]
    return {
        "processor": models[0].partition(": ")[2] if models else platform.machine(),
        "cores": os.cpu_count(),
        "kernel": platform.release(),
        "python": platform.python_version(),
    }


def to_json(bench: Bench[Any], row: Row[Any], figure: Figure) -> dict[str, Any]:
    """A row with every run."""
    facts = {"name": row.name, "work": row.work, "unit": row.unit, "target": row.target, **_published(bench, row)}
    outcome = {"figure": figure.figure, "reached": figure.reached, "error": figure.error, "runs": figure.runs}
    return facts | outcome


def main(description: str | None, benches: Sequence[Bench[Any]]) -> int:
    """Measures what the command line asks for, prints a table for each bench; 1 when a row could not be measured."""
    every = [row for bench in benches for row in bench.rows]
    options = _parser(description, [row.name for row in every]).parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # by way of every `finally`, so that no process stays
    if options.list:
        print("\n".join(f"{row.name:24}{row.work}" for row in every))
        return 0
    where, rows = machine(), []
    for bench in benches:
        wanted = [row for row in bench.rows if not options.only or row.name in options.only]
        figures = [_measured(row, bench.quick if options.quick else bench.full) for row in wanted]
        rows += [to_json(bench, row, figure) for row, figure in zip(wanted, figures, strict=True)]
        if wanted:
            print(render(bench, wanted, figures), end="\n\n")
    print(", ".join(f"{key} {value}" for key, value in where.items()))
    if options.json is not None:
        options.json.write_text(json.dumps({"machine": where, "rows": rows}, indent=2) + "\n")
    return 1 if any(row["error"] for row in rows) else 0


def _measured(row: Row[Scale], scale: Scale) -> Figure:
    print(f"{row.name} …", file=sys.stderr, flush=True)
    figure = measure_row(row, scale)
    if figure.error:
        print(f"{row.name}: {figure.error}", file=sys.stderr, flush=True)
    return figure


def _parser(description: str | None, names: Sequence[str]) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write every run there")
    parser.add_argument("--quick", action="store_true", help="less work and fewer runs, for a first look")
    parser.add_argument("--only", action="append", choices=names, metavar="NAME", help="this row; may be repeated")
    parser.add_argument("--list", action="store_true", help="list the rows")
    return parser
