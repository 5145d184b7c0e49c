"""UDP faces: fragments, trains, queues, and peers on other machines (namespaces), honest ones and forged ones."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import socket
import struct
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import pytest

from gateway.forwarder import packet
from gateway.forwarder.endpoint import FetchError
from gateway.forwarder.faces import link
from gateway.forwarder.faces import manager as manager_module
from gateway.forwarder.faces import multicast as multicast_module
from gateway.forwarder.faces.datagram import CONTROL_ROOM_BYTES, QUEUE_MAX_BYTES, DatagramFace
from gateway.forwarder.faces.limits import Limits
from gateway.forwarder.faces.manager import Neighbor
from gateway.forwarder.faces.udp_socket import UdpSocket
from gateway.protocol import keys, names
from tests.forwarder.far_host import FarHost, far_host
from tests.forwarder.test_faces import Gateway, answer, bulk_answer, fetch_all, free_port, new_host, run, running, until

NAME = names.parse("/p/x")
UDP_SEGMENT, SO_NO_CHECK = 103, 11

needs_namespaces = pytest.mark.skipif(
    os.geteuid() != 0 or shutil.which("ip") is None, reason="only root makes network namespaces, with the command ip"
)


def datagram_face(gateway: Gateway, neighbor: str | None = None) -> DatagramFace:
    """The face to a neighbour, or that of the only peer that came by itself."""
    face = gateway.manager.face_of(neighbor) if neighbor else gateway.accepted[0]
    assert isinstance(face, DatagramFace)
    return face


def interest(uri: str) -> bytes:
    return packet.encode_interest(names.parse(uri))[1]


@contextmanager
def peer_at(host: str, port: int) -> Iterator[socket.socket]:
    """A peer's own socket, connected to a gateway."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as peer:
        peer.setblocking(False)
        peer.connect((host, port))
        yield peer


async def receive(peer: socket.socket, seconds: float = 3.0) -> bytes:
    async with asyncio.timeout(seconds):
        return await asyncio.get_running_loop().sock_recv(peer, 65_535)


# --- fragments


@pytest.mark.parametrize("kind", ["udp4", "udp6"])
def test_large_data_crosses_a_small_mtu(kind: str) -> None:
    """Over a path of 1200 bytes segments of 8000 come whole, in datagrams that fit, counted alike at both ends."""

    async def work() -> None:
        hosts = ("[::1]", "[::1]") if kind == "udp6" else (new_host(), new_host())
        family = socket.AF_INET6 if kind == "udp6" else socket.AF_INET
        ports = []
        for host in hosts:
            with socket.socket(family, socket.SOCK_DGRAM) as probe:
                probe.bind((host.strip("[]"), 0))
                ports.append(probe.getsockname()[1])
        a_uri, b_uri = (f"{kind}://{host}:{port}" for host, port in zip(hosts, ports, strict=True))
        async with (
            running(a_uri, neighbors=(Neighbor("b", b_uri, mtu=1200),)) as a,
            running(b_uri, neighbors=(Neighbor("a", a_uri, mtu=1200),)) as b,
        ):
            await until(lambda: a.is_up("b") and b.is_up("a"))
            a.route(names.parse("/p"), "b")
            b.serve(names.parse("/p"), bulk_answer)
            assert await fetch_all(a.app, "/p", 50, window=8) == 50
            there, here = datagram_face(b, "a"), datagram_face(a, "b")
            assert there.link.fragmented == here.link.reassembled == 50
            assert there.link.out_datagrams == here.link.in_datagrams == 50 * 7
            assert there.counters.out_bytes == here.counters.in_bytes > 50 * 8000
            assert here.counters.in_data == 50 and here.link.reassembly_drops == 0

    run(work)


