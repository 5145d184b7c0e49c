"""The emulation itself: rates, loss, links that are down, counters, and that nothing is left behind."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import pytest

from tests.emulation import namespaces
from tests.emulation.conditions import needs_namespaces
from tests.emulation.namespaces import EmulationError, Inside
from tests.emulation.network import EmulatedNetwork, Schedule, contacts
from tests.emulation.topology import Link, Topology

T = TypeVar("T")

pytestmark = needs_namespaces

SO_RCVBUFFORCE = 33
FRAME_BYTES = 14 + 20 + 8  # Ethernet, IP, UDP

#       8 / 16         20
#   a ───────── b ─────────── c         b is a plain router
LINE = Topology(("a", "b", "c"), (Link("a", "b", 8, 16), Link("b", "c", 20, 20)), ("a", "c"))


@pytest.fixture
def line() -> Iterator[EmulatedNetwork]:
    with EmulatedNetwork(LINE) as network:
        yield network


def on(network: EmulatedNetwork, node: str, function: Callable[[], T]) -> T:
    """Calls a function inside a namespace, on a thread that ends with it."""
    inside = Inside()
    try:
        return inside.run(network.namespace(node), function)
    finally:
        inside.close()


def udp(network: EmulatedNetwork, node: str) -> socket.socket:
    """A UDP socket of a node, on its address."""

    def make() -> socket.socket:
        made = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        made.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, 1 << 24)
        made.bind((network.address(node), 5000))
        made.settimeout(0.5)
        return made

    return on(network, node, make)


def received(receiver: socket.socket) -> int:
    """How many datagrams come until none has come for half a second."""
    count = 0
    try:
        while receiver.recv(2000):
            count += 1
    except TimeoutError:
        return count
    return count


def tcp_mbps(network: EmulatedNetwork, source: str, destination: str, over: tuple[str, str], size: int) -> float:
    """Mbit/s of frames that the kernel counted in one direction of a link while a TCP transfer came in."""
    server = on(network, destination, lambda: socket.create_server((network.address(destination), 5001)))

    def send() -> None:
        with socket.create_connection((network.address(destination), 5001), 10) as connection:
            connection.sendall(bytes(size))

    with ThreadPoolExecutor(1) as pool, server:
        sending = pool.submit(on, network, source, send)
        connection, _ = server.accept()
        started, before = time.monotonic(), network.traffic()[over].bytes
        while connection.recv(1 << 16):
            pass
        seconds, sent = time.monotonic() - started, network.traffic()[over].bytes - before
        connection.close()
        sending.result()
    return sent * 8e-6 / seconds


def send(network: EmulatedNetwork, source: str, destination: str, count: int, every_s: float = 0.0) -> int:
    """Sends so many datagrams of 1000 bytes from node to node; how many arrive."""
    with udp(network, source) as sender, udp(network, destination) as receiver:
        for number in range(count):
            sender.sendto(bytes(1000), (network.address(destination), 5000))
            if every_s and number % 20 == 0:
                time.sleep(20 * every_s)
        return received(receiver)


def test_link_carries_its_rate_each_way(line: EmulatedNetwork) -> None:
    """8 Mbit/s there and 16 back, over a router; not a tenth more, and not much less."""
    assert 6.5 < tcp_mbps(line, "a", "c", ("a", "b"), 1_500_000) < 8.4
    assert 13 < tcp_mbps(line, "c", "a", ("b", "a"), 3_000_000) < 16.8


def test_counters_count_whole_frames(line: EmulatedNetwork) -> None:
    """Twenty datagrams are so many frames with their headers on both links; else there is only the kernel's chat."""
    assert send(line, "a", "c", 2) == 2  # the neighbours' link addresses are known from here on
    before = line.traffic()
    assert send(line, "a", "c", 20) == 20
    after = line.traffic()
    for pair in (("a", "b"), ("b", "c")):
        found = after[pair] - before[pair]
        frames = 20 * (1000 + FRAME_BYTES)
        assert found.packets >= 20 and frames <= found.bytes < frames + 1000
    assert (after["c", "b"] - before["c", "b"]).bytes < 1000


def test_bulk_of_tcp_is_counted_frame_by_frame(line: EmulatedNetwork) -> None:
    """No frame is larger than Ethernet's: a counter that missed headers would flatter every transfer."""
    before = line.traffic()["b", "c"]
    tcp_mbps(line, "a", "c", ("a", "b"), 300_000)
    found = line.traffic()["b", "c"] - before
    assert found.packets >= 300_000 / 1448
    assert found.bytes >= 300_000 + 66 * 300_000 / 1448


