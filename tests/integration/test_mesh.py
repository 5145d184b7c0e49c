"""Gateways on cables of their own: they find each other, and reach each other's names along the kernel's routes."""

from __future__ import annotations

import asyncio
import socket
import struct
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from gateways import GatewayProcess, neighbor, wait_for

from gateway.forwarder import packet
from gateway.forwarder.endpoint import connect
from gateway.protocol import names
from tests.emulation.membership import Membership
from tests.monitor.cables import Hosts, hosts

NETWORK = names.Network("/test/net")
ALL_PACKETS = 3


class HostedGateway(GatewayProcess):
    """A gateway on a host of its own, listening on all its addresses."""

    def __init__(self, directory: Path, net: Hosts, node: str, networks: str = "", text: str = "") -> None:
        super().__init__(directory / node, node)
        self.namespace = net.name(node)
        lists = "".join(f"\tlist network '{network}'\n" for network in networks.split())
        self.base = f"""
config gateway 'gateway'
	option network '/test/net'
	option node '{node}'
	option state_dir '{self.directory}/state'
	option run_dir '{self.directory}/run'

config forwarder 'forwarder'
	list listen 'unix://{self.unix}'
	list listen 'tcp4://0.0.0.0:6363'
	list listen 'udp4://0.0.0.0:6363'
{lists}"""
        self.configure(text)

    def command(self, *arguments: str) -> list[str]:
        return ["ip", "netns", "exec", self.namespace, *super().command(*arguments)]

    def up(self) -> set[str]:
        """The nodes that it hears."""
        return {row["node"] for row in self.ask("links") if row["state"] == "up"}

    def next_hops(self, node: str) -> list[tuple[str, str]]:
        """(neighbour node, origin) of the routes to a node, best first."""
        nodes = {row["face"]: row["node"] for row in self.ask("links")}
        rows = [row for row in self.ask("routes") if row["prefix"] == f"/test/net/node/{node}"]
        return [(nodes.get(row["face"], ""), row["origin"]) for row in rows]

    def report_of(self, node: str) -> bool:
        """Whether an Interest for a node's report brings Data here."""

        async def ask() -> bool:
            endpoint = await connect(f"unix://{self.unix}")
            try:
                await endpoint.express(NETWORK.report(node), can_be_prefix=True, must_be_fresh=True, lifetime_ms=2000)
            finally:
                endpoint.close()
            return True

        return asyncio.run(ask())


@pytest.fixture
def made() -> Iterator[list[HostedGateway]]:
    """Gateways that are stopped at the end."""
    gateways: list[HostedGateway] = []
    yield gateways
    for gateway in gateways:
        gateway.stop()


@contextmanager
def sniffed(net: Hosts, host: str, device: str) -> Iterator[list[float]]:
    """The moments (monotonic) at which hellos came to a device, as long as the context lasts."""
    moments: list[float] = []
    raw = net.run(host, lambda: _raw(device))
    wanted = names.HELLO[:-7]

    def listen() -> None:
        while True:
            try:
                frame = raw.recv(2000)
            except OSError:
                return
            if wanted in frame and struct.unpack_from("!H", frame, 12)[0] == 0x0800:
                moments.append(time.monotonic())

    thread = threading.Thread(target=listen, daemon=True)
    thread.start()
    try:
        yield moments
    finally:
        raw.shutdown(socket.SHUT_RDWR) if raw.family == socket.AF_INET else raw.close()


def _raw(device: str) -> socket.socket:
    made = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ALL_PACKETS))
    made.bind((device, 0))
    made.settimeout(30)
    return made


def test_two_gateways_find_each_other(tmp_path: Path, made: list[HostedGateway]) -> None:
    """With no neighbour section, two gateways on a cable are neighbours by one face, and part when one is gone."""
    with hosts("ab") as net:
        net.cable("a", "b", "198.18.1")
        made += [HostedGateway(tmp_path, net, "a", "to-b"), HostedGateway(tmp_path, net, "b", "to-a")]
        for gateway in made:
            gateway.start()
        a, b = made
        wait_for(lambda: a.up() == {"b"} and b.up() == {"a"}, 10, "both hear each other")
        wait_for(lambda: a.next_hops("b") == [("b", "hello")], 5, "a route to b")
        assert a.report_of("b") and b.report_of("a")
        assert len(a.ask("links")) == len(b.ask("links")) == 1
        b.stop()
        wait_for(lambda: a.next_hops("b") == [], 15, "the route to b goes")


