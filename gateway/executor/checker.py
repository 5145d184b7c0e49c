"""One health check of a running service: HTTP over its relay, or a command inside. Blocking; called in a worker."""

from __future__ import annotations

import socket
import time

from gateway.executor.runtimes.base import Runtime, RuntimeFailure
from gateway.protocol.messages import HealthCheck

_STATUS_LINE_BYTES = 1024


def check(runtime: Runtime, service: str, health: HealthCheck) -> str:
    """The problem, empty when the service is well. Never raises for what a service does."""
    try:
        if health.command:
            code = runtime.execute(service, health.command, health.timeout_s)
            return f"{health.command[0]} ended with exit code {code}" if code else ""
        return _http(runtime, service, health)
    except TimeoutError:
        return f"GET {health.path} was not answered within {health.timeout_s:g} s"
    except (OSError, RuntimeFailure) as error:
        return f"the check failed: {error}"


def _http(runtime: Runtime, service: str, health: HealthCheck) -> str:
    deadline = time.monotonic() + health.timeout_s
    request = f"GET {health.path} HTTP/1.0\r\nHost: {service}\r\nUser-Agent: picasso\r\nConnection: close\r\n\r\n"
    with runtime.connect(service, health.timeout_s) as connection:
        try:
            answer = _ask(connection, request.encode(), deadline)
        except ConnectionError:  # the relay takes every connection, and drops those that the container refuses
            return f"nothing listens on port {health.port} inside the container"
    if not answer:
        return f"nothing answers on its port {health.port}"
    words = answer.split(b"\n")[0].split()
    if len(words) < 2 or not words[0].startswith(b"HTTP/") or not words[1].isdigit():
        return f"port {health.port} does not speak HTTP"
    return "" if 200 <= int(words[1]) < 400 else f"GET {health.path} gave status {int(words[1])}"


def _ask(connection: socket.socket, request: bytes, deadline: float) -> bytes:
    """The beginning of the answer, with its first line if that is not too long."""
    connection.sendall(request)
    answer = b""
    while b"\n" not in answer and len(answer) < _STATUS_LINE_BYTES:
        connection.settimeout(max(0.001, deadline - time.monotonic()))
        chunk = connection.recv(_STATUS_LINE_BYTES)
        if not chunk:
            break
        answer += chunk
    return answer
