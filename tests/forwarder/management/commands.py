"""Commands and replies as python-ndn makes and reads them, and a forwarder that is managed."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from typing import Any

from ndn import encoding as reference
from ndn.app_support import nfd_mgmt as nfd
from ndn.security.signer.sha256_digest_signer import DigestSha256Signer

from gateway.forwarder import packet
from gateway.forwarder.management import PREFIX, Management
from gateway.forwarder.packet import Data, decode_data, decode_interest
from gateway.protocol import names
from tests.simulation.network import App, Network, Node

UNIX_MS = 1_700_000_000_000


def command_v2(module: str, verb: str, **parameters: Any) -> bytes:
    """A command with four trailing name components, as `ndn.app` sends it."""
    name = nfd.make_command(module, verb, **parameters)
    return bytes(reference.make_interest(name, reference.InterestParam(nonce=1, lifetime=1000, must_be_fresh=True)))


def command_v3(module: str, verb: str, **parameters: Any) -> bytes:
    """A signed Interest of format 0.3, as `ndn.appv2` sends it."""
    name = nfd.make_command_v2(module, verb, **parameters)
    return signed(name)


def signed(name: Any, signer: Any = None, parameters: bytes = b"") -> bytes:
    """A signed Interest; with a digest, a nonce and a time unless another signer is given."""
    param = reference.InterestParam(nonce=1, lifetime=1000)
    return bytes(reference.make_interest(name, param, parameters, signer or DigestSha256Signer(for_interest=True)))


class Managed:
    """A forwarder with management on it and an application beside; the clock is the network's."""

    def __init__(self, **options: Any) -> None:
        self.network = Network()
        self.node: Node = self.network.node("a")
        self.forwarder = self.node.forwarder
        self.management = Management(
            self.forwarder,
            clock=lambda: self.network.now,
            unix_ms=lambda: UNIX_MS + round(self.network.now * 1000),
            **options,
        )
        self.face = self.node.app(answer=self._answer)
        self.face.local_fields = True  # type: ignore[misc]
        self.forwarder.fib.add(PREFIX, self.face.id, 0, "internal")
        self.app: App = self.node.app()

    def _answer(self, interest: packet.Interest) -> bytes | None:
        """What takes time happens at once here."""
        reply = self.management.on_interest(interest)
        if isinstance(reply, Awaitable):
            return asyncio.run(_awaited(reply))
        return reply

    def send(self, wire: bytes, app: App | None = None) -> Data:
        """The one Data packet that an Interest brings."""
        app = app or self.app
        before = len(app.data)
        app.send(wire)
        self.network.run(0.05)
        assert len(app.data) == before + 1, "no answer"
        return app.data[-1]

    def ask(self, wire: bytes, app: App | None = None) -> dict[str, Any]:
        """The reply to a command, read by the reference library."""
        return nfd.parse_response(self.send(wire, app).content)

    def command(self, module: str, verb: str, **parameters: Any) -> dict[str, Any]:
        return self.ask(command_v3(module, verb, **parameters))

    def fetch_signed(self, uri: str) -> bytes:
        """The one segment of a dataset whose Interest is signed, as some clients sign whatever they send."""
        name = reference.Name.normalize(uri)
        param = reference.InterestParam(nonce=1, lifetime=1000, can_be_prefix=True, must_be_fresh=True)
        wire = reference.make_interest(name, param, b"", DigestSha256Signer(for_interest=True))
        return self.send(bytes(wire)).content

    def fetch(self, uri: str) -> bytes:
        """The content of a dataset, all its segments."""
        name = names.parse(uri) if isinstance(uri, str) else uri
        data = self.send(packet.encode_interest(name, can_be_prefix=True, must_be_fresh=True)[1])
        prefix, content = b"".join(names.components(data.name)[:-1]), data.content
        assert data.final_block is not None
        last = names.last_number(data.final_block, names.SEGMENT)
        for index in range(1, (last or 0) + 1):
            content += self.send(packet.encode_interest(prefix + names.segment(index))[1]).content
        return content

    def hops(self, uri: str) -> list[tuple[int, int]]:
        return [(h.face_id, h.cost) for h in self.forwarder.fib.longest_prefix_match(names.parse(uri))]


async def _awaited(reply: Awaitable[bytes | None]) -> bytes | None:
    return await reply


def answer(management: Management, wire: bytes, face_id: int) -> Data | None:
    """What management says to an Interest that came in by this face, without a network between."""
    interest = decode_interest(wire)
    interest.incoming_face = face_id
    reply = management.on_interest(interest)
    assert reply is None or isinstance(reply, bytes)
    return decode_data(reply) if reply is not None else None
