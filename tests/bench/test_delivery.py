"""The figures of content delivery: what they are held against, and that small runs give them."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from bench import delivery, delivery_runs, ferry, fluid, heatmap, layers, torrent
from bench.gateways import ROOT
from tests.emulation.conditions import needs_namespaces

#            10             5
#   root ───────── one ────────── two
#     └─────────── three
#            40
PARENTS = {"one": "root", "two": "one", "three": "root"}
MBPS = {("root", "one"): 10.0, ("one", "two"): 5.0, ("root", "three"): 40.0}
MEGABYTE = 1_000_000


def test_perfect_delivery_is_as_slow_as_the_narrowest_link() -> None:
    """8 Mbit over 10, 5 and 40 Mbit/s."""
    assert fluid.delivery_s(PARENTS, MBPS, MEGABYTE) == {"one": 0.8, "two": 1.6, "three": 0.2}


def test_a_copy_takes_its_frames() -> None:
    """1448 bytes fill a frame of 1514; every second one is acknowledged by 66 bytes the other way."""
    assert fluid.link_bytes(1448 * 10, is_both_ways=False) == pytest.approx(15_140)
    assert fluid.link_bytes(1448 * 10) == pytest.approx(15_140 + 5 * 66)


def test_perfect_unicast_shares_the_links() -> None:
    """Two copies share the link of 10 Mbit/s, 5 each, so both take 1.6 s; the third has a link for itself."""
    assert fluid.unicast_s(PARENTS, MBPS, MEGABYTE) == pytest.approx({"one": 1.6, "two": 1.6, "three": 0.2})


def test_what_one_leaves_another_takes() -> None:
    """Held to 2 Mbit/s by its own link, a download leaves 8 of 10 to the other."""
    mbps = {("root", "one"): 10.0, ("one", "two"): 2.0}
    found = fluid.unicast_s({"one": "root", "two": "one"}, mbps, MEGABYTE)
    assert found == pytest.approx({"one": 1.0, "two": 4.0})


def test_tree_is_the_described_one() -> None:
    """16 gateways beside the root, 16 links of which none is below 4 Mbit/s, in the middle of what seeds give."""
    tree = delivery_runs.qmp_tree()
    assert len(tree.parents) == 16 and len(tree.topology.links) == 16
    rates = list(tree.mbps.values())
    assert min(rates) == 4.0 and 20 < sum(rates) / 16 < 23
    ours, unicast = tree.fluid_s(145 * MEGABYTE)
    assert 0.19 < ours / unicast < 0.21
    assert tree.hops() == sum(map(len, fluid.paths(tree.parents).values())) > 16


def test_fewest_contacts_carry_want_and_bytes() -> None:
    """30 MB take four contacts of 4 s at 20 Mbit/s on each side, and one before for the want; a small blob one each."""
    assert ferry.fewest_contacts(30 * MEGABYTE) == 9
    assert ferry.fewest_contacts(MEGABYTE) == 3
    assert ferry.fewest_contacts(10 * MEGABYTE) == 5  # headers leave less than 10 MB of 10 MB


def test_second_version_shares_all_but_one_layer() -> None:
    """Three of four layers are the same bytes."""
    first, second = layers.versions(0.2)
    assert [one == other for one, other in zip(first.layers, second.layers, strict=True)] == [True, True, True, False]


def test_bencoding_is_as_the_specification_says() -> None:
    """Integers, strings, lists and dictionaries with their keys in order (BEP 3)."""
    assert torrent.encode({"b": [1, "two"], "a": b"\xff"}) == b"d1:a1:\xff1:bli1e3:twoee"


def test_tracker_tells_each_of_the_others() -> None:
    """The second to come learns of the first, in six bytes; whoever stops is forgotten."""
    tracker = torrent.Tracker("", "")
    tracker.announce("10.0.0.1", "info_hash=%ff&port=6881&event=started")
    assert tracker.announce("10.0.0.2", "port=6881").endswith(b"5:peers6:\x0a\x00\x00\x01\x1a\xe1e")
    tracker.announce("10.0.0.1", "port=6881&event=stopped")
    assert tracker.announce("10.0.0.2", "port=6881").endswith(b"5:peers0:e")


def test_table_says_what_is_reached() -> None:
    """A figure within its limit, one beyond, the ferry's own limit, and a row that failed."""
    figures = {"time_vs_unicast": 0.2, "bytes_vs_bound": 1.2, "ferry_contacts": 10, "ferry_contacts_fewest": 9}
    lines = delivery.render(delivery.ROWS, figures).splitlines()
    assert next(line for line in lines if "mean time to 16" in line).endswith("| ≤ 0.25 | **0.2** | reached |")
    assert next(line for line in lines if "image once on each" in line).endswith("**1.2** | not reached |")
    assert next(line for line in lines if "ferry" in line).endswith("| ≤ 10 | **10** | reached |")
    assert next(line for line in lines if "3 % loss" in line).endswith("| ≥ 0.85 | failed | failed |")


