"""The figures of content delivery, measured on real gateways in emulated networks; `make bench-delivery`. Needs root.

    python -m bench.delivery                          the whole table with an image of 145 MB, about half an hour
    python -m bench.delivery --image-mb 15            the same with a small image, a few minutes
    python -m bench.delivery --only tree              one row (may be given again); --list names them all

Networks are namespaces joined by veth pairs with tbf rates (tests/emulation). Every byte count is the kernel's, of the
sending interfaces, with Ethernet, IP and TCP headers and acknowledgements; so a copy of the image on a link is counted
with the frames that it takes there at least (bench/fluid.py). What is compared runs one after the other in
the same run over the same links. The JSON has every figure of every gateway and link; bench.heatmap draws it.
"""

from __future__ import annotations

import argparse
import json
import signal
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))  # this file may be run by its path

from bench import delivery_runs, ferry, fluid, layers
from bench.delivery_runs import Say
from bench.gateways import BenchError
from bench.rows import machine
from tests.emulation.namespaces import EmulationError, require

PAPER_IMAGE_MB, FERRY_SHARE, LOSSY_SHARE = 145.0, 30.0 / 145.0, 60.0 / 145.0

Figures = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Target:
    """One line of the table: the figure `key` of the JSON and what is to be reached; None is for the reader only."""

    key: str
    work: str
    limit: Callable[[Figures], float] | float | None = None
    at_least: bool = False
    published: str = "–"


@dataclass(frozen=True, slots=True)
class Row:
    """Something to measure, which gives several figures at once."""

    name: str
    work: str
    measure: Callable[[float, Say], Figures]
    targets: tuple[Target, ...]


# --- what is measured


def tree(image_mb: float, say: Say) -> Figures:
    """One image to 16 gateways at once over a tree, three ways."""
    network, image = delivery_runs.qmp_tree(), delivery_runs.image_of(image_mb)
    found = delivery_runs.compare(network, image, say)
    ours, unicast, bittorrent = found["ours"], found["unicast"], found["bittorrent"]
    alone = len(network.parents) * image.size
    bound = len(network.parents) * fluid.link_bytes(image.size)
    fluid_s = network.fluid_s(image.size)
    return {
        "time_vs_unicast": ours.mean_s / unicast.mean_s,
        "time_vs_unicast_fluid": fluid_s[0] / fluid_s[1],
        "time_vs_fluid": ours.mean_s / fluid_s[0],
        "bytes_vs_bound": ours.bytes / bound,
        "bytes_vs_bound_unicast": unicast.bytes / bound,
        "bytes_vs_bound_bittorrent": bittorrent.bytes / bound,
        "bytes_vs_image": ours.bytes / alone,
        "time_vs_bittorrent": ours.mean_s / bittorrent.mean_s,
        "bytes_vs_bittorrent": ours.bytes / bittorrent.bytes,
        "tree": {
            "image_bytes": image.size,
            "root": network.root,
            "nodes": list(network.topology.nodes),
            "rates_mbps": [[*edge, mbps] for edge, mbps in network.mbps.items()],
            "fluid_s": {"delivery": fluid_s[0], "unicast": fluid_s[1]},
            "ways": delivery_runs.as_json(found),
        },
    }


def lossy(image_mb: float, say: Say) -> Figures:
    """A blob over one hop of 20 Mbit/s, 100 ms, 3 % loss each way, 60 MB with the full image; see bench/lossy.py."""
    from bench.lossy import lossy_hop_share

    say("lossy hop: 20 Mbit/s, 100 ms, 3 % loss each way")
    found = lossy_hop_share(image_mb * LOSSY_SHARE)
    return {"lossy_hop_share": found["share"], "lossy_hop": found}


def carried(image_mb: float, say: Say) -> Figures:
    """A blob by ferry; 30 MB with the full image."""
    crossing = ferry.cross(image_mb * FERRY_SHARE, say)
    if not crossing.is_whole:
        raise BenchError(f"the blob has not come in {len(crossing.contacts)} contacts")
    figures = {"ferry_contacts": len(crossing.contacts), "ferry_contacts_fewest": crossing.fewest}
    return {**figures, "ferry": asdict(crossing)}


def second_version(image_mb: float, say: Say) -> Figures:
    """A second version that shares all but one layer."""
    found = layers.second_version(image_mb, say)
    figures = {"shared_layers_share": found.share, "shared_layers_vs_layer": found.received / found.layer_bytes}
    return {**figures, "shared_layers": asdict(found)}


