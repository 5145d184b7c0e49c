"""The monitor at work: greets neighbours, probes links, looks at the machine, and answers who asks for the report."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import logging
import time
from collections import Counter
from collections.abc import Callable, Coroutine
from random import Random
from typing import Any

from gateway.monitor import discovery, prober
from gateway.monitor import hello as hellos
from gateway.monitor import report as reports
from gateway.monitor.discovery import Discovery
from gateway.monitor.greeting import Greeting
from gateway.monitor.host import HostSample
from gateway.monitor.links import LinkTable
from gateway.monitor.ports import Endpoint, Gateway, Host, Interest, LinkLayerReader
from gateway.monitor.report import Identity, Parts, Reporter
from gateway.monitor.schedule import HelloSchedule
from gateway.monitor.train import ProbeResult
from gateway.protocol import keys, names
from gateway.protocol.errors import ProtocolError, UnknownKey
from gateway.protocol.names import Name

log = logging.getLogger(__name__)

HELLO_LIFETIME_MS = 2000
# How often the faces are looked at; a busy face often enough to know that it was busy all the time.
TICK_S, BUSY_TICK_S = 1.0, 0.1
REPORT_FRESH_MS = 1000
# An announcement waits for no answer; its PIT entry need not outlive it.
ANNOUNCEMENT_LIFETIME_MS = 50
# Asked more often than this, a report repeats the last look at the machine.
HOST_FRESH_S = 5.0
NEXT_LOOK_S = 0.2


class MonitorAgent:
    """Measures and reports until `run` is cancelled. `clock` is Unix time, for what goes on the wire only.

    `interfaces` names the devices whose addresses and counters are reported, all when it is empty.
    """

    def __init__(
        self,
        gateway: Gateway,
        endpoint: Endpoint,
        network: names.Network,
        identity: Identity,
        host: Host,
        link_layer: LinkLayerReader,
        interfaces: tuple[str, ...] = (),
        random: Random | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._gateway, self._endpoint, self._network = gateway, endpoint, network
        self._identity, self._host, self._link_layer = identity, host, link_layer
        self._interfaces, self._clock = interfaces, clock
        self._random = random or Random()
        self.table = LinkTable(identity.node, self._random)
        self.counters: Counter[str] = Counter()
        self._reporter = Reporter(identity)
        self._sample = HostSample()
        self._sampled_at = self._reported_at = float("-inf")
        self._report_wire = b""
        self._report_lock = asyncio.Lock()
        self._greeting = Greeting(gateway, identity, self.table, interfaces, clock)
        self._discovery = Discovery(identity.node)
        self._groups: dict[int, HelloSchedule] = {}
        self._dialled: tuple[tuple[str, str], ...] = ()
        self._wake = asyncio.Event()
        self._layer_changed = asyncio.Event()

    # --- what the daemon uses

    async def run(self) -> None:
        """Serves, greets, probes and samples until cancelled."""
        self._serve()
        await self._look_at_machine()
        self._link_layer.watch(self.on_link_event)
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._sample_forever())
            await self._watch_faces(tasks)

    def wake(self) -> None:
        """Faces have changed: look at them now rather than within a second."""
        self._wake.set()

    def on_face_up(self, face_id: int) -> None:
        """A face has just come up, or has another connection: greet whoever is there."""
        self.table.on_face_up(asyncio.get_running_loop().time(), face_id)
        self.wake()

    def greet_all(self) -> None:
        """Something about this node or about the keys it knows has changed: say hello on every face soon."""
        now = asyncio.get_running_loop().time()
        for contact in self.table.contacts.values():
            contact.schedule.hurry(now)
        self._greeting.outdated()
        self.wake()

    def tell_news(self) -> None:
        """What the hello says has changed in a way that concerns others: greet all, and be asked back by all."""
        self.table.tell_news(asyncio.get_running_loop().time())
        self._greeting.outdated()
        self.wake()

    def on_link_event(self) -> None:
        """A device or an address has just changed: say hello at once on every face and network."""
        now = asyncio.get_running_loop().time()
        self.table.on_link_event(now)
        for schedule in self._groups.values():
            schedule.at_once(now)
        self._greeting.outdated()
        self._layer_changed.set()
        self.wake()

    def snapshot(self) -> dict[str, Any]:
        """The links for people and programs: JSON-ready rows, and what was dropped and why."""
        now = asyncio.get_running_loop().time()
        rows = [dataclasses.asdict(row) for row in self.table.rows(now)]
        return {"node": self._identity.node, "links": rows, "counters": dict(self.counters)}

    async def report(self) -> bytes:
        """The newest report as a signed Data packet, at most a second old."""
        async with self._report_lock:
            now = asyncio.get_running_loop().time()
            if now - self._reported_at > REPORT_FRESH_MS / 1000 or not self._report_wire:
                if now - self._sampled_at > HOST_FRESH_S:
                    await self._look_at_machine()
                self._report_wire = self._build_report(now)
                self._reported_at = now
            return self._report_wire

    # --- answering

    def _serve(self) -> None:
        now = asyncio.get_running_loop().time
        responder = prober.ProbeResponder(self._identity.node, self._random, now())

        def on_probe(interest: Interest) -> bytes | None:
            wire = responder.answer(now(), interest)
            self.counters["probe_packets_served" if wire else "probe_packets_refused"] += 1
            if wire is not None:
                self.table.on_served(now(), interest.incoming_face)
            return wire

        self._endpoint.serve(responder.prefix, on_probe)
        self._endpoint.serve(names.HELLO, self._on_hello_interest)
        self._endpoint.serve(self._network.report(self._identity.node), self._on_report_interest)

    def _on_hello_interest(self, interest: Interest) -> bytes | None:
        """Our hello; under the asked name when that is a neighbour's question, by itself for everybody else."""
        now = asyncio.get_running_loop().time()
        if interest.name.startswith(discovery.HERE):
            self._on_announcement(now, interest)
            return None
        self.counters["hellos_asked"] += 1
        self.table.on_asked(now, interest.incoming_face, interest.name.endswith(hellos.NEWS))
        self.wake()
        wire = self._greeting.full(now)
        if interest.name.startswith(hellos.ASK) and len(interest.name) <= len(hellos.ASK) + 40:
            return keys.sign_data(interest.name, wire)
        own = names.HELLO + names.component(self._identity.node)
        return wire if own.startswith(interest.name) else None

    def _on_announcement(self, now: float, interest: Interest) -> None:
        """Somebody on a network says that it is there; whoever is new is told of us as soon."""
        interface = dict(self._gateway.groups()).get(interest.incoming_face or 0)
        if interface is None or interest.parameters is None:
            return
        self.counters["announcements_heard"] += 1
        try:
            hello = hellos.accept(interest.parameters, self._verify_if_known, self._identity.node)
        except (hellos.HelloError, ProtocolError) as error:
            self.counters[f"announcements_{hellos.rejection_kind(error)}"] += 1
            return
        if self._discovery.on_announcement(now, hello, interface, self.table.layer):
            for schedule in self._groups.values():
                schedule.hurry(now)
        self.wake()

    def _verify_if_known(self, wire: bytes) -> keys.Packet:
        """A stranger's key is learned when it is greeted: until then its announcement says no more than an address."""
        try:
            return self._gateway.verify(wire)
        except UnknownKey:
            return keys.parse(wire)

    async def _on_report_interest(self, interest: Interest) -> bytes | None:
        """The newest report, unless the Interest asks for another version than that."""
        wire = await self.report()
        newest = self._network.report(self._identity.node) + names.version(self._reporter.version)
        return wire if newest.startswith(interest.name) else None

    def _build_report(self, now: float) -> bytes:
        ask = self._gateway
        parts = Parts(
            host=self._sample,
            interfaces=self.table.layer.reports(self._interfaces),
            links=self.table.reports(now),
            routes=ask.routes(),
            services=ask.services(),
            forwarder=ask.forwarder_counters(),
            blobs=ask.blobs(),
            runtimes=ask.runtimes(),
            addresses=self._greeting.addresses(),
        )
        content = reports.encode(self._reporter.compose(parts, self._clock()))
        name = self._network.report(self._identity.node) + names.version(self._reporter.version)
        return self._gateway.sign(name, content, REPORT_FRESH_MS)

    # --- looking

    async def _sample_forever(self) -> None:
        """Looks at the machine once an interval, and soon after an interface or address changed."""
        while True:
            try:
                async with asyncio.timeout(self._identity.interval_s):
                    await self._layer_changed.wait()
                await asyncio.sleep(NEXT_LOOK_S)  # one cable pulled is a dozen events
            except TimeoutError:
                pass
            self._layer_changed.clear()
            await self._look_at_machine()

    async def _look_at_machine(self) -> None:
        now = asyncio.get_running_loop().time
        self._sample = await self._host.sample()
        self._sampled_at = now()
        self.table.on_layer(now(), await self._link_layer.look())

    # --- asking

    async def _watch_faces(self, tasks: asyncio.TaskGroup) -> None:
        """Looks at the faces, and starts what is due on them."""
        loop = asyncio.get_running_loop()
        while True:
            now = loop.time()
            self.table.update(now, self._gateway.faces())
            self.table.ask_results(now)
            for face_id in self.table.due_hellos(now):
                tasks.create_task(self._guarded(self._say_hello(face_id)))
            self._look_at_networks(now, tasks)
            due = self.table.due_probe(now, self._gateway.demand)
            if due is not None:
                tasks.create_task(self._guarded(self._probe(*due)))
            tick_s = BUSY_TICK_S if self.table.is_busy else TICK_S
            pause_s = min(tick_s, max(0.02, self._next_deadline(now) - now))
            try:
                async with asyncio.timeout(pause_s):
                    await self._wake.wait()
                self._wake.clear()
            except TimeoutError:
                pass

    def _next_deadline(self, now: float) -> float:
        announcements = [schedule.next_at for schedule in self._groups.values()]
        return min([self.table.next_deadline(now), self._discovery.next_deadline(now) or now + 60.0, *announcements])

    def _look_at_networks(self, now: float, tasks: asyncio.TaskGroup) -> None:
        """Announces this node where that is due, and has those dialled that were heard."""
        present = dict(self._gateway.groups())
        for gone in self._groups.keys() - present.keys():
            del self._groups[gone]
        for face_id in present:
            schedule = self._groups.setdefault(face_id, HelloSchedule(now, self._random))
            if schedule.next_at <= now:
                schedule.sent()
                schedule.succeeded(now, is_settled=True)
                tasks.create_task(self._guarded(self._announce(face_id)))
        dialled = self._discovery.wanted(now, self.table.contacts.values())
        if dialled != self._dialled:
            self._dialled = dialled
            self._gateway.dial(dialled)

    async def _announce(self, face_id: int) -> None:
        self.counters["announcements"] += 1
        wire = self._greeting.short(asyncio.get_running_loop().time())
        with contextlib.suppress(Exception):  # nothing answers; the endpoint's errors are of a family not known here
            await self._endpoint.express(
                discovery.HERE, lifetime_ms=ANNOUNCEMENT_LIFETIME_MS, parameters=wire, next_hop_face=face_id
            )

    async def _guarded(self, work: Coroutine[Any, Any, None]) -> None:
        """One hello or probe; a defect in it is logged and counted, it does not end the others."""
        try:
            await work
        except Exception:
            self.counters["defects"] += 1
            log.exception("a measurement failed in a way nobody thought of")

    async def _say_hello(self, face_id: int) -> None:
        loop = asyncio.get_running_loop()
        sent = loop.time()
        contact = self.table.contacts.get(face_id)
        has_news = contact is not None and contact.has_news
        name = hellos.ask_name(self._random.randbytes(8), has_news)
        try:
            wire = await self._express(name, face_id)
            rtt_s = loop.time() - sent
            hello = hellos.accept(wire, self._gateway.verify, self._identity.node)
            is_known = self.table.hears(face_id, hello.node)
            if not self.table.on_hello(loop.time(), face_id, hello, rtt_s):
                raise hellos.HelloError("old", f"{hello.node} repeats its hello {hello.sequence}")
        except Exception as error:  # the endpoint's and the verifier's errors are of families not known here
            self._on_hello_failed(face_id, error, sent)
            return
        self.counters["hellos_accepted"] += 1
        if has_news and contact is not None:
            contact.has_news = False
        if not is_known:
            self._greeting.outdated()  # it will want to see that it is heard
        self.wake()
        self._gateway.on_hello(face_id, hello)

    async def _express(self, name: Name, face_id: int) -> bytes:
        async with asyncio.timeout(HELLO_LIFETIME_MS / 1000 + 1):
            answer = await self._endpoint.express(name, lifetime_ms=HELLO_LIFETIME_MS, next_hop_face=face_id)
        return answer.content

    def _on_hello_failed(self, face_id: int, error: Exception, sent_at: float) -> None:
        kind = hellos.rejection_kind(error)
        self.counters[f"hellos_{kind}"] += 1
        log.debug("no hello on face %d: %s", face_id, error)
        contact = self.table.contacts.get(face_id)
        node = contact.node if contact is not None else ""
        reason = f"{kind}: {error}" if str(error) else kind
        has_gone = self.table.on_hello_failed(asyncio.get_running_loop().time(), face_id, reason[:200], sent_at)
        if isinstance(error, UnknownKey):
            self._gateway.on_unknown_key(face_id, error.key_name)
        if has_gone:
            self._gateway.on_silence(face_id, node)

    async def _probe(self, face_id: int, node: str) -> None:
        loop = asyncio.get_running_loop()
        started = loop.time()
        result = ProbeResult(None, 0.0, 0.0, 0, "the probe broke off")
        try:
            result = await prober.probe(self._endpoint, face_id, node, self._random.randbytes(8))
        finally:
            self.table.on_probe(loop.time(), face_id, result)
            self._greeting.outdated()  # the neighbour will ask for the figure at once
        if result.mbps is None:
            self.counters["probes_failed"] += 1
            log.info("the link to %s was not measured: %s", node, result.reason)
            return
        self.counters["probes"] += 1
        spent = loop.time() - started
        log.info("%s sends to us at %.2f Mbit/s (%d bytes, %.2f s)", node, result.mbps, result.received_bytes, spent)
