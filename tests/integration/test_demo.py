"""The demonstration as a user runs it: once to its end, once interrupted, once where nothing can run services."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
NODES, SERVICES, REPLICAS = 8, 2, 2
# What a face has counted may still be on its way to the kernel: a few packets in Python's and the socket's buffers.
UNSENT_BYTES = 64 * 1024

pytestmark = pytest.mark.timeout(180)

Direction = tuple[str, str]


@dataclass
class Sockets:
    """What the kernel says was received between gateways, looked at again and again: (moment, bytes by direction).

    Acknowledged bytes count each byte once, sent ones also what the kernel had to repeat.
    """

    samples: list[tuple[float, dict[Direction, int]]] = field(default_factory=list)
    _connections: dict[tuple[str, str], int] = field(default_factory=dict)

    def look(self) -> None:
        before = time.time()
        shown = subprocess.run(
            ["ss", "-tinHO", "( sport = :6363 or dport = :6363 )"], capture_output=True, text=True, check=True
        )
        for line in shown.stdout.splitlines():
            words = line.split()
            acknowledged = re.search(r"\bbytes_acked:(\d+)", line)
            self._connections[words[3], words[4]] = int(acknowledged[1]) - 1 if acknowledged else 0  # the SYN counts
        totals: dict[Direction, int] = defaultdict(int)
        for (local, peer), count in self._connections.items():
            totals[local.split(":")[0], peer.split(":")[0]] += count
        self.samples.append((before, dict(totals)))

    def bounds(self, direction: Direction, moment: float) -> tuple[int, int]:
        """The bytes in the last sample that surely was taken before a moment, and in the first that began after it."""
        earlier = [totals for at, totals in self.samples if at < moment - 0.5]
        later = [totals for at, totals in self.samples if at > moment]
        return earlier[-1].get(direction, 0), later[0].get(direction, 0)


@dataclass
class Run:
    code: int
    output: str
    results: dict[str, Any]
    directory: Path
    sockets: Sockets


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "controller", "demo", *arguments]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Run]:
    """One whole run, with its directory kept and its sockets watched from outside."""
    folder = tmp_path_factory.mktemp("demo")
    directory, sockets = Path(f"/tmp/picasso-test-{os.getpid()}"), Sockets()
    arguments = ["--nodes", str(NODES), "--services", str(SERVICES), "--json", str(folder / "out.json")]
    with (folder / "out.txt").open("wb") as output:
        process = subprocess.Popen(
            command(*arguments, "--keep", str(directory)), stdout=output, stderr=subprocess.STDOUT, cwd=ROOT
        )
        while process.poll() is None:
            sockets.look()
            time.sleep(0.25)
    text = (folder / "out.txt").read_text()
    results = json.loads((folder / "out.json").read_text()) if (folder / "out.json").exists() else {}
    yield Run(process.returncode, text, results, directory, sockets)
    shutil.rmtree(directory, ignore_errors=True)


def heads(run: Run) -> set[tuple[str, str]]:
    return {(row["service"], row["head"]) for row in run.results["placements"]}


def test_every_step_works(run: Run) -> None:
    """The demonstration ends with success, says so, and takes less than 90 seconds."""
    assert run.code == 0, run.output
    assert run.results["ok"] is True
    assert "Everything worked" in run.output
    assert run.results["nodes"] == NODES
    assert run.results["seconds"] < 90


def test_services_are_placed_with_reasons(run: Run) -> None:
    """Each service has two different heads, each with its runtime, its reason in figures and a bandwidth."""
    placements = run.results["placements"]
    assert len(placements) == len(heads(run)) == SERVICES * REPLICAS
    for row in placements:
        assert row["runtime"]
        assert "Mbit/s" in row["reason"]
        assert 0 <= row["bandwidth_mbps"] <= 35
        assert row["head"] in run.output
    # A head whose every neighbour is served better by the other one has no member, and no bandwidth to any.
    assert any(row["bandwidth_mbps"] > 0 for row in placements)


def test_links_are_measured_not_believed(run: Run) -> None:
    """Both directions of every link are there; what was measured follows what was set."""
    links = {(row["source"], row["destination"]): row for row in run.results["bytes_per_link"]}
    assert {(b, a) for a, b in links} == set(links)
    assert {a for a, _ in links} == {*(f"gw-{at}" for at in range(NODES)), "controller"}
    shares = {p: row["measured_mbps"] / row["rate_mbps"] for p, row in links.items() if "controller" not in p}
    assert all(0.3 < share < 1.15 for share in shares.values()), shares
    assert sum(shares.values()) / len(shares) == pytest.approx(1.0, abs=0.2)


def test_link_bytes_are_those_of_the_kernel(run: Run) -> None:
    """The bytes over each link lie between what the kernel had delivered shortly before and right after."""
    addresses = {}
    for file in run.directory.glob("*/picasso"):
        found = re.search(r"tcp4://([0-9.]+):6363'", file.read_text())
        assert found is not None
        addresses[file.parent.name] = found[1]
    for row in run.results["bytes_per_link"]:
        direction = addresses[row["source"]], addresses[row["destination"]]
        before, after = run.sockets.bounds(direction, row["time"])
        assert before <= row["bytes"] <= after + UNSENT_BYTES, row
        assert 0 <= row["delivery_bytes"] <= row["bytes"]


def test_caches_worked(run: Run) -> None:
    """Less left the repository than was delivered, and stores on the way answered."""
    results = run.results
    assert 0 < results["bytes_sent_by_repository"] < results["bytes_delivered"]
    assert 0 < results["cache_hit_ratio"] < 1
    assert results["cache_hit_ratio"] == pytest.approx(
        results["cache_hits"] / (results["cache_hits"] + results["cache_misses"]), abs=1e-4
    )


def test_every_page_and_every_replica_answers(run: Run) -> None:
    """Every service answers through every gateway's page, also without the controller, and every replica is used."""
    for step in ("http", "after_controller_loss"):
        rows = run.results[step]
        assert len(rows) == NODES * SERVICES
        assert {row["status"] for row in rows} == {200}
        assert {(row["service"], row["node"]) for row in rows} == heads(run)
        assert all(0 < row["latency_ms"] < 5000 for row in rows)
        assert all(row["node"] == row["page"] for row in rows if (row["service"], row["page"]) in heads(run))


