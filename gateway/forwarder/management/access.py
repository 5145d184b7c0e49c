"""Who may manage the forwarder: users of this machine by their socket, others by a configured key."""

from __future__ import annotations

import contextlib
import grp
import hashlib
import os
import pwd
import socket
import struct
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from gateway.forwarder.faces.base import Face
from gateway.forwarder.management.command import DIGEST_SHA256, ED25519, Signature
from gateway.forwarder.management.replay import Replayed, ReplayGuard
from gateway.forwarder.management.status_codes import FORBIDDEN, Refused
from gateway.protocol.errors import ProtocolError
from gateway.protocol.names import Name

if TYPE_CHECKING:
    from gateway.protocol.keys import PublicKey

GROUP = "ndn"


@dataclass(frozen=True, slots=True)
class Credentials:
    """Who is at the other end of a unix socket, as the kernel says."""

    user_id: int
    group_ids: frozenset[int]


class KeyRing:
    """The public keys whose names the owner has configured, from the certificates that are known at the moment."""

    def __init__(self, allowed: Iterable[Name], certificates: Callable[[], Iterable[bytes]]) -> None:
        self._allowed, self._certificates = frozenset(allowed), certificates

    def verifies(self, signature: Signature) -> bool:
        """Whether a configured key made this signature; an unknown or malformed one did not."""
        from gateway.protocol import keys  # loads the cryptographic library

        if signature.key_name is None or signature.kind != ED25519:
            return False
        with contextlib.suppress(ProtocolError):
            name = keys.key_name_of(signature.key_name)
            signed = keys.Packet(b"", b"", 0, name, signature.value, signature.covered, b"")
            return name in self._allowed and any(key.verifies(signed) for key in self._keys(name))
        return False

    def _keys(self, name: Name) -> list[PublicKey]:
        from gateway.protocol import keys

        found = []
        for wire in self._certificates():
            with contextlib.suppress(ProtocolError):
                packet = keys.parse(wire)
                if keys.is_certificate(packet) and keys.key_name_of(packet.name) == name:
                    found.append(keys.PublicKey(name, packet.content))
        return found


class Access:
    """Judges commands; `key_ring` is None where nobody may manage over the network."""

    def __init__(self, key_ring: KeyRing | None = None, started_ms: int = 0) -> None:
        self._key_ring = key_ring
        self._guard = ReplayGuard(started_ms)

    def check_local(self, face: Face, signature: Signature | None) -> None:
        """Lets local users in who may use the socket; raises Refused.

        The socket is what counts. A digest must be right all the same, and a command is taken once; a signature by
        a key is not looked at, since it can add nothing.
        """
        if signature is None:
            raise Refused(FORBIDDEN, "the command is not signed; a SHA-256 digest is enough")
        if not may_manage(face):
            raise Refused(FORBIDDEN, f"this user may not manage the forwarder; it must be in the group {GROUP}")
        if signature.kind == DIGEST_SHA256 and signature.value != hashlib.sha256(signature.covered).digest():
            raise Refused(FORBIDDEN, "the command's digest is wrong")
        self._admit(lambda: self._guard.admit_local(face.id, signature))

    def check_key(self, signature: Signature | None, now_ms: int) -> None:
        """Lets the holders of configured keys in; raises Refused."""
        if self._key_ring is None:
            raise Refused(FORBIDDEN, "this forwarder is not managed over the network: no management_key is configured")
        if signature is None or not self._key_ring.verifies(signature):
            raise Refused(FORBIDDEN, "the command is not signed (Ed25519) by a configured management_key")
        self._admit(lambda: self._guard.admit(signature.key_name, signature, now_ms))

    @staticmethod
    def _admit(admit: Callable[[], None]) -> None:
        try:
            admit()
        except Replayed as error:
            raise Refused(FORBIDDEN, str(error)) from error


def may_manage(face: Face) -> bool:
    """Whether who is on a local face may change things: root, our own user, the group `ndn`, the gateway's parts."""
    if not face.is_local:
        return False
    peer = credentials_of(face)
    if peer is None or peer.user_id in (0, os.geteuid()):
        return True
    with contextlib.suppress(KeyError):
        group = grp.getgrnam(GROUP)
        return group.gr_gid in peer.group_ids or _is_member(peer.user_id, group)
    return False


def credentials_of(face: Face) -> Credentials | None:
    """What the kernel says of a unix socket's other end; None for a face that is none."""
    peer = face.peer_socket
    if peer is None or peer.family != socket.AF_UNIX:
        return None
    try:
        raw = peer.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
    except OSError:
        return Credentials(-1, frozenset())
    _, user_id, group_id = struct.unpack("3i", raw)
    return Credentials(user_id, frozenset({group_id}))


def _is_member(user_id: int, group: grp.struct_group) -> bool:
    with contextlib.suppress(KeyError):
        return pwd.getpwuid(user_id).pw_name in group.gr_mem
    return False
