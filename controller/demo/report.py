"""What the demonstration shows and writes: the network, what happened on it, the figures and the verdict."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from controller.demo.plan import CONTROLLER, Plan


@dataclass(frozen=True, slots=True)
class PlacedReplica:
    """A replica as the decision and its node's executor state it; `bandwidth_mbps` is the mean to those it serves."""

    service: str
    head: str
    runtime: str
    reason: str
    bandwidth_mbps: float


@dataclass(frozen=True, slots=True)
class LinkBytes:
    """Bytes that left `source` for `destination`, as the sending face counts them at Unix time `time`.

    `bytes` are all since the gateway started, measuring included; `delivery_bytes` those since services were published.
    """

    source: str
    destination: str
    bytes: int
    delivery_bytes: int
    rate_mbps: float
    measured_mbps: float | None
    time: float


@dataclass(frozen=True, slots=True)
class Answer:
    """One GET by a user: the node that answered (empty: nobody), the page it was sent to, and whether it counts."""

    service: str
    node: str
    status: int
    latency_ms: float
    page: str
    problem: str = ""

    @property
    def ok(self) -> bool:
        return not self.problem


@dataclass(slots=True)
class Results:
    """The figures of a run, in the order in which they come to be known."""

    nodes: int
    placements: list[PlacedReplica] = field(default_factory=list)
    bytes_sent_by_repository: int = 0
    bytes_delivered: int = 0
    bytes_per_link: list[LinkBytes] = field(default_factory=list)
    cache_hits: int = 0
    cache_misses: int = 0
    http: list[Answer] = field(default_factory=list)
    after_controller_loss: list[Answer] = field(default_factory=list)
    during_outage: list[Answer] = field(default_factory=list)
    after_reboot: list[Answer] = field(default_factory=list)
    rebooted: str = ""
    seconds: float = 0.0
    failures: list[str] = field(default_factory=list)

    @property
    def cache_hit_ratio(self) -> float:
        """Interests for blob segments that a gateway's own store answered, of all that gateways got."""
        total = self.cache_hits + self.cache_misses
        return self.cache_hits / total if total else 0.0

    def to_json(self) -> dict[str, Any]:
        return {
            **{key: value for key, value in asdict(self).items() if key not in ("failures", "seconds")},
            "cache_hit_ratio": round(self.cache_hit_ratio, 4),
            "seconds": round(self.seconds, 2),
            "ok": not self.failures,
            "failures": self.failures,
        }


class Screen:
    """The run as it goes, for a person; every line has the time since the start."""

    def __init__(self, console: Console, started: float) -> None:
        self._console, self._started = console, started

    def step(self, text: str) -> None:
        """A new step begins."""
        self._console.print(f"[dim]{self._clock()}[/dim] [bold]{escape(text)}[/bold]", soft_wrap=True)

    def note(self, text: str) -> None:
        """Something happened within it."""
        self._console.print(f"[dim]{self._clock()}[/dim]   {escape(text)}", highlight=False, soft_wrap=True)

    def failure(self, text: str) -> None:
        self._console.print(
            f"[dim]{self._clock()}[/dim] [bold red]{escape(text)}[/bold red]", highlight=False, soft_wrap=True
        )

    def _clock(self) -> str:
        return f"{time.monotonic() - self._started:5.1f} s"

    def drawing(self, text: str) -> None:
        """A drawing in characters, as it is."""
        self._console.print(escape(text), highlight=False)

    def network(self, plan: Plan) -> None:
        """Every gateway with its neighbours and the rate of each direction."""
        table = _table("node", "address", "links: neighbour, Mbit/s to it and back")
        for node in plan.topology.names:
            links = [
                f"{other} {plan.rate_mbps(node, other):g}/{plan.rate_mbps(other, node):g}"
                for other in plan.neighbors(node)
            ]
            table.add_row(node, plan.addresses[node], "  ".join(links))
        self._console.print(table)

    def placements(self, placements: Iterable[PlacedReplica]) -> None:
        table = _table("service", "head", "runtime", "Mbit/s", "why")
        for row in placements:
            table.add_row(row.service, row.head, row.runtime, f"{row.bandwidth_mbps:.1f}", row.reason)
        self._console.print(table)

    def links(self, links: Sequence[LinkBytes]) -> None:
        """Bytes over each link in both directions, with the rate that was set and the one that was measured."""
        most = max((link.delivery_bytes for link in links), default=1) or 1
        table = _table("from", "to", "kB", "for the delivery", "kB in all", "Mbit/s set", "measured")
        for link in sorted(links, key=lambda link: -link.delivery_bytes):
            measured = f"{link.measured_mbps:.1f}" if link.measured_mbps is not None else "-"
            kilobytes = [f"{count / 1000:.0f}" for count in (link.delivery_bytes, link.bytes)]
            bar = "█" * round(20 * link.delivery_bytes / most)
            rates = [f"{link.rate_mbps:g}", measured]
            table.add_row(link.source, link.destination, kilobytes[0], bar, kilobytes[1], *rates)
        self._console.print(table)

    def answers(self, answers: Iterable[Answer]) -> None:
        table = _table("page of", "service", "answered by", "status", "ms")
        for row in answers:
            by = row.node if row.ok else f"[red]{escape(row.problem)}[/red]"
            table.add_row(row.page, row.service, by, str(row.status or "-"), f"{row.latency_ms:.0f}")
        self._console.print(table)

    def verdict(self, results: Results) -> None:
        """The summary table and one clear line."""
        table = _table("what", "result")
        for what, result in summary(results):
            table.add_row(what, result)
        self._console.print(table)
        if results.failures:
            self._console.print("[bold red]The demonstration FAILED:[/bold red]")
            for failure in results.failures:
                self._console.print(f"  {escape(failure)}", highlight=False)
        else:
            self._console.print(f"[bold green]Everything worked, in {results.seconds:.0f} s.[/bold green]")