def test_members_who_never_met(tmp_path: Path, made: list[HostedGateway]) -> None:
    """Members that have no certificate of each other find each other, learn the keys, and who is beyond, in seconds."""
    with hosts("abc") as net:
        net.cable("a", "b", "198.18.1")
        net.cable("b", "c", "198.18.2")
        for node, networks in (("a", "to-b"), ("b", "to-a to-c"), ("c", "to-b")):
            made.append(HostedGateway(tmp_path, net, node, networks))
        Membership(tmp_path / "keys", "/test/net").enrol(
            {gateway.node: gateway.directory / "state" for gateway in made}
        )
        for gateway in made:
            gateway.start()
        a, b, _ = made
        assert a.ask("status")["enrolled"]
        wait_for(lambda: b.up() == {"a", "c"}, 10, "b's two neighbours")
        wait_for(lambda: a.next_hops("c") == [("b", "mesh")], 6, "c beyond b")
        assert a.report_of("c")


def test_discovery_may_be_switched_off(tmp_path: Path, made: list[HostedGateway]) -> None:
    """With `option discovery '0'` a gateway neither says who it is nor dials whom it could hear."""
    with hosts("ab") as net:
        net.cable("a", "b", "198.18.1")
        made += [HostedGateway(tmp_path, net, "a", "to-b"), HostedGateway(tmp_path, net, "b", "to-a")]
        made[0].base += "\toption discovery '0'\n"
        made[0].configure("")
        with sniffed(net, "b", "to-a") as hellos:
            made[0].start()
            time.sleep(1.5)
            assert not hellos
            made[1].start()
            time.sleep(1.5)
        assert made[0].ask("links") == [] and made[1].ask("links") == []


def test_hello_within_100_ms_of_a_link(tmp_path: Path, made: list[HostedGateway]) -> None:
    """When a cable is plugged in, a hello is on it within 100 ms of the kernel's event; the median of five counts."""
    with hosts("ab") as net:
        net.cable("a", "b", "198.18.1")
        made.append(HostedGateway(tmp_path, net, "a", "to-b"))
        made[0].start()
        delays = []
        with sniffed(net, "b", "to-a") as hellos:
            wait_for(lambda: hellos, 5, "the first hello")
            for _ in range(5):
                net.ip("a", "link", "set", "to-b", "down")
                time.sleep(1.2)
                hellos.clear()
                events = net.run("a", _link_events)
                net.ip("a", "link", "set", "to-b", "up")
                event = _first_up(events)
                wait_for(lambda: hellos, 5, "a hello after the link came up")
                delays.append(hellos[0] - event)
        assert sorted(delays)[2] < 0.1, delays


def test_a_contact_is_used_at_once(tmp_path: Path, made: list[HostedGateway]) -> None:
    """After an outage in which TCP has backed off, both ends hear each other within a second of the cable's return."""
    with hosts("ab") as net:
        net.cable("a", "b", "198.18.1")
        made += [
            HostedGateway(tmp_path, net, "a", "", neighbor("b", "tcp4://198.18.1.2:6363")),
            HostedGateway(tmp_path, net, "b"),
        ]
        made[1].start()
        made[0].start()
        a, b = made
        wait_for(lambda: a.up() == {"b"} and b.up() == {"a"}, 10, "both hear each other")
        net.ip("a", "link", "set", "to-b", "down")
        time.sleep(6)
        assert a.next_hops("b") == []
        before = [gateway.ask("status")["measurements"]["hellos_accepted"] for gateway in made]
        net.ip("a", "link", "set", "to-b", "up")
        started = time.monotonic()
        for gateway, count in zip(made, before, strict=True):
            wait_for(lambda: gateway.ask("status")["measurements"]["hellos_accepted"] > count, 10, "a hello")  # noqa: B023
        wait_for(lambda: a.next_hops("b") == [("b", "hello")], 5, "the route")
        assert time.monotonic() - started < 1.5


def _link_events() -> socket.socket:
    events = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE)
    events.bind((0, 1))
    events.settimeout(5)
    return events


def _first_up(events: socket.socket) -> float:
    """When the kernel told that a device is up (IFF_UP)."""
    with events:
        while True:
            wire, at = events.recv(1 << 16), time.monotonic()
            if struct.unpack_from("=I", wire, 24)[0] & 0x1:
                return at


