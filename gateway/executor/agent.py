"""The executor's process: alone on its directories, a socket for the network-facing process, and the supervisor.

There is no event loop: the main thread looks and acts, threads answer the socket, four workers unpack images and check
health. With the decision on disk it needs neither the network-facing process nor a controller.
"""

from __future__ import annotations

import contextlib
import fcntl
import functools
import hashlib
import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from types import FrameType

from gateway.config import Settings
from gateway.executor.runtimes.selection import select
from gateway.executor.server import Server
from gateway.executor.supervisor import Supervisor
from gateway.executor.workers import Workers

_WORKERS = 4


@functools.cache
def _tag(network: str, node: str, directory: Path) -> str:
    return hashlib.sha256(f"{network}\0{node}\0{directory.resolve()}".encode()).hexdigest()[:10]


def tag_of(settings: Settings) -> str:
    """What tells this gateway's instances from those of another gateway on the same host."""
    return _tag(settings.gateway.network, settings.gateway.node, settings.services_dir)


def main(settings: Settings) -> int:
    """Runs the executor until SIGTERM (its services go on) or the request `stop` (they end first); an exit code."""
    try:
        with _alone(settings.services_dir):
            return _run(settings)
    except OSError as error:
        print(f"picasso-gateway executor: {error}", file=sys.stderr)
        return 1


def _run(settings: Settings) -> int:
    run_dir = settings.gateway.run_dir
    run_dir.mkdir(parents=True, exist_ok=True)
    private = run_dir / "executor"
    private.mkdir(mode=0o700, exist_ok=True)
    _check_private(private)
    selection = select(settings.executor.runtimes, private, tag_of(settings))
    supervisor = Supervisor(settings, selection, tag_of(settings), Workers(_WORKERS))

    def on_signal(_number: int, _frame: FrameType | None) -> None:
        supervisor.detach()

    signal.signal(signal.SIGTERM, on_signal)
    signal.signal(signal.SIGINT, on_signal)
    server = Server(run_dir / "executor.sock", supervisor.handle)
    server.start()
    try:
        supervisor.run()
    finally:
        server.close()
    return 0


def _check_private(directory: Path) -> None:
    """Whoever could write here could make the executor stop or adopt what it should not."""
    status = directory.lstat()
    if status.st_uid != os.geteuid() or status.st_mode & 0o022 or directory.is_symlink():
        raise OSError(f"{directory} must be a directory that only its owner, user {os.geteuid()}, can write to")


@contextlib.contextmanager
def _alone(directory: Path) -> Iterator[None]:
    """Holds the services directory for this process alone."""
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    _check_private(directory)
    with open(directory / ".lock", "w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise OSError(f"{directory} is in use by another executor") from None
        yield
