"""The placement client against a network in memory: the loops, the fall-backs, the restart, and hostile neighbours."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import random

import pytest

from gateway.placement_client.client import PlacementClient
from gateway.placement_client.decision_store import DecisionStore
from gateway.protocol import codec, keys, names
from gateway.protocol.keys import Key
from gateway.protocol.messages import Head


class Node:
    """One gateway's placement client with its fakes, the state directory and what it pinned."""

    def __init__(self, world, directory, name="n1", interval_s=0.05, executor=True, blobs=None):
        self.world = world
        self.endpoint = world.endpoint()
        self.blobs = blobs or world.blobs
        self.executor = world.executor() if executor else None
        self.pinned = []
        self.client = PlacementClient(
            world.session(name, certificates=False),
            DecisionStore(directory / name / "decision"),
            self.endpoint,
            self.blobs,
            self.executor,
            interval_s=interval_s,
            unreachable=(world.unreachable,),
            pin=self.pinned.append,
            clock=lambda: world.clock,
            retry_s=(0.01, 0.05),
            chance=random.Random(1),
        )
        self.client.start()

    @property
    def versions(self):
        """The versions of the heads given to the executor, in order."""
        return [codec.decode(Head, keys.parse(d.head).content).version for d in self.executor.applied]

    @property
    def is_saved(self):
        """Whether the decision in force is on disk."""
        stored, decision = self.client.store.load(), self.client.session.decision
        return stored is not None and decision is not None and stored.head == decision.head_wire

    async def until(self, condition, seconds=5.0):
        """Runs the client until the condition holds; fails after `seconds`."""
        running = asyncio.create_task(self.client.run())
        try:
            async with asyncio.timeout(seconds):
                while not condition():
                    assert not running.done(), running.result()
                    await asyncio.sleep(0.005)
        finally:
            running.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await running


def run(coroutine):
    asyncio.run(coroutine)


@pytest.fixture
def node(world, tmp_path):
    return Node(world, tmp_path)


def images_held(node):
    (service,) = node.client.snapshot()["services"]
    return service["image"]["blobs"] == service["image"]["blobs_held"]


def test_a_published_decision_reaches_the_executor_and_again_when_the_image_is_whole(world, node):
    """The executor learns of a service at once, and once more when the last blob of its image is on disk."""
    world.one_service()
    run(node.until(lambda: len(node.executor.applied) == 2 and node.is_saved))
    first, second = node.executor.applied
    assert first == second and len(first.sections) == len(first.specifications) == 1
    signers = {keys.identity_of(keys.parse(wire).name) for wire in first.certificates}
    assert {world.network.prefix, world.network.controller, world.network.provider("upc")} == signers
    assert images_held(node)
    assert node.client.order == (1, 1)


def test_a_newer_head_is_found_by_polling(world, node):
    """The controller is asked for its newest head, past the caches, again and again."""
    world.one_service(1)

    async def scenario():
        await node.until(lambda: node.versions[-1:] == [1] and images_held(node))
        world.one_service(2)
        await node.until(lambda: node.versions[-1:] == [2])

    run(scenario())
    polls = [asked for asked in node.endpoint.asked if asked.name == world.network.head]
    assert all(poll.options["can_be_prefix"] and poll.options["must_be_fresh"] for poll in polls)
    assert len(polls) >= 2


def test_blobs_are_asked_of_the_parent_first_and_at_last_without_a_hint(world, node):
    """Image blobs come along the delivery tree; whoever is named, the default route stays as a way out."""
    world.one_service(heads=("n1<n4", "n2"))
    run(node.until(lambda: node.executor.applied and images_held(node)))
    image = [hints for sha256, hints in node.blobs.asked if sha256 in node.blobs.disk]
    expected = (*map(world.network.node, ("n4", "n2", "repo")), b"")
    assert image == [expected, expected]


def test_a_node_that_runs_nothing_fetches_no_image(world, tmp_path):
    """A bystander holds the decision and no blob of it."""
    node = Node(world, tmp_path, "n9")
    world.one_service()
    run(node.until(lambda: node.executor.applied))
    assert node.blobs.disk == {}
    assert node.client.snapshot()["services"][0]["role"] == ""


