"""Store and forward between real forwarders that are never connected end to end."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from gateway.forwarder.blobs import BlobStore
from gateway.forwarder.custody import Limits
from gateway.forwarder.packet import decode_interest, encode_interest
from gateway.forwarder.producer import serve_blobs
from gateway.protocol import codec
from gateway.protocol.messages import BlobRef, CarriedWant, Want, WantAnswer, WantOffer
from tests.forwarder.custody.want_world import NAMES, Place, World, ferry, in_life, member
from tests.simulation.network import simulation

MB = 1_000_000
HOUR_S = 3600.0


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    with simulation(tmp_path) as net:
        yield World(net)


def tell(place: Place, offer: WantOffer, face_id: int | None = None) -> WantAnswer:
    """What a node answers to an offer, as if it had come on a face."""
    _, wire = encode_interest(NAMES.wants(place.name), parameters=codec.encode(offer))
    interest = decode_interest(wire)
    interest.incoming_face = face_id
    contact = place.custody._meetings.at(face_id)
    return place.custody._reception.take(codec.decode(WantOffer, interest.parameters or b""), contact, face_id)


def signed(wanter: str, ref: BlobRef, version: int = 1, signer: str = "", **options: object) -> bytes:
    want = Want(ref, wanter, **({"lifetime_s": HOUR_S} | options))  # type: ignore[arg-type]
    return member(signer or wanter)[0].sign(NAMES.want(wanter, ref.sha256, version), codec.encode(want))


def offer(*packets: bytes, certificates: tuple[bytes, ...] = (), left_s: float = HOUR_S) -> WantOffer:
    return WantOffer("somebody", 1, tuple(CarriedWant(p, 4, left_s) for p in packets), certificates)


# --- ferries


def test_a_ferry_carries_a_blob_between_nodes_that_never_meet(world: World) -> None:
    """A's want goes to B's shore with the ferry, the blob comes back with it, and everybody forgets the want."""
    a, f, b = ferry(world)
    ref = world.net.publish("b", 2 * MB)
    a.want(ref, "b")
    world.meet("a", "f", 4)
    assert f.waits() == [("a", ref.sha256)]
    world.meet("f", "b", 4)
    assert f.has(ref) and not a.has(ref)
    world.meet("a", "f", 4)
    assert a.has(ref)
    assert [place.waits() for place in (a, f, b)] == [[], [], [("a", ref.sha256)]]
    world.meet("f", "b", 4)
    assert b.waits() == []


def test_what_came_in_one_contact_is_not_fetched_in_the_next(world: World) -> None:
    """A blob larger than a contact comes in pieces, each of them once over each link."""
    a, f, _ = ferry(world)
    size = 8 * MB
    ref = world.net.publish("b", size)
    a.want(ref, "b")
    world.meet("a", "f", 1)
    contacts = 0
    while not a.has(ref):
        contacts += 1
        assert contacts < 12
        world.meet("f", "b", 2.0)
        world.meet("a", "f", 2.0)
    assert contacts >= 2
    for link in world.net.links.values():
        assert link.bytes < 1.25 * size, world.net.table()
    assert f.has(ref)


def test_a_ferry_passes_wants_on_and_its_neighbour_collects(world: World) -> None:
    """c, which never sees a, has taken a's want from the ferry and has the blob when the ferry calls again.

    a ┄┄ f ┄┄ c ── h: the ferry never waits for the slow link beyond c.
    """
    a, f, c = (world.place(name) for name in "afc")
    world.place("h")
    world.link("a", "f", rate_mbps=20.0)
    world.link("f", "c", rate_mbps=20.0)
    world.link("c", "h", rate_mbps=1.0)
    ref = world.net.publish("h", MB)
    a.want(ref, "h")
    world.meet("a", "f", 2)
    world.meet("f", "c", 2)
    assert c.waits() == [("a", ref.sha256)], "c knows a's certificate from the ferry's offer alone"
    world.meet("c", "h", 20)
    assert c.has(ref) and not f.has(ref)
    world.meet("f", "c", 2)
    world.meet("a", "f", 2)
    assert f.has(ref) and a.has(ref)


def test_own_wants_come_first(world: World) -> None:
    """In a contact that is long enough for one blob only the ferry fetches its own, although the other is older."""
    a, f, _ = ferry(world)
    others = world.net.publish("b", 3 * MB, seed=1)
    own = world.net.publish("b", 3 * MB, seed=2)
    a.want(others, "b", priority=0)
    world.meet("a", "f", 2)
    f.want(own, "b", priority=9)
    world.meet("f", "b", 2)
    assert f.has(own) and not f.has(others)
    world.meet("f", "b", 4)
    assert f.has(others)


def test_a_withdrawn_want_is_dropped_everywhere(world: World) -> None:
    """What a got otherwise, or does not need any more, nobody fetches, and what was kept for it goes first."""
    a, f, _ = ferry(world)
    ref, other = world.net.publish("b", MB, seed=1), world.net.publish("b", MB, seed=2)
    a.want(ref)
    a.want(other)
    world.meet("a", "f", 2)
    in_life(a.node, a.custody.satisfied, other.sha256)
    world.meet("a", "f", 2)
    assert f.waits() == [("a", ref.sha256)]
    world.meet("f", "b", 4)
    assert f.has(ref) and not f.has(other)
    in_life(a.node, a.custody.satisfied, ref.sha256)
    world.meet("a", "f", 2)
    f.node.store.add_bytes(b"mine")
    f.node.store.budget_bytes = f.node.store.usage_bytes
    f.node.store.add_bytes(b"new")
    assert not f.has(ref) and len(f.node.store.complete()) == 2


def test_a_ring_is_not_flooded(world: World) -> None:
    """A want goes once over each link of a ring, in the direction it comes first, and silence follows.

    a ── p ── q ── r ── a
    """
    for name in "apqr":
        world.place(name)
    for one, two in (("a", "p"), ("p", "q"), ("q", "r"), ("r", "a")):
        world.link(one, two)
        world.net.between(one, two).recover()
    world.net.run(1)
    before = world.net.bytes
    world.places["a"].want(BlobRef(b"x" * 32, MB, b"y" * 32))
    world.net.run(5)
    assert all(("a", b"x" * 32) in place.waits() for place in world.places.values())
    packet = len(next(iter(world.places["a"].custody.wants)).packet)
    spread = world.net.bytes - before
    world.net.run(60)
    assert spread < 5 * (packet + 1000)
    assert world.net.bytes - before - spread < 2000


def test_a_wanter_with_a_route_is_told_where_its_blob_is(world: World) -> None:
    """Nobody fetches for a node that can do so itself: c tells it over the mesh that it has the blob.

    a ── m ── c: a's want reached c when there was no route yet.
    """
    a, m, c = world.place("a"), world.place("m", Limits(HOUR_S, 0)), world.place("c")
    world.link("a", "m")
    world.link("m", "c")
    ref = world.net.publish("c", 300_000, seed=5)
    a.want(ref)
    world.net.run(1)
    (entry,) = a.custody.wants
    assert tell(c, offer(entry.packet, certificates=(member("a")[1],))).held == (ref.sha256,)
    assert ("a", ref.sha256) in c.waits()
    world.net.between("a", "m").recover()
    world.net.between("m", "c").recover()
    world.net.learn_routes()
    in_life(c.node, c.custody._wake.set)
    world.net.run(20)
    assert a.has(ref) and not m.has(ref)


def test_the_wanter_is_told_what_no_hello_had_room_for(world: World) -> None:
    """A hello tells 64 blobs at most; what a neighbour waits for is told by name."""
    a, f, _ = ferry(world)
    ref = world.net.publish("b", MB)
    a.want(ref, "b")
    world.meet("a", "f", 2)
    world.meet("f", "b", 4)
    f.blobs = tuple  # type: ignore[method-assign]
    world.meet("a", "f", 4)
    assert a.has(ref)


def with_repository(world: World, place: Place, path: Path) -> BlobStore:
    """An application beside a node that serves blobs of its own."""
    repository = BlobStore(path, NAMES)
    face = place.node.internal("repository")
    serve_blobs(face.endpoint, NAMES, repository)
    place.node.forwarder.fib.add(NAMES.blobs, face.id, 0, "app")
    return repository


def test_the_node_beside_a_repository_gives_and_does_not_fetch(world: World, tmp_path: Path) -> None:
    """A shore whose blobs are with its repository answers that they are there, and the ferry comes and gets them.

    a ┄┄ f ── s: a's want names the shore s; the ferry f has half of the blob and must not be asked for it.
    """
    a, f, s = world.place("a"), world.place("f"), world.place("s", has_repository=lambda: True)
    world.link("a", "f", rate_mbps=20.0)
    world.link("f", "s", rate_mbps=2.0)
    repository = with_repository(world, s, tmp_path / "repository")
    ref = repository.add_bytes(random.Random(3).randbytes(MB))
    a.want(ref, "s")
    world.meet("a", "f", 2)
    world.meet("f", "s", 2)
    assert f.node.store.arriving(ref.sha256) == ref and s.node.store.held() == []
    world.meet("f", "s", 8)
    assert f.has(ref) and s.node.store.held() == [] and s.node.store.arriving(ref.sha256) is None
    world.meet("a", "f", 4)
    assert a.has(ref)
    repository.close()


@pytest.mark.parametrize(("has_repository", "holder", "is_told"), [(True, "s", 1), (False, "s", 0), (True, "b", 0)])
def test_only_a_named_holder_with_a_repository_says_it_can_give(
    world: World, has_repository: bool, holder: str, is_told: int
) -> None:
    """Without an application that serves blobs, or with another holder named, nothing is promised."""
    s, ref = world.place("s", has_repository=lambda: has_repository), BlobRef(b"\x05" * 32, MB, b"\x06" * 32)
    answer = tell(s, offer(signed("a", ref, holders=(holder,)), certificates=(member("a")[1],)))
    assert answer.refusals == () and len(answer.held) == is_told


def test_an_own_want_names_others_only(world: World) -> None:
    """That its own repository may have it helps nobody whom a node asks."""
    a = world.place("a")
    a.want(BlobRef(b"\x05" * 32, MB, b"\x06" * 32), "a", "b")
    world.net.run(1)
    (entry,) = a.custody.wants
    assert entry.want.holders == ("b",)


def test_a_renewed_want_lives_on(world: World) -> None:
    """Wanted again after half of its lifetime it is signed anew, and custodians count from there."""
    limits = Limits(1000.0, 64 * MB)
    a, f = world.place("a", limits), world.place("f", limits)
    world.link("a", "f")
    ref = BlobRef(b"x" * 32, MB, b"y" * 32)
    a.want(ref)
    world.meet("a", "f", 2)
    a.want(ref)
    (entry,) = a.custody.wants
    first = entry.version
    world.net.run(600)
    a.want(ref)
    (entry,) = a.custody.wants
    assert entry.version > first
    world.meet("a", "f", 2)
    world.net.run(900 - 600)
    assert f.waits() == [("a", ref.sha256)]
    world.net.run(700)
    assert f.waits() == a.waits() == []


def test_restarts_keep_wants(world: World) -> None:
    """The ferry loses its power between the two shores, and again on its way back."""
    a, f, _ = ferry(world)
    ref = world.net.publish("b", MB)
    a.want(ref, "b")
    world.meet("a", "f", 2)
    f.node.power_off()
    world.net.run(30)
    f.node.power_on()
    world.net.run(1)
    assert f.waits() == [("a", ref.sha256)]
    world.meet("f", "b", 4)
    f.node.power_off()
    f.node.power_on()
    a.node.power_off()
    a.node.power_on()
    world.net.run(1)
    world.meet("a", "f", 4)
    assert a.has(ref)


# --- what is not believed


def test_only_the_wanter_can_want(world: World) -> None:
    """Another node's signature, a wrong name, a changed byte, noise and an unknown certificate are refused."""
    f = world.place("f")
    ref = BlobRef(b"x" * 32, MB, b"y" * 32)
    mine = signed("a", ref)
    certificates = (member("a")[1], member("b")[1], b"noise")
    want = codec.encode(Want(ref, "a", lifetime_s=HOUR_S))
    bad = [
        signed("a", ref, signer="b"),
        mine[:-1] + bytes([mine[-1] ^ 1]),
        b"noise",
        member("a")[0].sign(NAMES.want("a", b"z" * 32, 1), want),
        member("a")[0].sign(NAMES.wants("a"), want),
        member("a")[0].sign(NAMES.want("a", ref.sha256, 1), want + bytes(3000)),
        signed("b", replace(ref, sha256=b"short")),
    ]
    answer = tell(f, offer(*bad, certificates=certificates))
    assert sorted(refusal.index for refusal in answer.refusals) == list(range(len(bad)))
    assert len(f.custody.wants) == 0
    answer = tell(f, offer(signed("c", ref)))
    assert "is not known" in answer.refusals[0].reason
    assert tell(f, offer(mine, certificates=certificates)).refusals == ()
    assert f.waits() == [("a", ref.sha256)]


