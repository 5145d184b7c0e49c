"""What custody asks of the gateway that it is part of."""

from __future__ import annotations

import asyncio
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from gateway.daemon import CustodyConsumer, Fetches, Gateway
from gateway.forwarder.fib import Fib
from gateway.protocol import names
from gateway.protocol.messages import BlobRef

NETWORK = names.Network("/net")


@pytest.mark.parametrize(
    ("prefix", "is_local", "is_up", "has_one"),
    [
        (NETWORK.blobs, True, True, True),
        (NETWORK.blobs, False, True, False),
        (NETWORK.blobs, True, False, False),
        (NETWORK.prefix, True, True, False),
    ],
)
def test_a_repository_is_a_local_application_with_the_prefix_of_blobs(
    prefix: names.Name, is_local: bool, is_up: bool, has_one: bool
) -> None:
    """A neighbour with that prefix, an application that has gone and one that serves something else are none."""
    fib = Fib()
    fib.add(prefix, 7, 0, "app")
    faces = {7: SimpleNamespace(up=is_up, is_local=is_local)}
    gateway: Any = SimpleNamespace(network=NETWORK, forwarder=SimpleNamespace(fib=fib, faces=faces))
    assert Gateway.has_repository(gateway) is has_one


def test_holders_are_made_reachable_before_they_are_asked() -> None:
    """Custody's fetch dials first, and asks then with the same hints and patience; it counts as running meanwhile."""
    said: list[Any] = []
    fetches = Fetches()

    class Consumer:
        network = NETWORK

        def nudge(self) -> None:
            said.append("nudge")

        async def fetch_blob(self, *arguments: Any) -> Path:
            said.append((*arguments, fetches.running))
            return Path("blob")

    async def arrive(hints: Any) -> None:
        said.append(("arrive", hints, fetches.running))

    inner: Any = Consumer()
    store: Any = object()
    consumer = CustodyConsumer(inner, arrive, fetches)
    ref, hints = BlobRef(b"1" * 32, 1, b"2" * 32), [NETWORK.node("far"), b""]
    assert asyncio.run(consumer.fetch_blob(ref, store, hints, None, 5.0)) == Path("blob")
    assert said == [("arrive", hints, 1), (ref, store, hints, None, 5.0, 1)] and fetches.running == 0
    consumer.nudge()
    assert said[-1] == "nudge" and consumer.network is NETWORK
