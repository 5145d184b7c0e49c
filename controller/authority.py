"""The keys of a network and what they sign: the anchor's certificates, the controller's heads, the providers' services.

In the state directory: `anchor.key` (may be moved offline), `anchor.ndn`, `controller.key`, `controller.ndn`,
`providers/<name>.key` and `.ndn`, `epoch.ndn`. Keys are never replaced here; whoever wants new ones removes the old.
"""

from __future__ import annotations

import hashlib
import os
import re
from pathlib import Path

from controller.errors import ControllerError
from gateway.protocol import codec, keys, names
from gateway.protocol.errors import ProtocolError, TrustError
from gateway.protocol.keys import Key
from gateway.protocol.messages import EnrolReply, Head, ServiceSpec
from gateway.protocol.names import Name
from gateway.protocol.trust import TrustStore

YEAR_S = 365 * 86400.0
# The anchor outlives the devices; renewing certificates on routers in the field is worse than a long-lived one that
# can be revoked.
ANCHOR_LIFETIME_S = 30 * YEAR_S
CERTIFICATE_LIFETIME_S = 10 * YEAR_S
# Devices without a battery-backed clock start in the past; a certificate must already be valid for them.
BACKDATE_S = 86400.0
# MustBeFresh must be answered by us, but a cache on the way may keep a head for the time of one round of polls.
HEAD_FRESHNESS_MS = 1000
REPLY_FRESHNESS_MS = 10_000
NONCE_FRESHNESS_MS = 1
NAME_PATTERN = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}")


class Authority:
    """What the controller may sign with the keys in its state directory; raises ControllerError when one is missing."""

    def __init__(self, state_dir: Path, network: names.Network) -> None:
        self.state_dir, self.network = state_dir, network
        self._controller = load_key(state_dir / "controller.key")
        try:
            self.trust = TrustStore(network, read(state_dir / "anchor.ndn"))
            self.trust.add_certificate(read(state_dir / "controller.ndn"))
        except ProtocolError as error:
            raise ControllerError(f"{state_dir}: these are not the keys of {network.uri}: {error}") from error
        if self._controller.identity != network.controller:
            raise ControllerError(f"{state_dir}/controller.key is no controller key of {network.uri}")

    @property
    def anchor_sha256(self) -> bytes:
        """What a token carries, so that a node accepts this anchor and no other."""
        return hashlib.sha256(self.trust.anchor_wire).digest()

    def certify_node(self, node: str, spki: bytes, now: float) -> bytes:
        """A node's certificate; raises TrustError when `spki` is no Ed25519 public key, or a revoked one."""
        key_name = node_key_name(self.network, node, spki)
        keys.PublicKey(key_name, spki)
        if hashlib.sha256(key_name).digest() in self.trust.revoked:
            raise TrustError(f"the key of node {node!r} is revoked; it must make a new one (remove its identity.key)")
        return self._controller.certify(key_name, spki, now - BACKDATE_S, CERTIFICATE_LIFETIME_S, "controller")

    def sign_head(self, head: Head) -> bytes:
        """The head as a packet; raises ControllerError when it does not fit into one."""
        name = self.network.head_version(head.epoch, head.version)
        try:
            return self._controller.sign(name, codec.encode(head), HEAD_FRESHNESS_MS)
        except ValueError as error:
            raise ControllerError(f"a head of {len(head.sections)} sections is too large: {error}") from error

    def sign_nonce(self, name: Name, nonce: bytes) -> bytes:
        return self._controller.sign(name, nonce, NONCE_FRESHNESS_MS)

    def sign_reply(self, name: Name, reply: EnrolReply) -> bytes:
        return self._controller.sign(name, codec.encode(reply), REPLY_FRESHNESS_MS)

    def epoch(self) -> int:
        """The epoch that the anchor allows: that of its last signed statement, 1 before there is one."""
        statement = self.epoch_statement()
        return 1 if statement is None else statement[0]

    def epoch_statement(self) -> tuple[int, bytes] | None:
        """The anchor's last statement and the epoch it opens, None before the first; gateways ask for it."""
        path = self.state_dir / "epoch.ndn"
        if not path.exists():
            return None
        try:
            wire = read(path)
            packet = self.trust.verify(wire)
            epoch = names.last_number(packet.name, names.VERSION)
        except ProtocolError as error:
            raise ControllerError(f"{path}: {error}; run `picasso-controller epoch --raise`") from error
        if epoch is None or packet.name != self.network.epoch(epoch):
            raise ControllerError(f"{path}: {names.to_uri(packet.name)} states no epoch")
        return epoch, wire

    def known_epoch(self) -> int:
        """As epoch(), but 0 when the statement cannot be read: a new one is about to replace it."""
        try:
            return self.epoch()
        except ControllerError:
            return 0

    def raise_epoch(self, epoch: int) -> None:
        """Has the anchor state that heads of `epoch` are acceptable; needs `anchor.key` in the state directory."""
        anchor = load_anchor_key(self.state_dir)
        # Never fresh: a cache that holds it must not answer with it a MustBeFresh Interest for the anchor itself.
        wire = anchor.sign(self.network.epoch(epoch), b"")
        replace(self.state_dir / "epoch.ndn", wire)


