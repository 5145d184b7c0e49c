"""The run's processes: whatever it started is found and ended, and nothing else."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from controller.demo.processes import Processes

# A process that leaves its session and its parent, as the shim of a service does, and waits.
ORPHANS = """
import os, sys, time
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        open(sys.argv[1], "w").write(str(os.getpid()))
        time.sleep(60)
    os._exit(0)
time.sleep(60)
"""


@pytest.fixture
def processes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Processes]:
    (tmp_path / "orphans.py").write_text(ORPHANS)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    ours = Processes(f"test-{os.getpid()}-{time.time_ns()}", f"/test/{time.time_ns()}", tmp_path)
    yield ours
    assert ours.kill_all() == []


def start(processes: Processes, name: str, tmp_path: Path) -> int:
    """Starts the program under a name; returns the pid of the process that left it."""
    file = tmp_path / f"{name}.pid"
    processes.start(name, "orphans", [str(file)], tmp_path / "log")
    deadline = time.monotonic() + 10
    while not (file.exists() and file.read_text()):
        assert time.monotonic() < deadline, (tmp_path / "log").read_text()
        time.sleep(0.01)
    return int(file.read_text())


def test_a_killed_node_takes_along_what_it_started(processes: Processes, tmp_path: Path) -> None:
    """Killing a node ends it and what left its session and parent; another node of the run goes on."""
    orphan, other = start(processes, "gw-1", tmp_path), start(processes, "gw-2", tmp_path)
    assert processes.kill("gw-1") == 2
    assert not psutil.pid_exists(orphan) or psutil.Process(orphan).status() == psutil.STATUS_ZOMBIE
    assert psutil.Process(other).status() != psutil.STATUS_ZOMBIE
    assert processes.ended() == {}


def test_a_service_is_found_by_its_environment_or_its_shim(processes: Processes, tmp_path: Path) -> None:
    """Without the run's mark a process is a node's that has its network and name, or a shim with its path."""
    network = processes._network
    wait = [sys.executable, "-c", "import time; time.sleep(60)"]
    inside = subprocess.Popen(wait, env={"PICASSO_NETWORK": network, "PICASSO_NODE": "gw-1"})
    shim = subprocess.Popen([*wait, f"directory={tmp_path}/gw-1/run/x"], env={})
    foreign = subprocess.Popen([*wait, f"directory={tmp_path}/gw-11/run/x"], env={"PICASSO_NETWORK": network + "9"})
    try:
        time.sleep(0.2)
        assert processes.kill("gw-1") == 2
        assert inside.wait(5) == shim.wait(5) == -9
        assert foreign.poll() is None
    finally:
        foreign.kill()
        foreign.wait()


def test_the_end_leaves_nothing_and_touches_nobody_else(processes: Processes, tmp_path: Path) -> None:
    """kill_all ends every process of the run, but not one of another run."""
    other = Processes("other-run", "/test/other", tmp_path / "other")
    mine, theirs = start(processes, "gw-1", tmp_path), start(other, "gw-9", tmp_path)
    assert processes.kill_all() == []
    assert not psutil.pid_exists(mine) or psutil.Process(mine).status() == psutil.STATUS_ZOMBIE
    assert psutil.Process(theirs).status() != psutil.STATUS_ZOMBIE
    assert other.kill_all() == []


def test_terminate_names_who_does_not_stop(processes: Processes, tmp_path: Path) -> None:
    """terminate returns the names of processes that ignore SIGTERM, and forgets those that ended."""
    (tmp_path / "stubborn.py").write_text(
        "import signal, sys, time\n"
        "signal.signal(15, signal.SIG_IGN)\n"
        "open(sys.argv[1], 'w').write('1')\n"
        "time.sleep(60)\n"
    )
    processes.start("deaf", "stubborn", [str(tmp_path / "deaf.pid")], tmp_path / "log")
    start(processes, "gw-1", tmp_path)
    while not (tmp_path / "deaf.pid").exists():
        time.sleep(0.01)
    assert processes.terminate(["deaf", "gw-1", "unknown"], 0.3) == ["deaf"]


def test_a_process_that_ends_by_itself_is_told(processes: Processes, tmp_path: Path) -> None:
    """ended() names a process that is gone, with its exit code, and its output is in the log."""
    (tmp_path / "broken.py").write_text("raise SystemExit('no such thing')")
    processes.start("gw-1", "broken", [], tmp_path / "log")
    deadline = time.monotonic() + 10
    while not processes.ended() and time.monotonic() < deadline:
        time.sleep(0.01)
    assert processes.ended() == {"gw-1": 1}
    assert "no such thing" in (tmp_path / "log").read_text()
