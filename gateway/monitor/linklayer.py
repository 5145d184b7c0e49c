"""What the kernel knows of the links below the faces, as values: interfaces, addresses, neighbours, radio stations."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable
from dataclasses import dataclass
from urllib.parse import urlsplit

from gateway.protocol.messages import InterfaceReport


@dataclass(frozen=True, slots=True)
class Interface:
    index: int
    name: str
    state: str
    mtu: int = 0
    medium: str = ""
    speed_mbps: float | None = None
    rx_bytes: int = 0
    tx_bytes: int = 0
    rx_errors: int = 0
    tx_errors: int = 0
    rx_dropped: int = 0
    tx_dropped: int = 0
    mac: str = ""

    def report(self) -> InterfaceReport:
        return InterfaceReport(
            name=self.name,
            state=self.state,
            medium=self.medium,
            speed_mbps=self.speed_mbps,
            rx_bytes=self.rx_bytes,
            tx_bytes=self.tx_bytes,
            rx_errors=self.rx_errors,
            tx_errors=self.tx_errors,
            rx_dropped=self.rx_dropped,
            tx_dropped=self.tx_dropped,
        )


@dataclass(frozen=True, slots=True)
class Address:
    """`network` is the address with its prefix length; `is_global` leaves out loopback and link-local."""

    interface: int
    network: str
    is_global: bool


@dataclass(frozen=True, slots=True)
class Station:
    """A radio peer as the driver sees it; rates in Mbit/s, None where the driver does not say."""

    interface: int
    mac: str
    signal_dbm: int | None = None
    rx_bitrate_mbps: float | None = None
    tx_bitrate_mbps: float | None = None
    expected_mbps: float | None = None


@dataclass(frozen=True, slots=True)
class LinkLayer:
    """One look at the kernel's tables; an empty one is what a machine without netlink has."""

    interfaces: tuple[Interface, ...] = ()
    addresses: tuple[Address, ...] = ()
    neighbors: tuple[tuple[int, str, str], ...] = ()
    stations: tuple[Station, ...] = ()

    def interface_of(self, local_uri: str) -> Interface | None:
        """The interface that has the local address of a face; None when no interface is known to."""
        host, zone = host_of(local_uri)
        for interface in self.interfaces:
            if zone and interface.name == zone:
                return interface
        address = _address(host)
        if address is None:
            return None
        index = next((a.interface for a in self.addresses if _holds(a.network, address)), None)
        return next((i for i in self.interfaces if i.index == index), None)

    def station_of(self, remote_uri: str) -> Station | None:
        """The radio peer that is the other end of a face; None when the face is wired or the peer some hops away."""
        host, _ = host_of(remote_uri)
        macs = {(index, mac) for index, address, mac in self.neighbors if address == host}
        return next((s for s in self.stations if (s.interface, s.mac) in macs), None)

    def reachable_addresses(self, only: Iterable[str] = ()) -> tuple[str, ...]:
        """Addresses at which others may reach this node; of the interfaces named in `only`, of all when it is empty."""
        chosen = set(only)
        wanted = {i.index for i in self.interfaces if not chosen or i.name in chosen}
        return tuple(a.network.split("/")[0] for a in self.addresses if a.is_global and a.interface in wanted)

    def link_addresses(self, only: Iterable[str] = ()) -> tuple[str, ...]:
        """What others find of this node in tables below IP routes: link-local and hardware addresses."""
        chosen = set(only)
        wanted = {i.index: i for i in self.interfaces if (not chosen or i.name in chosen) and i.mac}
        local = [a.network.split("/")[0] for a in self.addresses if a.interface in wanted and not a.is_global]
        return tuple(dict.fromkeys([*local, *(i.mac for i in wanted.values())]))

    def faces(self, listening: Iterable[tuple[str, str, int]], only: Iterable[str] = ()) -> tuple[str, ...]:
        """The URIs at which this node may be dialled, given (scheme, host, port) of its sockets; TCP before UDP.

        A socket bound to all addresses is reached at each; a link-local one stands without its zone, which is the other
        end's to know. Addresses of the machine itself (127.0.0.1) are only told where the socket is bound to them.
        """
        chosen = set(only)
        names = {i.index: i.name for i in self.interfaces}
        own = [a for a in self.addresses if not chosen or names.get(a.interface) in chosen]
        hosts: dict[int, list[str]] = {4: [], 6: []}
        for each in sorted(own, key=lambda a: not a.is_global):
            address = ipaddress.ip_interface(each.network).ip
            if not address.is_loopback:
                hosts[address.version].append(str(address))
        found = []
        for scheme, host, port in sorted(listening, key=lambda socket: not socket[0].startswith("tcp")):
            bound = _address(host.partition("%")[0])
            if bound is not None:
                at = hosts[bound.version] if bound.is_unspecified else [str(bound)]
                found += [f"{scheme}://{f'[{h}]' if bound.version == 6 else h}:{port}" for h in at]
        return tuple(dict.fromkeys(found))

    def on_link(self, interface: str, host: str) -> bool:
        """Whether an address is that of a machine on this interface's own link, so that no router leads astray."""
        address = _address(host)
        index = next((i.index for i in self.interfaces if i.name == interface), None)
        if address is None or index is None or address.is_unspecified or address.is_multicast:
            return False
        if address.is_link_local:
            return True
        networks = [ipaddress.ip_interface(a.network) for a in self.addresses if a.interface == index]
        return any(address in own.network and address != own.ip for own in networks if own.version == address.version)

    def reports(self, only: Iterable[str] = ()) -> tuple[InterfaceReport, ...]:
        chosen = set(only)
        return tuple(i.report() for i in self.interfaces if not chosen or i.name in chosen)


def host_of(uri: str) -> tuple[str, str]:
    """Host and IPv6 zone of a face URI such as `tcp4://10.1.0.2:6363` or `udp6://[fe80::1%wlan0]:6363`."""
    try:
        host = urlsplit(uri).hostname or ""
    except ValueError:
        return "", ""
    host, _, zone = host.partition("%")
    return host, zone


def _address(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ipaddress.ip_address(host)
    except ValueError:
        return None


def _holds(network: str, address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> bool:
    """An interface has its own address; the loopback interface has the whole of 127.0.0.0/8."""
    own = ipaddress.ip_interface(network)
    return own.ip == address or (own.is_loopback and address.is_loopback and address in own.network)
