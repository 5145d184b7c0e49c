"""Enrolment: a node that holds a token gets its certificate, once.

The node asks for a nonce, then sends its public key with an HMAC over key, name and nonce, keyed with the token's
secret. Whoever listens learns the token's id but no secret; whoever repeats a request repeats the same certificate.
"""

from __future__ import annotations

import hmac
import secrets
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

from gateway.protocol import trust
from gateway.protocol.errors import TrustError
from gateway.protocol.messages import EnrolReply, EnrolRequest

SECRET_BYTES = 16
NONCE_BYTES = 16
NONCE_LIFETIME_S = 60.0
# Retransmissions of one node use a few; whoever asks for more displaces only nonces of the same token.
NONCES_PER_TOKEN = 8
# Ids are visible on the way, so anybody may try; nobody should try often, and nobody can lock a token.
ATTEMPTS_PER_TOKEN, TOKEN_REFILL_PER_S = 5.0, 0.5
# Every attempt costs a look into the database; this much of the worker thread may go there.
ATTEMPTS_IN_ALL, REFILL_IN_ALL_PER_S = 200.0, 100.0
# Buckets and nonces exist only for tokens that exist; the cap is for an operator who gives out very many.
TOKENS_TRACKED = 4096


class Token(Protocol):
    """A token as the database keeps it; `used` is Unix time, None while it is unspent."""

    id: str
    node: str
    secret: bytes
    expires: float
    used: float | None
    public_key: bytes | None


class TokenStore(Protocol):
    def token(self, token_id: str) -> Token | None: ...
    def use_token(self, token_id: str, public_key: bytes, certificate: bytes, now: float) -> bool: ...


@dataclass(slots=True)
class TokenBucket:
    """Allows `capacity` events at once and `refill_per_s` in the long run."""

    capacity: float
    refill_per_s: float
    level: float = field(init=False)
    updated: float = 0.0

    def __post_init__(self) -> None:
        self.level = self.capacity

    def take(self, now: float) -> bool:
        self.level = min(self.capacity, self.level + max(0.0, now - self.updated) * self.refill_per_s)
        self.updated = now
        if self.level < 1.0:
            return False
        self.level -= 1.0
        return True


@dataclass(slots=True)
class _Attempts:
    bucket: TokenBucket
    nonces: dict[bytes, float] = field(default_factory=dict)


class Enrolment:
    """Answers enrolment requests; `certify(node, spki, now)` issues. Calls block, `now` is Unix time."""

    def __init__(self, tokens: TokenStore, certify: Callable[[str, bytes, float], bytes]) -> None:
        self._tokens, self._certify = tokens, certify
        self._attempts: dict[str, _Attempts] = {}
        self._all = TokenBucket(ATTEMPTS_IN_ALL, REFILL_IN_ALL_PER_S)

    def nonce(self, token_id: str, now: float) -> bytes | None:
        """A fresh nonce for one request; None for a token that does not exist, or when too many ask."""
        if not self._all.take(now) or self._tokens.token(token_id) is None:
            return None
        nonces = self._state(token_id, now).nonces
        for old in [n for n, expires in nonces.items() if expires < now]:
            del nonces[old]
        while len(nonces) >= NONCES_PER_TOKEN:
            del nonces[next(iter(nonces))]
        fresh = secrets.token_bytes(NONCE_BYTES)
        nonces[fresh] = now + NONCE_LIFETIME_S
        return fresh

    def request(self, token_id: str, request: EnrolRequest, now: float) -> EnrolReply | None:
        """The certificate, or a refusal with its reason; None for a token that does not exist."""
        token = self._tokens.token(token_id)
        if token is None:
            return None
        state = self._state(token_id, now)
        if not state.bucket.take(now):
            return EnrolReply(refusal="too many attempts with this token; try again in a minute")
        if state.nonces.pop(request.nonce, 0.0) < now:
            return EnrolReply(refusal="the nonce is not one that was given out for this token, was used or is too old")
        proof = trust.enrol_proof(token.secret, request.nonce, request.node, request.public_key)
        if not hmac.compare_digest(proof, request.proof):
            return EnrolReply(refusal="the proof does not fit the token")
        return self._grant(token, request, now)

    def _grant(self, token: Token, request: EnrolRequest, now: float) -> EnrolReply:
        if request.node != token.node:
            return EnrolReply(refusal=f"the token is for node {token.node!r}, not for {request.node!r}")
        if token.used is not None and token.public_key != request.public_key:
            return EnrolReply(refusal=f"the token of node {token.node!r} was used already; make a new one")
        if token.used is None and token.expires < now:
            return EnrolReply(refusal=f"the token of node {token.node!r} has expired; make a new one")
        try:
            certificate = self._certify(token.node, request.public_key, now)
        except TrustError as error:
            return EnrolReply(refusal=str(error))
        # The same key again is the same node whose first reply was lost: it gets its certificate anew.
        if token.used is None and not self._tokens.use_token(token.id, request.public_key, certificate, now):
            return EnrolReply(refusal=f"the token of node {token.node!r} was used already; make a new one")
        return EnrolReply(certificate=certificate)

    def _state(self, token_id: str, now: float) -> _Attempts:
        state = self._attempts.pop(token_id, None)
        if state is None:
            bucket = TokenBucket(ATTEMPTS_PER_TOKEN, TOKEN_REFILL_PER_S, updated=now)
            state = _Attempts(bucket)
        self._attempts[token_id] = state
        while len(self._attempts) > TOKENS_TRACKED:
            del self._attempts[next(iter(self._attempts))]
        return state
