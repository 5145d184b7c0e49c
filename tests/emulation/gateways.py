"""Real gateways in an emulated network: `python -m gateway run` with a configuration of their own in each namespace."""

from __future__ import annotations

import contextlib
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from gateway import control
from tests.emulation.namespaces import ROOT, EmulationError
from tests.emulation.network import EmulatedNetwork

NDN_PORT = 6363
START_S, STOP_S = 60.0, 10.0
LAST_LINES = 12
UNIX_PATH_BYTES = 70


class EmulatedGateway:
    """One gateway on a node; `neighbors` maps a node name to further options of its section, `prefixes` to a neighbour.

    `options` are further options of the section forwarder.
    """

    def __init__(
        self,
        network: EmulatedNetwork,
        node: str,
        prefix: str,
        directory: Path,
        neighbors: Mapping[str, Mapping[str, str]],
        prefixes: Iterable[tuple[str, str]] = (),
        transport: str = "tcp4",
        options: Mapping[str, str] | None = None,
        interval_s: float = 2.0,
    ) -> None:
        if len(str(directory)) > UNIX_PATH_BYTES:
            raise EmulationError(f"{directory}: longer than {UNIX_PATH_BYTES} bytes, no unix socket fits in")
        self.network, self.node, self.directory = network, node, directory
        self.address = network.address(node)
        self.unix = f"unix://{directory}/run/ndn.sock"
        self.blobs = directory / "blobs"
        self.log = directory / "log"
        self._config = directory / "picasso"
        self._process: subprocess.Popen[bytes] | None = None
        directory.mkdir(parents=True, exist_ok=True)
        directory.chmod(0o755)
        listen = [self.unix, f"tcp4://{self.address}:{NDN_PORT}", f"udp4://{self.address}:{NDN_PORT}"]
        lines = _section(
            "gateway",
            "gateway",
            {"network": prefix, "node": node, "state_dir": str(self.state), "run_dir": str(directory / "run")},
        )
        lines += _section("controller", "controller", {"interval": f"{interval_s:g}s"})
        lines += _section("forwarder", "forwarder", {"blob_dir": str(self.blobs), "discovery": "0", **(options or {})})
        lines += [f"\tlist listen '{uri}'" for uri in listen]
        for other, more in neighbors.items():
            uri = f"{transport}://{network.address(other)}:{NDN_PORT}"
            lines += _section("neighbor", section_name(other), {"uri": uri, **more})
        for name, other in prefixes:
            lines += _section("route", "", {"prefix": name, "neighbor": section_name(other)})
        lines += ["", "config executor 'executor'", "\tlist runtime 'none'", ""]
        self._config.write_text("\n".join(lines))

    @property
    def state(self) -> Path:
        return self.directory / "state"

    @property
    def pid(self) -> int:
        """The process id of the running gateway."""
        assert self._process is not None
        return self._process.pid

    def start(self) -> EmulatedGateway:
        """Starts the process; `wait_until_up` says when it answers."""
        command = [*self.network.inside(self.node), sys.executable, "-m", "gateway", "run"]
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                [*command, "--config", str(self._config)],
                cwd=ROOT,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        return self

    def wait_until_up(self, timeout_s: float = START_S) -> None:
        wait_for(self.is_up, timeout_s, f"the gateway of {self.node}")

    def is_up(self) -> bool:
        self.check()
        with contextlib.suppress(ConnectionError):
            return bool(self.ask("status"))
        return False

    def check(self) -> None:
        """Raises EmulationError with the last words of a gateway that has ended by itself."""
        if self._process is not None and (code := self._process.poll()) is not None:
            words = "\n".join(self.log.read_text(errors="replace").splitlines()[-LAST_LINES:])
            raise EmulationError(f"the gateway of {self.node} ended with {code}; its last words:\n{words}")

    def ask(self, dataset: str) -> Any:
        """A dataset of its control socket; raises ConnectionError."""
        return control.ask(self.directory / "run" / "control.sock", dataset)

    def holds(self, sha256s: Iterable[bytes]) -> bool:
        """Whether these blobs are whole on its disk, seen from outside: no question costs it time."""
        return all((self.blobs / "blobs" / "sha256" / sha256.hex()).exists() for sha256 in sha256s)

    def held_bytes(self, sha256: bytes, size: int) -> int:
        """About how much of a blob is on its disk."""
        if self.holds([sha256]):
            return size
        with contextlib.suppress(OSError):
            return min(size, (self.blobs / "partial" / sha256.hex()).stat().st_blocks * 512)
        return 0

    def kill(self) -> None:
        """SIGKILL."""
        self._end("kill")

    def stop(self) -> None:
        """SIGTERM, and SIGKILL to one that does not listen."""
        self._end("terminate")

    def _end(self, how: str) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        with contextlib.suppress(ProcessLookupError):
            getattr(process, how)()
        try:
            process.wait(STOP_S)
        finally:
            process.kill()
            process.wait()


def start_all(gateways: Sequence[EmulatedGateway], timeout_s: float = START_S) -> None:
    """Starts gateways, a few at a time, and waits until all answer."""
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda gateway: gateway.start().wait_until_up(timeout_s), gateways))


def stop_all(gateways: Sequence[EmulatedGateway]) -> None:
    if gateways:
        with ThreadPoolExecutor(8) as pool:
            list(pool.map(EmulatedGateway.stop, gateways))


def wait_for(condition: Callable[[], Any], timeout_s: float, what: str, every_s: float = 0.1) -> Any:
    """The first true value of the condition; raises EmulationError after the timeout."""
    deadline = time.monotonic() + timeout_s
    while not (value := condition()):
        if time.monotonic() > deadline:
            raise EmulationError(f"{what}: not within {timeout_s:g} s")
        time.sleep(every_s)
    return value


def section_name(node: str) -> str:
    """A neighbor's UCI section, which may have no hyphen."""
    return "to_" + "".join(c if c.isalnum() else "_" for c in node)


def _section(kind: str, name: str, options: Mapping[str, str]) -> list[str]:
    lines = ["", f"config {kind} '{name}'" if name else f"config {kind}"]
    return [*lines, *(f"\toption {option} '{value}'" for option, value in options.items())]
