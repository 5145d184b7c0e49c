"""Probe packets on the wire: asks for trains of them, and answers those who ask."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from random import Random

from gateway.monitor.ports import Endpoint, Interest
from gateway.monitor.train import PAYLOAD_BYTES, Probe, ProbeResult
from gateway.protocol import keys, names
from gateway.protocol.names import Name

LIFETIME_MS = 4000
# How often the loop is asked whether it is punctual.
TICK_S = 0.002
# Whoever asks gets no more than this: sixteen neighbours' whole probes at once, then one a minute.
SERVE_BURST_BYTES = 32_000_000
SERVE_BYTES_PER_S = 33_000


async def probe(endpoint: Endpoint, face_id: int, node: str, nonce: bytes) -> ProbeResult:
    """Measures how fast the neighbour's packets come in on a face; a failure is a result without a rate."""
    now = asyncio.get_running_loop().time
    prefix = names.PROBE + names.component(node) + names.component(nonce)
    measurement = Probe()
    with _Watch(measurement) as watch:
        while (train := measurement.next_train()) is not None:
            started = now()
            await _run_train(endpoint, face_id, prefix, train, measurement, watch)
            watch.look()
            measurement.on_train_end(now(), started)
    return measurement.result()


class _Watch:
    """The loop's own punctuality while a probe runs: one timer that ticks, and what it says goes to the measurement."""

    def __init__(self, measurement: Probe) -> None:
        self._measurement = measurement
        self._loop = asyncio.get_running_loop()
        self._turn_at: float | None = None

    def __enter__(self) -> _Watch:
        self._timer = self._loop.call_later(TICK_S, self._tick)
        return self

    def __exit__(self, *_: object) -> None:
        self._timer.cancel()

    def look(self) -> None:
        """Tells of a tick that is late already."""
        self._measurement.on_tick(self._timer.when(), self._loop.time())

    def _tick(self) -> None:
        self.look()
        self._timer = self._loop.call_later(TICK_S, self._tick)

    def turn_at(self) -> float:
        """The time of this turn of the loop: what was read at once is handled in one, and came at one time."""
        if self._turn_at is None:
            self._turn_at = self._loop.time()
            self._loop.call_soon(self._end_turn)
        return self._turn_at

    def _end_turn(self) -> None:
        self._turn_at = None


async def _run_train(
    endpoint: Endpoint, face_id: int, prefix: Name, train: range, measurement: Probe, watch: _Watch
) -> None:
    """Asks for the segments of a train with a window of Interests, until the measurement wants no more."""
    segments = iter(train)
    workers = [_ask_for(endpoint, face_id, prefix, segments, measurement, watch) for _ in range(measurement.window)]
    await asyncio.gather(*workers)


async def _ask_for(
    endpoint: Endpoint, face_id: int, prefix: Name, segments: Iterator[int], measurement: Probe, watch: _Watch
) -> None:
    """One place in the window: asks for the next segment when its last has come, and gives up when it has not."""
    now = asyncio.get_running_loop().time
    for segment in segments:
        if not measurement.may_ask(now()):
            return
        try:
            async with asyncio.timeout(LIFETIME_MS / 1000 + 1):
                data = await endpoint.express(
                    prefix + names.segment(segment), lifetime_ms=LIFETIME_MS, next_hop_face=face_id
                )
        except Exception:  # of whatever family the endpoint's errors are: a packet that did not come is a lost one
            measurement.on_loss()
            return
        measurement.on_arrival(watch.turn_at(), len(data.content))


class ProbeResponder:
    """Answers probe Interests for this node with packets that no link layer can compress, up to a budget of bytes."""

    def __init__(self, node: str, random: Random, now: float) -> None:
        self.prefix = names.PROBE + names.component(node)
        self._payload = random.randbytes(PAYLOAD_BYTES)
        self._budget_bytes, self._filled_at = float(SERVE_BURST_BYTES), now
        self.served = self.refused = 0

    def answer(self, now: float, interest: Interest) -> bytes | None:
        """The Data packet; None for what is no probe, or beyond the budget."""
        earned = (now - self._filled_at) * SERVE_BYTES_PER_S
        self._budget_bytes, self._filled_at = min(SERVE_BURST_BYTES, self._budget_bytes + earned), now
        if self._budget_bytes < PAYLOAD_BYTES or not self._is_probe(interest.name):
            self.refused += 1
            return None
        self._budget_bytes -= PAYLOAD_BYTES
        self.served += 1
        return keys.sign_data(interest.name, self._payload)

    def _is_probe(self, name: Name) -> bool:
        """`<prefix>/<8 bytes>/seg=i`: anything longer would not fit in a packet with the payload."""
        try:
            parts = names.components(name[len(self.prefix) :])
            return (
                len(parts) == 2
                and len(names.value(parts[0])) == 8
                and names.last_number(name, names.SEGMENT) is not None
                and len(name) <= 200
            )
        except (ValueError, IndexError):
            return False
