"""The FIB in step with the mesh: a real forwarder and, where it matters, a real kernel; neighbours are their hellos."""

from __future__ import annotations

import asyncio
import subprocess
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import pairwise
from typing import Any

import pytest

from gateway.forwarder.content_store import ContentStore
from gateway.forwarder.faces.base import Face
from gateway.forwarder.faces.neighbors import Neighbor
from gateway.forwarder.forwarder import Forwarder
from gateway.mesh import DIRECT_IDLE_S, Kernel, Mesh
from gateway.monitor.batman import Originator
from gateway.monitor.kernel_routes import HERE, KernelHop, KernelRoutes
from gateway.protocol import names
from gateway.protocol.messages import Heard, Hello, Reach
from tests.monitor.cables import Hosts, hosts
from tests.monitor.virtual import run

NETWORK = names.Network("/test")


class Peering(Face):
    """A face to a neighbour at an address."""

    def transmit(self, wire: bytes, bulk: bool) -> None:
        pass


class FakeKernel:
    """Routes by address; what is not there is near."""

    def __init__(self) -> None:
        self.routes: dict[str, tuple[KernelHop, ...]] = {}

    def hops(self, address: str) -> Sequence[KernelHop]:
        return self.routes.get(address, (HERE,))


class Node:
    """This node: gateway.mesh.Gateway over a forwarder."""

    def __init__(self, kernel: Kernel) -> None:
        self.node, self.network = "a", NETWORK
        self.forwarder = Forwarder(ContentStore(1 << 20))
        self.faces, self.fib = self.forwarder.faces, self.forwarder.fib
        self.static: list[bytes] = []
        self.decided: dict[str, list[str]] = {}
        self.discovered: list[Neighbor] = []
        self.lost: list[int] = []
        self.reconnected: list[Face | None] = []
        self.news = 0
        self.originators: Sequence[Originator] = ()
        self.mesh = Mesh(self, kernel)

    def cost_of(self, neighbor: str) -> int:
        return 7 if neighbor == "slow" else 1

    def static_prefixes(self) -> list[bytes]:
        return self.static

    def addresses(self) -> Mapping[str, Sequence[str]]:
        return self.decided

    def rtt_ms(self, face_id: int) -> float | None:
        return 10.0

    def batman(self) -> Sequence[Originator]:
        return self.originators

    def set_discovered(self, neighbors: Sequence[Neighbor]) -> None:
        self.discovered = list(neighbors)

    def on_face_lost(self, face: Face) -> None:
        self.lost.append(face.id)

    def reconnect(self, face: Face | None) -> None:
        self.reconnected.append(face)

    def on_news(self) -> None:
        self.news += 1

    # what the test does

    def face(self, host: str, neighbor: str = "") -> int:
        return self.forwarder.add_face(Peering(f"tcp4://{host}:6363", "", neighbor))

    def hear(self, face: int, node: str, *reach: Reach, is_mutual: bool = True, **fields: Any) -> None:
        heard = (Heard("a", 16),) if is_mutual else (Heard("z", 16),)
        self.mesh.on_hello(face, Hello(node, "boot", 1, heard=heard, reach=reach, **fields))

    def hops(self, node: str) -> list[tuple[int, str]]:
        prefix = NETWORK.node(node)
        if prefix not in self.fib:
            return []
        return [(hop.face_id, hop.origin) for hop in self.fib.longest_prefix_match(prefix)]


def test_neighbours_and_those_beyond() -> None:
    """A neighbour is reached by its face, who is beyond it through it; silence takes both away."""

    async def scene() -> None:
        node = Node(FakeKernel())
        face = node.face("10.0.0.1")
        node.hear(face, "b", Reach("c", 2, uri="tcp4://10.0.0.3:6363"))
        assert node.hops("b") == [(face, "hello")]
        assert node.hops("c") == [(face, "mesh")]
        assert (node.mesh.distance("b"), node.mesh.distance("c"), node.mesh.distance("d")) == (1.0, 3.0, None)
        assert {(row.node, row.cost) for row in node.mesh.reach()} == {("b", 1), ("c", 3)}
        node.mesh.on_silence(face)
        assert node.hops("b") == [] and node.hops("c") == []
        assert node.news == 2

    run(scene())


def test_a_neighbour_that_does_not_hear_us_leads_nowhere() -> None:
    """The node itself may be tried, since it answered; but no way beyond it is taken, nor told to others."""

    async def scene() -> None:
        node = Node(FakeKernel())
        face = node.face("10.0.0.1")
        node.hear(face, "b", Reach("c"), is_mutual=False)
        assert node.hops("b") == [(face, "hello")]
        assert node.hops("c") == [] and node.mesh.reach() == ()
        node.hear(face, "b", Reach("c"))
        assert node.hops("c") == [(face, "mesh")]

    run(scene())