def test_fragments_of_a_stranger_are_put_together() -> None:
    """A peer whose first packet comes in pieces, out of order, is answered; what never becomes whole is counted."""

    async def work() -> None:
        host = new_host()
        port = free_port(host, socket.SOCK_DGRAM)
        async with running(f"udp4://{host}:{port}") as a:
            a.serve(names.parse("/p"), answer)
            _, wire = packet.encode_interest(NAME, parameters=bytes(2000))
            with peer_at(host, port) as peer:
                for part in reversed(link.fragments(wire, 600, 9)):
                    peer.send(part)
                assert packet.decode_data(await receive(peer)).content == b"answer"
                lost = link.fragments(wire, 600, 99)[1:]
                for part in (*lost, lost[0], b"\x64\x06\x52\x01\x05\x50\x01x"):
                    peer.send(part)
                face = datagram_face(a)
                await until(lambda: face.counters.undecodable == 1 and face.link.reassembly_drops == 1)
                await asyncio.sleep(link.REASSEMBLY_TIMEOUT_S)
                peer.send(lost[0])
                await until(lambda: face.link.reassembly_drops == 2)

    run(work)


# --- trains


@pytest.mark.parametrize("refuses", [False, True], ids=["trains", "the kernel refuses trains"])
def test_a_train_is_taken_and_answered(refuses: bool) -> None:
    """Packets that come as one train are each answered, also where the kernel sends no trains."""

    async def work() -> None:
        host = new_host()
        port = free_port(host, socket.SOCK_DGRAM)
        async with running(f"udp4://{host}:{port}") as a:
            a.serve(names.parse("/p"), answer)
            if refuses:
                a.manager._channels[0].udp.socket.setsockopt(socket.SOL_SOCKET, SO_NO_CHECK, 1)
            with peer_at(host, port) as peer:
                interests = [interest(f"/p/{i:03}") for i in range(60)]
                size = struct.pack("=H", len(interests[0]))
                for _ in range(2):  # produced, then from the store
                    peer.sendmsg(interests, [(socket.IPPROTO_UDP, UDP_SEGMENT, size)])
                    came = {packet.decode_data(await receive(peer)).name for _ in interests}
                    assert len(came) == 60
                face = datagram_face(a)
                assert (face.link.in_datagrams, face.link.out_datagrams) == (120, 120)
                assert (face.counters.in_interests, face.counters.out_data, face.counters.drops) == (120, 120, 0)
                assert (face.segment_max == 0) == refuses

    run(work)


@pytest.mark.parametrize(
    ("sizes", "segment_max", "count"),
    [
        ([100] * 70, 1472, 64),
        ([100, 100, 60, 100], 1472, 3),
        ([100, 100, 101], 1472, 2),
        ([100, 0, 100], 1472, 1),
        ([0, 0], 1472, 1),
        ([2000, 2000], 1472, 1),
        ([8000] * 12, 65_507, 8),
        ([100, 100], 0, 1),
    ],
)
def test_what_makes_a_train(sizes: list[int], segment_max: int, count: int) -> None:
    """A train has packets of one length that the path takes whole, the last may be shorter, and ends at 64 or 64 kB."""
    with (
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as near,
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as far,
    ):
        near.bind((new_host(), 0))
        far.bind((new_host(), 0))
        sent = UdpSocket(near).send([bytes(size) for size in sizes], far.getsockname(), segment_max)
        assert sent == count
        far.setblocking(False)
        assert [len(far.recv(65_535)) for _ in range(sent)] == sizes[:count]
        with pytest.raises(BlockingIOError):
            far.recv(65_535)


# --- queues


class FullSocket(UdpSocket):
    """A kernel that has no room while `is_full`, and then takes a packet at a time."""

    is_full = True

    def __init__(self, sock: socket.socket) -> None:
        super().__init__(sock)
        self.sent: list[int] = []

    def send(self, wires: Any, address: Any, segment_max: int) -> int:
        if self.is_full:
            raise BlockingIOError
        self.sent.append(len(wires[0]))
        return 1


