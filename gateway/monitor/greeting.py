"""What this node says of itself: its hello in full for who asks, and a short one for who may hear a multicast."""

from __future__ import annotations

from collections.abc import Callable

from gateway.monitor import hello as hellos
from gateway.monitor.links import LinkTable
from gateway.monitor.ports import Gateway
from gateway.monitor.report import Identity
from gateway.protocol.messages import Hello

# A hello is signed once for all who ask within this time.
FRESH_S = 1.0


class Greeting:
    """Composes and signs; `clock` is Unix time, for the versions in the names only."""

    def __init__(
        self,
        gateway: Gateway,
        identity: Identity,
        table: LinkTable,
        interfaces: tuple[str, ...],
        clock: Callable[[], float],
    ) -> None:
        self._gateway, self._identity, self._table = gateway, identity, table
        self._interfaces, self._clock = interfaces, clock
        self._sequence = self._last_version_ms = 0
        self._wire, self._made_at = b"", float("-inf")

    def outdated(self) -> None:
        """Something in it has changed: the next who asks gets a new one."""
        self._made_at = float("-inf")

    def full(self, now: float) -> bytes:
        """The signed hello with everything that a neighbour wants to know."""
        if now - self._made_at >= FRESH_S:
            self._wire, self._made_at = self._signed(now, is_short=False), now
        return self._wire

    def short(self, now: float) -> bytes:
        """A signed hello that fits into one datagram: who this is, and where it may be dialled."""
        return self._signed(now, is_short=True)

    def addresses(self) -> tuple[str, ...]:
        kernel = self._table.layer.reachable_addresses(self._interfaces)
        return tuple(dict.fromkeys((*self._identity.addresses, *kernel)))

    def _signed(self, now: float, is_short: bool) -> bytes:
        self._sequence += 1
        ask, layer = self._gateway, self._table.layer
        epoch, version = ask.decision_order()
        hello = Hello(
            node=self._identity.node,
            boot_id=self._identity.boot_id,
            sequence=self._sequence,
            addresses=self.addresses(),
            epoch=epoch,
            version=version,
            heard=() if is_short else self._table.heard(now),
            blobs=() if is_short else ask.held(),
            faces=layer.faces(ask.listening(), self._interfaces)[: hellos.FACES_MAX],
            links=layer.link_addresses(self._interfaces)[: hellos.LINKS_MAX],
            reach=() if is_short else ask.reach(),
        )
        # Strictly rising although the clock may be set back.
        self._last_version_ms = max(self._last_version_ms + 1, int(self._clock() * 1000))
        name = hellos.data_name(self._identity.node, self._last_version_ms)
        return self._gateway.sign(name, hellos.compose(hello), None)
