"""A community network to play with on this machine: real gateways, slow links, a table that shows them; `make emulate`.

    python -m tests.emulation --topology qmp:12:1 --gateways 8 --image-mb 20

An image goes to every gateway by the delivery tree; links can be failed, recovered and made lossy. Needs root.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import select
import signal
import sys
import termios
import time
import tty
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

from rich.console import Console
from rich.live import Live

from gateway.protocol.messages import BlobRef
from tests.emulation import image, table, topology
from tests.emulation.gateways import EmulatedGateway
from tests.emulation.namespaces import EmulationError, require
from tests.emulation.network import Direction, Traffic
from tests.emulation.running import Emulation
from tests.emulation.table import Command, Frame, GatewayView
from tests.emulation.topology import Link, Topology

REFRESH_S = 1.0
LAYERS = 3
MINIMUM_WIDTH = 120


class Player:
    """What is shown and what is done to a running emulation."""

    def __init__(self, emulation: Emulation, megabytes: float) -> None:
        self._emulation, self._megabytes = emulation, megabytes
        self._links = emulation.network.topology.links
        self._loss = dict.fromkeys(self._links, 0.0) | {link: link.loss for link in self._links}
        self._wanted: list[BlobRef] = []
        self._deliveries = 0
        self._started = time.monotonic()
        self._pool = ThreadPoolExecutor(4, "views")
        self._zero = emulation.network.traffic()
        self._last: tuple[float, dict[Direction, Traffic]] = (self._started, self._zero)
        self.message = ""

    def deliver(self) -> None:
        """Sends a new image to every gateway."""
        self._deliveries += 1
        each = int(self._megabytes * 1e6 / LAYERS)
        made = image.make([image.layer(each, 10 * self._deliveries + at) for at in range(LAYERS)])
        self._wanted = self._emulation.add(made)
        self._emulation.deliver(f"image-{self._deliveries}", self._wanted)
        self.message = f"image {self._deliveries} of {made.size / 1e6:.1f} MB is on its way"

    def do(self, command: Command) -> None:
        """Carries a command out."""
        network = self._emulation.network
        if command.verb == "deliver":
            self.deliver()
            return
        link = self._links[command.link]
        if command.verb == "fail":
            network.fail(link, reroute=True)
        elif command.verb == "recover":
            network.recover(link)
        else:
            network.set_loss(link, command.share)
            self._loss[link] = command.share
        self.message = f"{command.verb} {link.a} - {link.b}"

    def frame(self, typed: str = "") -> Frame:
        """What there is to see now."""
        network, now = self._emulation.network, time.monotonic()
        traffic, (then, before) = network.traffic(), self._last
        use = {pair: (traffic[pair] - before[pair]).bytes * 8e-6 / max(0.1, now - then) for pair in traffic}
        self._last = now, traffic
        return Frame(
            self._links,
            {link: network.is_up(link) for link in self._links},
            self._loss,
            {pair: traffic[pair] - self._zero[pair] for pair in traffic},
            use,
            list(self._pool.map(self._view, self._emulation.gateways.values())),
            now - self._started,
            self.message,
            typed,
        )

    def _view(self, gateway: EmulatedGateway) -> GatewayView:
        parent = self._emulation.parents.get(gateway.node, "")
        size = sum(ref.size for ref in self._wanted)
        held = sum(gateway.held_bytes(ref.sha256, ref.size) for ref in self._wanted)
        progress = 1.0 if gateway.node == self._emulation.root else held / size if size else 0.0
        try:
            cache, wants, faces = (gateway.ask(dataset) for dataset in ("cache", "wants", "faces"))
        except (ConnectionError, RuntimeError):
            return GatewayView(gateway.node, parent, progress, is_silent=True)
        blobs = len(cache["disk"]["blobs"]) if cache["disk"] else 0
        links = sum(face["up"] and not face["local"] for face in faces)
        memory = cache["memory"]["bytes"] / 1e6
        return GatewayView(
            gateway.node, parent, progress, blobs, memory, cache["hits"], cache["misses"], len(wants), links
        )

    def close(self) -> None:
        self._pool.shutdown()


class Keys:
    """What is typed, line by line, from a terminal or a pipe; never waits."""

    def __init__(self) -> None:
        self.typed, self._is_open = "", True

    @contextlib.contextmanager
    def listening(self) -> Iterator[None]:
        """Letters come as they are typed; the terminal is put back as it was."""
        if not sys.stdin.isatty():
            yield
            return
        before = termios.tcgetattr(sys.stdin)
        try:
            tty.setcbreak(sys.stdin)
            yield
        finally:
            termios.tcsetattr(sys.stdin, termios.TCSADRAIN, before)

    def lines(self, wait_s: float) -> list[str]:
        """The lines that are complete after so many seconds; `typed` keeps the rest."""
        if not self._is_open:
            time.sleep(wait_s)
            return []
        readable, _, _ = select.select([sys.stdin], [], [], wait_s)
        if not readable:
            return []
        content = os.read(sys.stdin.fileno(), 4096).decode(errors="replace")
        self._is_open = bool(content)
        for letter in content:
            self.typed = self.typed[:-1] if letter in "\x7f\b" else self.typed + letter
        *found, self.typed = self.typed.split("\n")
        return [line for line in found if line.strip()]


def play(emulation: Emulation, megabytes: float, seconds: float | None, console: Console) -> None:
    """Shows the emulation and does what is typed until `quit`, Ctrl-C or the end of the time."""
    player, keys = Player(emulation, megabytes), Keys()
    player.deliver()
    ends = time.monotonic() + seconds if seconds is not None else float("inf")
    try:
        with keys.listening(), Live(console=console, auto_refresh=False) as live:
            shown = 0.0
            while time.monotonic() < ends:
                if time.monotonic() - shown >= REFRESH_S:
                    shown = time.monotonic()
                    live.update(table.render(player.frame(keys.typed)), refresh=True)
                    emulation.check()
                for line in keys.lines(0.1):
                    try:
                        command = table.parse(line, len(emulation.network.topology.links))
                    except ValueError as error:
                        player.message = str(error)
                        continue
                    if command.verb == "quit":
                        return
                    player.do(command)
            live.update(table.render(player.frame()), refresh=True)
    finally:
        player.close()


def describe(found: Topology, links: Sequence[Link]) -> str:
    return f"{len(found.nodes)} nodes, {len(found.gateways)} of them gateways, {len(links)} links"


def main() -> int:
    options = _parser().parse_args()
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda *_: sys.exit(143))  # by way of every `finally`, so that nothing stays
    try:
        require()
        found = topology.read(options.topology, options.gateways)
    except (EmulationError, ValueError) as error:
        print(f"emulate: {error}", file=sys.stderr)
        return 2
    console = Console()
    if not console.is_terminal:
        console = Console(width=max(MINIMUM_WIDTH, console.width))
    console.print(f"{describe(found, found.links)}; the gateways start …")
    try:
        with Emulation(found, found.gateways[0]) as emulation:
            emulation.start()
            play(emulation, options.image_mb, options.seconds, console)
    except EmulationError as error:
        print(f"emulate: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        console.print("ended; everything is removed")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="make emulate", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--topology", default="qmp:8:1", metavar="T", help="qmp:N:SEED or a NetJSON file (qmp:8:1)")
    parser.add_argument("--gateways", type=int, metavar="N", help="so many of the nodes are gateways (all)")
    parser.add_argument("--image-mb", type=float, default=10.0, metavar="MB", help="size of the image (10)")
    parser.add_argument("--seconds", type=float, metavar="S", help="end after so long (never)")
    return parser


if __name__ == "__main__":
    sys.exit(main())