def test_after_a_restart_without_a_network_the_stored_decision_is_applied_and_no_blob_is_asked_for(
    world, tmp_path, node
):
    """A gateway that boots in a blackout starts its services from its own disk."""
    world.one_service()
    run(node.until(lambda: len(node.executor.applied) == 2 and node.is_saved))
    world.shelf.up = False
    world.blobs.asked.clear()
    again = Node(world, tmp_path)
    assert again.client.order == (1, 1)
    assert again.endpoint.asked == []
    run(again.until(lambda: again.executor.applied and again.endpoint.asked))
    assert again.executor.applied == [node.executor.applied[-1]]
    assert world.blobs.asked == []
    assert again.client.snapshot()["decision"]["source"] == "disk"
    assert set(again.pinned) == set(node.pinned)


def test_what_is_missing_on_disk_after_a_restart_is_fetched(world, tmp_path, node):
    """A blob lost while the node was down comes again, and the executor is told."""
    world.one_service()
    run(node.until(lambda: len(node.executor.applied) == 2 and node.is_saved))
    lost = sorted(world.blobs.disk)[0]
    del world.blobs.disk[lost]
    again = Node(world, tmp_path)
    run(again.until(lambda: len(again.executor.applied) == 2))
    assert lost in world.blobs.disk


def test_a_damaged_store_is_set_aside_reported_and_filled_again(world, tmp_path, node):
    """Random bytes in place of the decision stop nothing: the next poll brings it back, the older head stays out."""
    world.one_service(2)
    run(node.until(lambda: len(node.executor.applied) == 2 and node.is_saved))
    path = tmp_path / "n1" / "decision" / "decision.cbor"
    path.write_bytes(b"\xff" * 100)
    again = Node(world, tmp_path)
    assert again.client.session.decision is None
    assert "decision.cbor.damaged" in again.client.snapshot()["problems"]["decision/decision.cbor"]
    world.shelf.packets.pop(world.network.head_version(1, 2))
    world.publish([], 1)

    async def scenario():
        await again.until(lambda: again.client.session.rejected["older head"])
        world.one_service(2)
        await again.until(lambda: again.versions == [2])

    run(scenario())
    assert (path.parent / "decision.cbor.damaged").read_bytes() == b"\xff" * 100


def test_a_stored_decision_that_does_not_verify_is_set_aside(world, tmp_path, node):
    """Another network's decision on disk is not believed because it is on disk."""
    world.one_service()
    run(node.until(lambda: len(node.executor.applied) == 2 and node.is_saved))
    stranger = type(world)()
    again = Node(stranger, tmp_path)
    assert again.client.session.decision is None
    assert "does not verify" in again.client.snapshot()["problems"]["decision/decision.cbor"]


def test_a_wrongly_signed_decision_changes_nothing_and_is_counted(world, node):
    """A head by a provider is dropped with its reason; the decision in force goes on."""
    world.one_service(1)

    async def scenario():
        await node.until(lambda: len(node.executor.applied) == 2 and node.is_saved)
        world.publish([], 2, signer=world.provider)
        await node.until(lambda: node.client.session.rejected)

    run(scenario())
    snapshot = node.client.snapshot()
    assert snapshot["rejected"]["bad head"] >= 1 and "may not say this" in snapshot["last_rejection"]
    assert node.client.order == (1, 1) and node.versions == [1, 1]


def test_a_head_by_a_controller_without_certificate_is_not_believed(world, node):
    """A self-made controller key, whose certificate nobody has, decides nothing."""
    world.one_service(1)

    async def scenario():
        await node.until(lambda: len(node.executor.applied) == 2 and node.is_saved)
        world.publish([], 2, signer=Key.generate(world.network.controller))
        await node.until(lambda: node.client.session.rejected["unproven"])

    run(scenario())
    assert node.client.order == (1, 1)


