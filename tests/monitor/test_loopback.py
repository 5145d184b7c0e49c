"""A probe over a real TCP connection on the loopback interface, shaped by a token bucket, in real time."""

from __future__ import annotations

import asyncio
from random import Random
from typing import Any

import pytest

from gateway.monitor import prober
from gateway.monitor.prober import ProbeResponder
from gateway.protocol import keys, names


async def _send_shaped(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, rate_mbps: float, burst_bytes: int
) -> None:
    """Answers probe names through a token bucket that sends in pieces of an Ethernet frame."""
    loop = asyncio.get_running_loop()
    responder = ProbeResponder("b", Random(1), 0.0)
    rate, tokens, filled_at = rate_mbps * 125_000, float(burst_bytes), loop.time()
    while True:
        name = await reader.readexactly((await reader.readexactly(1))[0])
        wire = responder.answer(loop.time(), _Asked(name)) or b""
        wire = len(wire).to_bytes(4, "big") + wire
        for at in range(0, len(wire), 1500):
            piece = wire[at : at + 1500]
            tokens, filled_at = min(burst_bytes, tokens + rate * (loop.time() - filled_at)), loop.time()
            tokens -= len(piece)
            if tokens < 0:
                await asyncio.sleep(-tokens / rate)
            writer.write(piece)


class _Asked:
    incoming_face = None

    def __init__(self, name: bytes) -> None:
        self.name = name


class _Client:
    """An endpoint whose only face is the TCP connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writer = writer
        self._waiting: dict[bytes, asyncio.Future[keys.Packet]] = {}
        self.receiving = asyncio.ensure_future(self._receive(reader))

    async def express(self, name: bytes, **_: Any) -> keys.Packet:
        self._waiting[name] = asyncio.get_running_loop().create_future()
        self._writer.write(bytes((len(name),)) + name)
        return await self._waiting[name]

    async def _receive(self, reader: asyncio.StreamReader) -> None:
        while True:
            packet = keys.parse(await reader.readexactly(int.from_bytes(await reader.readexactly(4), "big")))
            self._waiting[packet.name].set_result(packet)

    def serve(self, prefix: bytes, handler: Any) -> None:
        raise AssertionError("this side only asks")


@pytest.mark.parametrize(("rate_mbps", "burst_bytes"), [(2.0, 16_000), (10.0, 64_000), (40.0, 64_000)])
def test_shaped_tcp_connection(rate_mbps: float, burst_bytes: int) -> None:
    """A TCP connection shaped to a rate is measured within 20 % of it, for less than two megabytes."""

    async def scene() -> None:
        serving: list[asyncio.Task[None]] = []

        def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            serving.append(asyncio.ensure_future(_send_shaped(reader, writer, rate_mbps, burst_bytes)))

        async with await asyncio.start_server(accept, "127.0.0.1", 0) as server:
            reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
            client = _Client(reader, writer)
            result = await prober.probe(client, 1, "b", bytes(8))
            tasks = [client.receiving, *serving]
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            writer.close()
        assert result.mbps == pytest.approx(rate_mbps, rel=0.2)
        assert result.received_bytes <= 2_000_000

    asyncio.run(scene())


def test_responder_refuses_what_is_no_probe_and_what_is_too_much() -> None:
    """Only names of a probe's form are answered, and after the budget nothing until it has filled again."""
    responder = ProbeResponder("b", Random(1), 0.0)
    prefix = names.PROBE + names.component("b")
    good = prefix + names.component(bytes(8)) + names.segment(0)
    for name in (
        prefix,
        prefix + names.component(bytes(7)) + names.segment(0),
        prefix + names.component(bytes(8)),
        prefix + names.component(bytes(8)) + names.component("x") + names.segment(0),
        prefix + b"\x08\xfe",
    ):
        assert responder.answer(0.0, _Asked(name)) is None
    served = sum(responder.answer(0.0, _Asked(good)) is not None for _ in range(6000))
    assert served == prober.SERVE_BURST_BYTES // 8000
    assert responder.answer(1.0, _Asked(good)) is not None
    assert len(responder.answer(2.0, _Asked(good)) or b"") > 8000
