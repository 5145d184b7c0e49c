"""A host at the other end of a cable: a network namespace whose sockets this process can use."""

from __future__ import annotations

import ctypes
import os
import socket
import subprocess
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import TypeVar

CLONE_NEWNET = 0x40000000
T = TypeVar("T")


class FarHost:
    """Behind `interface` of this machine; `address` and `near` are the IPv4 addresses of both ends, `mac` its own."""

    def __init__(self, number: int) -> None:
        self.namespace = f"pcslink{os.getpid()}n{number}"
        self.interface, self.far_interface = f"pl{os.getpid()}a{number}", f"pl{os.getpid()}b{number}"
        # The addresses of RFC 2544 are nobody's.
        net = f"198.18.{os.getpid() % 256}"
        self.near, self.address, self.victim = (f"{net}.{number * 8 + i}" for i in (1, 2, 3))
        self.near6, self.address6 = "fe80::1:1", "fe80::1:2"
        self.mac = ""

    def run(self, work: Callable[[], T]) -> T:
        """Does something in the namespace, on a thread that ends; a socket made there stays there."""

        def entered() -> T:
            with open(f"/run/netns/{self.namespace}") as namespace:
                if ctypes.CDLL(None, use_errno=True).setns(namespace.fileno(), CLONE_NEWNET):
                    raise OSError(ctypes.get_errno(), "setns")
            return work()

        with ThreadPoolExecutor(1) as thread:
            return thread.submit(entered).result()

    def udp(self, family: socket.AddressFamily = socket.AF_INET) -> socket.socket:
        """A UDP socket over there, bound to the far address."""

        def make() -> socket.socket:
            made = socket.socket(family, socket.SOCK_DGRAM)
            if family == socket.AF_INET6:
                made.bind((self.address6, 0, 0, socket.if_nametoindex(self.far_interface)))
            else:
                made.bind((self.address, 0))
            made.setblocking(False)
            return made

        return self.run(make)


def ip(*arguments: str) -> str:
    return subprocess.run(["ip", *arguments], check=True, capture_output=True, text=True).stdout


_count = 0


@contextmanager
def far_host(mtu: int = 1500) -> Iterator[FarHost]:
    """A namespace joined to this one by a cable that takes packets of `mtu` bytes; both are gone afterwards."""
    global _count  # noqa: PLW0603 - a number for each cable of this process
    _count += 1
    host = FarHost(_count)
    ip("netns", "add", host.namespace)
    try:
        ip(
            *("link", "add", host.interface, "mtu", str(mtu), "type", "veth"),
            *("peer", "name", host.far_interface, "mtu", str(mtu), "netns", host.namespace),
        )
        for where, interface, address, address6 in (
            ((), host.interface, host.near, host.near6),
            (("-n", host.namespace), host.far_interface, host.address, host.address6),
        ):
            ip(*where, "link", "set", interface, "addrgenmode", "none")
            ip(*where, "addr", "add", f"{address}/29", "dev", interface)
            ip(*where, "-6", "addr", "add", f"{address6}/64", "dev", interface, "nodad")
            ip(*where, "link", "set", interface, "up")
        host.mac = ip("-n", host.namespace, "-br", "link", "show", host.far_interface).split()[2]
        ip("neigh", "replace", host.victim, "lladdr", host.mac, "dev", host.interface)
        yield host
    finally:
        ip("netns", "del", host.namespace)