def test_a_later_epoch_is_proven_by_the_anchors_statement(world, tmp_path, node):
    """A controller restored from a backup goes on in a new epoch, which the anchor opened; it survives a restart."""
    world.one_service(5)

    async def scenario():
        await node.until(lambda: len(node.executor.applied) == 2 and node.is_saved)
        world.shelf.packets.pop(world.network.head_version(1, 5))
        world.publish([], 1, epoch=2)
        await node.until(lambda: node.client.session.rejected["unproven"])
        assert node.client.order == (1, 5)
        world.shelf.put(world.anchor.sign(world.network.epoch(2), b""))
        await node.until(lambda: node.client.order == (2, 1) and node.is_saved)

    run(scenario())
    assert Node(world, tmp_path).client.order == (2, 1)


def test_a_section_whose_bytes_lie_is_counted_and_the_old_decision_stays(world, node):
    """The new head waits for the right bytes and goes in force when they come."""
    world.one_service(1)

    async def scenario():
        await node.until(lambda: len(node.executor.applied) == 2 and node.is_saved)
        update = codec.decode(Head, keys.parse(world.one_service(2)).content)
        node.blobs.lies = {update.sections[0].blob.sha256}
        await node.until(lambda: node.client.session.rejected["section hash"])
        assert node.client.order == (1, 1)
        assert node.client.snapshot()["pending"]["version"] == 2
        node.blobs.lies = set()
        await node.until(lambda: node.client.order == (1, 2))

    run(scenario())


def test_an_image_whose_bytes_lie_is_counted_and_tried_again(world, node):
    """A blob that does not match its digest never counts as held."""
    world.one_service()
    node.blobs.lies = {world.blob(b"radio" * 9).sha256}

    async def scenario():
        await node.until(lambda: node.client.session.rejected["blob"])
        assert "blob of radio" in node.client.snapshot()["problems"]
        assert not images_held(node)
        node.blobs.lies = set()
        await node.until(lambda: images_held(node))

    run(scenario())
    assert node.client.snapshot()["problems"] == {}


def test_a_newer_head_comes_from_a_neighbour_when_the_controller_is_gone(world, tmp_path, node):
    """Head, certificates, specification and section are asked of the neighbour by its node name and face."""
    world.one_service()
    neighbor, shelf = world.network.node("n2"), world.new_shelf()
    shelf.put(*world.shelf.packets.values())
    node.endpoint.faces[7] = shelf
    world.shelf.up = False
    world.blobs.holders = {neighbor: world.blobs.holders[b""]}

    async def scenario():
        node.client.on_hello(7, "n2", 1, 1)
        await node.until(lambda: node.executor.applied and images_held(node))

    run(scenario())
    head = next(a for a in node.endpoint.asked if a.name == world.network.head_version(1, 1))
    assert head.options["next_hop_face"] == 7 and head.options["hint"] == (neighbor,)
    assert node.client.snapshot()["decision"]["source"] == "neighbor n2"
    assert node.client.snapshot()["rejected"] == {}


def test_a_neighbour_gets_everything_from_what_was_pinned(world, tmp_path, node):
    """A gateway that has a decision can answer a neighbour for every packet of it."""
    world.one_service()
    run(node.until(lambda: len(node.executor.applied) == 2 and node.is_saved))
    found = {names.to_uri(keys.parse(wire).name) for wire in node.pinned}
    decision = node.client.session.decision
    (section,) = decision.refs
    assert names.to_uri(world.network.head_version(1, 1)) in found
    assert names.to_uri(world.network.blob(section.blob.sha256) + names.segment(0)) in found
    assert names.to_uri(world.network.service("upc", "radio", 1)) in found
    assert len(node.pinned) == 6


def test_a_forged_hello_costs_one_interest_and_no_decision(world, node):
    """Whoever claims a head that nobody has is asked once, and polling goes on."""
    node.endpoint.faces[3] = world.new_shelf()

    async def scenario():
        for version in range(50, 60):
            node.client.on_hello(3, "evil", 4_000_000_000, version)
        node.client.on_hello(3, "evil", -1, 1 << 80)
        await node.until(lambda: len(node.endpoint.asked) >= 3)
        for version in range(60, 70):
            node.client.on_hello(3, "evil", 4_000_000_000, version)
        world.one_service(1)
        await node.until(lambda: node.client.order == (1, 1))

    run(scenario())
    assert len([a for a in node.endpoint.asked if a.options["next_hop_face"] == 3]) == 1


