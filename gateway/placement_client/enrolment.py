"""The gateway's side of enrolment: from the owner's token to a certificate of this node's own key.

The token names the network, its anchor by hash, and a secret that never travels: the node proves that it knows it with
an HMAC over the controller's nonce, its name and its public key. Nothing that comes back is believed unsigned.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import random
from collections.abc import Awaitable, Callable
from pathlib import Path

from gateway.files import forget_token
from gateway.placement_client.identity import Identity, IdentityStore
from gateway.placement_client.notices import Notices
from gateway.placement_client.pacing import Backoff
from gateway.placement_client.ports import Endpoint
from gateway.protocol import codec, keys, names
from gateway.protocol.errors import ProtocolError, TrustError, UnknownKey
from gateway.protocol.keys import Key, Packet
from gateway.protocol.messages import EnrolReply, EnrolRequest
from gateway.protocol.names import Name
from gateway.protocol.trust import Token, TrustStore, enrol_proof

log = logging.getLogger(__name__)

LIFETIME_MS = 4000
REPLY_LIFETIME_MS = 10_000  # the controller signs a certificate and writes it to its database meanwhile
MAX_CHAIN = 3


class EnrolmentRefused(Exception):
    """The token cannot be used here, or the controller refuses it; the text says why in words for the owner."""


class Enrolment:
    """One node's way into its network; `state` says how far it is, `run()` goes on until it is in.

    `revocation_of` tells of a member's key by which head it is revoked; the token then makes a new key.
    """

    def __init__(
        self,
        store: IdentityStore,
        endpoint: Endpoint,
        token: str,
        config: Path | None,
        *,
        unreachable: tuple[type[Exception], ...],
        forget_as_root: Callable[[], Awaitable[None]] | None = None,
        revocation_of: Callable[[Name], Awaitable[str]] | None = None,
        chance: random.Random | None = None,
        pause_s: tuple[float, float] = (2.0, 300.0),
        refused_pause_s: tuple[float, float] = (30.0, 3600.0),
    ) -> None:
        self._store, self._endpoint, self._text, self._config = store, endpoint, token, config
        self._unreachable: tuple[type[Exception], ...] = (*unreachable, OSError)
        self._forget_as_root, self._revocation_of = forget_as_root, revocation_of
        chance = chance or random.Random()
        self._backoff, self._refused = Backoff(chance, *pause_s), Backoff(chance, *refused_pause_s)
        self.state = "waiting for the controller"
        self._notices = Notices(log)

    async def run(self) -> Identity:
        """The identity, once there is one: tried again while nobody answers, and rarely while it is refused."""
        while True:
            try:
                return await self.attempt()
            except EnrolmentRefused as error:
                self._say(f"refused: {error}")
                await asyncio.sleep(self._refused.failed())
            except ProtocolError as error:
                self._say(f"an answer was not accepted: {error}")
                await asyncio.sleep(self._backoff.failed())
            except self._unreachable as error:
                self._notices.tell("enrolment", f"waiting for the controller: {error}", expected_at_start=True)
                self.state = f"waiting for the controller: {error}"
                await asyncio.sleep(self._backoff.failed())

    async def attempt(self) -> Identity:
        """One whole attempt; raises EnrolmentRefused, ProtocolError for a bad answer, or an `unreachable` error."""
        present = self._store.load()
        token = self._read_token(present)
        if present is not None and (reason := await self._revocation(present)):
            log.warning("enrolment: the key is %s; the token makes a new one", reason)
            await asyncio.to_thread(self._store.retire)
            present = None
        if present is None:
            trust = TrustStore(self._store.network, await self._fetch_anchor(token))
            key = await asyncio.to_thread(self._store.make_key)
            certificate = await self._request(token, key, trust)
            present = Identity(self._store.node, key, certificate, trust)
            await asyncio.to_thread(self._store.save, present)
        await self._wipe_token()
        self.state = "enrolled"
        return present

    async def _revocation(self, present: Identity) -> str:
        if self._revocation_of is None:
            return ""
        self.state = "enrolled; the controller is asked whether the token is needed"
        return await self._revocation_of(present.key.name)

    def _say(self, state: str) -> None:
        self._notices.tell("enrolment", state)
        self.state = state

    def _read_token(self, present: Identity | None) -> Token:
        try:
            token = Token.parse(self._text)
        except ValueError as error:
            raise EnrolmentRefused(str(error)) from error
        if token.network != self._store.network.uri:
            raise EnrolmentRefused(
                f"the token is for network {token.network}, but option network is {self._store.network.uri}"
            )
        anchor = present.trust.anchor_wire if present is not None else self._store.load_anchor()
        if anchor is not None and hashlib.sha256(anchor).digest() != token.anchor_sha256:
            raise EnrolmentRefused(
                f"this node already trusts another anchor than the token's; to join the other network, move "
                f"{self._store.directory / 'anchor.ndn'}, identity.key and identity.ndn away"
            )
        return token

    async def _fetch_anchor(self, token: Token) -> bytes:
        """The anchor that the token names by hash, from disk or from anybody who has it."""
        anchor = self._store.load_anchor()
        if anchor is not None:
            return anchor
        self.state = "fetching the network's anchor"
        name = self._store.network.anchor + keys.KEY
        # A cache may hold something else below this name; only the second Interest gets past it.
        for must_be_fresh in (False, True):
            packet = await self._endpoint.express(
                name, can_be_prefix=True, must_be_fresh=must_be_fresh, lifetime_ms=LIFETIME_MS
            )
            if hashlib.sha256(packet.wire).digest() == token.anchor_sha256:
                return packet.wire
        found = keys.parse(packet.wire)
        raise TrustError(f"{names.to_uri(found.name)} is not the anchor that the token names by its hash")

    async def _request(self, token: Token, key: Key, trust: TrustStore) -> bytes:
        """The new certificate of `key`; raises EnrolmentRefused with the controller's reason."""
        self.state = "asking the controller for a certificate"
        place, node = self._store.network.enrol + names.component(token.id), self._store.node
        name = place + names.component("nonce")
        nonce = await self._ask(trust, name, lifetime_ms=LIFETIME_MS)
        proof = enrol_proof(token.secret, nonce.content, node, key.spki)
        request = codec.encode(EnrolRequest(node, key.spki, nonce.content, proof))
        name = place + names.component("request")
        answer = await self._ask(trust, name, lifetime_ms=REPLY_LIFETIME_MS, parameters=request)
        reply = codec.decode(EnrolReply, answer.content)
        if reply.refusal:
            raise EnrolmentRefused(reply.refusal)
        self._store.check_certificate(reply.certificate, key, trust)
        return reply.certificate

    async def _ask(self, trust: TrustStore, name: Name, *, lifetime_ms: int, parameters: bytes | None = None) -> Packet:
        """What the controller says under `name`, verified."""
        answer = await self._endpoint.express(name, must_be_fresh=True, lifetime_ms=lifetime_ms, parameters=parameters)
        packet = await self._proven(trust, answer.wire)
        if not packet.name.startswith(name):
            raise TrustError(f"{names.to_uri(packet.name)} is no answer to {names.to_uri(name)}")
        return packet

    async def _proven(self, trust: TrustStore, wire: bytes) -> Packet:
        for _ in range(MAX_CHAIN):
            try:
                return trust.verify(wire)
            except UnknownKey as error:
                answer = await self._endpoint.express(error.key_name, can_be_prefix=True, lifetime_ms=LIFETIME_MS)
                trust.add_certificate(answer.wire)
        return trust.verify(wire)

    async def _wipe_token(self) -> None:
        """Takes the spent token out of the configuration file, or has it done by who may."""
        if self._config is None:
            return
        try:
            await asyncio.to_thread(forget_token, self._config)
            return
        except PermissionError as error:
            reason: Exception = error
        except (OSError, ValueError) as error:
            reason = error
        if isinstance(reason, PermissionError) and self._forget_as_root is not None:
            try:
                await self._forget_as_root()
                return
            except self._unreachable as error:
                reason = error
        self._store.problems[str(self._config)] = f"the spent token could not be removed, do it by hand: {reason}"
        log.warning("%s: the spent token could not be removed, do it by hand: %s", self._config, reason)
