"""What the state directory knows of this node: its network's anchor, its key, its certificates, its count of boots.

A file that cannot be used is named in `problems` and left where it is: nothing here raises for it or replaces it.
"""

from __future__ import annotations

import hashlib
import logging
import os
from dataclasses import dataclass
from pathlib import Path

from gateway.files import replace_file, set_aside, sync_directory
from gateway.protocol import keys, names
from gateway.protocol.errors import TrustError, UnknownKey
from gateway.protocol.keys import Key, Packet
from gateway.protocol.trust import TrustStore

log = logging.getLogger(__name__)

# The controllers and providers of one network and their predecessors; each certificate is about 400 bytes.
MAX_CERTIFICATES = 256


@dataclass(frozen=True, slots=True)
class Identity:
    """A node that belongs to a network: the key it signs with, the certificate of that key, and what it trusts."""

    node: str
    key: Key
    certificate: bytes
    trust: TrustStore


class IdentityStore:
    """The files of one state directory; `problems` maps the name of a file to what is wrong with it."""

    def __init__(self, directory: Path, network: names.Network, node: str) -> None:
        self.directory, self.network, self.node = directory, network, node
        self.problems: dict[str, str] = {}

    def load(self) -> Identity | None:
        """The identity on disk; None when the node is not enrolled or a file is damaged (see `problems`)."""
        self.problems.clear()
        trust, key = self._load_trust(), self.load_key()
        certificate = self._read("identity.ndn")
        if trust is None or key is None or certificate is None:
            return None
        try:
            self.check_certificate(certificate, key, trust)
        except UnknownKey as error:
            # Its issuer's certificate is lost; the node is a member all the same, and others will fetch that one.
            log.warning("%s: %s", self.directory / "identity.ndn", error)
        except TrustError as error:
            self._report("identity.ndn", str(error))
            return None
        return Identity(self.node, key, certificate, trust)

    def load_anchor(self) -> bytes | None:
        """The network's trust anchor; None when there is none or it is damaged."""
        wire = self._read("anchor.ndn")
        try:
            if wire is not None:
                TrustStore(self.network, wire)
        except TrustError as error:
            self._report("anchor.ndn", str(error))
            return None
        return wire

    def load_key(self) -> Key | None:
        """The node's private key; None when there is none or it cannot be used."""
        path = self.directory / "identity.key"
        try:
            key = Key.load(path)
        except FileNotFoundError:
            return None
        except (OSError, TrustError, UnicodeDecodeError) as error:
            self._report(path.name, str(error))
            return None
        if key.identity != self.network.node(self.node):
            self._report(path.name, f"is the key of {names.to_uri(key.identity)}, not of node {self.node!r}")
            return None
        return key

    def check_certificate(self, wire: bytes, key: Key, trust: TrustStore) -> Packet:
        """Accepts the node's certificate into `trust`; raises TrustError when it is not for this key and node."""
        packet = keys.parse(wire)
        if keys.key_name_of(packet.name) != key.name or packet.content != key.spki:
            raise TrustError(f"{names.to_uri(packet.name)} does not certify this node's key {names.to_uri(key.name)}")
        return trust.add_certificate(wire)

    def make_key(self) -> Key:
        """The key on disk, or a new one written there; one that cannot be used is set aside first. Raises OSError."""
        key, path = self.load_key(), self.directory / "identity.key"
        if key is not None:
            return key
        self._make_directory(self.directory)
        if path.exists():
            self._report(path.name, f"{self.problems.get(path.name, 'cannot be used')}; kept as {set_aside(path).name}")
        key = Key.generate(self.network.node(self.node))
        temporary = self.directory / f".identity.key.{os.getpid()}.new"
        temporary.unlink(missing_ok=True)
        key.save(temporary)
        temporary.rename(path)
        sync_directory(self.directory)
        return key

    def retire(self) -> None:
        """Sets a revoked key and its certificate aside, so that the next key is a new one. Raises OSError.

        The key goes first: a certificate alone makes no member, but a key alone would be certified again.
        """
        for name in ("identity.key", "identity.ndn"):
            if (self.directory / name).exists():
                set_aside(self.directory / name, "revoked")
        sync_directory(self.directory)

    def save(self, identity: Identity) -> None:
        """Writes what makes the node a member; its own certificate comes last, because it says `enrolled`."""
        self._make_directory(self.directory)
        self.save_certificates(identity.trust.certificates)
        self._replace("anchor.ndn", identity.trust.anchor_wire)
        self._replace("identity.ndn", identity.certificate)

    def _replace(self, name: str, content: bytes) -> None:
        """Writes a file anew; another content that was there is kept under another name."""
        path = self.directory / name
        if path.exists() and self._read(name) != content:
            kept = set_aside(path)
            self._report(name, f"{self.problems.get(name, 'belonged to another identity')}; kept as {kept.name}")
        replace_file(path, content, 0o644)

    def save_certificates(self, certificates: list[bytes]) -> None:
        """Keeps certificates of others for the next start; those already there are not written again."""
        directory = self.directory / "certificates"
        self._make_directory(directory)
        present = {path.name for path in directory.iterdir()}
        for wire in certificates:
            name = hashlib.sha256(wire).hexdigest() + ".ndn"
            if name not in present and len(present) < MAX_CERTIFICATES:
                replace_file(directory / name, wire, 0o644)
                present.add(name)

    def next_boot(self, now: float) -> int:
        """A number greater than at every start before, for signed Interests; raises OSError when it cannot be kept.

        A damaged counter goes on from `now` (Unix time), which no count of boots reaches.
        """
        path, count = self.directory / "boot_counter", 0
        text = self._read(path.name)
        if text is not None:
            try:
                count = int(text)
            except ValueError:
                count = int(now)
                self._report(path.name, f"{text[:20]!r} is no number; kept as {set_aside(path).name}")
        self._make_directory(self.directory)
        replace_file(path, b"%d\n" % (count + 1))
        return count + 1

    def _load_trust(self) -> TrustStore | None:
        anchor = self.load_anchor()
        if anchor is None:
            return None
        trust = TrustStore(self.network, anchor)
        pending = self._stored_certificates()
        while pending:
            refused = {name: reason for name, wire in pending.items() if (reason := _refusal(trust, wire))}
            if len(refused) == len(pending):  # nobody's issuer came in with the last pass
                for name, reason in refused.items():
                    self._report(f"certificates/{name}", reason)
                break
            pending = {name: pending[name] for name in refused}
        return trust

    def _stored_certificates(self) -> dict[str, bytes]:
        try:
            found = sorted((self.directory / "certificates").glob("*.ndn"))[:MAX_CERTIFICATES]
        except OSError as error:
            self._report("certificates", str(error))
            return {}
        read = {path.name: self._read(f"certificates/{path.name}") for path in found}
        return {name: wire for name, wire in read.items() if wire is not None}

    def _read(self, name: str) -> bytes | None:
        try:
            return (self.directory / name).read_bytes()
        except FileNotFoundError:
            return None
        except OSError as error:
            self._report(name, str(error))
            return None

    def _report(self, name: str, text: str) -> None:
        if self.problems.get(name) != text:
            log.error("%s: %s", self.directory / name, text)
        self.problems[name] = text

    def _make_directory(self, directory: Path) -> None:
        directory.mkdir(parents=True, exist_ok=True, mode=0o755)


def _refusal(trust: TrustStore, wire: bytes) -> str:
    try:
        trust.add_certificate(wire)
    except TrustError as error:
        return str(error)
    return ""
