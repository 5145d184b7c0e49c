"""The consumer as the placement client and custody want it."""

from __future__ import annotations

import asyncio
import errno
from pathlib import Path
from typing import Any

import pytest

from gateway.fetcher import Fetcher, StoreBlobs
from gateway.forwarder.consumer import PATIENCE_S, StorageFull
from gateway.protocol import names
from gateway.protocol.messages import BlobRef

NETWORK = names.Network("/net")
REF, HINTS = BlobRef(b"1" * 32, 1, b"2" * 32), [NETWORK.node("far"), b""]


class Consumer:
    """Writes down what it is asked, and fails if it is given an error."""

    network = NETWORK

    def __init__(self, error: Exception | None = None) -> None:
        self.said: list[Any] = []
        self.error = error
        self.fetcher = Fetcher(self, self.arrive)  # type: ignore[arg-type]

    async def arrive(self, hints: Any) -> None:
        self.said.append(("arrive", hints, self.fetcher.running))

    def nudge(self) -> None:
        self.said.append("nudge")

    async def fetch_blob(self, *arguments: Any) -> Path:
        self.said.append((*arguments, self.fetcher.running))
        if self.error is not None:
            raise self.error
        return Path("blob")

    async def fetch_bytes(self, *arguments: Any) -> bytes:
        self.said.append(arguments)
        return b"bytes"


def test_holders_are_made_reachable_before_they_are_asked() -> None:
    """A fetch dials first, and asks then with the same hints and patience; it counts as running meanwhile."""
    consumer, store = Consumer(), object()
    fetched = consumer.fetcher.fetch_blob(REF, store, HINTS, None, 5.0)  # type: ignore[arg-type]
    assert asyncio.run(fetched) == Path("blob")
    assert consumer.said == [("arrive", HINTS, 1), (REF, store, HINTS, None, 5.0, 1)]
    assert consumer.fetcher.running == 0
    assert asyncio.run(consumer.fetcher.fetch_bytes(REF, HINTS)) == b"bytes"
    assert consumer.said[2:] == [("arrive", HINTS, 0), (REF, HINTS)]
    consumer.fetcher.nudge()
    assert consumer.said[-1] == "nudge"
    assert consumer.fetcher.network is NETWORK


def test_a_fetch_that_fails_is_over() -> None:
    """However a fetch ends, it is not counted any more."""
    consumer = Consumer(OSError())
    with pytest.raises(OSError):
        asyncio.run(consumer.fetcher.fetch_blob(REF, object(), HINTS))  # type: ignore[arg-type]
    assert len(consumer.said) == 2
    assert consumer.fetcher.running == 0


def test_a_disk_that_is_full_is_no_fault_of_a_peer() -> None:
    """The placement client learns of it as of any trouble with the disk, with the text that says how full it is."""
    blobs = StoreBlobs(Consumer(StorageFull("2 MB are missing")).fetcher, object())  # type: ignore[arg-type]
    with pytest.raises(OSError, match="2 MB are missing") as raised:
        asyncio.run(blobs.fetch_blob(REF, HINTS))
    assert raised.value.errno == errno.ENOSPC


def test_without_a_store_nothing_is_held_or_asked_for() -> None:
    """A gateway that has nowhere to keep a blob has none, and says which option would change that."""
    consumer = Consumer()
    blobs = StoreBlobs(consumer.fetcher, None)
    assert not blobs.has(REF.sha256)
    with pytest.raises(OSError, match=r"forwarder\.blob_dir"):
        asyncio.run(blobs.fetch_blob(REF, HINTS))
    assert consumer.said == []


def test_blobs_go_to_the_store_with_the_usual_patience() -> None:
    """The store is asked what is there, and is where a fetch puts the blob."""

    class Store:
        def has(self, sha256: bytes) -> bool:
            return sha256 == REF.sha256

    consumer, store = Consumer(), Store()
    blobs = StoreBlobs(consumer.fetcher, store)  # type: ignore[arg-type]
    assert (blobs.has(REF.sha256), blobs.has(REF.root)) == (True, False)
    assert asyncio.run(blobs.fetch_blob(REF, HINTS)) == Path("blob")
    assert consumer.said[1] == (REF, store, HINTS, None, PATIENCE_S, 1)
