"""Links: each direction has a rate, a queue, a delay, loss and a switch of its own, and counts what it carries.

    sender's face ─► queue (control ahead of bulk, so many bytes) ─► rate ─► loss ─► delay ─► receiver's face

A packet occupies the link for its bytes at the link's rate. Without a rate there is no queue, and packets that were
sent together arrive together.
"""

from __future__ import annotations

import zlib
from collections import deque
from collections.abc import Sequence
from typing import TYPE_CHECKING

from gateway.forwarder.content_store import BULK_BYTES
from gateway.forwarder.faces.base import Face
from gateway.forwarder.faces.link import CongestionMarker, with_mark

if TYPE_CHECKING:
    from tests.simulation.network import Network
    from tests.simulation.node import Node

# As a gateway's face with a rate has it: a quarter of a second, and room that only control packets may take.
QUEUE_S = 0.25
QUEUE_MIN_BYTES = 64 * 1024
CONTROL_ROOM_BYTES = 32 * 1024
# So much of a packet goes into the fingerprint of a run: its header and its name.
_HEAD_BYTES = 160


class Direction:
    """One way of a link; `bytes` and `packets` left the sender, whether or not they arrived."""

    def __init__(
        self,
        network: Network,
        name: str,
        delay_s: float,
        loss: float,
        rate_mbps: float | None,
        queue_bytes: int | None,
        has_marks: bool,
    ) -> None:
        self.network, self.name = network, name
        self.delay_s, self.loss, self.is_up = delay_s, loss, True
        self.has_marks = has_marks
        self._fixed_queue_bytes = queue_bytes
        self._control: deque[bytes] = deque()
        self._bulk: deque[bytes] = deque()
        self.queued_bytes = self.peak_bytes = 0
        self.bytes = self.packets = self.bulk_bytes = 0
        self.lost = self.overflowed = self.cut = self.marked = 0
        self.busy_s = 0.0
        self._free_at = 0.0
        self._is_serving = False
        self._era = 0  # what was under way when the link failed belongs to an earlier one
        self._number = next(network.numbers)
        self.receiver: LinkFace
        self.set_rate(rate_mbps)

    def set_rate(self, rate_mbps: float | None) -> None:
        """From the next packet on."""
        self.rate_mbps = rate_mbps
        self._bytes_s = rate_mbps * 125_000 if rate_mbps is not None else None
        if self._bytes_s is None:
            return
        self.queue_bytes = self._fixed_queue_bytes or int(max(QUEUE_MIN_BYTES, self._bytes_s * QUEUE_S))
        self._marker = CongestionMarker(int(self._bytes_s * 8)) if self.has_marks else None

    @property
    def drops(self) -> int:
        """Everything that was handed over and did not arrive."""
        return self.lost + self.overflowed + self.cut

    def fail(self) -> None:
        """What waits and what is under way is lost."""
        self.is_up = False
        self._era += 1
        self.cut += len(self._control) + len(self._bulk)
        self._control.clear()
        self._bulk.clear()
        self.queued_bytes = 0
        self._is_serving = False
        self._free_at = self.network.loop.now

    def recover(self) -> None:
        self.is_up = True

    def send(self, wire: bytes, bulk: bool) -> None:
        if not self.is_up:
            self.cut += 1
            self.network.trace.add(self.name, "cut", wire)
            return
        if self._bytes_s is None:
            self._send_at_once((wire,))
            return
        now = self.network.loop.now
        if not self._is_serving and self._free_at <= now:
            self._serve_one(wire, bulk, now)
            return
        if self.queued_bytes + len(wire) > self.queue_bytes + (0 if bulk else CONTROL_ROOM_BYTES):
            self.overflowed += 1
            self.network.trace.add(self.name, "queue full", wire)
            return
        if self._marker is not None and self._marker.should_mark(self.queued_bytes, now):
            self.marked += 1
            wire = with_mark(wire)
        (self._bulk if bulk else self._control).append(wire)
        self.queued_bytes += len(wire)
        self.peak_bytes = max(self.peak_bytes, self.queued_bytes)
        if not self._is_serving:
            self._is_serving = True
            self.network.loop.at(self._free_at, self._serve, self._era)

    def send_batch(self, wires: Sequence[bytes]) -> None:
        """Packets that leave together where the link has no rate."""
        if self.is_up and self._bytes_s is None:
            self._send_at_once(wires)
            return
        for wire in wires:
            self.send(wire, len(wire) >= BULK_BYTES)

    def _send_at_once(self, wires: Sequence[bytes]) -> None:
        arriving = [wire for wire in wires if self._leaves(wire, len(wire) >= BULK_BYTES)]
        if arriving:
            loop = self.network.loop
            loop.at(loop.now + self.delay_s, self._arrive, self._era, arriving)

    def _serve(self, era: int) -> None:
        """The link is free, and somebody waits."""
        if era != self._era:
            return
        queue = self._control or self._bulk
        wire = queue.popleft()
        self.queued_bytes -= len(wire)
        self._serve_one(wire, queue is self._bulk, self.network.loop.now)
        self._is_serving = self.queued_bytes > 0
        if self._is_serving:
            self.network.loop.at(self._free_at, self._serve, era)

    def _serve_one(self, wire: bytes, bulk: bool, now: float) -> None:
        assert self._bytes_s is not None
        time_s = len(wire) / self._bytes_s
        self._free_at = now + time_s
        self.busy_s += time_s
        if self._leaves(wire, bulk):
            self.network.loop.at(self._free_at + self.delay_s, self._arrive, self._era, [wire])

    def _leaves(self, wire: bytes, bulk: bool) -> bool:
        """Counts a packet; whether it will arrive."""
        network = self.network
        self.packets += 1
        self.bytes += len(wire)
        if bulk:
            self.bulk_bytes += len(wire)
        network.fingerprint = zlib.crc32(
            wire[:_HEAD_BYTES], (network.fingerprint ^ hash((network.loop.now, self._number))) & 0xFFFFFFFF
        )
        if self.loss and network.random.random() < self.loss:
            self.lost += 1
            network.trace.add(self.name, "lost", wire)
            return False
        network.trace.add(self.name, "", wire)
        return True

    def _arrive(self, era: int, wires: list[bytes]) -> None:
        if era == self._era:
            self.receiver.arrive(*wires)
        else:
            self.cut += len(wires)


