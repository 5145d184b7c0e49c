"""The executor's process: alone on its directories, a socket for the network-facing process, and the supervisor.

There is no event loop: the main thread looks and acts, threads answer the socket, four workers unpack images and check
health. With the decision on disk it needs neither the network-facing process nor a controller.
"""

from __future__ import annotations

import functools
import hashlib
import signal
import sys
from pathlib import Path
from types import FrameType

from gateway.config import Settings
from gateway.executor import lock
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
    """Runs the executor until SIGTERM or `detach` (its services go on) or `stop` (they end first); an exit code."""
    try:
        with lock.hold(settings.services_dir):
            return _run(settings)
    except OSError as error:
        print(f"picasso-gateway executor: {error}", file=sys.stderr)
        return 1


def _run(settings: Settings) -> int:
    run_dir = settings.gateway.run_dir
    run_dir.mkdir(parents=True, exist_ok=True)
    private = run_dir / "executor"
    private.mkdir(mode=0o700, exist_ok=True)
    lock.check_private(private)
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
