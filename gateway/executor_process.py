"""The second process: started by `run`, watched while it runs, stopped with its services."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import subprocess
import sys
import time
from pathlib import Path

from gateway.config import Settings
from gateway.executor.client import ExecutorClient, ExecutorError
from gateway.executor.takeover import take_over

log = logging.getLogger(__name__)

RESTART_MIN_S, RESTART_MAX_S = 1.0, 60.0
WATCH_S = 0.5


class ExecutorEnded(Exception):
    """The executor is gone and can't be started with the privileges that are left."""


class ExecutorProcess:
    """`picasso-gateway executor` as a child; it lives on when this process is killed, and keeps its services."""

    def __init__(self, settings: Settings) -> None:
        self._config = settings.path
        self._services_dir, self._socket = settings.services_dir, settings.gateway.run_dir / "executor.sock"
        self._user = os.geteuid()
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Starts it, in place of one that a killed gateway left behind, whose services it adopts; may take seconds.

        Raises OSError when another gateway has the services directory.
        """
        if take_over(self._services_dir, self._socket):
            log.info("an executor that was left behind has ended; its services are adopted")
        package = Path(__file__).resolve().parent.parent
        path = os.pathsep.join(p for p in (str(package), os.environ.get("PYTHONPATH", "")) if p)
        self._process = subprocess.Popen(
            [sys.executable, "-m", "gateway", "executor", "--config", str(self._config)],
            env={**os.environ, "PYTHONPATH": path},
            stdin=subprocess.DEVNULL,
            start_new_session=True,
        )

    async def supervise(self, stopping: asyncio.Event) -> None:
        """Starts it again when it ends, more and more rarely."""
        delay = RESTART_MIN_S
        while not stopping.is_set():
            await asyncio.sleep(WATCH_S)
            if self._process is None or self._process.poll() is None:
                continue
            if os.geteuid() != self._user:
                raise ExecutorEnded(
                    f"the executor ended with status {self._process.returncode} and this user may not start it again: "
                    "the gateway ends, so that its own supervisor starts both"
                )
            log.error("the executor ended with status %s; again in %.0f s", self._process.returncode, delay)
            await asyncio.sleep(delay)
            delay = min(delay * 2, RESTART_MAX_S)
            try:
                await asyncio.to_thread(self.start)
            except OSError as error:
                log.error("the executor was not started: %s", error)

    async def stop(self, client: ExecutorClient, patience_s: float) -> None:
        """Stops the services and the process; what has not ended by then is killed, where this user may do that."""
        deadline = time.monotonic() + patience_s
        while time.monotonic() < deadline:
            if self._process is None or self._process.poll() is not None:
                return  # whoever answers now is not ours
            # One that has only just been started does not listen yet.
            with contextlib.suppress(ExecutorError, TimeoutError):
                async with asyncio.timeout(deadline - time.monotonic()):
                    await client.stop()
            await asyncio.sleep(0.1)
        log.warning("the executor did not stop in %.0f s and is killed", patience_s)
        if self._process is not None:
            with contextlib.suppress(PermissionError):
                self._process.kill()
