"""Datasets: versions, segments, and what stays fetchable; notifications of faces."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from ndn.app_support import nfd_mgmt as nfd

from gateway.forwarder import packet
from gateway.forwarder.faces.base import Face
from gateway.forwarder.management import datasets, events
from gateway.forwarder.management.datasets import Datasets, is_versioned
from gateway.forwarder.packet import MAX_PACKET_BYTES, Data, decode_data, decode_interest
from gateway.protocol import names
from tests.forwarder.management.commands import UNIX_MS, Managed, answer

LIST = names.parse("/localhost/nfd/rib/list")


def version_of(data: Data) -> int | None:
    return names.last_number(b"".join(names.components(data.name)[:-1]), names.VERSION)


def ask(managed: Managed, name: bytes, **options: Any) -> Data | None:
    wire = packet.encode_interest(name, **options)[1]
    return answer(managed.management, wire, managed.app.id)


def large(managed: Managed, count: int = 900) -> None:
    for number in range(count):
        managed.forwarder.fib.add(names.parse(f"/a/rather/long/prefix/{number}"), managed.app.id, 0, "static")


def test_a_dataset_is_a_version_with_segments() -> None:
    """The answer is the first segment of a version of this millisecond, fresh for a second, with its last segment."""
    managed = Managed()
    managed.network.run(2.5)
    data = ask(managed, LIST, can_be_prefix=True, must_be_fresh=True)
    assert data is not None and data.freshness_ms == 1000
    assert data.name == LIST + names.version(UNIX_MS + 2500) + names.segment(0)
    assert data.final_block == names.segment(0)


def test_every_question_makes_a_newer_version() -> None:
    """Also within one millisecond: two states must not bear one name."""
    managed = Managed()
    versions = [version_of(data) for _ in range(3) if (data := ask(managed, LIST, can_be_prefix=True))]
    assert versions == [UNIX_MS, UNIX_MS + 1, UNIX_MS + 2]


def test_a_large_dataset_has_several_segments_of_one_state() -> None:
    """They stay fetchable as they were though the table changes and newer versions are made."""
    managed = Managed()
    large(managed)
    first = ask(managed, LIST, can_be_prefix=True)
    assert first is not None and first.final_block is not None
    last = names.last_number(first.final_block, names.SEGMENT)
    assert last is not None and last >= 3
    managed.forwarder.fib.remove_origin("static")
    ask(managed, LIST, can_be_prefix=True)
    version, content = b"".join(names.components(first.name)[:-1]), first.content
    for index in range(1, last + 1):
        segment = ask(managed, version + names.segment(index), must_be_fresh=True)
        assert segment is not None and segment.final_block == first.final_block
        assert len(segment.wire) <= MAX_PACKET_BYTES
        content += segment.content
    assert len(nfd.RibStatus.parse(content).entries) == 901
    assert ask(managed, version + names.segment(last + 1)) is None


def test_no_new_version_for_a_name_that_has_one() -> None:
    """An Interest for a version, or a version's segment, gets that or nothing."""
    managed = Managed()
    first = ask(managed, LIST, can_be_prefix=True)
    assert first is not None
    version = b"".join(names.components(first.name)[:-1])
    again = ask(managed, version, can_be_prefix=True)
    assert again is not None and again.wire == first.wire
    assert ask(managed, LIST + names.version(5), can_be_prefix=True) is None
    assert ask(managed, LIST + names.version(5) + names.segment(0)) is None
    following = ask(managed, LIST, can_be_prefix=True)
    assert following is not None and version_of(following) == UNIX_MS + 1


def test_no_answer_that_would_answer_nobody() -> None:
    """Without CanBePrefix a longer name does not match, so that there is none."""
    assert ask(Managed(), LIST) is None


def test_a_dataset_with_nothing_in_it_has_one_empty_segment() -> None:
    """A client learns that there is nothing rather than waiting."""
    published = Datasets().publish(LIST, [], 7)
    data = decode_data(published)
    assert (data.content, data.final_block) == (b"", names.segment(0))