def test_heat_map_has_every_link_once_and_one_scale() -> None:
    """Darkest is what carried most, in both panels by the same measure; no link is an empty cell."""
    drawn = heatmap.draw([("one", {("a", "b"): 4.0, ("b", "a"): 0.0}), ("other", {("a", "b"): 1.0})], ["a", "b"])
    assert drawn.count("fill='rgb(0,0,0)'") == 2  # the cell of 4 and the end of the scale
    assert drawn.count(">4.0<") == 2 and drawn.count(">1.0<") == 1
    assert drawn.count("stroke='#e4e4e4'") == 2 * 4 - 3


@needs_namespaces
@pytest.mark.skipif(shutil.which("aria2c") is None, reason="aria2 is what it compares with: apt-get install aria2")
def test_small_tree_is_compared(tmp_path: Path) -> None:
    """Four gateways and 1.5 MB: every way brings all of it everywhere; ours sends less than the others."""
    tree, image = delivery_runs.qmp_tree(gateways=4), delivery_runs.image_of(1.5)
    said: list[str] = []
    found = delivery_runs.compare(tree, image, said.append)
    bound = len(tree.parents) * image.size
    assert all(set(way.seconds) == set(tree.parents) for way in found.values())
    assert bound < found["ours"].bytes < 2 * bound
    assert found["ours"].bytes < found["bittorrent"].bytes
    assert found["unicast"].bytes > tree.hops() * image.size
    text = json.dumps(
        {"tree": {"nodes": tree.topology.nodes, "image_bytes": image.size, "ways": delivery_runs.as_json(found)}}
    )
    file, drawing = tmp_path / "figures.json", tmp_path / "map.svg"
    file.write_text(text)
    command = [sys.executable, "-m", "bench.heatmap", str(file), str(drawing)]
    subprocess.run(command, cwd=ROOT, check=True, timeout=30)
    assert drawing.read_text().count("HTTP unicast") == 1


@needs_namespaces
def test_command_measures_one_row(tmp_path: Path) -> None:
    """`--only layers` with a small image: the table's line, and the JSON with the share and the bytes behind it."""
    target = tmp_path / "figures.json"
    command = [sys.executable, "-m", "bench.delivery", "--image-mb", "1.5", "--only", "layers", "--json", str(target)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=100, check=False)
    assert done.returncode == 0, done.stderr
    figures = json.loads(target.read_text())
    assert 1.0 < figures["shared_layers_share"] < 2
    assert figures["shared_layers"]["received"] < figures["shared_layers"]["image_bytes"] / 2
    assert "second version" in done.stdout


def test_rows_are_listed(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """`--list` names every row without measuring."""
    monkeypatch.setattr(sys, "argv", ["delivery", "--list"])
    before = signal.getsignal(signal.SIGTERM)
    try:
        assert delivery.main() == 0
    finally:
        signal.signal(signal.SIGTERM, before)
    listed = [line.split()[0] for line in capsys.readouterr().out.splitlines()]
    assert listed == ["tree", "lossy", "ferry", "layers"]
