"""Unmodified python-ndn applications, of both its APIs, exchange Data through two gateways that are real processes."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from gateways import GatewayProcess, neighbor, route, wait_for
from ndn import app as first_api
from ndn import appv2 as second_api
from ndn import encoding, types
from ndn.app_support.segment_fetcher import segment_fetcher
from ndn.security import KeychainDigest
from ndn.transport.nfd_registerer import NfdRegister
from ndn.transport.stream_face import TcpFace, UnixFace

Make = Callable[..., GatewayProcess]
PREFIX = "/test/app"
SEGMENTS = 6


@pytest.fixture
def gateways(make_gateway: Make) -> tuple[GatewayProcess, GatewayProcess]:
    """Two gateways joined by TCP, each with a route for the applications' prefix to the other."""
    a, b = make_gateway("a"), make_gateway("b")
    a.configure(neighbor("b", b.uri) + route(PREFIX, "b"))
    b.configure(neighbor("a", a.uri) + route("/test/back", "a"))
    a.start()
    b.start()
    wait_for(lambda: any("neighbor" in str(face) or b.address in face["uri"] for face in a.ask("faces") if face["up"]))
    return a, b


@asynccontextmanager
async def running(app: Any) -> AsyncIterator[Any]:
    """An application connected to its gateway, disconnected at the end."""
    connected = asyncio.Event()

    async def after_start() -> None:
        connected.set()

    loop = asyncio.create_task(app.main_loop(after_start()))
    try:
        await connected.wait()
        yield app
    finally:
        app.shutdown()
        await loop


def first(gateway: GatewayProcess) -> Any:
    return first_api.NDNApp(UnixFace(str(gateway.unix)), KeychainDigest())


def second(gateway: GatewayProcess) -> Any:
    return second_api.NDNApp(UnixFace(str(gateway.unix)), registerer=NfdRegister())


async def accept(*_: Any) -> types.ValidResult:
    return types.ValidResult.PASS


def content_of(name: Any) -> bytes:
    return b"content of " + encoding.Name.to_str(name).encode()


async def produce_first(app: Any, prefix: str, calls: list[str]) -> None:
    """A producer of the first API: registers with a command of four trailing components."""

    def on_interest(name: Any, param: Any, _app_param: Any) -> None:
        calls.append(encoding.Name.to_str(name))
        parts = list(name)
        if encoding.Component.get_type(parts[-1]) == encoding.Component.TYPE_SEGMENT:
            last = encoding.Component.from_segment(SEGMENTS - 1)
            app.put_data(name, content=bytes(7000), freshness_period=1000, final_block_id=last)
        else:
            app.put_data(name, content=content_of(name), freshness_period=10_000)

    assert await app.register(prefix, on_interest)


async def produce_second(app: Any, prefix: str, calls: list[str]) -> None:
    """A producer of the second API: registers with a signed Interest of format 0.3, echoes the PIT token."""

    def on_interest(name: Any, _app_param: Any, reply: Any, _context: Any) -> None:
        calls.append(encoding.Name.to_str(name))
        reply(app.make_data(name, content_of(name), signer=KeychainDigest().get_signer({}), freshness_period=10_000))

    app.attach_handler(prefix, on_interest)
    assert await app.register(prefix)


async def fetch_first(app: Any, name: str, **options: Any) -> bytes:
    _, _, content = await app.express_interest(name, lifetime=2000, **options)
    return bytes(content)


async def fetch_second(app: Any, name: str, **options: Any) -> bytes:
    _, content, _ = await app.express(name, accept, lifetime=2000, **options)
    return bytes(content)


PRODUCERS: list[tuple[Callable[..., Any], Callable[..., Awaitable[None]]]] = [
    (first, produce_first),
    (second, produce_second),
]
CONSUMERS: list[tuple[Callable[..., Any], Callable[..., Awaitable[bytes]]]] = [
    (first, fetch_first),
    (second, fetch_second),
]


def test_data_through_two_gateways(gateways: tuple[GatewayProcess, GatewayProcess]) -> None:
    """Each of the two APIs as consumer gets Data of each as producer; what was fetched once comes from the cache."""
    a, b = gateways

    async def work() -> None:
        for make_producer, produce in PRODUCERS:
            kind = make_producer.__name__
            calls: list[str] = []
            async with running(make_producer(b)) as producer:
                await produce(producer, f"{PREFIX}/{kind}", calls)
                for make_consumer, fetch in CONSUMERS:
                    name = f"{PREFIX}/{kind}/for-{make_consumer.__name__}"
                    async with running(make_consumer(a)) as consumer:
                        assert await fetch(consumer, name, must_be_fresh=True) == content_of(name)
                        assert await fetch(consumer, name) == content_of(name)
                assert calls == [f"{PREFIX}/{kind}/for-first", f"{PREFIX}/{kind}/for-second"]

    asyncio.run(asyncio.wait_for(work(), 20))


