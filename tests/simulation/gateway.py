"""What makes a simulated node a gateway that carries for others: a certified key, hellos to its neighbours, custody.

Trust, keys, wants and custody are the real ones. The hello is a short one: who is there, its certificate and what it
holds, asked over the link when a face comes up and every HELLO_INTERVAL_S; a link that works one way makes no contact.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import Sequence

from Cryptodome.PublicKey import ECC

from gateway.forwarder.custody import Custody
from gateway.forwarder.custody.wants import Limits
from gateway.forwarder.endpoint import Endpoint, FetchError
from gateway.forwarder.packet import Interest
from gateway.protocol import keys, names
from gateway.protocol.keys import Key, Packet
from gateway.protocol.messages import BlobRef
from gateway.protocol.names import Name
from gateway.protocol.trust import TrustStore
from tests.simulation.link import LinkFace
from tests.simulation.network import UNIX_0, Network
from tests.simulation.node import Node

_YEAR_S = 365 * 86_400.0
HELLO_INTERVAL_S = 10.0
HELLO_LIFETIME_MS = 1000
SILENCES_MAX = 3
ASK = names.HELLO + names.component("ask", names.KEYWORD)
BLOBS_TOLD_MAX = 64
DAY_S = 86_400.0
LIMITS = Limits(lifetime_s=3 * DAY_S, custody_bytes=1 << 30)


def make_gateways(network: Network, nodes: Sequence[str] | None = None, limits: Limits = LIMITS) -> dict[str, Gateway]:
    """Makes gateways of nodes with a disk (all, if none are named), and has contacts follow the links."""
    anchor = _key(network, network.names.anchor)
    anchor_wire = anchor.certify(anchor.name, anchor.spki, UNIX_0 - _YEAR_S, 10 * _YEAR_S, "self")
    controller = _key(network, network.names.controller)
    controller_wire = anchor.certify(controller.name, controller.spki, UNIX_0 - _YEAR_S, 10 * _YEAR_S, "anchor")
    gateways = {}
    for name in nodes if nodes is not None else network.nodes:
        key = _key(network, network.names.node(name))
        wire = controller.certify(key.name, key.spki, UNIX_0 - _YEAR_S, 10 * _YEAR_S, "controller")
        gateways[name] = Gateway(network.nodes[name], key, anchor_wire, [controller_wire, wire], limits)

    def on_contact(node: Node, face: LinkFace) -> None:
        if node.name in gateways:
            gateways[node.name].greet(face)

    network.on_contact = on_contact
    return gateways


def _key(network: Network, identity: Name) -> Key:
    """The same key in every run with the same seed."""
    seed = hashlib.sha256(b"%d %s" % (network.seed, identity)).digest()
    name = identity + keys.KEY + names.component(seed[:8])
    return Key(name, ECC.construct(curve="Ed25519", seed=seed))


class Credentials:
    """Custody's Trust: this node's key and what it believes of others'."""

    def __init__(self, network: names.Network, key: Key, anchor: bytes, certificates: Sequence[bytes]) -> None:
        self._key, self.trust = key, TrustStore(network, anchor)
        for wire in certificates:
            self.trust.add_certificate(wire)
        self._known = set(certificates)

    def sign(self, name: Name, content: bytes, freshness_ms: int | None = None) -> bytes:
        return self._key.sign(name, content, freshness_ms)

    def verify(self, wire: bytes) -> Packet:
        return self.trust.verify(wire)

    def certificate(self, key_name: Name) -> bytes | None:
        return self.trust.certificate(key_name)

    def add_certificate(self, wire: bytes) -> None:
        if wire not in self._known:
            self.trust.add_certificate(wire)
            self._known.add(wire)


