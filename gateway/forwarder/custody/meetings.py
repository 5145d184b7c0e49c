"""Who is met at the moment, and what each is told: wants to take into custody, and what is here for it."""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable, Collection
from dataclasses import replace
from typing import Any

from gateway.forwarder.custody import packets
from gateway.forwarder.custody.plan import PREFIX_BYTES, Contact, Plan
from gateway.forwarder.custody.wants import REFUSED_S, TAKEN_S, Entry, Wants
from gateway.forwarder.endpoint import Endpoint, FetchError
from gateway.protocol import codec, names
from gateway.protocol.errors import MessageError
from gateway.protocol.messages import WantAnswer, WantOffer

log = logging.getLogger(__name__)

OFFER_LIFETIME_MS = 2000
# A neighbour that is heard answers sooner than this.
SILENT_S = 0.5
# A wanter that could not be told over several hops is tried again after this.
NOTICE_RETRY_S = 30.0
NOTICES_MAX = 4
# After a refusal that may pass the neighbour is asked again, first after this, then after twice as long.
AGAIN_S = 2.0


class Meetings:
    """The contacts, and one exchange at a time with each.

    `has` says whether a blob is whole here, `reaches(node)` whether there is a route, `now` gives the table's time.
    """

    def __init__(
        self,
        wants: Wants,
        plan: Plan,
        network: names.Network,
        endpoint: Endpoint,
        *,
        has: Callable[[bytes], bool],
        reaches: Callable[[str], bool],
        now: Callable[[], float],
        wake: Callable[[], None],
    ) -> None:
        self._wants, self._plan, self._network, self._endpoint = wants, plan, network, endpoint
        self._has, self._reaches, self._now, self._wake = has, reaches, now, wake
        self.contacts: dict[str, Contact] = {}
        self._exchanges: dict[str, asyncio.Task[None]] = {}
        self._notices: set[asyncio.Task[None]] = set()
        # What neighbours were told to be here for them, and, over several hops, when who was told of what.
        self._told_held: dict[str, set[bytes]] = {}
        self._noticed: dict[tuple[str, bytes], float] = {}
        self._serial = random.getrandbits(32)
        self._clock = asyncio.get_running_loop().time
        self._asked_at: dict[str, float] = {}
        self._again_s: dict[str, float] = {}

    # --- contacts

    def on_hello(self, face_id: int, node: str, boot_id: str, blobs: Collection[bytes]) -> None:
        """A neighbour is there, and holds these blobs (the beginnings of their SHA-256)."""
        contact = self.contacts.get(node)
        is_new = contact is None or contact.boot_id != boot_id or contact.face_id != face_id
        if contact is None or is_new:
            self._forget(node)
            contact = self.contacts[node] = Contact(node, face_id, boot_id)
        holds = {bytes(prefix[:PREFIX_BYTES]) for prefix in blobs if len(prefix) >= PREFIX_BYTES}
        self._plan.met(node, is_new)
        contact.holds |= holds
        # What was said into a silence waits for an answer that does not come.
        if (exchange := self._exchanges.get(node)) is not None and self._clock() - self._asked_at[node] > SILENT_S:
            exchange.cancel()
            del self._exchanges[node]

    def on_silence(self, face_id: int) -> None:
        """A face's neighbour is not heard any more."""
        for node in [node for node, contact in self.contacts.items() if contact.face_id == face_id]:
            self._forget(node)

    def at(self, face_id: int | None) -> Contact | None:
        """The neighbour on a face."""
        return next((c for c in self.contacts.values() if c.face_id == face_id), None)

    def on_held(self, sha256: bytes, node: str, contact: Contact | None) -> None:
        """Somebody holds what may be wanted here; a lie costs one attempt."""
        if len(sha256) != 32 or self._has(sha256) or not self._wants.wanters(sha256):
            return
        if contact is not None:
            contact.holds.add(sha256[:PREFIX_BYTES])
            self._plan.met(contact.node, is_new=False)
        else:
            self._plan.announce(sha256, node)

    def _forget(self, node: str) -> None:
        self.contacts.pop(node, None)
        self._told_held.pop(node, None)
        self._asked_at.pop(node, None)
        self._again_s.pop(node, None)
        if (exchange := self._exchanges.pop(node, None)) is not None:
            exchange.cancel()

    async def stop(self) -> None:
        tasks = [*self._exchanges.values(), *self._notices]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    # --- telling

    def tell(self) -> None:
        """Begins to tell every neighbour what it does not know yet, and wanters further away what is here for them."""
        for contact in self.contacts.values():
            exchange = self._exchanges.get(contact.node)
            if (exchange is None or exchange.done()) and self._next_offer(contact) is not None:
                self._asked_at[contact.node] = self._clock()
                self._exchanges[contact.node] = self._spawn(self._exchange(contact))
        self._tell_far()

    async def _exchange(self, contact: Contact) -> None:
        """Tells a neighbour all that it should know; a contact that ends before is no error."""
        while (prepared := self._next_offer(contact)) is not None:
            entries, offer = prepared
            self._asked_at[contact.node] = self._clock()
            try:
                answer = await self._ask(contact.node, offer, contact.face_id)
            except (FetchError, MessageError) as error:
                log.debug("%s was not told of %d wants: %s", contact.node, len(entries), error)
                await asyncio.sleep(OFFER_LIFETIME_MS / 1000)
            else:
                await asyncio.sleep(self._on_answer(contact, entries, offer, answer))

    def _next_offer(self, contact: Contact) -> tuple[list[Entry], WantOffer] | None:
        """The next offer to a neighbour, None when it knows everything."""
        now = self._now()
        entries = self._wants.to_tell(now, contact.node, contact.boot_id)
        entries, offer = packets.fill(entries, now, contact.node, self._wants.node)
        told = self._told_held.setdefault(contact.node, set())
        waiting = (e.want.blob.sha256 for e in self._wants.in_order() if e.want.wanter == contact.node)
        held = [sha256 for sha256 in waiting if sha256 not in told and self._has(sha256)]
        offer, count = packets.with_held(offer, held)
        if not entries and not count:
            return None
        self._serial += 1
        return entries, replace(offer, serial=self._serial)

    async def _ask(self, node: str, offer: WantOffer, face_id: int | None) -> WantAnswer:
        data = await self._endpoint.express(
            self._network.wants(node),
            parameters=codec.encode(offer),
            next_hop_face=face_id,
            lifetime_ms=OFFER_LIFETIME_MS,
        )
        return codec.decode(WantAnswer, data.content)

    def _on_answer(self, contact: Contact, entries: list[Entry], offer: WantOffer, answer: WantAnswer) -> float:
        """Notes what became of an offer; how long to leave the neighbour in peace."""
        refused = {refusal.index: refusal for refusal in answer.refusals}
        is_passing = any(refusal.is_passing for refusal in answer.refusals)
        again_s = self._again_s.get(contact.node, AGAIN_S)
        for index, entry in enumerate(entries):
            quiet_s = TAKEN_S if index not in refused else again_s if refused[index].is_passing else REFUSED_S
            self._wants.told(entry, self._now(), contact.node, contact.boot_id, quiet_s)
        for index, refusal in refused.items():
            log.debug("%s does not take want %d: %.80s", contact.node, index, refusal.reason)
        self._told_held.setdefault(contact.node, set()).update(offer.held)
        for sha256 in answer.held:
            self.on_held(sha256, contact.node, contact)
        self._wake()
        if not is_passing:
            self._again_s.pop(contact.node, None)
            return 0.0
        self._again_s[contact.node] = min(2 * again_s, REFUSED_S)
        return again_s

    def _tell_far(self) -> None:
        """Wanters that can fetch by themselves are told that the blob is here."""
        now = self._now()
        for entry in self._wants.in_order():
            wanter, sha256 = entry.key
            if len(self._notices) >= NOTICES_MAX:
                return
            if wanter in self.contacts or self._wants.is_own(entry) or entry.key in self._noticed:
                continue
            if self._has(sha256) and self._reaches(wanter):
                self._noticed[entry.key] = now
                task = self._spawn(self._notify(wanter, sha256))
                self._notices.add(task)
                task.add_done_callback(self._notices.discard)
        self._noticed = {key: at for key, at in self._noticed.items() if self._wants.get(*key) is not None}

    async def _notify(self, wanter: str, sha256: bytes) -> None:
        self._serial += 1
        try:
            await self._ask(wanter, WantOffer(self._wants.node, self._serial, held=(sha256,)), None)
        except (FetchError, MessageError) as error:
            log.debug("%s was not told that its blob is here: %s", wanter, error)
            await asyncio.sleep(NOTICE_RETRY_S)
            self._noticed.pop((wanter, sha256), None)
            self._wake()

    def _spawn(self, work: Any) -> asyncio.Task[None]:
        task: asyncio.Task[None] = asyncio.create_task(work, name="wants")
        task.add_done_callback(_log_defect)
        return task


def _log_defect(task: asyncio.Task[None]) -> None:
    if not task.cancelled() and (error := task.exception()) is not None:
        log.critical("an exchange of wants failed, which is a bug", exc_info=error)