def summary(results: Results) -> list[tuple[str, str]]:
    """The outcome in a few rows."""

    def answered(rows: list[Answer]) -> str:
        good = [row for row in rows if row.ok]
        if not rows:
            return "not reached"
        mean = sum(row.latency_ms for row in good) / len(good) if good else 0.0
        return f"{len(good)} of {len(rows)} answered" + (f", {mean:.0f} ms on average" if good else "")

    sent, delivered = results.bytes_sent_by_repository, results.bytes_delivered
    return [
        ("gateways", f"{results.nodes} and the controller's"),
        ("replicas placed by measured bandwidth", str(len(results.placements))),
        ("image data delivered", f"{delivered / 1e6:.2f} MB"),
        ("image data that left the repository", f"{sent / 1e6:.2f} MB"),
        (
            "blob segments answered from a gateway's store",
            f"{results.cache_hits} of {results.cache_hits + results.cache_misses} ({results.cache_hit_ratio:.0%})",
        ),
        ("GET through every gateway's page", answered(results.http)),
        ("the same with the controller killed", answered(results.after_controller_loss)),
        (f"the same while {results.rebooted or 'a host'} is dead", answered(results.during_outage)),
        (f"services of {results.rebooted or 'the host'} after its restart", answered(results.after_reboot)),
    ]


def _table(*columns: str) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim")
    for column in columns:
        right = column in ("kB", "kB in all", "ms", "Mbit/s", "Mbit/s set", "measured", "status")
        table.add_column(column, justify="right" if right else "left")
    return table


def drawing(plan: Plan, width: int = 64, height: int = 15) -> str:
    """The network as a map: every node where it stands, links drawn as dots."""
    coordinates = plan.topology.coordinates
    low, high = coordinates.min(axis=0), coordinates.max(axis=0)
    span = [max(float(value), 1e-9) for value in high - low]
    spots = {
        name: (
            round((place[1] - low[1]) / span[1] * (width - 1)),
            round((high[0] - place[0]) / span[0] * (height - 1)),
        )
        for name, place in zip(plan.topology.names, coordinates.tolist(), strict=True)
    }
    canvas = [[" "] * (width + 12) for _ in range(height)]
    for source, destination in plan.topology.edges.tolist():
        _dots(canvas, spots[plan.topology.names[source]], spots[plan.topology.names[destination]])
    for name, (column, row) in spots.items():
        label = "[C]" if name == CONTROLLER else name.removeprefix("gw-")
        canvas[row][column : column + len(label)] = label
    return "\n".join("".join(row).rstrip() for row in canvas)


def _dots(canvas: list[list[str]], start: tuple[int, int], end: tuple[int, int]) -> None:
    steps = max(abs(end[0] - start[0]), abs(end[1] - start[1]), 1)
    for at in range(1, steps):
        column = round(start[0] + (end[0] - start[0]) * at / steps)
        row = round(start[1] + (end[1] - start[1]) * at / steps)
        if canvas[row][column] == " ":
            canvas[row][column] = "·"
