"""A network in one object, for consumers on a VirtualLoop: delay, loss, reordering, rate, forgery and Nacks."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Sequence

from gateway.forwarder import packet
from gateway.forwarder.endpoint import Asker, Nacked, TimedOut
from gateway.forwarder.packet import NACK_NO_ROUTE, Data, Interest, decode_data, decode_interest
from gateway.protocol import keys
from gateway.protocol.names import Name

# name, can_be_prefix, implicit digest -> the packet, or None for a Nack
Holder = Callable[[Name, bool, bytes | None], bytes | None]
NACK_REASONS = {text: reason for reason, text in packet.NACK_REASONS.items()}


class Silence(Exception):
    """Raised by a holder that does not answer."""


class FakeNetwork:
    """Stands for an Endpoint: `holders` answer by the ForwardingHint they are named with, `b""` without a hint."""

    def __init__(self, seed: int = 1, delay_s: float = 0.01) -> None:
        self.holders: dict[Name, Holder] = {}
        self.delay_s, self.jitter_s, self.loss, self.forgery = delay_s, 0.0, 0.0, 0.0
        self.rate_bytes_s: float | None = None
        self.capacity = 1 << 30  # what more is in flight is lost
        self.asked: list[tuple[Name, Name]] = []
        self.in_flight = self.peak = 0
        self.is_up = True
        self._random = random.Random(seed)
        self._free_at = 0.0
        self._askers: dict[Name, Asker] = {}
        self._tasks: set[asyncio.Future[None]] = set()

    async def express(
        self,
        name: Name,
        *,
        can_be_prefix: bool = False,
        must_be_fresh: bool = False,
        lifetime_ms: int = 4000,
        hint: Sequence[Name] = (),
        digest: bytes | None = None,
        retries: int = 0,
    ) -> Data:
        for _ in range(retries + 1):
            self.in_flight += 1
            self.peak = max(self.peak, self.in_flight)
            self.asked.append((name, b"".join(hint)))
            try:
                async with asyncio.timeout(lifetime_ms / 1000):
                    return await self._answer(name, can_be_prefix, b"".join(hint), digest)
            except TimeoutError:
                continue
            finally:
                self.in_flight -= 1
        raise TimedOut("no answer")

    def ask(self, name: Name, wire: bytes, asker: Asker) -> None:
        self._askers[name] = asker
        task = asyncio.ensure_future(self._serve(name, decode_interest(wire)))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def forget(self, name: Name, asker: Asker) -> None:
        self._askers.pop(name, None)

    async def _serve(self, name: Name, interest: Interest) -> None:
        try:
            data = await self.express(
                name, can_be_prefix=interest.can_be_prefix, hint=interest.hint, digest=interest.digest
            )
        except Nacked as nack:
            if (asker := self._askers.get(name)) is not None:
                asker.on_nack(name, NACK_REASONS[nack.reason])
        except TimedOut:
            pass
        else:
            asker = self._askers.get(name)
            if asker is not None and asker.on_packet(name, data.wire, False):
                self._askers.pop(name, None)

    async def _never(self) -> None:
        """What is lost is waited for, but it is not in flight any more."""
        self.in_flight -= 1
        try:
            await asyncio.sleep(3600)
        finally:
            self.in_flight += 1

    async def _answer(self, name: Name, can_be_prefix: bool, hint: Name, digest: bytes | None) -> Data:
        crowded = self.in_flight > self.capacity
        await asyncio.sleep(self.delay_s + self.jitter_s * self._random.random())
        if not self.is_up or self._random.random() < self.loss or crowded:
            await self._never()
        holder = self.holders.get(hint)
        try:
            wire = holder(name, can_be_prefix, digest) if holder else None
        except Silence:
            await self._never()
        if wire is None:
            raise Nacked(name, NACK_NO_ROUTE)
        if self._random.random() < self.forgery:
            return decode_data(keys.sign_data(name, b"forged"))
        if self.rate_bytes_s is not None:
            now = asyncio.get_running_loop().time()
            self._free_at = max(now, self._free_at) + len(wire) / self.rate_bytes_s
            await asyncio.sleep(self._free_at - now)
        return decode_data(wire)
