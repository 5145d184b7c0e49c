"""How the demonstration asks: redirects, failures, and what a reply is worth."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from controller.demo import asking


class Pages(BaseHTTPRequestHandler):
    """`/from` leads to `/to`, `/loop` to itself, `/nowhere` to a closed port."""

    def do_GET(self) -> None:
        targets = {"/from": "/to", "/loop": "/loop", "/nowhere": "http://127.0.0.1:1/"}
        self.send_response(302 if self.path in targets else 200 if self.path == "/to" else 404)
        if self.path in targets:
            self.send_header("Location", targets[self.path])
        self.end_headers()
        self.wfile.write(b'{"node": "gw-1"}' if self.path == "/to" else b"[]")

    def log_message(self, *_: object) -> None:
        """Says nothing."""


@pytest.fixture
def site() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Pages)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


def test_redirects_are_followed_to_the_answer(site: str) -> None:
    """The reply is the last one, with where it came from and how long all of it took."""
    reply = asking.get(f"{site}/from")
    assert (reply.status, reply.json(), reply.url, reply.problem) == (200, {"node": "gw-1"}, f"{site}/to", "")
    assert reply.latency_ms > 0


def test_failures_are_replies(site: str) -> None:
    """A loop, a closed port and an error page are told in the reply and never raised."""
    assert "redirects" in asking.get(f"{site}/loop").problem
    refused = asking.get(f"{site}/nowhere")
    assert (refused.status, refused.json()) == (0, {})
    assert "127.0.0.1:1" in refused.problem
    missing = asking.get(f"{site}/missing")
    assert (missing.status, missing.json(), missing.problem) == (404, {}, "")


def answer_once(path: Path, line: bytes) -> threading.Thread:
    """A control socket that gives one answer to one request, which it returns in `path`.request."""
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(path))
    listener.listen()

    def serve() -> None:
        connection, _ = listener.accept()
        with connection, listener:
            path.with_suffix(".request").write_bytes(connection.makefile("rb").readline())
            connection.sendall(line)

    thread = threading.Thread(target=serve)
    thread.start()
    return thread


def test_a_gateway_is_asked_by_one_line(tmp_path: Path) -> None:
    """The request is one line of JSON, and the result of an answer that is ok comes back."""
    thread = answer_once(tmp_path / "control.sock", b'{"ok": true, "result": [1, 2]}\n')
    assert asking.ask(tmp_path, "faces") == [1, 2]
    thread.join()
    assert json.loads((tmp_path / "control.request").read_bytes()) == {"command": "faces"}


@pytest.mark.parametrize("line", [b'{"ok": false, "error": "unknown command"}\n', b"", b"nonsense\n"])
def test_a_gateway_that_does_not_answer_well_is_named(tmp_path: Path, line: bytes) -> None:
    """An error, a closed connection and an answer that is no JSON name the socket and the command."""
    thread = answer_once(tmp_path / "control.sock", line)
    with pytest.raises(asking.Unanswered, match=r"control\.sock: faces"):
        asking.ask(tmp_path, "faces")
    thread.join()


def test_a_gateway_that_is_not_there_is_named(tmp_path: Path) -> None:
    """No socket at all is the same kind of failure."""
    with pytest.raises(asking.Unanswered, match=r"control\.sock: status"):
        asking.ask(tmp_path, "status")
