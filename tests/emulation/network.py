"""An emulated network of the kernel's own parts: a namespace a node, a veth pair a link, tbf rates, nftables loss."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

from tests.emulation import namespaces
from tests.emulation.namespaces import Guard, Inside, batch, command
from tests.emulation.topology import Link, Topology, next_hops

# What waits in front of a link: a tenth of a second, and never less than a few packets.
QUEUE_S, QUEUE_MIN_BYTES = 0.1, 32_000
# What may pass at once after a pause: the timer of a busy machine is late by a millisecond or two.
BURST_S, BURST_MIN_BYTES = 0.005, 6_000
_SETTINGS = {
    # A neighbour is asked for by the link's own address: who has no route back to any other can answer that.
    "net/ipv4/conf/all/arp_announce": "2",
    "net/ipv4/ip_forward": "1",
    "net/ipv4/conf/all/rp_filter": "0",
    "net/ipv4/conf/default/rp_filter": "0",
    "net/ipv6/conf/all/forwarding": "1",
    "net/ipv6/conf/default/accept_dad": "0",
    "net/ipv6/conf/default/router_solicitations": "0",
}

Direction = tuple[str, str]


@dataclass(frozen=True, slots=True)
class Traffic:
    """What the kernel has counted on one direction of a link, Ethernet headers included."""

    bytes: int
    packets: int

    def __sub__(self, other: Traffic) -> Traffic:
        return Traffic(self.bytes - other.bytes, self.packets - other.packets)


class EmulatedNetwork:
    """The namespaces and links of a topology, and the kernel's routes between all of its nodes.

    A context manager: nothing is left at its end, nor when the process dies. `directory` is removed as well. Raises
    EmulationError.
    """

    def __init__(self, topology: Topology, directory: Path | None = None) -> None:
        namespaces.require()
        self.topology = topology
        self._number = {node: at for at, node in enumerate(topology.nodes)}
        self._index = {link.ends: at for at, link in enumerate(topology.links)}
        self._routes: dict[Direction, str] = {}
        self._down: set[Link] = set()
        self._lock = threading.Lock()
        self._inside = Inside()
        namespaces.remove(namespaces.leftovers())
        self._guard = Guard(directory)
        try:
            self._make()
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> EmulatedNetwork:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Ends every process inside and removes everything; may be called twice."""
        self._inside.close()
        self._guard.close()

    # --- names

    def namespace(self, node: str) -> str:
        return f"{namespaces.MARK}.{namespaces.owner()}.{node}"

    def address(self, node: str) -> str:
        """The address of a node, reached from everywhere in the network."""
        return f"10.64.{self._number[node] // 250}.{1 + self._number[node] % 250}"

    def interface(self, node: str, neighbor: str) -> str:
        """The name of a node's interface on its link to a neighbour."""
        return f"l{self._index[self.topology.link(node, neighbor).ends]}"

    def inside(self, node: str) -> list[str]:
        """What to put before a command that is to run on a node."""
        return ["ip", "netns", "exec", self.namespace(node)]

    # --- making

    def _make(self) -> None:
        batch("ip", (f"netns add {self.namespace(node)}" for node in self.topology.nodes))
        for node in self.topology.nodes:
            self._inside.run(self.namespace(node), _apply_settings)
        batch("ip", (self._pair(link) for link in self.topology.links))
        for node in self.topology.nodes:
            batch("ip", self._interfaces(node), self.namespace(node))
            batch("tc", (self._shaper(node, other) for other in self.topology.neighbors(node)), self.namespace(node))
        self.route()
        for link in self.topology.links:
            if link.loss:
                self.set_loss(link, link.loss)

    def _pair(self, link: Link) -> str:
        name = f"l{self._index[link.ends]}"
        one, other = self.namespace(link.a), self.namespace(link.b)
        # With one number at both ends the kernel takes them for one device, and tells of the carrier a second late.
        number = 2 * self._index[link.ends] + 2
        first, second = f"index {number} name {name} netns {one}", f"index {number + 1} name {name} netns {other}"
        return f"link add {first} type veth peer {second}"

    def _interfaces(self, node: str) -> list[str]:
        lines = [f"address add {self.address(node)}/32 dev lo", "link set lo up"]
        for other in self.topology.neighbors(node):
            name = self.interface(node, other)
            # One packet a frame, as on a radio: with larger ones the counters would miss most headers.
            lines += [
                f"link set {name} gso_max_segs 1",
                f"address add {self._link_address(node, other)}/31 dev {name}",
                f"link set {name} up",
            ]
        return lines

    def _link_address(self, node: str, neighbor: str) -> str:
        link = self.topology.link(node, neighbor)
        number = 2 * self._index[link.ends] + (node == link.b)
        return f"10.128.{number // 250}.{number % 250}"

    def _shaper(self, node: str, neighbor: str, verb: str = "add") -> str:
        mbps = self.topology.link(node, neighbor).rate_mbps(node)
        burst, queue = _burst_bytes(mbps), max(QUEUE_MIN_BYTES, int(mbps * 1e6 / 8 * QUEUE_S))
        name = self.interface(node, neighbor)
        return f"qdisc {verb} dev {name} root tbf rate {mbps * 1000:.0f}kbit burst {burst} limit {queue}"

    # --- routes

    def route(self) -> None:
        """Sets the kernel's routes to those over the links that are up, as a mesh's routing daemon does."""
        for node, lines in self._new_routes().items():
            batch("ip", lines, self.namespace(node))

    def _new_routes(self) -> dict[str, list[str]]:
        """For each node the commands that bring its routes up to date, from now on taken for done."""
        wanted = next_hops(self.topology, self._down)
        changes: dict[str, list[str]] = {}
        for (node, destination), hop in wanted.items():
            if self._routes.get((node, destination)) != hop:
                changes.setdefault(node, []).append(self._route_line(node, destination, hop))
        for node, destination in self._routes.keys() - wanted.keys():
            changes.setdefault(node, []).append(f"route flush to exact {self.address(destination)}/32")
        self._routes = wanted
        return changes

    def _route_line(self, node: str, destination: str, hop: str) -> str:
        via, name = self._link_address(hop, node), self.interface(node, hop)
        return f"route replace {self.address(destination)}/32 via {via} dev {name} src {self.address(node)}"

    # --- links

    def fail(self, link: Link, reroute: bool = False) -> None:
        """Takes a link down at both ends; `reroute` finds other ways at once, else its routes are just gone."""
        with self._lock:
            if link in self._down:
                return
            self._down.add(link)
            for node in link.ends:
                batch("ip", [f"link set l{self._index[link.ends]} down"], self.namespace(node))
            for node in link.ends:  # the kernel has dropped them by itself
                other = link.b if node == link.a else link.a
                self._routes = {at: hop for at, hop in self._routes.items() if at[0] != node or hop != other}
            if reroute:
                self.route()

    def recover(self, link: Link) -> None:
        """Brings a link up again, and the routes over it."""
        with self._lock:
            if link not in self._down:
                return
            self._down.discard(link)
            changes = self._new_routes()
            # With its routes in one go: the link carries from the moment in which the second end is up.
            for node in link.ends:
                lines = [f"link set l{self._index[link.ends]} up", *changes.pop(node, [])]
                batch("ip", lines, self.namespace(node))
            for node, lines in changes.items():
                batch("ip", lines, self.namespace(node))

    def is_up(self, link: Link) -> bool:
        return link not in self._down

    def set_loss(self, link: Link, share: float) -> None:
        """Drops this share of what arrives over a link, at both ends; 1 is a link that is silent without being down."""
        for node in link.ends:
            name = f"l{self._index[link.ends]}"
            table, which = f"inet loss_{name}", "" if share == 1 else f"numgen random mod 10000 < {share * 10_000:.0f} "
            lines = [f"add table {table}", f"delete table {table}"]
            if share:
                lines += [
                    f"add table {table}",
                    f"add chain {table} arriving {{ type filter hook prerouting priority -300; }}",
                    f"add rule {table} arriving iifname {name} {which}drop",
                ]
            command(*self.inside(node), "nft", "-f", "-", text="\n".join(lines) + "\n")

    # --- counters

    def traffic(self) -> dict[Direction, Traffic]:
        """(sender, receiver) -> what the sender's kernel has counted as sent over the link between them."""
        found = {}
        for node in self.topology.nodes:
            counted = self._inside.run(self.namespace(node), _read_counters)
            for other in self.topology.neighbors(node):
                found[node, other] = counted[self.interface(node, other)]
        return found

    def listens(self, node: str, port: int) -> bool:
        """Whether a process on the node listens on a TCP port."""
        return self._inside.run(self.namespace(node), lambda: _listens(port))


