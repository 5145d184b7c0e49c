"""A gateway that is killed leaves its executor and services; the next one takes both over, with real processes."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from executor_world import ROOT, Gateway, World, wait_until

from gateway.executor import lock
from gateway.executor.takeover import take_over
from gateway.protocol.messages import Port

TEXT = """
config gateway 'gateway'
	option network '/test'
	option node 'n1'
	option state_dir '{base}/state'
	option run_dir '{base}/run'
{more}
config forwarder 'forwarder'
	option blob_dir '{base}/blobs'

config executor 'executor'
	option address '{address}'

config policy 'policy'
	list allow_provider '{provider}'
	list allow_port '{ports}'
"""


class Runs:
    """`picasso-gateway run` for one gateway, again and again."""

    def __init__(self, gateway: Gateway) -> None:
        self.gateway = gateway
        self.log = gateway.base / "log"
        self.process: subprocess.Popen[bytes] | None = None

    def configure(self, ports: str = "8000-8999", provider: str = "*", more: str = "") -> None:
        g = self.gateway
        g.settings.path.write_text(
            TEXT.format(base=g.base, address=g.address, ports=ports, provider=provider, more=more)
        )

    def start(self) -> None:
        with self.log.open("ab") as log:
            command = [sys.executable, "-m", "gateway", "run", "--config", str(self.gateway.settings.path)]
            self.process = subprocess.Popen(command, cwd=ROOT, stdout=log, stderr=log)
        wait_until(self.is_up, 15, self.log.read_text)

    def is_up(self) -> bool:
        assert self.process.poll() is None, self.log.read_text()
        return self.executor() is not None and (self.gateway.settings.gateway.run_dir / "control.sock").exists()

    def executor(self) -> int | None:
        """The executor that this run started, once it listens."""
        holder = lock.read_holder(self.gateway.settings.services_dir)
        ours = holder is not None and holder.parent == self.process.pid and holder.is_supervised
        return holder.process.pid if ours and self.gateway.client._path.exists() else None

    def kill(self) -> None:
        self.process.kill()
        self.process.wait(5)

    def stop(self) -> float:
        begin = time.monotonic()
        self.process.terminate()
        assert self.process.wait(15) == 0
        return time.monotonic() - begin


@pytest.fixture
def runs(gateway):
    made: list[Runs] = []

    def make() -> Runs:
        made.append(Runs(gateway()))
        made[-1].configure()
        return made[-1]

    yield make
    for each in made:
        if each.process is not None and each.process.poll() is None:
            each.kill()
        holder = lock.read_holder(each.gateway.settings.services_dir)
        if holder is not None:
            holder.process.signal(signal.SIGKILL)


def test_after_kill_9_the_next_run_goes_on_with_the_same_container_and_the_new_policy(world: World, runs) -> None:
    """The service does not notice; a new executor has the file as it is now, and all ends within five seconds."""
    r = runs()
    g = r.gateway
    r.start()
    hello = world.sign_spec(g.spec())
    g.apply(world.decide([hello]))
    first = g.wait_for("running", health="healthy")
    started, old = g.get()["started"], r.executor()
    r.kill()
    assert g.get()["started"] == started and lock.is_held(g.settings.services_dir)
    r.configure(ports="8000")
    r.start()
    assert r.executor() != old
    second = g.wait_for("running", health="healthy")
    assert (second.started, second.restarts) == (first.started, 0) and g.get()["started"] == started
    g.apply(world.decide([hello, world.sign_spec(g.spec("maps", ports=(Port(8080, 8001),)))], version=2))
    assert "does not allow the port 8001" in g.wait_for("refused", "maps").reason
    assert r.stop() < 5 and g.processes() == [] and not lock.is_held(g.settings.services_dir)
    assert "ERROR" not in r.log.read_text()


def test_an_executor_whose_run_directory_is_gone_lets_go_too(world: World, runs) -> None:
    """Without a socket its name in the lock is enough; what nobody knows of any more is started anew."""
    r = runs()
    g = r.gateway
    r.start()
    g.apply(world.decide([world.sign_spec(g.spec())]))
    g.wait_for("running", health="healthy")
    before, old = g.get()["started"], r.executor()
    r.kill()
    shutil.rmtree(g.settings.gateway.run_dir)
    r.start()
    g.wait_for("running", health="healthy")
    assert r.executor() != old and g.get()["started"] > before
    assert r.stop() < 5 and g.processes() == []


def test_a_second_run_leaves_the_first_alone(world: World, runs) -> None:
    """An executor whose gateway lives is not taken over: the second run ends and names the first."""
    r = runs()
    g = r.gateway
    r.start()
    g.apply(world.decide([world.sign_spec(g.spec())]))
    g.wait_for("running", health="healthy")
    started, executor = g.get()["started"], r.executor()
    command = [sys.executable, "-m", "gateway", "run", "--config", str(g.settings.path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=20, check=False)
    assert done.returncode == 1 and f"process {r.process.pid}: stop that one first" in done.stderr
    assert r.executor() == executor and g.get()["started"] == started


def test_an_executor_that_hangs_is_ended(runs) -> None:
    """One that neither answers nor heeds SIGTERM is killed, and its directory is free."""
    r = runs()
    g = r.gateway
    r.start()
    old = r.executor()
    r.kill()
    os.kill(old, signal.SIGSTOP)
    begin = time.monotonic()
    assert take_over(g.settings.services_dir, g.client._path, patience_s=0.3)
    assert not lock.is_held(g.settings.services_dir) and time.monotonic() - begin < 4
    assert not take_over(g.settings.services_dir, g.client._path)


def test_sighup_lets_a_new_policy_count_at_once(world: World, runs) -> None:
    """The owner forbids a provider: its service stops without a restart, and no restart is asked for."""
    r = runs()
    g = r.gateway
    r.start()
    g.apply(world.decide([world.sign_spec(g.spec())]))
    g.wait_for("running", health="healthy")
    r.configure(provider="bob")
    r.process.send_signal(signal.SIGHUP)
    assert "does not allow the provider 'ann'" in g.wait_for("refused").reason
    wait_until(lambda: g.processes() == [], 5)
    assert "after a restart" not in r.log.read_text()
    r.configure(provider="*")
    r.process.send_signal(signal.SIGHUP)
    g.wait_for("running", health="healthy")


def test_the_log_of_a_normal_start_has_times_and_no_alarm(runs, tmp_path: Path) -> None:
    """Every line begins with its time; nothing that settles by itself is a warning."""
    r = runs()
    token = "/test.7." + "ab" * 16 + "." + "cd" * 32
    r.configure(more=f"\toption token '{token}'\n")
    (r.gateway.settings.gateway.state_dir / "anchor.ndn").unlink()
    r.start()
    wait_until(lambda: "enrolment" in r.log.read_text(), 10, r.log.read_text)
    lines = r.log.read_text().splitlines()
    assert all(line[:2] == "20" and line[4] == "-" for line in lines), lines
    assert not [line for line in lines if "enrolment" in line and "INFO" not in line], lines