def test_static_routes_stay_on_top() -> None:
    """Where the owner has routed a node, or all nodes, the mesh adds nothing; his default route is no such word."""

    async def scene(static: bytes, expected: bool) -> None:
        node = Node(FakeKernel())
        node.static = [static]
        face = node.face("10.0.0.1")
        node.hear(face, "b", Reach("c"))
        assert bool(node.hops("c")) is expected

    run(scene(NETWORK.node("c"), False))
    run(scene(NETWORK.nodes, False))
    run(scene(NETWORK.prefix, True))
    run(scene(NETWORK.node("d"), True))


def test_a_face_whose_way_is_gone() -> None:
    """A neighbour to whom the kernel has no way is left at once; when he is back after a while, he is dialled anew."""

    async def scene() -> None:
        kernel = FakeKernel()
        node = Node(kernel)
        b, c = node.face("10.0.0.1", "b"), node.face("10.0.0.2", "slow")
        node.hear(b, "b", Reach("x"))
        node.hear(c, "c", Reach("x"))
        assert node.hops("x") == [(b, "mesh"), (c, "mesh")]
        kernel.routes["10.0.0.1"] = ()
        node.mesh.changed()
        await asyncio.sleep(0.1)
        assert node.hops("x") == [(c, "mesh")] and node.hops("b") == []
        assert node.lost == [b]
        await asyncio.sleep(10)
        del kernel.routes["10.0.0.1"]
        node.mesh.refresh()
        assert node.hops("x")[0] == (b, "mesh")
        assert node.reconnected == [node.faces[b]]

    run(scene())


def test_who_fell_silent_is_dialled_anew_when_a_link_comes() -> None:
    """Once: not who is heard again, nor one whose face is gone; who waits for its next attempt need not wait."""

    async def scene() -> None:
        node = Node(FakeKernel())
        b, c, d = (node.face(f"10.0.0.{number}", name) for number, name in enumerate("bcd", 1))
        for face, name in ((b, "b"), (c, "c"), (d, "d")):
            node.hear(face, name)
            node.mesh.on_silence(face)
        node.hear(c, "c")
        silent = node.faces[b]
        node.forwarder.remove_face(node.faces[d])
        node.mesh.on_silence(99)
        assert node.reconnected == []
        node.mesh.on_link()
        assert node.reconnected == [None, silent]
        node.mesh.on_link()
        assert node.reconnected == [None, silent, None]

    run(scene())


def test_a_busy_routing_daemon_costs_twenty_looks_a_second() -> None:
    """A thousand events in a second are at most some twenty refreshes, and the last one is never forgotten."""

    async def scene() -> None:
        kernel = FakeKernel()
        node = Node(kernel)
        b, c = node.face("10.0.0.1"), node.face("10.0.0.2")
        node.hear(b, "b")
        node.hear(c, "c", Reach("x", uri="tcp4://10.5.0.9:6363"))
        version = node.fib.version
        looks = 0
        refresh = node.mesh.refresh

        def counted() -> None:
            nonlocal looks
            looks += 1
            refresh()

        node.mesh.refresh = counted  # type: ignore[method-assign]
        for i in range(1000):
            kernel.routes["10.5.0.9"] = (KernelHop(f"10.0.0.{1 + i % 2}", 1),)
            node.mesh.changed()
            await asyncio.sleep(0.001)
        kernel.routes["10.5.0.9"] = (KernelHop("10.0.0.1", 1),)
        node.mesh.changed()
        await asyncio.sleep(30)
        node.mesh.refresh()
        assert looks <= 23
        assert node.hops("x")[0][0] == b
        assert node.fib.version - version < 40

    run(scene())


def test_batman_names_the_relay() -> None:
    """On one big LAN by layer 2, Interests for c go to b where batman-adv's frames do."""

    async def scene() -> None:
        node = Node(FakeKernel())
        b, c = node.face("10.0.0.1"), node.face("10.0.0.2")
        node.hear(b, "b", links=("02:00:00:00:00:0b",))
        node.hear(c, "c", links=("02:00:00:00:00:0c",))
        assert node.hops("c") == [(c, "hello")]
        node.originators = [Originator("02:00:00:00:00:0c", "02:00:00:00:00:0b", 3, 200, None)]
        node.mesh.refresh()
        assert node.hops("c") == [(b, "mesh"), (c, "hello")]

    run(scene())


