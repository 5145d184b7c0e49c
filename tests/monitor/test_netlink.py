"""The kernel's tables: from the live kernel, and from messages put together byte by byte."""

from __future__ import annotations

import asyncio
import socket
import struct
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.monitor import netlink
from gateway.monitor.linklayer import Address, Interface, LinkLayer, Station
from gateway.monitor.netlink import Netlink

LAYER = LinkLayer(
    interfaces=(
        Interface(1, "lo", "up", medium="loopback"),
        Interface(2, "eth0", "up", medium="ethernet", speed_mbps=100.0),
        Interface(3, "wlan0", "up", medium="wireless"),
    ),
    addresses=(
        Address(1, "127.0.0.1/8", False),
        Address(2, "10.1.0.2/24", True),
        Address(3, "fe80::1/64", False),
        Address(3, "10.2.0.1/16", True),
    ),
    neighbors=((3, "10.2.0.9", "02:00:00:00:00:09"), (2, "10.1.0.7", "02:00:00:00:00:07")),
    stations=(Station(3, "02:00:00:00:00:09", -61, 65.0, 130.0, 48.5),),
)


@pytest.mark.parametrize(
    ("uri", "name"),
    [
        ("tcp4://10.1.0.2:6363", "eth0"),
        ("tcp4://127.0.0.77:6363", "lo"),
        ("udp6://[fe80::1%wlan0]:6363", "wlan0"),
        ("tcp4://10.1.0.3:6363", None),
        ("unix:///run/picasso/ndn.sock", None),
        ("udp4://[broken", None),
        ("", None),
    ],
)
def test_interface_of_a_face(uri: str, name: str | None) -> None:
    """A face belongs to the interface that has its local address; all of 127.0.0.0/8 is the loopback's."""
    found = LAYER.interface_of(uri)
    assert (found.name if found else None) == name


def test_station_of_a_face() -> None:
    """A radio peer is found by the neighbour table; a wired or distant neighbour has no station."""
    assert LAYER.station_of("udp4://10.2.0.9:6363") == LAYER.stations[0]
    assert LAYER.station_of("udp4://10.1.0.7:6363") is None
    assert LAYER.station_of("udp4://10.99.0.1:6363") is None


def test_addresses_and_interfaces_of_the_configured_networks() -> None:
    """Addresses that only this machine understands are left out, and interfaces that were not asked for."""
    assert LAYER.reachable_addresses() == ("10.1.0.2", "10.2.0.1")
    assert LAYER.reachable_addresses(["wlan0"]) == ("10.2.0.1",)
    assert [i.name for i in LAYER.reports(["eth0"])] == ["eth0"]


def test_live_kernel() -> None:
    """The loopback interface is seen up, with its address, and counts what is sent over it."""

    async def scene() -> None:
        reader = Netlink()
        before = await reader.look()
        with (
            socket.create_server(("127.0.0.1", 0)) as server,
            socket.create_connection(server.getsockname()) as client,
            server.accept()[0] as accepted,
        ):
            for _ in range(10):
                client.sendall(bytes(20_000))
                assert len(accepted.recv(20_000, socket.MSG_WAITALL)) == 20_000
        after = await reader.look()
        reader.close()
        lo = after.interface_of("tcp4://127.0.0.1:1")
        was = before.interface_of("tcp4://127.0.0.1:1")
        assert lo is not None and was is not None
        assert (lo.name, lo.state, lo.medium, lo.speed_mbps) == ("lo", "up", "loopback", None)
        assert lo.mtu > 1000
        assert lo.rx_bytes - was.rx_bytes >= 200_000

    asyncio.run(scene())


def test_events_wake_the_loop() -> None:
    """A message on the event socket calls back, once for a burst."""

    async def scene() -> None:
        reader, calls = Netlink(), []
        reader.watch(lambda: calls.append(1))
        ours, kernel = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
        ours.setblocking(False)
        for _ in range(5):
            kernel.send(b"event")
        reader._on_event(ours, lambda: calls.append(1))
        assert calls == [1]
        reader.close()
        ours.close()
        kernel.close()

    asyncio.run(scene())


def test_no_netlink_is_an_empty_look(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    """Where the kernel refuses, the look is empty and the log says so once."""

    def refuse(protocol: int) -> None:
        raise PermissionError(13, "netlink is not allowed here")

    monkeypatch.setattr(netlink, "_socket", refuse)
    reader = Netlink()
    assert [reader.look_now(), reader.look_now()] == [LinkLayer(), LinkLayer()]
    assert caplog.text.count("netlink is not allowed here") == 1


def _attribute(kind: int, value: bytes) -> bytes:
    return (struct.pack("=HH", 4 + len(value), kind) + value).ljust((4 + len(value) + 3) & ~3, b"\0")


def test_station_message() -> None:
    """NL80211_CMD_NEW_STATION gives signal, bit rates in 100 kbit/s and expected throughput in kbit/s."""
    rate = _attribute(1, struct.pack("=H", 650)) + _attribute(5, struct.pack("=I", 650))
    info = (
        _attribute(7, struct.pack("=b", -61))
        + _attribute(14, rate)
        + _attribute(8, _attribute(1, struct.pack("=H", 1300)))
        + _attribute(27, struct.pack("=I", 48500))
    )
    body = struct.pack("=BBH", 19, 1, 0)
    body += _attribute(3, struct.pack("=I", 3)) + _attribute(6, bytes.fromhex("020000000009")) + _attribute(21, info)
    message = netlink._codec("nl80211cmd")(struct.pack("=IHHII", 16 + len(body), 28, 2, 1, 0) + body)
    message.decode()
    assert netlink._station(3, message) == LAYER.stations[0]


def test_station_message_without_figures() -> None:
    """A driver that tells nothing gives a station of Nones."""
    body = struct.pack("=BBH", 19, 1, 0) + _attribute(6, bytes.fromhex("020000000009"))
    message = netlink._codec("nl80211cmd")(struct.pack("=IHHII", 16 + len(body), 28, 2, 1, 0) + body)
    message.decode()
    assert netlink._station(3, message) == Station(3, "02:00:00:00:00:09")


@given(st.binary(max_size=200))
def test_any_datagram_is_split_or_refused(chunk: bytes) -> None:
    """Random bytes give messages that lie within them, or ValueError; the family parser never raises."""
    netlink.parse_family_id(chunk)
    try:
        for _, message in netlink.split_messages(chunk):
            assert message in chunk
    except ValueError:
        return


def test_codecs_leave_the_package_whole_and_the_memory_free() -> None:
    """Reading the tables imports no event loop of pyroute2's, and another part can still import all of it."""
    program = (
        "import sys; from gateway.monitor.netlink import Netlink; Netlink().look_now();"
        "assert 'pyroute2' not in sys.modules and 'pyroute2.iproute.linux' not in sys.modules;"
        "from pyroute2 import IPRoute; IPRoute.__name__"
    )
    root = Path(__file__).parents[2]
    subprocess.run([sys.executable, "-c", program], cwd=root, check=True, timeout=30)