def test_a_lost_host_is_replaced_and_comes_back(run: Run) -> None:
    """While a host is dead the other replicas answer for it; after its restart it answers itself for all it hosted."""
    lost = run.results["rebooted"]
    hosted = {service for service, head in heads(run) if head == lost}
    assert hosted
    outage = run.results["during_outage"]
    assert {row["page"] for row in outage} == {f"gw-{at}" for at in range(NODES)} - {lost}
    assert {row["status"] for row in outage} == {200}
    assert lost not in {row["node"] for row in outage}
    again = run.results["after_reboot"]
    assert {(row["service"], row["node"], row["status"]) for row in again} == {(s, lost, 200) for s in hosted}
    assert f"{lost} sent 0 Interests for blobs since its restart" in run.output


def test_nothing_is_left(run: Run) -> None:
    """After the end there is no process of the run, no socket on its addresses and no control group of its services."""
    configuration = (run.directory / "gw-0" / "picasso").read_text()
    network = re.search(r"/picasso/demo-[0-9a-f]+", configuration)
    address = re.search(r"tcp4://([0-9.]+):6363", configuration)
    assert network is not None
    assert address is not None
    assert left_behind(str(run.directory), network[0]) == []
    subnet = address[1].rpartition(".")[0]
    listening = subprocess.run(["ss", "-tlnH", "src", f"{subnet}.0/24"], capture_output=True, text=True, check=True)
    assert listening.stdout == ""
    named = {row["service"] for row in run.results["placements"]}
    groups = [path for path in Path("/sys/fs/cgroup").glob("**/picasso/*") if path.name.endswith(tuple(named))]
    assert groups == []


def left_behind(*texts: str) -> list[str]:
    """The processes that have one of these texts in their command line or environment, this test's own left out."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            words = (process / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
            about = words + (process / "environ").read_bytes().decode(errors="replace")
            if int(process.name) != os.getpid() and any(text in about for text in texts):
                found.append(f"{process.name} {words}")
    return found


@pytest.fixture
def place() -> Iterator[Path]:
    """An empty directory for temporary files, its name short enough for unix sockets; it must be empty at the end."""
    place = Path(f"/tmp/picasso-t{os.getpid()}")
    place.mkdir()
    yield place
    assert list(place.iterdir()) == []
    place.rmdir()


def interrupt_at(text: str, number: int, arguments: list[str], environment: dict[str, str]) -> tuple[int, float, str]:
    """Runs the demonstration until it prints a text and signals it; its exit code, how long that took, its output."""
    process = subprocess.Popen(
        command(*arguments),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        cwd=ROOT,
        env=environment,
        start_new_session=True,
    )
    assert process.stdout is not None
    watchdog = threading.Timer(90, process.kill)
    watchdog.start()
    lines = []
    for line in process.stdout:
        lines.append(line)
        if text in line:
            break
    process.send_signal(number)
    started = time.monotonic()
    lines += process.stdout.readlines()
    code = process.wait()
    watchdog.cancel()
    return code, time.monotonic() - started, "".join(lines)


@pytest.mark.parametrize(
    ("text", "number"), [("gateways start and enrol", signal.SIGINT), ("its gateway are killed", signal.SIGTERM)]
)
def test_an_interrupted_run_leaves_nothing(text: str, number: int, place: Path) -> None:
    """Ctrl-C or SIGTERM in the middle ends the run within seconds with status 130, and nothing of it goes on."""
    arguments = ["--nodes", "3", "--services", "1"]
    code, seconds, output = interrupt_at(text, number, arguments, {**os.environ, "TMPDIR": str(place)})
    assert code == 130, output
    assert seconds < 15
    assert "interrupted" in output
    assert left_behind(str(place)) == []


def test_without_a_runtime_the_run_fails_clearly(tmp_path: Path, place: Path) -> None:
    """Where no container runtime is to be found, the run says so and what to install, and ends with status 1."""
    arguments = command("--nodes", "3", "--services", "1", "--json", str(tmp_path / "out.json"))
    nothing = {"PATH": "/nonexistent", "DOCKER_HOST": "unix:///nonexistent.sock", "TMPDIR": str(place)}
    done = subprocess.run(
        arguments, capture_output=True, text=True, cwd=ROOT, env={**os.environ, **nothing}, timeout=90, check=False
    )
    assert done.returncode == 1, done.stdout
    assert "no container runtime works here" in done.stdout
    assert "apt-get install" in done.stdout
    results = json.loads((tmp_path / "out.json").read_text())
    assert results["ok"] is False
    assert len(results["failures"]) == 1
    assert left_behind(str(place)) == []