def test_what_is_held_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Old versions go by number and by size; the newest can be fetched whatever its size."""
    made = Datasets()
    held = [decode_data(made.publish(LIST, [b"x"], number)).name for number in range(datasets.VERSIONS_MAX + 5)]
    assert [made.find(name) is not None for name in held] == [False] * 5 + [True] * datasets.VERSIONS_MAX
    monkeypatch.setattr(datasets, "HELD_MAX_BYTES", 50_000)
    big = decode_data(made.publish(LIST, [bytes(60_000)], 1000))
    assert made.find(big.name) == big.wire and made.find(held[-1]) is None


@pytest.mark.parametrize("length", [500, 3000, 8000, 8500])
def test_a_long_name_leaves_less_room_or_none(length: int) -> None:
    """Segments shrink so that every packet fits; a name that leaves no room is answered with an error, or nothing."""
    managed = Managed()
    large(managed, 300)
    name = names.parse("/localhost/nfd/rib/list") + names.component(b"x" * length)
    data = ask(managed, name, can_be_prefix=True)
    assert data is None or nfd.parse_response(data.content)["status_code"] == 400
    if length < 8000:
        first = decode_data(Datasets().publish(name, [bytes(20_000)], 5))
        assert len(first.wire) <= MAX_PACKET_BYTES and first.content
    else:
        with pytest.raises(ValueError, match="room"):
            Datasets().publish(name + names.component(b"y" * 700), [b"x"], 5)


@pytest.mark.parametrize(
    ("uri", "expected"),
    [("/a", False), ("/", False), ("/a/v=1", True), ("/a/v=1/seg=0", True), ("/a/seg=0", False), ("/v=1/a", False)],
)
def test_which_names_have_a_version(uri: str, expected: bool) -> None:
    """A version at the end, or one with a segment behind it."""
    assert is_versioned(names.parse(uri) if uri != "/" else b"") is expected


# --- notifications

EVENTS = names.parse("/localhost/nfd/faces/events")


def interest(name: bytes, managed: Managed, lifetime_ms: int = 2000, can_be_prefix: bool = False) -> Any:
    wire = packet.encode_interest(name, lifetime_ms=lifetime_ms, can_be_prefix=can_be_prefix)[1]
    decoded = decode_interest(wire)
    decoded.incoming_face = managed.app.id
    return decoded


async def next_event(managed: Managed, name: bytes = EVENTS, lifetime_ms: int = 2000) -> Data | None:
    reply = managed.management.on_interest(interest(name, managed, lifetime_ms, name == EVENTS))
    wire = reply if reply is None or isinstance(reply, bytes) else await reply
    return decode_data(wire) if wire is not None else None


def read(data: Data | None) -> Any:
    assert data is not None
    return nfd.FaceEventNotification.parse(data.content).event


def test_who_waits_is_told_of_faces(monkeypatch: pytest.MonkeyPatch) -> None:
    """A face that comes, falls and goes: each with its number, in order, and none is lost between two Interests."""
    monkeypatch.setattr("gateway.forwarder.management.service._LOOK_S", 0.01)

    async def work() -> None:
        managed = Managed()
        waiting = asyncio.create_task(next_event(managed))
        await asyncio.sleep(0.03)
        link = Face("tcp4://192.0.2.1:6363", "tcp4://192.0.2.2:1", "b")
        managed.forwarder.add_face(link)
        data = await waiting
        event = read(data)
        assert data is not None and data.name == EVENTS + names.tlv(58, b"\x00") and data.freshness_ms == 1000
        assert (event.face_event_kind, event.face_id) == (nfd.FaceEventKind.CREATED, link.id)
        assert (event.uri, event.face_scope) == (link.uri, nfd.FaceScope.NON_LOCAL)
        link.up = False
        down = read(await next_event(managed, EVENTS + names.tlv(58, b"\x01")))
        assert down.face_event_kind == nfd.FaceEventKind.DOWN
        waiting = asyncio.create_task(next_event(managed, EVENTS + names.tlv(58, b"\x02")))
        await asyncio.sleep(0.03)
        managed.forwarder.remove_face(link)
        assert read(await waiting).face_event_kind == nfd.FaceEventKind.DESTROYED
        old = await next_event(managed, EVENTS + names.tlv(58, b"\x01"))
        assert read(old).face_event_kind == nfd.FaceEventKind.DOWN

    asyncio.run(asyncio.wait_for(work(), 5))


def test_nobody_waits_longer_than_the_interest_lives() -> None:
    """When nothing happens there is no answer, and nothing is left behind; a number far ahead is no wait at all."""

    async def work() -> None:
        managed = Managed()
        assert await next_event(managed, lifetime_ms=50) is None
        assert not managed.management.events.is_awaited
        assert await asyncio.wait_for(next_event(managed, EVENTS + names.tlv(58, b"\x09"), 5000), 1) is None
        assert await next_event(managed, EVENTS + names.component("x")) is None

    asyncio.run(work())


def test_who_waits_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """A flood of subscriptions holds no more tasks than the limit."""
    monkeypatch.setattr(events, "WAITING_MAX", 3)

    async def work() -> None:
        managed = Managed()
        results = await asyncio.gather(*(next_event(managed, lifetime_ms=100) for _ in range(10)))
        assert results == [None] * 10
        waiting = [asyncio.create_task(next_event(managed, lifetime_ms=300)) for _ in range(10)]
        await asyncio.sleep(0.05)
        assert len(managed.management.events._waiting) == 3
        await asyncio.gather(*waiting)

    asyncio.run(work())


def test_a_signed_interest_gets_a_dataset_too() -> None:
    """A client that signs whatever it sends has a digest in the name; it is told the same as others."""
    managed = Managed()
    for verb in ("faces/list", "rib/list", "fib/list", "cs/info", "strategy-choice/list", "status/general"):
        uri = f"/localhost/nfd/{verb}"
        assert managed.fetch_signed(uri)[:1] == managed.fetch(uri)[:1] != b""