def epoch_prefix(network: names.Network) -> Name:
    """Below `N/KEY`, because only the anchor may sign there."""
    return network.prefix + keys.KEY + names.component("epoch")


def node_key_name(network: names.Network, node: str, spki: bytes) -> Name:
    return network.node(node) + keys.KEY + names.component(hashlib.sha256(spki).digest()[:8])


def key_hash(certificate: bytes) -> bytes:
    """What a revocation says of a certificate's key: the SHA-256 of its name."""
    return hashlib.sha256(keys.key_name_of(keys.parse(certificate).name)).digest()


def sign_service(state_dir: Path, network: names.Network, spec: ServiceSpec) -> bytes:
    """A specification signed by its provider; raises ControllerError when the key is missing or it is too large."""
    path = state_dir / "providers" / f"{spec.provider}.key"
    if not path.exists():
        known = ", ".join(sorted(p.stem for p in path.parent.glob("*.key"))) or "none"
        raise ControllerError(
            f"provider {spec.provider!r} has no key at {path} (providers: {known}); "
            f"`picasso-controller provider add {spec.provider}` makes one"
        )
    try:
        return load_key(path).sign(network.service(spec.provider, spec.name, spec.version), codec.encode(spec))
    except ValueError as error:
        raise ControllerError(f"service {spec.name!r} does not fit into one packet: {error}") from error


# --- making keys ---------------------------------------------------------------------------------------------


def make_network(state_dir: Path, network: names.Network, now: float) -> list[Path]:
    """Makes the anchor and the controller with their certificates; what exists is kept. Returns the files it wrote."""
    made = make_anchor(state_dir, network, now)
    if not (state_dir / "controller.key").exists():
        made += _make_certified(state_dir, state_dir / "controller", network.controller, now)
    return made


def make_anchor(state_dir: Path, network: names.Network, now: float) -> list[Path]:
    """Makes the anchor unless there is one; raises ControllerError when the one there is of another network."""
    make_private(state_dir)
    certificate, key_file = state_dir / "anchor.ndn", state_dir / "anchor.key"
    if certificate.exists():
        try:
            TrustStore(network, read(certificate))
        except ProtocolError as error:
            raise ControllerError(
                f"{certificate} is kept, and it is no anchor of {network.uri}: {error}. "
                "Use its network, or another directory"
            ) from error
        return []
    if key_file.exists():
        raise ControllerError(f"{key_file} is there without its certificate {certificate}; put that back")
    anchor = Key.generate(network.anchor)
    anchor.save(key_file)
    wire = anchor.certify(anchor.name, anchor.spki, now - BACKDATE_S, ANCHOR_LIFETIME_S, "self")
    replace(certificate, wire)
    return [key_file, certificate]


def make_provider(state_dir: Path, network: names.Network, provider: str, now: float) -> list[Path]:
    """Makes a provider's key and certificate unless they exist; returns the files it wrote."""
    check_name("provider", provider)
    make_private(state_dir / "providers")
    base = state_dir / "providers" / provider
    if base.with_name(f"{provider}.key").exists():
        return []
    return _make_certified(state_dir, base, network.provider(provider), now)


