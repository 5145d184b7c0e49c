"""The bench of placement: every row that is quick is measured on a few networks."""

from __future__ import annotations

import pytest

from bench import placement, rows
from bench.gateways import BenchError
from controller.placement import Request, place, qmp_like

TINY = placement.Scale(networks=2, timed=1, runs=1)
QUICK_ROWS = [row for row in placement.ROWS if not row.name.startswith(("optimum-30000", "greedy-5000", "all-pairs"))]


@pytest.mark.parametrize("row", QUICK_ROWS, ids=lambda row: row.name)
def test_row_is_measured(row: rows.Row[placement.Scale]) -> None:
    """A figure comes out of every row, and each run has one."""
    figure = rows.measure_row(row, TINY)
    assert figure.error == ""
    assert figure.figure is not None and figure.figure > -100
    assert all("figure" in run for run in figure.runs)


def test_a_gain_is_the_mean_over_k() -> None:
    """The gain over BASP is that of the means of its runs, k by k."""
    (first, _) = placement.gain("default", "basp", placement.KS[1:])(TINY)
    for k, default, basp in zip(range(2, 8), first["default"], first["basp"], strict=True):
        means = [place(qmp_like(54, 0), Request(k), "basp", seed=seed).mean_bandwidth_mbps for seed in range(15)]
        assert basp == pytest.approx(sum(means) / len(means))
        assert default >= basp
    gains = [100 * (d / b - 1) for d, b in zip(first["default"], first["basp"], strict=True)]
    assert first["figure"] == pytest.approx(sum(gains) / 6)


def test_an_optimum_that_is_not_proven_is_no_figure() -> None:
    """A row about a proven optimum fails where there is no proof."""
    with pytest.raises(BenchError, match="not proven"):
        placement._proof(place(qmp_like(20, 1), Request(2), "random"))