def test_a_full_socket_is_waited_for_within_bounds() -> None:
    """What the kernel has no room for waits up to a limit, small packets have room beyond it and leave first."""

    async def work() -> None:
        host = new_host()
        port = free_port(host, socket.SOCK_DGRAM)
        async with running(f"udp4://{host}:{port}") as a:
            with peer_at(host, port) as peer:
                peer.send(interest("/none"))
                assert await receive(peer)
            channel, face = a.manager._channels[0], datagram_face(a)
            channel.udp = full = FullSocket(channel.udp.socket)
            for _ in range(100):
                face.transmit(b"\x06" + bytes(7999), bulk=True)
            for _ in range(1000):
                face.transmit(b"\x05" + bytes(99), bulk=False)
            bulk = QUEUE_MAX_BYTES // 8000
            small = (QUEUE_MAX_BYTES + CONTROL_ROOM_BYTES - bulk * 8000) // 100
            assert face.counters.drops == 1100 - bulk - small
            await asyncio.sleep(0.02)
            assert full.sent == []
            full.is_full = False
            await until(lambda: len(full.sent) >= bulk + small)
            assert full.sent == [100] * small + [8000] * bulk
            await asyncio.sleep(0.02)
            assert face.counters.drops == 1100 - bulk - small and not channel._waiting
            face.transmit(b"\x06" + bytes(7999), bulk=True)
            await until(lambda: len(full.sent) == bulk + small + 1)

    run(work)


@asynccontextmanager
async def neighbor_socket(**options: Any) -> AsyncIterator[tuple[Gateway, socket.socket, tuple[str, int]]]:
    """A gateway whose neighbour `n` is this socket, which is up, and the address to send to it at."""
    address = (host := new_host(), free_port(host, socket.SOCK_DGRAM))
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as peer:
        peer.bind((new_host(), 0))
        peer.setblocking(False)
        uri = "udp4://{}:{}".format(*peer.getsockname())
        async with running("udp4://{}:{}".format(*address), neighbors=(Neighbor("n", uri, **options),)) as a:
            await until(lambda: a.is_up("n"))
            yield a, peer, address


def test_a_standing_queue_marks_data() -> None:
    """Behind a slow link Data comes with a congestion mark once the queue has stood, not at its beginning."""

    async def work() -> None:
        async with neighbor_socket(rate_bps=2_000_000) as (a, peer, address):
            a.serve(names.parse("/p"), bulk_answer)
            for i in range(20):
                peer.sendto(interest(f"/p/{i}"), address)
            marks = [packet.decode_link(await receive(peer)).congestion_mark for _ in range(8)]
            assert marks[0] == marks[1] == 0 and 1 in marks
            assert datagram_face(a, "n").link.marked >= sum(marks)

    run(work)


@pytest.mark.parametrize("is_reliable", [False, True], ids=["plain", "reliable"])
def test_a_mark_reaches_the_consumer(tmp_path: Path, is_reliable: bool) -> None:
    """What a gateway's slow link marks, fragment or not, the next gateway passes on to the application that asked."""

    async def work() -> None:
        a_host, b_host = new_host(), new_host()
        a_uri, b_uri = (f"udp4://{host}:{free_port(host, socket.SOCK_DGRAM)}" for host in (a_host, b_host))
        unix, options = f"unix://{tmp_path}/a.sock", {"mtu": 1400, "is_reliable": is_reliable}
        async with (
            running(unix, a_uri, neighbors=(Neighbor("b", b_uri, **options),)) as a,
            running(b_uri, neighbors=(Neighbor("a", a_uri, rate_bps=2_000_000, **options),)) as b,
        ):
            await until(lambda: a.is_up("b") and b.is_up("a"))
            a.route(names.parse("/p"), "b")
            b.serve(names.parse("/p"), bulk_answer)
            reader, writer = await asyncio.open_unix_connection(f"{tmp_path}/a.sock")
            writer.write(b"".join(interest(f"/p/{number}") for number in range(15)))
            marks, buffer = [], b""
            while len(marks) < 6 or not any(marks):
                buffer += await reader.read(1 << 16)
                wires, used = packet.split_stream(buffer)
                buffer = buffer[used:]
                marks += [packet.decode_link(wire).congestion_mark for wire in wires]
            assert marks[0] == 0 and datagram_face(b, "a").link.marked >= sum(marks) >= 1
            writer.close()

    run(work)


