"""The paper's comparison: rows by hand, its figures, and their agreement with place()."""

from __future__ import annotations

import json
import os
import statistics
from collections.abc import Callable
from pathlib import Path

import pytest

from controller.cli import main
from controller.placement import NodeAttributes, PlacementError, Request, Topology, place, qmp_like
from controller.placement.network.sources import load_topology
from controller.placement.study import compare as module
from controller.placement.study.command_compare import bandwidth_table
from controller.placement.study.command_support import console
from controller.placement.study.compare import compare, steps
from gateway.protocol.messages import Constraints

Network = Callable[..., Topology]


def test_a_row_says_what_place_says() -> None:
    """A row's figures are those of its runs: means over the seeds, extremes, and the heads of a run near the mean."""
    topology = qmp_like(20, 3)
    (row,) = compare(topology, (2,), ("random",), runs=7).rows
    runs = [place(topology, Request(2), "random", seed=seed) for seed in range(7)]
    means = [run.mean_bandwidth_mbps for run in runs]
    assert row.runs == 7
    assert row.mean_bandwidth_mbps == pytest.approx(statistics.fmean(means))
    assert row.deviation_mbps == pytest.approx(statistics.stdev(means))
    assert (row.lowest_mbps, row.highest_mbps) == (min(means), max(means))
    nearest = min(runs, key=lambda run: abs(run.mean_bandwidth_mbps - row.mean_bandwidth_mbps))
    assert [head.node for head in row.heads] == [head.node for head in nearest.heads]


def test_seconds_are_those_of_whole_placements() -> None:
    """The time of a row is the median of the first runs, by the clock that is given, whatever the later ones took."""
    ticks = iter([0, 5, 10, 11, 20, 22, 30, 33, 40, 44, *range(100, 104)])
    (row,) = compare(qmp_like(9, 2), (1,), ("random",), runs=7, clock=lambda: float(next(ticks))).rows
    assert row.seconds == 3.0


def test_table_1_by_hand(network: Network) -> None:
    """Degree, neighbourhood connectivity, size and diameter of each head's cluster."""
    topology = network("a-b 5 9, b-c 9 6, b-d 9 6, d-e 1, e-f 5 9, f-g 8 4")
    (row,) = compare(topology, (2,), ("optimal",)).rows
    assert [(head.node, head.degree, head.connectivity, head.members, head.diameter) for head in row.heads] == [
        ("b", 3, pytest.approx(4 / 3), 3, 2),
        ("f", 2, 1.5, 2, 2),
    ]
    assert row.mean_bandwidth_mbps == (9 + 9 + 9 + 9 + 8) / 5


def test_the_optimum_is_proven_and_nobody_is_better() -> None:
    """Each algorithm's gap is against the best possible mean of its k, which `optimal` has proven."""
    found = compare(qmp_like(25, 1), (1, 2, 3), runs=5)
    for k in (1, 2, 3):
        rows = {row.algorithm: row for row in found.rows if row.k == k}
        assert rows["optimal"].proven and rows["optimal"].gap == 0.0
        for row in rows.values():
            assert row.gap is not None
            assert row.highest_mbps <= rows["optimal"].mean_bandwidth_mbps + 1e-9
            assert row.mean_bandwidth_mbps == pytest.approx((1 - row.gap) * rows["optimal"].mean_bandwidth_mbps)


def test_without_the_optimum_the_gap_is_against_a_bound() -> None:
    """A comparison of heuristics alone states a gap as well, no smaller than the real one."""
    topology = qmp_like(25, 1)
    best = place(topology, Request(2)).mean_bandwidth_mbps
    for row in compare(topology, (2,), ("random", "basp"), runs=3).rows:
        assert row.gap is not None
        assert row.gap >= 1 - row.mean_bandwidth_mbps / best - 1e-9


def test_rows_come_in_the_order_asked_for_and_every_step_is_told() -> None:
    """Algorithms that draw are run `runs` times, the others once; progress hears of each placement."""
    told: list[str] = []
    found = compare(qmp_like(12, 0), (1, 3), ("basp", "greedy"), runs=4, step=told.append)
    assert [(row.k, row.algorithm) for row in found.rows] == [(1, "basp"), (1, "greedy"), (3, "basp"), (3, "greedy")]
    assert len(told) == steps((1, 3), ("basp", "greedy"), 4) == 10
    assert found.algorithms == ("basp", "greedy")
    assert [row.k for row in found.of("greedy")] == [1, 3]


def test_constraints_hold_in_a_comparison(network: Network) -> None:
    """A request's constraints refuse nodes in every run."""
    request = Request(1, Constraints(exclude=("b",)))
    for row in compare(network("a-b 9, b-c 9, b-d 9"), (1,), ("random", "optimal"), runs=9, request=request).rows:
        assert row.heads[0].node != "b"


