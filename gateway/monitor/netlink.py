"""The kernel's port: interfaces, addresses and neighbours by rtnetlink, radio stations by nl80211.

Where there is a radio, pyroute2's message codecs are used over a plain socket: 2 MB, those of nl80211 another 3.
Its IPRoute class would bring an event loop of its own and 14 MB. Interfaces and addresses are read in rtnetlink.py.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib
import importlib.util
import logging
import socket
import struct
import sys
import types
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from gateway.monitor import host
from gateway.monitor.linklayer import Address, Interface, LinkLayer, Station
from gateway.monitor.rtnetlink import AddressMessage, LinkMessage, parse_address, parse_link

log = logging.getLogger(__name__)

# Not in the socket module of Python 3.11.
_NETLINK_GENERIC = 16
_HEADER = struct.Struct("=IHHII")
_ERROR, _DONE = 2, 3
_REQUEST, _DUMP = 1, 0x300
_GETLINK, _GETADDR, _GETNEIGH = 18, 22, 30
_GROUP_LINK, _GROUP_IPV4_ADDRESS, _GROUP_IPV6_ADDRESS = 0x1, 0x10, 0x100
_SCOPE_GLOBAL, _SCOPE_SITE = 0, 200
_GENERIC_CONTROL, _GET_FAMILY, _ATTR_FAMILY_ID, _ATTR_FAMILY_NAME = 16, 3, 1, 2
_GET_STATION, _ATTR_IFINDEX = 17, 3
_ANSWER_TIMEOUT_S = 2.0
_BUFFER_BYTES = 1 << 17
# A router has dozens of interfaces; a netlink answer that never ends must not hold the thread.
_MAX_MESSAGES = 20_000


class Netlink:
    """Looks at the kernel's tables in one worker thread; where netlink is missing every look is empty."""

    def __init__(self, root: Path = Path("/")) -> None:
        self._root = root
        self._worker = ThreadPoolExecutor(1, thread_name_prefix="picasso-netlink")
        self._events: socket.socket | None = None
        self._has_failed = False

    async def look(self) -> LinkLayer:
        """One look at all tables; a table that cannot be read is empty."""
        return await asyncio.get_running_loop().run_in_executor(self._worker, self.look_now)

    def look_now(self) -> LinkLayer:
        try:
            return self._look()
        except (OSError, ImportError, ValueError, KeyError, struct.error) as error:
            if not self._has_failed:
                log.warning("netlink does not answer, interfaces are not reported: %s", error)
            self._has_failed = True
            return LinkLayer()

    def watch(self, on_change: Callable[[], None]) -> None:
        """Calls `on_change` in the running loop when an interface or address changes, where the kernel tells."""
        try:
            events = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_NONBLOCK, socket.NETLINK_ROUTE)
            events.bind((0, _GROUP_LINK | _GROUP_IPV4_ADDRESS | _GROUP_IPV6_ADDRESS))
        except OSError as error:
            log.info("no netlink events: %s", error)
            return
        self._events = events
        asyncio.get_running_loop().add_reader(events.fileno(), self._on_event, events, on_change)

    def close(self) -> None:
        """Needs the running loop when `watch` was called."""
        if self._events is not None:
            asyncio.get_running_loop().remove_reader(self._events.fileno())
            self._events.close()
            self._events = None
        self._worker.shutdown(wait=False, cancel_futures=True)

    @staticmethod
    def _on_event(events: socket.socket, on_change: Callable[[], None]) -> None:
        with contextlib.suppress(BlockingIOError, OSError):  # ENOBUFS says that events were lost: a change as well
            while events.recv(_BUFFER_BYTES):
                pass
        on_change()

    def _look(self) -> LinkLayer:
        with _socket(socket.NETLINK_ROUTE) as route:
            interfaces = tuple(self._interface(parse_link(m)) for m in _dump(route, _GETLINK, bytes(16)))
            addresses = tuple(_address(a) for m in _dump(route, _GETADDR, bytes(8)) if (a := parse_address(m)))
            if not any(i.medium == "wireless" for i in interfaces):
                return LinkLayer(interfaces, addresses)
            messages = [_decoded("ndmsg", m) for m in _dump(route, _GETNEIGH, bytes(12))]
        neighbors = tuple(
            (m["ifindex"], str(m.get_attr("NDA_DST")), str(m.get_attr("NDA_LLADDR")).lower())
            for m in messages
            if m.get_attr("NDA_DST") and m.get_attr("NDA_LLADDR")
        )
        return LinkLayer(interfaces, addresses, neighbors, self._stations(interfaces))

    def _interface(self, message: LinkMessage) -> Interface:
        return Interface(
            message.index,
            message.name,
            "up" if message.is_up else "down",
            message.mtu,
            host.read_medium(self._root, message.name),
            host.read_wired_speed_mbps(self._root, message.name),
            mac=message.mac,
            **message.counters,
        )

    def _stations(self, interfaces: tuple[Interface, ...]) -> tuple[Station, ...]:
        """The stations of every radio; a driver without nl80211 has none."""
        stations: list[Station] = []
        try:
            with _socket(_NETLINK_GENERIC) as generic:
                family = _family_id(generic, b"nl80211")
                for interface in interfaces:
                    if interface.medium == "wireless" and family is not None:
                        body = struct.pack("=BBHHHI", _GET_STATION, 0, 0, 8, _ATTR_IFINDEX, interface.index)
                        stations += [
                            _station(interface.index, _decoded("nl80211cmd", m)) for m in _dump(generic, family, body)
                        ]
        except OSError as error:
            log.debug("no radio stations: %s", error)
        return tuple(stations)


