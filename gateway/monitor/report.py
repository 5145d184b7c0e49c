"""Composes the report of a node: what it is, how busy, what it hears and runs, ordered by boot and sequence."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace

from gateway.monitor.host import HostSample
from gateway.protocol import codec
from gateway.protocol.messages import (
    ForwarderCounters,
    InterfaceReport,
    LinkReport,
    NodeReport,
    RouteReport,
    ServiceStatus,
)

# A report is one packet: 8,800 bytes less name and signature.
CONTENT_MAX_BYTES = 8300


@dataclass(frozen=True, slots=True)
class Identity:
    """What does not change while the node runs; `boot_counter` grows by one at every start of the gateway."""

    node: str
    boot_counter: int = 0
    kernel_boot_id: str = ""
    zone: str = ""
    latitude: float | None = None
    longitude: float | None = None
    labels: tuple[str, ...] = ()
    addresses: tuple[str, ...] = ()
    software: str = ""
    interval_s: float = 30.0

    @property
    def boot_id(self) -> str:
        """Sorts as text in the order of starts, without a clock."""
        return f"{self.boot_counter:010d}-{self.kernel_boot_id[:8]}"


@dataclass(frozen=True, slots=True)
class Parts:
    """What the parts of the gateway say at the moment of a report."""

    host: HostSample = field(default_factory=HostSample)
    interfaces: tuple[InterfaceReport, ...] = ()
    links: tuple[LinkReport, ...] = ()
    routes: tuple[RouteReport, ...] = ()
    services: tuple[ServiceStatus, ...] = ()
    forwarder: ForwarderCounters = field(default_factory=ForwarderCounters)
    blobs: tuple[bytes, ...] = ()
    runtimes: tuple[str, ...] = ()
    addresses: tuple[str, ...] = ()


class Reporter:
    """Numbers the reports of one run of the gateway."""

    def __init__(self, identity: Identity) -> None:
        self.identity = identity
        self._sequence = 0

    @property
    def version(self) -> int:
        """The version in the newest report's name: grows with every report, and over restarts."""
        return self.identity.boot_counter << 32 | self._sequence

    def compose(self, parts: Parts, wall_time: float) -> NodeReport:
        """The next report; `wall_time` is Unix time and may be wrong."""
        self._sequence += 1
        me = self.identity
        return NodeReport(
            node=me.node,
            boot_id=me.boot_id,
            sequence=self._sequence,
            time=wall_time,
            zone=me.zone,
            latitude=me.latitude,
            longitude=me.longitude,
            labels=me.labels,
            addresses=tuple(dict.fromkeys((*me.addresses, *parts.addresses))),
            uptime_s=parts.host.uptime_s,
            hardware=parts.host.hardware,
            load=parts.host.load,
            interfaces=parts.interfaces,
            links=parts.links,
            routes=parts.routes,
            services=parts.services,
            forwarder=parts.forwarder,
            blobs=parts.blobs,
            runtimes=parts.runtimes,
            software=me.software,
            interval_s=me.interval_s,
        )


def encode(report: NodeReport) -> bytes:
    """The report's content, in one packet: what placement needs least is shortened first, services last."""
    content = codec.encode(report)
    for shorten in _SHORTER:
        while len(content) > CONTENT_MAX_BYTES:
            shorter = shorten(report)
            if shorter == report:
                break
            report, content = shorter, codec.encode(shorter)
    return content


def _without_idle_interfaces(report: NodeReport) -> NodeReport:
    return replace(report, interfaces=tuple(i for i in report.interfaces if i.state == "up"))


def _without_dead_links(report: NodeReport) -> NodeReport:
    return replace(report, links=tuple(link for link in report.links if link.state == "up"))


def _with_short_reasons(report: NodeReport) -> NodeReport:
    return replace(report, services=tuple(replace(s, reason=s.reason[:80]) for s in report.services))


_SHORTER: tuple[Callable[[NodeReport], NodeReport], ...] = (
    lambda r: replace(r, blobs=r.blobs[: len(r.blobs) // 2]),
    _without_idle_interfaces,
    lambda r: replace(r, routes=r.routes[: len(r.routes) // 2]),
    _without_dead_links,
    lambda r: replace(r, interfaces=r.interfaces[: len(r.interfaces) // 2]),
    _with_short_reasons,
    lambda r: replace(r, links=r.links[: len(r.links) * 3 // 4]),
    lambda r: replace(r, services=r.services[: len(r.services) * 3 // 4]),
)