def test_link_loses_its_share(line: EmulatedNetwork) -> None:
    """With 30 % loss between 60 and 80 of 100 datagrams arrive, with none all do."""
    link = LINE.link("b", "c")
    line.set_loss(link, 0.3)
    assert 600 < send(line, "a", "c", 1000, every_s=0.0012) < 800
    line.set_loss(link, 0)
    assert send(line, "a", "c", 20) == 20


def test_silent_link_loses_everything_and_stays_up(line: EmulatedNetwork) -> None:
    """A loss of 1 is a radio out of reach: packets go out, routes stay, nothing arrives."""
    link = LINE.link("a", "b")
    line.set_loss(link, 1)
    assert send(line, "a", "c", 5) == 0
    assert line.is_up(link)


def test_down_is_down_and_comes_back(line: EmulatedNetwork) -> None:
    """A failed link has no route; after it recovers the same packets pass."""
    link = LINE.link("a", "b")
    line.fail(link)
    with udp(line, "a") as sender, pytest.raises(OSError, match="unreachable"):
        sender.sendto(b"x", (line.address("c"), 5000))
    line.recover(link)
    assert send(line, "a", "c", 5) == 5


def test_rerouted_around_a_failed_link() -> None:
    """With `reroute` the routes follow at once, as those of a mesh do."""
    ring = Topology(("a", "b", "c"), (Link("a", "c", 50, 50), Link("a", "b", 10, 10), Link("b", "c", 10, 10)))
    with EmulatedNetwork(ring) as network:
        network.fail(ring.link("a", "c"), reroute=True)
        before = network.traffic()["a", "b"].packets
        assert send(network, "a", "c", 5) == 5
        assert network.traffic()["a", "b"].packets - before >= 5


def test_schedule_takes_links_up_and_down(line: EmulatedNetwork) -> None:
    """Two contacts of a link are two times up and two times down, in order and not before their time."""
    link = LINE.link("a", "b")
    line.fail(link)
    schedule = Schedule(line, contacts(link, [0.1, 0.5], 0.2)).start()
    time.sleep(0.2)
    assert line.is_up(link)
    time.sleep(0.7)
    schedule.stop()
    assert not line.is_up(link)
    assert [is_up for _, _, is_up in schedule.done] == [True, False, True, False]
    assert all(at >= planned for (at, _, _), planned in zip(schedule.done, (0.1, 0.3, 0.5, 0.7), strict=True))


# --- nothing stays

CHILD = """
import sys, time, subprocess
from tests.emulation.network import EmulatedNetwork
from tests.emulation.topology import tree
with EmulatedNetwork(tree([("a", "b", 10)])) as network:
    subprocess.Popen([*network.inside("b"), "sleep", "600"])
    time.sleep(0.2)
    print(network.namespace("a"), flush=True)
    time.sleep(60)
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_nothing_stays_of_a_run_that_is_ended(number: signal.Signals) -> None:
    """After Ctrl-C, and after SIGKILL too, namespaces and processes are gone within seconds."""
    child = subprocess.Popen([sys.executable, "-c", CHILD], cwd=namespaces.ROOT, stdout=subprocess.PIPE, text=True)
    assert child.stdout is not None
    name = child.stdout.readline().strip()
    owned_by = ".".join(name.split(".")[1:3])
    assert name in namespaces.of(owned_by)
    inside = namespaces.processes_in({(namespaces.NETNS / each).stat().st_ino for each in namespaces.of(owned_by)})
    assert len(inside) == 1
    child.send_signal(number)
    child.wait(20)
    deadline = time.monotonic() + 20
    while namespaces.of(owned_by) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert namespaces.of(owned_by) == []
    assert namespaces.started(inside[0]) == 0


def test_leftovers_of_the_dead_are_removed_and_of_the_living_kept() -> None:
    """A namespace whose owner does not live (any more) goes; that of another process with its pid as well."""
    dead = f"{namespaces.MARK}.{os.getpid()}.1.left-{os.getpid()}"
    alive = f"{namespaces.MARK}.{namespaces.owner()}.kept"
    for name in (dead, alive):
        namespaces.command("ip", "netns", "add", name)
    try:
        assert dead in namespaces.leftovers() and alive not in namespaces.leftovers()
        namespaces.remove(namespaces.leftovers())
        assert not (namespaces.NETNS / dead).exists() and (namespaces.NETNS / alive).exists()
    finally:
        namespaces.remove([dead, alive])


def test_failed_command_is_told_with_its_words() -> None:
    """The error has the command and what it complained of."""
    with pytest.raises(EmulationError, match=r"ip link del no-such-one.*[Cc]annot find"):
        namespaces.command("ip", "link", "del", "no-such-one")
