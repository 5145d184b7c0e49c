"""Ed25519 keys and the Data packets they sign. Certificates follow the NDN certificate format (version 2).

The cryptographic libraries are loaded with the first key: a plain forwarder, which has none, is 5 MB smaller for it.
"""

from __future__ import annotations

import hashlib
import os
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ndn.encoding import ContentType, DecodeError, MetaInfo, SignatureType, make_data, parse_and_check_tl, parse_data

from gateway.protocol import names
from gateway.protocol.errors import TrustError
from gateway.protocol.names import Name, non_negative, tlv

if TYPE_CHECKING:
    from Cryptodome.PublicKey.ECC import EccKey
    from ndn.security.signer.ed25519_signer import Ed25519Signer

KEY = names.component("KEY")
PACKET_MAX_BYTES = 8800
_DATA, _NAME, _META_INFO, _CONTENT, _SIGNATURE_VALUE = 0x06, 0x07, 0x14, 0x15, 0x17
_FRESHNESS, _FINAL_BLOCK = 0x19, 0x1A
_DIGEST_SIGNATURE_INFO = b"\x16\x03\x1b\x01\x00"
# What python-ndn lets through on hostile bytes.
_UNDECODABLE = (DecodeError, ValueError, IndexError, TypeError, AttributeError, OverflowError, struct.error)


@dataclass(frozen=True, slots=True)
class Packet:
    """A decoded Data packet; `key_name` is its KeyLocator, None when it bears a digest only."""

    name: Name
    content: bytes
    content_type: int
    key_name: Name | None
    signature: bytes
    signed: bytes
    wire: bytes

    @property
    def digest(self) -> bytes:
        """The implicit digest."""
        return hashlib.sha256(self.wire).digest()


def parse(wire: bytes) -> Packet:
    """The Data packet in `wire`; raises TrustError when it is none or larger than a packet may be."""
    if len(wire) > PACKET_MAX_BYTES:
        raise TrustError(f"a Data packet of {len(wire)} bytes, at most {PACKET_MAX_BYTES} are accepted")
    try:
        packet, signature_type = _read(wire)
    except _UNDECODABLE as error:
        raise TrustError(f"not a Data packet: {error}") from error
    if packet.key_name is not None and signature_type != SignatureType.ED25519:
        uri = names.to_uri(packet.name)
        raise TrustError(f"{uri} has signature type {signature_type}, Ed25519 (5) is accepted")
    return packet


def _read(wire: bytes) -> tuple[Packet, int | None]:
    name, meta, content, pointers = parse_data(wire)
    info, key_name = pointers.signature_info, None
    if info is not None and info.key_locator is not None and info.key_locator.name:
        key_name = b"".join(bytes(c) for c in info.key_locator.name)
        names.components(key_name)  # python-ndn takes components that are longer than their name
    packet = Packet(
        b"".join(bytes(c) for c in name),
        bytes(content) if content is not None else b"",
        meta.content_type or 0,
        key_name,
        bytes(pointers.signature_value_buf or b""),
        b"".join(bytes(part) for part in pointers.signature_covered_part or ()),
        bytes(wire),
    )
    names.components(packet.name)
    # python-ndn takes elements that are cut short, and ignores what stands outside of the signature
    if packet.wire != names.tlv(_DATA, packet.signed + names.tlv(_SIGNATURE_VALUE, packet.signature)):
        raise ValueError("there is more or less than the signed part and its signature")
    return packet, info.signature_type if info is not None else None


class PublicKey:
    """A key that checks; `name` is its NDN key name (`<identity>/KEY/<id>`)."""

    def __init__(self, name: Name, spki: bytes) -> None:
        from Cryptodome.PublicKey import ECC
        from Cryptodome.Signature import eddsa

        try:
            self._key = ECC.import_key(spki)
            self._scheme = eddsa.new(self._key, "rfc8032")
        except (ValueError, IndexError, TypeError) as error:
            raise TrustError(f"{names.to_uri(name)}: not an Ed25519 public key: {error}") from error
        self.name, self.spki = name, spki

    def verifies(self, packet: Packet) -> bool:
        try:
            self._scheme.verify(packet.signed, packet.signature)
        except ValueError:
            return False
        return True


