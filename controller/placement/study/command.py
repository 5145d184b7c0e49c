"""`picasso-controller place`: a placement on a file or a generated topology, with its reasons."""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from controller.placement.study import command_support as support

if TYPE_CHECKING:
    from controller.placement import Placement, Request, Topology

SHOWN_MEMBERS, SHOWN_REASONS = 12, 50  # of a head, and of nodes with the same trouble; --json has all of them


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of `picasso-controller place`."""
    from controller.placement import algorithms, metrics

    support.add_topology(parser)
    parser.add_argument("--k", type=int, help="number of heads (the service's replicas, else 1)")
    parser.add_argument(
        "--service",
        type=Path,
        nargs="+",
        default=[],
        metavar="FILE",
        help="a service file: constraints, algorithm, replicas; several are placed beside each other",
    )
    parser.add_argument("--algorithm", help=f"{', '.join(algorithms())} (the service's, else {algorithms()[0]})")
    parser.add_argument("--metric", default=metrics()[0], help=f"path bandwidth: {', '.join(metrics())} (%(default)s)")
    support.add_direction(parser)
    parser.add_argument("--seed", type=int, default=0, help="seed of what is random in the algorithm (0)")
    parser.add_argument("--partial", action="store_true", help="place fewer heads if constraints leave fewer nodes")
    parser.add_argument("--explain", action="store_true", help="also each member's path and its bottleneck link")
    parser.add_argument(
        "--what-if",
        type=question,
        metavar="CHANGE",
        help="also the same with one thing changed: without:NODE, double:A,B (a link's rate) or k+1",
    )
    support.add_outputs(parser)


def run(arguments: argparse.Namespace) -> int:
    """Prints a placement; 2 and a message on standard error for input that cannot be placed."""
    return support.guarded("place", lambda: _place(arguments))


def _place(arguments: argparse.Namespace) -> None:
    if len(arguments.service) > 1:
        _place_several(arguments)
        return
    from controller.placement import PlacementError, TopologyError, explain, place, what_if
    from controller.placement.network.sources import load_topology

    topology = load_topology(arguments.topology)
    name, request, algorithm = wanted(next(iter(arguments.service), None), arguments)
    options = _options(arguments) | {"bound": True}
    with support.progress() as step:
        step(f"placing by {algorithm}")
        change, trouble = None, ""
        if arguments.what_if:
            try:
                change = what_if(topology, request, algorithm, **arguments.what_if, **options)
            except (PlacementError, TopologyError) as error:
                trouble = str(error)
        placement = change.before if change else place(topology, request, algorithm, **options)
    support.save_plot(arguments.plot, lambda plots: plots.draw_placement(topology, placement))
    explanation = explain(topology, placement) if arguments.explain else None
    if arguments.json:
        document = placement.to_json() | ({"what_if": change.to_json()} if change else {})
        print(json.dumps(document | ({"nodes": explanation.to_json()} if explanation else {}), indent=2))
    else:
        print(describe(topology, placement, unknown_names(topology, {name: request}, name)))
        if explanation:
            print("\n".join(f"  {reason}" for reason in explanation.all() if not reason.why))
        if change:
            print(f"{change.question}: {'; '.join(change.difference())} ({_outcome(change.after)})")
    if trouble:
        raise PlacementError(f"the what-if cannot be answered: {trouble}")


def _place_several(arguments: argparse.Namespace) -> None:
    """Services that share the nodes' capacity, keep apart and are near to each other, as their files say."""
    from controller.placement import PlacementError, several
    from controller.placement.network.sources import load_topology

    if arguments.what_if or arguments.plot or arguments.explain:
        raise PlacementError("--what-if, --plot and --explain are about one service; one --service is accepted there")
    topology = load_topology(arguments.topology)
    services = [wanted(file, arguments) for file in arguments.service]
    algorithms = {name: algorithm for name, _, algorithm in services}
    with support.progress() as step:
        step(f"placing {len(services)} services")
        requests = [(name, request) for name, request, _ in services]
        placements = several(topology, requests, algorithms, **_options(arguments))
    if arguments.json:
        print(json.dumps({"services": {name: found.to_json() for name, found in placements.items()}}, indent=2))
        return
    for name, placement in placements.items():
        notes = unknown_names(topology, dict(requests), name)
        print(f"{name}: {describe(topology, placement, notes)}")


def _options(arguments: argparse.Namespace) -> dict[str, Any]:
    return {"metric": arguments.metric, "seed": arguments.seed, "partial": arguments.partial}


