"""A blocking connection to a forwarder, for programs that do nothing else."""

from __future__ import annotations

import socket
import struct
from urllib.parse import urlsplit

BUFFER_BYTES = 1 << 20
SOCKET_BUFFER_BYTES = 8 << 20
# Silence after which what is outstanding counts as lost.
PATIENCE_S = 0.1
# So long nothing at all may come before the run has failed.
STALLED_S = 5.0
# One train of segmentation offload: the kernel takes at most 64 segments, and 64 kB with the headers.
_UDP_SEGMENT, _UDP_GRO, _TRAIN_SEGMENTS = 103, 104, 64


class LoadError(Exception):
    """The forwarder did not do what the run needs; the text says what."""


class Channel:
    """A blocking connection to a face URI; `receive` adds to `buffer` and gives up after PATIENCE_S."""

    def __init__(self, uri: str, packet_bytes: int) -> None:
        self.is_datagram = uri.startswith("udp")
        self._packet_bytes = packet_bytes
        self.socket = _connect(uri)
        wait = struct.pack("ll", 0, int(PATIENCE_S * 1e6))
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, wait)
        self._is_offloading = self.is_datagram and self._offload()
        self.buffer = bytearray(BUFFER_BYTES)
        self._view = memoryview(self.buffer)
        self.have = self.reads = self.writes = 0

    def _offload(self) -> bool:
        """Whether the kernel cuts what we send into packets, and hands over trains of what comes."""
        for option in (socket.SO_RCVBUF, socket.SO_SNDBUF):
            self.socket.setsockopt(socket.SOL_SOCKET, option, SOCKET_BUFFER_BYTES)
        try:
            self.socket.setsockopt(socket.IPPROTO_UDP, _UDP_SEGMENT, self._packet_bytes)
            self.socket.setsockopt(socket.IPPROTO_UDP, _UDP_GRO, 1)
        except OSError:
            return False
        return True

    def receive(self) -> bool:
        """Whether anything came in time; raises LoadError when the other end closed."""
        try:
            count = self.socket.recv_into(self._view[self.have :])
        except BlockingIOError:
            return False
        if not count:
            raise LoadError("the forwarder closed the connection")
        self.reads += 1
        self.have += count
        return True

    def consume(self, used: int) -> None:
        rest = self.have - used
        if rest:
            self.buffer[:rest] = self.buffer[used : self.have]
        self.have = rest

    def send(self, train: memoryview | bytes) -> None:
        """Sends packets of `packet_bytes` each, or one packet of any size."""
        if not self.is_datagram:
            self.writes += 1
            self.socket.sendall(train)
            return
        step = self._packet_bytes * (_TRAIN_SEGMENTS if self._is_offloading else 1)
        for at in range(0, len(train), step):
            self.writes += 1
            self.socket.send(train[at : at + step])


def _connect(uri: str) -> socket.socket:
    parts = urlsplit(uri)
    if parts.scheme == "unix":
        made = socket.socket(socket.AF_UNIX)
        made.connect(parts.path)
        return made
    address = parts.hostname or "", parts.port or 6363
    if parts.scheme == "tcp4":
        made = socket.create_connection(address)
        made.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return made
    if parts.scheme == "udp4":
        made = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        made.connect(address)
        return made
    raise LoadError(f"--face {uri!r}: unix, tcp4 and udp4 are known")