def test_a_neighbour_that_answers_with_a_forged_head_is_refused_and_silenced(world, node):
    """A head that a neighbour made up is counted, and the next tip of that face is not followed at once."""
    shelf = world.new_shelf()
    shelf.put(world.head([], 9, signer=Key.generate(world.network.node("evil"))))
    node.endpoint.faces[3] = shelf
    world.one_service(1)

    async def scenario():
        node.client.on_hello(3, "evil", 1, 9)
        await node.until(lambda: node.client.session.rejected["bad head"] and node.client.order == (1, 1))
        node.client.on_hello(3, "evil", 1, 9)
        await node.until(lambda: images_held(node))

    run(scenario())
    assert len([a for a in node.endpoint.asked if a.options["next_hop_face"] == 3]) == 1


def test_a_poisoned_certificate_from_a_neighbour_is_replaced_by_the_controllers(world, node):
    """A neighbour whose cache holds a forged certificate cannot keep a true head out."""
    head, shelf = world.one_service(), world.new_shelf()
    del world.shelf.packets[world.network.head_version(1, 1)]
    forged = Key.generate(world.network.controller).certify(
        world.controller.name, world.controller.spki, world.now, 1e6, "anchor"
    )
    shelf.put(head, forged)
    node.endpoint.faces[7] = shelf

    async def scenario():
        node.client.on_hello(7, "n2", 1, 1)
        await node.until(lambda: node.client.order == (1, 1))

    run(scenario())
    assert node.client.session.rejected == {"bad certificate": 1}
    assert node.client.snapshot()["decision"]["source"] == "neighbor n2"


def test_the_decision_waits_for_an_executor_that_is_not_there_yet(world, node):
    """A refused connection is tried again until the executor has the newest state."""
    node.executor.failures = 3
    world.one_service()

    async def scenario():
        await node.until(lambda: "executor" in node.client.snapshot()["problems"])
        await node.until(lambda: node.executor.applied)

    run(scenario())
    assert "executor" not in node.client.snapshot()["problems"]


def test_a_fetch_that_a_newer_decision_makes_useless_is_ended(world, node):
    """A node that is no head any more stops carrying the image."""
    world.one_service(1)
    started = []

    async def never(ref):
        started.append(ref)
        await asyncio.Event().wait()

    node.blobs.gate = never

    async def scenario():
        running = asyncio.create_task(node.client.run())
        while not started:  # noqa: ASYNC110 - the code under test offers no event
            await asyncio.sleep(0.005)
        world.one_service(2, heads=("n2",))
        while node.client.order != (1, 2) or node.client._fetching.is_busy:
            assert not running.done()
            await asyncio.sleep(0.005)
        running.cancel()

    run(asyncio.wait_for(scenario(), 5))
    assert len(started) <= 2 and node.blobs.disk == {}


class Neighbors:
    """Custody that remembers what it was told."""

    def __init__(self):
        self.wanted, self.let_go = {}, []

    def want(self, ref, holders=(), priority=5):
        self.wanted[ref.sha256] = tuple(holders)

    def satisfied(self, sha256):
        self.let_go.append(sha256)


def test_what_nobody_brings_is_wanted_of_the_neighbours(world, node):
    """A blob out of reach goes to custody with its holders; when it comes that way it counts, and is withdrawn."""
    world.one_service()
    repository, world.blobs.holders[b""] = world.blobs.holders[b""], {}
    sections = {sha256: content for sha256, content in repository.items() if len(content) > 100}
    world.blobs.holders[b""].update(sections)
    neighbors = Neighbors()
    node.client.entrust(neighbors)
    missing = {sha256: content for sha256, content in repository.items() if sha256 not in sections}

    async def scenario():
        await node.until(lambda: missing.keys() <= neighbors.wanted.keys())
        assert not images_held(node) and not neighbors.let_go
        assert set(neighbors.wanted.values()) == {("n2", "repo")}
        world.blobs.disk.update(missing)
        await node.until(lambda: missing.keys() <= set(neighbors.let_go))

    run(scenario())
    assert images_held(node)


