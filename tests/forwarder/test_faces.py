"""Faces on real sockets of 127.0.0.0/8: unix, TCP and UDP, good peers and bad ones."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
import random
import socket
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import psutil
import pytest

from gateway.forwarder import packet
from gateway.forwarder.content_store import ContentStore
from gateway.forwarder.endpoint import Endpoint, FetchError, Nacked, TimedOut, connect
from gateway.forwarder.faces import manager as manager_module
from gateway.forwarder.faces import neighbors as neighbors_module
from gateway.forwarder.faces import stream as stream_module
from gateway.forwarder.faces.manager import FaceError, FaceManager, Neighbor
from gateway.forwarder.faces.stream import StreamFace
from gateway.forwarder.forwarder import Forwarder
from gateway.protocol import keys, names

NAME = names.parse("/p/x")
KINDS = ("tcp", socket.SOCK_STREAM), ("udp", socket.SOCK_DGRAM)
_hosts = itertools.count(1)


def new_host() -> str:
    """An address of 127.0.0.0/8 that no other test of this run uses, nor another run at the same time."""
    number = next(_hosts)
    return f"127.{100 + os.getpid() % 100}.{number // 250 + 1}.{number % 250 + 1}"


def free_port(host: str, kind: int = socket.SOCK_STREAM) -> int:
    with socket.socket(socket.AF_INET, kind) as probe:
        probe.bind((host, 0))
        return int(probe.getsockname()[1])


def run(work: Callable[[], Coroutine[Any, Any, None]], seconds: float = 20.0) -> None:
    async def bounded() -> None:
        async with asyncio.timeout(seconds):
            await work()

    asyncio.run(bounded())


async def until(condition: Callable[[], Any], seconds: float = 5.0) -> None:
    async with asyncio.timeout(seconds):
        while not condition():  # noqa: ASYNC110 - what is waited for has no event
            await asyncio.sleep(0.005)


class Gateway:
    """A forwarder on real faces, with an application of its own."""

    def __init__(self) -> None:
        self.forwarder = Forwarder(ContentStore(1 << 24))
        self.manager = FaceManager(self.forwarder)
        self.app = self.manager.internal("app").endpoint
        self._app_face = next(iter(self.forwarder.faces))

    def serve(self, prefix: bytes, answer: Callable[[packet.Interest], bytes | None]) -> None:
        self.app.serve(prefix, answer)
        self.forwarder.fib.add(prefix, self._app_face, 0, "app")

    def route(self, prefix: bytes, neighbor: str) -> None:
        face = self.manager.face_of(neighbor)
        assert face is not None
        self.forwarder.fib.add(prefix, face.id, 1, "static")

    def is_up(self, neighbor: str) -> bool:
        face = self.manager.face_of(neighbor)
        return face is not None and face.up

    @property
    def accepted(self) -> list[Any]:
        """The faces that peers made, oldest first."""
        faces = self.forwarder.faces.values()
        return [face for face in faces if not face.uri.startswith("internal") and not face.neighbor]


@asynccontextmanager
async def running(*listen: str, neighbors: tuple[Neighbor, ...] = ()) -> AsyncIterator[Gateway]:
    gateway = Gateway()
    try:
        await gateway.manager.start(listen, neighbors)
        yield gateway
    finally:
        await gateway.manager.stop()


def answer(interest: packet.Interest) -> bytes:
    return keys.sign_data(interest.name, b"answer")


def bulk_answer(interest: packet.Interest) -> bytes:
    return keys.sign_data(interest.name, bytes(8000))


async def receives_end(reader: asyncio.StreamReader) -> bool:
    """Whether the other end closes within a few seconds."""
    async with asyncio.timeout(5):
        while chunk := await _read(reader):
            assert chunk
        return True


async def _read(reader: asyncio.StreamReader) -> bytes:
    try:
        return await reader.read(65536)
    except ConnectionResetError:
        return b""


# --- good peers


@pytest.mark.parametrize("kind", ["tcp4", "udp4"])
def test_data_comes_over_two_gateways(tmp_path: Path, kind: str) -> None:
    """An application on a unix socket gets Data from one at the neighbouring gateway, small and large."""

    async def work() -> None:
        a_host, b_host = new_host(), new_host()
        socket_kind = socket.SOCK_STREAM if kind == "tcp4" else socket.SOCK_DGRAM
        a_uri = f"{kind}://{a_host}:{free_port(a_host, socket_kind)}"
        b_uri = f"{kind}://{b_host}:{free_port(b_host, socket_kind)}"
        unix = f"unix://{tmp_path}/a.sock"
        async with running(unix, a_uri, neighbors=(Neighbor("b", b_uri),)) as a, running(b_uri) as b:
            b.serve(names.parse("/p"), answer)
            b.serve(names.parse("/bulk"), bulk_answer)
            await until(lambda: a.is_up("b"))
            a.route(b"", "b")
            app = await connect(unix)
            assert (await app.express(NAME, lifetime_ms=2000)).content == b"answer"
            assert (await app.express(names.parse("/bulk/1"), lifetime_ms=2000)).content == bytes(8000)
            with pytest.raises(Nacked, match="no route"):
                await app.express(names.parse("/nowhere"))
            app.close()
            await until(lambda: not a.accepted)

    run(work)


def test_unix_faces_are_named_by_their_descriptor(tmp_path: Path) -> None:
    """Applications at once have faces of their own, local, with the descriptor as their URI."""

    async def work() -> None:
        unix = f"unix://{tmp_path}/a.sock"
        async with running(unix) as a:
            apps = [await connect(unix) for _ in range(3)]
            await until(lambda: len(a.accepted) == 3)
            assert all(face.is_local and face.local_uri == unix for face in a.accepted)
            uris = {face.uri for face in a.accepted}
            assert len(uris) == 3 and all(uri.removeprefix("fd://").isdigit() for uri in uris)
            assert (tmp_path / "a.sock").stat().st_mode & 0o777 == 0o660
            for app in apps:
                app.close()

    run(work)


def test_an_application_registers_and_is_asked(tmp_path: Path) -> None:
    """An endpoint registers a prefix with the forwarder, and its route goes with its face."""
    from gateway.forwarder.management import PREFIX, Management

    async def work() -> None:
        unix = f"unix://{tmp_path}/a.sock"
        async with running(unix) as a:
            a.serve(PREFIX, Management(a.forwarder).on_interest)
            producer, consumer = await connect(unix), await connect(unix)
            producer.serve(names.parse("/p"), answer)
            await producer.register(names.parse("/p"))
            assert (await consumer.express(NAME)).content == b"answer"
            with pytest.raises(FetchError, match="403"):
                await producer.register(names.parse("/localhost/nfd/rib"))
            producer.close()
            await producer.closed()
            await until(lambda: len(a.accepted) == 1)
            with pytest.raises(Nacked):
                await consumer.express(names.parse("/p/y"))
            consumer.close()

    run(work)


def test_a_handler_that_fails_answers_nothing(tmp_path: Path) -> None:
    """A producer whose handler raises keeps its connection and answers the next Interest."""

    async def work() -> None:
        unix = f"unix://{tmp_path}/a.sock"
        async with running(unix) as a:
            producer, consumer = await connect(unix), await connect(unix)
            await until(lambda: len(a.accepted) == 2)
            calls = []

            def fails_once(interest: packet.Interest) -> bytes:
                calls.append(interest)
                if len(calls) == 1:
                    raise RuntimeError("broken")
                return answer(interest)

            producer.serve(names.parse("/p"), fails_once)
            a.forwarder.fib.add(names.parse("/p"), a.accepted[0].id, 0, "app")
            with pytest.raises(TimedOut, match="/p/x"):
                await consumer.express(NAME, lifetime_ms=100)
            assert (await consumer.express(NAME, lifetime_ms=1000)).content == b"answer"
            producer.close()
            consumer.close()

    run(work)


def test_pending_interests_fail_when_the_forwarder_goes(tmp_path: Path) -> None:
    """An application hears at once that its forwarder is gone, and where none was from the start."""

    async def work() -> None:
        unix = f"unix://{tmp_path}/a.sock"
        with pytest.raises(ConnectionError, match=f"no forwarder at {unix}"):
            await connect(unix)
        async with running(unix) as a:
            a.serve(names.parse("/p"), lambda interest: None)
            app = await connect(unix)
            asking = asyncio.ensure_future(app.express(NAME, lifetime_ms=60_000))
            await asyncio.sleep(0.05)
        with pytest.raises(FetchError, match="closed the connection"):
            await asking
        with pytest.raises(FetchError, match="closed the connection"):
            await app.express(NAME)

    run(work)


# --- neighbours


def connections_between(a: str, b: str) -> float:
    """How many TCP connections of this process join two addresses; half a one is open at one end only."""
    found = [
        one
        for one in psutil.Process().net_connections("tcp")
        if one.status == psutil.CONN_ESTABLISHED and one.raddr and {one.laddr.ip, one.raddr.ip} == {a, b}
    ]
    return len(found) / 2


def test_when_both_ends_dial_one_connection_stays() -> None:
    """Twenty pairs of gateways that dial each other at once end with one connection each, which works both ways."""
    seed = random.Random(7)

    async def pair() -> None:
        a_host, b_host = new_host(), new_host()
        a_uri, b_uri = (f"tcp4://{host}:{free_port(host)}" for host in (a_host, b_host))
        async with running(a_uri) as a, running(b_uri) as b:
            first, second = seed.sample([(a, "b", b_uri), (b, "a", a_uri)], 2)
            first[0].manager.set_neighbors([Neighbor(first[1], first[2])])
            await asyncio.sleep(seed.choice([0, 0, 0.001, 0.003]))
            second[0].manager.set_neighbors([Neighbor(second[1], second[2])])
            await until(lambda: a.is_up("b") and b.is_up("a") and connections_between(a_host, b_host) == 1)
            await asyncio.sleep(0.2)
            assert connections_between(a_host, b_host) == 1
            assert a.is_up("b") and b.is_up("a") and not a.accepted and not b.accepted
            a.serve(names.parse("/a"), answer)
            b.serve(names.parse("/b"), answer)
            a.route(names.parse("/b"), "b")
            b.route(names.parse("/a"), "a")
            assert (await a.app.express(names.parse("/b/1"), lifetime_ms=1000)).content == b"answer"
            assert (await b.app.express(names.parse("/a/1"), lifetime_ms=1000)).content == b"answer"

    async def work() -> None:
        for _ in range(4):
            await asyncio.gather(*(pair() for _ in range(5)))

    run(work)


@pytest.mark.parametrize("ours_is_smaller", [True, False])
def test_the_smaller_address_keeps_its_connection(monkeypatch: pytest.MonkeyPatch, ours_is_smaller: bool) -> None:
    """A connection that the peer made while we were dialling gives way to ours only if our address is smaller."""
    is_free = asyncio.Event()
    at_once = neighbors_module.Neighbors._connect

    async def late(self: Any, address: Any) -> socket.socket:
        await is_free.wait()
        return await at_once(self, address)

    monkeypatch.setattr(neighbors_module.Neighbors, "_connect", late)

    async def work() -> None:
        small, large = new_host(), new_host()
        ours, theirs = (small, large) if ours_is_smaller else (large, small)
        port, dialled = free_port(ours), []
        listener = await asyncio.start_server(lambda reader, writer: dialled.append((reader, writer)), theirs, 0)
        their_uri = f"tcp4://{theirs}:{listener.sockets[0].getsockname()[1]}"
        async with running(f"tcp4://{ours}:{port}", neighbors=(Neighbor("b", their_uri),)) as a:
            reader, writer = await asyncio.open_connection(ours, port, local_addr=(theirs, 0))
            writer.write(stream_module.GREETING)
            await until(lambda: a.is_up("b"))
            is_free.set()
            await until(lambda: dialled)
            assert await receives_end(reader if ours_is_smaller else dialled[0][0])
            assert a.is_up("b") and not a.accepted
            stays = dialled[0][1] if ours_is_smaller else writer
            stays.write(packet.encode_interest(NAME)[1])
            await until(lambda: a.manager.face_of("b").counters.in_interests == 1)  # type: ignore[union-attr]
            for one in (writer, dialled[0][1]):
                one.close()
        listener.close()

    run(work)


def test_a_peer_that_is_started_again_is_found_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """When a neighbour dies its face is down but stays, with its routes, and comes up when the neighbour is back."""
    monkeypatch.setattr(neighbors_module, "RECONNECT_MIN_S", 0.05)
    monkeypatch.setattr(neighbors_module, "RECONNECT_MAX_S", 0.2)

    async def work() -> None:
        a_host, b_host = new_host(), new_host()
        b_uri = f"tcp4://{b_host}:{free_port(b_host)}"
        async with running(f"tcp4://{a_host}:0", neighbors=(Neighbor("b", b_uri),)) as a:
            for _ in range(3):
                async with running(b_uri) as b:
                    b.serve(names.parse("/p"), answer)
                    await until(lambda: a.is_up("b"))
                    a.route(names.parse("/p"), "b")
                    name = NAME + os.urandom(4).hex().encode().join([b"\x08\x08", b""])
                    assert (await a.app.express(name, lifetime_ms=1000)).content == b"answer"
                face = a.manager.face_of("b")
                await until(lambda: not a.is_up("b"))
                with pytest.raises(Nacked, match="no route"):
                    await a.app.express(names.parse("/p/now"), lifetime_ms=1000)
                assert a.manager.face_of("b") is face

    run(work)


def test_the_peer_that_lost_the_connection_is_believed(monkeypatch: pytest.MonkeyPatch) -> None:
    """A neighbour that restarted without our noticing dials again, and its connection replaces the dead one."""
    monkeypatch.setattr(neighbors_module, "SETTLED_S", 0.1)

    async def work() -> None:
        hosts = sorted((new_host(), new_host()))
        a_uri, b_uri = (f"tcp4://{host}:{free_port(host)}" for host in hosts)
        listener = await asyncio.start_server(lambda r, w: None, hosts[1], int(b_uri.rpartition(":")[2]))
        async with running(a_uri, neighbors=(Neighbor("b", b_uri),)) as a:
            await until(lambda: a.is_up("b"))
            face = a.manager.face_of("b")
            assert isinstance(face, StreamFace)
            dead = face.transport
            await asyncio.sleep(0.2)
            host, _, port = a_uri.removeprefix("tcp4://").partition(":")
            _, writer = await asyncio.open_connection(host, int(port), local_addr=(hosts[1], 0))
            writer.write(stream_module.GREETING)
            await until(lambda: face.transport is not dead)
            assert face.up and not a.accepted
            writer.close()
        listener.close()

    run(work)


def test_an_application_on_a_neighbours_machine_is_not_the_neighbour() -> None:
    """What connects from a neighbour's address without a gateway's greeting gets a face of its own."""

    async def work() -> None:
        host, other = new_host(), new_host()
        port = free_port(host)
        async with running(
            f"tcp4://{host}:{port}", neighbors=(Neighbor("b", f"tcp4://{other}:{free_port(other)}"),)
        ) as a:
            _, writer = await asyncio.open_connection(host, port, local_addr=(other, 0))
            for byte in packet.encode_interest(NAME)[1]:
                writer.write(bytes((byte,)))
                await writer.drain()
            await until(lambda: a.accepted)
            assert not a.is_up("b")
            assert a.accepted[0].counters.in_interests == 1
            writer.close()

    run(work)


def test_a_lost_first_packet_costs_no_second() -> None:
    """A listener whose queue is full drops the first packet of a connection; soon after there is room, there is one."""

    async def work() -> None:
        loop, host = asyncio.get_running_loop(), new_host()
        with socket.socket() as listener, socket.socket() as first, socket.socket() as second:
            listener.bind((host, 0))
            listener.listen(0)
            for early in (first, second):  # a queue of none has room for one, and the kernel takes another
                early.setblocking(False)
                with contextlib.suppress(BlockingIOError):
                    early.connect(listener.getsockname())
            began = loop.time()
            async with running(neighbors=(Neighbor("n", "tcp4://{}:{}".format(*listener.getsockname())),)) as a:
                await asyncio.sleep(0.05)
                assert not a.is_up("n")
                queued = [listener.accept()[0]]
                await until(lambda: a.is_up("n"))
                assert loop.time() - began < 0.9, "the kernel sends it again after a second"
                for early in queued:
                    early.close()

    run(work)


def test_a_slow_way_is_given_the_time_it_takes(monkeypatch: pytest.MonkeyPatch) -> None:
    """After a few hurried attempts to connect comes one with patience, as part of the same dial."""
    monkeypatch.setattr(neighbors_module, "FIRST_PATIENCES_S", (0.01, 0.02))
    connect_now, attempts = neighbors_module.Neighbors._connect, 0

    async def connect_slowly(neighbors: neighbors_module.Neighbors, address: Any) -> socket.socket:
        nonlocal attempts
        attempts += 1
        await asyncio.sleep(0.2)
        return await connect_now(neighbors, address)

    monkeypatch.setattr(neighbors_module.Neighbors, "_connect", connect_slowly)

    async def work() -> None:
        uri = f"tcp4://{(host := new_host())}:{free_port(host)}"
        async with running(uri), running(neighbors=(Neighbor("b", uri),)) as a:
            await until(lambda: a.is_up("b"))
        assert attempts == 3

    run(work)


def test_every_face_to_somebody_else_is_told_when_it_comes_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """A neighbour's with each connection, a stranger's and a datagram face once; an application is nobody to greet."""
    monkeypatch.setattr(neighbors_module, "RECONNECT_MIN_S", 0.05)

    async def work() -> None:
        a_host, b_host = new_host(), new_host()
        uris = [f"{kind}4://{b_host}:{free_port(b_host, sock)}" for kind, sock in KINDS]
        path = f"unix:///tmp/picasso-faces-{os.getpid()}.sock"
        neighbors = tuple(Neighbor(uri[:3], uri) for uri in uris)
        async with running(f"tcp4://{a_host}:0", path) as a:
            told: list[int] = []
            a.manager.on_face_up = told.append
            a.manager.set_neighbors(neighbors)
            for connections in (1, 2):
                async with running(*uris) as b:
                    heard: list[int] = []
                    b.manager.on_face_up = heard.append
                    await until(lambda: a.is_up("tcp") and a.is_up("udp"))
                    tcp, udp = (a.manager.face_of(kind) for kind in ("tcp", "udp"))
                    assert tcp is not None and udp is not None
                    assert sorted(told) == sorted([tcp.id] * connections + [udp.id])
                    await until(lambda: heard)  # noqa: B023 - awaited here
                    assert heard == [face.id for face in b.accepted]
                await until(lambda: not a.is_up("tcp"))
            count = len(told)
            app = await connect(path)
            await until(lambda: any(face.is_local and face.uri.startswith("fd:") for face in a.accepted))
            assert len(told) == count
            app.close()

    run(work)


def test_reconnecting_backs_off(monkeypatch: pytest.MonkeyPatch) -> None:
    """A peer that hangs up at once is dialled ever more seldom, not in a tight loop."""
    monkeypatch.setattr(neighbors_module, "RECONNECT_MIN_S", 0.1)

    async def work() -> None:
        dialled: list[float] = []
        loop = asyncio.get_running_loop()

        def hang_up(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            dialled.append(loop.time())
            writer.write(b"\x06\xff" + b"\xff" * 8)
            writer.close()

        host = new_host()
        server = await asyncio.start_server(hang_up, host, 0)
        port = server.sockets[0].getsockname()[1]
        async with running(neighbors=(Neighbor("flapping", f"tcp4://{host}:{port}"),)):
            await asyncio.sleep(1.6)
        server.close()
        assert 3 <= len(dialled) <= 6
        pauses = [later - earlier for earlier, later in itertools.pairwise(dialled)]
        assert pauses[-1] > 2 * pauses[0]

    run(work)


def test_an_unreachable_neighbour_is_named_once(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A neighbour that can't be reached is named with its address and reason, once, and nothing else suffers."""
    monkeypatch.setattr(neighbors_module, "RECONNECT_MIN_S", 0.02)

    async def work() -> None:
        host = new_host()
        uri = f"tcp4://{host}:{free_port(host)}"
        neighbors = (Neighbor("gone", uri), Neighbor("lost", "udp4://no.such.host.invalid:6363"))
        async with running(neighbors=neighbors) as a:
            await asyncio.sleep(0.3)
            face = a.manager.face_of("gone")
            assert face is not None and not face.up and a.manager.face_of("lost") is None
        said = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
        assert len([text for text in said if "gone" in text and uri in text and "Connection refused" in text]) == 1
        assert len([text for text in said if "lost" in text and "no.such.host.invalid" in text]) <= 1

    run(work)


