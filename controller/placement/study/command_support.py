"""What the researcher's commands share: their common arguments, reading a topology, and where output goes."""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from threading import Timer
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from controller.placement import Request

PLOT_SUFFIXES = (".svg", ".pdf", ".png")
SHOWN_AFTER_S = 2.0
MAXIMUM_K = 10_000
ROUNDING = 1e-9  # 1000 × 0.2 is 200 and not 201


def add_topology(parser: argparse.ArgumentParser, required: bool = True, several: bool = False) -> None:
    """`--topology`, as load_topology() reads it; a list of them if `several`."""
    parser.add_argument(
        "--topology",
        required=required,
        nargs="+" if several else None,
        metavar="FILE|qmp:N:SEED",
        help="NetJSON, what a routing daemon prints (olsr:FILE, batman:FILE, bmx6:FILE), or N nodes generated",
    )


def add_direction(parser: argparse.ArgumentParser) -> None:
    """`--direction`, as directed() takes it."""
    parser.add_argument(
        "--direction",
        choices=("down", "both"),
        help="bandwidth from a head to its members, or the smaller of both ways (the service's, else down)",
    )


def directed(request: Request, direction: str | None) -> Request:
    """The request with another direction, where one is asked for."""
    if direction is None:
        return request
    return replace(request, constraints=replace(request.constraints, direction=direction))


def add_outputs(parser: argparse.ArgumentParser) -> None:
    """`--json` and `--plot`."""
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    parser.add_argument("--plot", type=plot_file, metavar="FILE.svg", help="also draw it there (.svg, .pdf or .png)")


def plot_file(text: str) -> Path:
    """A file to draw into; raises ArgumentTypeError."""
    if Path(text).suffix not in PLOT_SUFFIXES:  # `.svg` alone is a name without a suffix
        raise argparse.ArgumentTypeError(
            f"{text!r} is no plot; a file ending in {', '.join(PLOT_SUFFIXES)} is accepted"
        )
    return Path(text)


def counts(text: str) -> tuple[int, ...]:
    """`1..10`, `1,2,5` or `3` as ascending numbers of heads; raises ArgumentTypeError."""
    found: set[int] = set()
    for part in text.split(","):
        first, _, last = part.partition("..")
        if not (first.isdecimal() and (last or first).isdecimal()):
            raise argparse.ArgumentTypeError(f"{text!r} is no number of heads; 3, 1,2,5 or 1..10 is accepted")
        if len(last or first) > len(str(MAXIMUM_K)) or int(last or first) > MAXIMUM_K:
            raise argparse.ArgumentTypeError(f"{text!r} is no number of heads; up to {MAXIMUM_K} is accepted")
        found.update(range(int(first), int(last or first) + 1))
    if not found or min(found) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is no number of heads; from 1 on, as in 1..10, is accepted")
    return tuple(sorted(found))


def outcome(proven: bool, gap: float | None) -> str:
    """`proven optimal`, or by how much the best possible may be better, rounded up."""
    if proven:
        return "proven optimal"
    return "gap unknown" if gap is None else f"gap ≤ {math.ceil(1000 * gap - ROUNDING) / 10:.1f} %"


def guarded(command: str, run: Callable[[], None]) -> int:
    """The exit status: 0, or 2 with a message on standard error for input that is wrong or cannot be placed."""
    from controller.errors import SpecificationError
    from controller.placement import PlacementError, TopologyError

    try:
        run()
    except (PlacementError, TopologyError, SpecificationError) as error:
        print(f"picasso-controller {command}: {error}", file=sys.stderr)
        return 2
    return 0


def console() -> Any:
    """Where tables go: a pipe gets whole rows, not rows folded to a width that nobody has."""
    from rich.console import Console

    return Console() if sys.stdout.isatty() else Console(width=200)


def save_plot(path: Path | None, draw: Callable[[Any], Figure]) -> None:
    """Draws with the module `plots` into a file, if one is asked for: it brings matplotlib, which takes half a second.

    Raises PlacementError when the file cannot be written.
    """
    if path is None:
        return
    from controller.placement import PlacementError
    from controller.placement.study import plots

    try:
        plots.save(draw(plots), path)
    except OSError as error:
        raise PlacementError(f"plot {str(path)!r} cannot be written: {error.strerror}") from error


@contextmanager
def progress(total: int | None = None) -> Iterator[Callable[[str], None]]:
    """Gives a function to be told what comes next, once for each of `total` steps (None: nobody knows how many).

    A bar shows it after SHOWN_AFTER_S and goes at the end. Nothing is shown where standard error is no terminal.
    """
    if not sys.stderr.isatty():
        yield lambda what: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn(), TimeRemainingColumn())
    bar = Progress(*columns, console=Console(stderr=True), transient=True)
    task = bar.add_task("computing", total=total)
    done = 0

    def step(what: str) -> None:
        nonlocal done
        bar.update(task, description=what, completed=done if total else None)
        done += 1

    timer = Timer(SHOWN_AFTER_S, bar.start)
    timer.daemon = True
    timer.start()
    try:
        yield step
    finally:
        timer.cancel()
        timer.join()
        bar.stop()
