"""The demonstration's network as running processes: one directory a node, a gateway in each, and the controller."""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

from controller.demo import asking
from controller.demo.asking import Unanswered
from controller.demo.plan import CONTROLLER, FIRST_SERVICE_PORT, INTERVAL_S, NDN_PORT, Plan, gateway_uci, make_plan
from controller.demo.processes import Processes

T = TypeVar("T")

CONTROLLER_PROCESS = "picasso-controller"
PATH_MAX_BYTES = (
    60  # a unix socket's path has 107 at most, and ours go on with `/controller/run/executor.sock` and more
)
COMMAND_S = 30.0
POLL_S = 0.2


class StepFailed(Exception):
    """A step of the demonstration did not come to its end; the message says which and what was seen instead."""


@contextlib.contextmanager
def free_subnet() -> Iterator[str]:
    """The first three bytes of a loopback network that nobody uses, held meanwhile: another run takes another one."""
    first = os.getpid()
    for at in range(first, first + 200):
        subnet = f"127.{64 + at // 254 % 128}.{1 + at % 254}"
        with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as holder:
            try:
                holder.bind((f"{subnet}.1", NDN_PORT))
            except OSError:
                continue
            yield subnet
            return
    raise StepFailed(
        "no free loopback network: 200 of 127.64.1.0/24 and the following are in use, or 127.0.0.0/8 is not up"
    )