def test_changing_neighbours_keeps_those_that_did_not_change() -> None:
    """On a reload a neighbour keeps its face and connection unless its address or rate changed; a removed one goes."""

    async def work() -> None:
        host = new_host()
        uri = f"tcp4://{host}:{free_port(host)}"
        async with running(uri), running(neighbors=(Neighbor("b", uri), Neighbor("c", uri))) as a:
            await until(lambda: a.is_up("b") and a.is_up("c"))
            b = a.manager.face_of("b")
            assert isinstance(b, StreamFace)
            transport = b.transport
            a.manager.set_neighbors([Neighbor("b", uri, cost=7)])
            assert a.manager.face_of("b") is b and b.transport is transport and a.manager.face_of("c") is None
            a.manager.set_neighbors([Neighbor("b", uri, rate_bps=1_000_000)])
            assert a.manager.face_of("b") is not b
            await until(lambda: a.is_up("b"))
            assert len([face for face in a.forwarder.faces.values() if face.neighbor]) == 1

    run(work)


def test_a_udp_neighbour_that_spoke_first_becomes_the_neighbour() -> None:
    """The face of a UDP peer that came by itself gives way to the configured one of the same address, once."""

    async def work() -> None:
        a_host, b_host = new_host(), new_host()
        a_uri, b_uri = (f"udp4://{host}:{free_port(host, socket.SOCK_DGRAM)}" for host in (a_host, b_host))
        called: list[bool] = []
        async with running(a_uri) as a, running(b_uri, neighbors=(Neighbor("a", a_uri),)) as b:
            a.manager._neighbors._on_new_face = lambda: called.append(True)
            await until(lambda: b.is_up("a"))
            b.route(b"", "a")
            with pytest.raises((Nacked, TimedOut)):
                await b.app.express(NAME, lifetime_ms=300)
            assert [face.uri for face in a.accepted] == [b_uri]
            for _ in range(3):
                a.manager.set_neighbors([Neighbor("b", b_uri)])
            await until(lambda: a.is_up("b"))
            assert a.accepted == [] and called == [True]
            a.serve(names.parse("/p"), answer)
            assert (await b.app.express(names.parse("/p/2"), lifetime_ms=1000)).content == b"answer"
            assert len([face for face in a.forwarder.faces.values() if face.neighbor == "b"]) == 1

    run(work)


