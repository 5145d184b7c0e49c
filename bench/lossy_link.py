"""Two hosts (network namespaces) at the ends of a slow, long link that loses packets: TUN devices, relay, nftables."""

from __future__ import annotations

import contextlib
import fcntl
import itertools
import json
import os
import shutil
import struct
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.gateways import ROOT, BenchError

# From linux/if_tun.h: bare IP packets, nothing before them.
_TUNSETIFF, _IFF_TUN, _IFF_NO_PI = 0x400454CA, 0x0001, 0x1000
_MTU_BYTES = 1500
_COMMAND_S, _STOP_S = 30.0, 10.0
_numbers = itertools.count(1)


class UnknownControl(BenchError):
    """This kernel does not have that congestion control."""


@dataclass(frozen=True, slots=True)
class Conditions:
    """A link both of whose directions are alike; `loss` is the share of packets lost each way, `queue_bytes` None
    for what the link holds in one round trip."""

    rate_bps: float = 20e6
    rtt_ms: float = 100.0
    loss: float = 0.03
    queue_bytes: float | None = None


class LossyLink:
    """Hosts 0 and 1; `addresses` are theirs on the link."""

    addresses = ("10.64.0.1", "10.64.0.2")

    def __init__(self, conditions: Conditions) -> None:
        self.conditions = conditions
        mark = f"{os.getpid()}n{next(_numbers)}"
        self.namespaces = (f"pclossy{mark}a", f"pclossy{mark}b")
        self._devices = (f"pt{mark}a", f"pt{mark}b")
        self._relay: subprocess.Popen[str] | None = None
        self.counters: list[dict[str, float]] = []

    def command(self, host: int, *arguments: str) -> list[str]:
        """A command line that runs on a host."""
        return ["ip", "netns", "exec", self.namespaces[host], *arguments]

    def open(self) -> None:
        """Raises BenchError."""
        _require()
        descriptors: list[int] = []
        try:
            descriptors += [self._make_host(0)]
            descriptors += [self._make_host(1)]
            self._start_relay(descriptors)
        finally:
            for descriptor in descriptors:
                os.close(descriptor)

    def _make_host(self, host: int) -> int:
        namespace, device = self.namespaces[host], self._devices[host]
        _run("ip", "netns", "add", namespace)
        descriptor = _tun(device)
        try:
            _run("ip", "link", "set", device, "netns", namespace)
            address, peer = self.addresses[host], self.addresses[1 - host]
            _run("ip", "-n", namespace, "link", "set", "lo", "up")
            _run("ip", "-n", namespace, "addr", "add", address, "peer", peer, "dev", device)
            _run("ip", "-n", namespace, "link", "set", device, "mtu", str(_MTU_BYTES), "txqueuelen", "1000", "up")
            if self.conditions.loss:
                _run(*self.command(host, "nft", "-f", "-"), text=_loss_rules(device, self.conditions.loss))
        except BaseException:
            os.close(descriptor)
            raise
        return descriptor

    def _start_relay(self, descriptors: Sequence[int]) -> None:
        wanted = self.conditions
        arguments = ["--descriptors", *map(str, descriptors), "--rate", str(wanted.rate_bps)]
        arguments += ["--delay-ms", str(wanted.rtt_ms / 2)]
        if wanted.queue_bytes is not None:
            arguments += ["--queue", str(wanted.queue_bytes)]
        command = [sys.executable, "-m", "bench.relay", *arguments]
        self._relay = subprocess.Popen(
            command, cwd=ROOT, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True, pass_fds=descriptors
        )
        assert self._relay.stdout is not None
        if self._relay.stdout.readline() != "ready\n":
            raise BenchError("the relay does not start")
        with contextlib.suppress(PermissionError):  # a relay that waits for the processor is a link that stutters
            os.setpriority(os.PRIO_PROCESS, self._relay.pid, -10)

    def set_tcp(self, congestion_control: str) -> None:
        """What TCP connections of both hosts use from now on; raises UnknownControl."""
        known = Path("/proc/sys/net/ipv4/tcp_available_congestion_control").read_text().split()
        if congestion_control not in known:
            raise UnknownControl(f"{congestion_control} is none of {', '.join(known)}")
        for host in (0, 1):
            route = (self.addresses[1 - host], "dev", self._devices[host], "congctl", congestion_control)
            _run("ip", "-n", self.namespaces[host], "route", "replace", *route)

    def sent(self, host: int) -> tuple[int, int]:
        """IP packets and bytes that a host has put on the link, by the kernel's count."""
        return self._count(host, "tx")

    def arrived(self, host: int) -> tuple[int, int]:
        """IP packets and bytes that came out of the link's end, those that are lost there included."""
        return self._count(host, "rx")

    def _count(self, host: int, way: str) -> tuple[int, int]:
        text = _run("ip", "-n", self.namespaces[host], "-s", "-j", "link", "show", "dev", self._devices[host])
        counted = json.loads(text)[0]["stats64"][way]
        return counted["packets"], counted["bytes"]

    def lost(self, host: int) -> int:
        """IP packets lost on the way to a host."""
        if not self.conditions.loss:
            return 0
        rules = json.loads(_run(*self.command(host, "nft", "-j", "list", "table", "inet", "lossy")))
        return sum(_counted(entry["rule"]["expr"]) for entry in rules["nftables"] if "rule" in entry)

    def close(self) -> None:
        """Ends the relay, whose counters are known afterwards, and removes the hosts."""
        if self._relay is not None:
            self._relay.terminate()
            try:
                out, _ = self._relay.communicate(timeout=_STOP_S)
                self.counters = json.loads(out or "[]")
            finally:
                self._relay.kill()
                self._relay.wait()
        for namespace in self.namespaces:
            if Path("/run/netns", namespace).exists():
                _run("ip", "netns", "del", namespace)


