"""The figure of the lossy hop: a blob crosses a real link of that kind, and what it cost is counted."""

from __future__ import annotations

import random

import pytest

from bench import lossy
from bench.lossy_link import Conditions
from tests.bench.test_relay import needs_namespaces


@needs_namespaces
def test_a_blob_crosses_a_lossy_link(monkeypatch: pytest.MonkeyPatch) -> None:
    """With one packet in twenty lost each way a blob comes whole, nearly without the consumer's asking again."""
    monkeypatch.setattr(lossy, "_CALM_S", 0.5)
    content = random.Random(4).randbytes(1_000_000)
    run = lossy.through_gateways(Conditions(20e6, 40, 0.05), content, "udp4", lossy.RELIABLE, limit_s=60)
    near, far = run["link_layer"]
    assert run["bytes"] == 1_000_000 and 0 < run["share"] < 1
    assert min(run["lost"]) > 0
    assert far["retransmissions"] >= 0.03 * run["packets"][1]
    assert far["given_up"] == near["given_up"] == 0
    assert run["interests"] <= 1.1 * run["segments"]
    assert run["control_ms"]["lost"] == 0


@needs_namespaces
def test_http_is_measured_on_the_same_kind_of_link() -> None:
    """The reference downloads the same bytes over a link of its own, and is cut off when it takes too long."""
    content = bytes(500_000)
    whole = lossy.through_http(Conditions(20e6, 10, 0), content, "reno")
    assert whole["bytes"] == 500_000 and 0.1 < whole["share"] < 1
    cut = lossy.through_http(Conditions(1e6, 100, 0), content, "reno", limit_s=2.0)
    assert 0 < cut["bytes"] < 500_000


def test_the_table_has_each_way() -> None:
    """A line for each way that was taken, with its share and what the link carried for each byte."""
    run = {"share": 0.9, "mbps": 18.0, "wire_bytes_per_blob_byte": 1.1, "packets": [1, 2]}
    run |= {"control_ms": {"count": 2, "median": 110.0, "p95": 130.0}}
    conditions = {"rate_bps": 20e6, "rtt_ms": 100, "loss": 0.03}
    result = {"share": 0.9, "conditions": conditions, "udp": run, "http cubic": {"share": 0.04, "mbps": 0.8}}
    lines = lossy.render([result]).splitlines()
    assert lines[2] == "| 20 Mbit/s, 100 ms, 3% | udp | **90.0%** | 18 | 1.100 | 110 / 130 ms |"
    assert lines[3] == "| 20 Mbit/s, 100 ms, 3% | http cubic | **4.0%** | 0.8 | – | – |"
