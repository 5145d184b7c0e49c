"""Status datasets: versions of a list, cut into segments that stay fetchable for a while."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable

from gateway.forwarder.packet import MAX_PACKET_BYTES
from gateway.protocol import keys, names
from gateway.protocol.names import Name

FRESHNESS_MS = 1000
SEGMENT_BYTES = 8000
# What of a packet is neither content nor name: types, lengths, meta information and the signature, rounded up.
_OVERHEAD_BYTES = 150
# Versions that a slow reader may still fetch; a large table is a megabyte or two.
VERSIONS_MAX = 32
HELD_MAX_BYTES = 8 << 20


class Datasets:
    """Publishes contents under `<prefix>/v=<ms>/seg=<i>`; of old versions the least recently made go first."""

    def __init__(self) -> None:
        self._contents: OrderedDict[Name, bytes] = OrderedDict()
        self._held_bytes = 0
        self._last_version = 0

    def publish(self, prefix: Name, blocks: Iterable[bytes], now_ms: int) -> bytes:
        """The first segment of a new version; raises ValueError when the prefix is too long for any packet."""
        self._last_version = max(now_ms, self._last_version + 1)
        name = prefix + names.version(self._last_version)
        segment_bytes = _segment_bytes(name)
        if segment_bytes < 1:
            raise ValueError(f"a dataset's name of {len(name)} bytes leaves no room in a packet")
        content = b"".join(blocks)
        self._contents[name] = content
        self._held_bytes += len(content)
        while len(self._contents) > VERSIONS_MAX or (self._held_bytes > HELD_MAX_BYTES and len(self._contents) > 1):
            _, dropped = self._contents.popitem(last=False)
            self._held_bytes -= len(dropped)
        return self._segment(name, content, 0)

    def find(self, name: Name) -> bytes | None:
        """The segment of this very name, or the first of the version that it names; None when it is not held."""
        index = names.last_number(name, names.SEGMENT)
        version = name if index is None else b"".join(names.components(name)[:-1])
        content = self._contents.get(version)
        if content is None or (index or 0) > _last_segment(version, content):
            return None
        return self._segment(version, content, index or 0)

    @staticmethod
    def _segment(version: Name, content: bytes, index: int) -> bytes:
        size = _segment_bytes(version)
        final = names.segment(_last_segment(version, content))
        part = content[index * size : (index + 1) * size]
        return keys.sign_data(version + names.segment(index), part, FRESHNESS_MS, final_block=final)


def is_versioned(name: Name) -> bool:
    """Whether a name ends in a version, or in a version and a segment."""
    parts = names.components(name)
    if parts and names.last_number(parts[-1], names.SEGMENT) is not None:
        parts.pop()
    return bool(parts) and names.last_number(parts[-1], names.VERSION) is not None


def _segment_bytes(version: Name) -> int:
    return min(SEGMENT_BYTES, MAX_PACKET_BYTES - _OVERHEAD_BYTES - len(version))


def _last_segment(version: Name, content: bytes) -> int:
    return max(0, -(-len(content) // _segment_bytes(version)) - 1)