def make_gateway_identity(authority: Authority, gateway_dir: Path, node: str, now: float) -> list[Path]:
    """Enrols the gateway beside the controller: its key and certificate, unless they exist, and the anchor."""
    check_name("node", node)
    make_private(gateway_dir)
    key_file, certificate, anchor = (gateway_dir / name for name in ("identity.key", "identity.ndn", "anchor.ndn"))
    if anchor.exists() and read(anchor) != authority.trust.anchor_wire:
        raise ControllerError(f"{anchor} is kept, and it is the anchor of another network; move it away to change")
    if certificate.exists() and key_file.exists():
        return []
    if not key_file.exists():
        Key.generate(authority.network.node(node)).save(key_file)
    key = load_key(key_file)
    if key.identity != authority.network.node(node):
        raise ControllerError(f"{key_file} is kept, and it is not the key of node {node!r}")
    replace(anchor, authority.trust.anchor_wire)
    # The gateway checks its own certificate when it starts, so it must have its issuer's.
    issuer = read(authority.state_dir / "controller.ndn")
    make_private(gateway_dir / "certificates")
    replace(gateway_dir / "certificates" / f"{hashlib.sha256(issuer).hexdigest()}.ndn", issuer)
    replace(certificate, authority.certify_node(node, key.spki, now))
    return [key_file, certificate, anchor]


def _make_certified(state_dir: Path, base: Path, identity: Name, now: float) -> list[Path]:
    anchor = load_anchor_key(state_dir)
    key = Key.generate(identity)
    key_file, certificate = base.with_name(f"{base.name}.key"), base.with_name(f"{base.name}.ndn")
    key.save(key_file)
    issued = now - BACKDATE_S
    replace(certificate, anchor.certify(key.name, key.spki, issued, CERTIFICATE_LIFETIME_S, "anchor"))
    return [key_file, certificate]


def load_anchor_key(state_dir: Path) -> Key:
    """The anchor's private key; raises ControllerError, which says what to do, when it is kept elsewhere."""
    path = state_dir / "anchor.key"
    if not path.exists():
        raise ControllerError(f"{path} is needed for this and is not here; bring the anchor's key back for the moment")
    return load_key(path)


def load_key(path: Path) -> Key:
    try:
        return Key.load(path)
    except OSError as error:
        raise ControllerError(f"{path}: {error.strerror}; {_way_out(path.parent)}") from error
    except ProtocolError as error:
        raise ControllerError(str(error)) from error
    except ValueError as error:
        raise ControllerError(f"{path}: not a key file: {error}") from error


# --- files ---------------------------------------------------------------------------------------------------


def check_name(what: str, name: str) -> None:
    """Raises ControllerError unless the name may stand in an NDN name, a file name and a container's name."""
    if not NAME_PATTERN.fullmatch(name):
        raise ControllerError(f"{what} {name!r}: letters, digits, '.', '_' and '-' are accepted, at most 63")


def make_private(directory: Path) -> None:
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise ControllerError(f"{directory}: {error.strerror}") from error


def read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise ControllerError(f"{path}: {error.strerror}; {_way_out(path.parent)}") from error


def _way_out(state_dir: Path) -> str:
    """What to do about a missing file: `init` is right for a new network, and for an old one only with care."""
    if not any((state_dir / name).exists() for name in ("anchor.ndn", "controller.ndn", "controller.db")):
        return "run `picasso-controller init` first"
    return (
        f"{state_dir} belongs to a network already: put the file back from a backup. A lost controller.key is made "
        "anew by `picasso-controller init` with the network's own --network, --node and --directory (needs anchor.key)"
    )


def replace(path: Path, content: bytes, mode: int = 0o644) -> None:
    """Writes a file so that after a crash it holds the old content or the new one; raises ControllerError."""
    fresh = path.with_name(f".{path.name}.new")
    try:
        handle = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode)
        with os.fdopen(handle, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(fresh, path)
        directory = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(directory)
        finally:
            os.close(directory)
    except OSError as error:
        raise ControllerError(f"{path}: {error.strerror}") from error
