"""Wants under attack and in trouble: storms, full disks, clocks that jump, forgeries, power cuts."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from gateway.forwarder.custody import Limits
from gateway.forwarder.custody.reception import BUSY, CHECKS_BURST
from gateway.forwarder.endpoint import FetchError
from gateway.protocol import codec
from gateway.protocol.messages import BlobRef, CarriedWant, Want, WantAnswer, WantOffer
from tests.forwarder.custody.want_world import NAMES, NOW, YEAR_S, Place, World, ferry, in_life, member
from tests.simulation.network import simulation

MB = 1_000_000
HOUR_S = 3600.0


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    with simulation(tmp_path) as net:
        yield World(net)


def fake_ref(number: int, size: int) -> BlobRef:
    chance = random.Random(number)
    return BlobRef(chance.randbytes(32), size, chance.randbytes(32))


def carried(wanter: str, ref: BlobRef, version: int = 1, hops: int = 4, **options: float) -> CarriedWant:
    want = Want(ref, wanter, **({"lifetime_s": 72 * HOUR_S} | options))  # type: ignore[arg-type]
    packet = member(wanter)[0].sign(NAMES.want(wanter, ref.sha256, version), codec.encode(want))
    return CarriedWant(packet, hops, 72 * HOUR_S)


async def send(place: Place, to: str, offers: list[WantOffer]) -> list[WantAnswer]:
    """Sends offers to a neighbour one after the other, and waits where it says that it is busy."""
    answers = []
    for number, offer in enumerate(offers):
        for attempt in range(40):
            again = WantOffer(offer.node, number * 100 + attempt, offer.wants, offer.certificates, offer.held)
            try:
                data = await place.node.endpoint.express(
                    NAMES.wants(to), parameters=codec.encode(again), next_hop_face=place.node.to[to].id
                )
            except FetchError:
                continue
            answer = codec.decode(WantAnswer, data.content)
            if not any(refusal.reason == BUSY for refusal in answer.refusals):
                answers.append(answer)
                break
            await asyncio.sleep(1.0)
    return answers


# --- a want storm


def storm(world: World, names: int) -> None:
    """Enrolled nodes, as many as there are, want everything at once and most urgently, over one neighbour.

    s ── f ┄┄ b: f has an own want, and one of a's.
    """
    a, f, _b = ferry(world, limits=Limits(72 * HOUR_S, 50 * MB, wants_max=max(20, names // 2)))
    world.place("s")
    world.link("s", "f")
    own, other = world.net.publish("b", 3 * MB, seed=1), world.net.publish("b", MB, seed=2)
    a.want(other, "b", priority=0)
    f.want(own, "b", priority=9)
    world.meet("a", "f", 2)
    offers = []
    for first in range(0, 4 * names, 8):
        who = [f"storm{number // 4}" for number in range(first, min(first + 8, 4 * names))]
        wants = [carried(name, fake_ref(first + i, 5 * MB), priority=0) for i, name in enumerate(who)]
        certificates = tuple(dict.fromkeys(member(name)[1] for name in who))
        offers.append(WantOffer("s", 0, tuple(wants), certificates))
    world.net.between("s", "f").recover()
    storming = world.places["s"].node.start(send(world.places["s"], "f", offers))
    limits, started = f.limits, world.net.now
    while not storming.done():
        assert world.net.now - started < 60 * names
        world.meet("f", "b", 6)
        assert f.custody.wants.custody_bytes <= limits.custody_bytes
        assert len(f.custody.wants) <= limits.wants_max + 2
        assert sum(ref.size for ref in f.node.store.complete()) <= limits.custody_bytes + own.size + other.size
    answers = storming.result()
    refused = sum(len(answer.refusals) for answer in answers)
    assert len(answers) == len(offers) and refused > 3 * names, "most of it must have been turned away"
    assert f.has(own), "the own want was not served in the storm"
    assert f.has(other) and ("a", other.sha256) in f.waits(), "who wanted first, and little, is not driven out"
    assert world.net.now - started > (4 * names - CHECKS_BURST) / 10, "signatures are checked at a bounded rate"
    world.meet("a", "f", 4)
    assert a.has(other)


def test_a_storm_of_wants(world: World) -> None:
    """A hundred names that want four blobs each: the budget holds, and own wants are served."""
    storm(world, 100)


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_storm_of_wants_from_a_thousand_names(world: World) -> None:
    """As above, with a thousand names."""
    storm(world, 1000)


def test_a_want_costs_so_much(world: World) -> None:
    """A table full of wants refuses another in a few milliseconds of this processor."""
    f = world.place("f", Limits(HOUR_S, 1000 * MB))
    offers = [carried(f"storm{n % 50}", fake_ref(n, MB), priority=5) for n in range(500)]
    for n in range(50):
        f.member.add_certificate(member(f"storm{n}")[1])
    reception = f.custody._reception
    reception._may_check = lambda face_id: True  # type: ignore[method-assign]
    started = time.process_time()
    for each in offers:
        reception.take(WantOffer("s", 0, (each,)), None, 1)
    assert len(f.custody.wants) == 500
    assert (time.process_time() - started) / 500 < 0.02


# --- the disk


def test_a_full_disk_on_the_custodian(world: World) -> None:
    """It takes the want and says that there is no room; nothing of its own is evicted; with room the blob comes."""
    a, f, _ = ferry(world)
    ref = world.net.publish("b", 4 * MB)
    mine = [f.node.store.add_bytes(random.Random(n).randbytes(MB)) for n in range(3)]
    f.node.store.budget_bytes = f.node.store.usage_bytes + MB
    a.want(ref, "b")
    world.meet("a", "f", 2)
    world.meet("f", "b", 10)
    assert not f.has(ref) and all(map(f.has, mine))
    (row,) = f.custody.snapshot()
    assert row["state"] == "waiting" and "no room for it on this disk" in row["problem"]
    f.node.store.budget_bytes += 4 * MB
    world.meet("f", "b", 6)
    world.meet("a", "f", 6)
    assert f.has(ref) and a.has(ref) and all(map(f.has, mine))
    assert f.custody.snapshot() == []


def test_own_blobs_take_the_place_of_what_is_kept_for_others(world: World) -> None:
    """A custodian that needs its disk itself gives up what it has fetched, keeps the want, and fetches again later."""
    a, f, _ = ferry(world)
    ref = world.net.publish("b", 4 * MB)
    old = f.node.store.add_bytes(random.Random(1).randbytes(900_000))
    a.want(ref, "b")
    world.meet("a", "f", 2)
    world.meet("f", "b", 6)
    assert f.has(ref)
    f.node.store.budget_bytes = f.node.store.usage_bytes + MB
    f.node.store.add_bytes(random.Random(2).randbytes(3 * MB))
    assert not f.has(ref) and f.has(old), "the blob for others goes before older ones of its own"
    assert f.waits() == [("a", ref.sha256)]
    f.node.store.budget_bytes = None
    world.meet("f", "b", 6)
    assert f.has(ref)


def test_a_store_of_wants_that_cannot_be_written(world: World) -> None:
    """Wants go on in memory, the gateway says so, and writes them when the disk takes them again."""
    a, f, _ = ferry(world)
    ref = world.net.publish("b", MB)
    world.net.run(1)
    database = f.custody._disk._database
    assert database is not None
    database.execute("PRAGMA query_only=1")
    a.want(ref, "b")
    world.meet("a", "f", 2)
    assert f.waits() == [("a", ref.sha256)]
    assert "wants are kept in memory only" in f.problems[-1]
    database.execute("PRAGMA query_only=0")
    world.meet("f", "b", 4)
    assert f.problems[-1] == ""
    f.node.power_off()
    f.node.power_on()
    world.net.run(1)
    assert f.waits() == [("a", ref.sha256)]


# --- the clock


@pytest.mark.parametrize("years", [30, -30])
@pytest.mark.parametrize("when", ["while it runs", "over a reboot"])
def test_a_clock_that_jumps_by_years(world: World, years: int, when: str) -> None:
    """On the wanter, the ferry and the holder: no want is lost, none lives for ever, and the blob comes."""
    a, f, b = ferry(world)
    ref = world.net.publish("b", MB)
    a.want(ref, "b")
    world.meet("a", "f", 2)
    for place in (a, f, b):
        place.unix_offset_s += years * YEAR_S
        if when == "over a reboot":
            place.node.power_off()
            place.node.power_on()
    world.net.run(700)
    assert f.waits() == a.waits() == [("a", ref.sha256)]
    renewed = world.net.publish("b", MB, seed=9)
    a.want(renewed, "b")  # signed with the clock as it is now
    world.meet("a", "f", 2)
    world.meet("f", "b", 6)
    world.meet("a", "f", 6)
    assert a.has(ref) and a.has(renewed)
    assert f.waits() == [], "the withdrawal counts, although the wanter's clock was set back"
    lost = fake_ref(1, MB)
    a.want(lost)
    world.meet("a", "f", 2)
    world.net.run(72 * HOUR_S + 10)
    assert f.waits() == a.waits() == []


def test_only_the_wanters_clock_is_wrong(world: World) -> None:
    """A want that by its wall clock expired long ago, or will in decades, is kept for its lifetime and no longer."""
    a, f, _ = ferry(world)
    past, future = fake_ref(1, MB), fake_ref(2, MB)
    a.unix_offset_s = 1000.0
    a.want(past)
    a.unix_offset_s = NOW + 50 * YEAR_S
    a.want(future)
    world.meet("a", "f", 2)
    assert len(f.waits()) == 2
    world.net.run(71 * HOUR_S)
    assert len(f.waits()) == 2
    world.net.run(2 * HOUR_S)
    assert f.waits() == []


# --- forgery and replay


def test_forged_wants_by_the_thousand(world: World) -> None:
    """They cost a bounded number of checks, leave nothing, and a real want in between is taken."""
    _a, f, _ = ferry(world)
    world.place("s")
    world.link("s", "f")
    world.net.between("s", "f").recover()
    world.net.run(1)
    good = carried("a", fake_ref(0, MB))
    real = WantOffer("s", 0, (good,), (member("a")[1],))
    forged = CarriedWant(good.packet[:-1] + bytes([good.packet[-1] ^ 1]), 4, HOUR_S)
    offers = [WantOffer("s", 0, (forged,) * 10, (member("a")[1],)) for _ in range(100)]
    before = f.custody._reception.not_believed

    async def flood() -> None:
        for number, offer in enumerate(offers):
            again = WantOffer("s", number, offer.wants, offer.certificates)
            await place.node.endpoint.express(NAMES.wants("f"), parameters=codec.encode(again), next_hop_face=face)

    place, face = world.places["s"], world.places["s"].node.to["f"].id
    started = world.net.now
    world.net.wait(place.node.start(flood()))
    checked = f.custody._reception.not_believed - before
    assert checked <= CHECKS_BURST + 8 * (world.net.now - started) + 1
    assert len(f.custody.wants) == 0
    world.net.run(5)
    world.net.wait(place.node.start(send(place, "f", [real])))
    assert f.waits() == [("a", fake_ref(0, MB).sha256)]
    world.meet("a", "f", 2)  # and a's own face is not the one that is busy


def test_a_replayed_want_changes_nothing(world: World) -> None:
    """Neither an old copy of a want that was withdrawn, nor one that was renewed, nor the same again and again."""
    a, f, _b = ferry(world)
    world.place("s")
    world.link("s", "f")
    ref = world.net.publish("b", MB)
    a.want(ref, "b")
    world.meet("a", "f", 2)
    (entry,) = f.custody.wants
    copy = WantOffer("s", 0, (CarriedWant(entry.packet, 7, 1e12),), (member("a")[1],))
    expires_at = entry.expires_at
    world.net.between("s", "f").recover()
    world.net.run(600)
    world.net.wait(world.places["s"].node.start(send(world.places["s"], "f", [copy] * 5)))
    (entry,) = f.custody.wants
    assert entry.expires_at == expires_at, "a replay does not prolong it"
    world.meet("f", "b", 6)
    world.meet("a", "f", 6)
    assert a.has(ref) and f.waits() == []
    old = WantOffer("s", 0, copy.wants)
    (answer,) = world.net.loop.run_until_complete(send(world.places["s"], "f", [old]))
    assert [refusal.reason for refusal in answer.refusals] == ["a newer version is known"]
    assert f.waits() == []


# --- power cuts


def cut_power(world: World, cuts: int) -> None:
    """The ferry, and now and then a shore, loses its power at random moments until the blob has come, and so on."""
    chance = random.Random(11)
    a, f, b = ferry(world)
    done = number = 0
    while done < cuts:
        ref, number = world.net.publish("b", 2 * MB, seed=1000 + number), number + 1
        in_life(a.node, a.custody.want, ref, ("b",), 5)
        world.net.run(1)  # what was said less than this ago may be forgotten with the power
        rounds = 0
        while not a.has(ref):
            rounds += 1
            assert rounds < 40, f"{ref.sha256.hex()} does not come: {f.custody.snapshot()}"
            for one, other in (("a", "f"), ("f", "b")):
                victim = chance.choice([f, f, f, world.places[one], world.places[other]])
                world.net.at(world.net.now + chance.uniform(0, 3), _cut, world, victim, chance.uniform(0, 0.5))
                world.meet(one, other, 3)
                world.net.run(1)
                done += 1
        held = a.node.store.path(ref.sha256).read_bytes()
        assert held == b.node.store.path(ref.sha256).read_bytes()
    assert not a.problems and not f.problems


def _cut(world: World, place: Place, off_s: float) -> None:
    if place.node.is_on:
        place.node.power_off()
        world.net.at(world.net.now + off_s, place.node.power_on)


def test_power_cuts_at_random_moments(world: World) -> None:
    """Twenty cuts: every blob comes whole, and no want is lost that was on a disk."""
    cut_power(world, 20)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_two_hundred_power_cuts_at_random_moments(world: World) -> None:
    """As above, with two hundred."""
    cut_power(world, 200)