class Gateway:
    """One node's hellos and custody; they start again with its power. `clock_error_s` is what its wall clock is off."""

    def __init__(self, node: Node, key: Key, anchor: bytes, certificates: Sequence[bytes], limits: Limits) -> None:
        self.node, self.limits, self.clock_error_s = node, limits, 0.0
        self._key, self._anchor, self._certificates = key, anchor, certificates
        self.boots = 0
        self.contacts = 0
        self._greeting: dict[int, asyncio.Task[None]] = {}
        self.wanted: set[bytes] = set()
        node.on_boot.append(lambda node: self._boot())
        self._boot()

    def _boot(self) -> None:
        node, network = self.node, self.node.network
        self.boots += 1
        self.boot_id, self._booted = f"{node.name}-{self.boots}", network.now
        self._greeting.clear()
        face = node.internal("gateway")
        self.endpoint: Endpoint = face.endpoint
        for prefix in (network.names.wants(node.name), ASK):
            node.forwarder.fib.add(prefix, face.id, 0, "internal")
        self.endpoint.serve(ASK, self._on_asked)
        assert node.directory is not None
        self._credentials = Credentials(network.names, self._key, self._anchor, self._certificates)
        self.custody = Custody(
            node.name,
            network.names,
            self.endpoint,
            node.store,
            self._credentials,
            node.directory / "wants.db",
            self.limits,
            reaches=self._reaches,
            needed=lambda: self.wanted,
            clock=self._clock,
            consumer=node.consumer,
        )
        node.start(self._run())
        for face_of_link in node.to.values():
            if face_of_link.up:
                self.greet(face_of_link)

    def _clock(self) -> tuple[str, float, float]:
        now = self.node.network.now
        return self.boot_id, now - self._booted, UNIX_0 + now + self.clock_error_s

    def _reaches(self, name: str) -> bool:
        hops = self.node.forwarder.fib.longest_prefix_match(self.node.network.names.node(name))
        return any((face := self.node.forwarder.faces.get(hop.face_id)) is not None and face.up for hop in hops)

    async def _run(self) -> None:
        await self.custody.start()
        await self.custody.run()

    def want(self, ref: BlobRef, *holders: str, priority: int = 5) -> None:
        """The node itself wants a blob, as its placement client would say when no holder could be reached."""
        self.wanted.add(ref.sha256)
        self.custody.want(ref, holders, priority)

    # --- hellos

    def _on_asked(self, interest: Interest) -> bytes:
        blobs = [sha256.hex() for sha256 in self.told()]
        said = {
            "node": self.node.name,
            "boot": self.boot_id,
            "blobs": blobs,
            "certificate": self._certificates[-1].hex(),
        }
        return keys.sign_data(interest.name, json.dumps(said).encode())

    def told(self) -> list[bytes]:
        """The beginnings of the SHA-256 of blobs held whole or in part."""
        return [sha256[:8] for sha256 in self.node.store.held()[:BLOBS_TOLD_MAX]]

    def greet(self, face: LinkFace) -> None:
        """Asks the neighbour who it is, at once and from time to time."""
        running = self._greeting.get(face.id)
        if running is not None:
            running.cancel()
        self._greeting[face.id] = self.node.start(self._greet(face))

    async def _greet(self, face: LinkFace) -> None:
        """Ends when the neighbour has been silent for long; a new contact begins it anew."""
        silences, is_new = 0, True
        loop = asyncio.get_running_loop()
        while silences < SILENCES_MAX and face.up:
            name = ASK + names.component(self.node.network.random.randbytes(8))
            asked_at = loop.time()
            try:
                answer = await self.endpoint.express(name, next_hop_face=face.id, lifetime_ms=HELLO_LIFETIME_MS)
            except FetchError:
                silences += 1
                await asyncio.sleep(max(0.1, asked_at + HELLO_LIFETIME_MS / 1000 - loop.time()))
                continue
            silences = 0
            said = json.loads(answer.content)
            self.contacts += 1
            self._credentials.add_certificate(bytes.fromhex(said["certificate"]))
            if is_new:
                self.node.consumer.nudge()
            is_new = False
            self.node.forwarder.fib.add(self.node.network.names.node(said["node"]), face.id, 1, "hello")
            self.custody.on_hello(face.id, said["node"], said["boot"], [bytes.fromhex(b) for b in said["blobs"]])
            await asyncio.sleep(HELLO_INTERVAL_S)
        self.node.forwarder.fib.remove(self.node.network.names.node(face.neighbor), face.id, "hello")
        self.custody.on_silence(face.id)