# --- listening


@pytest.mark.parametrize("kind", ["tcp4", "udp4"])
def test_a_port_in_use_is_named(kind: str) -> None:
    """A port that another process has is an error that names the address, the reason and the way out."""

    async def work() -> None:
        host = new_host()
        with socket.socket(socket.AF_INET, socket.SOCK_STREAM if kind == "tcp4" else socket.SOCK_DGRAM) as taken:
            taken.bind((host, 0))
            if kind == "tcp4":
                taken.listen()
            uri = f"{kind}://{host}:{taken.getsockname()[1]}"
            with pytest.raises(FaceError, match="in use; is another forwarder running") as caught:
                async with running(uri):
                    pass
            assert uri in str(caught.value)

    run(work)


@pytest.mark.parametrize(
    ("uri", "reason"),
    [
        ("ether://eth0", "unknown kind of face"),
        ("tcp4://127.0.0.1:99999", "(?i)port"),
        ("tcp4://[::1", "tcp4://"),
        ("tcp4://203.0.113.77:6363", "not on this machine"),
        ("udp4://203.0.113.77:6363", "not on this machine"),
        ("unix:///proc/no/ndn.sock", "/proc/no"),
        ("unix:///tmp/" + "x" * 200, "too long"),
    ],
)
def test_a_listening_address_that_cannot_be(uri: str, reason: str) -> None:
    """Every address that can't be listened on is a FaceError that says why."""

    async def work() -> None:
        with pytest.raises(FaceError, match=reason):
            async with running(uri):
                pass

    run(work)


