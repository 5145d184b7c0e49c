"""`control.sock`: how the command line and the owner's scripts ask the running gateway.

One JSON object a line each way: `{"command": "status"}` gets `{"ok": true, "result": …}` or
`{"ok": false, "error": "…"}`. The socket is readable by the group `picasso`; no command changes anything.
"""

from __future__ import annotations

import asyncio
import contextlib
import grp
import json
import logging
import os
import socket
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

log = logging.getLogger(__name__)

LINE_MAX_BYTES = 64 * 1024
CLIENTS_MAX = 16
IDLE_S = 60.0
GROUP = "picasso"

Command = Callable[[], Any]


class ControlServer:
    """Answers the commands of a table; a bad line gets an error, never closes the gateway."""

    def __init__(self, path: Path, commands: Mapping[str, Command]) -> None:
        self._path, self._commands = path, commands
        self._server: asyncio.Server | None = None
        self._clients: set[asyncio.StreamWriter] = set()

    async def start(self) -> None:
        self._path.unlink(missing_ok=True)
        self._server = await asyncio.start_unix_server(self._serve, str(self._path), limit=LINE_MAX_BYTES)
        self._path.chmod(0o660)
        with contextlib.suppress(KeyError, PermissionError):
            os.chown(self._path, -1, grp.getgrnam(GROUP).gr_gid)

    def stop(self) -> None:
        if self._server is not None:
            self._server.close()
        for writer in self._clients:
            writer.close()
        self._path.unlink(missing_ok=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if len(self._clients) >= CLIENTS_MAX:
            writer.close()
            return
        self._clients.add(writer)
        try:
            while line := await _read_line(reader):
                writer.write(json.dumps(self._answer(line)).encode() + b"\n")
                await writer.drain()
        except (TimeoutError, ConnectionError, ValueError):
            pass  # gone, silent, or a line longer than any request
        finally:
            self._clients.discard(writer)
            writer.close()

    def _answer(self, line: bytes) -> dict[str, Any]:
        try:
            request = json.loads(line)
            name = request["command"]
        except (ValueError, KeyError, TypeError):
            return {"ok": False, "error": 'a request is one line: {"command": "status"}'}
        command = self._commands.get(name) if isinstance(name, str) else None
        if command is None:
            return {"ok": False, "error": f"unknown command {name!r}; known are {', '.join(sorted(self._commands))}"}
        try:
            return {"ok": True, "result": command()}
        except Exception:
            log.exception("the command %s failed", name)
            return {"ok": False, "error": f"{name} failed; the log says why"}


async def _read_line(reader: asyncio.StreamReader) -> bytes:
    async with asyncio.timeout(IDLE_S):
        return await reader.readline()


def ask(path: Path, command: str, timeout_s: float = 5.0) -> Any:
    """The result of one command; raises ConnectionError or RuntimeError with a text for the user."""
    try:
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(timeout_s)
            connection.connect(str(path))
            connection.sendall(json.dumps({"command": command}).encode() + b"\n")
            with connection.makefile("rb") as file:
                answer = json.loads(file.readline())
    except PermissionError as error:
        raise ConnectionError(f"{path}: you may not ask this gateway; be root or in the group {GROUP}") from error
    except (OSError, ValueError) as error:
        raise ConnectionError(f"no gateway answers at {path} ({error}); start it with: picasso-gateway run") from error
    if not answer["ok"]:
        raise RuntimeError(answer["error"])
    return answer["result"]
