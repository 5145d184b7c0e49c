"""A network of one controller and one provider, with keys of its own, and gateways that run what they decide."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from executor_world import Gateway, World

_PACKAGES = {"crun": "crun", "runc": "runc", "bwrap": "bubblewrap", "busybox": "busybox-static"}


@pytest.fixture(scope="session")
def runtimes() -> None:
    """The container runtimes, installed where that is allowed."""
    missing = [package for program, package in _PACKAGES.items() if shutil.which(program) is None]
    if missing and os.geteuid() == 0:
        subprocess.run(["apt-get", "install", "-y", "-q", *missing], check=True, capture_output=True, timeout=300)


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


@pytest.fixture
def open_directory():
    """A directory that other users reach, which pytest's own are not."""
    with tempfile.TemporaryDirectory(prefix="picasso-test-") as name:
        Path(name).chmod(0o755)
        yield Path(name)


@pytest.fixture
def gateway(world: World, runtimes: None):
    gateways: list[Gateway] = []

    def make(**options: object) -> Gateway:
        gateways.append(Gateway(world, **options))
        return gateways[-1]

    yield make
    for each in gateways:
        each.destroy()