class LinkFace(Face):
    """One end of a link. With `keeps_sent` what it sent is kept for the test."""

    def __init__(self, node: Node, peer: str, link: Link, out: Direction) -> None:
        super().__init__(f"link://{peer}", f"link://{node.name}", peer)
        self.node, self.link, self.out = node, link, out
        self.sent: list[bytes] = []
        self._keeps_sent = node.network.keeps_sent
        if out.rate_mbps is None and not self._keeps_sent:
            self.lane = []

    def transmit(self, wire: bytes, bulk: bool) -> None:
        if self.lane:
            self.flush()  # nothing overtakes
        if self._keeps_sent:
            self.sent.append(wire)
        self.counters.out_bytes += len(wire)
        self.out.send(wire, bulk)

    def flush(self) -> None:
        lane = self.lane
        if lane:
            if self.up:
                self.counters.out_bytes += sum(map(len, lane))
                self.out.send_batch(tuple(lane))
            else:
                self.counters.drops += len(lane)
            lane.clear()

    @property
    def other(self) -> LinkFace:
        """The face at the other end."""
        return self.out.receiver

    def arrive(self, *wires: bytes) -> None:
        """Takes packets that came together."""
        if self.up and self.node.is_on:
            self.node.receive_batch(self, wires)


class Link:
    """Two directions between two nodes; `ends` are their faces, in the order of the nodes."""

    def __init__(
        self,
        network: Network,
        a: Node,
        b: Node,
        delay_s: float = 0.01,
        loss: float = 0.0,
        rate_mbps: float | tuple[float, float] | None = None,
        queue_bytes: int | None = None,
        has_marks: bool = True,
    ) -> None:
        self.network, self.nodes, self.is_up = network, (a, b), True
        rates = rate_mbps if isinstance(rate_mbps, tuple) else (rate_mbps, rate_mbps)
        self.there = Direction(network, f"{a.name}>{b.name}", delay_s, loss, rates[0], queue_bytes, has_marks)
        self.back = Direction(network, f"{b.name}>{a.name}", delay_s, loss, rates[1], queue_bytes, has_marks)
        self.ends: tuple[LinkFace, LinkFace]
        self.plug()
        for node in (a, b):
            node.links.append(self)

    @property
    def name(self) -> str:
        return f"{self.nodes[0].name}-{self.nodes[1].name}"

    def plug(self, only: Node | None = None) -> None:
        """Gives both nodes, or the one that comes back, a face."""
        (a, b), (there, back) = self.nodes, (self.there, self.back)
        if only is None or only is a:
            back.receiver = a.add_link_face(LinkFace(a, b.name, self, there))
        if only is None or only is b:
            there.receiver = b.add_link_face(LinkFace(b, a.name, self, back))
        self.ends = back.receiver, there.receiver

    def from_(self, name: str) -> Direction:
        """The direction that starts at a node."""
        return self.there if self.nodes[0].name == name else self.back

    @property
    def bytes(self) -> int:
        return self.there.bytes + self.back.bytes

    def fail(self, notice: bool = False) -> None:
        """From now on packets vanish, those under way too; with `notice` both ends know at once."""
        self.is_up = False
        self.network.note(self.name, "fails")
        for direction in (self.there, self.back):
            direction.fail()
        for end in self.ends if notice else ():
            if end.node.is_on:
                end.node.face_down(end)

    def recover(self) -> None:
        """Both directions, whichever had failed."""
        self.is_up = True
        self.network.note(self.name, "recovers")
        for direction in (self.there, self.back):
            direction.recover()
        for end in self.ends:
            if end.node.is_on:
                end.up = True
                end.node.on_link_up(end)

    def fail_one_way(self, sender: str) -> None:
        """What this node sends here vanishes; it still hears the other, and nobody knows."""
        self.network.note(self.name, f"carries nothing from {sender}")
        self.from_(sender).fail()
