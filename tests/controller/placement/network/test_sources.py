"""The topologies that a command line names. The real networks are read where PICASSO_TOPOLOGIES has their folder."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest

from controller.placement import TopologyError, qmp_like
from controller.placement.network.netjson import to_netjson
from controller.placement.network.sources import load_topology
from tests.controller.placement.network.test_routing import BATMAN, BATMAN_TEXT, BMX6, OLSR, OLSR_TEXT


def test_a_generated_network_is_named_by_size_and_seed() -> None:
    """qmp:N:SEED is the generator's network."""
    assert np.array_equal(load_topology("qmp:12:3").rates_mbps, qmp_like(12, 3).rates_mbps)


@pytest.mark.parametrize(
    ("text", "nodes"),
    [
        (json.dumps(to_netjson(qmp_like(5, 1))), 5),
        (json.dumps(OLSR), 2),
        (OLSR_TEXT, 3),
        (json.dumps(BATMAN), 2),
        (BATMAN_TEXT, 2),
        (json.dumps(BMX6), 2),
    ],
)
def test_the_kind_of_a_file_is_found_out(tmp_path: Path, text: str, nodes: int) -> None:
    """NetJSON and the output of each routing daemon are told apart by what is in the file."""
    file = tmp_path / "network"
    file.write_text(text, encoding="utf-8")
    assert len(load_topology(str(file))) == nodes


def test_the_daemon_may_be_named(tmp_path: Path) -> None:
    """olsr:FILE is read as that daemon's output and as nothing else."""
    file = tmp_path / "network"
    file.write_text(OLSR_TEXT, encoding="utf-8")
    assert len(load_topology(f"olsr:{file}")) == 3
    with pytest.raises(TopologyError, match="no output of bmx6"):
        load_topology(f"bmx6:{file}")


@pytest.mark.parametrize(
    ("content", "named"),
    [
        (b"\xff\xfe", "UTF-8"),
        (b"{", "line 1"),
        (b"5", "NetworkGraph"),
        (b"{}", "NetworkGraph"),
        (b"[" * 100_000, "deeply"),
        (b'{"vis": 5}', "no output of batman"),
    ],
)
def test_a_file_that_is_no_topology_is_named_with_the_reason(tmp_path: Path, content: bytes, named: str) -> None:
    """What cannot be read as text, as JSON or as a network says so, with the file's name."""
    file = tmp_path / "network"
    file.write_bytes(content)
    with pytest.raises(TopologyError, match=r"network'") as refused:
        load_topology(str(file))
    assert named in str(refused.value)


@pytest.mark.parametrize("source", ["qmp:", "qmp:0:1", "qmp:5", "qmp:5:-1", "qmp:5:x", "qmp:100001:1", "qmp:٣:1"])
def test_a_generated_network_that_cannot_be_is_refused(source: str) -> None:
    """A size or seed that is none is refused with what would be accepted."""
    with pytest.raises(TopologyError, match="'qmp:54:7'"):
        load_topology(source)


@pytest.mark.parametrize("source", ["", "no/such/file", "olsr:no/such/file", "/", "a\0b"])
def test_a_file_that_cannot_be_read_is_named(source: str) -> None:
    """A file that is not there, or is none, is refused by name."""
    with pytest.raises(TopologyError) as refused:
        load_topology(source)
    assert repr(source) in str(refused.value)


if "PICASSO_TOPOLOGIES" in os.environ:

    @pytest.mark.parametrize(
        ("name", "nodes", "links"),
        [
            ("freifunk-berlin-2020", 52, 76),
            ("freifunk-leipzig-2020", 87, 396),
            ("nycmesh-2025", 857, 2382),
            ("qmpsu-like-121", 54, 216),
            ("qmpsu-like-147", 54, 216),
        ],
    )
    def test_the_real_networks_are_read(name: str, nodes: int, links: int) -> None:
        """Each of the five files gives all its nodes and links; only what is no measurement is noted."""
        topology = load_topology(f"{os.environ['PICASSO_TOPOLOGIES']}/{name}.json")
        assert (len(topology), len(topology.edges)) == (nodes, links)
        assert all("derived" in note or "itself" in note for note in topology.notes)