def test_the_reference_s_segment_fetcher(gateways: tuple[GatewayProcess, GatewayProcess]) -> None:
    """python-ndn's own fetcher gets a segmented object through both gateways."""
    a, b = gateways

    async def work() -> None:
        async with running(first(b)) as producer, running(first(a)) as consumer:
            await produce_first(producer, f"{PREFIX}/file", [])
            name = [*encoding.Name.from_str(f"{PREFIX}/file"), encoding.Component.from_version(1)]
            first_segment = [*name, encoding.Component.from_segment(0)]
            await consumer.express_interest(first_segment, must_be_fresh=True, lifetime=2000)
            size = sum([len(part) async for part in segment_fetcher(consumer, name, timeout=2000)])
            assert size == SEGMENTS * 7000

    asyncio.run(asyncio.wait_for(work(), 20))


def test_nacks_refusals_and_unregistering(gateways: tuple[GatewayProcess, GatewayProcess]) -> None:
    """The reference library hears a Nack where no route is, a refused registration, and the end of a registered one."""
    a, _ = gateways

    async def work() -> None:
        async with running(first(a)) as old, running(second(a)) as new:
            with pytest.raises(types.InterestNack):
                await fetch_first(old, "/nowhere/x")
            with pytest.raises(types.InterestNack):
                await fetch_second(new, "/nowhere/x")
            assert not await old.register("/localhost/nfd/mine", lambda *_: None)
            assert not await new.register("/localhost/nfd/mine")
            calls: list[str] = []
            await produce_second(new, "/local", calls)
            assert await fetch_first(old, "/local/1") == content_of("/local/1")
            await new.unregister("/local")
            with pytest.raises(types.InterestNack):
                await fetch_first(old, "/local/2")

    asyncio.run(asyncio.wait_for(work(), 20))


def test_an_application_that_ends_takes_its_routes_along(gateways: tuple[GatewayProcess, GatewayProcess]) -> None:
    """When a producer's connection closes its prefix is gone at once, and a new one may register it."""
    a, b = gateways

    async def work() -> None:
        async with running(second(a)) as consumer:
            for round_number in range(2):
                async with running(second(b)) as producer:
                    await produce_second(producer, f"{PREFIX}/brief", [])
                    name = f"{PREFIX}/brief/{round_number}"
                    assert await fetch_second(consumer, name) == content_of(name)
                with pytest.raises(types.InterestNack):
                    await fetch_second(consumer, f"{PREFIX}/brief/gone")

    asyncio.run(asyncio.wait_for(work(), 20))


def test_a_remote_application_fetches_but_may_not_register(gateways: tuple[GatewayProcess, GatewayProcess]) -> None:
    """Over TCP an application gets Data; its registration goes unanswered: who registers must be on the machine."""
    a, b = gateways
    host = a.address

    async def work() -> None:
        async with running(second(b)) as producer:
            await produce_second(producer, f"{PREFIX}/far", [])
            remote = second_api.NDNApp(TcpFace(host, 6363), registerer=NfdRegister())
            async with running(remote):
                assert await fetch_second(remote, f"{PREFIX}/far/1") == content_of(f"{PREFIX}/far/1")
                assert not await remote.register("/test/stolen")
            remote = first_api.NDNApp(TcpFace(host, 6363), KeychainDigest())
            async with running(remote):
                assert not await remote.register("/test/stolen", lambda *_: None)
        assert not [row for row in a.ask("routes") if "stolen" in row["prefix"]]

    asyncio.run(asyncio.wait_for(work(), 20))


def test_python_ndn_s_own_management_tool(make_gateway: Make, tmp_path: Path) -> None:
    """`pynfdc`, which signs whatever it sends, reads every dataset, and makes, lists and removes a face."""
    gateway = make_gateway("a")
    gateway.start()
    tools = Path(sys.executable).parent
    environment = os.environ | {"HOME": str(tmp_path), "NDN_CLIENT_TRANSPORT": f"unix://{gateway.unix}"}

    def run(tool: str, *arguments: str) -> str:
        done = subprocess.run(
            [tools / tool, *arguments], env=environment, capture_output=True, text=True, timeout=30, check=False
        )
        assert done.returncode == 0 and "Traceback" not in done.stderr, done.stderr
        return done.stdout

    run("pyndnsec", "Init-Pib")
    assert "picasso-gateway" in run("pynfdc", "Get-Status")
    assert "/localhop/picasso/hello" in run("pynfdc", "Get-Route")
    assert "/localhost/nfd/strategy/best-route" in run("pynfdc", "Get-Strategy")
    remote = f"udp4://{gateway.address}:6399"
    assert "200 OK" in run("pynfdc", "New-Face", remote)
    assert remote in run("pynfdc", "Get-Face")
    assert "200 OK" in run("pynfdc", "Remove-Face", remote)
    assert remote not in run("pynfdc", "Get-Face")
