"""The page's HTTP server: a fixed number of connections, a deadline for each, redirects to instances only."""

from __future__ import annotations

import http.server
import io
import ipaddress
import logging
import re
import socket
import socketserver
import sys
import threading
import time
from collections.abc import Sequence
from http import HTTPStatus
from typing import Any
from urllib.parse import quote, unquote

from gateway.page import Directory, Instance, PageService, render, render_message, to_json

log = logging.getLogger(__name__)

# A phone opens six connections; each costs a thread of some 100 kB here, and lives only for one short answer.
MAX_CONNECTIONS = 32
REQUEST_S = 5.0
STOP_S = 0.25  # how long stopping may take
CHECK_S = 1.0
CHECK_KEPT_S = 2.0
CHECKS_KEPT = 256
STATUS_LINE_BYTES = 256
RETRY_AFTER_S = 5
# Enough for any instance's path; http.server itself takes up to 64 kB.
MAX_TARGET_BYTES = 8192
DRAIN_BYTES = 64 << 10
MAX_TRIED = 8

_HOST_NAME = re.compile(r"(?!-)[A-Za-z0-9_-]{1,63}(\.[A-Za-z0-9_-]{1,63})*\.?")
_PATH_SAFE = "%/:@!$&'()*+,;=-._~?"
# In a health check it says that a page asks: no page is an instance, and a redirect to one would never end.
_ASKED_BY_PAGE = "X-PiCasso-Page"
_FULL = (
    b"HTTP/1.0 503 Service Unavailable\r\nRetry-After: 5\r\nContent-Type: text/plain\r\nConnection: close\r\n\r\n"
    b"Too many connections to this page; try again.\n"
)


