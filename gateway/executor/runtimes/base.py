"""What the executor asks of a container runtime: a narrow interface, and the values that cross it."""

from __future__ import annotations

import socket
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from gateway.protocol.messages import Port


class RuntimeFailure(Exception):
    """A runtime did not do what it was asked; the text names the runtime, the service and its words."""


@dataclass(frozen=True, slots=True)
class Labels:
    """What marks an instance as ours; `tag` is of this gateway, because several may share one host."""

    tag: str
    service: str
    digest: bytes
    generation: int


@dataclass(frozen=True, slots=True)
class Launch:
    """Everything a runtime needs to start one instance; `rootfs` is mounted read-only and shared between instances.

    `health_port` is the container port that the health check talks to, 0 when there is none.
    """

    labels: Labels
    rootfs: Path
    command: tuple[str, ...]
    environment: tuple[str, ...]
    directory: str
    uid: int
    gid: int
    address: str
    ports: tuple[Port, ...]
    health_port: int
    cpu: float
    memory_bytes: int
    tmp_bytes: int
    restarts: int = 0


@dataclass(frozen=True, slots=True)
class Instance:
    """An instance that a runtime started and has not removed.

    `state` is `starting`, `running` or `exited`; `started` is Unix time, `started_s` the system's monotonic clock.
    """

    labels: Labels
    state: str
    started: float
    started_s: float
    ports: tuple[int, ...] = ()
    restarts: int = 0
    exit_code: int | None = None
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Stats:
    memory_bytes: int
    cpu_s: float


class Runtime(Protocol):
    """Starts and stops instances; there is at most one instance a service. Nothing here waits for a service."""

    name: str
    note: str

    def start(self, launch: Launch) -> None:
        """Begins to start; what becomes of it is seen in list_managed(). Raises RuntimeFailure or OSError."""

    def signal(self, service: str, number: int) -> None:
        """Sends a signal to the service's first process, if it still runs."""

    def remove(self, service: str) -> None:
        """Kills what is left of the instance and forgets it."""

    def list_managed(self) -> list[Instance]:
        """Every instance with this gateway's labels, also those that another run of the executor started."""

    def watch(self) -> list[int]:
        """Descriptors that become readable when an instance ends; they stay the runtime's."""

    def connect(self, service: str, timeout_s: float) -> socket.socket:
        """A connection to the instance's health port; raises OSError."""

    def execute(self, service: str, command: tuple[str, ...], timeout_s: float) -> int:
        """Runs a command inside; its exit code. Raises OSError or RuntimeFailure."""

    def logs(self, service: str) -> bytes:
        """The last 64 KB of output at most."""

    def stats(self, service: str) -> Stats | None:
        """What the instance uses, None when that is not known."""
