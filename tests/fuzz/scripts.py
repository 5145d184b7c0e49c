"""Scripts: what several peers send one after the other, as the bytes that a fuzzer can change."""

from __future__ import annotations

from collections.abc import Iterator


def step(peer: int, ticks: int, wire: bytes) -> bytes:
    """One step: a peer (0 to 3) sends something, some time after the last."""
    return bytes((peer | ticks << 2,)) + len(wire).to_bytes(2, "big") + wire


def steps(script: bytes) -> Iterator[tuple[int, bytes]]:
    """The action byte and the bytes of each step; what is cut short is left out."""
    at = 0
    while at + 3 <= len(script):
        length = int.from_bytes(script[at + 1 : at + 3], "big")
        yield script[at], script[at + 3 : at + 3 + length]
        at += 3 + length
