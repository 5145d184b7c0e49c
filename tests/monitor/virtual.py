"""A virtual clock for asyncio, and a network of gateways' monitors over links that have rate, delay, burst and loss.

A ──face 1──  Channel (A→B: rate, delay, burst)  ──face 1── B
              Channel (B→A: …)
"""

from __future__ import annotations

import asyncio
import inspect
import math
import selectors
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from random import Random
from typing import Any

from gateway.monitor.agent import MonitorAgent
from gateway.monitor.host import HostSample
from gateway.monitor.linklayer import LinkLayer
from gateway.monitor.links import FaceSample
from gateway.monitor.report import Identity
from gateway.monitor.schedule import Demand
from gateway.protocol import keys, names
from gateway.protocol.messages import ForwarderCounters, Reach, ServiceStatus

NETWORK = names.Network("/test")
INTEREST_BYTES = 60


class _Selector(selectors.SelectSelector):
    """Passes the time instead of waiting."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0

    def select(self, timeout: float | None = None) -> Any:
        if timeout is None:
            raise RuntimeError("nothing is scheduled: the test would wait forever")
        self.now += max(0.0, timeout)
        return super().select(0)


class VirtualLoop(asyncio.SelectorEventLoop):
    """An event loop whose clock jumps to the next timer."""

    def __init__(self) -> None:
        self._virtual = _Selector()
        super().__init__(self._virtual)

    def time(self) -> float:
        # a nanosecond a look keeps every timer that is due from being due a rounding error later
        self._virtual.now += 1e-9
        return self._virtual.now


def run(work: Awaitable[Any]) -> Any:
    """Runs a coroutine in virtual time."""

    async def main() -> Any:
        return await work

    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        return runner.run(main())


@dataclass
class Channel:
    """One direction of a link: a token bucket of `burst_bytes`, then a delay; drops what `loss` says.

    A receiver with `read_every_s` is busy in between: what came meanwhile it reads at once.
    """

    rate_mbps: float
    delay_s: float = 0.005
    burst_bytes: float = 0.0
    loss: float = 0.0
    read_every_s: float = 0.0
    is_cut: bool = False
    random: Random = field(default_factory=lambda: Random(5))
    sent_bytes: int = 0
    _tokens: float = -1.0
    _free_at: float = 0.0

    def arrival(self, now: float, size: int) -> float | None:
        """When a packet handed over now comes out; None when it never does."""
        if self.is_cut or self.random.random() < self.loss:
            return None
        self.sent_bytes += size
        rate = self.rate_mbps * 125_000
        start = max(now, self._free_at)
        tokens = self.burst_bytes if self._tokens < 0 else self._tokens + rate * (start - self._free_at)
        tokens = min(self.burst_bytes, tokens)
        wait = max(0.0, (size - tokens) / rate)
        self._tokens = max(0.0, tokens - size)
        self._free_at = start + wait
        at = self._free_at + self.delay_s
        return math.ceil(at / self.read_every_s) * self.read_every_s if self.read_every_s else at


@dataclass(frozen=True)
class Asked:
    name: bytes
    incoming_face: int | None
    parameters: bytes | None = None


@dataclass
class Port:
    """A face of a node: the channel out and the node and face at the other end."""

    peer: Node
    peer_face: int
    out: Channel
    neighbor: str
    up: bool = True
    in_bytes: int = 0
    out_bytes: int = 0
    in_data_bytes: int = 0
    outstanding: int = 0


class Node:
    """A gateway with nothing but a monitor: it is the monitor's Gateway, Endpoint, Host and LinkLayerReader."""

    def __init__(self, name: str, seed: int = 1, key: keys.Key | None = None, boot: int = 1) -> None:
        self.name = name
        self.ports: dict[int, Port] = {}
        self.handlers: dict[bytes, Callable[[Asked], Any]] = {}
        self.heard: list[tuple[int, Any]] = []
        self.silent: list[tuple[int, str]] = []
        self.unknown_keys: list[bytes] = []
        self.order = (0, 0)
        self.tasks: set[asyncio.Future[None]] = set()
        self.key = key
        self.verifier: Callable[[bytes], keys.Packet] = keys.parse
        self.layer = LinkLayer()
        self.networks: list[tuple[int, str]] = []
        self.sockets: list[tuple[str, str, int]] = []
        self.announced: list[bytes] = []
        self.dialled: list[tuple[tuple[str, str], ...]] = []
        self.reached: tuple[Reach, ...] = ()
        self.demanded = Demand.NONE
        self.sample_value = HostSample()
        self.agent = MonitorAgent(self, self, NETWORK, Identity(name, boot), self, self, random=Random(seed))

    # Endpoint

    async def express(
        self,
        name: bytes,
        *,
        can_be_prefix: bool = False,
        must_be_fresh: bool = False,
        lifetime_ms: int = 4000,
        parameters: bytes | None = None,
        next_hop_face: int | None = None,
    ) -> keys.Packet:
        assert next_hop_face is not None
        if parameters is not None:
            self.announced.append(parameters)
            raise TimeoutError
        loop = asyncio.get_running_loop()
        port = self.ports[next_hop_face]
        answer: asyncio.Future[bytes] = loop.create_future()
        port.out_bytes += INTEREST_BYTES
        port.outstanding += 1
        at = port.out.arrival(loop.time(), INTEREST_BYTES)
        if at is not None:
            loop.call_at(at, self._reach, port, name, answer)
        try:
            async with asyncio.timeout(lifetime_ms / 1000):
                return keys.parse(await answer)
        finally:
            port.outstanding -= 1

    def _reach(self, port: Port, name: bytes, answer: asyncio.Future[bytes]) -> None:
        task = asyncio.ensure_future(self._answer(port, name, answer))
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)

    async def _answer(self, port: Port, name: bytes, answer: asyncio.Future[bytes]) -> None:
        loop = asyncio.get_running_loop()
        back = port.peer.ports[port.peer_face]
        back.in_bytes += INTEREST_BYTES
        wire = await port.peer.ask(name, port.peer_face)
        if wire is None:
            return
        back.out_bytes += len(wire)
        at = back.out.arrival(loop.time(), len(wire))
        if at is not None:
            loop.call_at(at, self._arrive, port, wire, answer)

    @staticmethod
    def _arrive(port: Port, wire: bytes, answer: asyncio.Future[bytes]) -> None:
        port.in_bytes += len(wire)
        port.in_data_bytes += len(wire)
        if not answer.done():
            answer.set_result(wire)

    async def ask(self, name: bytes, face: int | None = None) -> bytes | None:
        """What this node's handlers answer."""
        prefix = max((p for p in self.handlers if name.startswith(p)), key=len, default=None)
        if prefix is None:
            return None
        result = self.handlers[prefix](Asked(name, face))
        return await result if inspect.isawaitable(result) else result

    def serve(self, prefix: bytes, handler: Callable[[Asked], Any]) -> None:
        self.handlers[prefix] = handler

    # Gateway

    def faces(self) -> list[FaceSample]:
        return [
            FaceSample(
                i, p.neighbor, f"tcp4://10.0.0.{i}:6363", "tcp4://10.0.1.1:6363", p.up, False,
                p.in_bytes, p.out_bytes, p.in_data_bytes, p.outstanding,
            )
            for i, p in self.ports.items()
        ]  # fmt: skip

    def sign(self, name: bytes, content: bytes, freshness_ms: int | None) -> bytes:
        return self.key.sign(name, content, freshness_ms) if self.key else keys.sign_data(name, content, freshness_ms)

    def verify(self, wire: bytes) -> keys.Packet:
        return self.verifier(wire)

    def decision_order(self) -> tuple[int, int]:
        return self.order

    def services(self) -> tuple[ServiceStatus, ...]:
        return (ServiceStatus("web", 1, "running"),)

    def forwarder_counters(self) -> ForwarderCounters:
        return ForwarderCounters(interests=7)

    def blobs(self) -> tuple[bytes, ...]:
        return (b"\x01" * 32,)

    def routes(self) -> tuple[()]:
        return ()

    def runtimes(self) -> tuple[str, ...]:
        return ("oci",)

    def groups(self) -> list[tuple[int, str]]:
        return self.networks

    def listening(self) -> list[tuple[str, str, int]]:
        return self.sockets

    def held(self) -> tuple[bytes, ...]:
        return (b"\x01" * 8,)

    def reach(self) -> tuple[Reach, ...]:
        return self.reached

    def demand(self) -> Demand:
        return self.demanded

    def dial(self, wanted: Sequence[tuple[str, str]]) -> None:
        self.dialled.append(tuple(wanted))

    def on_hello(self, face_id: int, hello: Any) -> None:
        self.heard.append((face_id, hello))

    def on_silence(self, face_id: int, node: str) -> None:
        self.silent.append((face_id, node))

    def on_unknown_key(self, face_id: int, key_name: bytes) -> None:
        self.unknown_keys.append(key_name)

    # Host, LinkLayerReader

    async def sample(self) -> HostSample:
        return self.sample_value

    async def look(self) -> LinkLayer:
        return self.layer

    def watch(self, on_change: Callable[[], None]) -> None:
        pass


def connect(a: Node, b: Node, there: Channel, back: Channel, neighbor: str = "cable") -> None:
    """A link between two nodes: `there` carries what a sends, `back` what b sends."""
    face_a, face_b = len(a.ports) + 1, len(b.ports) + 1
    a.ports[face_a] = Port(b, face_b, there, neighbor)
    b.ports[face_b] = Port(a, face_a, back, "")


async def live(seconds: float, *nodes: Node) -> None:
    """The nodes' monitors run for so long."""
    tasks = [asyncio.ensure_future(n.agent.run()) for n in nodes]
    await asyncio.sleep(seconds)
    for task in tasks:
        if task.done():
            task.result()
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


def rows(node: Node) -> list[dict[str, Any]]:
    """What `picasso-gateway links` would show."""
    links: list[dict[str, Any]] = node.agent.snapshot()["links"]
    return links
