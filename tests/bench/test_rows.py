"""Rows, their table and the command around them."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from bench.gateways import BenchError
from bench.rows import Bench, Row, Run, main, measure_row, render


def bench(*rows: Row[int]) -> Bench[int]:
    return Bench(rows, {"theirs": "Theirs 1.0"}, full=3, quick=1)


def runs(scale: int) -> list[Run]:
    return [{"figure": float(10**power)} for power in range(scale)]


def test_failed_row_is_shown_as_failed() -> None:
    """A row that cannot be measured has no figure and has not reached its target."""

    def fail(scale: int) -> list[Run]:
        raise BenchError("it ended")

    row = Row("x", "work", "µs", 3, (), fail)
    figure = measure_row(row, 1)
    assert (figure.figure, figure.reached, figure.error) == (None, False, "it ended")
    assert "| work | failed | – | ≤ 3 | not reached | – |" in render(bench(row), [row], [figure])


@pytest.mark.parametrize(
    ("target", "at_least", "cells"),
    [(30, False, "≤ 30 | reached"), (30, True, "≥ 30 | not reached"), (None, False, "– | –")],
)
def test_outcome_follows_from_the_median(target: float | None, at_least: bool, cells: str) -> None:
    """The median of the runs is compared with the target, where there is one."""
    row = Row("x", "work", "µs", target, ("7",), runs, at_least)
    figure = measure_row(row, 3)
    assert figure.figure == 10.0
    assert f"| **10 µs** | 1–100 | {cells} | 7 |" in render(bench(row), [row], [figure])


def test_what_is_nearly_all_is_not_all() -> None:
    """A share just below 100 % is not rounded to it."""
    row = Row("x", "work", "%", 99.5, (), lambda scale: [{"figure": 99.976}], at_least=True)
    assert "| **99.98 %** | 99.98–99.98 | ≥ 99.5 | reached |" in render(bench(row), [row], [measure_row(row, 1)])


def test_a_row_may_say_what_makes_its_figure() -> None:
    """The worst of the runs counts where a row says so."""
    figure = measure_row(Row("x", "work", "s", 50, (), runs, summary=max), 3)
    assert (figure.figure, figure.reached) == (100.0, False)


def test_the_command_measures_what_is_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Of several benches only the rows named, each table with its own columns, all rows in one JSON of one form."""
    one = bench(Row("a", "work a", "s", 5, ("9",), runs), Row("b", "work b", "s", None, (), runs))
    two = Bench((Row("c", "work c", "%", None, (), runs),), {"paper": "the paper"}, full=3, quick=1)
    target = tmp_path / "figures.json"
    monkeypatch.setattr(sys, "argv", ["bench", "--quick", "--only", "a", "--only", "c", "--json", str(target)])
    assert main(None, [one, two]) == 0
    printed = capsys.readouterr().out
    assert "| Theirs 1.0 |" in printed and "| the paper |" in printed and "work b" not in printed
    first, second = json.loads(target.read_text())["rows"]
    assert (first["name"], first["theirs"], first["reached"], first["figure"]) == ("a", "9", True, 1.0)
    assert first.keys() - {"theirs"} == second.keys() - {"paper"}
    assert len(first["runs"]) == 1


def test_a_row_that_fails_fails_the_command(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The other rows are measured and written all the same."""

    def fail(scale: int) -> list[Run]:
        raise BenchError("it ended")

    target = tmp_path / "figures.json"
    monkeypatch.setattr(sys, "argv", ["bench", "--json", str(target)])
    assert main(None, [bench(Row("a", "work", "s", 5, (), fail), Row("b", "work", "s", None, (), runs))]) == 1
    assert [row["error"] for row in json.loads(target.read_text())["rows"]] == ["it ended", ""]
