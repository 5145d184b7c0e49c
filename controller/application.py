"""The controller as an NDN application: what it answers under the network's names, and what it asks nodes for.

Everything it answers is kept ready in a catalogue in memory, so that an Interest costs a look-up; only enrolment goes
to the database, on the worker thread.
"""

from __future__ import annotations

import bisect
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import Protocol, TypeVar

from controller.authority import Authority, epoch_prefix
from controller.enrolment import Enrolment
from gateway.forwarder.consumer import Interest
from gateway.protocol import codec, keys, names
from gateway.protocol.errors import MessageError
from gateway.protocol.messages import EnrolRequest
from gateway.protocol.names import Name

T = TypeVar("T")
NONCE, REQUEST = names.component("nonce"), names.component("request")
REQUEST_MAX_BYTES = 4096
REPORT_LIFETIME_MS = 4000


class DataPacket(Protocol):
    @property
    def wire(self) -> bytes: ...


class Endpoint(Protocol):
    """The part of gateway.forwarder.consumer.Endpoint that the controller uses."""

    def serve(self, prefix: Name, handler: Callable[[Interest], bytes | Awaitable[bytes | None] | None]) -> None: ...
    async def register(self, prefix: Name) -> None: ...
    async def express(
        self,
        name: Name,
        *,
        can_be_prefix: bool = False,
        must_be_fresh: bool = False,
        lifetime_ms: int = 4000,
        hint: Sequence[Name] = (),
        retries: int = 0,
    ) -> DataPacket: ...


class Worker(Protocol):
    """Runs a blocking call on the one thread that may touch the database."""

    def __call__(self, call: Callable[[], T], /) -> Awaitable[T]: ...


class Catalogue:
    """Signed packets by name; the answer to a prefix is the last name below it, which is the newest version."""

    def __init__(self) -> None:
        self._names: list[Name] = []
        self._wires: dict[Name, bytes] = {}

    def replace(self, wires: Iterable[bytes]) -> None:
        self._wires = {keys.parse(wire).name: wire for wire in wires}
        self._names = sorted(self._wires)

    def add(self, wire: bytes) -> None:
        name = keys.parse(wire).name
        if name not in self._wires:
            bisect.insort(self._names, name)
        self._wires[name] = wire

    def find(self, name: Name, can_be_prefix: bool, digest: bytes | None = None) -> bytes | None:
        wire = self._wires.get(name)
        if wire is None and can_be_prefix:
            # Names are compared as bytes, in which a version's length precedes its value: NDN's canonical order.
            end = bisect.bisect_right(self._names, name + b"\xff" * 9)
            if end and self._names[end - 1].startswith(name):
                wire = self._wires[self._names[end - 1]]
        if wire is not None and digest is not None and keys.parse(wire).digest != digest:
            return None
        return wire


class Application:
    """Serves heads, specifications, certificates and enrolment; `attach` binds it to a face."""

    def __init__(
        self,
        authority: Authority,
        enrolment: Enrolment,
        worker: Worker,
        on_enrolled: Callable[[str, bytes], None],
    ) -> None:
        self.network = authority.network
        self.heads, self.specifications, self.certificates = Catalogue(), Catalogue(), Catalogue()
        self.epochs = Catalogue()
        self.counters: Counter[str] = Counter()
        self._authority, self._enrolment, self._worker, self._on_enrolled = authority, enrolment, worker, on_enrolled

    async def attach(self, endpoint: Endpoint, nodes: Iterable[str]) -> None:
        """Answers on this face from now on, and has the gateway send us our prefixes; raises FetchError."""
        network = self.network
        endpoint.serve(network.head, self._from(self.heads))
        endpoint.serve(network.controller + keys.KEY, self._from(self.certificates))
        endpoint.serve(network.prefix + keys.KEY, self._from(self.certificates))
        # Apart from the certificates: whoever asks for N/KEY wants the anchor's, never a statement of the anchor.
        endpoint.serve(epoch_prefix(network), self._from(self.epochs))
        endpoint.serve(network.providers, self._provider)
        endpoint.serve(network.enrol, self._enrol)
        for prefix in (network.controller, network.providers, network.blobs, network.prefix + keys.KEY):
            await endpoint.register(prefix)
        for node in nodes:
            await self.attach_node(endpoint, node)

    async def attach_node(self, endpoint: Endpoint, node: str) -> None:
        """Answers for the certificates of a node, so that its neighbours can check it when it is away."""
        prefix = self.network.node(node) + keys.KEY
        endpoint.serve(prefix, self._from(self.certificates))
        await endpoint.register(prefix)

    def _from(self, catalogue: Catalogue) -> Callable[[Interest], bytes | None]:
        def answer(interest: Interest) -> bytes | None:
            wire = catalogue.find(interest.name, interest.can_be_prefix, interest.digest)
            self.counters["answered" if wire is not None else "unanswered"] += 1
            return wire

        return answer

    def _provider(self, interest: Interest) -> bytes | None:
        is_key = keys.KEY in names.components(interest.name)
        return self._from(self.certificates if is_key else self.specifications)(interest)

    async def _enrol(self, interest: Interest) -> bytes | None:
        parts = names.components(interest.name[len(self.network.enrol) :])
        try:
            token_id, step = names.text(parts[0]), parts[1]
        except (ValueError, IndexError):
            self.counters["unanswered"] += 1
            return None
        if step == NONCE and len(parts) == 2:
            return await self._give_nonce(token_id, interest.name)
        if step == REQUEST and interest.parameters is not None:
            return await self._judge_request(token_id, interest.name, interest.parameters)
        self.counters["unanswered"] += 1
        return None

    async def _give_nonce(self, token_id: str, name: Name) -> bytes | None:
        nonce = await self._worker(lambda: self._enrolment.nonce(token_id, time.time()))
        if nonce is None:
            self.counters["enrol_unknown"] += 1
            return None
        return self._authority.sign_nonce(name, nonce)

    async def _judge_request(self, token_id: str, name: Name, parameters: bytes) -> bytes | None:
        try:
            request = codec.decode(EnrolRequest, parameters, REQUEST_MAX_BYTES)
        except MessageError:
            self.counters["enrol_malformed"] += 1
            return None
        reply = await self._worker(lambda: self._enrolment.request(token_id, request, time.time()))
        if reply is None:
            self.counters["enrol_unknown"] += 1
            return None
        if reply.certificate:
            self.counters["enrolled"] += 1
            self._on_enrolled(request.node, reply.certificate)
        else:
            self.counters["enrol_refused"] += 1
        return self._authority.sign_reply(name, reply)

    async def fetch_report(self, endpoint: Endpoint, node: str, lifetime_ms: int = REPORT_LIFETIME_MS) -> bytes:
        """The packet with a node's newest report, not yet judged; raises FetchError."""
        packet = await endpoint.express(
            self.network.report(node),
            can_be_prefix=True,
            must_be_fresh=True,
            lifetime_ms=lifetime_ms,
            hint=(self.network.node(node),),
            retries=1,
        )
        return packet.wire
