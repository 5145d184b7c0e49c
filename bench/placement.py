"""The figures of placement beside the paper's; `make bench-placement`.

    python -m bench.placement                       the whole table, some minutes
    python -m bench.placement --quick               fewer networks, for a first look
    python -m bench.placement --only basp-54        one row (may be given again); --list names them all

Networks are generated (`qmp_like(n, seed)`), directed, and the metric is the default one, unless a row says otherwise.
Times are CPU seconds of whole place() calls on topologies that nobody has asked before, the median of several; where
there are several networks a run is one of them. Memory is the peak of a fresh process from the call on, with
interpreter and topology.
"""

from __future__ import annotations

import functools
import multiprocessing
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))  # this file may be run by its path

from bench import rows
from bench.gateways import BenchError
from bench.rows import Bench, Row, Run
from controller.placement import Placement, Request, Topology, metrics, path_bandwidth, place, qmp_like
from controller.placement.network.topology import symmetric

N = 54  # the paper's network
KS = range(1, 8)  # the paper's gains are over k = 1 to 7
SIZES, MOST_HEADS = (54, 100, 200), 10  # where greedy is held against the optimum
RANDOM_RUNS = 75
BASP_RUNS = 15
REPEATS = 5
DIRECTED = ("routed", "widest", "hops", "series")  # without reported routes `airtime` is `routed`


@dataclass(frozen=True, slots=True)
class Scale:
    """On how many networks rows are measured; `timed` of them where only the time counts."""

    networks: int
    timed: int
    runs: int


FULL = Scale(networks=100, timed=20, runs=3)
QUICK = Scale(networks=8, timed=4, runs=1)


# --- what is measured


def basp(scale: Scale) -> list[Run]:
    """Milliseconds of the paper's algorithm on networks of the paper's size."""
    return [{"figure": 1000 * _cpu_s(qmp_like(N, seed), 3, "basp")[0]} for seed in range(scale.timed)]


def symmetric_optimum(scale: Scale) -> list[Run]:
    """Milliseconds to a proven optimum by widest paths, when every link has the slower direction's rate both ways."""
    found = []
    for seed in range(scale.timed):
        seconds, placement = _cpu_s(symmetric(qmp_like(N, seed)), 3, "optimal", "widest")
        found.append({"figure": 1000 * seconds, **_proof(placement)})
    return found


def directed_optimum(k: int) -> Callable[[Scale], list[Run]]:
    """Seconds to a proven optimum on directed networks, by each metric."""

    def run(scale: Scale) -> list[Run]:
        found = []
        for seed in range(scale.timed):
            for metric in DIRECTED:
                seconds, placement = _cpu_s(qmp_like(N, seed), k, "optimal", metric)
                found.append({"figure": seconds, "seed": seed, "metric": metric, **_proof(placement)})
        return found

    return run


def all_pairs(scale: Scale) -> list[Run]:
    """Seconds for the path bandwidth between all of 1,000 nodes by each metric, in a network nobody has asked yet."""
    return [
        {
            "figure": min(_seconds(path_bandwidth, qmp_like(1000, 7), metric) for _ in range(scale.runs)),
            "metric": metric,
        }
        for metric in metrics()
    ]


def guifi(figure: str) -> Callable[[Scale], list[Run]]:
    """A proven optimum for a network of the size of Guifi.net."""
    return lambda scale: [_run(run, figure, must_be_proven=True) for run in _guifi_runs(scale)]


def large_greedy(figure: str) -> Callable[[Scale], list[Run]]:
    """`greedy` with its bound on a large directed network."""
    return lambda scale: [_run(run, figure) for run in _greedy_runs(scale)]