def test_a_holder_nobody_leads_to_is_dialled_and_left() -> None:
    """Who asks a node without a route waits for a face to it; when that has been idle for long enough it is closed."""

    async def scene() -> None:
        kernel = FakeKernel()
        node = Node(kernel)
        node.decided = {"x": ["10.7.0.1"]}
        asking = asyncio.ensure_future(node.mesh.arrive(["", "x"]))
        await asyncio.sleep(0.01)
        assert node.discovered == [Neighbor("direct:x", "tcp4://10.7.0.1:6363")]
        assert not asking.done()
        node.hear(node.face("10.7.0.1", "direct:x"), "x")
        await asyncio.sleep(0.01)
        assert asking.done()
        keeping = asyncio.ensure_future(node.mesh.run())
        await asyncio.sleep(DIRECT_IDLE_S - 5)
        assert node.discovered
        await asyncio.sleep(10)
        assert not node.discovered
        keeping.cancel()

    run(scene())


def test_nobody_is_dialled_where_a_route_is() -> None:
    """With one holder in reach the others are not dialled; with none that is known anywhere there is no waiting."""

    async def scene() -> None:
        node = Node(FakeKernel())
        node.decided = {"x": ["10.7.0.1"]}
        node.hear(node.face("10.0.0.1"), "b")
        before = asyncio.get_running_loop().time()
        await node.mesh.arrive(["x", "b"])
        await node.mesh.arrive(["nowhere"])
        assert not node.discovered and asyncio.get_running_loop().time() - before < 0.1

    run(scene())


# --- with a real kernel -----------------------------------------------------------------------------------------


async def until(condition: Callable[[], bool], limit_s: float = 5.0) -> None:
    deadline = time.monotonic() + limit_s
    while not condition():
        assert time.monotonic() < deadline
        await asyncio.sleep(0.0005)


def in_kernel(net: Any, scene: Callable[[], Awaitable[None]]) -> None:
    async def main() -> None:
        await scene()

    net.run("a", lambda: asyncio.run(main()))


@contextmanager
def fork() -> Iterator[Hosts]:
    """Two ways to a network beyond, of which the kernel takes the one by b.

    a ── b ── (198.18.9.0/24: x)
     └── c ──┘
    """
    with hosts("abc") as net:
        net.cable("a", "b", "198.18.1")
        net.cable("a", "c", "198.18.2")
        net.route("a", "198.18.9", "198.18.1.2")
        yield net


def test_the_fib_follows_the_kernel() -> None:
    """A changed kernel route is in the FIB within 100 ms, median of nine; a cut cable moves everything away."""
    with fork() as net:

        async def scene() -> None:
            kernel = KernelRoutes()
            node = Node(kernel)
            kernel.watch(node.mesh.changed, node.mesh.on_link)
            b, c = node.face("198.18.1.2"), node.face("198.18.2.2")
            node.hear(b, "b", Reach("x", uri="tcp4://198.18.9.1:6363"), addresses=("198.18.1.2",))
            node.hear(c, "c", Reach("x", uri="tcp4://198.18.9.1:6363"), addresses=("198.18.2.2",))
            assert node.hops("x")[0][0] == b
            delays = []
            for turn in range(9):
                net_hop, face = (("198.18.2.2", c), ("198.18.1.2", b))[turn % 2]
                # The hysteresis is not what is measured here.
                node.mesh._steadier = type(node.mesh._steadier)()
                await asyncio.sleep(0.06)
                command = ["ip", "-n", net.name("a"), "route", "replace", "198.18.9.0/24", "via", net_hop]
                done = asyncio.ensure_future(asyncio.to_thread(subprocess.run, command, check=True))
                await until(lambda: kernel.hops("198.18.9.1")[0].gateway == net_hop)  # noqa: B023 - awaited here
                changed = time.monotonic()
                await until(lambda: node.hops("x")[0][0] == face)  # noqa: B023
                delays.append(time.monotonic() - changed)
                await done
            assert sorted(delays)[4] < 0.1, delays
            net.ip("a", "link", "set", "to-c", "down")
            await until(lambda: not node.hops("c"))
            assert c not in [face for face, _ in node.hops("x")]
            kernel.close()

        in_kernel(net, scene)


@pytest.mark.parametrize("flaps", [40])
def test_a_flapping_kernel_route_does_not_churn_the_fib(flaps: int) -> None:
    """Forty changes of a kernel route within seconds are some handful of changes of the first next hop."""
    with fork() as net:

        async def scene() -> None:
            kernel = KernelRoutes()
            node = Node(kernel)
            kernel.watch(node.mesh.changed, node.mesh.on_link)
            for host, name in (("198.18.1.2", "b"), ("198.18.2.2", "c")):
                node.hear(node.face(host), name, Reach("x", uri="tcp4://198.18.9.1:6363"), addresses=(host,))
            firsts = [node.hops("x")[0][0]]
            for turn in range(flaps):
                await asyncio.to_thread(net.route, "a", "198.18.9", ("198.18.2.2", "198.18.1.2")[turn % 2])
                await asyncio.sleep(0.06)
                firsts.append(node.hops("x")[0][0])
            assert 1 <= sum(a != b for a, b in pairwise(firsts)) <= 6
            kernel.close()

        in_kernel(net, scene)
