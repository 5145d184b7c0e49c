"""A slow, long link between two TUN devices: a rate, a queue and a delay each way, where the kernel has no netem.

`Pipe` is pure; the process reads IP packets from one device's descriptor and writes them to the other's. Loss is left
to whoever receives (nftables), so that a lost packet has used the link as it does on the air.
"""

from __future__ import annotations

import argparse
import json
import os
import select
import signal
import sys
import time
from collections import deque
from dataclasses import asdict, dataclass
from typing import Any

_PACKET_MAX_BYTES = 65_535
# Packets read from a device in one go: then what is due leaves, so that one direction does not hold up the other.
_READS_MAX = 64


@dataclass(slots=True)
class PipeCounters:
    """IP packets and bytes that went through, and packets that found the queue full."""

    packets: int = 0
    bytes: int = 0
    dropped: int = 0
    queued_max_bytes: float = 0.0


class Pipe:
    """One direction: `rate_bps` of IP packets, `queue_bytes` before it, `delay_s` after it; `now` in seconds."""

    def __init__(self, rate_bps: float, delay_s: float, queue_bytes: float) -> None:
        self._bytes_s, self._delay_s, self._queue_bytes = rate_bps / 8, delay_s, queue_bytes
        self._flying: deque[tuple[float, bytes]] = deque()
        self._free_at = 0.0
        self.counters = PipeCounters()

    def push(self, packet: bytes, now: float) -> bool:
        """Takes a packet; False when the queue has no room for it."""
        begins = max(self._free_at, now)
        queued_bytes = (begins - now) * self._bytes_s
        if queued_bytes + len(packet) > self._queue_bytes:
            self.counters.dropped += 1
            return False
        self._free_at = begins + len(packet) / self._bytes_s
        self._flying.append((self._free_at + self._delay_s, packet))
        self.counters.queued_max_bytes = max(self.counters.queued_max_bytes, queued_bytes)
        return True

    def pop(self, now: float) -> list[bytes]:
        """The packets that have arrived by now."""
        arrived = []
        while self._flying and self._flying[0][0] <= now:
            packet = self._flying.popleft()[1]
            self.counters.packets += 1
            self.counters.bytes += len(packet)
            arrived.append(packet)
        return arrived

    def next_deadline(self) -> float | None:
        """When the next packet arrives; None when nothing is on its way."""
        return self._flying[0][0] if self._flying else None


def bandwidth_delay_bytes(rate_bps: float, delay_s: float) -> float:
    """What a link holds in one round trip, `delay_s` being one way."""
    return rate_bps / 8 * 2 * delay_s


def run(descriptors: tuple[int, int], pipes: tuple[Pipe, Pipe]) -> None:
    """Carries packets between two devices until a signal ends it."""
    for descriptor in descriptors:
        os.set_blocking(descriptor, False)
    while True:
        deadlines = [at for pipe in pipes if (at := pipe.next_deadline()) is not None]
        wait_s = max(0.0, min(deadlines) - time.monotonic()) if deadlines else None
        readable, _, _ = select.select(descriptors, (), (), wait_s)
        for direction, descriptor in enumerate(descriptors):
            if descriptor in readable:
                _read(descriptor, pipes[direction])
        now = time.monotonic()
        for direction, pipe in enumerate(pipes):
            for packet in pipe.pop(now):
                _write(descriptors[1 - direction], packet)


def _read(descriptor: int, pipe: Pipe) -> None:
    for _ in range(_READS_MAX):
        try:
            packet = os.read(descriptor, _PACKET_MAX_BYTES)
        except BlockingIOError:
            return
        pipe.push(packet, time.monotonic())


def _write(descriptor: int, packet: bytes) -> None:
    try:
        os.write(descriptor, packet)
    except OSError as error:
        print(f"relay: a packet of {len(packet)} bytes was not delivered: {error}", file=sys.stderr)


def _stop(*_: Any) -> None:
    raise SystemExit(0)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--descriptors", type=int, nargs=2, required=True, help="of the two devices, inherited")
    parser.add_argument("--rate", type=float, required=True, help="bits a second")
    parser.add_argument("--delay-ms", type=float, required=True, help="one way")
    parser.add_argument("--queue", type=float, help="bytes (default: what the link holds in one round trip)")
    options = parser.parse_args()
    delay_s = options.delay_ms / 1000
    queue_bytes = options.queue or bandwidth_delay_bytes(options.rate, delay_s)
    there, back = (Pipe(options.rate, delay_s, queue_bytes) for _ in range(2))
    signal.signal(signal.SIGTERM, _stop)
    print("ready", flush=True)
    try:
        run(tuple(options.descriptors), (there, back))
    finally:
        print(json.dumps([asdict(pipe.counters) for pipe in (there, back)]), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
