"""Segmented objects as NDN applications publish them: `<name>[/v=…]/seg=i` with a FinalBlockId, or RDR metadata."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from gateway.forwarder import packet
from gateway.forwarder.endpoint import FetchError, Nacked, TimedOut
from gateway.forwarder.packet import Data, DecodeError
from gateway.forwarder.transfer import Counters, Job, Requester, Transfer
from gateway.protocol import names, objects
from gateway.protocol.errors import BlobError
from gateway.protocol.names import Name

METADATA = names.component("metadata", names.KEYWORD)
_NAME, _CONTENT_TYPE_NACK = 0x07, 3
_DISCOVERY_LIFETIME_MS, _DISCOVERY_RETRIES = 2000, 1
# What may wait for an earlier segment: 8 MB at the largest packets.
_REORDER_SEGMENTS = 1024

Write = Callable[[int, bytes], None]


async def fetch_segmented(
    endpoint: Requester, counters: Counters, name: Name, write: Write, hints: Sequence[Name], patience_s: float
) -> int:
    """Fetches the newest version below `name`, or what is named exactly; gives its size in bytes.

    `write(offset, bytes)` is called in order and without gaps. The content of a blob's name (`…/blob/<sha256 hex>`)
    is hashed on the way; when it differs, BlobError comes at the end, after the writes. Raises FetchError.
    """
    digest = hashlib.sha256()
    expected = _blob_sha256(name)

    def write_and_hash(offset: int, content: bytes) -> None:
        if expected is not None:
            digest.update(content)
        write(offset, content)

    assembly = await _discover(endpoint, counters, name, hints, write_and_hash)
    if not assembly.is_complete:
        transfer = Transfer(endpoint, counters, hints, patience_s, names.to_uri(name))

        def accept(job: Job, wire: bytes) -> None:
            data = packet.decode_data(wire)
            assembly.accept(job, data)
            counters.bytes += len(data.content)

        await transfer.run(assembly.next_job, accept)
    if expected is not None and digest.digest() != expected:
        raise BlobError(f"blob {expected.hex()} came with SHA-256 {digest.hexdigest()}: a segment was forged")
    return assembly.size


def _blob_sha256(name: Name) -> bytes | None:
    parts = names.components(name)
    if len(parts) < 2 or parts[-2] != names.component("blob"):
        return None
    return objects.parse_blob_component(parts[-1])


class _Assembly:
    """Puts segments in order; at most `_REORDER_SEGMENTS` are asked for beyond the first that is missing."""

    def __init__(self, prefix: Name, write: Write) -> None:
        self._prefix, self._write = prefix, write
        self._next = self._written = self.size = 0
        self._last: int | None = None
        self._waiting: dict[int, bytes] = {}

    @property
    def is_complete(self) -> bool:
        return self._last is not None and self._written > self._last

    def next_job(self) -> Job | None:
        """The next segment to ask for; while the last is unknown, one at a time."""
        while self._next in self._waiting:
            self._next += 1
        ahead = 1 if self._last is None else min(_REORDER_SEGMENTS, self._last + 1 - self._written)
        if self._next >= self._written + ahead:
            return None
        self._next += 1
        return Job(self._next - 1, self._prefix + names.segment(self._next - 1))

    def accept(self, job: Job, data: Data) -> None:
        if data.content_type == _CONTENT_TYPE_NACK:
            raise FetchError(f"{names.to_uri(data.name)}: the producer says that there is no such content")
        if data.final_block is not None:
            self._last = names.last_number(data.final_block, names.SEGMENT)
        self._waiting[job.index] = data.content
        while (content := self._waiting.pop(self._written, None)) is not None:
            self._write(self.size, content)
            self._written += 1
            self.size += len(content)
        self._next = max(self._next, self._written)

    def whole(self, data: Data) -> None:
        """Takes an object that is one packet without a segment number."""
        self._last = 0
        self.accept(Job(0, data.name), data)
        self._last = 0


@dataclass(frozen=True, slots=True)
class _Question:
    name: Name
    can_be_prefix: bool
    must_be_fresh: bool


def _questions(name: Name) -> list[_Question]:
    """What to ask to find an object, in order; a name that cannot have a newer version is asked for as it is."""
    if names.last_number(name, names.SEGMENT) is not None:
        return [_Question(name, False, False)]
    if names.last_number(name, names.VERSION) is not None or _blob_sha256(name) is not None:
        return [_Question(name, True, False)]
    return [
        _Question(name, True, True),
        _Question(name, True, False),
        _Question(name + METADATA, True, True),
    ]


async def _discover(
    endpoint: Requester, counters: Counters, name: Name, hints: Sequence[Name], write: Write
) -> _Assembly:
    """The object's versioned name from the first answer, and what that answer already brought of it."""
    reasons: list[str] = []
    for question in _questions(name):
        data = await _ask(endpoint, counters, question, hints, reasons)
        if data is None:
            continue
        if METADATA in names.components(data.name[len(name) :]):
            return _Assembly(_versioned_name(data), write)
        index = names.last_number(data.name, names.SEGMENT)
        if index is None or data.name == name:
            assembly = _Assembly(data.name, write)
            assembly.whole(data)
        else:
            assembly = _Assembly(data.name[: -len(names.segment(index))], write)
            assembly.accept(Job(index, data.name), data)
        return assembly
    raise FetchError(f"{names.to_uri(name)}: nothing was found: {'; '.join(dict.fromkeys(reasons))}")


async def _ask(
    endpoint: Requester, counters: Counters, question: _Question, hints: Sequence[Name], reasons: list[str]
) -> Data | None:
    for hint in hints or (b"",):
        counters.interests += 1
        try:
            return await endpoint.express(
                question.name,
                can_be_prefix=question.can_be_prefix,
                must_be_fresh=question.must_be_fresh,
                lifetime_ms=_DISCOVERY_LIFETIME_MS,
                hint=(hint,) if hint else (),
                retries=_DISCOVERY_RETRIES,
            )
        except TimedOut as error:
            counters.timeouts += 1
            reasons.append(str(error))
        except Nacked as error:
            counters.nacks += 1
            reasons.append(str(error))
    return None


def _versioned_name(metadata: Data) -> Name:
    """The name in the content of an RDR metadata packet."""
    try:
        kind, start, end = packet.read_tlv(metadata.content, 0, len(metadata.content))
        if kind == _NAME and packet.component_ends(metadata.content[start:end]):
            return metadata.content[start:end]
    except DecodeError:
        pass
    raise FetchError(f"{names.to_uri(metadata.name)}: its content is no name")