def test_an_algorithm_that_can_place_nothing_is_noted(network: Network) -> None:
    """Where every node is too busy HANET has no head to choose; the others are compared all the same."""
    busy = dict.fromkeys("abcd", NodeAttributes(free_cpu_percent=1.0))
    found = compare(network("a-b 9, b-c 9, b-d 9", **busy), (1, 2), ("hanet", "basp"), runs=2)
    assert [(row.algorithm, row.k) for row in found.rows] == [("basp", 1), ("basp", 2)]
    (note,) = found.notes
    assert note.startswith("hanet places nothing from k = 1 on: k is 1, but 0 of 4 nodes may be a head")


def test_json_carries_every_row() -> None:
    """The JSON has the rows with their heads, and no number that JSON has not."""
    found = compare(qmp_like(9, 2), (1, 2), ("random", "optimal"), runs=2)
    document = json.loads(json.dumps(found.to_json(), allow_nan=False))
    assert [(row["k"], row["algorithm"]) for row in document["rows"]] == [
        (1, "random"), (1, "optimal"), (2, "random"), (2, "optimal"),
    ]  # fmt: skip
    assert document["rows"][3]["proven"] is True
    assert len(document["rows"][2]["heads"]) == 2


def test_a_network_without_any_path_is_compared(network: Network) -> None:
    """Where nothing can be gained, nothing is missed either."""
    found = compare(network("a, b, c"), (1,), ("basp", "optimal"), runs=1)
    assert [(row.mean_bandwidth_mbps, row.gap) for row in found.rows] == [(0.0, 0.0), (0.0, 0.0)]
    json.dumps(found.to_json(), allow_nan=False)


def test_bad_input_is_named() -> None:
    """No run, an unknown algorithm, more heads than nodes."""
    with pytest.raises(PlacementError, match="0 runs"):
        compare(qmp_like(5, 0), (1,), runs=0)
    with pytest.raises(PlacementError, match="'magic'"):
        compare(qmp_like(5, 0), (1,), ("magic",))
    with pytest.raises(PlacementError, match="k is 6"):
        compare(qmp_like(5, 0), (1, 6), ("greedy",))


def test_of_a_huge_network_no_diameters(monkeypatch: pytest.MonkeyPatch) -> None:
    """Beyond ALL_HOPS nodes a cluster's diameter is left out, the rest stays."""
    monkeypatch.setattr(module, "ALL_HOPS", 8)
    (row,) = compare(qmp_like(9, 2), (1,), ("greedy",)).rows
    assert row.heads[0].diameter is None and row.heads[0].degree > 0


def test_a_networks_name_is_no_markup(capsys: pytest.CaptureFixture[str]) -> None:
    """A file's name is printed as it is, whatever brackets and colons it has."""
    found = compare(qmp_like(9, 2), (1,), ("greedy",))
    for name in ("[/a]", "[bold]c", ":cat:"):
        console().print(bandwidth_table(name, found))
        assert f"{name}: 9 nodes" in capsys.readouterr().out


def test_algorithms_may_be_listed_with_spaces(capsys: pytest.CaptureFixture[str]) -> None:
    """`optimal, basp` is the same as `optimal,basp`."""
    command = ("compare", "--topology", "qmp:9:2", "--k", "1", "--runs", "1", "--json")
    assert main((*command, "--algorithms", "optimal, basp")) == 0
    assert [row["algorithm"] for row in json.loads(capsys.readouterr().out)["rows"]] == ["optimal", "basp"]


def test_two_plots_are_two_files(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """One file for both is refused before anything is computed or written."""
    file = tmp_path / "a.svg"
    same = tmp_path / "." / "b" / ".." / "a.svg"
    assert main(("compare", "--topology", "qmp:9:2", "--plot", str(file), "--plot-times", str(same))) == 2
    assert "--plot and --plot-times are both" in capsys.readouterr().err
    assert not file.exists()


if "PICASSO_TOPOLOGIES" in os.environ:

    @pytest.mark.parametrize(
        "file", sorted(Path(os.environ["PICASSO_TOPOLOGIES"]).glob("*.json")), ids=lambda f: f.stem
    )
    def test_real_networks_are_compared(file: Path) -> None:
        """On networks from files the optimum is proven and nobody is above it."""
        found = compare(load_topology(str(file)), (1, 3), runs=3)
        best = {row.k: row for row in found.of("optimal")}
        for row in found.rows:
            assert best[row.k].proven
            assert row.highest_mbps <= best[row.k].mean_bandwidth_mbps + 1e-9
