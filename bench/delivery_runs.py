"""One image to every gateway of a tree, three ways over the same links: our delivery, HTTP unicast, BitTorrent."""

from __future__ import annotations

import http.client
import os
import shutil
import signal
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from bench import fluid, torrent
from controller.placement import qmp_like
from tests.emulation import namespaces
from tests.emulation.gateways import stop_all
from tests.emulation.image import Image, layer, make
from tests.emulation.namespaces import ROOT, EmulationError
from tests.emulation.network import Direction, EmulatedNetwork, Traffic
from tests.emulation.running import Emulation
from tests.emulation.topology import Topology, delivery_parents, from_placement

# Of 200 seeds this one lies in the middle: the root has 3 of 16 links, their mean is 21.3 Mbit/s, and a perfect
# delivery takes 0.20 of the time of perfect unicast; half of the seeds lie between 0.13 and 0.32.
SEED, GATEWAYS, SLOWEST_MBPS = 35, 16, 4.0
LAYERS = 4
HTTP_PORT = 8000
POLL_S, SHOW_S = 0.05, 5.0
CHUNK_BYTES = 1 << 16
# How much longer than in a perfect world a transfer may take before it is given up.
PATIENCE, PATIENCE_S = 4.0, 120.0

Say = Callable[[str], None]


@dataclass(slots=True)
class Delivery:
    """How one way did: when each gateway had all of it (seconds), and what the kernel counted on each direction."""

    way: str
    seconds: dict[str, float] = field(default_factory=dict)
    traffic: dict[Direction, Traffic] = field(default_factory=dict)
    cpu_s: float = 0.0

    @property
    def mean_s(self) -> float:
        return statistics.mean(self.seconds.values())

    @property
    def bytes(self) -> int:
        """On all links, in both directions, headers and acknowledgements included."""
        return sum(each.bytes for each in self.traffic.values())


@dataclass(frozen=True, slots=True)
class Tree:
    """The network of the comparison: who gets the image from whom, and the rate of each link towards the leaves."""

    topology: Topology
    root: str
    parents: dict[str, str]
    mbps: dict[fluid.Edge, float]

    def fluid_s(self, size: int) -> tuple[float, float]:
        """The mean seconds of a perfect delivery and of perfect unicast."""
        both = fluid.delivery_s(self.parents, self.mbps, size), fluid.unicast_s(self.parents, self.mbps, size)
        return statistics.mean(both[0].values()), statistics.mean(both[1].values())

    def hops(self) -> int:
        """How many links the paths to all gateways have together: what unicast carries the image over."""
        return sum(map(len, fluid.paths(self.parents).values()))

    def slowest_s(self, size: int) -> float:
        return max(fluid.unicast_s(self.parents, self.mbps, size).values())


def qmp_tree(gateways: int = GATEWAYS, seed: int = SEED) -> Tree:
    """A spanning tree of a qmp-like network, no link below 4 Mbit/s; the root's gateway stands by the repository.

    The root is a node of its own, so that `gateways` nodes fetch.
    """
    topology = from_placement(qmp_like(gateways + 1, seed, one_way=0.0, links_per_node=0.0), SLOWEST_MBPS)
    root = topology.nodes[0]
    parents = delivery_parents(topology, root)
    edges = [(parent, child) for child, parent in parents.items()]
    return Tree(topology, root, parents, {edge: topology.link(*edge).rate_mbps(edge[0]) for edge in edges})


def image_of(megabytes: float, seed: int = 1) -> Image:
    """An image of so many MB (10⁶ bytes): a few layers of falling size, as images have them."""
    parts = [2**at for at in range(LAYERS)]
    return make([layer(int(megabytes * 1e6 * part / sum(parts)), seed + part) for part in parts])