def test_a_loss_of_a_queue_on_the_way_is_told_by_a_mark() -> None:
    """What reliability has seen of a queue that overflows goes on the next Data as a congestion mark, once."""

    async def work() -> None:
        async with neighbor_socket(is_reliable=True) as (a, peer, address):
            a.serve(names.parse("/p"), answer)
            face = datagram_face(a, "n")
            assert face._reliability is not None
            owed = [False, True, False]
            face._reliability.take_mark = lambda now: owed.pop(0)  # type: ignore[method-assign]
            marks = []
            for number in range(3):
                peer.sendto(interest(f"/p/{number}"), address)
                marks.append(packet.decode_link(await receive(peer)).congestion_mark)
            assert marks == [0, 1, 0] and face.link_counters()["marked"] == 1

    run(work)


def test_a_rate_holds_for_what_is_sent_again_too() -> None:
    """A shaped reliable face that loses a datagram in eight sends no more than its rate, headers and Acks included."""

    async def work() -> None:
        a_host, b_host = new_host(), new_host()
        a_uri, b_uri = (f"udp4://{host}:{free_port(host, socket.SOCK_DGRAM)}" for host in (a_host, b_host))
        lossless = {"mtu": 1400, "is_reliable": True}
        async with (
            running(a_uri, neighbors=(Neighbor("b", b_uri, **lossless),)) as a,
            running(b_uri, neighbors=(Neighbor("a", a_uri, rate_bps=4_000_000, **lossless),)) as b,
        ):
            await until(lambda: a.is_up("b") and b.is_up("a"))
            channel = b.manager._channels[0]
            channel.udp = LossySocket(channel.udp.socket)
            a.route(names.parse("/p"), "b")
            b.serve(names.parse("/p"), bulk_answer)
            face, loop = datagram_face(b, "a"), asyncio.get_running_loop()
            begun = loop.time()
            for start in range(0, 28, 14):
                asked = (a.app.express(names.parse(f"/p/{start + i}"), lifetime_ms=4000) for i in range(14))
                await asyncio.gather(*asked)
            spent_s = loop.time() - begun
            sent_bytes = face.counters.out_bytes + 28 * face.link.out_datagrams
            assert face.link_counters()["retransmissions"] >= 15
            assert sent_bytes <= 500_000 * spent_s + 10_000 + 2 * 1428

    run(work)


# --- other machines


async def ask(peer: socket.socket, gateway: tuple[Any, ...], wire: bytes) -> list[bytes]:
    """Sends a packet and gives what came until nothing comes for a while."""
    peer.sendto(wire, gateway)
    came = []
    try:
        while True:
            came.append(await receive(peer, 0.3))
    except TimeoutError:
        return came


@needs_namespaces
def test_a_forged_address_gets_no_more_than_three_times() -> None:
    """A client that forges its address can't make us send there more than three times the bytes that it sends."""

    async def work() -> None:
        with far_host() as far:
            async with running(f"udp4://{far.near}:6363") as a:
                a.serve(names.parse("/p"), bulk_answer)
                raw, sniffer = far.run(forger), far.run(lambda: sniffer_on(far.far_interface))
                with raw, sniffer:
                    sent = received = 0
                    for i in range(60):
                        wire = interest(f"/p/{i % 4}")
                        raw.sendto(udp_packet(far.victim, far.near, 5000, 6363, wire), (far.near, 0))
                        sent += len(wire)
                        await asyncio.sleep(0.002)
                        received += drain(sniffer, far.victim)
                    await asyncio.sleep(0.3)
                    received += drain(sniffer, far.victim)
                    assert 0 < received <= 3 * sent
                    face = datagram_face(a)
                    assert face.counters.in_interests == 60
                    assert face.link.unproven_drops > 30
                    assert face.counters.out_bytes == received

    run(work)


def forger() -> socket.socket:
    return socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW)


