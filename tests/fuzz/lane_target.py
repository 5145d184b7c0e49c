"""The fast lane beside the ordinary pipelines: whatever comes, both do the same."""

from __future__ import annotations

import os
from typing import Any
from unittest import mock

from gateway.forwarder import packet
from gateway.forwarder.packet import DecodeError
from gateway.protocol import names
from tests.forwarder.test_fast_lane import World, data
from tests.fuzz import scripts

_TICK_S = 0.3


def lanes(script: bytes) -> None:
    """Faces send chunks of a stream, well or ill, as time goes by."""
    with mock.patch.object(os, "urandom", bytes):  # an Interest without a nonce gets the same one in both
        fast, slow = World(is_fast=True), World(is_fast=False)
        now = 0.0
        for action, chunk in scripts.steps(script):
            now += (action >> 2) * _TICK_S
            assert _receive(fast, action & 3, chunk, now) == _receive(slow, action & 3, chunk, now)
        assert fast.state(now) == slow.state(now)
        for world in (fast, slow):
            world.forwarder.on_timer(now + 1000)
        assert fast.state(now + 1000) == slow.state(now + 1000)
        assert len(fast.forwarder.pit) == 0
        assert all(face.waiting == face.outstanding == 0 for face in fast.faces)


def _receive(world: World, face: int, chunk: bytes, now: float) -> int | None:
    world.forwarder.on_timer(now)
    try:
        return world.forwarder.receive_stream(world.faces[face], chunk, now)
    except DecodeError:
        return None


def seeds() -> list[bytes]:
    """Questions and answers between the faces of a World, of kinds that the fast lane takes and of others."""
    uris = ("/a/x", "/a/b/c/x", "/node/far/x", "/blob/a", "/part/x", "/localhop/x", "/a/x/y")
    options: list[dict[str, Any]] = [
        {},
        {"must_be_fresh": True},
        {"can_be_prefix": True},
        {"lifetime_ms": 1000, "hop_limit": 3},
        {"hop_limit": 1},
        {"hint": [names.parse("/node/far")]},
        {"hint": [names.parse("/node/here")]},
        {"digest": bytes(32)},
    ]
    found = []
    for number, option in enumerate(options):
        made = [packet.encode_interest(names.parse(uri), nonce=b"n%03d" % number, **option)[1] for uri in uris]
        tokened = [packet.encode_link(wire, pit_token=b"token") for wire in made]
        answers = [data(names.parse(uri)) for uri in uris]
        nacks = [packet.encode_link(wire, nack_reason=150) for wire in made]
        for chunks in ((made, answers, made), (tokened, answers, tokened), (made, nacks, tokened)):
            steps = [(0, chunks[0]), (1, chunks[1]), (2, chunks[1]), (3, chunks[2])]
            found.append(b"".join(scripts.step(face, 0, b"".join(wires)) for face, wires in steps))
    return found
