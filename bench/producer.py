"""A producer that answers every Interest, and how it registers."""

from __future__ import annotations

import argparse
import hashlib
import os
import time

from bench.channel import STALLED_S, Channel, LoadError
from bench.wire import Answers, Interests
from gateway.forwarder import packet
from gateway.forwarder.packet import DATA, INTEREST
from gateway.protocol import names
from gateway.protocol.names import Name, component, tlv

# A producer's batch; a window is seldom larger.
_ANSWERS_MAX = 256
_CONTROL_PARAMETERS, _STATUS_CODE = 0x68, 0x66


class Producer:
    """Answers every Interest below `prefix` with Data of `content` bytes."""

    def __init__(self, options: argparse.Namespace) -> None:
        self._prefix = names.parse(options.prefix)
        self._interests = Interests(self._prefix, 1)
        self._answers = Answers(self._prefix, options.content, _ANSWERS_MAX)
        self._channel = Channel(options.face, self._interests.length)

    def register(self) -> None:
        """Asks the forwarder for the prefix; raises LoadError when it refuses."""
        channel = self._channel
        channel.send(register_command(self._prefix))
        deadline = time.monotonic() + STALLED_S
        while time.monotonic() < deadline:
            channel.receive()
            packets, used = packet.split_stream(bytes(channel.buffer[: channel.have]))
            channel.consume(used)
            for wire in packets:
                fragment = packet.decode_link(wire).fragment
                if fragment[:1] == bytes((DATA,)):
                    status = status_of(packet.decode_data(fragment).content)
                    if status != 200:
                        raise LoadError(f"rib/register of {names.to_uri(self._prefix)}: status {status}")
                    return
        raise LoadError(f"rib/register: no answer in {STALLED_S:g} s")

    def run(self) -> None:
        channel, interests, answers = self._channel, self._interests, self._answers
        while True:
            if not channel.receive():
                continue
            count = interests.count(channel.buffer, channel.have)
            if count is None:
                self._answer_slowly()
            elif count:
                numbers = interests.numbers(channel.buffer, count)
                channel.consume(count * interests.length)
                for at in range(0, len(numbers), 4 * _ANSWERS_MAX):
                    channel.send(answers.with_numbers(numbers[at : at + 4 * _ANSWERS_MAX]))

    def _answer_slowly(self) -> None:
        """The same for Interests with link headers or other fields; a PIT token goes back."""
        channel = self._channel
        packets, used = packet.split_stream(bytes(channel.buffer[: channel.have]))
        channel.consume(used)
        replies = []
        for wire in packets:
            link = packet.decode_link(wire)
            if link.fragment[:1] == bytes((INTEREST,)):
                data = self._answers.answer(packet.decode_interest(link.fragment).name)
                replies.append(packet.encode_link(data, pit_token=link.pit_token))
        channel.send(b"".join(replies))


def register_command(prefix: Name) -> bytes:
    """A rib/register Interest in the signed form of python-ndn and of ndn-cxx before 0.8, with a digest."""
    name = names.parse("/localhost/nfd/rib/register") + component(tlv(_CONTROL_PARAMETERS, tlv(7, prefix)))
    name += component(int(time.time() * 1000).to_bytes(8, "big")) + component(os.urandom(8))
    name += component(b"\x16\x03\x1b\x01\x00")
    name += component(b"\x17\x20" + hashlib.sha256(name).digest())
    return packet.encode_interest(name, lifetime_ms=10_000)[1]


def status_of(response: bytes) -> int:
    """The status code of a ControlResponse."""
    _, at, end = packet.read_tlv(response, 0, len(response))
    while at < end:
        kind, start, at = packet.read_tlv(response, at, end)
        if kind == _STATUS_CODE:
            return int.from_bytes(response[start:at], "big")
    raise LoadError("a ControlResponse without a status code")
