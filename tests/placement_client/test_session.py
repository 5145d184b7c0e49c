"""The session against real packets: what it takes, what it refuses and counts, and what stays in force meanwhile."""

from __future__ import annotations

import dataclasses
import hashlib

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gateway.placement_client.decision import SectionNeed, SpecificationNeed
from gateway.placement_client.session import Clock, EpochUnproven, Session, Verdict
from gateway.protocol import codec
from gateway.protocol.errors import ProtocolError, UnknownKey
from gateway.protocol.keys import Key
from gateway.protocol.messages import Section, SectionRef


def in_force(world, session, wire):
    assert session.offer_head(wire, "controller", world.clock) is Verdict.NEWER
    world.complete(session)
    assert session.is_adoptable(give_up=False)
    return session.adopt()


def near(node):
    return 0.0


def test_a_newer_head_goes_in_force_when_its_sections_and_specifications_are_there(world):
    """A head is a draft until everything it names for this node is verified, and then it is the decision."""
    session = world.session()
    assert session.offer_head(world.one_service(), "controller", world.clock) is Verdict.NEWER
    assert session.decision is None
    (need,) = session.needs()
    assert isinstance(need, SectionNeed)
    assert not session.is_adoptable(give_up=True)
    assert session.add_section(need.ref, world.content(need.ref.blob))
    (need,) = session.needs()
    assert isinstance(need, SpecificationNeed)
    assert session.add_specification(need.place, world.shelf.packets[need.name])
    decision = session.adopt()
    assert session.order == (1, 1)
    assert [placed.specification.name for placed in decision.in_order()] == ["radio"]
    assert session.rejected == {}


def test_only_sections_of_the_own_zone_and_of_the_whole_network_are_asked_for(world):
    """A node of zone sants never fetches what was decided for gracia."""
    spec = world.specification("radio")
    refs = [world.section("radio", spec, zone=zone) for zone in ("", "sants", "gracia")]
    session = world.session(zone="sants")
    session.offer_head(world.head(refs), "controller", world.clock)
    assert [need.ref.zone for need in session.needs()] == ["", "sants"]


def test_the_same_head_again_is_known_and_no_rejection(world):
    """Polling an unchanged head is the normal case and not an event."""
    session, wire = world.session(), world.one_service()
    in_force(world, session, wire)
    assert session.offer_head(wire, "controller", world.clock) is Verdict.KNOWN
    assert session.rejected == {}


def test_an_older_head_is_refused_and_counted(world):
    """A replayed head cannot take a gateway back."""
    session, old = world.session(), world.one_service(1)
    new = in_force(world, session, world.one_service(2))
    assert session.offer_head(old, "neighbor n9", world.clock) is Verdict.REFUSED
    assert session.rejected == {"older head": 1}
    assert "1.1" in session.last_rejection and "neighbor n9" in session.last_rejection
    assert session.decision is new and session.draft is None


def test_another_head_under_the_same_number_is_refused(world):
    """Two signed heads of one number are a controller gone wrong: the first stays."""
    session = world.session()
    in_force(world, session, world.one_service(1))
    other = world.head([], 1)
    assert session.offer_head(other, "controller", world.clock) is Verdict.REFUSED
    assert session.rejected == {"conflicting head": 1}


@pytest.mark.parametrize("signer", ["provider", "stranger"])
def test_a_wrongly_signed_head_is_refused_and_counted(world, signer):
    """Neither a provider of the network nor a self-made controller may decide."""
    session = world.session()
    decision = in_force(world, session, world.one_service(1))
    key = world.provider if signer == "provider" else Key.generate(world.network.node("evil"))
    assert session.offer_head(world.head([], 2, signer=key), "controller", world.clock) is Verdict.REFUSED
    assert session.rejected == {"bad head": 1}
    assert "may not say this" in session.last_rejection
    assert session.decision is decision


