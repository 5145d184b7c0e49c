"""`picasso-controller compare`: the paper's Figure 8 and Table 1 for any network."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from controller.placement.study import command_support as support

if TYPE_CHECKING:
    from controller.placement.study.compare import Comparison, HeadFigures


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of `picasso-controller compare`."""
    from controller.placement import algorithms, metrics
    from controller.placement.study.compare import ALGORITHMS, RUNS

    support.add_topology(parser, several=True)
    parser.add_argument("--k", type=support.counts, default=(1, 2, 3, 5), metavar="1..10", help="heads (1,2,3,5)")
    parser.add_argument(
        "--runs", type=int, default=RUNS, metavar="N", help=f"runs of each algorithm that draws at random ({RUNS})"
    )
    parser.add_argument(
        "--algorithms",
        default=",".join(ALGORITHMS),
        metavar="A,B",
        help=f"of {', '.join(algorithms())} (%(default)s)",
    )
    parser.add_argument("--metric", default=metrics()[0], help=f"path bandwidth: {', '.join(metrics())} (%(default)s)")
    support.add_direction(parser)
    support.add_outputs(parser)
    parser.add_argument("--plot-times", type=support.plot_file, metavar="FILE.svg", help="draw the running times there")


def run(arguments: argparse.Namespace) -> int:
    """Prints a comparison; 2 and a message on standard error for input that cannot be compared."""
    return support.guarded("compare", lambda: _compare(arguments))


def _compare(arguments: argparse.Namespace) -> None:
    from controller.placement import PlacementError, Request
    from controller.placement.network.sources import load_topology
    from controller.placement.study.compare import compare, steps

    if arguments.plot and arguments.plot_times and arguments.plot.resolve() == arguments.plot_times.resolve():
        raise PlacementError(f"--plot and --plot-times are both {str(arguments.plot)!r}; two files are accepted")
    topologies = {source: load_topology(source) for source in arguments.topology}
    algorithms = tuple(dict.fromkeys(name.strip() for name in arguments.algorithms.split(",")))
    options = {"runs": arguments.runs, "metric": arguments.metric}
    options["request"] = support.directed(Request(1), arguments.direction)
    found = {}
    with support.progress(len(topologies) * steps(arguments.k, algorithms, arguments.runs)) as step:
        for source, topology in topologies.items():
            found[source] = compare(topology, arguments.k, algorithms, step=step, **options)
    titled = {Path(source).stem: comparison for source, comparison in found.items()}
    support.save_plot(arguments.plot, lambda plots: plots.draw_comparison(titled))
    support.save_plot(arguments.plot_times, lambda plots: plots.draw_times(titled))
    if arguments.json:
        documents = [{"topology": source} | comparison.to_json() for source, comparison in found.items()]
        print(json.dumps(documents if len(documents) > 1 else documents[0], indent=2))
        return
    console = support.console()
    for source, comparison in found.items():
        console.print(bandwidth_table(source, comparison))
        console.print(heads_table(comparison))
        for note in (*topologies[source].notes, *comparison.notes):
            console.print(f"note: {note}", markup=False, highlight=False)


def bandwidth_table(source: str, found: Comparison) -> Any:
    """Bandwidths, distance from the best possible and running time of each algorithm and k."""
    from rich.table import Table
    from rich.text import Text

    what = f"{found.nodes} nodes, {found.links} directed links, {found.metric} bandwidth in Mbit/s"
    table = Table(title=Text(f"{source}: {what}", "table.title"))
    table.add_column("k", justify="right")
    table.add_column("algorithm")
    for name in ("mean", "± of runs", "lowest", "highest", "mean of clusters'", "CPU s"):
        table.add_column(name, justify="right")
    table.add_column("against the best possible")
    for row in found.rows:
        table.add_row(
            str(row.k),
            row.algorithm if row.runs == 1 else f"{row.algorithm} ({row.runs} runs)",
            f"{row.mean_bandwidth_mbps:.1f}",
            f"{row.deviation_mbps:.1f}" if row.runs > 1 else "",
            f"{row.lowest_mbps:.1f}" if row.runs > 1 else "",
            f"{row.highest_mbps:.1f}" if row.runs > 1 else "",
            f"{row.mean_of_cluster_means_mbps:.1f}",
            f"{row.seconds:.2g}",
            support.outcome(row.proven, row.gap),
            end_section=row is found.rows[-1] or row.algorithm == found.algorithms[-1],
        )
    return table


def heads_table(found: Comparison) -> Any:
    """The paper's Table 1, of each algorithm's run that is nearest to its mean."""
    from rich.table import Table

    table = Table(title="Heads, in the run nearest to the mean")
    table.add_column("k", justify="right")
    for name in ("algorithm", "degree", "neighbourhood connectivity", "cluster diameter (hops)", "cluster size"):
        table.add_column(name)
    for row in found.rows:
        table.add_row(str(row.k), row.algorithm, *_cells(row.heads), end_section=row.algorithm == found.algorithms[-1])
    return table


def _cells(heads: tuple[HeadFigures, ...]) -> tuple[str, ...]:
    columns = (
        (str(head.degree) for head in heads),
        (f"{head.connectivity:.1f}" for head in heads),
        ("–" if head.diameter is None else str(head.diameter) for head in heads),
        (str(head.members + 1) for head in heads),
    )
    return tuple(", ".join(column) for column in columns)
