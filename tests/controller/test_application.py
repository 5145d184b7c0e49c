import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from controller.application import Application, Catalogue
from controller.enrolment import Enrolment
from gateway.protocol import codec, keys, names
from gateway.protocol.keys import Key
from gateway.protocol.messages import EnrolReply, EnrolRequest, Head
from gateway.protocol.trust import enrol_proof
from tests.controller.fakes import FakeFace, Home

SECRET = b"s" * 16


async def inline(call: Callable[[], Any], /) -> Any:
    return call()


def serve(home: Home, enrolled: list[str] | None = None) -> tuple[Application, FakeFace]:
    enrolment = Enrolment(home.store, home.authority.certify_node)
    record = (lambda node, _: enrolled.append(node)) if enrolled is not None else (lambda *_: None)
    application = Application(home.authority, enrolment, inline, record)
    return application, FakeFace()


def run(job: Awaitable[Any]) -> Any:
    async def main() -> Any:
        return await job

    return asyncio.run(main())


def test_newest_head_answers_the_prefix_and_its_own_name(home: Home) -> None:
    """CanBePrefix on the head's name brings the newest version; an older exact name brings nothing."""
    application, face = serve(home)
    run(application.attach(face, []))
    wires = [home.authority.sign_head(Head("/net", 1, version, 0.0, 1.0)) for version in (9, 300)]
    application.heads.replace(wires)
    assert run(face.ask(home.network.head, can_be_prefix=True)) == wires[1]
    assert run(face.ask(home.network.head_version(1, 9))) == wires[0]
    assert run(face.ask(home.network.head)) is None
    assert run(face.ask(home.network.head_version(2, 1))) is None


def test_certificates_answer_by_key_name(home: Home) -> None:
    """Anchor, controller, provider and node certificates are found by the name of their key."""
    application, face = serve(home)
    node = home.enrol("n1")
    application.certificates.replace(home.authority.trust.certificates)
    run(application.attach(face, ["n1"]))
    provider = Key.load(home.settings.state_dir / "providers" / "main.key")
    for name in (home.network.prefix + keys.KEY, home.network.controller + keys.KEY, provider.name, node.name):
        wire = run(face.ask(name, can_be_prefix=True))
        assert wire is not None and keys.parse(wire).name.startswith(name)


def test_epoch_statement_answers_by_its_name_and_never_for_the_anchor(home: Home) -> None:
    """`N/KEY/epoch/v=n` brings the anchor's statement; CanBePrefix on `N/KEY` brings the anchor's certificate."""
    application, face = serve(home)
    application.certificates.replace(home.authority.trust.certificates)
    run(application.attach(face, []))
    assert run(face.ask(home.network.epoch(2), can_be_prefix=True)) is None
    home.authority.raise_epoch(2)
    statement = home.authority.epoch_statement()
    assert statement is not None and statement[0] == 2
    application.epochs.replace([statement[1]])
    for can_be_prefix in (False, True):
        assert run(face.ask(home.network.epoch(2), can_be_prefix=can_be_prefix)) == statement[1]
    assert run(face.ask(home.network.prefix + keys.KEY, can_be_prefix=True)) == home.authority.trust.anchor_wire
    assert keys.parse(statement[1]).name == home.network.epoch(2)


def test_prefixes_are_registered(home: Home) -> None:
    """The gateway sends us what is ours, and of a node nothing but its certificates."""
    application, face = serve(home)
    run(application.attach(face, ["n1"]))
    uris = {names.to_uri(name) for name in face.registered}
    assert uris == {"/net/controller", "/net/provider", "/net/blob", "/net/KEY", "/net/node/n1/KEY"}


def test_enrolment_over_the_network(home: Home) -> None:
    """A nonce and a proof bring a certificate, both replies signed by the controller under the Interests' names."""
    enrolled: list[str] = []
    application, face = serve(home, enrolled)
    run(application.attach(face, []))
    home.store.add_token("t1", "n1", SECRET, 1e12)
    place = home.network.enrol + names.component("t1")
    nonce = home.authority.trust.verify(run(face.ask(place + names.component("nonce"))))
    key = Key.generate(home.network.node("n1"))
    request = EnrolRequest("n1", key.spki, nonce.content, enrol_proof(SECRET, nonce.content, "n1", key.spki))
    name = place + names.component("request") + names.component(b"\0" * 32, names.PARAMETERS_DIGEST)
    packet = home.authority.trust.verify(run(face.ask(name, parameters=codec.encode(request))))
    assert packet.name == name
    home.authority.trust.add_certificate(codec.decode(EnrolReply, packet.content).certificate)
    assert enrolled == ["n1"] and application.counters["enrolled"] == 1


@pytest.mark.parametrize("parameters", [None, b"", b"\xff", b"\xa0", b"\xa4" + b"x" * 5000])
def test_malformed_enrolment_is_dropped_and_counted(home: Home, parameters: bytes | None) -> None:
    """Rubbish gets no answer and no exception."""
    application, face = serve(home)
    run(application.attach(face, []))
    for tail in (b"", names.component("t1"), names.component(b"\xff\xfe") + names.component("nonce")):
        assert run(face.ask(home.network.enrol + tail, parameters=parameters)) is None
    name = home.network.enrol + names.component("t1") + names.component("request")
    assert run(face.ask(name, parameters=parameters)) is None
    assert sum(application.counters.values()) == 4


def test_catalogue_takes_versions_in_numeric_order(home: Home) -> None:
    """Versions of one and of more bytes compare as numbers, and a digest must fit."""
    key = Key.load(home.settings.state_dir / "providers" / "main.key")
    wires = {n: key.sign(home.network.service("main", "s", n), b"%d" % n) for n in (2, 255, 256, 70_000)}
    catalogue = Catalogue()
    catalogue.replace(wires.values())
    prefix = home.network.service("main", "s", 2)[: -len(names.version(2))]
    assert catalogue.find(prefix, True) == wires[70_000]
    assert catalogue.find(prefix, False) is None
    name = home.network.service("main", "s", 255)
    assert catalogue.find(name, False, keys.parse(wires[255]).digest) == wires[255]
    assert catalogue.find(name, False, b"\0" * 32) is None
    other = key.sign(home.network.service("main", "t", 1), b"")
    catalogue.add(other)
    assert catalogue.find(prefix, True) == wires[70_000]


def test_report_is_asked_of_the_node_itself(home: Home) -> None:
    """The Interest for a report names its node in the forwarding hint."""
    application, face = serve(home)
    face.answers[home.network.report("n1")] = b"wire"
    assert run(application.fetch_report(face, "n1")) == b"wire"
    assert face.asked == [(home.network.report("n1"), (home.network.node("n1"),))]
