"""The kernel's next hops, from recorded layouts and from a real kernel in a namespace of its own."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
import time
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.monitor import kernel_routes
from gateway.monitor.kernel_routes import HERE, KernelHop, KernelRoutes, parse_neighbor, parse_route, request
from tests.monitor.cables import hosts

HEADER = struct.Struct("=IHHII")


def attribute(kind: int, value: bytes) -> bytes:
    return (struct.pack("=HH", 4 + len(value), kind) + value).ljust((4 + len(value) + 3) & ~3, b"\0")


def route(*attributes: bytes, family: int = socket.AF_INET, kind: int = 1, flags: int = 0) -> bytes:
    """An RTM_NEWROUTE as linux/rtnetlink.h lays it out: rtmsg, then attributes."""
    body = struct.pack("=BBBBBBBBI", family, 24, 0, 0, 254, 4, 0, kind, flags) + b"".join(attributes)
    return HEADER.pack(16 + len(body), 24, 0, 1, 0) + body


OIF = attribute(4, struct.pack("=i", 7))
METRIC = attribute(6, struct.pack("=I", 1024))
VIA_10_0_0_1 = attribute(5, bytes([10, 0, 0, 1]))


def test_request_bytes() -> None:
    """A question for 10.1.2.3: RTM_GETROUTE, the whole address as destination, the route itself as the answer."""
    assert request("10.1.2.3", 5).hex(" ", 4) == (
        "24000000 1a000100 05000000 00000000 "  # 36 bytes, RTM_GETROUTE, NLM_F_REQUEST, sequence 5
        "02200000 00000000 00200000 "  # AF_INET, /32, RTM_F_FIB_MATCH
        "08000100 0a010203"  # RTA_DST
    )
    with pytest.raises(ValueError):
        request("ours", 1)


def test_next_hops_of_a_route() -> None:
    """Address, device and metric; an empty address on the link itself; none where it is unreachable or cut off."""
    assert parse_route(route(VIA_10_0_0_1, OIF, METRIC)) == (KernelHop("10.0.0.1", 7, 1024),)
    assert parse_route(route(OIF)) == (KernelHop("", 7),)
    link_local = attribute(5, socket.inet_pton(socket.AF_INET6, "fe80::2"))
    assert parse_route(route(link_local, OIF, family=socket.AF_INET6)) == (KernelHop("fe80::2", 7),)
    via = attribute(18, struct.pack("=H", socket.AF_INET6) + socket.inet_pton(socket.AF_INET6, "fe80::3"))
    assert parse_route(route(via, OIF)) == (KernelHop("fe80::3", 7),)
    assert parse_route(route(OIF, kind=2)) == (HERE,)
    assert parse_route(route(OIF, kind=7)) == ()
    assert parse_route(route(VIA_10_0_0_1, OIF, flags=0x10)) == ()


def test_several_next_hops() -> None:
    """Of a multipath route those count whose link is there."""
    one = struct.pack("=HBBi", 16, 0, 0, 7) + VIA_10_0_0_1
    dead = struct.pack("=HBBi", 16, 0x11, 0, 8) + attribute(5, bytes([10, 0, 1, 1]))
    other = struct.pack("=HBBi", 16, 0, 0, 9) + attribute(5, bytes([10, 0, 2, 1]))
    assert parse_route(route(attribute(9, one + dead + other))) == (KernelHop("10.0.0.1", 7), KernelHop("10.0.2.1", 9))
    with pytest.raises(ValueError):
        parse_route(route(attribute(9, struct.pack("=HBBi", 99, 0, 0, 7) + VIA_10_0_0_1)))


@given(st.binary(max_size=80))
def test_any_bytes_are_parsed_or_refused(body: bytes) -> None:
    """No message makes a parser fail in another way than by its own errors."""
    for parse in (parse_route, parse_neighbor):
        with contextlib.suppress(ValueError, struct.error):
            parse(HEADER.pack(16 + len(body), 24, 0, 1, 0) + body)


def test_live_lookups() -> None:
    """The longest prefix wins, then the metric; a link that is down, a silent next hop and no route have no way."""
    with hosts("ab") as net:
        net.cable("a", "b", "198.18.1")
        net.ip("a", "route", "add", "198.18.64.0/18", "via", "198.18.1.2")
        net.ip("a", "route", "add", "198.18.64.0/24", "via", "198.18.1.9", "metric", "20")
        net.ip("a", "route", "add", "198.18.64.0/24", "via", "198.18.1.8", "metric", "10")
        net.ip("a", "-6", "addr", "add", "fd00:1::1/64", "dev", "to-b", "nodad")
        net.ip("a", "-6", "route", "add", "fd00:2::/64", "via", "fe80::9", "dev", "to-b")

        def look() -> dict[str, tuple[KernelHop, ...]]:
            kernel = KernelRoutes()
            asked = ("198.18.70.1", "198.18.64.1", "198.18.1.2", "198.18.1.1", "198.18.200.1", "fd00:2::1", "ours")
            found = {address: kernel.hops(address) for address in asked}
            kernel.close()
            return found

        found = net.run("a", look)
        gateways = {address: [hop.gateway for hop in hops] for address, hops in found.items()}
        assert gateways["198.18.70.1"] == ["198.18.1.2"]
        assert found["198.18.64.1"][0].gateway == "198.18.1.8" and found["198.18.64.1"][0].metric == 10
        assert gateways["198.18.1.2"] == [""] and found["198.18.1.1"] == (HERE,)
        assert gateways["198.18.200.1"] == []
        assert gateways["fd00:2::1"] == ["fe80::9"]
        net.ip("b", "link", "set", "to-a", "down")
        deadline = time.monotonic() + 5  # the kernel takes up to a second to notice
        while net.run("a", look)["198.18.1.2"]:
            assert time.monotonic() < deadline


async def until(condition: Callable[[], bool]) -> None:
    """Waits in the running loop; fails after five seconds."""
    deadline = time.monotonic() + 5
    while not condition():
        assert time.monotonic() < deadline
        await asyncio.sleep(0.01)


def test_events_of_routes_links_and_neighbors() -> None:
    """A changed route and a next hop that does not answer any more are told, and a device's end as that of a link."""
    with hosts("ab") as net:
        net.cable("a", "b", "198.18.1")

        async def scene() -> None:
            kernel, changes, links = KernelRoutes(), asyncio.Event(), []
            kernel.watch(changes.set, lambda: links.append(1))
            await asyncio.to_thread(net.route, "a", "198.18.5", "198.18.1.2")
            await asyncio.wait_for(changes.wait(), 5)
            assert not links
            assert kernel.hops("198.18.1.77") != ()
            neighbor = "198.18.1.77", "lladdr", "02:00:00:00:00:07", "dev", "to-b"
            for state in ("reachable", "failed"):  # the kernel tells only what changes
                net.ip("a", "neigh", "replace", *neighbor, "nud", state)
            await until(lambda: not kernel.hops("198.18.1.77"))
            net.ip("a", "link", "set", "to-b", "down")
            await until(lambda: bool(links))
            kernel.close()

        net.run("a", lambda: asyncio.run(scene()))


def test_no_netlink_leaves_everything_as_near(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the kernel does not talk, no neighbour is taken for unreachable."""

    def refuse(*arguments: object) -> socket.socket:
        raise PermissionError(13, "no netlink here")

    monkeypatch.setattr(kernel_routes.socket, "socket", refuse)
    kernel = KernelRoutes()
    assert kernel.hops("10.0.0.1") == (HERE,)
    kernel.close()
