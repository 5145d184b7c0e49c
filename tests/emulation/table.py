"""A running emulation as tables for people: links with what they carry now, gateways with what they hold. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from rich.console import Group
from rich.table import Table
from rich.text import Text

from tests.emulation.network import Direction, Traffic
from tests.emulation.topology import Link

BAR = 12


@dataclass(frozen=True, slots=True)
class GatewayView:
    """One gateway as it answers, or not; `progress` is the share of the image on its disk."""

    node: str
    parent: str
    progress: float
    blobs: int = 0
    cache_mb: float = 0.0
    hits: int = 0
    misses: int = 0
    wants: int = 0
    faces: int = 0
    is_silent: bool = False


@dataclass(frozen=True, slots=True)
class Frame:
    """All that is shown at one moment; `use_mbps` is over the last interval."""

    links: Sequence[Link]
    is_up: Mapping[Link, bool]
    loss: Mapping[Link, float]
    total: Mapping[Direction, Traffic]
    use_mbps: Mapping[Direction, float]
    gateways: Sequence[GatewayView]
    seconds: float
    message: str = ""
    typed: str = ""


def render(frame: Frame) -> Group:
    """The whole screen."""
    done = sum(view.progress >= 1 for view in frame.gateways)
    state = f"{frame.seconds:.0f} s, {done} of {len(frame.gateways)} gateways have the image"
    help_line = "fail N · recover N · loss N PERCENT · deliver · quit, then Enter"
    return Group(
        Text(state, style="bold"),
        links_table(frame),
        gateways_table(frame.gateways),
        Text(frame.message),
        Text.assemble((help_line, "dim"), "\n> ", frame.typed),
    )


def links_table(frame: Frame) -> Table:
    """A line a link, both directions in it."""
    table = Table(box=None, pad_edge=False)
    for name, justify in (
        ("link", "right"), ("from", "left"), ("to", "left"), ("state", "left"), ("Mbit/s", "right"),
        ("now", "right"), ("use", "left"), ("MB", "right"), ("back", "right"), ("now", "right"), ("MB", "right"),
    ):  # fmt: skip
        table.add_column(name, justify=justify, no_wrap=True)  # type: ignore[arg-type]
    for number, link in enumerate(frame.links):
        there, back = link.ends, link.ends[::-1]
        use = frame.use_mbps.get(there, 0.0)
        bar = "█" * min(BAR, round(BAR * use / link.mbps))
        state = "down" if not frame.is_up[link] else f"loses {frame.loss[link]:.0%}" if frame.loss[link] else "up"
        table.add_row(
            str(number), link.a, link.b, Text(state, style="" if state == "up" else "bold red"),
            f"{link.mbps:g}", f"{use:.1f}", bar.ljust(BAR, "·"), f"{frame.total[there].bytes / 1e6:.1f}",
            f"{link.back_mbps:g}", f"{frame.use_mbps.get(back, 0.0):.1f}", f"{frame.total[back].bytes / 1e6:.1f}",
        )  # fmt: skip
    return table


def gateways_table(views: Sequence[GatewayView]) -> Table:
    """A line a gateway."""
    table = Table(box=None, pad_edge=False)
    for name in ("gateway", "asks", "image", "", "blobs", "cache MB", "hits", "misses", "wants", "faces"):
        text = name in ("gateway", "asks", "")
        table.add_column(name, justify="left" if text else "right", no_wrap=True)
    for view in views:
        row = [view.node, view.parent or "–", f"{view.progress:.0%}"]
        row.append(("█" * round(BAR * view.progress)).ljust(BAR, "·"))
        if view.is_silent:
            row.append("no answer")
        else:
            row += [str(view.blobs), f"{view.cache_mb:.1f}", str(view.hits), str(view.misses)]
            row += [str(view.wants), str(view.faces)]
        table.add_row(*row)
    return table


# --- what is typed


@dataclass(frozen=True, slots=True)
class Command:
    """What somebody asks of the emulation: `fail`, `recover`, `loss` (with `share`), `deliver` or `quit`."""

    verb: str
    link: int = -1
    share: float = 0.0


def parse(text: str, links: int) -> Command:
    """The command of a line, of which the beginning of the word is enough; raises ValueError with what is accepted."""
    words = text.split()
    verbs = [verb for verb in ("fail", "recover", "loss", "deliver", "quit") if words and verb.startswith(words[0])]
    if len(verbs) != 1:
        raise ValueError(f"{text!r}: fail N, recover N, loss N PERCENT, deliver and quit are accepted")
    verb, numbers = verbs[0], words[1:]
    if verb in ("deliver", "quit"):
        return Command(verb)
    if not numbers or not numbers[0].isdigit() or int(numbers[0]) >= links:
        raise ValueError(f"{text!r}: the number of a link from 0 to {links - 1} is accepted")
    if verb != "loss":
        return Command(verb, int(numbers[0]))
    if len(numbers) != 2 or not numbers[1].replace(".", "", 1).isdigit() or float(numbers[1]) > 100:
        raise ValueError(f"{text!r}: loss N PERCENT is accepted, with 0 to 100 percent")
    return Command(verb, int(numbers[0]), float(numbers[1]) / 100)
