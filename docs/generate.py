"""Writes the generated parts of docs/protocol.md (between `<!-- begin X -->` and `<!-- end X -->`) from the code.

    .venv/bin/python docs/generate.py

A test holds that nothing would change.
"""

from __future__ import annotations

import dataclasses
import inspect
import re
import types
import typing
from pathlib import Path

from Cryptodome.PublicKey import ECC

from gateway.protocol import codec, keys, messages, names, objects

DOCUMENT = Path(__file__).with_name("protocol.md")
SCALARS = {int: "int", float: "number", str: "tstr", bytes: "bstr", bool: "bool"}
SEED = bytes(range(32))


def render(text: str) -> str:
    """The document with its generated parts as they must be."""
    for name, content in {"cddl": cddl(), "vectors": vectors()}.items():
        pattern = rf"(<!-- begin {name} -->\n).*?(<!-- end {name} -->)"
        text = re.sub(pattern, lambda m, c=content: f"{m[1]}```\n{c}```\n{m[2]}", text, flags=re.DOTALL)
    return text


def cddl() -> str:
    """Every message in CDDL (RFC 8610)."""
    lines = []
    for name, cls in vars(messages).items():
        if not (inspect.isclass(cls) and dataclasses.is_dataclass(cls) and cls.__module__ == messages.__name__):
            continue
        hints = typing.get_type_hints(cls)
        lines.append(f"{name} = {{")
        for field in dataclasses.fields(cls):
            required = field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING
            entry = f"  {'' if required else '? '}{field.metadata['key']} => {_type(hints[field.name])},"
            lines.append(f"{entry:<42}; {field.name}")
        lines.append("  * int => any\n}\n")
    return "\n".join(lines)


def _type(hint: typing.Any) -> str:
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if dataclasses.is_dataclass(hint):
        return str(getattr(hint, "__name__", hint))
    if origin in (typing.Union, types.UnionType):
        return _type(next(a for a in arguments if a is not type(None)))
    if origin is tuple:
        return f"[* {_type(arguments[0])}]"
    if origin is dict:
        return f"{{* {_type(arguments[0])} => {_type(arguments[1])}}}"
    return SCALARS[hint]


def vectors() -> str:
    """Packets that every implementation must build to the byte."""
    network = names.Network("/example/net")
    rows: list[tuple[str, str]] = []
    rows += _blob_rows(network, "a blob of one segment, the five bytes `hello`", b"hello")
    content = bytes(i % 251 for i in range(20_001))
    rows += _blob_rows(network, "a blob of three segments, byte i is i mod 251, 20,001 bytes", content)
    rows += _signed_rows(network)
    return "".join(f"{title}\n  {value}\n" for title, value in rows)


def _blob_rows(network: names.Network, title: str, content: bytes) -> list[tuple[str, str]]:
    ref = objects.describe_bytes(network, content)
    rows = [(title, names.to_uri(network.blob(ref.sha256))), ("BlobRef, CBOR", codec.encode(ref).hex())]
    for wire in objects.packets_of(network, content):
        packet = keys.parse(wire)
        rows.append(
            (names.to_uri(packet.name).rpartition(ref.sha256.hex())[2] + ": implicit digest", packet.digest.hex())
        )
        if len(wire) < 1000:
            rows.append(("the packet", wire.hex()))
    return rows


def _signed_rows(network: names.Network) -> list[tuple[str, str]]:
    key = keys.Key(network.controller + keys.KEY + names.component(b"\x01"), ECC.construct(curve="Ed25519", seed=SEED))
    head = messages.Head(network.uri, 1, 7, 1_760_000_000.0, 1_760_604_800.0)
    return [
        ("controller's key, seed 00 01 … 1f: public key, SubjectPublicKeyInfo", key.spki.hex()),
        ("head of epoch 1, version 7, no sections: name", names.to_uri(network.head_version(1, 7))),
        ("its content", codec.encode(head).hex()),
        ("its packet, freshness 1 s", key.sign(network.head_version(1, 7), codec.encode(head), 1000).hex()),
    ]


if __name__ == "__main__":
    DOCUMENT.write_text(render(DOCUMENT.read_text()))
