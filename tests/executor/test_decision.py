"""The four-way check: head by the controller, section by its hash, specification by the provider, owner's policy."""

from __future__ import annotations

import hashlib
import os
from dataclasses import replace

import pytest
from executor_world import World
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.executor import decision as decisions
from gateway.executor.decision import Decision, Refused
from gateway.protocol import codec
from gateway.protocol.executor_messages import Desired
from gateway.protocol.keys import Key
from gateway.protocol.messages import BlobRef, Head, Port, SectionRef, ServiceSpec

REF = BlobRef(b"\1" * 32, 1, b"\2" * 32)
SPEC = ServiceSpec("hello", 1, "ann", REF, (REF,), ports=(Port(8080, 8000),))


def verify(world: World, desired: Desired, stored: Decision | None = None, node: str = "n1") -> Decision:
    return decisions.verify(desired, world.trust(), node, stored)


def test_a_decision_names_what_this_node_runs(world: World) -> None:
    """The assigned service comes with its verified specification; another node gets nothing from the same decision."""
    wire = world.sign_spec(SPEC)
    (assignment,) = verify(world, world.decide([wire])).assignments
    assert assignment.generation is not None and assignment.generation.spec == SPEC
    assert assignment.generation.digest == hashlib.sha256(wire).digest()
    assert verify(world, world.decide([wire]), node="n2").assignments == ()


def test_a_head_that_the_controller_did_not_sign_is_refused(world: World) -> None:
    """A provider's key, a stranger's key, no key and a flipped bit: the whole decision is refused."""
    wire = world.sign_spec(SPEC)
    stranger = Key.generate(world.network.controller)
    for desired in (world.decide([wire], key=world.provider_key), world.decide([wire], key=stranger)):
        with pytest.raises(Refused, match="the head is refused"):
            verify(world, desired)
    good = world.decide([wire])
    for head in (b"", os.urandom(100), good.head[:-1], good.head[:-1] + bytes([good.head[-1] ^ 1])):
        with pytest.raises(Refused, match="the head is refused"):
            verify(world, replace(good, head=head))


def test_a_head_of_another_network_is_refused(world: World) -> None:
    """The network in the head is compared with this node's."""
    with pytest.raises(Refused, match="network /other"):
        verify(world, world.decide([], network="/other"))


def test_an_older_head_is_refused_and_the_same_one_is_not(world: World) -> None:
    """(epoch, version) decides: older is refused, equal only if it is the same head, newer is accepted."""
    wire = world.sign_spec(SPEC)
    same = world.decide([wire], epoch=2, version=5)
    stored = verify(world, same)
    for epoch, version in ((2, 4), (1, 9)):
        with pytest.raises(Refused, match="older than the stored one"):
            verify(world, world.decide([wire], epoch=epoch, version=version), stored)
    with pytest.raises(Refused, match="another head"):
        verify(world, world.decide([wire], epoch=2, version=5, issued=1.0), stored)
    assert verify(world, same, stored).assignments == stored.assignments
    assert verify(world, world.decide([wire], epoch=3, version=1), stored).head.order == (3, 1)


def test_a_section_that_the_head_does_not_name_is_as_if_it_were_not_there(world: World) -> None:
    """A forged section has another hash: the service waits for the true one."""
    good = world.decide([world.sign_spec(SPEC)])
    (assignment,) = verify(world, replace(good, sections=(good.sections[0] + b"\0",))).assignments
    assert assignment.generation is None and "section" in assignment.pending


def test_a_specification_not_here_yet_is_waited_for_and_taken_from_the_store_when_it_is_there(world: World) -> None:
    """A new head without its specification leaves the service pending; what an earlier decision brought is used."""
    wire = world.sign_spec(SPEC)
    partial = replace(world.decide([wire], version=2), specifications=())
    assert "specification" in verify(world, partial).assignments[0].pending
    stored = verify(world, world.decide([wire], version=1))
    bare = replace(partial, sections=(), certificates=())
    assert verify(world, bare, stored).assignments[0].generation.spec == SPEC


def test_a_specification_that_its_provider_did_not_sign_is_refused(world: World) -> None:
    """The controller may decide where and when, never what: its signature on a specification counts for nothing."""
    for key in (
        world.controller_key,
        Key.generate(world.network.provider("ann")),
        Key.generate(world.network.provider("bob")),
    ):
        desired = world.decide([world.sign_spec(SPEC, key)])
        (assignment,) = verify(
            world, replace(desired, certificates=(*desired.certificates, world.certify(key)[:-1]))
        ).assignments
        assert assignment.generation is None and assignment.refusal


def test_a_specification_under_another_name_is_refused(world: World) -> None:
    """A provider cannot sign version 2 under the name of version 1."""
    name = world.network.service("ann", "hello", 1)
    wire = world.provider_key.sign(name, codec.encode(replace(SPEC, version=2)))
    (assignment,) = verify(world, world.decide([wire])).assignments
    assert "version 2" in assignment.refusal


def test_a_revoked_provider_runs_nothing(world: World) -> None:
    """A head that revokes the provider's key makes its specifications refused, in later decisions too."""
    wire = world.sign_spec(SPEC)
    revoked = hashlib.sha256(world.provider_key.name).digest()
    stored = verify(world, world.decide([wire], revocations=(revoked,)))
    assert "revoked" in stored.assignments[0].refusal
    assert "revoked" in verify(world, world.decide([wire], version=2), stored).assignments[0].refusal


def test_certificates_come_in_any_order_and_bad_ones_are_told_of(world: World) -> None:
    """The order does not matter, damaged ones are noted, and only good ones are kept."""
    good = world.decide([world.sign_spec(SPEC)])
    decision = verify(world, replace(good, certificates=(b"junk", *reversed(good.certificates))))
    assert decision.assignments[0].generation is not None
    assert len(decision.notes) == 1 and b"junk" not in decision.used.certificates


def test_a_damaged_section_that_the_head_names_is_refused_with_its_service(world: World) -> None:
    """Bytes that hash right but are no section refuse that service and no other."""
    wire = world.sign_spec(SPEC)
    good = world.section(wire, "n1")
    refs = tuple(SectionRef("", name, world.ref(s)) for name, s in (("bad", b"junk"), ("hello", good)))
    desired = replace(world.decide([], sections=refs), sections=(b"junk", good), specifications=(wire,))
    bad, hello = verify(world, desired).assignments
    assert "damaged" in bad.refusal and hello.generation is not None


@settings(deadline=None)
@given(st.binary(max_size=300), st.lists(st.binary(max_size=100), max_size=3))
def test_random_bytes_are_refused(world_of_bytes: World, head: bytes, others: list[bytes]) -> None:
    """Whatever bytes come, the answer is a refusal and no other exception."""
    with pytest.raises(Refused):
        verify(world_of_bytes, Desired(head, tuple(others), tuple(others), tuple(others)))


@pytest.fixture(scope="module")
def world_of_bytes(tmp_path_factory: pytest.TempPathFactory) -> World:
    return World(tmp_path_factory.mktemp("world"))


def test_a_head_whose_name_says_another_version_is_refused(world: World) -> None:
    """Name and content of a head agree, so that nobody is offered a version that is none."""
    head = Head("/test", 1, 1, 0.0, 1.0)
    wire = world.controller_key.sign(world.network.head_version(1, 9), codec.encode(head))
    with pytest.raises(Refused, match="version 1"):
        verify(world, replace(world.decide([]), head=wire))
