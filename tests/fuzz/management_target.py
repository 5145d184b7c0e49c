"""Management commands with any parameters, rightly signed, so that what lies behind the signature is reached too."""

from __future__ import annotations

import hashlib
import inspect

from gateway.forwarder import packet
from gateway.forwarder.content_store import ContentStore
from gateway.forwarder.faces.base import Face
from gateway.forwarder.forwarder import Forwarder
from gateway.forwarder.management import Management
from gateway.protocol import names
from gateway.protocol.names import Name, component, tlv

_NOW_MS = 1_700_000_000_000
_DATASETS = ("list", "info", "general", "query")
_DIGEST_INFO = b"\x16\x03\x1b\x01\x00"
VERBS = [
    tuple(text.split("/"))
    for text in (
        "rib/register",
        "rib/unregister",
        "rib/announce",
        "rib/list",
        "fib/add-nexthop",
        "fib/remove-nexthop",
        "fib/list",
        "faces/update",
        "faces/destroy",
        "faces/list",
        "faces/query",
        "cs/config",
        "cs/erase",
        "cs/info",
        "strategy-choice/set",
        "strategy-choice/unset",
        "status/general",
    )
]


class _LocalFace(Face):
    is_local = local_fields = True

    def transmit(self, wire: bytes, bulk: bool) -> None:
        packet.decode_link(wire)


def management(wire: bytes) -> None:
    """One command: the first byte is its number in VERBS, the second its form, the rest its parameters."""
    if len(wire) < 2:
        return
    router = Forwarder(ContentStore(1 << 16))
    face = _LocalFace("unix://")
    router.add_face(face)
    manager = Management(router, clock=lambda: 1.0, unix_ms=lambda: _NOW_MS)
    name = command(wire[0] % len(VERBS), wire[2:], is_signed=not wire[1] & 1)
    if len(name) > packet.MAX_PACKET_BYTES - 100:
        return
    _, asked = packet.encode_interest(name, can_be_prefix=not wire[1] & 2, nonce=b"once")
    interest = packet.decode_interest(asked)
    interest.incoming_face = face.id
    reply = manager.on_interest(interest)
    if inspect.iscoroutine(reply):
        reply.close()
    elif isinstance(reply, bytes):
        assert packet.decode_data(reply).name.startswith(interest.name)
    manager.on_timer(manager.next_deadline() or 2.0)
    assert len(router.fib) <= 1


def command(number: int, parameters: bytes, is_signed: bool) -> Name:
    """The name of a command; signed in the form of four more components, or not."""
    module, verb = VERBS[number]
    name = names.parse("/localhost/nfd") + component(module) + component(verb)
    if verb == "query" or verb not in _DATASETS:
        name += component(parameters)
    if is_signed and verb not in _DATASETS:
        name += component(_NOW_MS.to_bytes(8, "big")) + component(b"12345678") + component(_DIGEST_INFO)
        name += component(b"\x17\x20" + hashlib.sha256(name).digest())
    return name


def seeds() -> list[bytes]:
    """Every verb with parameters that most of them take."""
    prefix = tlv(0x07, names.parse("/app/x"))
    strategy = tlv(0x6B, tlv(0x07, names.parse("/localhost/nfd/strategy/multicast")))
    flags = tlv(0x6C, b"\x01") + tlv(0x70, b"\x01")
    full = prefix + tlv(0x69, b"\x01\x00") + tlv(0x6F, b"\x41") + tlv(0x6A, b"\x05") + flags + tlv(0x6D, b"\x03\xe8")
    bodies = [prefix, full, prefix + strategy, tlv(0x69, b"\x01\x00") + flags, tlv(0x83, b"\x10\x00") + flags]
    commands = [bytes((number, 0)) + tlv(0x68, body) for number in range(len(VERBS)) for body in bodies]
    return [*commands, bytes((VERBS.index(("faces", "query")), 0)) + tlv(0x96, tlv(0x69, b"\x01\x00"))]
