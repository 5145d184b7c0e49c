"""The modules fib, cs, strategy-choice, faces and status, asked and read by python-ndn's models."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from ndn import encoding as reference
from ndn.app_support import nfd_mgmt as nfd

from gateway import __version__
from gateway.forwarder import packet
from gateway.forwarder.faces.base import Face
from gateway.forwarder.faces.neighbors import Neighbor
from gateway.forwarder.management.content_store import PACKET_BYTES
from gateway.forwarder.management.face_control import ManagedFaces
from gateway.forwarder.management.faces import FaceRefused
from gateway.forwarder.packet import decode_interest
from gateway.protocol import names
from tests.forwarder.management.commands import UNIX_MS, Managed, command_v3
from tests.simulation.network import data


def uri(name: Any) -> str:
    return str(reference.Name.to_str(name))


# --- fib


def test_next_hops_set_by_hand() -> None:
    """They are added with their cost, stand beside what follows from routes, and are removed alone."""
    managed = Managed()
    reply = managed.command("fib", "add-nexthop", name="/p", cost=4)
    assert [reply[field] for field in ("status_code", "face_id", "cost")] == [200, managed.app.id, 4]
    other = managed.node.app()
    managed.ask(command_v3("rib", "register", name="/p", cost=9), other)
    assert managed.hops("/p/x") == [(managed.app.id, 4), (other.id, 9)]
    entries = nfd.FibStatus.parse(managed.fetch("/localhost/nfd/fib/list")).entries
    found = {uri(e.name): [(r.face_id, r.cost) for r in e.next_hop_records] for e in entries}
    assert found == {"/p": [(managed.app.id, 4), (other.id, 9)], "/localhost/nfd": [(managed.face.id, 0)]}
    reply = managed.command("fib", "remove-nexthop", name="/p", face_id=managed.app.id)
    assert reply["status_code"] == 200 and managed.hops("/p/x") == [(other.id, 9)]
    assert managed.command("fib", "remove-nexthop", name="/p", face_id=other.id)["status_code"] == 200
    assert managed.hops("/p/x") == [(other.id, 9)]


@pytest.mark.parametrize(
    ("parameters", "status"),
    [
        ({}, 400),
        ({"name": "/p", "face_id": 9999}, 410),
        ({"name": "/localhost/nfd/x"}, 403),
        ({"name": "/x" * 33}, 414),
    ],
)
def test_next_hops_that_are_refused(parameters: dict[str, Any], status: int) -> None:
    """Without name, to a face that is not there, too deep, or in the forwarder's own names: nothing changes."""
    managed = Managed()
    before = list(managed.forwarder.fib)
    assert managed.command("fib", "add-nexthop", **parameters)["status_code"] == status
    assert list(managed.forwarder.fib) == before


# --- cs


def store(managed: Managed, *uris: str) -> None:
    for each in uris:
        managed.forwarder.content_store.insert(packet.decode_data(data(each, b"x")), managed.network.now)