def test_a_stale_unix_socket_is_replaced(tmp_path: Path) -> None:
    """The socket that a killed forwarder left behind is no obstacle; ours is removed when we stop."""

    async def work() -> None:
        path = tmp_path / "ndn.sock"
        with socket.socket(socket.AF_UNIX) as dead:
            dead.bind(str(path))
        async with running(f"unix://{path}") as a:
            a.serve(names.parse("/p"), answer)
            app = await connect(f"unix://{path}")
            assert (await app.express(NAME)).content == b"answer"
            app.close()
        assert not path.exists()

    run(work)


def test_a_live_unix_socket_is_left_alone(tmp_path: Path) -> None:
    """A second forwarder on the same path is refused, and the first goes on working."""

    async def work() -> None:
        uri = f"unix://{tmp_path}/ndn.sock"
        async with running(uri) as a:
            a.serve(names.parse("/p"), answer)
            with pytest.raises(FaceError, match="another forwarder answers there"):
                async with running(uri):
                    pass
            app = await connect(uri)
            assert (await app.express(NAME)).content == b"answer"
            app.close()

    run(work)


# --- bad peers

BAD_STREAMS = {
    "random": random.Random(1).randbytes(20_000),
    "oversized": b"\x06\xfd\xff\xff" + bytes(100),
    "enormous": b"\x06\xff" + b"\xff" * 8,
    "truncated": packet.encode_interest(NAME)[1][:-3],
    "empty packets": b"\x05\x00" * 5000,
    "not for us": b"\x80\x01x" * 3000,
}


