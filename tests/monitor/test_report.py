"""Reports and hellos fit in a packet and come in order."""

from __future__ import annotations

import pytest

from gateway.monitor import hello as hellos
from gateway.monitor import report as reports
from gateway.monitor.report import Identity, Parts, Reporter
from gateway.protocol import codec, keys, names
from gateway.protocol.messages import (
    Bandwidth,
    Heard,
    Hello,
    InterfaceReport,
    LinkReport,
    NodeReport,
    RouteReport,
    ServiceStatus,
)

NETWORK = names.Network("/guifi/sants")


def test_reports_are_numbered_within_a_boot() -> None:
    """The sequence rises by one, and a restarted gateway's boot id and versions sort after the old ones."""
    old, new = (Reporter(Identity("a", boot, "5f3b6e42-7a0c")) for boot in (9, 10))
    first, second = old.compose(Parts(), 5.0), old.compose(Parts(), 1.0)
    before = old.version
    later = new.compose(Parts(), 0.0)
    assert (first.sequence, second.sequence, later.sequence) == (1, 2, 1)
    assert later.boot_id > second.boot_id == "0000000009-5f3b6e42"
    assert new.version > before


def _crowded(count: int) -> NodeReport:
    figure = Bandwidth(12.345, "probe", 17.2, 0.7)
    return Reporter(Identity("pisuerga-7", 4, zone="sants")).compose(
        Parts(
            interfaces=tuple(InterfaceReport(f"wlan{i}", "up" if i % 2 else "down") for i in range(count)),
            links=tuple(LinkReport(f"node-{i}", rx=figure, tx=figure, rtt_ms=1.5) for i in range(count)),
            routes=tuple(RouteReport(f"node-{i}", "node-1", 3) for i in range(count)),
            services=tuple(ServiceStatus(f"s{i}", 1, "refused", reason="because " * 40) for i in range(count // 8)),
            blobs=tuple(i.to_bytes(32, "big") for i in range(count * 4)),
        ),
        1e9,
    )


@pytest.mark.parametrize("count", [0, 8, 60, 300, 1000])
def test_report_fits_in_a_packet(count: int) -> None:
    """However crowded a node is, its signed report is one packet; what is left out goes in a fixed order."""
    key = keys.Key.generate(NETWORK.node("pisuerga-7"))
    content = reports.encode(_crowded(count))
    wire = key.sign(NETWORK.report("pisuerga-7") + names.version(4 << 32 | 1), content, 1000)
    assert len(wire) <= keys.PACKET_MAX_BYTES
    report = codec.decode(NodeReport, content)
    if count <= 8:
        assert report == _crowded(count)
    if count == 60:
        assert len(report.blobs) < 240 and len(report.services) == 7 and len(report.links) == 60


def test_hello_fits_in_a_packet() -> None:
    """A node with hundreds of neighbours still says hello, within one packet inside another."""
    heard = tuple(Heard(f"neighbor-{i}", 16, Bandwidth(1.0, "probe", 3.0, 0.5)) for i in range(600))
    content = hellos.compose(Hello("n" * 64, "0000000001-5f3b6e42", 1, heard=heard))
    key = keys.Key.generate(NETWORK.node("n" * 64))
    inner = key.sign(hellos.data_name("n" * 64, 1 << 45), content)
    outer = keys.sign_data(hellos.ask_name(bytes(8)), inner)
    assert len(outer) <= keys.PACKET_MAX_BYTES
    assert len(hellos.accept(inner, keys.parse, "me").heard) > 100
