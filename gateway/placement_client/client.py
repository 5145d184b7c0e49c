"""The placement client: keeps the newest decision it can get in force, and this node's blobs complete.

Three loops: one asks for heads and completes them, one fetches blobs, one hands the desired state to the executor.
What to fetch and what to believe is decided in session.py.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

from gateway.placement_client import view
from gateway.placement_client.clock import read_clock
from gateway.placement_client.decision import SectionNeed, SpecificationNeed
from gateway.placement_client.decision_store import DecisionStore, Floors, StoredDecision
from gateway.placement_client.fetching import BlobFetching
from gateway.placement_client.notices import Notices
from gateway.placement_client.pacing import Backoff, jittered, wait
from gateway.placement_client.ports import Blobs, Custody, Endpoint, Executor, Pin
from gateway.placement_client.session import Clock, EpochUnproven, Session, Verdict
from gateway.placement_client.tips import Tip, Tips
from gateway.protocol import keys, objects
from gateway.protocol.errors import ProtocolError, UnknownKey
from gateway.protocol.executor_messages import Desired
from gateway.protocol.names import Name

log = logging.getLogger(__name__)
T = TypeVar("T")

# After a power cut the whole street boots at once; half a second a gateway is enough for small packets.
START_SPREAD_S = 2.0
LIFETIME_MS = 4000
PARALLEL = 8
SECTION_PATIENCE_S = 15.0
# Head, its signer, that one's predecessors: a chain longer than this is somebody's game.
MAX_STEPS = 4


@dataclass(frozen=True, slots=True)
class Source:
    """Where to ask: the controller by the default route, or a neighbour by its node name and the face to it."""

    label: str
    hint: tuple[Name, ...] = ()
    face_id: int | None = None


CONTROLLER = Source("controller")


class PlacementClient:
    """One node's part in a network's decisions. Make it, `start()` it, keep `run()` running."""

    def __init__(
        self,
        session: Session,
        store: DecisionStore,
        endpoint: Endpoint,
        blobs: Blobs,
        executor: Executor | None,
        *,
        interval_s: float,
        unreachable: tuple[type[Exception], ...],
        pin: Pin = lambda wire: None,
        distance: Callable[[str], float] = lambda node: 0.0,
        clock: Callable[[], Clock] = read_clock,
        build_time: float = 0.0,
        retry_s: tuple[float, float] = (2.0, 60.0),
        chance: random.Random | None = None,
    ) -> None:
        self.session, self.store, self.endpoint, self.blobs, self.executor = session, store, endpoint, blobs, executor
        self._interval_s, self._pin, self._clock = interval_s, pin, clock
        self._unreachable: tuple[type[Exception], ...] = (*unreachable, OSError)
        self._chance, self._retry_s = chance or random.Random(), retry_s
        self._tips, self._source = Tips(), CONTROLLER
        self._awake, self._to_hand, self._answered = asyncio.Event(), asyncio.Event(), asyncio.Event()
        self._pinned: set[bytes] = set()
        self._failures: dict[str, str] = {}
        self._notices = Notices(log)
        self._fetching = BlobFetching(
            session,
            blobs,
            unreachable=self._unreachable,
            distance=distance,
            on_whole=self._to_hand.set,
            fail=self._fail,
            backoff=Backoff(self._chance, *retry_s),
        )
        session.floor_time = max(session.floor_time, build_time)

    def entrust(self, custody: Custody) -> None:
        """From now on neighbours are asked to get what can't be reached."""
        self._fetching.custody = custody

    @property
    def order(self) -> tuple[int, int]:
        """The (epoch, version) in force, for our hellos."""
        return self.session.order

    def start(self) -> None:
        """Puts the stored decision in force; no network is needed. Blocks for a few small files."""
        floors, session = self.store.load_floors(), self.session
        session.floor_order = max(session.floor_order, (floors.epoch, floors.version))
        session.floor_time = max(session.floor_time, floors.time)
        session.epoch = max(session.epoch, floors.epoch)
        stored = self.store.load()
        if stored is None:
            return
        try:
            session.restore(stored.head, stored.certificates, stored.sections, stored.specifications)
        except ProtocolError as error:
            self.store.discard(f"the stored decision does not verify: {error}")
            return
        if stored.epoch:
            session.add_epoch(stored.epoch, "disk")
        self._put_in_use()

    async def run(self) -> None:
        """Runs until cancelled; an exception that leaves it is a bug."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._hand_over(), name="placement: executor")
            group.create_task(self._follow(), name="placement: decisions")
            group.create_task(self._fetching.run(), name="placement: blobs")

    def on_hello(self, face_id: int, node: str, epoch: int, version: int) -> None:
        """A neighbour says that it holds this head; nothing is believed, a newer one is asked for."""
        tip = Tip(face_id, node, epoch, version)
        if self.session.is_news(epoch, version) and self._tips.add(tip, asyncio.get_running_loop().time()):
            self._awake.set()

    async def revocation_of(self, key_name: Name) -> str:
        """Which head revokes a key, in words; empty when none does, which is known once the controller answered."""
        if not self.session.revocation_of(key_name):
            await self._answered.wait()
        return self.session.revocation_of(key_name)

    def check_blobs(self) -> None:
        """Looks again for blobs that are missing, because the disk may have changed."""
        self._fetching.look_again()

    def snapshot(self) -> dict[str, Any]:
        """The decision, the services and their blobs, and what was rejected, as JSON-ready values."""
        problems = {**self.store.problems, **self._failures}
        return view.describe(self.session, self.blobs.has, self._fetching.progress, problems)

    # --- decisions

    async def _follow(self) -> None:
        loop, backoff = asyncio.get_running_loop(), Backoff(self._chance, *self._retry_s)
        poll_at = loop.time() + self._chance.uniform(0, min(START_SPREAD_S, self._interval_s / 4))
        while True:
            tip = self._tips.take()
            if tip is not None:
                await self._ask_neighbor(tip)
            if loop.time() >= poll_at:
                await self._ask(CONTROLLER, self.session.network.head, can_be_prefix=True, must_be_fresh=True)
                poll_at = loop.time() + jittered(self._interval_s, self._chance)
            wake_at = poll_at
            if await self._complete() or not self.session.needs():
                backoff.reset()
            else:
                wake_at = min(poll_at, loop.time() + backoff.failed())
            if not self._tips:
                await wait(self._awake, wake_at - loop.time())

    async def _ask_neighbor(self, tip: Tip) -> None:
        if not self.session.is_news(tip.epoch, tip.version):
            return
        network = self.session.network
        source = Source(f"neighbor {tip.node}", (network.node(tip.node),), tip.face_id)
        verdict = await self._ask(source, network.head_version(tip.epoch, tip.version))
        if verdict in (Verdict.NEWER, Verdict.KNOWN):
            self._tips.held(tip.face_id)
        else:
            self._tips.failed(tip.face_id, asyncio.get_running_loop().time())

    async def _ask(
        self, source: Source, name: Name, can_be_prefix: bool = False, must_be_fresh: bool = False
    ) -> Verdict | None:
        """Asks for a head and judges it; None when it did not come, or a certificate that it needs."""
        wire = await self._express(source, "", name, can_be_prefix=can_be_prefix, must_be_fresh=must_be_fresh)
        if wire is None:
            return None
        verdict = await self._proven(lambda: self.session.offer_head(wire, source.label, self._clock()), source)
        if source == CONTROLLER and verdict is not None:
            self._answered.set()
        if verdict is Verdict.NEWER:
            self._source = source
        return verdict

    async def _proven(self, judge: Callable[[], T], source: Source) -> T | None:
        """What `judge` says once the certificates that it asks for are there; None when they are not to be had."""
        reason = ""
        for _ in range(MAX_STEPS):
            take: Callable[[bytes, str], bool]
            try:
                return judge()
            except UnknownKey as error:
                name, take, reason = error.key_name, self._take_certificate, str(error)
            except EpochUnproven as error:
                name, take, reason = error.name, self.session.add_epoch, str(error)
            if not await self._take_first(source, name, take):
                break
        self.session.reject("unproven", reason)
        return None

    def _take_certificate(self, wire: bytes, label: str) -> bool:
        return self.session.add_certificate(wire, label, self._clock())

    async def _take_first(self, source: Source, name: Name, take: Callable[[bytes, str], bool]) -> bool:
        """Asks the source, then the controller, at last past every cache, until `take` accepts what came."""
        for place, must_be_fresh in ((source, False), (CONTROLLER, False), (CONTROLLER, True)):
            wire = await self._express(place, " (proof)", name, can_be_prefix=True, must_be_fresh=must_be_fresh)
            if wire is not None and take(wire, place.label):
                return True
        return False

    async def _express(self, source: Source, what: str, name: Name, **options: Any) -> bytes | None:
        # A failure stands until the same kind of question is answered, so that a lasting one is logged once.
        where = ("controller" if source == CONTROLLER else "neighbor") + what
        try:
            packet = await self.endpoint.express(
                name, hint=source.hint, next_hop_face=source.face_id, lifetime_ms=LIFETIME_MS, **options
            )
        except self._unreachable as error:
            self._fail(where, f"{source.label}: {error}")
            return None
        self._fail(where, "")
        return packet.wire

    async def _complete(self) -> bool:
        """Fetches once whatever the draft lacks and puts it in force if it may be; True when something changed."""
        before = self.session.needs()
        for kind in (SectionNeed, SpecificationNeed):
            some = asyncio.Semaphore(PARALLEL)
            await asyncio.gather(*(self._fetch_need(need, some) for need in self.session.needs() if type(need) is kind))
        if self.session.is_adoptable(give_up=True):
            self.session.adopt()
        elif self.session.draft is not None or self.session.needs() == before:
            return False
        self._put_in_use()
        await self._save()
        return True

    async def _fetch_need(self, need: SectionNeed | SpecificationNeed, some: asyncio.Semaphore) -> None:
        async with some:
            if isinstance(need, SectionNeed):
                await self._fetch_section(need)
                return
            for source in dict.fromkeys((self._source, CONTROLLER)):
                wire = await self._express(source, f" (specification {need.place[1]})", need.name, digest=need.digest)
                if wire is not None and await self._take_specification(need, wire, source):
                    return

    async def _fetch_section(self, need: SectionNeed) -> None:
        what = f"section {need.ref.service}"
        try:
            async with asyncio.timeout(SECTION_PATIENCE_S):
                content = await self.blobs.fetch_bytes(need.ref.blob, [*self._source.hint, b""])
        except ProtocolError as error:
            self.session.reject("section hash", f"{what} from {self._source.label}: {error}")
        except self._unreachable as error:
            self._fail(what, str(error) or f"not whole after {SECTION_PATIENCE_S:.0f} s")
        else:
            self._fail(what, "")
            self.session.add_section(need.ref, content)

    async def _take_specification(self, need: SpecificationNeed, wire: bytes, source: Source) -> bool:
        return bool(await self._proven(lambda: self.session.add_specification(need.place, wire), source))

    # --- a decision in force

    def _put_in_use(self) -> None:
        self._pin_decision()
        # Of what was missing for the draft, nothing is any more.
        self._failures = {what: text for what, text in self._failures.items() if not _is_of_draft(what)}
        self._fetching.look_again()
        self._to_hand.set()

    def _pin_decision(self) -> None:
        decision = self.session.decision
        if decision is None:
            return
        packets = [decision.head_wire, *self._certificates(), *decision.specifications, self.session.epoch_wire]
        for section in decision.sections:
            packets += objects.packets_of(self.session.network, section)
        by_digest = {hashlib.sha256(wire).digest(): wire for wire in packets if wire}
        for digest in by_digest.keys() - self._pinned:
            self._pin(by_digest[digest])
        self._pinned = set(by_digest)

    def _certificates(self) -> tuple[bytes, ...]:
        """Those of the anchor, the controller and the providers; the nodes' are of no use to others here."""
        trust, nodes = self.session.trust, self.session.network.nodes
        return tuple(wire for wire in trust.certificates if not keys.parse(wire).name.startswith(nodes))

    async def _save(self) -> None:
        decision, clock = self.session.decision, self._clock()
        if decision is None:
            return
        if self.session.is_clock_trusted(clock):
            self.session.floor_time = clock.now
        stored = StoredDecision(
            decision.head_wire,
            self._certificates(),
            decision.sections,
            decision.specifications,
            self.session.epoch_wire,
        )
        epoch, version = self.session.floor_order
        try:
            await asyncio.to_thread(self.store.save, stored, Floors(epoch, version, self.session.floor_time))
        except OSError as error:
            self._fail("decision store", f"the decision in force is not on disk: {error}")
        else:
            self._fail("decision store", "")

    def _fail(self, what: str, text: str) -> None:
        """Keeps why something fails at the moment, for status; an empty text says that it works."""
        self._notices.tell(what, text, expected_at_start=what in ("controller", "executor"))
        if text:
            self._failures[what] = text
        else:
            self._failures.pop(what, None)

    async def _hand_over(self) -> None:
        backoff = Backoff(self._chance, *self._retry_s)
        while True:
            await wait(self._to_hand, None)
            decision = self.session.decision
            if decision is None or self.executor is None:
                continue
            desired = Desired(decision.head_wire, self._certificates(), decision.sections, decision.specifications)
            try:
                await self.executor.apply(desired)
            except self._unreachable as error:
                self._fail("executor", str(error))
                self._to_hand.set()
                await asyncio.sleep(backoff.failed())
            else:
                self._fail("executor", "")
                backoff.reset()


def _is_of_draft(what: str) -> bool:
    return what.startswith("section ") or what.endswith(" (proof)") or " (specification " in what