@pytest.mark.parametrize("kind", ["unix", "tcp4"])
@pytest.mark.parametrize("bad", sorted(BAD_STREAMS))
def test_bad_bytes_on_a_stream_cost_at_most_its_face(tmp_path: Path, kind: str, bad: str) -> None:
    """Bytes that are no packets are counted, end at most the connection they came on, and everybody else is served."""

    async def work() -> None:
        host = new_host()
        port = free_port(host)
        unix = f"unix://{tmp_path}/a.sock"
        async with running(unix, f"tcp4://{host}:{port}") as a:
            a.serve(names.parse("/p"), answer)
            other = await connect(unix)
            await other.express(NAME)
            if kind == "unix":
                reader, writer = await asyncio.open_unix_connection(f"{tmp_path}/a.sock")
            else:
                reader, writer = await asyncio.open_connection(host, port)
            await until(lambda: len(a.accepted) == 2)
            face = a.accepted[1]
            writer.write(BAD_STREAMS[bad])
            if bad in ("oversized", "enormous"):
                assert await receives_end(reader)
            else:
                await until(lambda: bad == "truncated" or face.counters.undecodable)
                await asyncio.sleep(0.02)
            writer.close()
            await until(lambda: len(a.accepted) == 1)
            assert face.counters.in_bytes == len(BAD_STREAMS[bad])
            assert (face.counters.undecodable > 0) == (bad != "truncated")
            assert (await other.express(names.parse("/p/still"), lifetime_ms=1000)).content == b"answer"
            other.close()

    run(work)


