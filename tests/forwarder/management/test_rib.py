"""Registration as NDN applications ask for it: both forms of a signed command, expiry, inheritance, every refusal."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from ndn import encoding as reference
from ndn.app_support import nfd_mgmt as nfd
from ndn.security.validator.digest_validator import sha256_digest_checker

from gateway.forwarder import packet
from gateway.forwarder.packet import decode_interest
from gateway.protocol import names
from tests.forwarder.management.commands import Managed, command_v2, command_v3, signed

FORMS = pytest.mark.parametrize("command", [command_v2, command_v3])


@FORMS
def test_register_and_unregister(command: Any) -> None:
    """Both forms add and remove a route to the face that asks, and the reply has every field that clients demand."""
    managed = Managed()
    app = managed.app
    data = managed.send(command("rib", "register", name="/p"))
    reply = nfd.parse_response(data.content)
    assert (reply["status_code"], reply["status_text"]) == (200, "OK")
    assert reference.Name.to_str(reply["name"]) == "/p"
    assert [reply[field] for field in ("face_id", "origin", "cost", "flags")] == [app.id, 0, 0, 1]
    assert data.freshness_ms == 1000
    consumer = managed.node.app()
    consumer.ask("/p/x")
    managed.network.run(0.1)
    assert len(app.asked) == 1
    reply = managed.ask(command("rib", "unregister", name="/p"))
    assert [reply[field] for field in ("status_code", "face_id", "origin")] == [200, app.id, 0]
    consumer.ask("/p/y")
    managed.network.run(0.1)
    assert consumer.nacks == [packet.NACK_NO_ROUTE]


def test_the_reply_bears_the_command_s_name_and_a_valid_digest() -> None:
    """The reply is Data of the very name that was asked, with a signature that `ndn.app` accepts."""
    managed = Managed()
    wire = command_v3("rib", "register", name="/p")
    data = managed.send(wire)
    assert data.name == decode_interest(wire).name
    name, _, _, pointers = reference.parse_data(data.wire)
    assert asyncio.run(sha256_digest_checker(name, pointers))


def test_origin_cost_and_face_are_those_asked_for() -> None:
    """Of one face's routes the cheapest is the next hop; when an origin's is removed that of another one takes over."""
    managed = Managed()
    other = managed.node.app()
    reply = managed.command("rib", "register", name="/p", face_id=other.id, origin=65, cost=7)
    assert [reply[field] for field in ("face_id", "origin", "cost")] == [other.id, 65, 7]
    managed.ask(command_v2("rib", "register", name="/p", face_id=other.id, cost=9))
    assert managed.hops("/p/x") == [(other.id, 7)]
    managed.command("rib", "unregister", name="/p", face_id=other.id, origin=65)
    assert managed.hops("/p/x") == [(other.id, 9)]


def test_a_face_id_of_zero_is_the_face_that_asks() -> None:
    """Clients say 0 where they mean themselves."""
    managed = Managed()
    assert managed.command("rib", "register", name="/p", face_id=0)["face_id"] == managed.app.id


def test_a_route_ends_with_its_expiration_period_unless_it_is_refreshed() -> None:
    """The reply confirms the period; the route goes when it is over, later when it was registered again meanwhile."""
    managed = Managed()
    for prefix in ("/brief", "/long"):
        reply = managed.command("rib", "register", name=prefix, expiration_period=2000, flags=2)
        assert (reply["status_code"], reply["expiration_period"], reply["flags"]) == (200, 2000, 2)
    managed.network.run(1.5)
    managed.command("rib", "register", name="/long", expiration_period=2000)
    managed.network.run(1.0)
    managed.management.on_timer(managed.network.now)
    assert (managed.hops("/brief/x"), managed.hops("/long/x")) == ([], [(managed.app.id, 0)])
    deadline = managed.management.next_deadline()
    assert deadline is not None
    managed.management.on_timer(deadline)
    assert managed.hops("/long/x") == [] and managed.management.next_deadline() is None


def test_the_longest_period_is_for_ever() -> None:
    """A client that says the greatest number means no end, and is told none."""
    managed = Managed()
    reply = managed.command("rib", "register", name="/p", expiration_period=2**64 - 1)
    assert (reply["status_code"], reply["expiration_period"]) == (200, None)
    assert managed.management.next_deadline() is None


def test_the_event_loop_ends_routes_by_itself() -> None:
    """On a running loop nobody needs to call the timer."""

    async def work() -> None:
        managed = Managed()
        interest = decode_interest(command_v3("rib", "register", name="/p", expiration_period=50))
        interest.incoming_face = managed.app.id
        managed.management.on_interest(interest)
        assert managed.hops("/p/x") != []
        managed.network.now += 1.0
        for _ in range(100):
            await asyncio.sleep(0.01)
            if managed.hops("/p/x") == []:
                return
        raise AssertionError("the route is still there")

    asyncio.run(work())


def test_a_longer_prefix_inherits() -> None:
    """Who registers below a prefix with child-inherit shares its next hops; one that captures does not."""
    managed = Managed()
    other = managed.node.app()
    managed.command("rib", "register", name="/p", cost=5)
    managed.ask(command_v3("rib", "register", name="/p/a"), other)
    managed.ask(command_v3("rib", "register", name="/p/b", flags=2), other)
    assert managed.hops("/p/a/x") == [(other.id, 0), (managed.app.id, 5)]
    assert managed.hops("/p/b/x") == [(other.id, 0)]


def test_the_routes_of_a_face_that_is_gone_end() -> None:
    """When an application ends, the list has its routes no more, and what inherited from them doesn't either."""
    managed = Managed()
    other = managed.node.app()
    managed.ask(command_v3("rib", "register", name="/p"), other)
    managed.command("rib", "register", name="/p/a")
    managed.forwarder.remove_face(other)
    assert [prefix for prefix, _ in managed.management.rib] == [names.parse("/p/a")]
    assert managed.hops("/p/a/x") == [(managed.app.id, 0)]


