"""How the demonstration asks running processes: a gateway's control socket, its web page, and its executor."""

from __future__ import annotations

import http.client
import json
import socket
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urljoin, urlsplit

from gateway.protocol import codec
from gateway.protocol.executor_messages import STOP, ExecutorRequest

TIMEOUT_S = 5.0
MAXIMUM_REDIRECTS = 5
MAXIMUM_BODY_BYTES = 1 << 20


class Unanswered(Exception):
    """A process that does not answer, or answers with an error; the message names it."""


def ask(run_dir: Path, command: str) -> Any:
    """The result of a command on a gateway's control socket; raises Unanswered."""
    path = run_dir / "control.sock"
    try:
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(TIMEOUT_S)
            connection.connect(str(path))
            connection.sendall(json.dumps({"command": command}).encode() + b"\n")
            with connection.makefile("rb") as lines:
                answer = json.loads(lines.readline())
    except (OSError, ValueError) as error:
        raise Unanswered(f"{path}: {command}: {error}") from error
    if not answer.get("ok"):
        raise Unanswered(f"{path}: {command}: {answer.get('error')}")
    return answer["result"]


def stop_services(run_dir: Path) -> None:
    """Tells a gateway's executor to stop every service and itself; raises Unanswered."""
    path = run_dir / "executor.sock"
    request = codec.encode(ExecutorRequest(STOP))
    try:
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(2 * TIMEOUT_S)
            connection.connect(str(path))
            connection.sendall(len(request).to_bytes(4, "big") + request)
            while connection.recv(4096):
                pass
    except OSError as error:
        raise Unanswered(f"{path}: stop: {error}") from error


@dataclass(frozen=True, slots=True)
class Reply:
    """The end of a GET with its redirects: `status` 0 when nobody answered, `url` is where the answer came from."""

    status: int
    body: bytes
    url: str
    latency_ms: float
    problem: str = ""

    def json(self) -> dict[str, Any]:
        """The body as a JSON object; empty when it is none."""
        try:
            value = json.loads(self.body)
        except ValueError:
            return {}
        return value if isinstance(value, dict) else {}


def get(url: str, timeout_s: float = TIMEOUT_S) -> Reply:
    """GET that follows redirects; never raises, a failure is told in the reply."""
    started = time.perf_counter()
    status, body, problem = 0, b"", ""
    try:
        for _ in range(MAXIMUM_REDIRECTS + 1):
            status, body, location = _get_once(url, timeout_s)
            if not 300 <= status < 400 or not location:
                break
            url = urljoin(url, location)
        else:
            problem = f"more than {MAXIMUM_REDIRECTS} redirects"
    except (OSError, http.client.HTTPException) as error:
        status, problem = 0, f"{url}: {error}"
    return Reply(status, body, url, (time.perf_counter() - started) * 1000, problem)


def _get_once(url: str, timeout_s: float) -> tuple[int, bytes, str]:
    parts = urlsplit(url)
    connection = http.client.HTTPConnection(parts.hostname or "", parts.port or 80, timeout=timeout_s)
    try:
        connection.request("GET", parts.path + (f"?{parts.query}" if parts.query else ""))
        response = connection.getresponse()
        return response.status, response.read(MAXIMUM_BODY_BYTES), response.getheader("Location", "")
    finally:
        connection.close()