def test_chain_with_a_router_that_is_no_gateway(tmp_path: Path, made: list[HostedGateway]) -> None:
    """a reaches c's name by the gateway behind the router on the kernel's route, and when that route moves, by another.

        ┌── r ── b ──┐
    a ──┤            ├── c        r and s are IP routers and nothing else
        └── s ── d ──┘
    """
    with hosts("arbcsd") as net:
        for ends, number in (("ar", 1), ("rb", 2), ("bc", 3), ("as", 4), ("sd", 5), ("dc", 6)):
            net.cable(ends[0], ends[1], f"198.18.{number}")
        for router in "rsbd":
            net.forwards(router)
        routes = {
            "a": {2: "1.2", 3: "1.2", 5: "4.2", 6: "4.2"},
            "r": {3: "2.2"},
            "s": {6: "5.2", 3: "5.2"},
            "b": {1: "2.1"},
            "d": {4: "5.1", 3: "6.2"},
            "c": {1: "3.1", 4: "6.1"},
        }
        for host, table in routes.items():
            for number, via in table.items():
                net.route(host, f"198.18.{number}", f"198.18.{via}")
        peers = neighbor("near", "tcp4://198.18.2.2:6363") + neighbor("far", "tcp4://198.18.5.2:6363")
        made += [
            HostedGateway(tmp_path, net, "a", "", peers),
            HostedGateway(tmp_path, net, "b", "to-c"),
            HostedGateway(tmp_path, net, "d", "to-c"),
            HostedGateway(tmp_path, net, "c", "to-b to-d"),
        ]
        for gateway in made:
            gateway.start()
        a = made[0]
        wait_for(lambda: a.up() == {"b", "d"}, 10, "a's two neighbours")
        wait_for(lambda: len(a.next_hops("c")) == 2, 20, "two ways to c")
        assert a.next_hops("c")[0] == ("b", "mesh")
        assert a.report_of("c")

        moved = _moved(a, "d", lambda: net.route("a", "198.18.3", "198.18.4.2"))
        assert moved < 1.0
        net.route("a", "198.18.3", "198.18.1.2")
        wait_for(lambda: a.next_hops("c")[0][0] == "b", 5, "back again")
        cut = _moved(a, "d", lambda: net.ip("a", "link", "set", "to-r", "down"))
        assert cut < 1.0
        assert a.report_of("c")


def test_a_tunnel_gives_way_to_the_gateway_it_leads_through(tmp_path: Path, made: list[HostedGateway]) -> None:
    """a's own connection to hub runs through b's machine: what a wants of hub it asks b, who may have it.

    a ── b ── hub, and a configured neighbour a ══ hub over the kernel's route
    """
    with hosts("abh") as net:
        net.cable("a", "b", "198.18.1")
        net.cable("b", "h", "198.18.2")
        net.forwards("b")
        net.route("a", "198.18.2", "198.18.1.2")
        net.route("h", "198.18.1", "198.18.2.1")
        made += [
            HostedGateway(tmp_path, net, "h", "to-b"),
            HostedGateway(tmp_path, net, "b", "to-a to-h"),
            HostedGateway(tmp_path, net, "a", "to-b", neighbor("hub", "tcp4://198.18.2.2:6363")),
        ]
        for gateway in made:
            gateway.start()
        a = made[2]
        wait_for(lambda: a.up() == {"b", "h"}, 10, "a's two neighbours")
        wait_for(lambda: a.next_hops("h") == [("b", "mesh"), ("h", "hello")], 10, "b before the tunnel")
        assert a.report_of("h")
        made[1].stop()  # the machine goes on as an IP router
        wait_for(lambda: a.next_hops("h") == [("h", "hello")], 15, "the tunnel again")
        assert a.report_of("h")


def _moved(gateway: HostedGateway, to: str, change: Any) -> float:
    """How long after a change the best way to c is by another neighbour, in s."""
    change()
    started = time.monotonic()
    while gateway.next_hops("c")[:1] != [(to, "mesh")]:
        assert time.monotonic() - started < 10, gateway.next_hops("c")
        time.sleep(0.01)
    return time.monotonic() - started


def test_hello_names_are_what_is_sniffed() -> None:
    """What the tests look for on the wire begins every hello's name."""
    assert names.HELLO.startswith(names.HELLO[:-7])
    assert packet.encode_interest(names.HELLO)[1].find(names.HELLO[:-7]) > 0
