"""Where the fuzzer begins: one packet of each kind, so that mutations reach every branch of the decoders."""

from __future__ import annotations

import dataclasses
import types
import typing
from typing import Any

from gateway.forwarder import packet
from gateway.forwarder.faces import link
from gateway.protocol import codec, executor_messages, keys, messages, names
from tests.fuzz.scripts import step

NAME = names.parse("/net/node/x/report/v=7/seg=0")
MESSAGES: list[Any] = [
    cls
    for module in (messages, executor_messages)
    for cls in vars(module).values()
    if dataclasses.is_dataclass(cls) and isinstance(cls, type) and cls.__module__ == module.__name__
]


def names_() -> list[bytes]:
    return [b"", NAME, names.parse("/8=a/54=%01/65535=b"), names.component(b"x" * 300)]


def interests() -> list[bytes]:
    plain = packet.encode_interest(NAME, nonce=b"once")[1]
    full = packet.encode_interest(
        NAME,
        can_be_prefix=True,
        must_be_fresh=True,
        hint=[names.parse("/net/node/a"), names.parse("/net/node/b")],
        lifetime_ms=70_000,
        hop_limit=3,
        parameters=b"parameters",
        nonce=b"once",
    )[1]
    by_digest = packet.encode_interest(NAME, digest=bytes(32), hop_limit=1, nonce=b"once")[1]
    return [plain, full, by_digest]


def datas() -> list[bytes]:
    final = names.segment(3)
    return [
        keys.sign_data(NAME, b"", None),
        keys.sign_data(NAME, b"content" * 9, 1000, final_block=final),
        keys.sign_data(names.parse("/localhost/nfd/x"), b"c" * 300, 0),
    ]


def links() -> list[bytes]:
    interest, data = interests()[0], datas()[1]
    fragment = names.tlv(0x51, bytes(8)) + names.tlv(0x52, b"\x00") + names.tlv(0x53, b"\x02")
    return [
        interest,
        data,
        b"\x64\x00",
        packet.encode_link(data, pit_token=b"token", congestion_mark=1, incoming_face=256),
        packet.encode_link(interest, nack_reason=150, pit_token=b"t"),
        packet.encode_link(interest, next_hop_face=300),
        names.tlv(0x64, names.tlv(0x0334, names.tlv(0x0335, b"\x01")) + names.tlv(0x50, data)),
        names.tlv(0x64, fragment + names.tlv(0x50, data[:40])),
        names.tlv(0x64, fragment.replace(b"\x52\x01\x00", b"\x52\x01\x01") + names.tlv(0x50, data[40:])),
    ]


def streams() -> list[bytes]:
    return [b"".join(links()), b"".join(links())[:-7]]


def signed() -> list[bytes]:
    key = keys.Key.generate(names.parse("/net/node/x"))
    return [
        key.sign(NAME, b"content", 1000, names.segment(3)),
        key.certify(key.name, key.spki, 0.0, 3600.0, "self"),
        *datas(),
    ]


def scripts() -> list[bytes]:
    """What faces do one after the other; see targets.forwarder."""
    steps = [(face, link) for face in range(3) for link in links()]
    return [
        b"".join(step(face, 0, link) for face, link in steps),
        b"".join(step(face, 1 + face, link) for face, link in reversed(steps)),
        step(0, 0, links()[0]) + step(1, 0, links()[1]),
    ]


def long_links() -> list[bytes]:
    """Link packets that one datagram of 1400 bytes does not carry."""
    data = keys.sign_data(NAME, b"content" * 500, 1000)
    return [
        data,
        packet.encode_link(data, pit_token=b"token", congestion_mark=1),
        packet.encode_link(packet.encode_interest(NAME, parameters=bytes(2000), nonce=b"once")[1], nack_reason=50),
    ]


def fragment_scripts() -> list[bytes]:
    """Fragments of two packets from two peers, in order, reversed, twice, and one missing."""
    first, second = (link.fragments(wire, link.MIN_MTU_BYTES, 7 + 100 * i) for i, wire in enumerate(long_links()[:2]))
    orders = [first + second, [*reversed(first), *second], first + first, second[1:] + first]
    return [b"".join(step(i & 1, i & 4, wire) for i, wire in enumerate(order)) for order in orders]


def message_wires() -> list[bytes]:
    """Every message with every field, behind its number in MESSAGES."""
    return [bytes((number,)) + codec.encode(_sample(cls)) for number, cls in enumerate(MESSAGES)]


def _sample(hint: Any) -> Any:
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if dataclasses.is_dataclass(hint):
        hints = typing.get_type_hints(hint)
        return hint(**{field.name: _sample(hints[field.name]) for field in dataclasses.fields(hint)})
    if origin in (typing.Union, types.UnionType):
        return _sample(arguments[0])
    if origin is tuple:
        return (_sample(arguments[0]),)
    if origin is dict:
        return {_sample(arguments[0]): _sample(arguments[1])}
    return {str: "text", int: 1000, float: 0.5, bool: True, bytes: b"bytes"}[hint]