def test_bad_datagrams_cost_nothing() -> None:
    """Datagrams that are no packets make no face and harm none; those of a known peer are counted at its face."""

    async def work() -> None:
        host = new_host()
        port = free_port(host, socket.SOCK_DGRAM)
        async with running(f"udp4://{host}:{port}") as a:
            a.serve(names.parse("/p"), answer)
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as peer:
                peer.bind((new_host(), 0))
                peer.setblocking(False)
                loop = asyncio.get_running_loop()
                bad = [*BAD_STREAMS.values(), b"", b"\x06", bytes(60_000)]
                for wire in bad:
                    peer.sendto(wire[:60_000], (host, port))
                await asyncio.sleep(0.05)
                assert a.accepted == []
                peer.sendto(packet.encode_interest(NAME)[1], (host, port))
                assert packet.decode_data(await loop.sock_recv(peer, 9000)).content == b"answer"
                for wire in bad:
                    peer.sendto(wire[:60_000], (host, port))
                await until(lambda: a.accepted[0].counters.undecodable >= len(bad) - 1)
                peer.sendto(packet.encode_interest(names.parse("/p/2"))[1], (host, port))
                assert packet.decode_data(await loop.sock_recv(peer, 9000)).content == b"answer"

    run(work)


def test_a_slow_reader_is_bounded(tmp_path: Path) -> None:
    """A peer that asks and does not read costs no more memory than the limit; others are served meanwhile."""

    async def work() -> None:
        unix = f"unix://{tmp_path}/a.sock"
        async with running(unix) as a:
            a.serve(names.parse("/p"), bulk_answer)
            other = await connect(unix)
            await other.express(NAME)
            reader, writer = await asyncio.open_unix_connection(f"{tmp_path}/a.sock", limit=1024)
            await until(lambda: len(a.accepted) == 2)
            face = a.accepted[1]
            for _ in range(6):
                writer.write(b"".join(packet.encode_interest(NAME)[1] for _ in range(300)))
                await asyncio.sleep(0.02)
                size = face.transport.get_write_buffer_size()
                assert size <= stream_module.WRITE_BUFFER_MAX_BYTES + packet.MAX_PACKET_BYTES
            await until(lambda: face.counters.in_interests == 1800)
            assert face.counters.drops > 1000
            assert (await other.express(names.parse("/p/other"))).content == bytes(8000)
            read = 0
            while read < stream_module.WRITE_BUFFER_MAX_BYTES:
                read += len(await reader.read(1 << 20))
            writer.close()
            other.close()

    run(work)


