"""`picasso-controller place`: a placement on a file or a generated topology, with its reasons."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from controller.placement import Placement, Topology


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of `picasso-controller place`."""
    parser.add_argument(
        "--topology", required=True, metavar="FILE|qmp:N:SEED", help="NetJSON file or generated network"
    )
    parser.add_argument("--k", type=int, default=1, help="number of heads (1)")
    parser.add_argument("--algorithm", default="basp", help="basp, kmeans or random (basp)")
    parser.add_argument("--metric", default="airtime", help="path bandwidth: airtime or widest (airtime)")
    parser.add_argument("--seed", type=int, default=0, help="seed of what is random in the algorithm (0)")
    parser.add_argument("--json", action="store_true", help="print the placement as JSON")


def run(arguments: argparse.Namespace) -> int:
    """Prints a placement; 2 and a message on standard error for input that cannot be placed."""
    from controller.placement import PlacementError, Request, TopologyError, place

    try:
        topology = load(arguments.topology)
        placement = place(
            topology, Request(arguments.k), arguments.algorithm, metric=arguments.metric, seed=arguments.seed
        )
    except (PlacementError, TopologyError) as error:
        print(f"picasso-controller place: {error}", file=sys.stderr)
        return 2
    print(json.dumps(placement.to_json(), indent=2) if arguments.json else describe(topology, placement))
    return 0


def load(source: str) -> Topology:
    """A topology from a NetJSON file or from `qmp:N:SEED`; raises TopologyError."""
    from controller.placement import TopologyError, from_netjson, qmp_like

    if source.startswith("qmp:"):
        parts = source.split(":")
        if len(parts) != 3 or not all(part.isascii() and part.isdigit() for part in parts[1:]):
            raise TopologyError(f"{source!r} is no generated topology; 'qmp:54:7' (54 nodes, seed 7) would be accepted")
        return qmp_like(int(parts[1]), int(parts[2]))
    try:
        return from_netjson(json.loads(Path(source).read_text(encoding="utf-8")))
    except OSError as error:
        raise TopologyError(f"topology {source!r} cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise TopologyError(f"topology {source!r} is no UTF-8 text: {error}") from error
    except json.JSONDecodeError as error:
        raise TopologyError(f"topology {source!r} is no JSON, line {error.lineno}: {error.msg}") from error


def describe(topology: Topology, placement: Placement) -> str:
    """A placement for people: the heads with their reasons and members, then who was refused and why."""
    mean = f"{placement.mean_bandwidth_mbps:.1f} Mbit/s on average from a head to its members"
    of = f"{placement.k} of {len(topology)} nodes by {placement.metric} bandwidth"
    lines = [f"{placement.algorithm} places {of}: {mean} ({placement.seconds:.3f} s)"]
    for head in placement.heads:
        members = [node for node, member in placement.members.items() if member.head == head.node]
        lines.append(f"  {head.node}  {head.reason}")
        lines.append(f"    serves {len(members)} at {head.bandwidth_mbps:.1f} Mbit/s: {', '.join(members)}")
    lines += [f"  refused {node}: {reason}" for node, reason in placement.refused.items()]
    if placement.unreached:
        lines.append(f"  reached by no head: {', '.join(placement.unreached)}")
    if placement.standbys:
        lines.append(f"  stand-by: {', '.join(placement.standbys)}")
    lines += [f"  note: {note}" for note in topology.notes]
    return "\n".join(lines)