class Schedule:
    """Takes links up and down at given times, on a thread of its own.

    `steps` are (seconds since start, link, whether it is up from then on); every link is brought down first unless
    its first step says otherwise. `started` is on time.monotonic's clock.
    """

    def __init__(self, network: EmulatedNetwork, steps: Iterable[tuple[float, Link, bool]]) -> None:
        self._network, self._steps = network, sorted(steps, key=lambda step: step[0])
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="schedule")
        self.started = 0.0
        self.done: list[tuple[float, Link, bool]] = []

    def start(self) -> Schedule:
        self.started = time.monotonic()
        self._thread.start()
        return self

    def stop(self) -> None:
        self._stopping.set()
        self._thread.join()

    def _run(self) -> None:
        for at, link, is_up in self._steps:
            if self._stopping.wait(max(0.0, self.started + at - time.monotonic())):
                return
            if is_up:
                self._network.recover(link)
            else:
                self._network.fail(link)
            self.done.append((time.monotonic() - self.started, link, is_up))


def contacts(link: Link, starts: Sequence[float], seconds: float) -> list[tuple[float, Link, bool]]:
    """The steps of a Schedule for a link that is up for so many seconds from each of these times on."""
    return [step for start in starts for step in ((start, link, True), (start + seconds, link, False))]


def _burst_bytes(mbps: float) -> int:
    return max(BURST_MIN_BYTES, int(mbps * 1e6 / 8 * BURST_S))


def _apply_settings() -> None:
    for name, value in _SETTINGS.items():
        # /proc/sys/net is that of the thread that opens it.
        (Path("/proc/sys") / name).write_text(value)


def _listens(port: int) -> bool:
    rows = Path("/proc/thread-self/net/tcp").read_text().splitlines()[1:]
    return any(row.split()[1].endswith(f":{port:04X}") and row.split()[3] == "0A" for row in rows)


def _read_counters() -> dict[str, Traffic]:
    found = {}
    for line in Path("/proc/thread-self/net/dev").read_text().splitlines()[2:]:
        name, _, rest = line.partition(":")
        fields = rest.split()
        found[name.strip()] = Traffic(int(fields[8]), int(fields[9]))
    return found