@pytest.mark.parametrize("is_local", [False, True])
def test_a_standing_backlog_is_marked(is_local: bool) -> None:
    """Data to a neighbour that reads too slowly bear congestion marks after a while; to applications none."""

    async def work() -> None:
        loop = asyncio.get_running_loop()
        ours, theirs = socket.socketpair()
        with theirs:
            ours.setblocking(False)
            transport, _ = await loop.create_connection(asyncio.Protocol, sock=ours)
            face = StreamFace("tcp4://192.0.2.1:6363", "", is_local=is_local)
            face.attach(transport)
            wire = keys.sign_data(NAME, bytes(8000))
            sent = 0
            for _ in range(30):
                for _ in range(4):
                    face.send_data(wire, None)
                face.send_interest(packet.encode_interest(NAME)[1])
                sent += 4
                await asyncio.sleep(0.01)
            assert face.counters.drops == 0
            expected = face.counters.out_bytes
            theirs.setblocking(False)
            stream = b""
            while len(stream) < expected:
                stream += await loop.sock_recv(theirs, 1 << 20)
            assert len(stream) == expected
            marks = stream.count(bytes.fromhex("fd0340 01 01"))
            assert marks == 0 if is_local else 1 <= marks <= sent / 10
            face.close()

    run(work)


def test_what_the_kernel_holds_back_is_seen() -> None:
    """Bytes that TCP has taken for a neighbour that does not read count as backlog."""
    with socket.create_server((new_host(), 0)) as listener, socket.socket() as writer:
        writer.connect(listener.getsockname())
        assert stream_module.unsent_bytes(writer.fileno()) == 0
        writer.setblocking(False)
        with pytest.raises(BlockingIOError):
            while True:
                writer.send(bytes(1 << 20))
        assert stream_module.unsent_bytes(writer.fileno()) > 64 << 10
    with socket.socket(socket.AF_UNIX) as local:
        assert stream_module.unsent_bytes(local.fileno()) == 0


# --- on-demand faces


def test_idle_udp_faces_close(monkeypatch: pytest.MonkeyPatch) -> None:
    """A UDP peer that came by itself and went loses its face; one that goes on speaking keeps it."""
    monkeypatch.setattr(manager_module, "UDP_IDLE_S", 0.3)

    async def work() -> None:
        host = new_host()
        port = free_port(host, socket.SOCK_DGRAM)
        async with running(f"udp4://{host}:{port}") as a:
            quiet, talking = (socket.socket(socket.AF_INET, socket.SOCK_DGRAM) for _ in range(2))
            with quiet, talking:
                quiet.sendto(packet.encode_interest(NAME)[1], (host, port))
                for i in range(8):
                    talking.sendto(packet.encode_interest(NAME)[1], (host, port))
                    await asyncio.sleep(0.1)
                    if i == 0:
                        assert len(a.accepted) == 2
                assert [face.uri.rpartition(":")[2] for face in a.accepted] == [str(talking.getsockname()[1])]

    run(work)