class Watch:
    """Waits until every gateway has it, shows how far they are, and counts what the links carry meanwhile."""

    def __init__(self, network: EmulatedNetwork, way: str, say: Say, limit_s: float) -> None:
        self._network, self._say, self._limit_s = network, say, limit_s
        self.delivery = Delivery(way)
        self._before = network.traffic()

    def wait(self, started: float, nodes: Sequence[str], has: Callable[[str], bool], check: Callable[[], None]) -> None:
        """`started` is on time.monotonic's clock; raises EmulationError when it takes far too long."""
        shown, seconds = started, self.delivery.seconds
        while len(seconds) < len(nodes):
            for node in nodes:
                if node not in seconds and has(node):
                    seconds[node] = time.monotonic() - started
            now = time.monotonic()
            if now - started > self._limit_s:
                lacking = ", ".join(node for node in nodes if node not in seconds)
                raise EmulationError(f"{self.delivery.way}: not whole after {self._limit_s:.0f} s at {lacking}")
            if now - shown >= SHOW_S:
                shown = now
                self._say(f"{self.delivery.way}: {now - started:4.0f} s, {len(seconds)} of {len(nodes)} have it")
            check()
            time.sleep(POLL_S)
        self.finish()

    def finish(self) -> Delivery:
        after = self._network.traffic()
        self.delivery.traffic = {pair: after[pair] - self._before[pair] for pair in after}
        found = self.delivery
        if found.seconds:
            self._say(f"{found.way}: mean {found.mean_s:.1f} s, {found.bytes / 1e6:.1f} MB on all links")
        return found


def ours(emulation: Emulation, image: Image, limit_s: float, say: Say) -> Delivery:
    """By the gateways: a decision names them all, each fetches from its parent in the tree."""
    refs = emulation.add(image)
    wanted = [ref.sha256 for ref in refs]
    watch = Watch(emulation.network, "delivery tree", say, limit_s)
    before = cpu_s([gateway.pid for gateway in emulation.gateways.values()])
    started = emulation.deliver("bench", refs)
    nodes = list(emulation.parents)
    watch.wait(started, nodes, lambda node: emulation.gateways[node].holds(wanted), emulation.check)
    watch.delivery.cpu_s = cpu_s([gateway.pid for gateway in emulation.gateways.values()]) - before
    return watch.delivery


def cpu_s(pids: Sequence[int]) -> float:
    """User and system time of processes."""
    total = 0
    for pid in pids:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        total += int(fields[11]) + int(fields[12])
    return total / os.sysconf("SC_CLK_TCK")


def unicast(network: EmulatedNetwork, tree: Tree, file: Path, limit_s: float, say: Say) -> Delivery:
    """By HTTP from the root to each node, all at once: Python's threaded server, a TCP connection a node."""
    command = [sys.executable, "-m", "http.server", str(HTTP_PORT), "--bind", network.address(tree.root)]
    with _process([*network.inside(tree.root), *command, "--directory", str(file.parent)]):
        watch = Watch(network, "HTTP unicast", say, limit_s)
        address, size = network.address(tree.root), file.stat().st_size
        _wait_for_port(network, tree.root, HTTP_PORT)
        watch = Watch(network, "HTTP unicast", say, limit_s)
        downloads = {node: _Download(network, node, address, file.name, size) for node in tree.parents}
        started = time.monotonic()
        for download in downloads.values():
            download.start()

        def check() -> None:
            for download in downloads.values():
                download.check()

        watch.wait(started, list(downloads), lambda node: downloads[node].is_whole, check)
        for download in downloads.values():
            download.join()
    return watch.delivery


