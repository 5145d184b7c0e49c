"""`executor.sock`: one request and one reply a connection, from processes of the right user only."""

from __future__ import annotations

import contextlib
import os
import socket
import struct
import threading
import time
from collections.abc import Callable
from pathlib import Path

from gateway.protocol import codec
from gateway.protocol.errors import MessageError
from gateway.protocol.executor_messages import FRAME_MAX_BYTES, ExecutorReply, ExecutorRequest

_CLIENT_S = 5.0
_FAREWELL_S = 0.5
_CLIENTS_MAX = 8

Handler = Callable[[ExecutorRequest], ExecutorReply]


class Server:
    """Listens in threads of its own; root, this process's user and the owner of the directory may speak to it."""

    def __init__(self, path: Path, handler: Handler) -> None:
        self.path, self._handler = path, handler
        owner = path.parent.stat()
        self._allowed = {0, os.geteuid(), owner.st_uid}
        self._slots = threading.BoundedSemaphore(_CLIENTS_MAX)
        with contextlib.suppress(FileNotFoundError):
            path.unlink()
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        mask = os.umask(0o177)
        try:
            self._socket.bind(str(path))
        except OSError as error:
            raise OSError(f"{path}: {error.strerror or error}") from error
        finally:
            os.umask(mask)
        if os.geteuid() == 0:
            os.chown(path, owner.st_uid, owner.st_gid)
        self._socket.listen(_CLIENTS_MAX)

    def start(self) -> None:
        threading.Thread(target=self._accept, name="executor.sock", daemon=True).start()

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()
        with contextlib.suppress(OSError):
            self.path.unlink()
        deadline = time.monotonic() + _FAREWELL_S
        for _ in range(_CLIENTS_MAX):  # whoever asked for the end hears that it came
            self._slots.acquire(timeout=max(0.0, deadline - time.monotonic()))

    def _accept(self) -> None:
        while True:
            self._slots.acquire()
            try:
                connection, _ = self._socket.accept()
            except OSError:
                self._slots.release()
                return
            threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        try:
            with connection, contextlib.suppress(OSError):
                connection.settimeout(_CLIENT_S)
                send_frame(connection, codec.encode(self._answer(connection)))
        finally:
            self._slots.release()

    def _answer(self, connection: socket.socket) -> ExecutorReply:
        uid = peer_uid(connection)
        if uid not in self._allowed:
            return ExecutorReply(error=f"the user {uid} may not speak to the executor")
        try:
            return self._handler(codec.decode(ExecutorRequest, receive_frame(connection), FRAME_MAX_BYTES))
        except MessageError as error:
            return ExecutorReply(error=str(error))


def peer_uid(connection: socket.socket) -> int:
    """The user id of the process at the other end."""
    credentials = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
    return int(struct.unpack("3i", credentials)[1])


def send_frame(connection: socket.socket, content: bytes) -> None:
    connection.sendall(len(content).to_bytes(4, "big") + content)


def receive_frame(connection: socket.socket) -> bytes:
    """One frame; raises MessageError when it is cut short or too large, OSError when the peer is too slow."""
    size = int.from_bytes(_receive(connection, 4), "big")
    if size > FRAME_MAX_BYTES:
        raise MessageError(f"a frame of {size} bytes, at most {FRAME_MAX_BYTES} are accepted")
    return _receive(connection, size)


def _receive(connection: socket.socket, size: int) -> bytes:
    parts, left = [], size
    while left:
        chunk = connection.recv(min(left, 1 << 16))
        if not chunk:
            raise MessageError("the frame is cut short")
        parts.append(chunk)
        left -= len(chunk)
    return b"".join(parts)
