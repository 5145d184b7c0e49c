"""`picasso-controller characterise`: what a network is like, as the paper's section 2 has it."""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from controller.placement.study import command_support as support

if TYPE_CHECKING:
    from controller.placement import Topology
    from controller.placement.study.characterise import Characteristics, Past

# What the paper measured in QMP Sants-UPC.
PUBLISHED: Mapping[str, str] = {
    "nodes": "54",
    "throughput, mean (Mbit/s)": "21.8",
    "distance from an exponential distribution": "exponential",
    "one-way links": "56 %",
    "two-way links that deviate by more than 30 %": "30 %",
    "highest degree": "about 20",
    "diameter (hops)": "6",
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of `picasso-controller characterise`."""
    support.add_topology(parser, required=False)
    support.add_outputs(parser)


def run(arguments: argparse.Namespace) -> int:
    """Characterises `--topology`; 2 and a message on standard error for one that cannot be read."""
    from controller.placement.network.sources import load_topology

    return support.guarded("characterise", lambda: _show(arguments, load_topology(arguments.topology), None))


def run_on(arguments: argparse.Namespace, topology: Topology, past: Past) -> int:
    """The same for a live network with its past."""
    return support.guarded("characterise", lambda: _show(arguments, topology, past))


def _show(arguments: argparse.Namespace, topology: Topology, past: Past | None) -> None:
    from controller.placement import TopologyError
    from controller.placement.study.characterise import characterise

    if not len(topology):
        raise TopologyError("the network has no node, of which nothing can be said")
    with support.progress() as step:
        step("characterising")
        found = characterise(topology, past)
    support.save_plot(arguments.plot, lambda plots: plots.draw_characteristics(found))
    if arguments.json:
        print(json.dumps(found.to_json() | {"notes": list(topology.notes)}, indent=2))
        return
    console = support.console()
    console.print(figures_table(found))
    console.print(busiest_table(found))
    for note in topology.notes:
        console.print(f"note: {note}", markup=False, highlight=False)


def figures(found: Characteristics) -> dict[str, str]:
    """The figures as they are printed."""
    sizes = found.component_sizes
    rows = {
        "nodes": str(found.nodes),
        "directed links": str(len(found.rates_mbps)),
        "components": f"{len(sizes)}, the largest of {sizes[0]} nodes" if sizes else "0",
        "diameter (hops)": str(found.diameter),
        "ordered pairs of nodes with a path": f"{100 * found.reachable_share:.0f} %",
        "highest degree": str(found.degrees.max(initial=0)),
        "mean degree": f"{found.degrees.mean() if found.nodes else 0.0:.1f}",
        "one-way links": f"{100 * found.one_way_share:.0f} %",
        "two-way links that deviate by more than 30 %": f"{100 * found.deviating_share:.0f} %",
    }
    if len(found.rates_mbps):
        low, middle, high = quantiles(found.rates_mbps)
        rows["throughput, mean (Mbit/s)"] = f"{found.rates_mbps.mean():.1f}"
        rows["throughput, 10 %, 50 %, 90 % (Mbit/s)"] = f"{low:.1f}, {middle:.1f}, {high:.1f}"
        rows["distance from an exponential distribution"] = f"{found.exponential_distance:.2f}"
    for name, sample in (("nodes", found.presence), ("links", found.link_presence)):
        if len(sample):
            rows[f"{name} present for 90 % of the time"] = f"{100 * (sample >= 0.9).mean():.0f} %"
    if len(found.steadiness):
        rows["a link's 10 % quantile over its median, median"] = f"{quantiles(found.steadiness)[1]:.2f}"
    return rows


def quantiles(sample: Any) -> tuple[float, float, float]:
    """The 10 %, 50 % and 90 % quantiles."""
    import numpy as np

    low, middle, high = np.quantile(sample, (0.1, 0.5, 0.9))
    return float(low), float(middle), float(high)


def figures_table(found: Characteristics) -> Any:
    """This network beside the paper's."""
    from rich.table import Table

    table = Table("figure", title="The network")
    table.add_column("here", justify="right")
    table.add_column("QMP Sants-UPC", justify="right")
    for name, value in figures(found).items():
        table.add_row(name, value, PUBLISHED.get(name, ""))
    return table


def busiest_table(found: Characteristics) -> Any:
    """The links that carry most."""
    from rich.table import Table
    from rich.text import Text

    table = Table("from", "to", title="Busiest links")
    for name in ("Mbit/s", "least-airtime paths over it", "traffic (Mbit/s)"):
        table.add_column(name, justify="right")
    for link in found.busiest:
        traffic = "" if link.traffic_mbps is None else f"{link.traffic_mbps:.2f}"
        share = f"{100 * link.share_of_paths:.1f} %"
        table.add_row(Text(link.source), Text(link.destination), f"{link.rate_mbps:.1f}", share, traffic)
    return table