@contextlib.contextmanager
def lossy_link(conditions: Conditions) -> Iterator[LossyLink]:
    """Two hosts and what joins them, gone afterwards. Raises BenchError where it can't be made."""
    link = LossyLink(conditions)
    try:
        link.open()
        yield link
    finally:
        link.close()


def _require() -> None:
    if os.geteuid() != 0:
        raise BenchError("a lossy link needs network namespaces and TUN devices, which only root makes: use sudo")
    missing = [tool for tool in ("ip", "nft") if shutil.which(tool) is None]
    if missing:
        raise BenchError(f"{', '.join(missing)} missing; type: apt-get install iproute2 nftables")
    if not Path("/dev/net/tun").exists():
        raise BenchError("/dev/net/tun is missing; type: modprobe tun")


def _tun(name: str) -> int:
    """The descriptor of a new device, which lives as long as one is open."""
    descriptor = os.open("/dev/net/tun", os.O_RDWR | os.O_CLOEXEC)
    try:
        fcntl.ioctl(descriptor, _TUNSETIFF, struct.pack("16sH22x", name.encode(), _IFF_TUN | _IFF_NO_PI))
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def _loss_rules(device: str, loss: float) -> str:
    return f"""
table inet lossy {{
	chain input {{
		type filter hook input priority 0; policy accept;
		iifname "{device}" numgen random mod 1000 < {round(loss * 1000)} counter drop
	}}
}}
"""


def _counted(expressions: list[dict[str, Any]]) -> int:
    return sum(each["counter"]["packets"] for each in expressions if "counter" in each)


def _run(*arguments: str, text: str | None = None) -> str:
    done = subprocess.run(arguments, input=text, capture_output=True, text=True, timeout=_COMMAND_S, check=False)
    if done.returncode != 0:
        raise BenchError(f"`{' '.join(arguments)}`: {done.stderr.strip() or done.returncode}")
    return done.stdout
