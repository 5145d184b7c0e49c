"""What the runtimes that work through a shim have in common: state directories, labels, adoption, stop and logs.

An instance is a directory below `run_dir/executor/<runtime>`: `labels.json` (ours, written before the start), `status`
and `log` (the shim's), and what the runtime itself needs. Whoever reads these files and the shim's command line knows
all there is to know, so that a restarted executor goes on where the last one was killed.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path

from gateway.executor.runtimes import processes
from gateway.executor.runtimes.base import Instance, Labels, Launch, RuntimeFailure, Stats
from gateway.executor.runtimes.processes import Process

SHIM = str(Path(__file__).parent.parent / "shim.py")
_END_S = 3.0


@dataclass(frozen=True, slots=True)
class ShimCommand:
    """How the shim starts the container: `mode` is `detached` or `foreground`, `limits` are `NAME,value`."""

    mode: str
    argv: list[str]
    limits: tuple[str, ...] = ()


@dataclass(slots=True)
class Record:
    """One state directory, read."""

    directory: Path
    labels: Labels
    shim: Process | None
    started: float
    started_s: float
    ports: tuple[int, ...]
    restarts: int
    init: Process | None = None
    exit_code: int | None = None
    failure: str = ""


class SupervisedRuntime(ABC):
    """A runtime whose containers each have a shim; the subclass says how one is started and what is left to clean."""

    name: str
    note = ""

    def __init__(self, directory: Path, tag: str) -> None:
        self._directory, self._tag = directory, tag
        self._children: dict[str, subprocess.Popen[bytes]] = {}
        self._watched: dict[Process, int] = {}
        directory.mkdir(parents=True, exist_ok=True)
        self._kill_lost()

    @abstractmethod
    def _prepare(self, launch: Launch, directory: Path) -> ShimCommand:
        """Writes what the container needs into its state directory; returns how to start it."""

    @abstractmethod
    def _clean(self, service: str, directory: Path) -> None:
        """Removes what the runtime itself keeps of an instance that does not run any more."""

    def _exit_reason(self, record: Record) -> str:
        """Why the instance ended, where the exit code does not say it."""
        return ""

    @abstractmethod
    def execute(self, service: str, command: tuple[str, ...], timeout_s: float) -> int: ...

    @abstractmethod
    def stats(self, service: str) -> Stats | None: ...

    def start(self, launch: Launch) -> None:
        service = launch.labels.service
        self.remove(service)
        directory = self._directory / service
        directory.mkdir(mode=0o700)
        command = self._prepare(launch, directory)
        values = [f"tag={self._tag}", f"service={service}", f"directory={directory}", f"mode={command.mode}"]
        values += [f"listen={launch.address},{port.host},{port.container}" for port in launch.ports]
        if launch.health_port:
            values.append(f"listen=,0,{launch.health_port}")
        values += [f"limit={limit}" for limit in command.limits]
        argv = [sys.executable, "-I", "-S", SHIM, *values, "--", *command.argv]
        _write_labels(directory, launch, None)
        child = subprocess.Popen(
            argv, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
        )
        self._children[service] = child
        _write_labels(directory, launch, Process.of(child.pid))

    def signal(self, service: str, number: int) -> None:
        record = self._read(service)
        if record and record.init:
            record.init.signal(number)

    def remove(self, service: str) -> None:
        record = self._read(service)
        if record is None:
            shutil.rmtree(self._directory / service, ignore_errors=True)
            return
        if record.init:
            record.init.signal(signal.SIGKILL)
        if record.shim:
            self._end(record.shim)
        self._clean(service, record.directory)
        with contextlib.suppress(KeyError):
            self._children.pop(service).wait()
        shutil.rmtree(record.directory, ignore_errors=True)

    def _end(self, shim: Process) -> None:
        """Waits for the shim, which ends with its container; kills both when it does not."""
        deadline = time.monotonic() + _END_S
        while shim.alive and time.monotonic() < deadline:
            time.sleep(0.005)
        if shim.alive:
            for pid in [*processes.descendants(shim.pid), shim.pid]:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)

    def list_managed(self) -> list[Instance]:
        records = [self._read(path.name) for path in sorted(self._directory.iterdir())]
        return [self._instance(record) for record in records if record]

    def _instance(self, record: Record) -> Instance:
        shim_alive = record.shim is not None and record.shim.alive
        reason = record.failure
        if record.exit_code is None and not record.failure and not shim_alive:
            record = self._read(record.labels.service) or record  # it may have ended between the two looks
            if record.exit_code is None and not record.failure:
                reason = "its shim was killed"
        ended = record.exit_code is not None or bool(record.failure) or bool(reason)
        state = "exited" if ended else "running" if record.init else "starting"
        if ended:
            reason = reason or self._exit_reason(record)
        return Instance(
            record.labels,
            state,
            record.started,
            record.started_s,
            record.ports,
            record.restarts,
            record.exit_code,
            reason,
        )

    def watch(self) -> list[int]:
        alive: dict[Process, int] = {}
        for path in self._directory.iterdir():
            record = self._read(path.name)
            if record and record.shim:
                descriptor = self._watched.pop(record.shim, None) or record.shim.open()
                if descriptor is not None:
                    alive[record.shim] = descriptor
        for descriptor in self._watched.values():
            os.close(descriptor)
        self._watched = alive
        return list(alive.values())

    def connect(self, service: str, timeout_s: float) -> socket.socket:
        # The state directory's path may be longer than a socket's may be: go through a descriptor of it.
        directory = os.open(self._directory / service, os.O_RDONLY | os.O_DIRECTORY)
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            connection.settimeout(timeout_s)
            connection.connect(f"/proc/self/fd/{directory}/health.sock")
        except OSError:
            connection.close()
            raise
        finally:
            os.close(directory)
        return connection

    def logs(self, service: str) -> bytes:
        try:
            return (self._directory / service / "log").read_bytes()
        except OSError:
            return b""

    def _init(self, service: str) -> Process:
        record = self._read(service)
        if record is None or record.init is None:
            raise RuntimeFailure(f"{service} does not run")
        return record.init

    def _read(self, service: str) -> Record | None:
        """The record of a state directory; None when it is none of ours or damaged."""
        directory = self._directory / service
        try:
            text = json.loads((directory / "labels.json").read_text())
            labels = Labels(text["tag"], text["service"], bytes.fromhex(text["digest"]), text["generation"])
            record = Record(
                directory,
                labels,
                Process.parse(*text["shim"].split()) if text["shim"] else None,
                text["started"],
                text["started_s"],
                tuple(text["ports"]),
                text["restarts"],
            )
        except (OSError, ValueError, KeyError, TypeError):
            return None
        child = self._children.get(service)
        if child is not None:
            child.poll()
        with contextlib.suppress(OSError):
            _read_status(record, (directory / "status").read_text())
        return record if labels.tag == self._tag else None

    def _kill_lost(self) -> None:
        """Ends shims of this gateway whose state directory is gone: nothing can be known or stopped of them later."""
        for pid in processes.pids():
            arguments = processes.command_line(pid)
            if SHIM not in arguments or f"tag={self._tag}" not in arguments:
                continue
            directory = next((a.partition("=")[2] for a in arguments if a.startswith("directory=")), "")
            record = self._read(Path(directory).name)
            known = record is not None and record.shim is not None and record.shim.pid == pid
            if Path(directory).parent == self._directory and not known:
                for each in [*processes.descendants(pid), pid]:
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(each, signal.SIGKILL)


def _write_labels(directory: Path, launch: Launch, shim: Process | None) -> None:
    labels = {
        "picasso.managed": True,
        "tag": launch.labels.tag,
        "service": launch.labels.service,
        "digest": launch.labels.digest.hex(),
        "generation": launch.labels.generation,
        "shim": f"{shim.pid} {shim.start_ticks}" if shim else "",
        "started": time.time(),
        "started_s": time.monotonic(),
        "ports": [port.host for port in launch.ports],
        "restarts": launch.restarts,
    }
    temporary = directory / ".labels.json"
    temporary.write_text(json.dumps(labels))
    temporary.rename(directory / "labels.json")


def _read_status(record: Record, text: str) -> None:
    for line in text.splitlines():
        word, _, rest = line.partition(" ")
        if word == "running":
            record.init = Process.parse(*rest.split()) if len(rest.split()) == 2 else None
        elif word == "exited" and rest.isdigit():
            record.exit_code = int(rest)
        elif word == "failed":
            record.failure = rest or "the shim failed"
