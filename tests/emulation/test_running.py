"""A running emulation: real gateways get a decided image by the tree, over routers; the command ends cleanly."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
import time
from collections.abc import Iterator

import pytest

from tests.emulation import image, topology
from tests.emulation.conditions import needs_namespaces
from tests.emulation.gateways import wait_for
from tests.emulation.namespaces import ROOT
from tests.emulation.running import Emulation
from tests.emulation.topology import Topology

#               30               30             30
#   repository ───── router ───────── middle ───────── leaf
_LINE = topology.tree([("repository", "router", 30), ("router", "middle", 30), ("middle", "leaf", 30)])
LINE = Topology(_LINE.nodes, _LINE.links, ("repository", "middle", "leaf"))


@pytest.fixture
def emulation() -> Iterator[Emulation]:
    with Emulation(LINE, "repository") as running:
        yield running.start()


@needs_namespaces
def test_decided_image_goes_down_the_tree(emulation: Emulation) -> None:
    """Both gateways get every blob by their own placement clients, the leaf from the other one."""
    assert emulation.parents == {"middle": "repository", "leaf": "middle"}
    made = image.make([image.layer(400_000, 1), image.layer(600_000, 2)])
    refs = emulation.add(made)
    emulation.deliver("web", refs)
    gateways = [emulation.gateways[node] for node in ("middle", "leaf")]
    wait_for(lambda: all(gateway.holds([ref.sha256 for ref in refs]) for gateway in gateways), 30, "the image")
    asked = next(row for row in emulation.gateways["leaf"].ask("faces") if row["node"] == "middle")
    assert asked["in_data_bytes"] > made.size
    assert all(gateway.held_bytes(refs[-1].sha256, refs[-1].size) == refs[-1].size for gateway in gateways)


@needs_namespaces
def test_emulate_is_played_with_from_a_pipe() -> None:
    """`make emulate` shows the image arrive, does what is typed, and ends with its time; nothing is left."""
    command = [sys.executable, "-m", "tests.emulation", "--topology", "qmp:3:1", "--image-mb", "0.3", "--seconds", "6"]
    typed = "loss 0 1\nnonsense\n"
    done = subprocess.run(command, cwd=ROOT, input=typed, capture_output=True, text=True, timeout=80, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "3 of 3 gateways have the image" in done.stdout
    assert "loses 1%" in done.stdout and "are accepted" in done.stdout


def test_image_is_an_oci_image_of_its_size() -> None:
    """The manifest names configuration and layers by digest; the same arguments give the same bytes."""
    made = image.make([image.layer(50_000, 1), image.layer(20_000, 2)])
    manifest = json.loads(made.manifest)
    named = [manifest["config"], *manifest["layers"]]
    assert [each["digest"] for each in named] == ["sha256:" + hashlib.sha256(b).hexdigest() for b in made.blobs[1:]]
    assert 70_000 < made.size < 90_000
    assert made == image.make([image.layer(50_000, 1), image.layer(20_000, 2)])


def test_wait_for_gives_up_in_words() -> None:
    """What was waited for, and how long, is in the error."""
    started = time.monotonic()
    with pytest.raises(Exception, match=r"the moon: not within 0.2 s"):
        wait_for(lambda: False, 0.2, "the moon", 0.05)
    assert time.monotonic() - started < 2