def question(text: str) -> dict[str, Any]:
    """`without:NODE`, `double:A,B` or `k+1` as what_if() takes it; raises ArgumentTypeError."""
    kind, _, what = text.partition(":")
    more = text.removeprefix("k+")
    if kind == "without" and what:
        return {"without": what}
    if kind == "double" and what.count(",") == 1 and all(what.split(",")):
        one, other = what.split(",")
        return {"doubled": (one, other)}
    if more != text and more.isdecimal() and 0 < int(more) <= support.MAXIMUM_K:
        return {"more": int(more)}
    raise argparse.ArgumentTypeError(f"{text!r} is no change; without:NODE, double:A,B or k+1 is accepted")


def wanted(service: Path | None, arguments: argparse.Namespace) -> tuple[str, Request, str]:
    """The name, request and algorithm of a service file, with the arguments in place of what the file says."""
    from controller.placement import Request, algorithms

    k, algorithm, direction = arguments.k, arguments.algorithm, arguments.direction
    if service is None:
        return "", support.directed(Request(1 if k is None else k), direction), algorithm or algorithms()[0]
    from controller.repository import service_file
    from controller.repository.publication import Publication
    from gateway.protocol.messages import BlobRef

    file = service_file.load(service)
    # Placement looks at what the service asks for, never at its image, which need not be there.
    specification = file.specification(1, Publication(file.image, BlobRef(bytes(32), 0, bytes(32))))
    request = support.directed(Request.for_service(specification), direction)
    return file.name, request if k is None else replace(request, k=k), algorithm or specification.algorithm


def unknown_names(topology: Topology, requests: Mapping[str, Request], service: str) -> list[str]:
    """What a service names that is not there: nodes in `exclude`, and other services in `near` and `apart`."""
    asked, nodes = requests[service].constraints, set(topology.names)
    notes = []
    for what, names, known, where in (
        ("exclude", asked.exclude, nodes, "in this topology"),
        ("near", tuple(asked.near), requests, "among the given services"),
        ("apart", asked.apart, requests, "among the given services"),
    ):
        missing = [name for name in names if name not in known]
        notes += [f"{what} names what is not {where}: {some(missing)}"] if missing else []
    return notes


def describe(topology: Topology, placement: Placement, notes: Sequence[str] = ()) -> str:
    """A placement for people: the heads with their reasons and members, then who was refused and why, then notes."""
    mean = f"{placement.mean_bandwidth_mbps:.1f} Mbit/s on average from a head to its members"
    clusters = f"{placement.mean_of_cluster_means_mbps:.1f} on average over the clusters"
    of = f"{placement.k} of {len(topology)} nodes by {placement.metric} bandwidth"
    figures = "every node is a head" if placement.k == len(topology) else f"{mean}, {clusters}"
    lines = [f"{placement.algorithm} places {of}: {figures}"]
    lines.append(f"  {_outcome(placement)} ({', '.join(filter(None, (placement.method, _seconds(placement))))})")
    served: dict[str, list[str]] = {head.node: [] for head in placement.heads}
    for node, member in placement.members.items():
        served[member.head].append(node)
    for head in placement.heads:
        members = served[head.node]
        at = f"{len(members)} at {head.bandwidth_mbps:.1f} Mbit/s: {some(members)}" if members else "nobody"
        lines += [f"  {head.node}  {head.reason}", f"    serves {at}"]
    lines += _reasons("refused", placement.refused)
    lines += _reasons("target missed for", placement.violations)
    unreached = [node for node in placement.unreached if node not in placement.violations]
    if unreached:
        lines.append(f"  reached by no head: {some(unreached)}")
    if placement.standbys:
        lines.append(f"  stand-by: {', '.join(placement.standbys)}")
    lines += [f"  note: {note}" for note in (*topology.notes, *notes)]
    return "\n".join(lines)


def _reasons(what: str, nodes: Mapping[str, str]) -> list[str]:
    lines = [f"  {what} {node}: {reason}" for node, reason in list(nodes.items())[:SHOWN_REASONS]]
    more = len(nodes) - len(lines)
    return lines + ([f"  {what} {more} more nodes (--json has all)"] if more else [])


def _outcome(placement: Placement) -> str:
    return support.outcome(placement.proven, placement.gap)


def _seconds(placement: Placement) -> str:
    return f"{placement.seconds:.3f} s"


def some(names: Sequence[str]) -> str:
    """The first names, and how many more there are."""
    more = len(names) - SHOWN_MEMBERS
    return ", ".join(names[:SHOWN_MEMBERS]) + (f" and {more} more" if more > 0 else "")