class _Download(threading.Thread):
    """A GET from inside a namespace, as curl would make it."""

    def __init__(self, network: EmulatedNetwork, node: str, host: str, path: str, size: int) -> None:
        super().__init__(name=f"download to {node}", daemon=True)
        self._namespace, self._host, self._path, self._size = network.namespace(node), host, path, size
        self.is_whole, self._problem = False, ""

    def run(self) -> None:
        try:
            namespaces.enter(self._namespace)
            connection = http.client.HTTPConnection(self._host, HTTP_PORT, timeout=300)
            connection.request("GET", f"/{self._path}")
            response, received = connection.getresponse(), 0
            while chunk := response.read(CHUNK_BYTES):
                received += len(chunk)
            connection.close()
            self.is_whole = received == self._size
            self._problem = "" if self.is_whole else f"{received} of {self._size} bytes"
        except (OSError, http.client.HTTPException, EmulationError) as error:
            self._problem = str(error) or type(error).__name__

    def check(self) -> None:
        if self._problem:
            raise EmulationError(f"{self.name}: {self._problem}")


def bittorrent(network: EmulatedNetwork, tree: Tree, file: Path, directory: Path, limit_s: float, say: Say) -> Delivery:
    """By aria2 on every node, one that seeds and a tracker on the root; whoever has it all goes on sending."""
    root = network.address(tree.root)
    meta = directory / "image.torrent"
    meta.write_bytes(torrent.describe(file, f"http://{root}:{torrent.TRACKER_PORT}/announce"))
    with torrent.Tracker(network.namespace(tree.root), root) as tracker:
        seeder = torrent.Peer(network, tree.root, meta, file.parent, is_seeder=True)
        peers = {node: torrent.Peer(network, node, meta, directory / node) for node in tree.parents}
        everyone = [seeder, *peers.values()]
        try:
            seeder.start()
            tracker.wait_for(1)
            watch = Watch(network, "BitTorrent", say, limit_s)
            started = time.monotonic()
            for peer in peers.values():
                peer.start()

            def check() -> None:
                for peer in everyone:
                    peer.check()

            watch.wait(started, list(peers), lambda node: peers[node].is_whole, check)
        finally:
            for peer in everyone:
                peer.stop()
    return watch.delivery


def compare(
    tree: Tree, image: Image, say: Say, ways: Sequence[str] = ("ours", "unicast", "bittorrent")
) -> dict[str, Delivery]:
    """Runs the ways one after the other over the same links."""
    limit_s = PATIENCE * tree.slowest_s(image.size) + PATIENCE_S
    found: dict[str, Delivery] = {}
    with Emulation(tree.topology, tree.root) as emulation:
        if "ours" in ways:
            say(f"{len(emulation.gateways)} gateways start and measure their links")
            emulation.start().settle()
            found["ours"] = ours(emulation, image, limit_s, say)
            emulation.repository.stop()
            stop_all(list(emulation.gateways.values()))
            for gateway in emulation.gateways.values():  # the scratch directory is in memory
                shutil.rmtree(gateway.blobs)
        folder = emulation.directory / "file"
        folder.mkdir()
        file = folder / "image.tar"
        file.write_bytes(b"".join(image.blobs))
        if "unicast" in ways:
            found["unicast"] = unicast(emulation.network, tree, file, limit_s, say)
        if "bittorrent" in ways:
            found["bittorrent"] = bittorrent(emulation.network, tree, file, emulation.directory, limit_s, say)
    return found


@contextmanager
def _process(command: Sequence[str]) -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        yield process
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()


def _wait_for_port(network: EmulatedNetwork, node: str, port: int, timeout_s: float = 20.0) -> None:
    deadline = time.monotonic() + timeout_s
    while not network.listens(node, port):
        if time.monotonic() > deadline:
            raise EmulationError(f"nothing listens on port {port} of {node} after {timeout_s:g} s")
        time.sleep(0.1)


def as_json(found: Mapping[str, Delivery]) -> dict[str, object]:
    """Everything that was measured, for tables and heat maps."""
    return {
        way: {
            "seconds": {node: round(seconds, 3) for node, seconds in delivery.seconds.items()},
            "mean_s": round(delivery.mean_s, 3),
            "bytes": delivery.bytes,
            "links": [[*pair, each.bytes, each.packets] for pair, each in delivery.traffic.items()],
            "cpu_s": round(delivery.cpu_s, 2),
        }
        for way, delivery in found.items()
    }