class Key:
    """A private key with its NDN key name; it signs Data below the identity that the trust rules give it."""

    def __init__(self, name: Name, key: EccKey) -> None:
        from ndn.security.signer.ed25519_signer import Ed25519Signer

        self.name, self._key = name, key
        self.spki = key.public_key().export_key(format="DER")
        self._signer = Ed25519Signer(names.components(name), key.export_key(format="DER"))

    @classmethod
    def generate(cls, identity: Name) -> Key:
        from Cryptodome.PublicKey import ECC

        key = ECC.generate(curve="Ed25519")
        key_id = hashlib.sha256(key.public_key().export_key(format="DER")).digest()[:8]
        return cls(identity + KEY + names.component(key_id), key)

    @classmethod
    def load(cls, path: Path) -> Key:
        """The key in `path`; raises OSError or TrustError, which name the file."""
        text = path.read_text()  # who has no key needs no library for it

        from Cryptodome.PublicKey import ECC

        name, _, pem = text.partition("\n")
        try:
            return cls(names.parse(name.removeprefix("Name: ")), ECC.import_key(pem))
        except (ValueError, IndexError, TypeError) as error:
            raise TrustError(f"{path}: not a key file: {error}") from error

    def save(self, path: Path) -> None:
        """Writes the key, readable by its owner only; raises FileExistsError rather than replace one."""
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(handle, "w") as file:
            file.write(f"Name: {names.to_uri(self.name)}\n{self._key.export_key(format='PEM')}\n")
            file.flush()
            os.fsync(file.fileno())

    @property
    def identity(self) -> Name:
        return identity_of(self.name)

    def sign(
        self, name: Name, content: bytes, freshness_ms: int | None = None, final_block: bytes | None = None
    ) -> bytes:
        """A Data packet of `content`, at most 8,800 bytes long; `final_block` is the component of the last segment."""
        return sign_data(name, content, freshness_ms, self._signer, final_block)

    def certify(self, key_name: Name, spki: bytes, issued: float, lifetime_s: float, issuer: str) -> bytes:
        """A certificate of another key (or of this one, the anchor); `issued` is Unix time."""
        from datetime import UTC, datetime

        from ndn.app_support.security_v2 import derive_cert

        start = datetime.fromtimestamp(issued, UTC)
        _, wire = derive_cert(names.components(key_name), issuer, spki, self._signer, start, int(lifetime_s))
        return bytes(wire)


def sign_data(
    name: Name,
    content: bytes,
    freshness_ms: int | None = None,
    signer: Ed25519Signer | None = None,
    final_block: bytes | None = None,
) -> bytes:
    """A Data packet with the signer's signature, with a digest when there is none."""
    if signer is None:
        wire = _with_digest(name, content, freshness_ms, final_block)
    else:
        meta = MetaInfo(content_type=None, freshness_period=freshness_ms, final_block_id=final_block)
        wire = bytes(make_data(names.components(name), meta, content, signer))
    if len(wire) > PACKET_MAX_BYTES:
        raise ValueError(f"{names.to_uri(name)}: a packet of {len(wire)} bytes, at most {PACKET_MAX_BYTES} travel")
    return wire


def _with_digest(name: Name, content: bytes, freshness_ms: int | None, final_block: bytes | None) -> bytes:
    """Data that is signed with the digest of what it is."""
    names.components(name)
    meta_info = b"" if freshness_ms is None else tlv(_FRESHNESS, non_negative(freshness_ms))
    meta_info += b"" if final_block is None else tlv(_FINAL_BLOCK, final_block)
    signed = tlv(_NAME, name) + tlv(_META_INFO, meta_info) + tlv(_CONTENT, content) + _DIGEST_SIGNATURE_INFO
    return tlv(_DATA, signed + tlv(_SIGNATURE_VALUE, hashlib.sha256(signed).digest()))


def identity_of(key_name: Name) -> Name:
    """The identity of a key name `<identity>/KEY/<id>` or of a certificate name; raises TrustError when it is none."""
    parts = names.components(key_name)
    if KEY not in parts:
        raise TrustError(f"{names.to_uri(key_name)} is no key name")
    return b"".join(parts[: parts.index(KEY)])


def key_name_of(name: Name) -> Name:
    """The key name `<identity>/KEY/<id>` at the start of a certificate name; raises TrustError when there is none."""
    parts = names.components(name)
    if KEY not in parts or parts.index(KEY) + 1 >= len(parts):
        raise TrustError(f"{names.to_uri(name)} is no certificate name")
    return b"".join(parts[: parts.index(KEY) + 2])


def validity(certificate: bytes) -> tuple[float, float]:
    """Not-before and not-after of a certificate in Unix time; raises TrustError when it has none."""
    from datetime import UTC, datetime

    from ndn.app_support.security_v2 import CertificateV2Value

    try:
        period = CertificateV2Value.parse(parse_and_check_tl(certificate, 6)).signature_info.validity_period
        return tuple(  # type: ignore[return-value]
            datetime.strptime(bytes(text).decode(), "%Y%m%dT%H%M%S").replace(tzinfo=UTC).timestamp()
            for text in (period.not_before, period.not_after)
        )
    except _UNDECODABLE as error:
        raise TrustError(f"a certificate without a readable validity period: {error}") from error


def is_certificate(packet: Packet) -> bool:
    return packet.content_type == int(ContentType.KEY)