def sniffer_on(interface: str) -> socket.socket:
    made = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(0x0800))
    made.bind((interface, 0x0800))
    made.setblocking(False)
    return made


def udp_packet(source: str, destination: str, source_port: int, port: int, payload: bytes) -> bytes:
    """An IPv4 packet with any source; the kernel fills in the checksum of its header, UDP goes without."""
    header = struct.pack("!BBHHHBBH", 0x45, 0, 28 + len(payload), 1, 0, 64, socket.IPPROTO_UDP, 0)
    addresses = socket.inet_aton(source) + socket.inet_aton(destination)
    return header + addresses + struct.pack("!HHHH", source_port, port, 8 + len(payload), 0) + payload


def drain(sniffer: socket.socket, destination: str) -> int:
    """The bytes of UDP payload that arrived for an address."""
    total = 0
    while True:
        try:
            frame = sniffer.recv(65_535)
        except BlockingIOError:
            return total
        if frame[16:20] == socket.inet_aton(destination) and frame[9] == socket.IPPROTO_UDP:
            is_first = not int.from_bytes(frame[6:8], "big") & 0x1FFF
            total += int.from_bytes(frame[2:4], "big") - 20 - 8 * is_first


@needs_namespaces
@pytest.mark.parametrize("way", ["data", "nack"])
def test_a_peer_that_answers_is_served(way: str) -> None:
    """What was asked before the proof comes after it without being asked again, and from then on there is no limit."""

    async def work() -> None:
        with far_host() as far:
            async with running(f"udp4://{far.near}:6363") as a:
                a.serve(names.parse("/p"), bulk_answer)
                with far.udp() as peer:
                    (question,) = await ask(peer, (far.near, 6363), interest("/p/video/1"))
                    name = packet.decode_interest(question).name
                    assert name.startswith(names.HELLO)
                    proof = (
                        keys.sign_data(name, b"")
                        if way == "data"
                        else packet.encode_link(question, nack_reason=packet.NACK_NO_ROUTE)
                    )
                    assert whole(await ask(peer, (far.near, 6363), proof)) == [bytes(8000)]
                    assert whole(await ask(peer, (far.near, 6363), interest("/p/video/2"))) == [bytes(8000)]
                face = datagram_face(a)
                assert face.proof is None and face.mtu == link.DEFAULT_MTU_BYTES
                assert face.link.unproven_drops == 0 and a.forwarder.counters.unsolicited == 0

    run(work)


def whole(wires: list[bytes]) -> list[bytes]:
    """The contents of Data that came in fragments of at most the path's MTU."""
    assert max(map(len, wires)) <= link.DEFAULT_MTU_BYTES
    reassembler = link.Reassembler(link.ReassemblyBudget())
    found = [reassembler.add(wire, 0.0) for wire in wires]
    return [packet.decode_data(wire).content for wire in found if wire is not None]


@needs_namespaces
def test_a_gateway_proves_itself() -> None:
    """Two gateways of which only one knows the other exchange segments at once, and no answer is lost."""

    async def work() -> None:
        with far_host() as far:
            near_uri = f"udp4://{far.near}:6363"
            async with running(near_uri) as b:
                b.serve(names.parse("/p"), bulk_answer)
                relay = await Relay.open(far, (far.near, 6363))
                async with running(neighbors=(Neighbor("b", relay.uri),)) as a:
                    await until(lambda: a.is_up("b"))
                    a.route(names.parse("/p"), "b")
                    assert await fetch_all(a.app, "/p", 40, window=4) == 40
                    assert datagram_face(b).proof is None
                    assert datagram_face(b).link.unproven_drops == 0
                    assert a.manager.face_of("b").counters.in_data == 40  # type: ignore[union-attr]
                relay.close()

    run(work)


