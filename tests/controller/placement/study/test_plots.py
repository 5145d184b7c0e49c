"""Plots: what is in them, and that they are written the same each time."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import pytest
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from controller.placement import NodeAttributes, Request, Topology, place, qmp_like
from controller.placement.study import plots
from controller.placement.study.characterise import Past, characterise
from controller.placement.study.compare import compare
from gateway.protocol.messages import Constraints

Network = Callable[..., Topology]

TOPOLOGY = qmp_like(20, 3)


def lines_of(axes: Axes) -> dict[str, tuple[list[float], list[float]]]:
    handles, labels = axes.get_legend_handles_labels()
    data = {label: handle[0] if isinstance(handle, tuple) else handle for handle, label in zip(handles, labels)}  # noqa: B905
    return {label: (list(line.get_xdata()), list(line.get_ydata())) for label, line in data.items()}


def texts(path: Path) -> str:
    return " ".join(ElementTree.parse(path).getroot().itertext())


def test_a_comparison_has_a_line_an_algorithm() -> None:
    """Every algorithm's line goes through its mean bandwidths, and looks different without colour."""
    found = compare(TOPOLOGY, (1, 2, 4), ("random", "basp", "optimal"), runs=3)
    (axes,) = plots.draw_comparison({"net": found}).axes
    for name, (_, ys) in lines_of(axes).items():
        assert ys == [row.mean_bandwidth_mbps for row in found.of(name)]
        assert axes.get_ylim()[0] == 0 and max(ys) < axes.get_ylim()[1]
    assert set(lines_of(axes)) == {"random", "basp", "optimal"}
    assert axes.get_title() == "net"
    times = plots.draw_times({"net": found}).axes[0]
    assert lines_of(times)["basp"][1] == [1000 * row.seconds for row in found.of("basp")]


def test_looks_differ_in_black_and_white() -> None:
    """No two algorithms share a marker or a line style."""
    for (_, line, marker), (_, other_line, other_marker) in itertools.combinations(plots.LOOKS.values(), 2):
        assert line != other_line and marker != other_marker


def test_several_networks_stand_beside_each_other() -> None:
    """One panel a network, with its title; the rest of the grid stays empty."""
    found = compare(TOPOLOGY, (1, 2), ("basp", "greedy"), runs=2)
    for draw in (plots.draw_comparison, plots.draw_times):
        figure = draw({"one": found, "two": found, "three": found})
        assert [axes.get_title() for axes in figure.axes if axes.axison] == ["one", "two", "three"]


def test_a_network_has_a_panel_for_what_is_known() -> None:
    """Presence has a panel only where something is known of the past."""
    unknown = replace(TOPOLOGY, nodes=(NodeAttributes(),) * len(TOPOLOGY))
    titles = [axes.get_title() for axes in plots.draw_characteristics(characterise(unknown)).axes if axes.axison]
    assert titles[:2] == ["Throughput", "Asymmetry"]
    assert "Presence" not in titles
    lived = plots.draw_characteristics(characterise(unknown, Past(presence={"gw-01": 0.5})))
    assert "Presence" in [axes.get_title() for axes in lived.axes]


def test_a_network_without_links_is_drawn(tmp_path: Path) -> None:
    """A single node is no error in any plot."""
    lone = qmp_like(1, 0)
    plots.save(plots.draw_characteristics(characterise(lone)), tmp_path / "network.svg")
    plots.save(plots.draw_placement(lone, place(lone, Request(1))), tmp_path / "map.svg")
    assert "gw-0" in texts(tmp_path / "map.svg")


