"""BitTorrent for the comparison: Debian's aria2 on each node, and a tracker of a few lines of HTTP on the root."""

from __future__ import annotations

import hashlib
import http.server
import shutil
import socket
import subprocess
import threading
import time
import urllib.parse
from pathlib import Path
from types import TracebackType
from typing import Any

from tests.emulation import namespaces
from tests.emulation.namespaces import EmulationError
from tests.emulation.network import EmulatedNetwork

TRACKER_PORT, PEER_PORT = 6969, 6881
PIECE_BYTES = 1 << 18
# Short, which is in BitTorrent's favour: peers that came together know of each other soon.
ANNOUNCE_S = 10
STOP_S = 10.0
LAST_CHARACTERS = 600


def encode(value: Any) -> bytes:
    """Bencoding (BEP 3)."""
    if isinstance(value, int):
        return b"i%de" % value
    if isinstance(value, bytes):
        return b"%d:%s" % (len(value), value)
    if isinstance(value, str):
        return encode(value.encode())
    if isinstance(value, list):
        return b"l" + b"".join(map(encode, value)) + b"e"
    return b"d" + b"".join(encode(key) + encode(each) for key, each in sorted(value.items())) + b"e"


def describe(file: Path, tracker: str) -> bytes:
    """The torrent of a file."""
    pieces = bytearray()
    with file.open("rb") as content:
        while piece := content.read(PIECE_BYTES):
            pieces += hashlib.sha1(piece, usedforsecurity=False).digest()
    info = {"length": file.stat().st_size, "name": file.name, "piece length": PIECE_BYTES, "pieces": bytes(pieces)}
    return encode({"announce": tracker, "info": info})


class Tracker:
    """Tells whoever announces itself of all others; listens inside a namespace."""

    def __init__(self, namespace: str, address: str) -> None:
        self._namespace, self._address = namespace, address
        self.peers: dict[tuple[str, int], bytes] = {}
        self._server: http.server.ThreadingHTTPServer | None = None
        self._is_up = threading.Event()
        self._thread = threading.Thread(target=self._run, name="tracker", daemon=True)

    def __enter__(self) -> Tracker:
        self._thread.start()
        if not self._is_up.wait(10):
            raise EmulationError(f"the tracker does not listen on {self._address}:{TRACKER_PORT}")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._server is not None:
            self._server.shutdown()
            self._server.server_close()

    def wait_for(self, count: int, timeout_s: float = 30.0) -> None:
        """Waits until so many peers have announced themselves."""
        deadline = time.monotonic() + timeout_s
        while len(self.peers) < count:
            if time.monotonic() > deadline:
                raise EmulationError(f"{len(self.peers)} of {count} peers came to the tracker in {timeout_s:g} s")
            time.sleep(0.05)

    def _run(self) -> None:
        # A socket stays in the namespace in which it was made.
        namespaces.enter(self._namespace)
        tracker = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                body = tracker.announce(self.client_address[0], urllib.parse.urlsplit(self.path).query)
                self.send_response(200)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, format: str, *args: object) -> None:
                pass

        self._server = http.server.ThreadingHTTPServer((self._address, TRACKER_PORT), Handler)
        self._is_up.set()
        self._server.serve_forever(0.1)

    def announce(self, host: str, query: str) -> bytes:
        """The answer to an announcement, with the other peers in the compact form (BEP 23)."""
        fields = urllib.parse.parse_qs(query, encoding="latin-1")
        peer = host, int(fields["port"][0])
        if fields.get("event") == ["stopped"]:
            self.peers.pop(peer, None)
        else:
            self.peers[peer] = socket.inet_aton(host) + peer[1].to_bytes(2, "big")
        others = b"".join(compact for other, compact in list(self.peers.items()) if other != peer)
        return encode({"interval": ANNOUNCE_S, "min interval": ANNOUNCE_S, "peers": others})


class Peer:
    """One aria2 on a node; it sends to others before and after it has everything."""

    def __init__(
        self, network: EmulatedNetwork, node: str, meta: Path, directory: Path, is_seeder: bool = False
    ) -> None:
        self._network, self._node, self._meta, self._directory = network, node, meta, directory
        self._is_seeder = is_seeder
        self._whole = meta.parent / f"whole-{node}"
        self._log = meta.parent / f"aria2-{node}.log"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        if shutil.which("aria2c") is None:
            raise EmulationError("aria2c is missing; type: apt-get install aria2")
        self._directory.mkdir(exist_ok=True)
        hook = self._meta.parent / f"hook-{self._node}"
        hook.write_text(f"#!/bin/sh\n: >'{self._whole}'\n")
        hook.chmod(0o755)
        command = ["aria2c", "--no-conf", f"--dir={self._directory}", "--seed-ratio=0", f"--listen-port={PEER_PORT}"]
        command += ["--enable-dht=false", "--enable-dht6=false", "--bt-enable-lpd=false", "--file-allocation=none"]
        command += ["--disable-ipv6=true", "--summary-interval=0", "--show-console-readout=false"]
        command += ["--bt-seed-unverified=true"] if self._is_seeder else [f"--on-bt-download-complete={hook}"]
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                [*self._network.inside(self._node), *command, str(self._meta)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    @property
    def is_whole(self) -> bool:
        return self._whole.exists()

    def check(self) -> None:
        """Raises EmulationError when aria2 has ended by itself."""
        if self._process is not None and self._process.poll() is not None:
            words = self._log.read_text(errors="replace")[-LAST_CHARACTERS:]
            raise EmulationError(f"aria2 of {self._node} ended with {self._process.returncode}: {words}")

    def stop(self) -> None:
        """Ends it at once: what it would say to the tracker is of no use to anybody."""
        if self._process is not None:
            self._process.kill()
            self._process.wait(STOP_S)