class Relay:
    """Passes datagrams between a loopback address here and a socket in the namespace, so that a gateway seems there."""

    def __init__(self, far: FarHost, gateway: tuple[str, int]) -> None:
        self._gateway = gateway
        self._near = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._near.bind((new_host(), 0))
        self._near.setblocking(False)
        self._far = far.udp()
        self._client: Any = None
        self.uri = "udp4://{}:{}".format(*self._near.getsockname())

    @classmethod
    async def open(cls, far: FarHost, gateway: tuple[str, int]) -> Relay:
        relay = cls(far, gateway)
        loop = asyncio.get_running_loop()
        loop.add_reader(relay._near, relay._outward)
        loop.add_reader(relay._far, relay._inward)
        return relay

    def _outward(self) -> None:
        wire, self._client = self._near.recvfrom(65_535)
        self._far.sendto(wire, self._gateway)

    def _inward(self) -> None:
        self._near.sendto(self._far.recv(65_535), self._client)

    def close(self) -> None:
        loop = asyncio.get_running_loop()
        for sock in (self._near, self._far):
            loop.remove_reader(sock)
            sock.close()


@needs_namespaces
def test_forged_addresses_keep_nobody_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """When unproven peers have taken all places, the oldest of them gives way to a new one."""
    monkeypatch.setattr(manager_module, "ON_DEMAND_MAX", 5)
    monkeypatch.setattr(manager_module, "UNPROVEN_S", 0.1)

    async def work() -> None:
        with far_host() as far:
            async with running(f"udp4://{far.near}:6363") as a:
                a.serve(names.parse("/p"), answer)
                raw = far.run(forger)
                with raw, far.udp() as peer:
                    for port in range(5000, 5020):
                        raw.sendto(udp_packet(far.victim, far.near, port, 6363, interest("/p/video/1")), (far.near, 0))
                    await until(lambda: len(a.accepted) == 5)
                    assert [face.address[1] for face in a.accepted] == [5000, 5001, 5002, 5003, 5004]
                    await asyncio.sleep(0.15)
                    assert await ask(peer, (far.near, 6363), interest("/p/video/1"))
                    assert len(a.accepted) == 5 and a.accepted[-1].address == peer.getsockname()
                    assert a.accepted[0].address[1] == 5001

    run(work)


@needs_namespaces
def test_link_local_peers_are_answered_on_their_link() -> None:
    """A peer with a link-local IPv6 address is answered, and its face names the interface."""

    async def work() -> None:
        with far_host() as far:
            async with running(f"udp6://[{far.near6}%{far.interface}]:6363") as a:
                a.serve(names.parse("/p"), lambda i: keys.sign_data(i.name, b""))
                with far.udp(socket.AF_INET6) as peer:
                    there = (far.near6, 6363, 0, peer.getsockname()[3])
                    (question,) = await ask(peer, there, interest("/p/video/1"))
                    proof = keys.sign_data(packet.decode_interest(question).name, b"")
                    (data,) = await ask(peer, there, proof)
                    assert packet.decode_data(data).name == names.parse("/p/video/1")
                    port = peer.getsockname()[1]
                assert a.accepted[0].uri == f"udp6://[{far.address6}%{far.interface}]:{port}"
                assert a.accepted[0].local_uri == f"udp6://[{far.near6}%{far.interface}]:6363"
                neighbor = Neighbor("n", f"udp6://[{far.address6}%{far.interface}]:{port}")
                a.manager.set_neighbors([neighbor])
                await until(lambda: a.is_up("n"))
                assert a.accepted == []

    run(work)


@needs_namespaces
def test_a_smaller_path_is_learned() -> None:
    """A path that takes less than 1400 bytes gets fragments that fit it."""

    async def work() -> None:
        with far_host(mtu=1280) as far:
            uri = f"udp4://{far.address}:6363"
            async with running(neighbors=(Neighbor("n", uri),)) as a:
                await until(lambda: a.is_up("n"))
                assert datagram_face(a, "n").mtu == 1280 - 28

    run(work)


