"""Figures of placements, comparisons and networks, readable in black and white: markers, line styles and hatches.

Each function draws one figure; save() writes it, the same bytes for the same figure.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.collections import LineCollection, PathCollection
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter

from controller.placement.network.topology import Floats, Topology
from controller.placement.study.characterise import DEVIATING, Characteristics, ecdf, exponential
from controller.placement.study.layout import positions

if TYPE_CHECKING:
    from controller.placement.placement import Placement
    from controller.placement.study.compare import Comparison, Row

# An algorithm has the same look in every figure.
LOOKS: Mapping[str, tuple[str, Any, str]] = {
    "random": ("0.55", ":", "x"),
    "kmeans": ("0.45", "--", "^"),
    "basp": ("0.25", "-.", "s"),
    "hanet": ("0.35", (0, (5, 1, 1, 1, 1, 1)), "v"),
    "greedy": ("0.2", (0, (8, 2)), "D"),
    "optimal": ("black", "-", "o"),
}
DODGE = 0.03  # heads by which each algorithm's bars stand beside the last one's
LEGEND_COLUMNS = 3  # that fit below a panel
CROWD = 150  # nodes from which on their symbols are smaller
RASTER_LINKS = 5000  # a drawing of more is a picture: as lines it would take megabytes
PNG_DPI, PICTURE_DPI = 220, 110  # of a PNG, and of pictures within SVG and PDF
NAMED_HEADS = 20  # with more heads their names would hide the map
HEAD_MARKERS = "osD^vP*Xph"
STYLE: dict[Any, Any] = {
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "0.9",
    "lines.linewidth": 1.3,
    "lines.markersize": 5,
    "legend.frameon": False,
    "text.parse_math": False,  # a $ in the name of a node or a file is a $
    "svg.fonttype": "none",
    "svg.hashsalt": "picasso",
    "hatch.linewidth": 0.6,
}


def save(figure: Figure, path: Path) -> None:
    """Writes a figure in the format of the path's suffix (svg, pdf, png); raises OSError, ValueError for another."""
    with rc_context(STYLE):
        dpi = PNG_DPI if path.suffix == ".png" else PICTURE_DPI
        figure.savefig(path, metadata={"Date": None} if path.suffix == ".svg" else None, dpi=dpi)


def draw_comparison(comparisons: Mapping[str, Comparison]) -> Figure:
    """The paper's Figure 8 for one network or several: mean bandwidth by k, one line an algorithm.

    The bars of an algorithm with random draws are one standard deviation over its runs.
    """

    def draw(axes: Axes, at: int, rows: Sequence[Row], look: dict[str, Any]) -> None:
        ks = [row.k + DODGE * at for row in rows]
        means, spread = [row.mean_bandwidth_mbps for row in rows], [row.deviation_mbps for row in rows]
        axes.errorbar(ks, means, spread if any(spread) else None, capsize=2, elinewidth=0.6, **look)
        axes.set_ylabel("mean bandwidth (Mbit/s)")

    figure = _by_k(comparisons, draw)
    for axes, found in zip(figure.axes, comparisons.values(), strict=False):
        highest = max((row.mean_bandwidth_mbps + row.deviation_mbps for row in found.rows), default=0.0)
        axes.set_ylim(0.0, 1.08 * highest or 1.0)
    return figure


def draw_times(comparisons: Mapping[str, Comparison]) -> Figure:
    """The running time of each algorithm by k, on a logarithmic scale."""

    def draw(axes: Axes, at: int, rows: Sequence[Row], look: dict[str, Any]) -> None:
        axes.semilogy([row.k for row in rows], [1000 * row.seconds for row in rows], **look)
        axes.set(ylabel="CPU time (ms)")
        axes.margins(y=0.08)
        _plain_numbers(axes.yaxis)

    return _by_k(comparisons, draw)


def _by_k(
    comparisons: Mapping[str, Comparison], draw: Callable[[Axes, int, Sequence[Row], dict[str, Any]], None]
) -> Figure:
    """A panel a network, in each of which `draw` draws the rows of an algorithm; one legend for all."""
    with rc_context(STYLE):
        figure, grid = _panels(len(comparisons), width=4.0, height=3.0)
        for axes, (title, comparison) in zip(grid, comparisons.items(), strict=True):
            for at, algorithm in enumerate(comparison.algorithms):
                colour, line, marker = LOOKS.get(algorithm, ("black", "-", "."))
                look = {"color": colour, "linestyle": line, "marker": marker, "label": algorithm}
                draw(axes, at, comparison.of(algorithm), look | {"markerfacecolor": "white"})
            axes.set(title=title, xlabel="heads k")
            axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
            ks = [row.k for row in comparison.rows] or [1]
            room = max(0.5, 0.04 * (max(ks) - min(ks)))
            axes.set_xlim(min(ks) - room, max(ks) + room)
        shown = {
            label: handle for axes in grid for handle, label in zip(*axes.get_legend_handles_labels(), strict=True)
        }
        wide = LEGEND_COLUMNS * min(len(grid), 2)
        figure.legend(
            list(shown.values()), list(shown), loc="outside lower center", ncols=max(1, min(len(shown), wide))
        )
        return figure