def test_a_lying_want_costs_one_attempt(world: World) -> None:
    """A want whose root is another blob's is dropped when that shows, and the blob itself still comes for others."""
    a, f, _b = ferry(world)
    ref, other = world.net.publish("b", 30_000, seed=1), world.net.publish("b", 30_000, seed=2)
    lie = replace(ref, root=other.root)
    f.member.add_certificate(member("liar")[1])
    assert tell(f, offer(signed("liar", lie, priority=0))).refusals == ()
    a.want(ref, "b")
    world.meet("a", "f", 2)
    world.meet("f", "b", 60)
    assert f.has(ref) and ("a", ref.sha256) in f.waits()
    world.meet("a", "f", 4)
    assert a.has(ref)


def test_a_forgotten_want_of_its_own_is_withdrawn(world: World) -> None:
    """A node with a new disk tells custodians that it does not want what they keep for it."""
    a, f, _ = ferry(world)
    ref = BlobRef(b"x" * 32, MB, b"y" * 32)
    a.want(ref)
    world.meet("a", "f", 2)
    a.node.power_off()
    assert a.node.directory is not None
    for path in a.node.directory.glob("wants.db*"):
        path.unlink()
    a.node.power_on()
    carried = next(iter(f.custody.wants)).packet
    tell(a, offer(carried))
    world.meet("a", "f", 2)
    assert f.waits() == []


# --- what people see


def test_rows_say_who_waits_for_what(world: World) -> None:
    """Since when, how much has come, until when, how urgent, and from where."""
    a, f, _ = ferry(world)
    ref = world.net.publish("b", 4 * MB)
    a.want(ref, "b", priority=3)
    world.meet("a", "f", 2)
    world.net.run(60)
    (row,) = f.custody.snapshot()
    assert (row["wanter"], row["blob"], row["size"], row["priority"]) == ("a", ref.sha256.hex(), 4 * MB, 3)
    assert (row["state"], row["arrived"], row["holders"], row["brought_by"]) == ("waiting", 0, ["b"], "a")
    assert 60 < row["waiting_s"] < 65 and 71.9 * HOUR_S < row["expires_s"] < 72 * HOUR_S
    world.meet("f", "b", 1)
    (row,) = f.custody.snapshot()
    assert MB < row["arrived"] < 4 * MB
    world.meet("f", "b", 3)
    (row,) = f.custody.snapshot()
    assert (row["state"], row["arrived"], row["problem"]) == ("here", 4 * MB, "")