class DemoNetwork:
    """The processes of a run and what they say of themselves. `directory` holds one folder a node."""

    def __init__(self, gateways: int, seed: int, directory: Path, subnet: str) -> None:
        if len(str(directory).encode()) > PATH_MAX_BYTES:
            raise StepFailed(
                f"{directory}: longer than {PATH_MAX_BYTES} bytes, no unix socket fits in; choose a shorter one"
            )
        self.nonce = secrets.token_hex(8)
        self.plan: Plan = make_plan(gateways, seed, f"/picasso/demo-{self.nonce}", subnet, directory)
        self.processes = Processes(self.nonce, self.plan.network, directory)
        self._stopping = threading.Lock()

    # --- starting

    def start_controller(self) -> None:
        """Makes the network's keys, then starts the controller's gateway and the controller."""
        folder, plan = self.plan.folder(CONTROLLER), self.plan
        folder.mkdir(parents=True)
        self._controller_file.write_text(self._controller_uci())
        (folder / "picasso").write_text(gateway_uci(plan, CONTROLLER, ""))
        self.controller("init", "--directory", str(folder), "--network", plan.network, "--node", CONTROLLER)
        self.start_gateway(CONTROLLER)
        arguments = ["run", "--config", str(self._controller_file)]
        self.processes.start(CONTROLLER_PROCESS, "controller", arguments, folder / "controller.log")

    def enrolment_tokens(self, nodes: Sequence[str]) -> dict[str, str]:
        """For each node a token with which it alone may enrol."""
        with ThreadPoolExecutor(2) as pool:
            rows = list(pool.map(lambda node: self.controller("enrol", node, "--json"), nodes))
        return {row["node"]: row["token"] for row in rows}

    def start_gateway(self, node: str, token: str | None = None) -> None:
        """Starts a node's gateway; a token is written into its configuration before, None leaves that as it is."""
        folder = self.plan.folder(node)
        folder.mkdir(parents=True, exist_ok=True)
        file = folder / "picasso"
        if token is not None:
            file.touch(mode=0o600)
            file.write_text(gateway_uci(self.plan, node, token))
        self.processes.start(node, "gateway", ["run", "--config", str(file)], folder / "gateway.log")

    @property
    def _controller_file(self) -> Path:
        return self.plan.folder(CONTROLLER) / "picasso-controller"

    def _controller_uci(self) -> str:
        folder = self.plan.folder(CONTROLLER)
        options = {
            "network": self.plan.network,
            "node": CONTROLLER,
            "state_dir": folder / "state",
            "gateway": f"unix://{folder}/run/ndn.sock",
            "report_interval": f"{INTERVAL_S}s",
        }
        return "config controller 'controller'\n" + "".join(f"\toption {k} '{v}'\n" for k, v in options.items())

    # --- asking

    def controller(self, command: str, *arguments: str) -> Any:
        """Runs `picasso-controller command …`; its JSON when `--json` is among the arguments. Raises StepFailed."""
        argv = [sys.executable, "-m", "controller", command, "--config", str(self._controller_file), *arguments]
        shown = " ".join(["picasso-controller", command, *arguments])
        try:
            done = subprocess.run(
                argv, capture_output=True, text=True, timeout=COMMAND_S, env=self.processes.environment(), check=False
            )
        except subprocess.TimeoutExpired as error:
            raise StepFailed(f"`{shown}` did not end within {COMMAND_S:.0f} s") from error
        if done.returncode:
            raise StepFailed(f"`{shown}` ended with {done.returncode}: {done.stderr.strip() or done.stdout.strip()}")
        return json.loads(done.stdout) if "--json" in arguments else done.stdout

    def run_dir(self, node: str) -> Path:
        return self.plan.folder(node) / "run"

    def ask(self, node: str, command: str) -> Any:
        """A dataset of a node's gateway; raises Unanswered."""
        return asking.ask(self.run_dir(node), command)

    def ask_all(self, command: str, nodes: tuple[str, ...] | None = None) -> dict[str, Any]:
        """A dataset of every node that answers."""
        answers = {}
        for node in self.plan.topology.names if nodes is None else nodes:
            with contextlib.suppress(Unanswered):
                answers[node] = self.ask(node, command)
        return answers

    def wait(self, what: str, timeout_s: float, check: Callable[[], tuple[T | None, str]]) -> T:
        """What `check` gives at last; raises StepFailed with what it said instead, or with the process that ended."""
        deadline = time.monotonic() + timeout_s
        while True:
            try:
                result, seen = check()
            except Unanswered as error:
                result, seen = None, str(error)
            if result is not None:
                return result
            if ended := self.processes.ended():
                names = ", ".join(f"{name} (exit code {code})" for name, code in ended.items())
                raise StepFailed(
                    f"{what}: {names} ended by itself; its last words:\n{self.last_words(next(iter(ended)))}"
                )
            if time.monotonic() > deadline:
                raise StepFailed(f"{what}: not within {timeout_s:.0f} s; {seen}")
            time.sleep(POLL_S)

    def last_words(self, process: str) -> str:
        """The end of a process' log."""
        is_controller = process == CONTROLLER_PROCESS
        log = (
            self.plan.folder(CONTROLLER) / "controller.log"
            if is_controller
            else self.plan.folder(process) / "gateway.log"
        )
        with contextlib.suppress(OSError):
            return "\n".join(log.read_text(errors="replace").splitlines()[-12:])
        return "(no log)"

    # --- ending

    def stop(self) -> list[str]:
        """Ends everything in order, then by force; returns what was not as it should be. May be called twice."""
        with self._stopping:
            late = self.processes.terminate([CONTROLLER_PROCESS, *self.plan.topology.names], 5.0)
            nodes = [node for node in self.plan.gateways if (self.run_dir(node) / "executor.sock").exists()]
            with ThreadPoolExecutor(8) as pool:
                list(pool.map(self._stop_services, nodes))
            problems = [f"{name} did not end within 5 s of SIGTERM" for name in late]
            if survivors := self.processes.kill_all():
                problems.append(f"processes survive SIGKILL: {survivors}")
            return problems

    def _stop_services(self, node: str) -> None:
        with contextlib.suppress(Unanswered):  # it ended with its gateway; what is left of it is ended by force
            asking.stop_services(self.run_dir(node))


def service_file(name: str, index: int, image: str, replicas: int) -> str:
    """What the provider writes to deploy a service of the demonstration (YAML)."""
    from controller.demo.image import HEALTH_PATH, PORT

    return (
        f"name: {name}\n"
        f"image: {image}\n"
        f"replicas: {replicas}\n"
        f'ports: ["{FIRST_SERVICE_PORT + index}:{PORT}"]\n'
        "resources: {cpu: 0.2, memory: 16M, disk: 8M}\n"
        f"health: {{path: {HEALTH_PATH}, port: {PORT}, interval: 1s, grace: 10s}}\n"
    )
