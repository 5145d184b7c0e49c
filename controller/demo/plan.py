"""What a demonstration network looks like, before any process starts: links, addresses, routes and every UCI file.

The controller's gateway is a house behind one outdoor router: it has one link, to the gateway with the fewest
neighbours, so that everything it sends crosses the mesh hop by hop.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from controller.placement import Topology, least_airtime, qmp_like
from controller.placement.network.topology import Floats, assemble

CONTROLLER = "controller"
NDN_PORT = 6363
PAGE_PORT = 8080
FIRST_SERVICE_PORT = 8101
LINKS_PER_NODE = 1.5  # multi-hop, as in a mesh of outdoor routers
SLOWEST_MBPS, FASTEST_MBPS = 2.0, 30.0  # slow enough to be measured within seconds on one machine
UPLINK_MBPS = 30.0
INTERVAL_S = 2
ROUNDING = 1e-9
MAXIMUM_GATEWAYS = 200


@dataclass(frozen=True, slots=True)
class Route:
    """A next hop of a node towards a name prefix; the lower cost is used first."""

    prefix: str
    neighbor: str
    cost: int


@dataclass(frozen=True, slots=True, eq=False)
class Plan:
    """The network of one run: `topology` has all gateways and the controller's, and the rate set for each direction."""

    network: str
    topology: Topology
    addresses: dict[str, str]
    directory: Path

    @property
    def gateways(self) -> tuple[str, ...]:
        return tuple(name for name in self.topology.names if name != CONTROLLER)

    def neighbors(self, node: str) -> tuple[str, ...]:
        matrix = self.topology.matrix()
        at = self.topology.index(node)
        return tuple(self.topology.names[other] for other in np.flatnonzero(matrix[at] + matrix[:, at]))

    def rate_mbps(self, source: str, destination: str) -> float:
        return float(self.topology.matrix()[self.topology.index(source), self.topology.index(destination)])

    def folder(self, node: str) -> Path:
        return self.directory / node

    def page(self, node: str) -> str:
        return f"http://{self.addresses[node]}:{PAGE_PORT}"


def make_plan(gateways: int, seed: int, network: str, subnet: str, directory: Path) -> Plan:
    """The plan of a run with so many gateways; `subnet` is the first three bytes of its loopback addresses."""
    topology = demo_topology(gateways, seed)
    addresses = {name: f"{subnet}.{10 + at}" for at, name in enumerate(topology.names)}
    return Plan(network, topology, addresses, directory)


def demo_topology(gateways: int, seed: int) -> Topology:
    """A community-like network whose links all work both ways, and the controller's house at its edge."""
    mesh = qmp_like(gateways, seed, one_way=0.0, links_per_node=LINKS_PER_NODE)
    pairs = zip(mesh.edges.tolist(), mesh.rates_mbps.tolist(), strict=True)
    rates = {(a, b): round(min(max(rate, SLOWEST_MBPS), FASTEST_MBPS), 1) for (a, b), rate in pairs}
    degree = np.bincount(mesh.edges[:, 0], minlength=gateways)
    edge = int(degree.argmin())
    rates[gateways, edge] = rates[edge, gateways] = UPLINK_MBPS
    latitude, longitude = mesh.coordinates[edge].tolist()
    return assemble(
        [*mesh.names, CONTROLLER],
        [*(tuple(place) for place in mesh.coordinates.tolist()), (round(latitude + 0.0002, 6), longitude)],
        rates,
        [*mesh.nodes, mesh.nodes[0]],
    )


def routes(plan: Plan, node: str) -> list[Route]:
    """The static routes of a node: to every other node and, as the default, to the controller's gateway.

    The primary takes the least airtime for the Data, which comes back the way the Interest went; the fallback is the
    next best neighbour that is nearer to the destination than to this node, so that no Interest is sent back.
    """
    found = []
    times, _ = least_airtime(plan.topology)
    for destination in plan.topology.names:
        if destination == node:
            continue
        hops = _next_hops(plan, times, node, destination)
        prefixes = [f"{plan.network}/node/{destination}"] + ([plan.network] if destination == CONTROLLER else [])
        found += [Route(prefix, hop, cost) for prefix in prefixes for hop, cost in hops]
    return found


def _next_hops(plan: Plan, times: Floats, node: str, destination: str) -> list[tuple[str, int]]:
    index = plan.topology.index
    here, there = index(node), index(destination)
    by_cost = sorted((times[there, index(hop)] + 1.0 / plan.rate_mbps(hop, node), hop) for hop in plan.neighbors(node))
    hops: list[tuple[str, int]] = []
    for cost, hop in by_cost:
        is_primary = not hops
        is_loop_free = times[there, index(hop)] < times[there, here] + times[here, index(hop)] - ROUNDING
        if is_primary or is_loop_free:
            hops.append((hop, math.ceil(1000 * cost) + len(hops)))
    return hops[:2]


def gateway_uci(plan: Plan, node: str, token: str) -> str:
    """The file /etc/config/picasso of a node."""
    folder, address = plan.folder(node), plan.addresses[node]
    latitude, longitude = plan.topology.coordinates[plan.topology.index(node)].tolist()
    lines = _section(
        "gateway",
        "gateway",
        network=plan.network,
        node=node,
        latitude=f"{latitude:.6f}",
        longitude=f"{longitude:.6f}",
        page=plan.page(node),
        state_dir=str(folder / "gateway"),
        run_dir=str(folder / "run"),
        token=token,
    )
    lines += _section("controller", "controller", interval=f"{INTERVAL_S}s")
    listen = [f"unix://{folder}/run/ndn.sock", f"tcp4://{address}:{NDN_PORT}"]
    lines += _section("forwarder", "forwarder", listen=listen, blob_dir=str(folder / "blobs"), discovery="0")
    for neighbor in plan.neighbors(node):
        uri = f"tcp4://{plan.addresses[neighbor]}:{NDN_PORT}"
        lines += _section(
            "neighbor", section_name(neighbor), uri=uri, rate=f"{plan.rate_mbps(node, neighbor) * 1000:.0f}K"
        )
    for route in routes(plan, node):
        lines += _section("route", "", prefix=route.prefix, neighbor=section_name(route.neighbor), cost=str(route.cost))
    lines += _section("monitor", "monitor", interval=f"{INTERVAL_S}s")
    runtime = "none" if node == CONTROLLER else "auto"
    lines += _section("executor", "executor", runtime=[runtime], address=address)
    return "\n".join(lines) + "\n"


def section_name(node: str) -> str:
    """The name of a neighbor's UCI section, which has no hyphen and is the only one of its name in the file."""
    return "to_" + node.replace("-", "_")


def _section(kind: str, name: str, **options: str | Sequence[str]) -> list[str]:
    """A UCI section; an empty option is left out, a list becomes `list` lines. No value here holds a quote."""
    lines = ["", f"config {kind} '{name}'" if name else f"config {kind}"]
    for option, value in options.items():
        if isinstance(value, str):
            lines += [f"\toption {option} '{value}'"] if value else []
        else:
            lines += [f"\tlist {option} '{each}'" for each in value]
    return lines
