"""Which nodes may be a head, and the constraint that refuses each of the others."""

from __future__ import annotations

from controller.placement.request import Request
from controller.placement.topology import Floats, NodeAttributes, Topology
from gateway.units import binary_size


def refusals(topology: Topology, request: Request, bandwidth: Floats) -> dict[str, str]:
    """The nodes that may not be a head, each with the first constraint that refuses it."""
    refused = {}
    for at, (name, node) in enumerate(zip(topology.names, topology.nodes, strict=True)):
        reason = (
            request.refusals.get(name)
            or _excluded(name, request)
            or _runtime(node, request.runtime)
            or _place(node, request)
            or _hardware(node, request)
            or _bandwidth(at, bandwidth, request)
        )
        if reason:
            refused[name] = reason
    return refused


def _excluded(name: str, request: Request) -> str:
    return "excluded by name" if name in request.constraints.exclude else ""


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


def _place(node: NodeAttributes, request: Request) -> str:
    zone = request.constraints.zone
    if zone and node.zone != zone and not node.zone.startswith(zone + "/"):
        return f"is in zone {node.zone!r}, not in {zone!r}" if node.zone else f"is in no zone, {zone!r} is asked for"
    missing = [label for label in request.constraints.labels if label not in node.labels]
    return f"lacks the label {', '.join(missing)}" if missing else ""


def _hardware(node: NodeAttributes, request: Request) -> str:
    wanted = request.constraints
    if wanted.minimum_cpus > node.cpus:
        return f"has {node.cpus or 'an unknown number of'} CPUs, {wanted.minimum_cpus} are asked for"
    if wanted.minimum_memory_bytes > node.memory_bytes:
        has = f"{binary_size(node.memory_bytes)} of" if node.memory_bytes else "an unknown amount of"
        return f"has {has} memory, {binary_size(wanted.minimum_memory_bytes)} are asked for"
    return ""


def _bandwidth(at: int, bandwidth: Floats, request: Request) -> str:
    """A head's minimum bandwidth is the mean of its paths to all other nodes, an unreachable one counting 0."""
    minimum = request.constraints.minimum_bandwidth_mbps
    if minimum <= 0 or len(bandwidth) < 2:
        return ""
    mean = float(bandwidth[at].sum()) / (len(bandwidth) - 1)
    if mean < minimum:
        return f"reaches the other nodes at {mean:.1f} Mbit/s on average, {minimum:.1f} are asked for"
    return ""
