"""Who may say what in a network: the rules as a table, and the store of certificates that applies them.

Every signed packet is checked against one row: the pattern of its name, and the pattern of the identities that may
sign it. `<x>` matches one component and must be the same on both sides, `*` any rest.
"""

from __future__ import annotations

import hashlib
import hmac
from dataclasses import dataclass

from gateway.protocol import keys, names
from gateway.protocol.errors import TrustError, UnknownKey
from gateway.protocol.keys import Packet, PublicKey
from gateway.protocol.names import Name

# name pattern, identities that may sign it; below the network prefix unless it starts with "/"
RULES: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("KEY/*", ("",)),
    ("provider/<p>/KEY/*", ("",)),
    ("controller/KEY/*", ("",)),
    ("node/<n>/KEY/*", ("", "controller")),
    ("provider/<p>/service/*", ("provider/<p>",)),
    ("controller/head/*", ("controller",)),
    ("controller/enrol/*", ("controller",)),
    ("node/<n>/*", ("node/<n>",)),
    ("/localhop/picasso/hello/<n>/*", ("node/<n>",)),
)


class TrustStore:
    """The anchor, the certificates verified so far, and the keys revoked; nothing here reads a clock or a file.

    `anchor` is the anchor's self-signed certificate. Its hash came from the owner, or it was made here.
    """

    def __init__(self, network: names.Network, anchor: bytes) -> None:
        self.network = network
        packet = keys.parse(anchor)
        self._anchor = _public_key(packet)
        if keys.identity_of(self._anchor.name) != network.prefix:
            raise TrustError(f"{names.to_uri(packet.name)} is not the anchor of {network.uri}: that is another's name")
        if not self._anchor.verifies(packet):
            raise TrustError(f"{names.to_uri(packet.name)} is not the anchor of {network.uri}: not signed by itself")
        self.anchor_wire = anchor
        self._keys: dict[Name, PublicKey] = {self._anchor.name: self._anchor}
        self._certificates: dict[Name, bytes] = {self._anchor.name: anchor}
        self.revoked: frozenset[bytes] = frozenset()

    @property
    def certificates(self) -> list[bytes]:
        """The anchor and every certificate accepted, to be served and stored."""
        return list(self._certificates.values())

    def certificate(self, key_name: Name) -> bytes | None:
        """The certificate of a key, if it was accepted."""
        return self._certificates.get(key_name)

    def add_certificate(self, wire: bytes, now: float | None = None) -> Packet:
        """Accepts a certificate that a known key issued; raises TrustError, or UnknownKey to fetch the issuer's first.

        `now` is Unix time, None where the clock is not trusted: then expiry is not judged.
        """
        packet = self.verify(wire)
        if not keys.is_certificate(packet):
            raise TrustError(f"{names.to_uri(packet.name)} is not a certificate")
        start, end = keys.validity(wire)
        if now is not None and not start <= now <= end:
            raise TrustError(f"{names.to_uri(packet.name)} is not valid at this time (from {start:.0f} to {end:.0f})")
        public = _public_key(packet)
        self._keys[public.name] = public
        self._certificates[public.name] = wire
        return packet

    def verify(self, wire: bytes) -> Packet:
        """The packet, if a key that may say this signed it; raises TrustError with the reason, UnknownKey to fetch."""
        packet = keys.parse(wire)
        uri = names.to_uri(packet.name)
        if packet.key_name is None:
            raise TrustError(f"{uri} bears no signature by a key")
        key_name = keys.key_name_of(packet.key_name)
        signer = keys.identity_of(key_name)
        if not may_sign(self.network, packet.name, signer):
            raise TrustError(f"{uri}: {names.to_uri(signer)} may not say this")
        if hashlib.sha256(key_name).digest() in self.revoked:
            raise TrustError(f"{uri}: its key {names.to_uri(key_name)} is revoked")
        public = self._keys.get(key_name)
        if public is None:
            raise UnknownKey(key_name, f"{uri}: the certificate of {names.to_uri(key_name)} is not known")
        if not public.verifies(packet):
            raise TrustError(f"{uri}: the signature is wrong")
        return packet


def may_sign(network: names.Network, name: Name, signer: Name) -> bool:
    """Whether the table lets the identity `signer` sign `name`: the first row that fits the name decides.

    Components are compared as they travel, so that no other spelling of a name passes for it.
    """
    parts, identity = _below(network.prefix, name), _below(network.prefix, signer)
    if identity is None:
        return False
    for pattern, signers in RULES:
        fits = names.components(name) if pattern.startswith("/") else parts
        bound = None if fits is None else _match(pattern, fits)
        if bound is not None:
            return any(_match(allowed, identity, bound) is not None for allowed in signers)
    return False


def _below(prefix: Name, name: Name) -> list[bytes] | None:
    return names.components(name[len(prefix) :]) if name.startswith(prefix) else None


def _match(pattern: str, parts: list[bytes], bound: dict[str, bytes] | None = None) -> dict[str, bytes] | None:
    """What the pattern's variables stand for in the name, None when it does not fit or contradicts `bound`."""
    items, bound = [item for item in pattern.split("/") if item], dict(bound or {})
    for index, item in enumerate(items):
        if item == "*":
            return bound
        if index >= len(parts):
            return None
        expected = bound.setdefault(item, parts[index]) if item.startswith("<") else names.component(item)
        if expected != parts[index]:
            return None
    return bound if len(parts) == len(items) else None


def _public_key(packet: Packet) -> PublicKey:
    return PublicKey(keys.key_name_of(packet.name), packet.content)


# --- enrolment -----------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Token:
    """What an owner types once to join: `<network>.<id>.<secret>.<sha256 of the anchor>`, the last two in hex."""

    network: str
    id: str
    secret: bytes
    anchor_sha256: bytes

    @classmethod
    def parse(cls, text: str) -> Token:
        parts = text.strip().rsplit(".", 3)
        try:
            network, token_id, secret, anchor = parts[0], parts[1], bytes.fromhex(parts[2]), bytes.fromhex(parts[3])
        except (ValueError, IndexError) as error:
            raise ValueError("a token has four parts with dots between: network, id, secret, hash") from error
        if len(secret) < 16 or len(anchor) != 32 or not network.startswith("/"):
            raise ValueError("the token is damaged: its network, secret or hash has the wrong form")
        return cls(network, token_id, secret, anchor)

    def format(self) -> str:
        return f"{self.network}.{self.id}.{self.secret.hex()}.{self.anchor_sha256.hex()}"

    def __repr__(self) -> str:
        return f"Token({self.network!r}, {self.id!r}, …)"


def enrol_proof(secret: bytes, nonce: bytes, node: str, public_key: bytes) -> bytes:
    """What shows that the sender holds the token's secret; bound to the controller's nonce, the name and the key."""
    text = b"picasso-enrol\0" + nonce + b"\0" + node.encode() + b"\0" + public_key
    return hmac.new(secret, text, hashlib.sha256).digest()