def _address(message: AddressMessage) -> Address:
    is_global = message.scope in (_SCOPE_GLOBAL, _SCOPE_SITE)
    return Address(message.index, f"{message.address}/{message.prefix_length}", is_global)


def _station(interface: int, message: Any) -> Station:
    info = message.get_attr("NL80211_ATTR_STA_INFO")
    expected = _attribute(info, "NL80211_STA_INFO_EXPECTED_THROUGHPUT")
    return Station(
        interface,
        str(message.get_attr("NL80211_ATTR_MAC")).lower(),
        _attribute(info, "NL80211_STA_INFO_SIGNAL"),
        _bitrate_mbps(_attribute(info, "NL80211_STA_INFO_RX_BITRATE")),
        _bitrate_mbps(_attribute(info, "NL80211_STA_INFO_TX_BITRATE")),
        expected / 1000 if expected else None,
    )


def _bitrate_mbps(rate: Any) -> float | None:
    """Drivers count in 100 kbit/s."""
    units = _attribute(rate, "NL80211_RATE_INFO_BITRATE32") or _attribute(rate, "NL80211_RATE_INFO_BITRATE")
    return units / 10 if units else None


def _attribute(message: Any, name: str) -> Any:
    return None if message is None else message.get_attr(name)


@contextlib.contextmanager
def _socket(protocol: int) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, protocol) as opened:
        opened.bind((0, 0))
        opened.settimeout(_ANSWER_TIMEOUT_S)
        yield opened


def _dump(opened: socket.socket, kind: int, body: bytes) -> Iterator[bytes]:
    """The messages of a table; raises OSError when the kernel refuses."""
    opened.send(_HEADER.pack(_HEADER.size + len(body), kind, _REQUEST | _DUMP, 1, 0) + body)
    return _answer(opened)


def generic_dump(family: bytes, body: bytes) -> list[bytes]:
    """The messages of a generic netlink dump; empty when the kernel has no such family, raises OSError otherwise."""
    with _socket(_NETLINK_GENERIC) as generic:
        number = _family_id(generic, family)
        return [] if number is None else list(_dump(generic, number, body))


def _decoded(codec: str, wire: bytes) -> Any:
    message = _codec(codec)(wire)
    message.decode()
    return message


def _answer(opened: socket.socket) -> Iterator[bytes]:
    """The messages of one answer, until its end; raises OSError with the kernel's error or a time-out."""
    for _ in range(_MAX_MESSAGES):
        for kind, wire in split_messages(opened.recv(_BUFFER_BYTES)):
            if kind == _DONE:
                return
            if kind == _ERROR:
                code = -struct.unpack_from("=i", wire, _HEADER.size)[0]
                if code == 0:
                    return
                raise OSError(code, "netlink")
            yield wire


def split_messages(chunk: bytes) -> Iterator[tuple[int, bytes]]:
    """(type, message) for each message in a datagram; raises ValueError when one is cut short."""
    at = 0
    while at + _HEADER.size <= len(chunk):
        length, kind = struct.unpack_from("=IH", chunk, at)
        if length < _HEADER.size or at + length > len(chunk):
            raise ValueError(f"a netlink message of {length} bytes in a datagram of {len(chunk)}")
        yield kind, chunk[at : at + length]
        at += (length + 3) & ~3


def _family_id(generic: socket.socket, name: bytes) -> int | None:
    """The number of a generic netlink family; None when the kernel has none of this name."""
    attribute = struct.pack("=HH", 4 + len(name) + 1, _ATTR_FAMILY_NAME) + name + b"\0"
    body = struct.pack("=BBH", _GET_FAMILY, 1, 0) + attribute.ljust((len(attribute) + 3) & ~3, b"\0")
    generic.send(_HEADER.pack(_HEADER.size + len(body), _GENERIC_CONTROL, _REQUEST, 1, 0) + body)
    kind, wire = next(split_messages(generic.recv(_BUFFER_BYTES)))
    return None if kind == _ERROR else parse_family_id(wire)


def parse_family_id(wire: bytes) -> int | None:
    at = _HEADER.size + 4
    while at + 4 <= len(wire):
        length, kind = struct.unpack_from("=HH", wire, at)
        if kind == _ATTR_FAMILY_ID and length >= 6:
            return int(struct.unpack_from("=H", wire, at + 4)[0])
        at += max(4, (length + 3) & ~3)
    return None


_CODECS = {
    "ndmsg": "pyroute2.netlink.rtnl.ndmsg",
    "nl80211cmd": "pyroute2.netlink.nl80211",
}


def _codec(name: str) -> Callable[[bytes], Any]:
    """One of pyroute2's message classes, imported without the package's __init__, which imports everything.

    The bare package is taken away again, so that another part that imports pyroute2 gets the whole of it.
    """
    module = sys.modules.get(_CODECS[name])
    if module is None:
        bare = None if "pyroute2" in sys.modules else _bare_package("pyroute2")
        try:
            if bare is not None:
                sys.modules["pyroute2"] = bare
            module = importlib.import_module(_CODECS[name])
        finally:
            if bare is not None:
                del sys.modules["pyroute2"]
    codec: Callable[[bytes], Any] = getattr(module, name)
    return codec


def _bare_package(name: str) -> types.ModuleType | None:
    spec = importlib.util.find_spec(name)
    if spec is None or spec.submodule_search_locations is None:
        raise ImportError(f"{name} is not installed")
    package = types.ModuleType(name)
    package.__path__ = list(spec.submodule_search_locations)
    package.__spec__ = spec
    return package