def _plain_numbers(axis: Axis) -> None:
    """1, 2, 5, 10, … on a logarithmic axis."""
    axis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.set_minor_formatter(NullFormatter())


def draw_characteristics(found: Characteristics) -> Figure:
    """The network as the paper's section 2 shows its own: what is not known has no panel."""
    panels = [_draw_throughput, _draw_deviations, _draw_two_way, _draw_degrees, _draw_busiest]
    panels += [_draw_presence] if len(found.presence) or len(found.link_presence) else []
    with rc_context(STYLE):
        figure, grid = _panels(len(panels), width=3.6, height=2.9)
        for axes, draw in zip(grid, panels, strict=True):
            draw(axes, found)
        return figure


def draw_placement(topology: Topology, placement: Placement) -> Figure:
    """The network as a map: heads large and filled, each member with its head's marker, links by their rate.

    Nodes without coordinates stand near their neighbours; without any coordinates hops make the map.
    """
    spots = positions(topology)
    index = {name: at for at, name in enumerate(topology.names)}
    size = 34.0 * min(1.0, CROWD / max(1, len(topology)))
    with rc_context(STYLE | {"axes.grid": False}):
        figure = Figure(figsize=(8, 6.5), layout="constrained")
        axes = figure.subplots()
        _draw_links(axes, topology, spots)
        clusters: dict[str, list[int]] = {head.node: [] for head in placement.heads}
        for node, member in placement.members.items():
            clusters[member.head].append(index[node])
        for at, (head, own) in enumerate(clusters.items()):
            symbol = _draw_cluster(axes, at, spots[index[head]], spots[own], size)
            if len(clusters) <= NAMED_HEADS:
                symbol.set_label(f"{head}: {len(own)}")
                name = axes.annotate(head, spots[index[head]], (8, 6), textcoords="offset points", weight="bold")
                name.set_path_effects([withStroke(linewidth=3, foreground="white")])
        lost = spots[[index[node] for node in placement.unreached]]
        if len(lost):
            axes.scatter(lost[:, 0], lost[:, 1], size, "0.5", marker="x", zorder=2, label=f"unreached: {len(lost)}")
        axes.set(title=_title(placement), aspect="equal")
        axes.set_axis_off()
        if axes.get_legend_handles_labels()[1]:
            figure.legend(title="head: members", loc="outside right center")
        return figure


def _draw_cluster(axes: Axes, number: int, head: Floats, members: Floats, size: float) -> PathCollection:
    """Draws a head and its members; gives the head's symbol."""
    marker = HEAD_MARKERS[number % len(HEAD_MARKERS)]
    grey = str(0.0 if number < len(HEAD_MARKERS) else 0.45)
    thin, many = 0.9 * min(1.0, size / 10), size < 5
    axes.scatter(
        members[:, 0],
        members[:, 1],
        size,
        "white",
        marker=marker,
        edgecolor=grey,
        linewidth=thin,
        zorder=2,
        rasterized=many,
    )
    return axes.scatter(head[0], head[1], max(4.4 * size, 20.0), grey, marker=marker, zorder=3)


def _title(placement: Placement) -> str:
    return f"{placement.algorithm}, k = {placement.k}, {placement.metric}: {placement.mean_bandwidth_mbps:.1f} Mbit/s"


