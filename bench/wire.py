"""Interests and Data packets of one length each, made and counted a batch at a time.

A load tool must cost less than what it measures. The packets of one run are equal but for a number in the name and the
nonce, so a batch is one template in which strided slices put those bytes: a handful of operations for any batch size.
"""

from __future__ import annotations

import random
import struct
from collections.abc import Sequence
from typing import Any

from gateway.forwarder import packet
from gateway.protocol import names
from gateway.protocol.names import Name, tlv

# Numbers from here on take four bytes in a name, so that all packets are of one length.
FIRST_NUMBER = 1 << 24
FRESHNESS_MS = 3_600_000
_NONCE, _TOKEN = b"once", b"1234"
_STRICT: dict[str, Any] = {"must_be_fresh": True, "lifetime_ms": 3000, "hop_limit": 16}
_NUMBER_BYTES = 4
_NAME, _META_INFO, _FRESHNESS, _CONTENT = 0x07, 0x14, 0x19, 0x15
# A DigestSha256 signature of zeros: a forwarder judges none.
_SIGNATURE = b"\x16\x03\x1b\x01\x00" + b"\x17\x20" + bytes(32)
# So many bytes at the start of a packet tell its kind and length.
_HEADER_BYTES = 4


class Train:
    """Packets that all look like `sample`, whose number stands at `number_at`."""

    def __init__(self, sample: bytes, number_at: int, capacity: int) -> None:
        self.length, self.number_at, self.capacity = len(sample), number_at, capacity
        self._batch = bytearray(sample * capacity)
        self._view = memoryview(self._batch)
        self._header = sample[:_HEADER_BYTES]
        self._headers = [bytes((byte,)) for byte in self._header]

    def count(self, buffer: bytearray, have: int) -> int | None:
        """How many whole packets of this kind there are in the first `have` bytes; None when anything else is there."""
        whole = have // self.length
        stop = whole * self.length
        for at, byte in enumerate(self._headers):
            if buffer[at : stop : self.length] != byte * whole:
                return None
        begun = min(have - stop, _HEADER_BYTES)
        return whole if buffer[stop : stop + begun] == self._header[:begun] else None

    def numbers(self, buffer: bytearray, count: int) -> bytes:
        """The numbers of the packets at the start of the buffer, four bytes each."""
        found, step = bytearray(_NUMBER_BYTES * count), self.length
        for i in range(_NUMBER_BYTES):
            found[i::_NUMBER_BYTES] = buffer[self.number_at + i : count * step : step]
        return bytes(found)

    def with_numbers(self, numbers: bytes) -> memoryview:
        """A batch of packets with these numbers; valid until the next one."""
        count, step = len(numbers) // _NUMBER_BYTES, self.length
        for i in range(_NUMBER_BYTES):
            self._batch[self.number_at + i : count * step : step] = numbers[i::_NUMBER_BYTES]
        return self._view[: count * step]


class Interests(Train):
    """Interests for `prefix/seg=<number>`, each with a nonce of its own.

    With `is_full` they bear a PIT token, MustBeFresh, a lifetime and a hop limit, as a strict application's do.
    """

    def __init__(self, prefix: Name, capacity: int, is_full: bool = False) -> None:
        name = prefix + names.segment(FIRST_NUMBER)
        _, sample = packet.encode_interest(name, nonce=_NONCE, **(_STRICT if is_full else {}))
        if is_full:
            sample = packet.encode_link(sample, pit_token=_TOKEN)
        self._nonce_at = sample.rindex(b"\x0a\x04" + _NONCE) + 2
        super().__init__(sample, sample.index(name) + len(name) - _NUMBER_BYTES, capacity)

    def ask(self, numbers: Sequence[int]) -> memoryview:
        """The Interests for the numbers; valid until the next call."""
        count, step = len(numbers), self.length
        nonces = random.randbytes(len(_NONCE) * count)
        for i in range(len(_NONCE)):
            self._batch[self._nonce_at + i : count * step : step] = nonces[i :: len(_NONCE)]
        return self.with_numbers(struct.pack(f">{count}I", *numbers))


class Answers(Train):
    """The Data packets `prefix/seg=<number>` with `content_bytes` of random content, or what full Interests get."""

    def __init__(self, prefix: Name, content_bytes: int, capacity: int, is_full: bool = False) -> None:
        self._rest = (
            tlv(_META_INFO, tlv(_FRESHNESS, names.non_negative(FRESHNESS_MS)))
            + tlv(_CONTENT, random.Random(1).randbytes(content_bytes))
            + _SIGNATURE
        )
        sample = self.answer(prefix + names.segment(FIRST_NUMBER))
        self.data_bytes = len(sample)
        if is_full:
            sample = packet.encode_link(sample, pit_token=_TOKEN)
        super().__init__(sample, len(sample) - len(self._rest) - _NUMBER_BYTES, capacity)

    def answer(self, name: Name) -> bytes:
        """One Data packet with any name."""
        return tlv(packet.DATA, tlv(_NAME, name) + self._rest)