@needs_namespaces
def test_a_flood_from_one_peer_is_limited() -> None:
    """A peer on another machine beyond its limits loses Interests, counted; one on this machine has no limits."""

    async def work() -> None:
        with far_host() as far:
            gateway = Gateway()
            gateway.manager._face_limits = Limits(interests_s=50)
            gateway.serve(names.parse("/p"), answer)
            host = new_host()
            try:
                await gateway.manager.start([f"udp4://{far.near}:6363", f"udp4://{host}:6363"], [])
                with far.udp() as stranger, peer_at(host, 6363) as friend:
                    for i in range(600):
                        stranger.sendto(interest(f"/none/{i}"), (far.near, 6363))
                        friend.send(interest(f"/none/{i}"))
                        if i % 20 == 0:
                            await asyncio.sleep(0.006)
                    await until(lambda: len(gateway.accepted) == 2 and gateway.accepted[1].link.in_datagrams == 600)
                by_host = {face.address[0]: face for face in gateway.accepted}
                limits = gateway.manager._limits[by_host[far.address].id]
                passed = by_host[far.address].counters.in_interests
                assert 50 <= passed <= 200 and limits.dropped == 600 - passed
                assert by_host["127.0.0.1"].counters.in_interests == 600
                assert gateway.manager._limits[by_host["127.0.0.1"].id].dropped == 0
            finally:
                await gateway.manager.stop()

    run(work)


def test_trains_of_a_flood_are_dropped_whole() -> None:
    """Beyond its limit a peer's trains of Interests are dropped and counted, also on this machine; Data pass."""

    async def work() -> None:
        host = new_host()
        port = free_port(host, socket.SOCK_DGRAM)
        async with running(f"udp4://{host}:{port}") as a:
            with peer_at(host, port) as peer:
                for begin in range(0, 6000, 60):
                    train = [interest(f"/none/{begin + i:04}") for i in range(60)]
                    peer.sendmsg(train, [(socket.IPPROTO_UDP, UDP_SEGMENT, struct.pack("=H", len(train[0])))])
                    await asyncio.sleep(0)
                face = datagram_face(a)
                await until(lambda: face.link.in_datagrams == 6000)
                peer.send(keys.sign_data(NAME, b""))
                await until(lambda: face.counters.in_data == 1)
                assert face.limits is not None and face.limits.dropped > 1000
                assert face.counters.in_interests + face.limits.dropped == 6000
                assert face.counters.in_bytes == 6000 * len(train[0]) + len(keys.sign_data(NAME, b""))

    run(work)


def test_a_stream_that_floods_is_read_slowly(tmp_path: Path) -> None:
    """An application that asks for what nobody answers is read no faster than its limit; it loses nothing."""

    async def work() -> None:
        async with running(f"unix://{tmp_path}/a.sock") as a:
            reader, writer = await asyncio.open_unix_connection(f"{tmp_path}/a.sock")
            asked = 12_000
            writer.write(b"".join(interest(f"/none/{i}") for i in range(asked)))
            await until(lambda: a.accepted and a.accepted[0].counters.in_interests)
            begun = asyncio.get_running_loop().time()
            face = a.accepted[0]
            await asyncio.sleep(0.3)
            assert face.counters.in_interests < asked
            while face.counters.in_interests < asked:
                assert await reader.read(1 << 20)
            assert asyncio.get_running_loop().time() - begun > 0.5 * (asked / Limits().unanswered_s - 1)
            assert face.counters.out_nacks == asked
            writer.close()

    run(work)


# --- multicast