def test_a_full_disk_is_no_reason_to_ask_neighbours(world, node):
    """What can't be kept is not wanted, and what is not needed any more is withdrawn."""
    world.one_service(1)
    neighbors = Neighbors()
    node.client.entrust(neighbors)

    async def full(ref):
        raise OSError(28, "No space left on device")

    async def gone(ref):
        raise world.unreachable("nobody has it")

    async def scenario():
        node.blobs.gate = full
        await node.until(lambda: any("No space" in text for text in node.client.snapshot()["problems"].values()))
        assert not neighbors.wanted
        node.blobs.gate = gone
        await node.until(lambda: neighbors.wanted)
        world.one_service(2, heads=("n2",))
        await node.until(lambda: set(neighbors.let_go) == neighbors.wanted.keys())

    run(scenario())


def test_a_full_disk_is_reported_and_the_decision_is_in_force_all_the_same(world, tmp_path, node, monkeypatch):
    """What cannot be stored is followed while the process lives, and status says so."""

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(node.client.store, "save", full)
    world.one_service()
    run(node.until(lambda: len(node.executor.applied) == 2))
    assert "No space left" in node.client.snapshot()["problems"]["decision store"]


def test_the_snapshot_is_json_and_says_what_matters(world, tmp_path):
    """`picasso-gateway services` prints from this: role, heads, image, and no bytes objects."""
    node = Node(world, tmp_path, "n2", executor=False)
    world.one_service(heads=("n1", "n2<n1"), members={"n2": "n2", "n3": "n1"})
    run(node.until(lambda: node.client.order == (1, 1) and images_held(node)))
    snapshot = json.loads(json.dumps(node.client.snapshot()))
    (service,) = snapshot["services"]
    assert (service["name"], service["role"], service["parent"], service["served_by"]) == ("radio", "head", "n1", "n2")
    assert [head["node"] for head in service["heads"]] == ["n1", "n2"]
    assert service["image"]["bytes"] == service["image"]["bytes_held"] == 45 + len("manifest of radio")
    assert snapshot["decision"]["epoch"] == 1 and snapshot["decision"]["complete"]


def test_an_unreachable_controller_is_a_problem_in_words_until_it_answers(world, node):
    """Status says that the controller does not answer, and stops saying so when it does."""

    async def scenario():
        await node.until(lambda: "controller" in node.client.snapshot()["problems"])
        world.one_service()
        await node.until(lambda: node.executor.applied and images_held(node))

    run(scenario())
    assert node.client.snapshot()["problems"] == {}


def test_a_lasting_failure_is_logged_once(world, node, caplog):
    """A head that comes with every poll and cannot be proven is one warning, not one a poll."""
    caplog.set_level("WARNING")
    world.one_service()
    world.publish([], 1, epoch=2)  # without the anchor's statement

    async def scenario():
        await node.until(lambda: node.client.session.rejected["unproven"] >= 4)

    run(scenario())
    warnings = [record for record in caplog.records if "epoch" in record.getMessage()]
    assert len(warnings) == 1
    assert any("epoch" in text for text in node.client.snapshot()["problems"].values())


def test_whether_a_key_is_revoked_is_known_when_the_controller_has_answered(world, node):
    """Until then nobody can say; afterwards the head is named, and a key that is not revoked has no reason."""
    mine, other = (Key.generate(world.network.node(name)).name for name in ("n1", "n2"))

    async def scenario():
        asked = [asyncio.create_task(node.client.revocation_of(name)) for name in (mine, other)]
        await asyncio.sleep(0.05)
        assert not any(task.done() for task in asked)
        world.publish([], 3, revocations=(hashlib.sha256(mine).digest(),))
        await node.until(lambda: all(task.done() for task in asked))
        told.extend(task.result() for task in asked)

    told = []
    run(scenario())
    assert told == ["revoked by head 1.3", ""]
