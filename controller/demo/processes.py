"""The processes of a run: each in a session of its own, found again by a mark in its environment, gone at the end."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import psutil

import controller

RUN_MARK, NODE_MARK = "PICASSO_DEMO_RUN", "PICASSO_DEMO_NODE"
KILL_ROUNDS = 50
_CGROUPS = Path("/sys/fs/cgroup")


class Processes:
    """Every process of one run: services have `network` and their node in the environment, all others the marks."""

    def __init__(self, run: str, network: str, directory: Path) -> None:
        self._run, self._network, self._directory = run, network, directory
        self._started: dict[str, subprocess.Popen[bytes]] = {}
        self._cgroups: set[Path] = set()

    def environment(self, node: str = "") -> dict[str, str]:
        """The environment of a command of this run; the package is found wherever it is installed."""
        package = str(Path(controller.__file__).parent.parent)
        path = os.pathsep.join([package, *filter(None, [os.environ.get("PYTHONPATH")])])
        return os.environ | {RUN_MARK: self._run, NODE_MARK: node, "PYTHONPATH": path, "PYTHONUNBUFFERED": "1"}

    def start(self, name: str, module: str, arguments: Sequence[str], log: Path) -> None:
        """Starts `python -m module arguments…` under a name; its output goes to the end of `log`."""
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("ab") as output:
            self._started[name] = subprocess.Popen(
                [sys.executable, "-m", module, *arguments],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env=self.environment(name),
                start_new_session=True,
            )

    def ended(self) -> dict[str, int]:
        """The processes that should run and do not, with their exit codes."""
        return {name: code for name, process in self._started.items() if (code := process.poll()) is not None}

    def kill(self, name: str) -> int:
        """SIGKILL to a started process and all that came of it, services included; returns how many there were."""
        victims: set[int] = set()
        for _ in range(KILL_ROUNDS):
            found = self._of_node(name)
            if not found:
                break
            for process in found:
                victims.add(process.pid)
                self._remember_cgroup(process.pid)
                with contextlib.suppress(psutil.NoSuchProcess):
                    process.kill()
            self._reap()
            time.sleep(0.02)
        else:
            raise RuntimeError(f"processes of {name} survive SIGKILL: {[process.pid for process in found]}")
        self._started.pop(name, None)
        return len(victims)

    def kill_one(self, name: str) -> None:
        """SIGKILL to a started process alone."""
        process = self._started.pop(name)
        process.kill()
        process.wait()

    def terminate(self, names: Iterable[str], timeout_s: float) -> list[str]:
        """SIGTERM to started processes; returns those that had not ended cleanly in time."""
        asked = [(name, self._started[name]) for name in names if name in self._started]
        for _, process in asked:
            with contextlib.suppress(ProcessLookupError):
                process.terminate()
        deadline = time.monotonic() + timeout_s
        late = []
        for name, process in asked:
            try:
                process.wait(max(0.0, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                late.append(name)
            else:
                self._started.pop(name, None)
        return late

    def kill_all(self) -> list[int]:
        """SIGKILL to what is left of the run; its control groups are removed. Returns the processes that survive."""
        left: list[psutil.Process] = []
        for _ in range(KILL_ROUNDS):
            left = [process for process in _processes() if self._is_ours(process)]
            if not left:
                break
            for process in left:
                self._remember_cgroup(process.pid)
                with contextlib.suppress(psutil.NoSuchProcess):
                    process.kill()
            self._reap()
            time.sleep(0.02)
        for cgroup in self._cgroups:
            with contextlib.suppress(OSError):
                cgroup.rmdir()
        return [process.pid for process in left]

    def _of_node(self, name: str) -> list[psutil.Process]:
        found = {process.pid: process for process in _processes() if self._is_ours(process, name)}
        started = self._started.get(name)
        if started is not None and started.poll() is None:
            with contextlib.suppress(psutil.NoSuchProcess):
                root = psutil.Process(started.pid)
                family = [root, *root.children(recursive=True)]
                found |= {process.pid: process for process in family if process.status() != psutil.STATUS_ZOMBIE}
        return list(found.values())

    def _is_ours(self, process: psutil.Process, node: str | None = None) -> bool:
        """Whether a process belongs to this run, and to a node of it if one is given."""
        environment = _environment(process.pid)
        if environment.get(RUN_MARK) == self._run:
            return node is None or environment.get(NODE_MARK) == node
        if environment.get("PICASSO_NETWORK") == self._network:
            return node is None or environment.get("PICASSO_NODE") == node
        # The shim of a service gives up the right to be looked into; its arguments say whose it is.
        with contextlib.suppress(psutil.Error):
            where = f"directory={self._directory}/" + (f"{node}/" if node else "")
            return any(argument.startswith(where) for argument in process.cmdline())
        return False

    def _remember_cgroup(self, pid: int) -> None:
        """Notes the control group of a container, which nobody removes once its runtime's state is gone."""
        with contextlib.suppress(OSError):
            for line in Path(f"/proc/{pid}/cgroup").read_text().splitlines():
                _, controllers, path = line.split(":", 2)
                if path.startswith("/picasso/"):
                    for hierarchy in {"", "unified", controllers.removeprefix("name="), *controllers.split(",")}:
                        self._cgroups.add(_CGROUPS / hierarchy / path.lstrip("/"))

    def _reap(self) -> None:
        for process in self._started.values():
            process.poll()


def _processes() -> list[psutil.Process]:
    own = os.getpid()
    return [p for p in psutil.process_iter(["status"]) if p.pid != own and p.info["status"] != psutil.STATUS_ZOMBIE]


def _environment(pid: int) -> dict[str, str]:
    try:
        entries = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
    except OSError:
        return {}
    return dict(entry.decode(errors="replace").split("=", 1) for entry in entries if b"=" in entry)


def _raise_interrupt(_number: int, _frame: object) -> None:
    raise KeyboardInterrupt


def interrupt_on_signals() -> None:
    """From now on SIGTERM and SIGHUP raise KeyboardInterrupt, so that a run cleans up whoever ends it."""
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _raise_interrupt)


@contextlib.contextmanager
def signals_ignored() -> Iterator[None]:
    """Cleaning up is not interrupted: it is bounded, and half of it would leave processes behind."""
    before = {
        number: signal.signal(number, signal.SIG_IGN) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    }
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
