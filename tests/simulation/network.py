"""The simulator: N real forwarders in one process on one virtual clock, joined by links. See README.md."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
import random
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from unittest import mock

from gateway.protocol import keys, names
from gateway.protocol.messages import BlobRef
from tests.simulation.link import Link, LinkFace
from tests.simulation.loop import VirtualLoop
from tests.simulation.node import App, Node
from tests.simulation.routing import learn_routes
from tests.simulation.trace import Trace

# What the wall clock says when a simulation begins.
UNIX_0 = 1_800_000_000.0

__all__ = ["UNIX_0", "App", "Link", "LinkFace", "Network", "Node", "data", "simulation"]


def data(uri: str, content: bytes = b"", freshness_ms: int | None = None) -> bytes:
    """A Data packet with a digest signature."""
    return keys.sign_data(names.parse(uri), content, freshness_ms)


class TookTooLong(AssertionError):
    """What was waited for did not happen; the text has the last packets."""


class Network:
    """Nodes, links, and the clock. Chance comes from `seed` alone.

    `directory` has a disk for every node that gets none of its own. Pure forwarders and Apps need nothing else; who
    uses endpoints, consumers and coroutines takes `simulation()`, where the clock is the running event loop.
    """

    def __init__(self, seed: int = 1, directory: Path | None = None, keeps_sent: bool = True) -> None:
        self.seed, self.directory, self.keeps_sent = seed, directory, keeps_sent
        self.names = names.Network("/net")
        self.loop = VirtualLoop()
        self.random = random.Random(seed)
        self.nodes: dict[str, Node] = {}
        self.links: dict[str, Link] = {}
        self.fingerprint = 0
        self.trace = Trace(self.loop.time)
        # What to do when a link comes up, and the time in which a routing daemon notices a change; None for none.
        self.on_contact: Callable[[Node, LinkFace], None] = lambda node, face: None
        self.convergence_s: float | None = None
        self.numbers = itertools.count()

    # --- building

    def node(self, name: str, has_disk: bool = False, **options: Any) -> Node:
        """With `has_disk` it has a directory of its own below the network's."""
        if has_disk and self.directory is not None:
            options["directory"] = self.directory / name
            options["directory"].mkdir()
        self.nodes[name] = Node(self, name, **options)
        return self.nodes[name]

    def link(self, a: str, b: str, delay_s: float = 0.01, loss: float = 0.0, **options: Any) -> Link:
        """Link's options; `rate_mbps` may be a pair, a to b first."""
        link = Link(self, self.nodes[a], self.nodes[b], delay_s, loss, **options)
        self.links[link.name] = link
        return link

    def build(self, drawing: str, has_disks: bool = False, cache_bytes: int = 1 << 20, **link: Any) -> None:
        """Nodes and links from `a-b-c  b-d`: every chain of names is joined by links of one kind."""
        for chain in drawing.split():
            ends = chain.split("-")
            for name in ends:
                if name not in self.nodes:
                    self.node(name, has_disk=has_disks, cache_bytes=cache_bytes)
            for a, b in itertools.pairwise(ends):
                self.link(a, b, **link)

    def between(self, a: str, b: str) -> Link:
        return self.nodes[a].to[b].link

    def publish(self, holder: str, size: int, seed: int = 7) -> BlobRef:
        """A blob of random bytes in a node's store."""
        return self.nodes[holder].store.add_bytes(random.Random(seed).randbytes(size))

    def learn_routes(self, targets: list[str] | None = None, spare: int = 0) -> None:
        """Gives every node routes to the node names, as a mesh's routing protocol would; see routing.learn_routes."""
        self._targets, self._spare = targets, spare
        learn_routes(self, targets, spare)

    def on_topology_change(self) -> None:
        """With `convergence_s` the routes follow, so much later."""
        if self.convergence_s is not None:
            self.at(self.now + self.convergence_s, lambda: learn_routes(self, self._targets, self._spare))

    # --- time

    @property
    def now(self) -> float:
        return self.loop.now

    @now.setter
    def now(self, when: float) -> None:
        self.loop.now = when

    def at(self, when: float, action: Callable[..., object], *args: Any) -> None:
        self.loop.at(when, action, *args)

    def run(self, seconds: float = 5.0) -> None:
        """Lets time pass; events and the forwarders' timers happen in order."""
        for node in self.nodes.values():
            if node.is_on:
                node.arm()
        self.loop.run_until(self.now + seconds)

    def wait(self, *tasks: asyncio.Task[Any], limit_s: float = 600.0) -> float:
        """Runs until all are done, and tells how long it took; raises what they raised, or TookTooLong."""
        begin, left = self.now, {task for task in tasks if not task.done()}

        def done(task: asyncio.Task[Any]) -> None:
            left.discard(task)
            if not left:
                self.loop.stop()

        for task in left:
            task.add_done_callback(done)
        if left:
            self.run(limit_s)
        if left:
            raise TookTooLong(f"{len(left)} of {len(tasks)} not done after {limit_s:g} s\n{self.report()}")
        for task in tasks:
            task.result()
        return self.now - begin

    # --- looking

    def note(self, who: str, what: str) -> None:
        self.trace.note(who, what)
        if what.startswith(("fails", "recovers", "carries")):
            self.on_topology_change()

    @property
    def bytes(self) -> int:
        """On all links, in both directions."""
        return sum(link.bytes for link in self.links.values())

    def table(self, rows_max: int = 60) -> str:
        """The directions that carried or lost something, the busiest if there are many."""
        rows = [f"{'direction':<17}{'kB':>9}{'packets':>9}{'lost':>6}{'full':>6}{'cut':>6}{'marks':>6}{'peak kB':>9}"]
        used = [d for link in self.links.values() for d in (link.there, link.back) if d.packets or d.drops]
        busiest = set(sorted(used, key=lambda d: d.bytes, reverse=True)[:rows_max])
        rows += [
            f"{d.name:<17}{d.bytes / 1000:9.1f}{d.packets:9}{d.lost:6}{d.overflowed:6}{d.cut:6}{d.marked:6}"
            f"{d.peak_bytes / 1000:9.1f}"
            for d in used
            if d in busiest
        ]
        if len(used) > rows_max:
            rows.append(f"… and {len(used) - rows_max} more")
        return "\n".join(rows)

    def report(self, last: int = 40) -> str:
        """The table and the end of the trace."""
        return "\n".join([f"at {self.now:.4f} s", self.table(), *self.trace.lines(last)])


@contextlib.contextmanager
def simulation(directory: Path | None = None, seed: int = 1) -> Iterator[Network]:
    """A network on whose clock coroutines run; the product's random numbers and wall clock are the simulation's too."""
    network = Network(seed, directory, keeps_sent=False)
    chance = random.Random(f"product {seed}")

    class Seeded(random.Random):
        """random.Random() takes its seed from the run's."""

        def __init__(self, seed: Any = None) -> None:
            super().__init__(chance.getrandbits(64) if seed is None else seed)

    state = random.getstate()
    random.seed(seed)
    try:
        with (
            mock.patch.object(os, "urandom", chance.randbytes),
            mock.patch.object(random, "Random", Seeded),
            mock.patch.object(time, "time", lambda: UNIX_0 + network.now),
            mock.patch.object(time, "time_ns", lambda: int((UNIX_0 + network.now) * 1e9)),
            network.loop,
        ):
            yield network
    finally:
        random.setstate(state)
        for node in network.nodes.values():
            node.close()
