"""Publishes over an endpoint: the blobs of a store, and content of other kinds as signed segments with RDR metadata."""

from __future__ import annotations

import hashlib
import os
import time
from pathlib import Path
from typing import Protocol

from gateway.forwarder.blobs import BlobStore
from gateway.forwarder.endpoint import Handler
from gateway.forwarder.packet import Interest
from gateway.forwarder.segmented import METADATA
from gateway.protocol import keys, names
from gateway.protocol.keys import Key
from gateway.protocol.names import Name, tlv

__all__ = ["BlobStore", "SegmentedContent", "publish_segmented", "serve_blobs"]

# Leaves 800 of a packet's 8,800 bytes to the name, the signature and the link headers.
SEGMENT_BYTES = 8000
FRESHNESS_MS = 10_000
# Metadata says what is newest at this moment, so it is hardly kept (RDR protocol).
_METADATA_FRESHNESS_MS = 10
# Signing costs more than a millisecond on a small node; a few consumers that fetch together share the work.
_RECENT_PACKETS = 256


class Server(Protocol):
    """The producer's side of an Endpoint."""

    def serve(self, prefix: Name, handler: Handler) -> None: ...


def serve_blobs(endpoint: Server, network: names.Network, store: BlobStore) -> None:
    """Answers every Interest for a packet that the store can build; `register` the prefix `network.blobs` as well."""

    def answer(interest: Interest) -> bytes | None:
        return store.find(interest.name, interest.can_be_prefix, interest.digest)

    endpoint.serve(network.blobs, answer)


class SegmentedContent:
    """One version of content as `<name>/v=<version>/seg=<i>`, read and signed when it is asked for.

    A file must not change while it is served; it stays open until `close`. Raises OSError when it cannot be read.
    """

    def __init__(
        self,
        name: Name,
        source: Path | bytes,
        key: Key | None = None,
        version: int | None = None,
        freshness_ms: int = FRESHNESS_MS,
    ) -> None:
        self.name, self._key, self._freshness_ms = name, key, freshness_ms
        self._file: int | None = None
        if isinstance(source, Path):
            self._file = os.open(source, os.O_RDONLY)
            status = os.fstat(self._file)
            self.size, modified = status.st_size, status.st_mtime_ns
        else:
            self._content, self.size, modified = source, len(source), time.time_ns()
        self.version = modified // 1_000_000 if version is None else version
        self.versioned = name + names.version(self.version)
        self.segments = max(1, -(-self.size // SEGMENT_BYTES))
        self._recent: dict[int, bytes] = {}

    def close(self) -> None:
        if self._file is not None:
            os.close(self._file)
            self._file = None

    def answer(self, interest: Interest) -> bytes | None:
        """The packet for an Interest: a segment, the first one for a prefix, or metadata; else None."""
        name, prefix = interest.name, interest.can_be_prefix
        wire = None
        if name.startswith(self.versioned):
            index = self._index(name[len(self.versioned) :], prefix)
            wire = None if index is None else self.packet(index)
        elif prefix and name == self.name:
            wire = self.packet(0)
        elif prefix and name == self.name + METADATA:
            wire = self._metadata()
        if wire is not None and interest.digest not in (None, hashlib.sha256(wire).digest()):
            return None
        return wire

    def packet(self, index: int) -> bytes:
        """The Data packet of a segment."""
        wire = self._recent.get(index)
        if wire is None:
            name = self.versioned + names.segment(index)
            wire = self._sign(name, self._read(index), self._freshness_ms, self.segments - 1)
            if len(self._recent) >= _RECENT_PACKETS:
                del self._recent[next(iter(self._recent))]
            self._recent[index] = wire
        return wire

    def _index(self, tail: bytes, can_be_prefix: bool) -> int | None:
        if not tail:
            return 0 if can_be_prefix else None
        index = int.from_bytes(tail[2:10], "big")
        return index if tail == names.segment(index) and index < self.segments else None

    def _read(self, index: int) -> bytes:
        at = index * SEGMENT_BYTES
        if self._file is None:
            return self._content[at : at + SEGMENT_BYTES]
        return os.pread(self._file, SEGMENT_BYTES, at)

    def _metadata(self) -> bytes:
        name = self.name + METADATA + names.version(time.time_ns() // 1_000_000) + names.segment(0)
        return self._sign(name, tlv(0x07, self.versioned), _METADATA_FRESHNESS_MS, 0)

    def _sign(self, name: Name, content: bytes, freshness_ms: int, last: int) -> bytes:
        final_block = names.segment(last)
        if self._key is None:
            return keys.sign_data(name, content, freshness_ms, final_block=final_block)
        return self._key.sign(name, content, freshness_ms, final_block)


def publish_segmented(
    endpoint: Server,
    name: Name,
    source: Path | bytes,
    key: Key | None = None,
    version: int | None = None,
    freshness_ms: int = FRESHNESS_MS,
) -> SegmentedContent:
    """Serves content below `name`, signed by the key or, without one, with a digest; `register` the name as well."""
    content = SegmentedContent(name, source, key, version, freshness_ms)
    endpoint.serve(name, content.answer)
    return content
