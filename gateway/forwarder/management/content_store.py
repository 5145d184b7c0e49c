"""The module cs: size and use of the content store in memory."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from gateway.forwarder.content_store import ContentStore
from gateway.forwarder.forwarder import Forwarder
from gateway.forwarder.management import encoding
from gateway.forwarder.management.encoding import ControlParameters, uint
from gateway.forwarder.management.module import Command, Dataset, Request, no_arguments
from gateway.forwarder.management.status_codes import BAD_PARAMETERS, Refused
from gateway.forwarder.packet import MAX_PACKET_BYTES
from gateway.protocol.names import Name, tlv

ADMIT, SERVE = 1, 2
# The protocol's capacity is in packets, ours in bytes: a packet stands for the largest one.
PACKET_BYTES = MAX_PACKET_BYTES
# A typing error must not make the store larger than any router's memory.
CAPACITY_MAX_BYTES = 64 << 30
_CS_INFO, _CAPACITY, _ENTRIES, _HITS, _MISSES = 0x80, 0x83, 0x87, 0x81, 0x82
# Bits of the flags, and the attribute of the store that tells whether it does so.
_SWITCHES = {ADMIT: "is_admitting", SERVE: "is_serving"}


class ContentStoreModule:
    """config, erase, info."""

    def __init__(self, forwarder: Forwarder) -> None:
        self._forwarder = forwarder
        self.commands: Mapping[str, Command] = {"config": self._config, "erase": self._erase}
        self.datasets: Mapping[str, Dataset] = {"info": self._info}

    def _config(self, request: Request) -> ControlParameters:
        asked, store = request.parameters, self._forwarder.content_store
        if (asked.flags is None) != (asked.mask is None):
            raise Refused(BAD_PARAMETERS, "Flags and Mask go together")
        if asked.capacity is not None and asked.capacity * PACKET_BYTES > CAPACITY_MAX_BYTES:
            raise Refused(
                BAD_PARAMETERS, f"a capacity of {asked.capacity} packets of {PACKET_BYTES} bytes is too large"
            )
        if asked.mask is not None and asked.flags is not None:
            for bit, switch in _SWITCHES.items():
                if asked.mask & bit:
                    setattr(store, switch, bool(asked.flags & bit))
        if asked.capacity is not None:
            store.set_capacity(asked.capacity * PACKET_BYTES)
        return ControlParameters(capacity=_capacity(store), flags=_flags(store))

    def _erase(self, request: Request) -> ControlParameters:
        prefix, limit = request.parameters.name, request.parameters.count
        if prefix is None:
            raise Refused(BAD_PARAMETERS, "a Name is missing")
        if limit == 0:
            raise Refused(BAD_PARAMETERS, "a Count of 0 erases nothing")
        return ControlParameters(name=prefix, count=self._forwarder.content_store.erase_below(prefix, limit))

    def _info(self, argument: Name) -> Iterator[bytes]:
        no_arguments(argument)
        store, counters = self._forwarder.content_store, self._forwarder.counters
        yield tlv(
            _CS_INFO,
            uint(_CAPACITY, _capacity(store))
            + uint(encoding.FLAGS, _flags(store))
            + uint(_ENTRIES, len(store))
            + uint(_HITS, counters.hits)
            + uint(_MISSES, counters.misses),
        )


def _capacity(store: ContentStore) -> int:
    return store.capacity_bytes // PACKET_BYTES


def _flags(store: ContentStore) -> int:
    return sum(bit for bit, name in _SWITCHES.items() if getattr(store, name))