def test_a_head_whose_bytes_were_changed_is_refused(world):
    """One flipped bit in the content is a wrong signature."""
    session, wire = world.session(), bytearray(world.one_service())
    wire[len(wire) // 2] ^= 1
    assert session.offer_head(bytes(wire), "controller", world.clock) is Verdict.REFUSED
    assert session.rejected == {"bad head": 1}


def test_a_head_signed_with_an_unknown_controller_key_asks_for_the_certificate(world):
    """The session names the certificate that must come first, and takes the head once it is there."""
    session, wire = world.session(certificates=False), world.one_service()
    with pytest.raises(UnknownKey) as caught:
        session.offer_head(wire, "controller", world.clock)
    assert caught.value.key_name == world.controller.name
    certificate = next(w for name, w in world.shelf.packets.items() if name.startswith(world.controller.name))
    assert session.add_certificate(certificate, "controller", world.clock)
    assert session.offer_head(wire, "controller", world.clock) is Verdict.NEWER


def test_a_certificate_that_the_anchor_did_not_sign_is_refused(world):
    """A self-made controller certificate does not enter the trust store."""
    session, fake = world.session(certificates=False), Key.generate(world.network.controller)
    wire = fake.certify(fake.name, fake.spki, world.now, 1e6, "anchor")
    assert not session.add_certificate(wire, "neighbor n9", world.clock)
    assert session.rejected == {"bad certificate": 1}


@pytest.mark.parametrize(
    ("fields", "why"),
    [
        ({"network": "/guifi/gracia"}, "network"),
        ({"epoch": -1}, "out of range"),
        ({"issued": float("nan")}, "float"),
    ],
)
def test_a_signed_head_with_senseless_content_is_refused(world, fields, why):
    """The controller's signature does not make a head of another network or an impossible number acceptable."""
    session = world.session()
    wire = world.head(name=world.network.head_version(1, 1), **fields)
    assert session.offer_head(wire, "controller", world.clock) is Verdict.REFUSED
    assert why in session.last_rejection


def test_a_head_in_a_packet_of_another_number_is_refused(world):
    """Version 2 in a packet named version 9 would let a cache lie about what is newest."""
    session = world.session()
    wire = world.head([], 2, name=world.network.head_version(1, 9))
    assert session.offer_head(wire, "controller", world.clock) is Verdict.REFUSED
    assert "holds head 1.2" in session.last_rejection


def test_an_expired_head_is_refused_only_where_the_clock_is_trusted(world):
    """Expiry is judged by a synchronized clock that does not run behind what is known to have happened."""
    late = world.now + 7200
    wire = world.one_service()
    for clock, floor, verdict in [
        (Clock(late, synchronized=True), 0.0, Verdict.REFUSED),
        (Clock(late, synchronized=False), 0.0, Verdict.NEWER),
        (Clock(late, synchronized=True), late + 1, Verdict.NEWER),
    ]:
        session = world.session()
        session.floor_time = floor
        assert session.offer_head(wire, "controller", clock) is verdict
    assert world.session().is_clock_trusted(Clock(1.0, synchronized=True))


def test_the_time_floor_rises_with_every_decision(world):
    """A clock that says less than the newest verified `issued` is wrong."""
    session = world.session()
    in_force(world, session, world.one_service())
    assert not session.is_clock_trusted(Clock(world.now - 1, synchronized=True))
    assert session.is_clock_trusted(Clock(world.now, synchronized=True))


def test_a_later_epoch_needs_the_anchor(world):
    """A controller key alone cannot jump the numbers: the anchor's statement must come first."""
    session = world.session()
    in_force(world, session, world.one_service())
    wire = world.head([], 1, epoch=2)
    with pytest.raises(EpochUnproven) as caught:
        session.offer_head(wire, "controller", world.clock)
    name = caught.value.name
    assert not session.add_epoch(world.controller.sign(name, b""), "controller")
    assert session.rejected == {"bad epoch": 1}
    assert session.add_epoch(world.anchor.sign(name, b""), "controller")
    assert session.offer_head(wire, "controller", world.clock) is Verdict.NEWER


def test_a_section_with_other_bytes_is_refused_and_asked_for_again(world):
    """The hash in the head decides what a section is."""
    session = world.session()
    session.offer_head(world.one_service(), "controller", world.clock)
    (need,) = session.needs()
    assert not session.add_section(need.ref, world.content(need.ref.blob) + b"\0")
    assert session.rejected == {"section hash": 1}
    assert session.needs() == [need]


def test_a_section_of_another_service_is_refused_for_good(world):
    """A section must be about the service and zone that the head lists it under."""
    spec = world.specification("radio")
    ref = world.section("radio", spec, ["n1"])
    lie = type(ref)("", "wiki", ref.blob)
    session = world.session()
    session.offer_head(world.head([lie]), "controller", world.clock)
    session.add_section(lie, world.content(lie.blob))
    assert session.needs() == []
    (placed,) = session.draft.in_order()
    assert "radio" in placed.refusal
    assert session.is_adoptable(give_up=False)


@pytest.mark.parametrize("name", ["provider, cut short", "controller", "no digest"])
def test_a_section_that_names_no_specification_of_a_provider_is_refused(world, name):
    """Bytes that are no name, a name elsewhere, or a digest that is none never reach an Interest."""
    spec = world.specification("radio")
    section = codec.decode(Section, world.content(world.section("radio", spec, ["n1"]).blob))
    wrong = {
        "provider, cut short": {"specification": world.network.providers + b"\x08\x7fx"},
        "controller": {"specification": world.network.controller},
        "no digest": {"specification_digest": b"short"},
    }[name]
    ref = SectionRef("", "radio", world.blob(codec.encode(dataclasses.replace(section, **wrong))))
    session = world.session()
    session.offer_head(world.head([ref]), "controller", world.clock)
    session.add_section(ref, world.content(ref.blob))
    assert session.needs() == [] and session.rejected == {"bad section": 1}


@pytest.mark.parametrize("case", ["other provider", "other service", "other packet"])
def test_a_specification_by_somebody_else_is_refused_with_its_reason(world, case):
    """What may run is the named provider's word alone, whatever the controller says."""
    other = world.certified(world.network.provider("evil"))
    session = world.session()
    if case == "other provider":
        spec = world.specification("radio", signer=other)
    elif case == "other service":
        spec = world.specification("wiki")
    else:
        spec = world.specification("radio")
    session.offer_head(world.head([world.section("radio", spec, ["n1"])]), "controller", world.clock)
    (need,) = session.needs()
    session.add_section(need.ref, world.content(need.ref.blob))
    (need,) = session.needs()
    if case == "other packet":
        assert not session.add_specification(need.place, world.specification("radio", cpu=0.1))
        assert session.rejected == {"specification hash": 1}
        assert session.needs() == [need]
        return
    assert not session.add_specification(need.place, spec)
    assert session.rejected == {"bad specification": 1}
    assert session.is_adoptable(give_up=False)
    (placed,) = session.adopt().in_order()
    assert placed.refusal and placed.specification is None
    assert session.blob_needs(near) == []


def test_one_bad_specification_does_not_hold_up_the_other_services(world):
    """A refused service is left out, with its section, and the others go in force."""
    evil = world.certified(world.network.provider("evil"))
    bad = world.section("bad", world.specification("bad", signer=evil), ["n1"])
    good = world.section("radio", world.specification("radio"), ["n1"])
    session = world.session()
    session.offer_head(world.head([bad, good]), "controller", world.clock)
    world.complete(session)
    decision = session.adopt()
    assert len(decision.sections) == 2 and len(decision.specifications) == 1
    assert {need.service for need in session.blob_needs(near)} == {"radio"}


def test_a_specification_nobody_has_delays_only_the_nodes_that_run_the_service(world):
    """After one full try the rest goes in force, except where the service is running by the old decision."""
    runs, other = world.session("n1"), world.session("n5")
    for session in (runs, other):
        in_force(world, session, world.one_service(1))
    update = world.one_service(2)
    for session in (runs, other):
        session.offer_head(update, "controller", world.clock)
        (need,) = session.needs()
        session.add_section(need.ref, world.content(need.ref.blob))
        assert not session.is_adoptable(give_up=False)
    assert not runs.is_adoptable(give_up=True)
    assert other.is_adoptable(give_up=True)
    other.adopt()
    (need,) = other.needs()
    assert other.add_specification(need.place, world.shelf.packets[need.name])
    assert other.needs() == []


def test_what_did_not_change_is_carried_over(world):
    """A new head costs only the sections that are new."""
    radio = world.section("radio", world.specification("radio"), ["n1"])
    wiki = world.section("wiki", world.specification("wiki"), ["n2"])
    session = world.session()
    in_force(world, session, world.head([radio]))
    session.offer_head(world.head([radio, wiki], 2), "controller", world.clock)
    assert [need.ref.service for need in session.needs()] == ["wiki"]


def test_a_revoked_provider_stops_being_believed_with_the_head_that_revokes_it(world):
    """Revocation reaches a service that was accepted before; the anchor itself cannot be revoked by a controller."""
    radio = world.section("radio", world.specification("radio"), ["n1"])
    session = world.session()
    in_force(world, session, world.head([radio]))
    revoked = tuple(hashlib.sha256(key.name).digest() for key in (world.provider, world.anchor))
    session.offer_head(world.head([radio], 2, revocations=revoked), "controller", world.clock)
    world.complete(session)
    (placed,) = session.adopt().in_order()
    assert "revoked" in placed.refusal
    key = Key.generate(world.network.provider("new"))
    assert session.add_certificate(world.anchor.certify(key.name, key.spki, world.now, 1e6, "anchor"), "x", world.clock)


def test_blobs_are_wanted_where_the_service_runs_and_where_it_stands_by(world):
    """Heads come before stand-bys, a blob shared by services is wanted once, other nodes want nothing."""
    radio = world.section("radio", world.specification("radio"), ["n2"], standbys=("n1",))
    shared = world.blob(b"radio" * 9)
    wiki = world.section("wiki", world.specification("wiki", blobs=(shared,)), ["n1<n7", "n2"])
    session = world.session("n1")
    in_force(world, session, world.head([radio, wiki]))
    needs = session.blob_needs(near)
    assert [need.service for need in needs] == ["wiki", "wiki", "radio"]
    assert len({need.ref.sha256 for need in needs}) == 3
    bystander = world.session("n8")
    in_force(world, bystander, world.head([radio, wiki]))
    assert bystander.blob_needs(near) == []


def test_holders_are_the_parent_then_other_heads_by_distance_then_the_origin(world):
    """The delivery tree first, the nearest copies next, the repository at last; who has that beside it begins there."""
    spec = world.specification("radio")
    session = world.session("n1")
    in_force(world, session, world.head([world.section("radio", spec, ["n1<n4", "n2", "n3"])]))
    distance = {"n2": 9.0, "n3": 1.0, "n4": 5.0}
    assert session.blob_needs(distance.__getitem__)[0].holders == ("n4", "n3", "n2", "repo")
    origin = world.session("repo")
    in_force(world, origin, world.head([world.section("radio", spec, ["repo<repo", "n2"])]))
    assert origin.blob_needs(near)[0].holders == ("repo", "n2")


@pytest.mark.parametrize("field", ["sha256", "size"])
def test_a_specification_with_an_impossible_blob_is_refused(world, field):
    """A digest of another length or a negative size never reaches the disk."""
    ref = world.blob(b"x")
    broken = type(ref)(b"../../etc" if field == "sha256" else ref.sha256, -1 if field == "size" else 1, ref.root)
    spec = world.specification("radio", blobs=(broken,))
    session = world.session()
    session.offer_head(world.head([world.section("radio", spec, ["n1"])]), "controller", world.clock)
    world.complete(session)
    assert session.rejected == {"bad specification": 1}


def test_a_stored_decision_is_verified_again_and_never_for_its_expiry(world):
    """What lies on disk goes through the same checks; what runs goes on running after the head has expired."""
    session = world.session()
    decision = in_force(world, session, world.one_service())
    stored = (decision.head_wire, session.trust.certificates, decision.sections, decision.specifications)
    again = world.session(certificates=False)
    again.floor_time = world.now + 1e9
    assert again.restore(*stored).complete
    assert again.order == (1, 1) and again.needs() == []
    for part, broken in [(0, world.head([], 2, signer=world.provider)), (2, ())]:
        fresh = world.session(certificates=False)
        with pytest.raises(ProtocolError):
            fresh.restore(*(broken if at == part else value for at, value in enumerate(stored)))
        assert fresh.decision is None and fresh.draft is None


def test_a_lost_decision_still_keeps_older_heads_out(world):
    """With the floor kept apart, the same head is taken again and an older one is not."""
    session = world.session()
    session.floor_order = (1, 2)
    assert session.offer_head(world.one_service(1), "controller", world.clock) is Verdict.REFUSED
    assert session.offer_head(world.one_service(2), "controller", world.clock) is Verdict.NEWER


@given(st.integers(-(2**70), 2**70), st.integers(-(2**70), 2**70))
@settings(max_examples=60, deadline=None)
def test_any_number_in_a_hello_is_judged_without_an_error(epoch, version):
    """A hello may claim anything; news is what fits in a version number and is greater than what we have."""
    session = Session.__new__(Session)
    session.decision = session.draft = None
    session.floor_order = (1, 5)
    fits = 0 <= epoch < 2**32 and 0 <= version < 2**32
    assert session.is_news(epoch, version) == (fits and (epoch, version) >= (1, 5))


@given(st.binary(max_size=60), st.integers(0, 10_000), st.integers(0, 255))
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_random_and_changed_packets_are_refused_and_counted(world, junk, at, value):
    """Whatever bytes come as a head, a certificate or an epoch: a count and a reason, never an exception."""
    session, wire = world.session(), bytearray(world.one_service())
    wire[at % len(wire)] ^= value
    for bad in (junk, bytes(wire[: at % len(wire)]), bytes(wire) if value else junk):
        try:
            assert session.offer_head(bad, "neighbor n9", world.clock) is Verdict.REFUSED
        except UnknownKey:  # a changed key locator: the client asks for that certificate, and then gives up
            session.reject("unproven", "")
        assert not session.add_certificate(bad, "neighbor n9", world.clock)
        assert not session.add_epoch(bad, "neighbor n9")
    assert sum(session.rejected.values()) == 9
