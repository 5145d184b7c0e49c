"""The module status: what the forwarder did since it started."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

from gateway import __version__
from gateway.forwarder.forwarder import Forwarder
from gateway.forwarder.management.encoding import text, uint
from gateway.forwarder.management.module import Command, Dataset, no_arguments
from gateway.protocol.names import Name


class StatusModule:
    """general; `clock_ms` is Unix time, `started_ms` when the gateway began."""

    def __init__(self, forwarder: Forwarder, clock_ms: Callable[[], int], started_ms: int) -> None:
        self._forwarder, self._clock_ms, self._started_ms = forwarder, clock_ms, started_ms
        self.commands: Mapping[str, Command] = {}
        self.datasets: Mapping[str, Dataset] = {"general": self._general}

    def _general(self, argument: Name) -> Iterator[bytes]:
        no_arguments(argument)
        forwarder, counters = self._forwarder, self._forwarder.counters
        yield text(0x80, f"picasso-gateway-{__version__}")
        fib, pit = len(forwarder.fib), len(forwarder.pit)
        fields = (
            (0x81, self._started_ms),
            (0x82, self._clock_ms()),
            (0x83, fib + pit),  # there is no name tree: the names of the tables that have one in NFD
            (0x84, fib),
            (0x85, pit),
            (0x86, 0),
            (0x87, len(forwarder.content_store)),
            (0x90, counters.in_interests),
            (0x91, counters.in_data),
            (0x97, counters.in_nacks),
            (0x92, self._sent("out_interests")),
            (0x93, self._sent("out_data")),
            (0x98, self._sent("out_nacks")),
            (0x99, counters.satisfied),
            (0x9A, counters.unsatisfied),
        )
        for kind, value in fields:
            yield uint(kind, value)

    def _sent(self, counter: str) -> int:
        """What the faces that are there have sent."""
        return sum(getattr(face.counters, counter) for face in self._forwarder.faces.values())