class PageServer(http.server.ThreadingHTTPServer):
    """Listens from the moment it is made; raises OSError."""

    daemon_threads = True
    block_on_close = False
    request_queue_size = 64

    def __init__(self, address: tuple[str, int], directory: Directory, title: str) -> None:
        self.address_family = socket.AF_INET6 if ":" in address[0] else socket.AF_INET
        self.directory, self.title, self.checker = directory, title, HealthChecker()
        self._slots = threading.BoundedSemaphore(MAX_CONNECTIONS)
        self._thread = threading.Thread(target=self.serve_forever, args=(STOP_S,), name="page", daemon=True)
        super().__init__(address, PageHandler)

    def server_bind(self) -> None:
        # HTTPServer asks the resolver for our own name here, which may take a minute without a network.
        socketserver.TCPServer.server_bind(self)
        self.server_name, self.server_port = self.server_address[:2]  # type: ignore[assignment]

    def run_in_thread(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self.shutdown()
        self.server_close()
        self._thread.join()

    def process_request(self, request: Any, client_address: Any) -> None:
        if not self._slots.acquire(blocking=False):
            request.settimeout(0.1)
            try:
                request.sendall(_FULL)
            except OSError as error:
                log.debug("page: %s: %s", client_address, error)
            self.shutdown_request(request)
            return
        try:
            super().process_request(request, client_address)
        except RuntimeError:  # no thread to be had
            self._slots.release()
            self.shutdown_request(request)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._slots.release()

    def handle_error(self, request: Any, client_address: Any) -> None:
        if isinstance(sys.exc_info()[1], OSError):
            log.debug("page: %s went away", client_address, exc_info=True)
        else:
            log.exception("page: the answer to %s failed", client_address)


class PageHandler(http.server.BaseHTTPRequestHandler):
    """One request, one answer, and the connection is closed; the Host header is not looked at."""

    server: PageServer
    server_version = "PiCasso"
    sys_version = ""

    def setup(self) -> None:
        super().setup()
        self.connection.settimeout(REQUEST_S)
        self.rfile.close()
        self.rfile = io.BufferedReader(_DeadlineReader(self.connection, time.monotonic() + REQUEST_S))

    def answer(self) -> None:
        self._drain()
        if self.headers.get(_ASKED_BY_PAGE) is not None:
            self._send_message(HTTPStatus.LOOP_DETECTED, "This is a gateway's page and no service.")
            return
        # http.server keeps a leading `//` as `/`; an absolute or odd target has no place among our paths.
        if not self.path.startswith("/") or len(self.path) > MAX_TARGET_BYTES:
            self._send_message(HTTPStatus.BAD_REQUEST, "This is not a path of this page.")
            return
        services = self.server.directory()
        path, _, query = self.path.partition("?")
        first, slash, rest = path[1:].partition("/")
        if path in ("/", "/services.json") and self.command in ("GET", "HEAD"):
            self._send_list(path, services)
            return
        name = unquote(first)
        service = next((each for each in services if each.name == name), None)
        if service is None:
            text = f"There is no service {name[:80]!r} in this network."
            self._send_message(HTTPStatus.NOT_FOUND, text, services)
            return
        self._send_to_instance(service, rest if slash else "", query)

    do_GET = do_HEAD = do_POST = do_PUT = do_PATCH = do_DELETE = do_OPTIONS = answer  # noqa: N815 - http.server's names

    def _drain(self) -> None:
        """Reads a small body that nobody wants, because closing on unread bytes would take the answer away too."""
        length = self.headers.get("Content-Length", "")
        if length.isdecimal():
            self.rfile.read(min(int(length), DRAIN_BYTES))

    def _send_list(self, path: str, services: Sequence[PageService]) -> None:
        if path == "/":
            self._send(HTTPStatus.OK, "text/html", render(self.server.title, services))
        else:
            self._send(HTTPStatus.OK, "application/json", to_json(services))

    def _send_to_instance(self, service: PageService, rest: str, query: str) -> None:
        for instance in service.instances[:MAX_TRIED]:
            if self.server.checker.answers(instance, service.health_path):
                location = instance_url(instance, rest, query)
                text = f"The nearest instance of {service.name} is on {instance.node}."
                self._send_message(HTTPStatus.TEMPORARY_REDIRECT, text, headers={"Location": location})
                return
        text = f"No instance of {service.name} answers at the moment ({len(service.instances[:MAX_TRIED])} tried)."
        self._send_message(HTTPStatus.SERVICE_UNAVAILABLE, text, headers={"Retry-After": str(RETRY_AFTER_S)})

    def _send_message(
        self,
        status: HTTPStatus,
        text: str,
        services: Sequence[PageService] = (),
        headers: dict[str, str] | None = None,
    ) -> None:
        self._send(status, "text/html", render_message(self.server.title, text, services), headers)

    def _send(self, status: HTTPStatus, kind: str, text: str, headers: dict[str, str] | None = None) -> None:
        body = text.encode("utf-8", "replace")
        self.send_response(status)
        self.send_header("Content-Type", f"{kind}; charset=utf-8")
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Cache-Control", "no-store")
        self.send_header("X-Content-Type-Options", "nosniff")
        self.send_header("Referrer-Policy", "no-referrer")
        self.send_header("Content-Security-Policy", "default-src 'none'; style-src 'unsafe-inline'")
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        log.debug("page: %s %s", self.client_address[0], format % args)


class _DeadlineReader(io.RawIOBase):
    """Reads from a socket until a moment, however slowly the bytes drip in."""

    def __init__(self, connection: socket.socket, deadline: float) -> None:
        self._connection, self._deadline = connection, deadline

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        left_s = self._deadline - time.monotonic()
        if left_s <= 0:
            raise TimeoutError("the request took too long")
        self._connection.settimeout(left_s)
        try:
            return self._connection.recv_into(buffer)
        finally:
            self._connection.settimeout(REQUEST_S)


def instance_url(instance: Instance, rest: str, query: str) -> str:
    """The URL of a path at an instance: its host is the instance's whatever the path holds."""
    host = f"[{instance.address}]" if ":" in instance.address else instance.address
    # What http.server read as latin-1 goes out as the same bytes.
    path = quote(rest.encode("latin-1", "replace"), safe=_PATH_SAFE.replace("?", ""))
    tail = f"?{quote(query.encode('latin-1', 'replace'), safe=_PATH_SAFE)}" if query else ""
    return f"http://{host}:{instance.port}/{path}{tail}"


def is_address(text: str) -> bool:
    """Whether the text is an IP address or a plain host name, and so can stand in a URL."""
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return len(text) <= 253 and _HOST_NAME.fullmatch(text) is not None
    return "%" not in text


class HealthChecker:
    """Asks instances whether they answer, at most once in two seconds each, however many users wait for it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._results: dict[tuple[str, int, str], tuple[float, bool]] = {}
        self._busy: dict[tuple[str, int, str], threading.Lock] = {}

    def answers(self, instance: Instance, path: str) -> bool:
        """Whether `check` finds the instance in order, now or less than two seconds ago."""
        if not is_address(instance.address) or not 0 < instance.port < 65536:
            return False
        key = instance.address, instance.port, path
        with self._lock:
            busy = self._busy.setdefault(key, threading.Lock())
        with busy:
            known = self._results.get(key)
            if known is not None and time.monotonic() - known[0] < CHECK_KEPT_S:
                return known[1]
            answer = check(instance.address, instance.port, path)
            with self._lock:
                self._results[key] = time.monotonic(), answer
                while len(self._results) > CHECKS_KEPT:
                    oldest = next(iter(self._results))
                    del self._results[oldest]
                    self._busy.pop(oldest, None)
            return answer


def check(address: str, port: int, path: str, timeout_s: float = CHECK_S) -> bool:
    """Whether an HTTP server there answers in time: `path` with a status below 400, without a path any below 500."""
    host = f"[{address}]" if ":" in address else address
    target, limit = (quote(f"/{path.lstrip('/')}", safe=_PATH_SAFE), 400) if path else ("/", 500)
    request = f"GET {target} HTTP/1.0\r\nHost: {host}:{port}\r\n{_ASKED_BY_PAGE}: 1\r\nConnection: close\r\n\r\n"
    deadline = time.monotonic() + timeout_s
    try:
        with socket.create_connection((address, port), timeout_s) as connection:
            connection.settimeout(max(0.01, deadline - time.monotonic()))
            connection.sendall(request.encode())
            line = b""
            while b"\n" not in line and len(line) < STATUS_LINE_BYTES:
                connection.settimeout(max(0.01, deadline - time.monotonic()))
                chunk = connection.recv(STATUS_LINE_BYTES)
                if not chunk or time.monotonic() > deadline:
                    break
                line += chunk
    except OSError:
        return False
    status = re.match(rb"HTTP/1\.[01] ([1-5][0-9]{2})[ \r\n]", line)
    return status is not None and int(status[1]) < limit