def _panels(count: int, width: float, height: float) -> tuple[Figure, Sequence[Axes]]:
    columns = min(count, 2 if count <= 4 else 3)
    rows = -(-count // columns)
    figure = Figure(figsize=(width * columns, height * rows), layout="constrained")
    grid: list[Axes] = list(figure.subplots(rows, columns, squeeze=False).flat)
    for spare in grid[count:]:
        spare.set_axis_off()
    return figure, grid[:count]


def _draw_throughput(axes: Axes, found: Characteristics) -> None:
    values, share = ecdf(found.rates_mbps)
    axes.step(values, share, where="post", color="black", label="links")
    if len(values):
        mean = float(values.mean())
        model = np.linspace(0, values[-1], 200)
        axes.plot(model, exponential(model, mean), color="0.4", linestyle="--", label=f"exponential, mean {mean:.1f}")
    axes.set(title="Throughput", xlabel="Mbit/s", ylabel="share of links", ylim=(0, 1))
    axes.legend(loc="lower right")


def _draw_deviations(axes: Axes, found: Characteristics) -> None:
    values, share = ecdf(found.deviations)
    axes.step(100 * values, share, where="post", color="black")
    axes.axvline(100 * DEVIATING, color="0.4", linestyle="--")
    label = f"{100 * found.deviating_share:.0f} % of the two-way links\ndeviate by more than 30 %"
    axes.annotate(label, (100 * DEVIATING, 0.1), (4, 0), textcoords="offset points")
    axes.set(title="Asymmetry", xlabel="deviation of the directions (%)", ylabel="share of two-way links", ylim=(0, 1))
    axes.set_xlim(0, 100)


def _draw_two_way(axes: Axes, found: Characteristics) -> None:
    slower, faster = found.two_way_mbps.min(axis=1), found.two_way_mbps.max(axis=1)
    axes.plot(faster, slower, "o", color="black", markerfacecolor="none", markersize=3.5, markeredgewidth=0.7)
    if len(faster):
        ends = np.array([slower.min(), faster.max()])
        axes.plot(ends, ends, color="0.4", linestyle="-", linewidth=0.7)
        axes.set(xscale="log", yscale="log")
        _plain_numbers(axes.xaxis)
        _plain_numbers(axes.yaxis)
    title = f"Two-way links ({100 * found.one_way_share:.0f} % are one-way)"
    axes.set(title=title, xlabel="faster direction (Mbit/s)", ylabel="slower direction (Mbit/s)")


def _draw_degrees(axes: Axes, found: Characteristics) -> None:
    counts = np.bincount(found.degrees)
    axes.bar(range(len(counts)), counts, color="0.85", edgecolor="black", linewidth=0.6, hatch="////")
    axes.set(title=f"Degree (diameter {found.diameter} hops)", xlabel="neighbours", ylabel="nodes")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))


def _draw_busiest(axes: Axes, found: Characteristics) -> None:
    links = found.busiest[::-1]
    measured = any(link.traffic_mbps is not None for link in links)
    widths = [(link.traffic_mbps or 0.0) if measured else 100 * link.share_of_paths for link in links]
    names = [f"{link.source} → {link.destination}" for link in links]
    axes.barh(range(len(links)), widths, color="0.85", edgecolor="black", linewidth=0.6, hatch="\\\\\\\\")
    axes.set_yticks(range(len(links)), names, fontsize=7)
    axes.set(title="Busiest links", xlabel="traffic (Mbit/s)" if measured else "share of all least-airtime paths (%)")


def _draw_presence(axes: Axes, found: Characteristics) -> None:
    for values, line, label in ((found.presence, "-", "nodes"), (found.link_presence, "--", "links")):
        if len(values):
            shares, below = ecdf(values)
            axes.step(100 * shares, below, where="post", color="black", linestyle=line, label=label)
    axes.set(
        title="Presence", xlabel="share of the time (%)", ylabel="share of nodes, links", ylim=(0, 1), xlim=(0, 100)
    )
    axes.legend(loc="upper left")


def _draw_links(axes: Axes, topology: Topology, spots: Floats) -> None:
    """Thicker and darker is faster, on a logarithmic scale; a link that one direction joins is dashed."""
    fastest: dict[tuple[int, int], tuple[float, bool]] = {}
    for (source, destination), rate in zip(topology.edges.tolist(), topology.rates_mbps.tolist(), strict=True):
        pair = (min(source, destination), max(source, destination))
        known = fastest.get(pair)
        fastest[pair] = (rate, True) if known is None else (max(rate, known[0]), False)
    if not fastest:
        return
    ends = spots[np.array(list(fastest))]
    rates = np.log(np.array([rate for rate, _ in fastest.values()]))
    rank = (rates - rates.min()) / max(float(np.ptp(rates)), 1e-9)
    styles = ["--" if is_one_way else "-" for _, is_one_way in fastest.values()]
    colours = [str(0.88 - 0.5 * float(share)) for share in rank]
    axes.add_collection(
        LineCollection(
            list(ends),
            colors=colours,
            linewidths=(0.4 + 1.6 * rank) * min(1.0, 10 * CROWD / len(topology)),
            linestyles=styles,
            zorder=1,
            rasterized=len(fastest) > RASTER_LINKS,
        )
    )
