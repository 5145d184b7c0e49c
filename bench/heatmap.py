"""Heat maps of the bytes on each link, unicast and ours side by side, from the JSON of bench.delivery.

    python -m bench.heatmap delivery.json docs/figures/delivery-heatmap.svg

Rows send, columns receive. One scale of grey for both, from white (nothing) to black (the most that any link carried),
with the figure in the cell, so that it reads on paper.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from xml.sax.saxutils import escape

CELL, LABEL, TOP, GAP, SCALE = 26, 52, 78, 40, 150
STEPS = 5
FONT = "font-family='DejaVu Sans, Arial, sans-serif'"

Cells = Mapping[tuple[str, str], float]


def cells(way: Mapping[str, Any], image_bytes: int) -> Cells:
    """(sender, receiver) -> how many times the image's bytes went that way."""
    return {(sender, receiver): count / image_bytes for sender, receiver, count, _ in way["links"]}


def draw(panels: Sequence[tuple[str, Cells]], nodes: Sequence[str]) -> str:
    """The SVG of several maps on the same scale."""
    most = max((max(found.values(), default=0.0) for _, found in panels), default=0.0) or 1.0
    side = CELL * len(nodes)
    width = len(panels) * (LABEL + side + GAP) + SCALE
    height = TOP + side + 30
    parts = [
        f"<svg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 {width} {height}' width='{width}' height='{height}'>",
        f"<rect width='{width}' height='{height}' fill='white'/>",
    ]
    for number, (title, found) in enumerate(panels):
        parts += _panel(title, found, nodes, most, LABEL + number * (LABEL + side + GAP))
    parts += _scale(most, len(panels) * (LABEL + side + GAP), side)
    return "\n".join([*parts, "</svg>"]) + "\n"


def _panel(title: str, found: Cells, nodes: Sequence[str], most: float, left: int) -> list[str]:
    side = CELL * len(nodes)
    parts = [_text(left + side / 2, 18, title, 14, "middle", "bold")]
    parts += [_text(left + side / 2, 36, "columns receive, rows send", 10, "middle")]
    for at, node in enumerate(nodes):
        middle = CELL * at + CELL / 2
        parts.append(_text(left - 5, TOP + middle + 3, node, 9, "end"))
        x, y = left + middle + 3, TOP - 5
        parts.append(f"<g transform='rotate(-90 {x} {y})'>{_text(x, y, node, 9, 'start')}</g>")
    for row, sender in enumerate(nodes):
        for column, receiver in enumerate(nodes):
            parts += _cell(found.get((sender, receiver)), most, left + CELL * column, TOP + CELL * row)
    parts.append(f"<rect x='{left}' y='{TOP}' width='{side}' height='{side}' fill='none' stroke='black'/>")
    return parts


def _cell(times: float | None, most: float, x: int, y: int) -> list[str]:
    """A link's cell; one without a link is empty, and thinner than one over which nothing went."""
    frame = f"x='{x}' y='{y}' width='{CELL}' height='{CELL}'"
    if times is None:
        return [f"<rect {frame} fill='white' stroke='#e4e4e4' stroke-width='0.5'/>"]
    grey = _grey(times / most)
    ink = "white" if grey < 140 else "black"
    text = f"{times:.2f}" if times < 0.995 else f"{times:.1f}" if times < 9.95 else f"{times:.0f}"
    return [
        f"<rect {frame} fill='rgb({grey},{grey},{grey})' stroke='black' stroke-width='0.7'/>",
        _text(x + CELL / 2, y + CELL / 2 + 3, text, 8.5, "middle", fill=ink),
    ]


def _grey(share: float) -> int:
    return round(255 * (1 - math.pow(min(1.0, share), 0.6)))


def _scale(most: float, left: int, side: int) -> list[str]:
    parts = [_text(left, TOP - 10, "times the image", 10, "start")]
    step = side / (4 * STEPS)
    for number in range(STEPS + 1):
        share = number / STEPS
        grey, y = _grey(share), TOP + number * step * 2
        parts.append(
            f"<rect x='{left}' y='{y:.1f}' width='24' height='{step * 2:.1f}' fill='rgb({grey},{grey},{grey})' "
            "stroke='black' stroke-width='0.7'/>"
        )
        parts.append(_text(left + 32, y + step + 3, f"{share * most:.1f}", 10, "start"))
    return parts


def _text(x: float, y: float, text: str, size: float, anchor: str, weight: str = "normal", fill: str = "black") -> str:
    place = f"x='{x:g}' y='{y:g}' font-size='{size:g}' text-anchor='{anchor}' font-weight='{weight}' fill='{fill}'"
    return f"<text {place} {FONT}>{escape(text)}</text>"


def from_figures(figures: Mapping[str, Any]) -> str:
    """The SVG for what bench.delivery wrote; raises KeyError when its row `tree` is not in it."""
    found = figures["tree"]
    ways, size = found["ways"], found["image_bytes"]
    total = {way: sum(cells(ways[way], size).values()) for way in ("unicast", "ours")}
    panels = [
        (f"HTTP unicast: {total['unicast']:.1f} images on all links", cells(ways["unicast"], size)),
        (f"delivery tree: {total['ours']:.1f} images on all links", cells(ways["ours"], size)),
    ]
    return draw(panels, found["nodes"])


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("figures", type=Path, metavar="JSON", help="what bench.delivery --json wrote")
    parser.add_argument("output", type=Path, metavar="SVG")
    options = parser.parse_args()
    try:
        options.output.write_text(from_figures(json.loads(options.figures.read_text())))
    except (OSError, ValueError, KeyError) as error:
        print(f"{options.figures}: {error!r}; bench.delivery --json writes it, with the row tree", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
