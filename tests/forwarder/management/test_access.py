"""Who may manage, and that no command works twice."""

from __future__ import annotations

import grp
import hashlib
import os
import socket
import struct
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from Cryptodome.PublicKey import ECC
from hypothesis import given
from hypothesis import strategies as st
from ndn import encoding as reference
from ndn.app_support.nfd_mgmt import make_command_v2, parse_response
from ndn.encoding import InterestParam, SignatureType
from ndn.security.signer.ed25519_signer import Ed25519Signer

from gateway.forwarder import packet
from gateway.forwarder.management import REMOTE_PREFIX, KeyRing, access
from gateway.forwarder.management.command import Signature
from gateway.forwarder.management.replay import GRACE_MS, NONCES_MAX, Replayed, ReplayGuard
from gateway.forwarder.packet import decode_interest
from gateway.protocol import keys, names
from gateway.protocol.keys import Key
from tests.forwarder.management.commands import UNIX_MS, Managed, answer, command_v2, command_v3, signed

OPERATOR = Key.generate(names.parse("/net/operator"))
STRANGER = Key.generate(names.parse("/net/stranger"))
FORMS = pytest.mark.parametrize("command", [command_v2, command_v3])


def certificate(key: Key) -> bytes:
    return key.certify(key.name, key.spki, 1_600_000_000, 10**9, "self")


class Signer(Ed25519Signer):  # type: ignore[misc]
    """Signs Interests with time, nonce and sequence number as the test wants them."""

    def __init__(self, key: Key, time_ms: int | None, nonce: bytes | None = None, sequence: int | None = None) -> None:
        secret = ECC.import_key(key._key.export_key(format="DER")).export_key(format="DER")
        super().__init__(names.components(key.name), secret)
        self.marks = time_ms, nonce, sequence

    def write_signature_info(self, info: Any) -> None:
        super().write_signature_info(info)
        info.signature_time, info.signature_nonce, info.signature_seq_num = self.marks


def remote(
    key: Key, time_ms: int | None = UNIX_MS, verb: str = "register", *, module: str = "rib", **parameters: Any
) -> bytes:
    """A command for /localhop/nfd, signed by a key."""
    nonce, sequence = parameters.pop("nonce", None), parameters.pop("sequence", None)
    remote_face = SimpleNamespace(isLocalFace=lambda: False)
    name = make_command_v2(module, verb, remote_face, **parameters)
    signer = Signer(key, time_ms, nonce, sequence)
    return bytes(reference.make_interest(name, InterestParam(nonce=1, lifetime=1000), b"", signer))


class Remote(Managed):
    """A forwarder that the operator's key may manage, with a neighbour."""

    def __init__(self, allowed: tuple[Key, ...] = (OPERATOR,), started: int = UNIX_MS - 10_000) -> None:
        ring = KeyRing([k.name for k in allowed], lambda: [certificate(OPERATOR), certificate(STRANGER)])
        super().__init__(key_ring=ring if allowed else None)
        self.management._dispatcher._access = access.Access(ring if allowed else None, started)
        self.forwarder.fib.add(REMOTE_PREFIX, self.face.id, 0, "internal")
        self.network.node("b")
        self.network.link("a", "b")
        self.neighbor = self.node.to["b"]

    def status(self, wire: bytes) -> int:
        data = answer(self.management, wire, self.neighbor.id)
        assert data is not None
        return int(parse_response(data.content)["status_code"])


# --- local


@FORMS
def test_neighbours_do_not_reach_localhost(command: Any) -> None:
    """A command for /localhost that comes over a link is dropped by the forwarder, and refused by management itself."""
    managed = Remote()
    before = list(managed.forwarder.fib)
    managed.forwarder.receive(managed.neighbor, command("rib", "register", name="/p"), managed.network.now)
    managed.network.run(0.1)
    assert managed.neighbor.sent == [] and managed.forwarder.counters.scope_violations == 1
    assert managed.status(command("rib", "register", name="/p")) == 403
    assert list(managed.forwarder.fib) == before


def test_an_unsigned_command_is_refused() -> None:
    """A command without any signature is answered with 403 and the way out."""
    managed = Managed()
    name = b"".join(bytes(part) for part in make_command_v2("rib", "register", name="/p"))
    reply = managed.ask(packet.encode_interest(name)[1])
    assert reply["status_code"] == 403 and "signed" in reply["status_text"]


def test_a_wrong_digest_is_refused() -> None:
    """Commands of both forms whose signature value is not the digest of what it covers change nothing."""
    managed = Managed()
    wire = command_v2("rib", "register", name="/p")
    interest = decode_interest(wire)
    forged = interest.name[:-1] + bytes([interest.name[-1] ^ 1])
    assert managed.ask(packet.encode_interest(forged)[1])["status_code"] == 403
    other = decode_interest(command_v3("rib", "register", name="/q"))
    tail = other.wire[other.wire.index(b"\x24\x00\x2c") :]
    name = b"".join(bytes(part) for part in make_command_v2("rib", "register", name="/p"))
    name += names.tlv(2, hashlib.sha256(tail).digest())
    forged_v3 = names.tlv(5, names.tlv(7, name) + b"\x0a\x04abcd" + tail)
    assert managed.ask(forged_v3)["status_code"] == 403
    assert len(managed.management.rib) == 0


