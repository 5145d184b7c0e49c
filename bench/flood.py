"""A peer that asks for what nobody has."""

from __future__ import annotations

import argparse
import contextlib
import itertools
import socket
import time

from bench.channel import Channel, LoadError
from bench.wire import FIRST_NUMBER, Interests
from gateway.protocol import names


class Flood:
    """Asks for names that nobody has, each once, as fast as the forwarder reads; what comes back is thrown away.

    Datagrams go at `rate` a second: no reader holds them back, and most would be lost before they flood anybody.
    """

    def __init__(self, options: argparse.Namespace) -> None:
        self._interests = Interests(names.parse(options.prefix), options.batch)
        self._channel = Channel(options.face, self._interests.length)
        first = FIRST_NUMBER + options.start
        self._numbers = iter(range(first, first + options.count))
        self._batch, self._rate = options.batch, options.rate

    def run(self) -> int:
        """How many Interests went; a stream's have all been read by then, unless the forwarder closed it."""
        sent, channel, started = 0, self._channel, time.monotonic()
        with contextlib.suppress(ConnectionError):
            while numbers := list(itertools.islice(self._numbers, self._batch)):
                channel.send(self._interests.ask(numbers))
                sent += len(numbers)
                self._discard(socket.MSG_DONTWAIT)
                if channel.is_datagram:
                    time.sleep(max(0.0, started + sent / self._rate - time.monotonic()))
            if not channel.is_datagram:
                channel.socket.shutdown(socket.SHUT_WR)
                with contextlib.suppress(LoadError):  # it has read everything and closes
                    while True:
                        channel.receive()
                        channel.consume(channel.have)
        return sent

    def _discard(self, flags: int) -> None:
        with contextlib.suppress(BlockingIOError):
            while self._channel.socket.recv_into(self._channel.buffer, 0, flags):
                pass