def greedy_share(scale: Scale) -> list[Run]:
    """How many per cent of the proven optimum `greedy` reaches, one network a run; sizes, metrics and k take turns."""
    found = []
    for seed in range(scale.networks):
        n, metric, k = SIZES[seed % len(SIZES)], DIRECTED[seed % len(DIRECTED)], 1 + seed % MOST_HEADS
        topology = qmp_like(n, seed)
        best = place(topology, Request(k), "optimal", metric=metric)
        got = place(topology, Request(k), "greedy", metric=metric)
        share = 100 * got.mean_bandwidth_mbps / best.mean_bandwidth_mbps
        found.append({"figure": share, "seed": seed, "n": n, "metric": metric, "k": k, **_proof(best)})
    return found


def gain(better: str, base: str, ks: range = KS) -> Callable[[Scale], list[Run]]:
    """By how many per cent one algorithm's mean bandwidth is above another's: the mean over `ks`, one network a run."""

    def run(scale: Scale) -> list[Run]:
        found = []
        for seed, means in enumerate(_means(scale)):
            of_base, of_better = ([means[algorithm][k - KS[0]] for k in ks] for algorithm in (base, better))
            gains = [100 * (b / a - 1) for a, b in zip(of_base, of_better, strict=True)]
            found.append({"figure": statistics.fmean(gains), "seed": seed, base: of_base, better: of_better})
        return found

    return run


@functools.cache
def _means(scale: Scale) -> list[dict[str, list[float]]]:
    """For each network the mean bandwidth by algorithm and k; `default` is what place() takes unasked."""
    return [
        {
            "random": list(_mean_over_runs(topology, RANDOM_RUNS, "random")),
            "kmeans": list(_mean_over_runs(topology, BASP_RUNS, "kmeans")),
            "basp": list(_mean_over_runs(topology, BASP_RUNS, "basp")),
            "default": [place(topology, Request(k)).mean_bandwidth_mbps for k in KS],
        }
        for topology in (qmp_like(N, seed) for seed in range(scale.networks))
    ]


def _mean_over_runs(topology: Topology, runs: int, algorithm: str) -> Iterator[float]:
    for k in KS:
        placements = (place(topology, Request(k), algorithm, seed=seed) for seed in range(runs))
        yield statistics.fmean(placement.mean_bandwidth_mbps for placement in placements)


# --- how


def _seconds(work: Callable[..., Any], *arguments: Any, **options: Any) -> float:
    started = time.process_time()
    work(*arguments, **options)
    return time.process_time() - started


def _cpu_s(topology: Topology, k: int, algorithm: str, metric: str = metrics()[0]) -> tuple[float, Placement]:
    """The median CPU seconds of a placement, and the placement."""
    fresh = [replace(topology) for _ in range(REPEATS)]
    seconds = [_seconds(place, each, Request(k), algorithm, metric=metric) for each in fresh]
    return statistics.median(seconds), place(topology, Request(k), algorithm, metric=metric)


def _proof(placement: Placement) -> Run:
    if not placement.proven:
        raise BenchError(f"k = {placement.k} by {placement.metric} is not proven: gap {placement.gap}")
    return {"method": placement.method, "mean_bandwidth_mbps": placement.mean_bandwidth_mbps}


@functools.cache
def _guifi_runs(scale: Scale) -> list[Run]:
    return [_apart(_guifi_run, seed) for seed in range(scale.runs)]


@functools.cache
def _greedy_runs(scale: Scale) -> list[Run]:
    return [_apart(_greedy_run, seed) for seed in range(scale.runs)]


def _apart(work: Callable[[int], Run], seed: int) -> Run:
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as fresh:
        return fresh.submit(work, seed).result()


def _guifi_run(seed: int) -> Run:
    topology = symmetric(qmp_like(30_000, seed))
    return _measured(lambda: place(topology, Request(100), "optimal", metric="widest"))


def _greedy_run(seed: int) -> Run:
    topology = qmp_like(5_000, seed)
    return _measured(lambda: place(topology, Request(50), "greedy", bound=True))


