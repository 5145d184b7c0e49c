"""The module rib: applications and operators register routes."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping

from gateway.forwarder import rib
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
from gateway.forwarder.management.status_codes import FORBIDDEN, NOT_SUPPORTED, UNAVAILABLE, Refused
from gateway.forwarder.rib import FIB_ORIGIN, Rib, Route
from gateway.protocol.names import Name, tlv

# A route costs about a kilobyte with its FIB entry: what one machine's applications may take of a router's memory.
ROUTES_MAX = 20_000
# The route origins of the protocol for next hops that the gateway makes itself, by the FIB's word for them.
APP, STATIC, AUTOMATIC = 0, 255, 66
_ORIGINS = {"internal": APP, "static": STATIC}
# Clients say "for ever" with the greatest number there is.
_NEVER_MS = 1 << 48
_RIB_ENTRY, _ROUTE = 0x80, 0x81


class RibModule:
    """register, unregister, list; the table leads the forwarder's FIB, `clock` is monotonic time."""

    def __init__(self, forwarder: Forwarder, table: Rib, clock: Callable[[], float]) -> None:
        self._forwarder, self._rib, self._clock = forwarder, table, clock
        self.commands: Mapping[str, Command] = {
            "register": self._register,
            "unregister": self._unregister,
            "announce": self._announce,
        }
        self.datasets: Mapping[str, Dataset] = {"list": self._list}

    def _register(self, request: Request) -> ControlParameters:
        asked, prefix = request.parameters, self._own_prefix(request)
        route = Route(
            self._face_id(request),
            asked.origin or 0,
            asked.cost or 0,
            rib.CHILD_INHERIT if asked.flags is None else asked.flags & (rib.CHILD_INHERIT | rib.CAPTURE),
            _expiry(asked.expiration_ms, request.now),
        )
        if len(self._rib) >= ROUTES_MAX:
            raise Refused(UNAVAILABLE, f"there are {ROUTES_MAX} routes already, which is the limit")
        rib.apply(self._rib.add(prefix, route), self._forwarder.fib)
        return ControlParameters(
            name=prefix,
            face_id=route.face_id,
            origin=route.origin,
            cost=route.cost,
            flags=route.flags,
            expiration_ms=None if route.expiry == math.inf else asked.expiration_ms,
        )

    def _unregister(self, request: Request) -> ControlParameters:
        prefix, origin = self._own_prefix(request), request.parameters.origin or 0
        face_id = self._face_id(request)
        rib.apply(self._rib.remove(prefix, face_id, origin), self._forwarder.fib)
        return ControlParameters(name=prefix, face_id=face_id, origin=origin)

    def _announce(self, request: Request) -> ControlParameters:
        raise Refused(NOT_SUPPORTED, "prefix announcements are not taken here; use rib/register")

    def _own_prefix(self, request: Request) -> Name:
        prefix = prefix_of(request.parameters)
        if prefix.startswith(LOCAL_PREFIX):
            raise Refused(FORBIDDEN, "/localhost/nfd is not for registration")
        return prefix

    def _face_id(self, request: Request) -> int:
        face_id = face_id_of(request, self._forwarder)
        if request.is_remote and face_id != request.face.id:
            raise Refused(FORBIDDEN, "over the network a face can be given routes by itself only")
        return face_id

    def _list(self, argument: Name) -> Iterator[bytes]:
        """The routes, and beside them the next hops that the gateway's own parts have put into the FIB."""
        no_arguments(argument)
        rows: dict[Name, list[Route]] = {prefix: list(routes) for prefix, routes in self._rib}
        for prefix, hops in self._forwarder.fib:
            for hop in hops:
                if hop.origin != FIB_ORIGIN:
                    origin = _ORIGINS.get(hop.origin, AUTOMATIC)
                    rows.setdefault(prefix, []).append(Route(hop.face_id, origin, hop.cost, 0))
        for prefix, routes in sorted(rows.items()):
            yield tlv(_RIB_ENTRY, tlv(encoding.NAME, prefix) + b"".join(self._route(route) for route in routes))

    def _route(self, route: Route) -> bytes:
        fields = uint(encoding.FACE_ID, route.face_id) + uint(encoding.ORIGIN, route.origin)
        fields += uint(encoding.COST, route.cost) + uint(encoding.FLAGS, route.flags)
        if route.expiry != math.inf:
            fields += uint(encoding.EXPIRATION_PERIOD, max(0, round((route.expiry - self._clock()) * 1000)))
        return tlv(_ROUTE, fields)


def _expiry(period_ms: int | None, now: float) -> float:
    return math.inf if period_ms is None or period_ms >= _NEVER_MS else now + period_ms / 1000
