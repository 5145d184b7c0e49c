"""Registration as NDN applications ask for it: both forms of a signed command, and every refusal."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from ndn import encoding as reference
from ndn.app_support.nfd_mgmt import make_command, make_command_v2, parse_response
from ndn.security.signer.sha256_digest_signer import DigestSha256Signer
from ndn.security.validator.digest_validator import sha256_digest_checker

from gateway.forwarder import packet
from gateway.forwarder.management import PREFIX, Management
from gateway.forwarder.packet import Data, decode_data, decode_interest
from gateway.protocol import names
from tests.forwarder.topology import App, Network, Node


def node_with_management() -> tuple[Network, Node, App]:
    """A node whose forwarder is managed, and an application on it."""
    network = Network()
    node = network.node("a")
    management = Management(node.forwarder)
    face = node.app(answer=management.on_interest)
    face.local_fields = True
    node.forwarder.fib.add(PREFIX, face.id, 0, "internal")
    return network, node, node.app()


def command_v2(verb: str, module: str = "rib", **parameters: Any) -> bytes:
    """A command with four trailing name components, as `ndn.app` sends it."""
    name = make_command(module, verb, **parameters)
    return bytes(reference.make_interest(name, reference.InterestParam(nonce=1, lifetime=1000, must_be_fresh=True)))


def command_v3(verb: str, module: str = "rib", **parameters: Any) -> bytes:
    """A signed Interest of format 0.3, as `ndn.appv2`, ndn-cxx and NDNts send it."""
    name = make_command_v2(module, verb, **parameters)
    param = reference.InterestParam(nonce=1, lifetime=1000)
    return bytes(reference.make_interest(name, param, b"", DigestSha256Signer(for_interest=True)))


def reply_to(network: Network, app: App, wire: bytes) -> tuple[Data, dict[str, Any]]:
    """The reply to a command, read by the reference library."""
    before = len(app.data)
    app.send(wire)
    network.run(0.1)
    assert len(app.data) == before + 1
    return app.data[-1], parse_response(app.data[-1].content)


@pytest.mark.parametrize("command", [command_v2, command_v3])
def test_register_and_unregister(command: Any) -> None:
    """Both forms add and remove a route to the face that asks, and the reply has every field that clients demand."""
    network, node, app = node_with_management()
    data, reply = reply_to(network, app, command("register", name="/p"))
    assert (reply["status_code"], reply["status_text"]) == (200, "OK")
    assert reference.Name.to_str(reply["name"]) == "/p"
    assert [reply[field] for field in ("face_id", "origin", "cost", "flags")] == [app.id, 0, 0, 1]
    assert data.freshness_ms == 1000
    consumer = node.app()
    consumer.ask("/p/x")
    network.run(0.1)
    assert len(app.asked) == 1
    _, reply = reply_to(network, app, command("unregister", name="/p"))
    assert [reply[field] for field in ("status_code", "face_id", "origin")] == [200, app.id, 0]
    consumer.ask("/p/y")
    network.run(0.1)
    assert consumer.nacks == [packet.NACK_NO_ROUTE]


def test_the_reply_bears_the_command_s_name_and_a_valid_digest() -> None:
    """The reply is Data of the very name that was asked, with a signature that `ndn.app` accepts."""
    import asyncio

    network, _, app = node_with_management()
    wire = command_v3("register", name="/p")
    data, _ = reply_to(network, app, wire)
    assert data.name == decode_interest(wire).name
    name, _, _, pointers = reference.parse_data(data.wire)
    assert asyncio.run(sha256_digest_checker(name, pointers))


def test_origin_cost_and_face_are_those_asked_for() -> None:
    """A command may name another face, a cost and an origin; routes of other origins stay when one is removed."""
    network, node, app = node_with_management()
    other = node.app()
    _, reply = reply_to(network, app, command_v3("register", name="/p", face_id=other.id, origin=65, cost=7))
    assert [reply[field] for field in ("face_id", "origin", "cost")] == [other.id, 65, 7]
    reply_to(network, app, command_v2("register", name="/p", face_id=other.id, cost=9))
    hops = node.forwarder.fib.longest_prefix_match(names.parse("/p/x"))
    assert [(hop.face_id, hop.cost) for hop in hops] == [(other.id, 7), (other.id, 9)]
    reply_to(network, app, command_v3("unregister", name="/p", face_id=other.id, origin=65))
    hops = node.forwarder.fib.longest_prefix_match(names.parse("/p/x"))
    assert [(hop.face_id, hop.cost) for hop in hops] == [(other.id, 9)]


def test_no_expiry_is_promised() -> None:
    """A route lives as long as its face: a reply that repeated the expiration asked for would be untrue."""
    network, _, app = node_with_management()
    _, reply = reply_to(network, app, command_v3("register", name="/p", expiration_period=1000, flags=2))
    assert (reply["status_code"], reply["expiration_period"], reply["flags"]) == (200, None, 2)


@pytest.mark.parametrize("command", [command_v2, command_v3])
@pytest.mark.parametrize(
    ("arguments", "status"),
    [
        ({"verb": "register"}, 400),  # no name
        ({"verb": "register", "name": "/localhost/nfd"}, 403),
        ({"verb": "register", "name": "/localhost/nfd/rib/register"}, 403),
        ({"verb": "register", "name": "/" + "/".join("x" * 33)}, 414),
        ({"verb": "register", "name": "/p", "face_id": 9999}, 410),
        ({"verb": "announce", "name": "/p"}, 501),
        ({"verb": "create", "module": "faces", "uri": "tcp4://127.0.0.1"}, 501),
    ],
)
def test_refusals(command: Any, arguments: dict[str, Any], status: int) -> None:
    """What can't be done is refused with NFD's status and a reason; the reference library can read it."""
    network, node, app = node_with_management()
    before = len(node.forwarder.fib)
    _, reply = reply_to(network, app, command(**arguments))
    assert reply["status_code"] == status and len(reply["status_text"]) > 5
    assert len(node.forwarder.fib) == before


@pytest.mark.parametrize(
    ("uri", "status"),
    [
        ("/localhost/nfd", 400),
        ("/localhost/nfd/rib", 400),
        ("/localhost/nfd/rib/register", 400),
        ("/localhost/nfd/rib/register/x", 400),
        ("/localhost/nfd/rib/%FF%FE/x", 400),
        ("/localhost/nfd/seg=1/register/x", 400),
        ("/localhost/nfd/faces/list", 501),
        ("/localhost/nfd/status/general", 501),
    ],
)
def test_malformed_commands(uri: str, status: int) -> None:
    """A command without module, verb or readable parameters is answered with 400, an unknown one with 501."""
    network, _, app = node_with_management()
    name, wire = packet.encode_interest(names.parse(uri))
    data, reply = reply_to(network, app, wire)
    assert reply["status_code"] == status and data.name == name


@given(st.binary(max_size=60) | st.binary(max_size=40).map(lambda value: names.tlv(0x68, value)))
def test_any_parameters_are_answered(parameters: bytes) -> None:
    """Whatever stands in the place of the parameters, there is an answer and no exception."""
    management = Management(Network().node("a").forwarder)
    name = PREFIX + names.component("rib") + names.component("register") + names.component(parameters)
    reply = management.on_interest(decode_interest(packet.encode_interest(name)[1]))
    assert reply is not None
    assert parse_response(decode_data(reply).content)["status_code"] in (400, 403, 410, 414)


def test_neighbours_may_not_register() -> None:
    """A command that comes over a link is dropped before the management sees it."""
    network, node, _ = node_with_management()
    network.node("b")
    network.link("a", "b")
    before = len(node.forwarder.fib)
    node.forwarder.receive(node.to["b"], command_v3("register", name="/p"), network.now)
    node.forwarder.receive(node.to["b"], command_v2("register", name="/p"), network.now)
    network.run(0.1)
    assert len(node.forwarder.fib) == before and node.to["b"].sent == []
    assert node.forwarder.counters.scope_violations == 2
