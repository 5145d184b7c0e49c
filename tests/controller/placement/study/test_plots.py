"""Plots: what is in them, and that they are written the same each time."""

from __future__ import annotations

import itertools
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import pytest
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from controller.placement import NodeAttributes, Request, place, qmp_like
from controller.placement.study import plots
from controller.placement.study.characterise import Past, characterise
from controller.placement.study.compare import compare

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
