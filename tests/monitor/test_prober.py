"""What a probe learns of the punctuality of its own loop, in real time."""

from __future__ import annotations

import asyncio
import time

from gateway.monitor.prober import TICK_S, _Watch
from gateway.monitor.train import Probe


class Measurement(Probe):
    """Writes down how late each tick was."""

    def __init__(self) -> None:
        super().__init__()
        self.late_s: list[float] = []

    def on_tick(self, due: float, now: float) -> None:
        self.late_s.append(now - due)


def test_what_is_handled_in_one_turn_of_the_loop_came_at_one_time() -> None:
    """Packets of one read have the same time however long each takes; the next read has its own."""

    async def scene() -> None:
        with _Watch(Measurement()) as watch:

            async def note() -> float:
                await ready.wait()
                at = watch.turn_at()
                time.sleep(0.003)  # noqa: ASYNC251 - the loop is to be held up
                return at

            last = 0.0
            for _ in range(2):
                ready = asyncio.Event()
                notes = [asyncio.ensure_future(note()) for _ in range(3)]
                await asyncio.sleep(0)
                ready.set()
                times = await asyncio.gather(*notes)
                assert len(set(times)) == 1
                assert times[0] >= last + 2 * 0.003
                last = times[0]

    asyncio.run(scene())


def test_a_loop_that_slept_is_told_of() -> None:
    """A tick that should have come meanwhile is reported with its delay: by itself, or at once when asked for."""

    async def scene() -> None:
        measurement = Measurement()
        with _Watch(measurement) as watch:
            time.sleep(0.05)  # noqa: ASYNC251
            watch.look()
            assert max(measurement.late_s) >= 0.05 - TICK_S
            measurement.late_s.clear()
            await asyncio.sleep(0.02)
            assert max(measurement.late_s) >= 0.05 - TICK_S
            assert len(measurement.late_s) >= 2, "it goes on"
        measurement.late_s.clear()
        await asyncio.sleep(0.01)
        assert measurement.late_s == [], "and ends with the probe"

    asyncio.run(scene())
