"""The module fib: next hops set by hand, beside those that follow from routes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from gateway.forwarder.forwarder import Forwarder
from gateway.forwarder.management import encoding
from gateway.forwarder.management.encoding import ControlParameters, uint
from gateway.forwarder.management.module import (
    LOCAL_PREFIX,
    Command,
    Dataset,
    Request,
    face_id_of,
    no_arguments,
    prefix_of,
)
from gateway.forwarder.management.status_codes import FORBIDDEN, Refused
from gateway.protocol.names import Name, tlv

ORIGIN = "management"
_FIB_ENTRY, _NEXT_HOP = 0x80, 0x81


class FibModule:
    """add-nexthop, remove-nexthop, list."""

    def __init__(self, forwarder: Forwarder) -> None:
        self._forwarder = forwarder
        self.commands: Mapping[str, Command] = {"add-nexthop": self._add, "remove-nexthop": self._remove}
        self.datasets: Mapping[str, Dataset] = {"list": self._list}

    def _add(self, request: Request) -> ControlParameters:
        prefix, cost = prefix_of(request.parameters), request.parameters.cost or 0
        if prefix.startswith(LOCAL_PREFIX):
            raise Refused(FORBIDDEN, "/localhost/nfd is the forwarder's own")
        face_id = face_id_of(request, self._forwarder)
        self._forwarder.fib.add(prefix, face_id, cost, ORIGIN)
        return ControlParameters(name=prefix, face_id=face_id, cost=cost)

    def _remove(self, request: Request) -> ControlParameters:
        """A next hop that a route or the gateway itself made stays: who made it removes it."""
        prefix = prefix_of(request.parameters)
        face_id = request.parameters.face_id or request.face.id
        self._forwarder.fib.remove(prefix, face_id, ORIGIN)
        return ControlParameters(name=prefix, face_id=face_id)

    def _list(self, argument: Name) -> Iterator[bytes]:
        no_arguments(argument)
        for prefix, hops in self._forwarder.fib:
            costs: dict[int, int] = {}
            for hop in hops:
                costs[hop.face_id] = min(hop.cost, costs.get(hop.face_id, hop.cost))
            records = (
                tlv(_NEXT_HOP, uint(encoding.FACE_ID, face_id) + uint(encoding.COST, cost))
                for face_id, cost in costs.items()
            )
            yield tlv(_FIB_ENTRY, tlv(encoding.NAME, prefix) + b"".join(records))