def _measured(work: Callable[[], Placement]) -> Run:
    """Time, peak memory and gap of a placement in this process."""
    Path("/proc/self/clear_refs").write_text("5")  # the peak starts anew here
    started = time.process_time()
    placement = work()
    seconds = time.process_time() - started
    peak = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
    return {
        "seconds": seconds,
        "memory_gb": int(peak.split()[1]) * 1024 / 1e9,
        "gap_percent": None if placement.gap is None else 100 * placement.gap,
        "proven": placement.proven,
        "method": placement.method,
        "mean_bandwidth_mbps": placement.mean_bandwidth_mbps,
    }


def _run(run: Run, figure: str, must_be_proven: bool = False) -> Run:
    if run[figure] is None or (must_be_proven and not run["proven"]):
        raise BenchError(f"not proven: {run}")
    return {"figure": run[figure]} | run


# --- the table


ROWS = (
    Row("basp-54", "BASP, n = 54, k = 3", "ms", 10, ("23 s",), basp),
    Row(
        "optimum-symmetric-54",
        "proven optimum, n = 54, k = 3, symmetric widest path",
        "ms",
        5,
        ("65 h",),
        symmetric_optimum,
    ),
    Row(
        "optimum-directed-54-3",
        "proven optimum, n = 54, k = 3, directed: slowest network and metric",
        "s",
        0.2,
        (),
        directed_optimum(3),
        summary=max,
    ),
    Row(
        "optimum-directed-54-5",
        "proven optimum, n = 54, k = 5, directed: slowest network and metric",
        "s",
        0.2,
        (),
        directed_optimum(5),
        summary=max,
    ),
    Row("optimum-30000", "proven optimum, n = 30,000, k = 100, symmetric widest path", "s", 2, (), guifi("seconds")),
    Row("optimum-30000-memory", "memory for the optimum of 30,000 nodes", "GB", 1, (), guifi("memory_gb")),
    Row("greedy-5000", "`greedy` with its bound, n = 5,000, k = 50, directed", "s", 30, (), large_greedy("seconds")),
    Row("greedy-5000-memory", "memory for `greedy` on 5,000 nodes", "GB", 4, (), large_greedy("memory_gb")),
    Row("greedy-5000-gap", "gap of `greedy` on 5,000 nodes", "%", None, (), large_greedy("gap_percent")),
    Row(
        "greedy-mean",
        "`greedy` of the proven optimum, directed, n = 54 to 200, k = 1 to 10: mean",
        "%",
        99.5,
        (),
        greedy_share,
        True,
        statistics.fmean,
    ),
    Row("greedy-worst", "`greedy` of the proven optimum: worst", "%", 97, (), greedy_share, True, min),
    Row(
        "basp-over-random",
        "BASP over random, mean over networks and k = 1 to 7",
        "%",
        35,
        ("35 %",),
        gain("basp", "random"),
        True,
        statistics.fmean,
    ),
    Row(
        "default-over-basp",
        "the default (`optimal`) over BASP, k = 1 to 7 (with one head BASP is optimal)",
        "%",
        10,
        (),
        gain("default", "basp"),
        True,
        statistics.fmean,
    ),
    Row(
        "default-over-basp-2",
        "the default over BASP, k = 2 to 7",
        "%",
        10,
        (),
        gain("default", "basp", KS[1:]),
        True,
        statistics.fmean,
    ),
    Row(
        "kmeans-over-random",
        "naive k-means over random, k = 1 to 7",
        "%",
        None,
        (),
        gain("kmeans", "random"),
        False,
        statistics.fmean,
    ),
    Row(
        "all-pairs-1000",
        "path bandwidth between all of 1,000 nodes, slowest metric",
        "s",
        1,
        (),
        all_pairs,
        summary=max,
    ),
)
BENCH = Bench(ROWS, {"paper": "the paper"}, FULL, QUICK)


if __name__ == "__main__":
    sys.exit(rows.main(__doc__, [BENCH]))