def test_the_list_has_routes_and_what_the_gateway_put_into_the_fib() -> None:
    """Every route with origin, cost, flags and the time it has left; static routes and the gateway's own beside."""
    managed = Managed()
    managed.command("rib", "register", name="/p", origin=65, cost=3, flags=2, expiration_period=10_000)
    managed.network.run(4.0)
    managed.forwarder.fib.add(names.parse("/far"), managed.app.id, 20, "static")
    status = nfd.RibStatus.parse(managed.fetch("/localhost/nfd/rib/list"))
    rows = {reference.Name.to_str(entry.name): entry.routes for entry in status.entries}
    assert list(rows) == ["/p", "/far", "/localhost/nfd"]
    route = rows["/p"][0]
    assert (route.face_id, route.origin, route.cost, route.flags.value) == (managed.app.id, 65, 3, 2)
    assert 5000 < route.expiration_period <= 6000
    assert (rows["/far"][0].origin, rows["/far"][0].cost, rows["/far"][0].expiration_period) == (255, 20, None)


@FORMS
@pytest.mark.parametrize(
    ("arguments", "status"),
    [
        ({"verb": "register"}, 400),  # no name
        ({"verb": "register", "name": "/localhost/nfd"}, 403),
        ({"verb": "register", "name": "/localhost/nfd/rib/register"}, 403),
        ({"verb": "unregister", "name": "/localhost/nfd"}, 403),
        ({"verb": "register", "name": "/" + "/".join("x" * 33)}, 414),
        ({"verb": "register", "name": "/p", "face_id": 9999}, 410),
        ({"verb": "announce", "name": "/p"}, 501),
        ({"verb": "promote", "name": "/p"}, 501),
        ({"module": "weather", "verb": "set", "name": "/p"}, 501),
    ],
)
def test_refusals(command: Any, arguments: dict[str, Any], status: int) -> None:
    """What can't be done is refused with NFD's status and a reason; the reference library can read it."""
    managed = Managed()
    before = list(managed.forwarder.fib)
    reply = managed.ask(command(**{"module": "rib", **arguments}))
    assert reply["status_code"] == status and len(reply["status_text"]) > 5
    assert list(managed.forwarder.fib) == before and managed.management.refused == 1


def test_an_announcement_is_refused_so_that_the_client_can_read_it() -> None:
    """`rib/announce` has its object in the application parameters; the client hears 501 and registers instead."""
    managed = Managed()
    reply = managed.ask(signed("/localhost/nfd/rib/announce", parameters=b"\x06\x03\x07\x01\x08"))
    assert reply["status_code"] == 501 and "rib/register" in reply["status_text"]


@pytest.mark.parametrize(
    "uri",
    [
        "/localhost/nfd",
        "/localhost/nfd/rib",
        "/localhost/nfd/rib/register",
        "/localhost/nfd/rib/register/x",
        "/localhost/nfd/rib/%FF%FE/x",
        "/localhost/nfd/seg=1/register/x",
        "/localhost/nfd/rib/register/%68%02%07%09",
        "/localhost/nfd/rib/register/%68%00/a/b/c/d",
        "/localhost/nfd/rib/register/%68%03%69%01",
    ],
)
def test_malformed_commands(uri: str) -> None:
    """A command without module, verb, or readable parameters and signature is answered with 400."""
    managed = Managed()
    name, wire = packet.encode_interest(names.parse(uri))
    data = managed.send(wire)
    assert nfd.parse_response(data.content)["status_code"] == 400 and data.name == name


def test_a_prefix_that_no_reply_has_room_for_is_refused() -> None:
    """A prefix stands in the reply's name and in its body; what would not fit a packet is refused, not half done."""
    managed = Managed()
    assert managed.command("rib", "register", name="/" + "x" * 3990)["status_code"] == 200
    assert managed.command("rib", "register", name="/" + "x" * 4100)["status_code"] == 414
    assert len(managed.management.rib) == 1
