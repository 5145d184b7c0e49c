"""Hellos as values: what this node says of itself, and whether what a neighbour says is acceptable.

Asked by `/localhop/picasso/hello/32=ask/<8 random bytes>`, so that neither a cache nor another face's Interest of the
same moment can answer; the Data under that name carries the neighbour's own, signed Data `HELLO/<node>/v=<ms>`, which
it signs once for all who ask within a second.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from gateway.monitor.rates import GOODPUT, MAX_MBPS, MIN_MBPS, PROBE
from gateway.protocol import codec, names
from gateway.protocol.errors import MessageError, ProtocolError
from gateway.protocol.keys import Packet
from gateway.protocol.messages import Bandwidth, Heard, Hello
from gateway.protocol.names import Name

ASK = names.HELLO + names.component("ask", names.KEYWORD)
# Ends the name of a question whose asker has news: it is worth asking back.
NEWS = names.component("news", names.KEYWORD)
FACES_MAX = LINKS_MAX = 16
BLOBS_MAX, BLOB_BYTES = 64, 8
REACH_MAX = 48
# Leaves room for the names and signatures of both packets in the 8,800 bytes that travel.
CONTENT_MAX_BYTES = 7800
NODE_MAX_CHARACTERS = 64
# What a peer has only guessed must not come back as a measurement.
TOLD_SOURCES = (GOODPUT, PROBE)


class HelloError(Exception):
    """A hello that is not taken; `kind` is what it is counted as."""

    def __init__(self, kind: str, text: str) -> None:
        super().__init__(text)
        self.kind = kind


def ask_name(nonce: bytes, has_news: bool = False) -> Name:
    return ASK + names.component(nonce) + (NEWS if has_news else b"")


def data_name(node: str, time_ms: int) -> Name:
    return names.HELLO + names.component(node) + names.version(time_ms)


def compose(hello: Hello) -> bytes:
    """The content of a hello; far nodes, then blobs, then neighbours are left out from the end until it fits."""
    content = codec.encode(hello)
    while len(content) > CONTENT_MAX_BYTES and (hello.reach or hello.blobs or hello.heard):
        if hello.reach:
            hello = replace(hello, reach=hello.reach[: len(hello.reach) * 3 // 4])
        elif hello.blobs:
            hello = replace(hello, blobs=())
        else:
            hello = replace(hello, heard=hello.heard[: len(hello.heard) * 3 // 4])
        content = codec.encode(hello)
    return content


def accept(wire: bytes, verify: Callable[[bytes], Packet], own_node: str) -> Hello:
    """The hello in a neighbour's packet; raises HelloError, or whatever ProtocolError `verify` raises."""
    packet = verify(wire)
    try:
        hello = codec.decode(Hello, packet.content, CONTENT_MAX_BYTES)
        parts = names.components(packet.name[len(names.HELLO) :]) if packet.name.startswith(names.HELLO) else []
        said_by = names.text(parts[0]) if len(parts) == 2 else None
    except (MessageError, ValueError, IndexError) as error:
        raise HelloError("malformed", str(error)) from error
    if said_by != hello.node:
        raise HelloError("malformed", f"{names.to_uri(packet.name)} says that it is {hello.node!r:.80}")
    if not 0 < len(hello.node) <= NODE_MAX_CHARACTERS or len(hello.boot_id) > NODE_MAX_CHARACTERS:
        raise HelloError(
            "malformed", f"a node name of {len(hello.node)} characters, 1 to {NODE_MAX_CHARACTERS} are accepted"
        )
    if hello.node == own_node:
        raise HelloError("self", f"the other end is this node, {own_node}")
    return _within_limits(hello)


def _within_limits(hello: Hello) -> Hello:
    """What is beyond the limits, or no name of a node, is left out: it is about others than the teller."""
    return replace(
        hello,
        blobs=tuple(b for b in hello.blobs[:BLOBS_MAX] if len(b) == BLOB_BYTES),
        faces=hello.faces[:FACES_MAX],
        links=hello.links[:LINKS_MAX],
        reach=tuple(
            row
            for row in hello.reach[:REACH_MAX]
            if 0 < len(row.node) <= NODE_MAX_CHARACTERS and row.node != hello.node and row.cost >= 0
        ),
    )


def heard_of(node: str, heard: Sequence[Heard]) -> Heard | None:
    """What a neighbour says it hears of `node`; a figure that is no measurement is left out."""
    said = next((h for h in heard if h.node == node), None)
    if said is None or said.rx is None or is_plausible(said.rx):
        return said
    return replace(said, rx=None)


def is_plausible(figure: Bandwidth) -> bool:
    return (
        figure.source in TOLD_SOURCES
        and MIN_MBPS <= figure.mbps <= MAX_MBPS
        and figure.age_s >= 0.0
        and 0.0 <= figure.confidence <= 1.0
    )


def rejection_kind(error: Exception) -> str:
    """How a hello that was not taken is counted."""
    if isinstance(error, HelloError):
        return error.kind
    return "unverified" if isinstance(error, ProtocolError) else "unanswered"
