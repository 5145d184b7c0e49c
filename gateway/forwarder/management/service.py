"""Management on the event loop: answers Interests below its prefixes, and keeps the time of routes and events."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable

from gateway.forwarder import rib
from gateway.forwarder.faces.base import Face
from gateway.forwarder.forwarder import Forwarder
from gateway.forwarder.management.access import Access, KeyRing
from gateway.forwarder.management.command import Asked
from gateway.forwarder.management.content_store import ContentStoreModule
from gateway.forwarder.management.dispatch import Dispatcher
from gateway.forwarder.management.events import FaceEvents
from gateway.forwarder.management.faces import FaceControl, FacesModule
from gateway.forwarder.management.fib import FibModule
from gateway.forwarder.management.module import LOCAL_PREFIX, Module
from gateway.forwarder.management.rib import RibModule
from gateway.forwarder.management.status import StatusModule
from gateway.forwarder.management.strategy_choice import StrategyChoiceModule
from gateway.forwarder.rib import Rib
from gateway.protocol import keys, names
from gateway.protocol.names import Name

log = logging.getLogger(__name__)

_EVENTS = LOCAL_PREFIX + names.component("faces") + names.component("events")
_SEQUENCE_NUMBER = 58
_FRESHNESS_MS = 1000
# While somebody waits for an event the faces are looked at this often: a person or a routing daemon reads it.
_LOOK_S = 0.2
_WAIT_MAX_S = 60.0


def _unix_ms() -> int:
    return int(time.time() * 1000)


class Management:
    """Serves `PREFIX`, and `REMOTE_PREFIX` where keys may manage; its face must have local fields, to know who asks.

    `faces` makes and removes faces, `key_ring` holds the keys that may register over the network; either may be left
    out. `clock` is monotonic time.
    """

    def __init__(
        self,
        forwarder: Forwarder,
        *,
        faces: FaceControl | None = None,
        key_ring: KeyRing | None = None,
        clock: Callable[[], float] = time.monotonic,
        unix_ms: Callable[[], int] = _unix_ms,
    ) -> None:
        self._forwarder, self._clock = forwarder, clock
        self.rib = Rib()
        self.events = FaceEvents()
        started_ms = unix_ms()
        modules: dict[str, Module] = {
            "rib": RibModule(forwarder, self.rib, clock),
            "faces": FacesModule(forwarder, faces),
            "fib": FibModule(forwarder),
            "cs": ContentStoreModule(forwarder),
            "strategy-choice": StrategyChoiceModule(forwarder.strategies),
            "status": StatusModule(forwarder, unix_ms, started_ms),
        }
        self._dispatcher = Dispatcher(forwarder, modules, Access(key_ring, started_ms), unix_ms)
        self._timer: asyncio.TimerHandle | None = None
        self._looking: asyncio.Task[None] | None = None
        forwarder.on_face_removed = self._end_routes

    @property
    def refused(self) -> int:
        """How many commands were refused."""
        return self._dispatcher.refused

    def on_interest(self, interest: Asked) -> bytes | Awaitable[bytes | None] | None:
        """The Data for a command or a dataset, or what brings it; None when there is none."""
        now = self._clock()
        self.on_timer(now)
        if interest.name.startswith(_EVENTS):
            return self._on_events(interest)
        reply = self._dispatcher.answer(interest, now)
        self._arm()
        return reply

    # --- time

    def _end_routes(self, face: Face) -> None:
        """What a face that is gone had registered ends, and with it what it captured."""
        rib.apply(self.rib.remove_face(face.id), self._forwarder.fib)

    def next_deadline(self) -> float | None:
        return self.rib.next_deadline()

    def on_timer(self, now: float) -> None:
        """Ends the routes whose time is over."""
        rib.apply(self.rib.on_timer(now), self._forwarder.fib)

    def _arm(self) -> None:
        """Sets the loop's timer to the next route that ends; without a loop `on_timer` is the caller's duty."""
        deadline = self.next_deadline()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if deadline is None:
            return
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:
            return
        self._timer = loop.call_later(max(0.0, deadline - self._clock()), self._on_deadline)

    def _on_deadline(self) -> None:
        self._timer = None
        self.on_timer(self._clock())
        self._arm()

    # --- notifications

    def _on_events(self, interest: Asked) -> bytes | Awaitable[bytes | None] | None:
        rest = interest.name[len(_EVENTS) :]
        number = names.last_number(rest, _SEQUENCE_NUMBER) if rest else None
        if rest and (number is None or rest != _sequence(number)):
            return None
        if number is not None and (block := self.events.kept(number)) is not None:
            return _notification(number, block)
        if number is None and not interest.can_be_prefix:
            return None
        return self._wait_for_event(number, min(interest.lifetime_ms / 1000, _WAIT_MAX_S))

    async def _wait_for_event(self, number: int | None, timeout_s: float) -> bytes | None:
        # What changed while nobody was waiting is nobody's news.
        if not self.events.is_awaited and number is None:
            self.events.skip(self._forwarder.faces.values())
        if self._looking is None or self._looking.done():
            self._looking = asyncio.get_running_loop().create_task(self._look())
        event = await self.events.next_event(number, timeout_s)
        return _notification(*event) if event is not None else None

    async def _look(self) -> None:
        """Looks at the faces while somebody waits."""
        while True:
            await asyncio.sleep(_LOOK_S)
            if not self.events.is_awaited:
                return
            self.events.look(self._forwarder.faces.values())


def _sequence(number: int) -> Name:
    return names.tlv(_SEQUENCE_NUMBER, names.non_negative(number))


def _notification(number: int, block: bytes) -> bytes:
    return keys.sign_data(_EVENTS + _sequence(number), block, _FRESHNESS_MS)