def test_a_map_names_every_head(tmp_path: Path) -> None:
    """The map of a placement has each head with the number of its members, and is the same file each time."""
    placement = place(TOPOLOGY, Request(3), "basp")

    def write(name: str) -> Path:
        plots.save(plots.draw_placement(TOPOLOGY, placement), tmp_path / name)
        return tmp_path / name

    shown = texts(write("map.svg"))
    for head in placement.heads:
        own = sum(member.head == head.node for member in placement.members.values())
        assert f"{head.node}: {own}" in shown
    assert f"{placement.mean_bandwidth_mbps:.1f} Mbit/s" in shown
    assert write("map.svg").read_bytes() == write("again.svg").read_bytes()


@pytest.mark.parametrize("suffix", [".svg", ".pdf", ".png"])
def test_formats(tmp_path: Path, suffix: str) -> None:
    """A figure is written as SVG, PDF and PNG."""
    plots.save(Figure(), tmp_path / f"plot{suffix}")
    assert (tmp_path / f"plot{suffix}").stat().st_size > 100


def test_a_png_is_large_enough_to_be_read(tmp_path: Path) -> None:
    """The smallest figure, of one panel, is more than 800 pixels wide."""
    plots.save(plots.draw_times({"net": compare(TOPOLOGY, (1,), ("greedy",))}), tmp_path / "plot.png")
    assert int.from_bytes((tmp_path / "plot.png").read_bytes()[16:20]) > 800


@pytest.mark.parametrize("ks", [(3,), (2, 3), (1, 5, 40)])
@pytest.mark.parametrize("draw", [plots.draw_comparison, plots.draw_times])
def test_one_network_is_drawn_whole(draw: Callable[..., Figure], ks: tuple[int, ...], tmp_path: Path) -> None:
    """Whatever the k, ticks are whole numbers, every marker is inside the axes and the legend inside the figure."""
    figure = draw({"net": compare(qmp_like(50, 3), ks, tuple(plots.LOOKS), runs=3)})
    plots.save(figure, tmp_path / "plot.svg")
    (axes,) = figure.axes
    (left, right), (low, high) = axes.get_xlim(), axes.get_ylim()
    shown = [tick for tick in axes.get_xticks() if left <= tick <= right]
    assert shown and all(tick == int(tick) for tick in shown)
    assert all(
        tick.get_text().isdecimal() for tick in axes.get_xticklabels() if left <= tick.get_position()[0] <= right
    )
    if draw is plots.draw_comparison:
        tops = [y for _, ys in lines_of(axes).values() for y in ys]
        room = axes.get_window_extent().height * (high - max(tops)) / (high - low)
        assert room > figure.dpi * 5 / 72 / 2
    (legend,) = figure.legends
    assert {text.get_text() for text in legend.get_texts()} == set(plots.LOOKS)
    box, whole = legend.get_window_extent(), figure.bbox
    assert whole.x0 <= box.x0 and box.x1 <= whole.x1


def test_the_legend_has_what_only_a_later_network_has() -> None:
    """An algorithm that placed nothing in the first network is in the legend for the second."""
    first, second = (compare(TOPOLOGY, (1,), names) for names in (("greedy",), ("greedy", "optimal")))
    (legend,) = plots.draw_comparison({"first": first, "second": second}).legends
    assert [text.get_text() for text in legend.get_texts()] == ["greedy", "optimal"]


def test_a_dollar_is_a_dollar(network: Network, tmp_path: Path) -> None:
    """A name that would be a formula, even a wrong one, is drawn as it is."""
    topology = replace(network("a-b 9, b-c 90"), names=(r"$\a$", "$b_$", "c"))
    for name, figure in (
        ("$x^$", plots.draw_comparison({"$x^$": compare(topology, (1,), ("greedy",))})),
        (r"$\a$ → $b_$", plots.draw_characteristics(characterise(topology))),
        ("$b_$: 2", plots.draw_placement(topology, place(topology, Request(1, Constraints(exclude=(r"$\a$", "c")))))),
    ):
        plots.save(figure, tmp_path / "plot.svg")
        assert name in texts(tmp_path / "plot.svg")
        assert "mathdefault" not in texts(tmp_path / "plot.svg")
