"""Hosts joined by cables: network namespaces and veth pairs of this test alone, gone afterwards."""

from __future__ import annotations

import ctypes
import itertools
import os
import subprocess
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import TypeVar

CLONE_NEWNET = 0x40000000
T = TypeVar("T")
_numbers = itertools.count(1)


def ip(*arguments: str) -> str:
    return subprocess.run(["ip", *arguments], check=True, capture_output=True, text=True).stdout


class Hosts:
    """Host `a` is the namespace `name("a")`; its end of the cable to `b` is the device `to-b`."""

    def __init__(self, hosts: str) -> None:
        self._prefix = f"pcm{os.getpid()}n{next(_numbers)}"
        self.hosts = hosts

    def name(self, host: str) -> str:
        return self._prefix + host

    def ip(self, host: str, *arguments: str) -> str:
        return ip("-n", self.name(host), *arguments)

    def cable(self, a: str, b: str, net: str) -> None:
        """`net` is the first three numbers of a /24, in which `a` is .1 and `b` is .2."""
        ends = (a, b, f"{net}.1"), (b, a, f"{net}.2")
        ip(
            *("link", "add", f"to-{b}", "netns", self.name(a), "type", "veth"),
            *("peer", "name", f"to-{a}", "netns", self.name(b)),
        )
        for host, other, address in ends:
            self.ip(host, "addr", "add", f"{address}/24", "dev", f"to-{other}")
            self.ip(host, "link", "set", f"to-{other}", "up")

    def route(self, host: str, net: str, via: str) -> None:
        self.ip(host, "route", "replace", f"{net}.0/24", "via", via)

    def forwards(self, host: str) -> None:
        """Makes a host an IP router."""
        command = ["ip", "netns", "exec", self.name(host), "sysctl", "-qw", "net.ipv4.ip_forward=1"]
        subprocess.run(command, check=True)

    def run(self, host: str, work: Callable[[], T]) -> T:
        """Does something on a host, on a thread that ends; sockets made there stay there."""

        def entered() -> T:
            with open(f"/run/netns/{self.name(host)}") as namespace:
                if ctypes.CDLL(None, use_errno=True).setns(namespace.fileno(), CLONE_NEWNET):
                    raise OSError(ctypes.get_errno(), "setns")
            return work()

        with ThreadPoolExecutor(1) as thread:
            return thread.submit(entered).result()


@contextmanager
def hosts(letters: str) -> Iterator[Hosts]:
    """A host for each letter, with nothing but its loopback interface."""
    made = Hosts(letters)
    try:
        for host in letters:
            ip("netns", "add", made.name(host))
            made.ip(host, "link", "set", "lo", "up")
        yield made
    finally:
        for host in letters:
            subprocess.run(["ip", "netns", "del", made.name(host)], check=False, capture_output=True)