def test_the_content_store_s_capacity_and_figures() -> None:
    """Its capacity is in packets of the largest size; the info has every figure; a change shows in both."""
    managed = Managed()
    store(managed, "/p/1", "/p/2")
    consumer = managed.node.app()
    consumer.ask("/p/1")
    consumer.ask("/q")
    wire = managed.fetch("/localhost/nfd/cs/info")
    assert wire[0] == 0x80 and wire[1] == len(wire) - 2
    info = nfd.CsInfo.parse(wire[2:])
    assert (info.capacity, info.flags, info.n_cs_entries) == ((1 << 20) // PACKET_BYTES, 3, 2)
    assert info.n_hits == 1 and info.n_misses >= 1
    reply = managed.command("cs", "config", capacity=500)
    assert [reply[field] for field in ("status_code", "capacity", "flags")] == [200, 500, 3]
    assert managed.forwarder.content_store.capacity_bytes == 500 * PACKET_BYTES


def test_the_store_s_switches() -> None:
    """A store that stops admitting keeps what it has, one that stops serving gives none of it out."""
    managed = Managed()
    store(managed, "/p/1")
    held, consumer = managed.forwarder.content_store, managed.node.app()
    reply = managed.command("cs", "config", flags=0, mask=1)
    assert (reply["status_code"], reply["flags"]) == (200, 2)
    store(managed, "/p/2")
    assert held.find(names.parse("/p/1"), 0.0) and not held.find(names.parse("/p/2"), 0.0)
    assert managed.command("cs", "config", flags=1, mask=3)["flags"] == 1
    hits = managed.forwarder.counters.hits
    consumer.ask("/p/1")
    assert managed.forwarder.counters.hits == hits and not held.find(names.parse("/p/1"), 0.0)
    assert managed.command("cs", "config", flags=2, mask=2)["flags"] == 3
    consumer.ask("/p/1")
    assert managed.forwarder.counters.hits == hits + 1


def test_erasing_below_a_prefix() -> None:
    """What is below the prefix goes, no more than was asked for, the rest stays, and the reply counts."""
    managed = Managed()
    store(managed, "/p/1", "/p/2", "/p/3", "/q/1")
    assert managed.command("cs", "erase", name="/p", count=1)["count"] == 1
    reply = managed.command("cs", "erase", name="/p")
    assert [reply[field] for field in ("status_code", "count")] == [200, 2] and uri(reply["name"]) == "/p"
    assert len(managed.forwarder.content_store) == 1


@pytest.mark.parametrize(
    ("verb", "parameters"),
    [
        ("config", {"capacity": 2**63}),
        ("config", {"flags": 1}),
        ("config", {"mask": 1}),
        ("erase", {}),
        ("erase", {"name": "/p", "count": 0}),
    ],
)
def test_store_commands_that_make_no_sense(verb: str, parameters: dict[str, Any]) -> None:
    """A capacity beyond any memory, half a switch, an erasure of nothing: 400, and the store is as it was."""
    managed = Managed()
    store(managed, "/p/1")
    assert managed.command("cs", verb, **parameters)["status_code"] == 400
    assert len(managed.forwarder.content_store) == 1 and managed.forwarder.content_store.capacity_bytes == 1 << 20


# --- strategy-choice


def test_strategies_are_chosen_listed_and_unset() -> None:
    """The reply and the list have the strategy's versioned name; the table that the forwarder reads has it at once."""
    managed = Managed()
    table = managed.forwarder.strategies
    reply = managed.command("strategy-choice", "set", name="/p", strategy="/localhost/nfd/strategy/asf")
    assert reply["status_code"] == 200 and uri(reply["name"]) == "/p"
    assert uri(reply["strategy"].name) == "/localhost/nfd/strategy/asf/v=5"
    assert table.find(names.parse("/p/x")) == "adaptive"
    listed = nfd.StrategyChoiceMsg.parse(managed.fetch("/localhost/nfd/strategy-choice/list")).strategy_choices
    best_route = "/localhost/nfd/strategy/best-route/v=5"
    assert [(uri(c.name), uri(c.strategy.name)) for c in listed] == [
        ("/", best_route),
        ("/p", "/localhost/nfd/strategy/asf/v=5"),
    ]
    assert managed.command("strategy-choice", "unset", name="/p")["status_code"] == 200
    assert table.find(names.parse("/p/x")) == "best-route"
    assert managed.command("strategy-choice", "set", name="/", strategy=best_route[:-4])["status_code"] == 200


@pytest.mark.parametrize(
    ("verb", "parameters", "status"),
    [
        ("set", {"name": "/p"}, 400),
        ("set", {"strategy": "/localhost/nfd/strategy/multicast"}, 400),
        ("set", {"name": "/p", "strategy": "/localhost/nfd/strategy/none-such"}, 404),
        ("set", {"name": "/p", "strategy": "/localhost/nfd/strategy/multicast/v=99"}, 404),
        ("set", {"name": "/x" * 33, "strategy": "/localhost/nfd/strategy/multicast"}, 414),
        ("unset", {"name": "/"}, 400),
    ],
)
def test_strategies_that_are_refused(verb: str, parameters: dict[str, Any], status: int) -> None:
    """Unknown strategies, missing parameters and the root's removal change nothing."""
    managed = Managed()
    assert managed.command("strategy-choice", verb, **parameters)["status_code"] == status
    assert list(managed.forwarder.strategies) == [(b"", "best-route")]


# --- status


def test_the_general_status_has_every_counter() -> None:
    """Version, times and all counters are there, and count what happened."""
    managed = Managed()
    store(managed, "/p/1")
    managed.network.run(3.0)
    consumer = managed.node.app()
    consumer.ask("/p/1")
    status = nfd.GeneralStatus.parse(managed.fetch("/localhost/nfd/status/general"))
    assert bytes(status.nfd_version, "ascii") == f"picasso-gateway-{__version__}".encode()
    assert status.start_timestamp == UNIX_MS and status.current_timestamp >= UNIX_MS + 3000
    fields = [field.name for field in nfd.GeneralStatus._encoded_fields][:16]
    assert [name for name in fields if getattr(status, name) is None] == []
    assert (status.n_fib_entries, status.n_cs_entries, status.n_in_interests) == (1, 1, 2)
    assert status.n_out_data == 1 and status.n_pit_entries == 1


# --- faces


class Control:
    """Makes faces without sockets."""

    def __init__(self, managed: Managed) -> None:
        self.managed = managed
        self.destroyed: list[Face] = []

    def channels(self) -> list[str]:
        return ["tcp4://127.0.0.1:6363", "udp6://[::]:6363"]

    async def create(self, remote: str, mtu: int | None, is_reliable: bool) -> Face:
        if ":1" in remote.rpartition("]")[2]:
            raise FaceRefused("no route there")
        face = Face(remote, "tcp4://127.0.0.1:5000", remote)
        face.mtu = mtu  # type: ignore[attr-defined]
        face.is_reliable = is_reliable
        self.managed.forwarder.add_face(face)
        return face

    def destroy(self, face: Face) -> None:
        if face.neighbor == "configured":
            raise FaceRefused("it is configured")
        self.destroyed.append(face)
        self.managed.forwarder.remove_face(face)


def with_faces() -> tuple[Managed, Control]:
    managed = Managed()
    control = Control(managed)
    module: Any = managed.management._dispatcher._modules["faces"]
    module._control = control
    return managed, control


def test_a_face_is_created_and_destroyed() -> None:
    """The reply has the fields that clients demand; creating it again is a conflict that names the face."""
    managed, control = with_faces()
    parameters = {"uri": "tcp4://127.0.0.1:9999", "face_persistency": nfd.FacePersistency.PERSISTENT, "mtu": 1200}
    reply = managed.command("faces", "create", **parameters)
    assert (reply["status_code"], reply["uri"], reply["mtu"]) == (200, "tcp4://127.0.0.1:9999", 1200)
    assert reply["local_uri"] == "tcp4://127.0.0.1:5000" and reply["flags"] == 0
    assert reply["face_persistency"] == nfd.FacePersistency.PERSISTENT
    again = managed.command("faces", "create", **parameters)
    assert (again["status_code"], again["face_id"]) == (409, reply["face_id"])
    assert again["local_uri"] and again["flags"] == 0 and again["uri"] == reply["uri"]
    gone = managed.command("faces", "destroy", face_id=reply["face_id"])
    assert (gone["status_code"], gone["face_id"]) == (200, reply["face_id"])
    assert [face.uri for face in control.destroyed] == ["tcp4://127.0.0.1:9999"]
    assert managed.command("faces", "destroy", face_id=reply["face_id"])["status_code"] == 200


@pytest.mark.parametrize(
    ("parameters", "status"),
    [
        ({}, 400),
        ({"uri": "tcp4://127.0.0.1"}, 400),
        ({"uri": "tcp4://example.net:6363"}, 400),
        ({"uri": "tcp4://[::1]:6363"}, 400),
        ({"uri": "udp4://224.0.23.170:56363"}, 400),
        ({"uri": "tcp4://0.0.0.0:6363"}, 400),
        ({"uri": "tcp4://127.0.0.1:6363/x"}, 400),
        ({"uri": "tcp4://127.0.0.1:99999"}, 400),
        ({"uri": "udp6://[:6363"}, 400),
        ({"uri": "ether://[08:00:27:01:01:01]"}, 406),
        ({"uri": "unix:///tmp/x"}, 406),
        ({"uri": "tcp4://127.0.0.1:6363", "mtu": 20}, 400),
        ({"uri": "tcp4://127.0.0.1:6363", "flags": 1}, 400),
        ({"uri": "tcp4://127.0.0.1:6363", "flags": 1, "mask": 1}, 409),
        ({"uri": "tcp4://127.0.0.1:6363", "flags": 2, "mask": 2}, 409),
        ({"uri": "udp4://127.0.0.1:6363", "flags": 0, "mask": 4}, 409),
        ({"uri": "tcp4://127.0.0.1:6363", "local_uri": "tcp4://127.0.0.1:1"}, 406),
        ({"uri": "tcp4://127.0.0.1:6363", "face_persistency": nfd.FacePersistency.ON_DEMAND}, 406),
        ({"uri": "tcp4://127.0.0.1:1"}, 504),
    ],
)
def test_faces_that_are_not_created(parameters: dict[str, Any], status: int) -> None:
    """Addresses that are none, kinds that are not had, and what can't be switched on, with NFD's status."""
    managed, _ = with_faces()
    reply = managed.command("faces", "create", **parameters)
    assert reply["status_code"] == status and len(reply["status_text"]) > 10
    assert len(managed.forwarder.faces) == 2


def test_a_face_is_created_reliable() -> None:
    """Lost datagrams are sent again on a UDP face that was asked for so, and the reply says it."""
    managed, _ = with_faces()
    reply = managed.command("faces", "create", uri="udp4://127.0.0.1:9999", flags=2, mask=2)
    assert (reply["status_code"], reply["flags"]) == (200, 2)


def test_without_control_no_face_is_made_or_removed() -> None:
    """A forwarder that was given nobody to make faces says so."""
    managed = Managed()
    assert managed.command("faces", "create", uri="tcp4://127.0.0.1:6363")["status_code"] == 501
    assert managed.command("faces", "destroy", face_id=managed.app.id)["status_code"] == 501


def test_what_may_not_be_destroyed() -> None:
    """The gateway's own faces, configured neighbours, and nothing at all are refused."""
    managed, _ = with_faces()
    own = Face("internal://monitor", "internal://monitor")
    configured = Face("tcp4://127.0.0.1:7000", "", "configured")
    for face in (own, configured):
        managed.forwarder.add_face(face)
    assert managed.command("faces", "destroy", face_id=own.id)["status_code"] == 403
    assert managed.command("faces", "destroy", face_id=configured.id)["status_code"] == 409
    assert managed.command("faces", "destroy")["status_code"] == 400
    assert {own.id, configured.id} <= set(managed.forwarder.faces)


def test_local_fields_are_switched_by_the_face_that_wants_them() -> None:
    """A face update without face is about the asking one; it takes effect, and the reply tells all flags."""
    managed = Managed()
    reply = managed.command("faces", "update", flags=1, mask=1)
    assert (reply["status_code"], reply["face_id"], reply["flags"]) == (200, managed.app.id, 1)
    assert reply["face_persistency"] == nfd.FacePersistency.ON_DEMAND and managed.app.local_fields
    managed.command("faces", "update", flags=0, mask=1)
    assert not managed.app.local_fields
    reply = managed.command("faces", "update", flags=0, mask=6)
    assert (reply["status_code"], reply["flags"]) == (200, 0)


@pytest.mark.parametrize(
    ("parameters", "status"),
    [
        ({"face_id": 9999}, 404),
        ({"flags": 1}, 400),
        ({"flags": 2, "mask": 2}, 409),
        ({"face_persistency": nfd.FacePersistency.PERMANENT}, 409),
        ({"mtu": 1300}, 409),
    ],
)
def test_face_updates_that_are_refused(parameters: dict[str, Any], status: int) -> None:
    """A face that is not there, half a switch, a feature that the face has not, another persistency."""
    assert Managed().command("faces", "update", **parameters)["status_code"] == status


def test_local_fields_are_not_for_neighbours() -> None:
    """A face that leads off this machine never gets them."""
    managed = Managed()
    link = Face("tcp4://127.0.0.1:7000", "", "b")
    managed.forwarder.add_face(link)
    assert managed.command("faces", "update", face_id=link.id, flags=1, mask=1)["status_code"] == 409
    assert not link.local_fields


def rows(wire: bytes) -> list[Any]:
    return list(nfd.FaceStatusMsg.parse(wire).face_status)


def test_the_list_of_faces_has_every_field() -> None:
    """Identity, scope, persistency, link type, counters and flags of each face."""
    managed = Managed()
    link = Face("udp4://192.0.2.1:6363", "udp4://192.0.2.2:6363", "b")
    link.mtu = 1400  # type: ignore[attr-defined]
    link.counters.in_bytes, link.counters.out_nacks = 7, 3
    managed.forwarder.add_face(link)
    group = Face("udp4://224.0.23.170:56363", "dev://wlan0")
    managed.forwarder.add_face(group)
    found = {row.face_id: row for row in rows(managed.fetch("/localhost/nfd/faces/list"))}
    assert set(found) == set(managed.forwarder.faces)
    mandatory = {f.name for f in nfd.FaceStatus._encoded_fields} - {
        "expiration_period",
        "base_congestion_mark_interval",
        "default_congestion_threshold",
        "mtu",
    }
    assert [(row.face_id, name) for row in found.values() for name in mandatory if getattr(row, name) is None] == []
    row = found[link.id]
    assert (row.uri, row.local_uri, row.mtu, row.n_in_bytes, row.n_out_nacks) == (link.uri, link.local_uri, 1400, 7, 3)
    assert (row.face_scope, row.face_persistency) == (nfd.FaceScope.NON_LOCAL, nfd.FacePersistency.PERSISTENT)
    assert found[managed.app.id].face_scope == nfd.FaceScope.LOCAL
    assert found[managed.face.id].flags == nfd.FaceFlags.LOCAL_FIELDS_ENABLED
    assert found[group.id].link_type == nfd.FaceLinkType.MULTI_ACCESS
    assert found[group.id].face_persistency == nfd.FacePersistency.PERMANENT
    assert found[managed.app.id].local_uri, "ndn-cxx takes no empty URI"


@pytest.mark.parametrize(
    ("wanted", "expected"),
    [
        ({"uri": "tcp4://192.0.2.1:6363"}, ["b"]),
        ({"uri_scheme": "tcp4"}, ["b", "c"]),
        ({"face_scope": nfd.FaceScope.LOCAL}, ["", ""]),
        ({"face_persistency": nfd.FacePersistency.PERSISTENT, "local_uri": "tcp4://192.0.2.9:1"}, ["c"]),
        ({"link_type": nfd.FaceLinkType.MULTI_ACCESS}, []),
        ({}, ["", "", "b", "c"]),
    ],
)
def test_faces_are_found_by_query(wanted: dict[str, Any], expected: list[str]) -> None:
    """Every filter narrows the list, several together more, none not at all."""
    managed = Managed()
    managed.forwarder.add_face(Face("tcp4://192.0.2.1:6363", "tcp4://192.0.2.8:1", "b"))
    managed.forwarder.add_face(Face("tcp4://192.0.2.2:6363", "tcp4://192.0.2.9:1", "c"))
    query = nfd.FaceQueryFilter()
    query.face_query_filter = nfd.FaceQueryFilterValue()
    for field, value in wanted.items():
        setattr(query.face_query_filter, field, value)
    name = names.parse("/localhost/nfd/faces/query") + names.component(bytes(query.encode()))
    found = rows(managed.fetch(name))  # type: ignore[arg-type]
    assert [managed.forwarder.faces[row.face_id].neighbor for row in found] == expected


def test_queries_that_can_t_be_read_are_refused() -> None:
    """A query without filter, with a broken one, or for a field that is unknown gets 400."""
    for argument in (b"", names.component("x"), names.component(b"\x96\x01\x69"), names.component(b"\x96\x02\x91\x00")):
        managed = Managed()
        wire = packet.encode_interest(names.parse("/localhost/nfd/faces/query") + argument, can_be_prefix=True)[1]
        assert managed.ask(wire)["status_code"] == 400


def test_the_list_of_channels() -> None:
    """Each address that is listened on, as ChannelStatus blocks."""
    managed, control = with_faces()
    wire = managed.fetch("/localhost/nfd/faces/channels")
    expected = [names.tlv(0x82, names.tlv(0x81, each.encode())) for each in control.channels()]
    assert wire == b"".join(expected)


class Manager:
    """A face manager that makes faces of neighbours at once, or never."""

    def __init__(self) -> None:
        self.listening = [("tcp4", "0.0.0.0", 6363), ("udp6", "::", 6363)]
        self.neighbors: dict[str, Neighbor] = {}
        self.faces: dict[str, Face] = {}
        self.released: list[Face] = []

    def set_neighbors(self, neighbors: Any) -> None:
        self.neighbors = {neighbor.name: neighbor for neighbor in neighbors}
        self.faces = {
            name: self.faces.get(name) or Face(n.uri, "", name)
            for name, n in self.neighbors.items()
            if "192.0.2.66" not in n.uri
        }

    def face_of(self, neighbor: str) -> Face | None:
        return self.faces.get(neighbor)

    def release(self, face: Face) -> None:
        self.released.append(face)


def test_made_faces_stand_beside_the_configured_ones() -> None:
    """A new configuration keeps them, a configured one of the same address takes over, destroying leaves the others."""
    manager, configured = Manager(), [Neighbor("b", "tcp4://192.0.2.1:6363")]
    faces = ManagedFaces(manager, lambda: configured)
    faces.apply()
    made = asyncio.run(faces.create("udp4://192.0.2.2:6363", 1200))
    assert set(manager.neighbors) == {"b", "udp4://192.0.2.2:6363"}
    assert manager.neighbors["udp4://192.0.2.2:6363"].mtu == 1200
    configured.append(Neighbor("c", "tcp4://192.0.2.3:6363"))
    faces.apply()
    assert set(manager.neighbors) == {"b", "c", "udp4://192.0.2.2:6363"}
    faces.destroy(made)
    assert set(manager.neighbors) == {"b", "c"}
    with pytest.raises(FaceRefused, match="itself"):
        asyncio.run(faces.create("tcp4://0.0.0.0:6363"))
    with pytest.raises(FaceRefused, match="configuration"):
        faces.destroy(manager.faces["b"])
    peer = Face("fd://7", "unix:///run/ndn.sock")
    faces.destroy(peer)
    assert manager.released == [peer]
    asyncio.run(faces.create("tcp4://192.0.2.4:6363"))
    configured.append(Neighbor("d", "tcp4://192.0.2.4:6363"))
    faces.apply()
    assert set(manager.neighbors) == {"b", "c", "d"}
    assert faces.channels() == ["tcp4://0.0.0.0:6363", "udp6://[::]:6363"]


def test_a_face_that_does_not_come_into_being_leaves_nothing_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    """When the socket can't be made the request fails and the neighbour is forgotten."""
    monkeypatch.setattr("gateway.forwarder.management.face_control._PATIENCE_S", 0.05)
    manager = Manager()
    faces = ManagedFaces(manager)
    with pytest.raises(FaceRefused, match="route"):
        asyncio.run(faces.create("udp4://192.0.2.66:6363"))
    assert manager.neighbors == {}


def test_made_faces_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each is dialled for ever: there is a limit, and the refusal names the way out."""
    monkeypatch.setattr("gateway.forwarder.management.face_control.CREATED_MAX", 2)

    async def work() -> None:
        faces = ManagedFaces(Manager())
        for number in range(2):
            await faces.create(f"tcp4://192.0.2.{number + 1}:6363")
        with pytest.raises(FaceRefused, match="destroy one"):
            await faces.create("tcp4://192.0.2.9:6363")

    asyncio.run(work())


def test_a_create_that_is_sent_again_while_it_is_carried_out() -> None:
    """The retransmission makes no second face and gets no refusal: the first answer serves both."""
    managed, _ = with_faces()

    async def work() -> None:
        interest = decode_interest(command_v3("faces", "create", uri="tcp4://127.0.0.1:9999"))
        interest.incoming_face = managed.app.id
        first = managed.management.on_interest(interest)
        assert managed.management.on_interest(interest) is None
        assert first is not None and not isinstance(first, bytes)
        reply = await first
        assert managed.management.on_interest(interest) == reply

    asyncio.run(work())
    assert len(managed.forwarder.faces) == 3
