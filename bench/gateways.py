"""Gateways as processes, each in a directory of its own, with the plain forwarder's configuration."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from bench import measure

ROOT = Path(__file__).parents[1]
START_S, STOP_S = 20.0, 10.0
LOAD_S = 300.0
_numbers = itertools.count(1)


class BenchError(Exception):
    """A process did not start, or did not do its work; the text has what it printed."""


def free_address() -> str:
    """A loopback address that no other process of this run listens on."""
    pid = os.getpid() % 15_000
    return f"127.{140 + pid // 250}.{pid % 250}.{next(_numbers)}"


class Gateway:
    """One `python -m gateway run`, with no blob store and no services: what an NDN forwarder does and no more."""

    def __init__(self, directory: Path, neighbors: str = "", memory_cache: str = "64M") -> None:
        self.directory, self.address = directory, free_address()
        directory.mkdir(parents=True)
        self.unix = f"unix://{directory}/ndn.sock"
        self.tcp, self.udp = f"tcp4://{self.address}:6363", f"udp4://{self.address}:6363"
        self._config, self._log = directory / "picasso", directory / "log"
        self._config.write_text(f"""
config gateway 'gateway'
	option network '/bench'
	option node 'node-{next(_numbers)}'
	option state_dir '{directory}/state'
	option run_dir '{directory}/run'

config forwarder 'forwarder'
	list listen '{self.unix}'
	list listen '{self.tcp}'
	list listen '{self.udp}'
	option memory_cache '{memory_cache}'
	option discovery '0'

config executor 'executor'
	list runtime 'none'
{neighbors}""")
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def start(self) -> Gateway:
        command = [sys.executable, "-m", "gateway", "run", "--config", str(self._config)]
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(command, cwd=ROOT, stdout=log, stderr=log)
        deadline = time.monotonic() + START_S
        while not self._is_up():
            if self._process.poll() is not None or time.monotonic() > deadline:
                raise BenchError(f"the gateway does not start:\n{self._log.read_text()}")
            time.sleep(0.1)
        return self

    def _is_up(self) -> bool:
        with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX) as probe:
            probe.connect(self.unix.removeprefix("unix://"))
            return True
        return False

    def stop(self) -> None:
        if self._process is not None:
            _end(self._process)


def neighbor(uri: str, prefix: str) -> str:
    """Configuration: a prefix that is reached through another gateway."""
    return f"""
config neighbor 'next'
	option uri '{uri}'

config route
	option prefix '{prefix}'
	option neighbor 'next'
"""


@contextlib.contextmanager
def one_gateway(memory_cache: str = "64M") -> Iterator[Gateway]:
    """A running gateway, stopped at the end."""
    with tempfile.TemporaryDirectory(prefix="picasso-bench-") as directory:
        gateway = Gateway(Path(directory) / "a", memory_cache=memory_cache)
        try:
            yield gateway.start()
        finally:
            gateway.stop()


@contextlib.contextmanager
def chain(kind: str, prefix: str) -> Iterator[tuple[Gateway, Gateway]]:
    """Two running gateways; the first reaches the prefix through the second, over `kind` ("tcp" or "udp")."""
    with tempfile.TemporaryDirectory(prefix="picasso-bench-") as directory:
        far = Gateway(Path(directory) / "b")
        near = Gateway(Path(directory) / "a", neighbor(far.tcp if kind == "tcp" else far.udp, prefix))
        try:
            far.start()
            near.start()
            time.sleep(1.0)  # the neighbours meet
            yield near, far
        finally:
            near.stop()
            far.stop()


@contextlib.contextmanager
def producer(face: str, prefix: str, content_bytes: int) -> Iterator[None]:
    """A process that answers Interests below the prefix."""
    arguments = _load("produce", "--face", face, "--prefix", prefix, "--content", str(content_bytes))
    process = subprocess.Popen(arguments, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    try:
        assert process.stdout is not None and process.stderr is not None
        if process.stdout.readline() != b"ready\n":
            raise BenchError(f"the producer does not start: {process.stderr.read().decode()}")
        yield
    finally:
        _end(process)


def consume(face: str, prefix: str, content_bytes: int, pids: Sequence[int] = (), **options: Any) -> dict[str, Any]:
    """What a consumer says that has got all it asked for; `options` are those of bench.load."""
    arguments = _load("consume", "--face", face, "--prefix", prefix, "--content", str(content_bytes))
    for name, value in options.items():
        if isinstance(value, bool):
            arguments += [f"--{name}"] if value else []
        else:
            arguments += [f"--{name}", str(value)]
    for pid in pids:
        arguments += ["--pid", str(pid)]
    return _finished(arguments)


def _finished(arguments: list[str]) -> dict[str, Any]:
    done = subprocess.run(arguments, cwd=ROOT, capture_output=True, text=True, timeout=LOAD_S, check=False)
    if done.returncode != 0:
        raise BenchError(done.stderr.strip())
    result: dict[str, Any] = json.loads(done.stdout)
    return result


def flood(face: str, prefix: str, count: int, start: int = 0) -> dict[str, float]:
    """Asks for so many names as fast as the forwarder reads; how many went, from when to when (monotonic time)."""
    arguments = _load("flood", "--face", face, "--prefix", prefix, "--count", str(count), "--batch", "64")
    arguments += ["--start", str(start)]
    return _finished(arguments)


@contextlib.contextmanager
def consumer(
    face: str, prefix: str, content_bytes: int, every_s: float, start: int = 0
) -> Iterator[list[tuple[float, int]]]:
    """A process that asks for ever new packets; at the end the list has the times at which it had got how many."""
    arguments = _load("consume", "--face", face, "--prefix", prefix, "--content", str(content_bytes))
    arguments += ["--count", "100000000", "--every", str(every_s), "--start", str(start)]
    process = subprocess.Popen(arguments, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    progress: list[tuple[float, int]] = []
    assert process.stdout is not None
    lines = process.stdout
    reader = threading.Thread(target=lambda: progress.extend(_progress(lines)))
    reader.start()
    try:
        yield progress
    finally:
        _end(process)
        reader.join()


def _progress(lines: Iterable[str]) -> Iterator[tuple[float, int]]:
    for line in lines:
        step = json.loads(line)
        yield step["at_s"], step["answered"]


def populate(gateway: Gateway, prefix: str, content_bytes: int, count: int, start: int = 0) -> dict[str, Any]:
    """Puts so many packets into the store by the forwarder's own admission; the producer is gone afterwards."""
    with producer(gateway.unix, prefix, content_bytes):
        time.sleep(0.1)
        return consume(gateway.unix, prefix, content_bytes, count=count, start=start, window=16)


def rss_bytes(gateway: Gateway) -> int:
    return measure.rss_bytes(gateway.pid)


def _load(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "bench.load", *arguments]


def _end(process: subprocess.Popen[Any]) -> None:
    if process.poll() is None:
        process.send_signal(signal.SIGTERM)
    try:
        process.wait(STOP_S)
    finally:
        process.kill()
        process.wait()
