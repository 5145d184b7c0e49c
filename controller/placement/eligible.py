"""Which nodes may be a head, and the constraint that refuses each of the others."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

from controller.placement.network.topology import NodeAttributes
from controller.placement.problem import Paths
from controller.placement.request import Request
from gateway.protocol.messages import Constraints
from gateway.units import binary_size

# What HANET asks of a head where the service does not say. Our own choice: the published thresholds were not at hand.
HANET_FREE_CPU_PERCENT = 25.0
HANET_FREE_MEMORY_BYTES = 64 << 20
HANET_AVAILABILITY = 0.9

ROUNDING = 1e-9  # ten times a tenth of a core is one core
# The reason that refuses a node, by its index; empty when none does.
Check = Callable[[int], str]


def with_hanet_thresholds(request: Request, nodes: Sequence[NodeAttributes]) -> Request:
    """The request with HANET's hardware tests on a head; a threshold that the service sets stays.

    A figure that no node tells (a map without hardware, the first hours of a network) is not tested unless asked for.
    """
    cpu, memory, availability = unknown(nodes)
    wanted = request.constraints
    free_bytes = max(HANET_FREE_MEMORY_BYTES, request.memory_bytes)
    tested = replace(
        wanted,
        minimum_free_cpu_percent=wanted.minimum_free_cpu_percent or (0.0 if cpu else HANET_FREE_CPU_PERCENT),
        minimum_free_memory_bytes=wanted.minimum_free_memory_bytes or (0 if memory else free_bytes),
        minimum_availability=wanted.minimum_availability or (0.0 if availability else HANET_AVAILABILITY),
    )
    return replace(request, constraints=tested)


def unknown(nodes: Sequence[NodeAttributes]) -> tuple[bool, bool, bool]:
    """Whether no node tells its free CPU, none its free memory, and none how often it is heard."""
    return (
        all(node.free_cpu_percent is None for node in nodes),
        all(node.free_memory_bytes is None for node in nodes),
        all(node.availability is None for node in nodes),
    )


def refusals(paths: Paths, request: Request) -> dict[str, str]:
    """The nodes that may not be a head, each with the first constraint that refuses it."""
    checks = list(_checks(paths, request))
    refused = {}
    for at, name in enumerate(paths.topology.names):
        reason = next((reason for check in checks if (reason := check(at))), "")
        if reason:
            refused[name] = reason
    return refused


def _checks(paths: Paths, request: Request) -> Iterator[Check]:
    """The checks that the request asks for, in the order in which they are told."""
    names, nodes, wanted = paths.topology.names, paths.topology.nodes, request.constraints
    if request.refusals:
        yield lambda at: request.refusals.get(names[at], "")
    if wanted.exclude:
        yield lambda at: "excluded by name" if names[at] in wanted.exclude else ""
    yield lambda at: _runtime(nodes[at], request.runtime)
    if wanted.zone or wanted.labels:
        yield lambda at: _place(nodes[at], wanted)
    if wanted.minimum_cpus or wanted.minimum_memory_bytes:
        yield lambda at: _hardware(nodes[at], wanted)
    if wanted.minimum_free_cpu_percent or wanted.minimum_free_memory_bytes or wanted.minimum_availability:
        yield lambda at: _measured(names[at], nodes[at], request)
    if request.cpu or request.memory_bytes:
        yield lambda at: _capacity(names[at], nodes[at], request)
    if (wanted.minimum_bandwidth_mbps or wanted.maximum_latency_ms) and len(paths) > 1:
        yield lambda at: "" if paths.best_counted[at] else f"serves no other node {_targets(wanted)}"


def _runtime(node: NodeAttributes, wanted: str) -> str:
    if node.runtimes is None:
        return ""
    if not node.runtimes:
        return "runs no services (it reports no runtime)"
    # The reduced sandbox of ordinary users unpacks and runs the same OCI images.
    accepted = {"any": node.runtimes, "oci": ("oci", "bubblewrap")}.get(wanted, (wanted,))
    if not set(accepted) & set(node.runtimes):
        return f"has no {wanted} runtime, only {', '.join(node.runtimes)}"
    return ""


def _place(node: NodeAttributes, wanted: Constraints) -> str:
    zone = wanted.zone
    if zone and node.zone != zone and not node.zone.startswith(zone + "/"):
        return f"is in zone {node.zone!r}, not in {zone!r}" if node.zone else f"is in no zone, {zone!r} is asked for"
    missing = [label for label in wanted.labels if label not in node.labels]
    return f"lacks the label {', '.join(missing)}" if missing else ""


def _hardware(node: NodeAttributes, wanted: Constraints) -> str:
    if wanted.minimum_cpus > node.cpus:
        return f"has {node.cpus or 'an unknown number of'} CPUs, {wanted.minimum_cpus} are asked for"
    if wanted.minimum_memory_bytes > node.memory_bytes:
        has = f"{binary_size(node.memory_bytes)} of" if node.memory_bytes else "an unknown amount of"
        return f"has {has} memory, {binary_size(wanted.minimum_memory_bytes)} are asked for"
    return ""


def _measured(name: str, node: NodeAttributes, request: Request) -> str:
    """What a head has free beside what it takes already; a figure that is not known does not pass."""
    wanted, is_head = request.constraints, name in request.current
    if wanted.minimum_free_cpu_percent:
        own = 100.0 * request.cpu / max(1, node.cpus) if is_head else 0.0
        free = node.free_cpu_percent
        if free is None or free + own < wanted.minimum_free_cpu_percent:
            has = "an unknown share" if free is None else f"{free + own:.4g} %"
            return f"has {has} of its CPU free, {wanted.minimum_free_cpu_percent:.4g} % are asked for"
    if wanted.minimum_free_memory_bytes:
        taken = request.memory_bytes if is_head else 0
        left = node.free_memory_bytes
        if left is None or left + taken < wanted.minimum_free_memory_bytes:
            has = "an unknown amount" if left is None else binary_size(left + taken)
            return f"has {has} of memory free, {binary_size(wanted.minimum_free_memory_bytes)} are asked for"
    if wanted.minimum_availability > (node.availability or 0.0):
        has = "an unknown share" if node.availability is None else f"{100 * node.availability:.4g} %"
        return f"was heard {has} of the time, {100 * wanted.minimum_availability:.4g} % are asked for"
    return ""


def _capacity(name: str, node: NodeAttributes, request: Request) -> str:
    """What the node has in all, less what other services take; an unknown amount is not held to be too little."""
    cpu, memory = request.reserved.get(name, (0.0, 0))
    if node.cpus and cpu + request.cpu > node.cpus + ROUNDING:
        return f"has {_left(node.cpus - cpu)} of its {node.cpus} CPUs left for it, it takes {request.cpu:g}"
    if node.memory_bytes and memory + request.memory_bytes > node.memory_bytes:
        left = binary_size(max(0, node.memory_bytes - memory))
        return f"has {left} of memory left for it, it takes {binary_size(request.memory_bytes)}"
    return ""


def _left(cpus: float) -> str:
    return f"{max(0.0, cpus):g}"


def _targets(wanted: Constraints) -> str:
    asked = [f"at {wanted.minimum_bandwidth_mbps:g} Mbit/s"] if wanted.minimum_bandwidth_mbps else []
    asked += [f"within {wanted.maximum_latency_ms:g} ms"] if wanted.maximum_latency_ms else []
    return " and ".join(asked) + (", which is asked for" if len(asked) == 1 else ", which are asked for")