@needs_namespaces
def test_hellos_are_heard_by_multicast(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a named network both groups carry hellos in and out, one hop; other names and other interfaces do not."""
    monkeypatch.setattr(multicast_module, "LOOK_S", 0.1)

    async def work() -> None:
        with far_host() as far, far_host() as other, far_host() as unnamed:
            gateway = Gateway()
            try:
                await gateway.manager.start([], [], networks=[far.interface, other.interface])
                gateway.serve(names.HELLO, answer)
                gateway.serve(names.parse("/p"), answer)
                faces = gateway.manager.multicast
                await until(lambda: all(face.up for face in faces))
                assert len(faces) == 4 and not any(face.is_local for face in faces)
                for face in faces:
                    near = far if face.interface == far.interface else other
                    members = [host.run(lambda host=host, f=face: joined(f.family, host)) for host in (near, unnamed)]
                    (listening, group), (elsewhere, other_group) = members
                    with listening, elsewhere:
                        hello = packet.encode_interest(names.HELLO + names.component(face.uri + face.interface))[1]
                        for wire in (interest("/p/1"), b"\x06\x01x", hello):
                            listening.sendto(wire, group)
                        elsewhere.sendto(hello, other_group)
                        data = packet.decode_data(await receive(listening))
                        assert data.name.startswith(names.HELLO) and data.content == b"answer"
                        with pytest.raises(TimeoutError):
                            await receive(elsewhere, 0.1)
                for face in faces:
                    assert (face.counters.in_interests, face.counters.drops, face.counters.undecodable) == (1, 1, 1)
                    assert len(face.heard) == 1
            finally:
                await gateway.manager.stop()

    run(work)


def joined(family: socket.AddressFamily, host: FarHost) -> tuple[socket.socket, tuple[Any, ...]]:
    """A member of the group in the namespace, and where to send."""
    sock = multicast_module._joined(family, multicast_module.look_up(host.far_interface))  # type: ignore[arg-type]
    name = sock.getsockname()
    return sock, (multicast_module.GROUPS[family], multicast_module.PORT, *name[2:])


@needs_namespaces
def test_a_network_that_comes_and_goes_is_followed(monkeypatch: pytest.MonkeyPatch) -> None:
    """A group is joined when its interface appears, left when it goes; without named networks there are no groups."""
    monkeypatch.setattr(multicast_module, "LOOK_S", 0.05)

    async def work() -> None:
        gateway = Gateway()
        try:
            with far_host() as far:
                await gateway.manager.start([], [], networks=[far.interface, "no-such-net"])
                here, never = gateway.manager.multicast[:2], gateway.manager.multicast[2:]
                await until(lambda: all(face.up for face in here))
                assert not any(face.up for face in never)
            await until(lambda: not any(face.up for face in here))
        finally:
            await gateway.manager.stop()
        async with running() as plain:
            assert plain.manager.multicast == []

    run(work)


# --- reliability


def test_a_lossy_path_is_mended() -> None:
    """Over a path that loses one datagram in eight, reliable faces bring what is asked once without asking again."""

    async def work() -> None:
        a_host, b_host = new_host(), new_host()
        a_uri, b_uri = (f"udp4://{host}:{free_port(host, socket.SOCK_DGRAM)}" for host in (a_host, b_host))
        lossless = {"mtu": 1400, "is_reliable": True}
        async with (
            running(a_uri, neighbors=(Neighbor("b", b_uri, **lossless),)) as a,
            running(b_uri, neighbors=(Neighbor("a", a_uri, **lossless),)) as b,
        ):
            await until(lambda: a.is_up("b") and b.is_up("a"))
            for gateway in (a, b):
                channel = gateway.manager._channels[0]
                channel.udp = LossySocket(channel.udp.socket)
            a.route(names.parse("/p"), "b")
            b.serve(names.parse("/p"), bulk_answer)
            await a.app.express(names.parse("/p/first"), lifetime_ms=4000, retries=5)  # both ends know each other now
            came = 0
            for number in range(40):
                with contextlib.suppress(FetchError):
                    await a.app.express(names.parse(f"/p/{number}"), lifetime_ms=2000)
                    came += 1
            assert came >= 39
            here, there = datagram_face(a, "b"), datagram_face(b, "a")
            assert here._reliability is not None and there._reliability is not None
            assert there._reliability.counters.retransmissions >= 10
            assert there.counters.out_bytes > here.counters.in_bytes > 40 * 8000

    run(work)


class LossySocket(UdpSocket):
    """Loses every eighth datagram."""

    def __init__(self, sock: socket.socket) -> None:
        super().__init__(sock)
        self._count = 0

    def send(self, wires: Any, address: Any, segment_max: int) -> int:
        self._count += 1
        if self._count % 8:
            return super().send(wires[:1], address, segment_max)
        return 1