@FORMS
def test_a_command_that_is_sent_again_is_done_once_and_answered_again(command: Any) -> None:
    """A retransmission gets the same answer; what it asked for is not done a second time."""
    managed = Managed()
    wire = command("rib", "register", name="/p")
    first = managed.send(wire)
    managed.command("rib", "unregister", name="/p")
    again = wire.replace(b"\x0a\x04\x00\x00\x00\x01", b"\x0a\x04\x00\x00\x00\x02")
    assert again != wire and managed.send(again).wire == first.wire
    assert managed.hops("/p/x") == []


@FORMS
def test_a_replayed_command_is_refused_when_its_answer_is_forgotten(command: Any) -> None:
    """However many commands came between, one that was done does not work again."""
    managed = Managed()
    wire = command("rib", "register", name="/p")
    managed.send(wire)
    managed.command("rib", "unregister", name="/p")
    managed.management._dispatcher._replies.clear()
    again = wire.replace(b"\x0a\x04\x00\x00\x00\x01", b"\x0a\x04\x00\x00\x00\x02")
    assert managed.ask(again)["status_code"] == 403 and managed.hops("/p/x") == []


def peer(user_id: int, group_id: int) -> Any:
    """A unix socket whose other end is this user, as the kernel says."""
    return SimpleNamespace(family=socket.AF_UNIX, getsockopt=lambda *_: struct.pack("3i", 1, user_id, group_id))


@pytest.mark.parametrize(
    ("user_id", "group_id", "may"),
    [(0, 0, True), (os.geteuid(), 12345, True), (54321, 4242, True), (54321, 12345, False), (777, 12345, True)],
)
def test_the_socket_tells_who_may(monkeypatch: Any, user_id: int, group_id: int, may: bool) -> None:
    """Root, the gateway's own user, and the group `ndn` (first or further one) may manage; others hear 403."""
    group = SimpleNamespace(gr_gid=4242, gr_mem=["ndn-user"])
    monkeypatch.setattr(access.grp, "getgrnam", lambda name: group if name == "ndn" else grp.getgrnam(name))
    monkeypatch.setattr(
        access.pwd, "getpwuid", lambda uid: SimpleNamespace(pw_name="ndn-user" if uid == 777 else "nobody")
    )
    managed = Managed()
    managed.app.peer_socket = peer(user_id, group_id)
    reply = managed.command("rib", "register", name="/p")
    assert reply["status_code"] == (200 if may else 403)
    assert (managed.hops("/p/x") != []) is may


def test_credentials_are_those_of_a_real_socket(tmp_path: Path) -> None:
    """The kernel names the user at the other end of a unix socket; a closed socket has nobody who may manage."""
    ours, theirs = socket.socketpair(socket.AF_UNIX)
    managed = Managed()
    managed.app.peer_socket = ours
    found = access.credentials_of(managed.app)
    assert found is not None and found.user_id == os.geteuid() and os.getegid() in found.group_ids
    theirs.close()
    ours.close()
    assert access.credentials_of(managed.app) == access.Credentials(-1, frozenset())


# --- over the network


def test_a_configured_key_may_register_over_the_network() -> None:
    """A neighbour's command, signed by the operator's key, makes a route to that neighbour."""
    managed = Remote()
    data = answer(managed.management, remote(OPERATOR, name="/p"), managed.neighbor.id)
    assert data is not None
    reply = parse_response(data.content)
    assert (reply["status_code"], reply["face_id"]) == (200, managed.neighbor.id)
    assert managed.hops("/p/x") == [(managed.neighbor.id, 0)]


def test_without_configured_keys_nobody_manages_over_the_network() -> None:
    """It is off by default, also for a key whose certificate is known."""
    assert Remote(allowed=()).status(remote(OPERATOR, name="/p")) == 403


def test_other_keys_and_digests_are_refused_over_the_network() -> None:
    """A known key that is not configured, a digest, an unsigned command and a forged signature change nothing."""
    managed = Remote()
    assert managed.status(remote(STRANGER, name="/p")) == 403
    name = make_command_v2("rib", "register", SimpleNamespace(isLocalFace=lambda: False), name="/p")
    param = InterestParam(nonce=1)
    assert managed.status(bytes(reference.make_interest(name, param))) == 403
    assert managed.status(signed(name)) == 403
    impostor = Signer(STRANGER, UNIX_MS)
    impostor.key_locator_name = names.components(OPERATOR.name)
    forged = bytes(reference.make_interest(name, param, b"", impostor))
    assert SignatureType.ED25519.to_bytes(1, "big") in forged
    assert managed.status(forged) == 403
    assert len(managed.management.rib) == 0 and managed.management.refused == 4


