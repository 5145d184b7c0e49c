"""The controller's control socket: how its commands take effect in the running daemon at once.

One JSON object a line each way: `{"command": "status"}` gets `{"ok": true, "result": …}` or `{"ok": false, "error":
"…"}`; a command that takes long sends `{"progress": [done, total]}` lines before. Only the daemon's own user connects.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import socket
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any

from controller.errors import ControllerError

log = logging.getLogger(__name__)

LINE_MAX_BYTES = 64 * 1024
CLIENTS_MAX = 16
IDLE_S = 60.0
# A placement on the largest network takes seconds; a publication sends progress in between.
ANSWER_TIMEOUT_S = 60.0

Report = Callable[[int, int], None]
Command = Callable[[dict[str, Any], Report], Awaitable[Any]]


class ControlServer:
    """Answers the commands of a table; whatever fails becomes an error line."""

    def __init__(self, path: Path, commands: Mapping[str, Command]) -> None:
        self._path, self._commands = path, commands
        self._server: asyncio.Server | None = None
        self._writers: set[asyncio.StreamWriter] = set()

    async def start(self) -> None:
        """Listens; raises ControllerError when another controller does, or the path cannot be used."""
        if self._path.is_socket() and _answers(self._path):
            raise ControllerError(f"{self._path} is in use: another picasso-controller runs on this state directory")
        try:
            self._path.unlink(missing_ok=True)
            previous = os.umask(0o177)
            try:
                self._server = await asyncio.start_unix_server(self._serve, str(self._path), limit=LINE_MAX_BYTES)
            finally:
                os.umask(previous)
        except OSError as error:
            raise ControllerError(f"{self._path}: {error.strerror or error}") from error

    def stop(self) -> None:
        if self._server is not None:
            self._server.close()
            self._path.unlink(missing_ok=True)
        for writer in self._writers:
            writer.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if len(self._writers) >= CLIENTS_MAX:
            writer.close()
            return
        self._writers.add(writer)
        try:
            while line := await _read_line(reader):
                _write(writer, await self._answer(line, writer))
                await writer.drain()
        except (TimeoutError, ConnectionError, ValueError):
            pass  # gone, silent, or a line longer than any request
        finally:
            self._writers.discard(writer)
            writer.close()

    async def _answer(self, line: bytes, writer: asyncio.StreamWriter) -> dict[str, Any]:
        try:
            request = json.loads(line)
            name = request["command"]
        except (ValueError, KeyError, TypeError, RecursionError):
            return {"ok": False, "error": 'a request is one line: {"command": "status"}'}
        command = self._commands.get(name) if isinstance(name, str) else None
        if command is None:
            return {
                "ok": False,
                "error": f"unknown command {name!r:.60}; known are {', '.join(sorted(self._commands))}",
            }
        try:
            return {"ok": True, "result": await command(request, lambda done, total: _report(writer, done, total))}
        except ControllerError as error:
            return {"ok": False, "error": str(error)}
        except Exception:
            log.exception("the command %s failed", name)
            return {"ok": False, "error": f"{name} failed; the controller's log says why"}


async def _read_line(reader: asyncio.StreamReader) -> bytes:
    async with asyncio.timeout(IDLE_S):
        return await reader.readline()


def _write(writer: asyncio.StreamWriter, message: dict[str, Any]) -> None:
    writer.write(json.dumps(message).encode() + b"\n")


def _report(writer: asyncio.StreamWriter, done: int, total: int) -> None:
    if not writer.is_closing():
        _write(writer, {"progress": [done, total]})


def _answers(path: Path) -> bool:
    with contextlib.closing(socket.socket(socket.AF_UNIX)) as probe:
        probe.settimeout(1.0)
        try:
            probe.connect(str(path))
        except OSError:
            return False
        return True


class NotRunning(Exception):
    """No daemon listens on the control socket."""


def ask(path: Path, request: Mapping[str, Any], progress: Report | None = None) -> Any:
    """The result of one command; raises NotRunning, or ControllerError with what the daemon says."""
    with contextlib.closing(socket.socket(socket.AF_UNIX)) as connection:
        connection.settimeout(ANSWER_TIMEOUT_S)
        try:
            connection.connect(str(path))
        except (FileNotFoundError, ConnectionRefusedError) as error:
            raise NotRunning(f"no controller runs at {path}") from error
        except OSError as error:
            raise ControllerError(f"{path}: {error.strerror or error}") from error
        try:
            connection.sendall(json.dumps(dict(request)).encode() + b"\n")
            with connection.makefile("rb") as answers:
                return _read_answer(answers, progress)
        except (OSError, ValueError) as error:
            raise ControllerError(f"the controller at {path} did not answer: {error}") from error


def _read_answer(answers: Any, progress: Report | None) -> Any:
    for line in answers:
        answer = json.loads(line)
        if "progress" in answer:
            if progress is not None:
                progress(*answer["progress"])
        elif answer.get("ok"):
            return answer.get("result")
        else:
            raise ControllerError(str(answer.get("error", "no reason given")))
    raise ControllerError("the controller closed the connection before it answered")