def test_peers_that_nobody_configured_are_capped_by_kind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A crowd of UDP or TCP peers is limited, and does not keep an application on this machine out."""
    monkeypatch.setattr(manager_module, "ON_DEMAND_MAX", 3)

    async def work() -> None:
        host = new_host()
        udp, tcp, unix = free_port(host, socket.SOCK_DGRAM), free_port(host), f"unix://{tmp_path}/a.sock"
        async with running(f"udp4://{host}:{udp}", f"tcp4://{host}:{tcp}", unix) as a:
            a.serve(names.parse("/p"), answer)
            peers = [socket.socket(socket.AF_INET, socket.SOCK_DGRAM) for _ in range(6)]
            for peer in peers:
                peer.sendto(packet.encode_interest(NAME)[1], (host, udp))
            streams = [await asyncio.open_connection(host, tcp) for _ in range(6)]
            await until(lambda: len(a.accepted) == 6)
            assert await receives_end(streams[-1][0])
            app = await connect(unix)
            assert (await app.express(NAME)).content == b"answer"
            assert len(a.accepted) == 7
            app.close()
            for peer in peers:
                peer.close()
            for _, writer in streams:
                writer.close()

    run(work)


# --- what the sockets carried


async def fetch_all(app: Endpoint, prefix: str, count: int, window: int = 32, lifetime_ms: int = 1000) -> int:
    """Asks for `count` packets with a window; how many came."""
    numbers, came = iter(range(count)), 0

    async def ask() -> None:
        nonlocal came
        for number in numbers:
            try:
                await app.express(names.parse(f"{prefix}/{number}"), lifetime_ms=lifetime_ms, retries=2)
                came += 1
            except FetchError:
                continue

    await asyncio.gather(*(ask() for _ in range(window)))
    return came


@pytest.mark.parametrize("kind", ["tcp4", "udp4"])
def test_counters_are_what_the_socket_carried(kind: str) -> None:
    """The bytes counted at a face are those that the peer's own socket sent and received."""

    async def work() -> None:
        host = new_host()
        kind_of_socket = socket.SOCK_STREAM if kind == "tcp4" else socket.SOCK_DGRAM
        port = free_port(host, kind_of_socket)
        async with running(f"{kind}://{host}:{port}") as a:
            a.serve(names.parse("/p"), bulk_answer)
            loop = asyncio.get_running_loop()
            with socket.socket(socket.AF_INET, kind_of_socket) as peer:
                peer.setblocking(False)
                await loop.sock_connect(peer, (host, port))
                sent = received = 0
                for i in range(50):
                    interest = packet.encode_interest(names.parse(f"/{'p' if i % 5 else 'none'}/{i % 7}"))[1]
                    wire = packet.encode_link(interest, pit_token=bytes([i]))
                    await loop.sock_sendall(peer, wire)
                    sent += len(wire)
                    expected = received + (8000 if i % 5 else len(wire))
                    while received < expected:
                        received += len(await loop.sock_recv(peer, 1 << 16))
                await asyncio.sleep(0.02)
                face = a.accepted[0]
                assert (face.counters.in_bytes, face.counters.out_bytes) == (sent, received)
                assert (face.counters.out_data, face.counters.out_nacks) == (40, 10)

    run(work)


@pytest.mark.parametrize("kind", ["tcp4", "udp4"])
def test_a_rate_limited_face_carries_its_rate(kind: str) -> None:
    """A transfer over a face with a rate takes what the rate says, within 15 %, counted at both ends alike."""
    rate_bps = 16_000_000

    async def work() -> None:
        a_host, b_host = new_host(), new_host()
        socket_kind = socket.SOCK_STREAM if kind == "tcp4" else socket.SOCK_DGRAM
        a_uri = f"{kind}://{a_host}:{free_port(a_host, socket_kind)}"
        b_uri = f"{kind}://{b_host}:{free_port(b_host, socket_kind)}"
        limited = Neighbor("a", a_uri, rate_bps=rate_bps)
        async with running(a_uri, neighbors=(Neighbor("b", b_uri),)) as a, running(b_uri, neighbors=(limited,)) as b:
            await until(lambda: a.is_up("b") and b.is_up("a"))
            a.route(names.parse("/p"), "b")
            b.serve(names.parse("/p"), bulk_answer)
            sent, received = b.manager.face_of("a").counters, a.manager.face_of("b").counters  # type: ignore[union-attr]
            loop = asyncio.get_running_loop()
            await asyncio.sleep(0.1)  # a connection that gives way to the other end's has brought its greeting
            sent_before, received_before = sent.out_bytes, received.in_bytes
            begun = loop.time()
            assert await fetch_all(a.app, "/p", 400) == 400
            spent_s = loop.time() - begun
            carried = sent.out_bytes - sent_before
            assert carried == received.in_bytes - received_before
            assert 0.85 * rate_bps <= carried * 8 / spent_s <= 1.15 * rate_bps

    run(work)