def test_over_the_network_only_routes_of_one_s_own_face() -> None:
    """A key may neither give other faces routes nor reach other modules and datasets."""
    managed = Remote()
    assert managed.status(remote(OPERATOR, UNIX_MS + 1, name="/p", face_id=managed.app.id)) == 403
    assert managed.status(remote(OPERATOR, UNIX_MS + 2, "config", module="cs", capacity=1)) == 501
    name = REMOTE_PREFIX + names.component("rib") + names.component("list")
    assert managed.status(packet.encode_interest(name, can_be_prefix=True)[1]) == 501


def test_a_replayed_command_of_a_key_is_refused() -> None:
    """From whatever face it comes, and however the answer was kept, it works once."""
    managed = Remote()
    wire = remote(OPERATOR, name="/p")
    assert managed.status(wire) == 200
    data = answer(managed.management, wire, managed.app.id)
    assert data is not None and parse_response(data.content)["status_code"] == 403
    assert managed.hops("/p/x") == [(managed.neighbor.id, 0)]


def test_a_command_from_before_a_restart_is_refused() -> None:
    """What was heard before the gateway started may have been used already."""
    assert Remote(started=UNIX_MS).status(remote(OPERATOR, UNIX_MS - 1, name="/p")) == 403


# --- the guard by itself


def marked(time_ms: int | None, nonce: bytes | None = None, sequence: int | None = None) -> Signature:
    return Signature(3, 5, None, b"", b"", nonce, time_ms, sequence)


@pytest.mark.parametrize(
    ("commands", "accepted"),
    [
        ([marked(UNIX_MS), marked(UNIX_MS + 1)], [True, True]),
        ([marked(UNIX_MS), marked(UNIX_MS)], [True, False]),
        ([marked(UNIX_MS), marked(UNIX_MS - 1)], [True, False]),
        ([marked(UNIX_MS - GRACE_MS)], [True]),
        ([marked(UNIX_MS - GRACE_MS - 1)], [False]),
        ([marked(UNIX_MS + GRACE_MS + 1), marked(UNIX_MS)], [False, True]),
        ([marked(None, b"1", 1)], [False]),
        ([marked(UNIX_MS, b"1"), marked(UNIX_MS + 1, b"1")], [True, False]),
        ([marked(UNIX_MS, None, 7), marked(UNIX_MS + 1, None, 7), marked(UNIX_MS + 1, None, 8)], [True, False, True]),
    ],
)
def test_time_nonce_and_sequence_of_a_key(commands: list[Signature], accepted: list[bool]) -> None:
    """Time increases within two minutes of ours, a sequence increases; a nonce is new. Refusals leave no mark."""
    guard, results = ReplayGuard(), []
    for command in commands:
        try:
            guard.admit("key", command, UNIX_MS)
            results.append(True)
        except Replayed:
            results.append(False)
    assert results == accepted


@given(st.lists(st.builds(marked, st.integers(0, 300_000), st.sampled_from([b"1", b"2"]), st.none())))
def test_no_local_command_is_taken_twice(commands: list[Signature]) -> None:
    """Out of order within the grace is fine; the same marks are taken once, and what is too old never."""
    guard, taken, newest = ReplayGuard(), set(), 0
    for command in commands:
        marks = command.time_ms, command.nonce
        expected = marks not in taken and command.time_ms is not None and command.time_ms >= newest - GRACE_MS
        try:
            guard.admit_local(1, command)
            accepted = True
        except Replayed:
            accepted = False
        assert accepted is expected
        if accepted:
            taken.add(marks)
            newest = max(newest, command.time_ms or 0)


def test_signers_do_not_share_their_marks_and_the_guard_is_bounded() -> None:
    """Two faces may use the same time; ten thousand nonces and signers leave no more than the caps."""
    guard = ReplayGuard()
    guard.admit_local(1, marked(5, b"n"))
    guard.admit_local(2, marked(5, b"n"))
    for number in range(3000):
        guard.admit_local(1, marked(number + 10, b"n"))
        guard.admit_local(number + 10, marked(1, b"n"))
    assert len(guard._signers) <= 512
    assert max(len(signer.nonces) for signer in guard._signers.values()) <= NONCES_MAX


def test_only_certificates_of_configured_keys_count() -> None:
    """A packet that is no certificate, or is another key's, makes nobody an operator."""
    plain = OPERATOR.sign(OPERATOR.name + names.component("x"), OPERATOR.spki)
    packet_by_operator = keys.parse(plain)
    signature = Signature(3, 5, OPERATOR.name, packet_by_operator.signed, packet_by_operator.signature, None, 1)
    assert KeyRing([OPERATOR.name], lambda: [certificate(STRANGER), certificate(OPERATOR)]).verifies(signature)
    assert not KeyRing([STRANGER.name], lambda: [certificate(OPERATOR)]).verifies(signature)
    for wires in ([], [plain], [b"\x06\x00"], [certificate(STRANGER)]):
        assert not KeyRing([OPERATOR.name], lambda wires=wires: wires).verifies(signature)
