"""Real gateways as processes on 127.0.0.0/8, for the integration tests."""

from __future__ import annotations

import contextlib
import itertools
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from gateway import control

ROOT = Path(__file__).parents[2]
_numbers = itertools.count(1)


def free_address() -> str:
    """An address of this machine that no other test of this run uses; runs side by side differ in their process."""
    number = next(_numbers)
    pid = os.getpid() % 15000
    return f"127.{66 + pid // 250}.{pid % 250}.{number}"


def wait_for(condition: Callable[[], Any], timeout_s: float = 20.0, what: str = "") -> Any:
    """The first true value of the condition; fails after the timeout, with what was waited for."""
    deadline = time.monotonic() + timeout_s
    while True:
        value = condition()
        if value:
            return value
        assert time.monotonic() < deadline, f"{what or condition} did not come true in {timeout_s:g} s"
        time.sleep(0.1)


class GatewayProcess:
    """One `picasso-gateway run` in a directory of its own."""

    def __init__(self, directory: Path, node: str, text: str = "", network: str = "/test/net") -> None:
        self.directory, self.node, self.address = directory, node, free_address()
        directory.mkdir(parents=True, exist_ok=True)
        self.config = directory / "picasso"
        self.log = directory / "log"
        self.base = f"""
config gateway 'gateway'
	option network '{network}'
	option node '{node}'
	option page 'http://{self.address}:8080'
	option state_dir '{directory}/state'
	option run_dir '{directory}/run'

config forwarder 'forwarder'
	list listen 'unix://{self.unix}'
	list listen 'tcp4://{self.address}:6363'
	list listen 'udp4://{self.address}:6363'
	option blob_dir '{directory}/blobs'
"""
        self.configure(text)
        self.process: subprocess.Popen[bytes] | None = None

    @property
    def unix(self) -> Path:
        return self.directory / "run" / "ndn.sock"

    @property
    def uri(self) -> str:
        return f"tcp4://{self.address}:6363"

    def configure(self, text: str) -> None:
        executor = "" if "config executor" in text else "\nconfig executor 'executor'\n\tlist runtime 'none'\n"
        self.config.write_text(self.base + executor + text)

    def start(self) -> GatewayProcess:
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(self.command("run"), cwd=ROOT, stdout=log, stderr=log)
        wait_for(self.is_up, what=f"gateway {self.node}; its log: {self.log}")
        return self

    def is_up(self) -> bool:
        assert self.process is not None
        assert self.process.poll() is None, f"gateway {self.node} ended:\n{self.log.read_text()}"
        try:
            return bool(self.ask("status"))
        except ConnectionError:
            return False

    def ask(self, dataset: str) -> Any:
        return control.ask(self.directory / "run" / "control.sock", dataset)

    def command(self, *arguments: str) -> list[str]:
        return [sys.executable, "-m", "gateway", arguments[0], "--config", str(self.config), *arguments[1:]]

    def call(self, *arguments: str, timeout_s: float = 60.0) -> subprocess.CompletedProcess[str]:
        """A command of picasso-gateway with this gateway's configuration."""
        command = self.command(*arguments)
        return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=timeout_s, check=False)

    def stop(self, number: int = signal.SIGTERM) -> float:
        """Ends it with a signal; how long that took."""
        if self.process is None:
            return 0.0
        started = time.monotonic()
        if self.process.poll() is None:
            self.process.send_signal(number)
        try:
            self.process.wait(15)
        finally:
            self.process.kill()
            self.process.wait()
        return time.monotonic() - started


def neighbor(name: str, uri: str, **options: str) -> str:
    """A `config neighbor` section."""
    lines = [f"\nconfig neighbor '{name}'", f"\toption uri '{uri}'"]
    return "\n".join([*lines, *(f"\toption {key} '{value}'" for key, value in options.items())]) + "\n"


def route(prefix: str, to: str, cost: int = 1) -> str:
    """A `config route` section."""
    return f"\nconfig route\n\toption prefix '{prefix}'\n\toption neighbor '{to}'\n\toption cost '{cost}'\n"


class Network:
    """A controller with its gateway `hub`, in processes of their own, made by `picasso-controller init`."""

    def __init__(self, directory: Path, network: str = "/test/net") -> None:
        self.directory, self.network, self.address = directory, network, free_address()
        self.uri = f"tcp4://{self.address}:6363"
        self.config = directory / "picasso-controller"
        self.processes: dict[str, subprocess.Popen[bytes]] = {}
        self.controller(
            "init", "--network", network, "--node", "hub", "--directory", str(directory), "--listen", self.uri
        )

    def controller(self, *arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        """A command of picasso-controller with this network's configuration."""
        options = [] if arguments[0] == "init" else ["--config", str(self.config)]
        command = [sys.executable, "-m", "controller", *arguments, *options]
        result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
        assert not check or result.returncode == 0, result.stderr
        return result

    def start(self, *parts: str) -> Network:
        """Starts the parts (`gateway`, `controller`), both when none is named."""
        commands = {
            "gateway": [sys.executable, "-m", "gateway", "run", "--config", str(self.directory / "picasso")],
            "controller": [sys.executable, "-m", "controller", "run", "--config", str(self.config)],
        }
        for part in parts or tuple(commands):
            with (self.directory / f"{part}.log").open("ab") as log:
                self.processes[part] = subprocess.Popen(commands[part], cwd=ROOT, stdout=log, stderr=log)
        return self

    def log(self, part: str = "controller") -> str:
        return (self.directory / f"{part}.log").read_text()

    def token(self, node: str) -> str:
        return self.controller("enrol", node).stdout.split()[0]

    def stop(self, *parts: str) -> None:
        for part in parts or tuple(self.processes):
            process = self.processes.pop(part, None)
            if process is not None:
                process.terminate()
                try:
                    process.wait(10)
                finally:
                    process.kill()
                    process.wait()


class SlowLink:
    """A TCP relay that carries `mbps` in each direction: a link whose rate nobody configured."""

    def __init__(self, target: tuple[str, int], mbps: float) -> None:
        self._target, self._bytes_s = target, mbps * 1e6 / 8
        self._server = socket.create_server((free_address(), 0))
        self.uri = "tcp4://{}:{}".format(*self._server.getsockname())
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        self._server.shutdown(socket.SHUT_RDWR)
        self._server.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                near, _ = self._server.accept()
                far = socket.create_connection(self._target)
                for source, sink in ((near, far), (far, near)):
                    sink.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 32768)
                    source.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 32768)
                    threading.Thread(target=self._carry, args=(source, sink), daemon=True).start()

    def _carry(self, source: socket.socket, sink: socket.socket) -> None:
        free_at = time.monotonic()
        with contextlib.suppress(OSError), source, sink:
            while chunk := source.recv(8192):
                free_at = max(free_at, time.monotonic() - 0.01) + len(chunk) / self._bytes_s
                time.sleep(max(0.0, free_at - time.monotonic()))
                sink.sendall(chunk)