TREE_TARGETS = (
    Target("time_vs_unicast", "mean time to 16 gateways against HTTP unicast", 0.25, published="0.45"),
    Target("time_vs_unicast_fluid", "– what a perfect delivery would reach there"),
    Target("bytes_vs_bound", "bytes on all links against the image once on each", 1.05, published="−43 % of unicast"),
    Target("bytes_vs_bound_unicast", "– the same for HTTP unicast"),
    Target("bytes_vs_image", "– ours, against the image's bytes without the frames that carry them"),
    Target("time_vs_bittorrent", "mean time against BitTorrent (aria2)", 1.0),
    Target("bytes_vs_bittorrent", "bytes against BitTorrent (aria2)", 1.0),
)
ROWS = (
    Row("tree", "one image to 16 gateways of a tree: ours, HTTP unicast, BitTorrent", tree, TREE_TARGETS),
    Row(
        "lossy",
        "one hop with 3 % loss each way",
        lossy,
        (Target("lossy_hop_share", "20 Mbit/s, 100 ms, 3 % loss each way: share of the rate", 0.85, at_least=True),),
    ),
    Row(
        "ferry",
        "a blob carried by a ferry in contacts of 4 s",
        carried,
        (
            Target(
                "ferry_contacts",
                "contacts of 4 s that a ferry takes",
                lambda figures: figures["ferry_contacts_fewest"] + 1,
                published="none of 13",
            ),
        ),
    ),
    Row(
        "layers",
        "a second version that shares all but one layer",
        second_version,
        (
            Target(
                "shared_layers_share", "second version: bytes against the changed layer", 1.03, published="whole image"
            ),
            Target("shared_layers_vs_layer", "– against the layer's bytes without the frames that carry them"),
        ),
    ),
)


# --- the table


def reached(target: Target, figures: Figures) -> bool | None:
    """Whether the figure is what was to be reached; None where nothing was, or nothing was measured."""
    limit, value = _limit(target, figures), figures.get(target.key)
    if limit is None or value is None:
        return None
    return bool(value >= limit if target.at_least else value <= limit)


def _limit(target: Target, figures: Figures) -> float | None:
    if callable(target.limit):
        return target.limit(figures) if target.key in figures else None
    return target.limit


_OUTCOMES = {True: "reached", False: "not reached", None: "–"}


def render(rows: Sequence[Row], figures: Figures) -> str:
    """The table as Markdown."""
    lines = ["| work | the published system | to reach | figure | |", "|---|---|---|---|---|"]
    for row in rows:
        for target in row.targets:
            limit, value = _limit(target, figures), figures.get(target.key)
            wanted = "–" if limit is None else f"{'≥' if target.at_least else '≤'} {_number(limit)}"
            shown = "failed" if value is None else f"**{_number(value)}**"
            outcome = "failed" if value is None else _OUTCOMES[reached(target, figures)]
            lines.append(f"| {target.work} | {target.published} | {wanted} | {shown} | {outcome} |")
    return "\n".join(lines)


def _number(value: float) -> str:
    return f"{value:.0f}" if float(value).is_integer() and value > 1 else f"{value:.3g}"


def measure(rows: Sequence[Row], image_mb: float, say: Say) -> Figures:
    """The figures of these rows; one that fails has its reason under `errors`."""
    figures: Figures = {"image_mb": image_mb, "machine": machine(), "errors": {}}
    for row in rows:
        say(f"{row.name}: {row.work}")
        try:
            figures |= row.measure(image_mb, say)
        except (EmulationError, BenchError, ImportError, OSError) as error:
            figures["errors"][row.name] = str(error)
            say(f"{row.name} failed: {error}")
    return figures


def main() -> int:
    options = _parser().parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # by way of every `finally`, so that nothing stays
    if options.list:
        print("\n".join(f"{row.name:10}{row.work}" for row in ROWS))
        return 0
    try:
        require()
    except EmulationError as error:
        print(f"bench.delivery: {error}", file=sys.stderr)
        return 2
    rows = [row for row in ROWS if not options.only or row.name in options.only]
    started = time.monotonic()

    def say(text: str) -> None:
        print(f"{time.monotonic() - started:6.1f} s  {text}", file=sys.stderr, flush=True)

    try:
        figures = measure(rows, options.image_mb, say)
    except KeyboardInterrupt:
        say("interrupted; everything that was started is removed")
        return 130
    print(render(rows, figures))
    print("\n" + ", ".join(f"{key} {value}" for key, value in figures["machine"].items()))
    if options.json is not None:
        options.json.write_text(json.dumps(figures, indent=1) + "\n")
    return 1 if figures["errors"] else 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write every figure there")
    parser.add_argument("--image-mb", type=float, default=PAPER_IMAGE_MB, metavar="MB", help="size of the image (145)")
    parser.add_argument("--only", action="append", choices=[row.name for row in ROWS], metavar="ROW", help="this row")
    parser.add_argument("--list", action="store_true", help="list the rows")
    return parser


if __name__ == "__main__":
    sys.exit(main())
