"""The monitor at work: greets neighbours, probes links, looks at the machine, and answers who asks for the report."""

from __future__ import annotations

import asyncio
import dataclasses
import logging
import time
from collections import Counter
from collections.abc import Callable, Coroutine
from random import Random
from typing import Any

from gateway.monitor import hello as hellos
from gateway.monitor import prober
from gateway.monitor import report as reports
from gateway.monitor.host import HostSample
from gateway.monitor.links import LinkTable
from gateway.monitor.ports import Endpoint, Gateway, Host, Interest, LinkLayerReader
from gateway.monitor.report import Identity, Parts, Reporter
from gateway.monitor.train import ProbeResult
from gateway.protocol import keys, names
from gateway.protocol.errors import UnknownKey
from gateway.protocol.messages import Hello
from gateway.protocol.names import Name

log = logging.getLogger(__name__)

HELLO_LIFETIME_MS = 2000
# How often the faces are looked at; a busy face often enough to know that it was busy all the time.
TICK_S, BUSY_TICK_S = 1.0, 0.1
REPORT_FRESH_MS = 1000
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
        self._sampled_at = self._reported_at = self._hello_at = float("-inf")
        self._report_wire = self._hello_wire = b""
        self._report_lock = asyncio.Lock()
        self._hello_sequence = 0
        self._last_version_ms = 0
        self._wake = asyncio.Event()
        self._layer_changed = asyncio.Event()

    # --- what the daemon uses

    async def run(self) -> None:
        """Serves, greets, probes and samples until cancelled."""
        self._serve()
        await self._look_at_machine()
        self._link_layer.watch(self._layer_changed.set)
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._sample_forever())
            await self._watch_faces(tasks)

    def wake(self) -> None:
        """Faces have changed: look at them now rather than within a second."""
        self._wake.set()

    def greet_all(self) -> None:
        """Something about this node or about the keys it knows has changed: say hello on every face soon."""
        now = asyncio.get_running_loop().time()
        for contact in self.table.contacts.values():
            contact.schedule.hurry(now)
        self._hello_at = float("-inf")
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
        self.counters["hellos_asked"] += 1
        self.table.on_asked(now, interest.incoming_face)
        wire = self._own_hello(now)
        if interest.name.startswith(hellos.ASK) and len(interest.name) <= len(hellos.ASK) + 40:
            return keys.sign_data(interest.name, wire)
        own = names.HELLO + names.component(self._identity.node)
        return wire if own.startswith(interest.name) else None

    def _own_hello(self, now: float) -> bytes:
        """Our signed hello, made at most once a second."""
        if now - self._hello_at >= 1.0:
            self._hello_sequence += 1
            epoch, version = self._gateway.decision_order()
            hello = Hello(
                self._identity.node,
                self._identity.boot_id,
                self._hello_sequence,
                self._addresses(),
                epoch,
                version,
                self.table.heard(now),
            )
            # Strictly rising although the clock may be set back.
            self._last_version_ms = max(self._last_version_ms + 1, int(self._clock() * 1000))
            name = hellos.data_name(self._identity.node, self._last_version_ms)
            self._hello_wire = self._gateway.sign(name, hellos.compose(hello), None)
            self._hello_at = now
        return self._hello_wire

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
            addresses=self._addresses(),
        )
        content = reports.encode(self._reporter.compose(parts, self._clock()))
        name = self._network.report(self._identity.node) + names.version(self._reporter.version)
        return self._gateway.sign(name, content, REPORT_FRESH_MS)

    def _addresses(self) -> tuple[str, ...]:
        kernel = self.table.layer.reachable_addresses(self._interfaces)
        return tuple(dict.fromkeys((*self._identity.addresses, *kernel)))

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
            due = self.table.due_probe(now)
            if due is not None:
                tasks.create_task(self._guarded(self._probe(*due)))
            tick_s = BUSY_TICK_S if self.table.is_busy else TICK_S
            pause_s = min(tick_s, max(0.02, self.table.next_deadline(now) - now))
            try:
                async with asyncio.timeout(pause_s):
                    await self._wake.wait()
                self._wake.clear()
            except TimeoutError:
                pass

    async def _guarded(self, work: Coroutine[Any, Any, None]) -> None:
        """One hello or probe; a defect in it is logged and counted, it does not end the others."""
        try:
            await work
        except Exception:
            self.counters["defects"] += 1
            log.exception("a measurement failed in a way nobody thought of")

    async def _say_hello(self, face_id: int) -> None:
        loop = asyncio.get_running_loop()
        name = hellos.ask_name(self._random.randbytes(8))
        sent = loop.time()
        try:
            wire = await self._express(name, face_id)
            rtt_s = loop.time() - sent
            hello = hellos.accept(wire, self._gateway.verify, self._identity.node)
            if not self.table.on_hello(loop.time(), face_id, hello, rtt_s):
                raise hellos.HelloError("old", f"{hello.node} repeats its hello {hello.sequence}")
        except Exception as error:  # the endpoint's and the verifier's errors are of families not known here
            self._on_hello_failed(face_id, error)
            return
        self.counters["hellos_accepted"] += 1
        self._gateway.on_hello(face_id, hello)

    async def _express(self, name: Name, face_id: int) -> bytes:
        async with asyncio.timeout(HELLO_LIFETIME_MS / 1000 + 1):
            answer = await self._endpoint.express(name, lifetime_ms=HELLO_LIFETIME_MS, next_hop_face=face_id)
        return answer.content

    def _on_hello_failed(self, face_id: int, error: Exception) -> None:
        kind = hellos.rejection_kind(error)
        self.counters[f"hellos_{kind}"] += 1
        log.debug("no hello on face %d: %s", face_id, error)
        contact = self.table.contacts.get(face_id)
        node = contact.node if contact is not None else ""
        reason = f"{kind}: {error}" if str(error) else kind
        has_gone = self.table.on_hello_failed(asyncio.get_running_loop().time(), face_id, reason[:200])
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
            self._hello_at = float("-inf")  # the neighbour will ask for the figure at once
        if result.mbps is None:
            self.counters["probes_failed"] += 1
            log.info("the link to %s was not measured: %s", node, result.reason)
            return
        self.counters["probes"] += 1
        spent = loop.time() - started
        log.info("%s sends to us at %.2f Mbit/s (%d bytes, %.2f s)", node, result.mbps, result.received_bytes, spent)
