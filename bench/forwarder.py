"""The forwarder's figures beside NFD's and yanfd's, measured from outside on real gateways; `make bench`.

    python -m bench.forwarder                       the whole table, a few minutes
    python -m bench.forwarder --quick               fewer packets and runs, for a first look
    python -m bench.forwarder --only hit-unix-1300  one row (may be given again); --list names them all

A cost is user and system time of all threads and children of the gateway for one packet that came back, read from
/proc while separate processes make the load. A figure is the median of several runs; the JSON has every run.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))  # this file may be run by its path

from bench import gateways, measure, rows
from bench.gateways import BenchError, Gateway
from bench.rows import Bench, Row, Run
from bench.tables import DEPTHS

PREFIX = "/bench/data"
CACHED = 1000
SETTLE_S = 3.0
SEGMENT_BYTES = 8000
# A table that grows with the logarithm would be at 2 and a list at 1000; what a hash table has above 1 is the processor
# looking for pages.
LOOKUP_TIMES = 2


@dataclass(frozen=True, slots=True)
class Scale:
    """How much is measured; `share` scales the number of packets."""

    runs: int
    share: float
    table_entries: int

    def count(self, full: int) -> int:
        return max(2000, int(full * self.share))


FULL = Scale(runs=5, share=1.0, table_entries=1_000_000)
QUICK = Scale(runs=3, share=0.25, table_entries=100_000)


# --- what is measured


def hits(
    face: str, content_bytes: int, window: int, packets: int, is_full: bool = False, cores: int | None = None
) -> Callable[[Scale], list[Run]]:
    """Interests that the content store answers; what is in it came by admission, and its producer is gone.

    `cores` are those that the gateway and the load share, all of the machine's without it.
    """

    def run(scale: Scale) -> list[Run]:
        with measure.on_cores(cores), gateways.one_gateway() as gateway:
            gateways.populate(gateway, PREFIX, content_bytes, CACHED)
            options = {"count": scale.count(packets), "cached": CACHED, "window": window, "full": is_full}
            return [_cost(gateway, face, content_bytes, **options) for _ in range(scale.runs)]

    return run


def misses(content_bytes: int, packets: int) -> Callable[[Scale], list[Run]]:
    """Every name is new: the Interest goes to a producer, its Data into the store and back."""

    def run(scale: Scale) -> list[Run]:
        count = scale.count(packets)
        with gateways.one_gateway() as gateway, gateways.producer(gateway.unix, PREFIX, content_bytes):
            return [
                _cost(gateway, "unix", content_bytes, count=count, start=count * number) for number in range(scale.runs)
            ]

    return run


def transfers(kind: str, megabytes: int, window: int = 64) -> Callable[[Scale], list[Run]]:
    """Content that no store holds, through two gateways; the figure is the goodput, with all that is asked again."""

    def run(scale: Scale) -> list[Run]:
        count = int(megabytes * 1e6 * max(scale.share, 0.2)) // SEGMENT_BYTES
        with (
            gateways.chain(kind, PREFIX) as (near, far),
            gateways.producer(far.unix, PREFIX, SEGMENT_BYTES),
        ):
            pids = [near.pid, far.pid]
            options = {"count": count, "window": window, "complete": True}
            found = [
                gateways.consume(near.unix, PREFIX, SEGMENT_BYTES, pids, start=count * number, **options)
                for number in range(scale.runs)
            ]
        return [run | {"figure": run["goodput_mbps"]} for run in found]

    return run


def cached_packet_memory(scale: Scale) -> list[Run]:
    """How much the process grows for a packet in its store, less the packet; the first thousand are not counted."""
    count, found = scale.count(20_000), []
    for _ in range(min(scale.runs, 3)):
        with gateways.one_gateway(memory_cache="1G") as gateway:
            gateways.populate(gateway, PREFIX, 1300, CACHED)
            before = measure.rss_bytes(gateway.pid)
            run = gateways.populate(gateway, PREFIX, 1300, count, start=CACHED)
            growth = measure.rss_bytes(gateway.pid) - before
        found.append({"figure": growth / count - run["data_bytes"], "packets": count, "growth_bytes": growth})
    return found


def idle_memory(scale: Scale) -> list[Run]:
    """Resident memory of a gateway that nobody has asked anything."""
    found = []
    for _ in range(min(scale.runs, 3)):
        with gateways.one_gateway() as gateway:
            time.sleep(SETTLE_S)
            found.append({"figure": measure.rss_bytes(gateway.pid) / 1e6})
    return found


def lookups(table: str, operation: str) -> Callable[[Scale], list[Run]]:
    """How many times dearer the same lookups are in a table of a million entries than in one of a thousand."""

    def run(scale: Scale) -> list[Run]:
        found = []
        for _ in range(min(scale.runs, 3)):
            small, large = (_lookup(table, entries, 4) for entries in (1000, scale.table_entries))
            found.append({"figure": large[operation] / small[operation], "small": small, "large": large})
        found[0]["by_depth"] = {depth: _lookup(table, 1000, depth) for depth in DEPTHS}
        return found

    return run


def _cost(gateway: Gateway, face: str, content_bytes: int, **options: Any) -> Run:
    uri = {"unix": gateway.unix, "tcp": gateway.tcp, "udp": gateway.udp}[face]
    run = gateways.consume(uri, PREFIX, content_bytes, [gateway.pid], **options)
    if run["nacks"] or run["answered"] < 0.9 * options["count"]:
        raise BenchError(f"not everything was answered: {run}")
    return run | {"figure": run["cpu_us"]}


def _lookup(table: str, entries: int, depth: int) -> dict[str, float]:
    command = [sys.executable, "-m", "bench.tables", table, "--entries", str(entries), "--depth", str(depth)]
    done = subprocess.run(command, cwd=gateways.ROOT, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise BenchError(done.stderr)
    found: dict[str, float] = json.loads(done.stdout)
    return found


ROWS = (
    Row("hit-unix-1300", "hit, unix, window 64, 1300 B", "µs", 3, ("9–15", "13"), hits("unix", 1300, 64, 400_000)),
    Row(
        "hit-unix-full",
        "the same with PitToken, MustBeFresh, lifetime, HopLimit",
        "µs",
        None,
        (),
        hits("unix", 1300, 64, 400_000, is_full=True),
    ),
    Row("hit-unix-8000", "hit, unix, window 64, 8000 B", "µs", 8, ("12–18", "17"), hits("unix", 8000, 64, 200_000)),
    Row(
        "hit-unix-window-1",
        "hit, unix, window 1, 1300 B, on one core",
        "µs",
        30,
        ("39–81", "52–57"),
        hits("unix", 1300, 1, 30_000, cores=1),
    ),
    Row(
        "hit-unix-window-1-apart",
        "the same, consumer on a core of its own",
        "µs",
        30,
        ("39–81", "52–57"),
        hits("unix", 1300, 1, 30_000, cores=2),
    ),
    Row("hit-tcp-1300", "hit, TCP, window 64, 1300 B", "µs", 4, ("14", "19"), hits("tcp", 1300, 64, 400_000)),
    Row("hit-udp-1300", "hit, UDP in trains, window 64, 1300 B", "µs", 6, ("40", "53"), hits("udp", 1300, 64, 400_000)),
    Row("miss-unix-1300", "miss, unix to unix, window 64, 1300 B", "µs", 16, ("64–76", "33–45"), misses(1300, 100_000)),
    Row("miss-unix-8000", "miss, unix to unix, window 64, 8000 B", "µs", 24, ("72–80", "50"), misses(8000, 100_000)),
    Row("chain-tcp", "50 MB through two gateways, TCP", "Mbit/s", 900, ("281", "–"), transfers("tcp", 50), True),
    Row("chain-udp", "50 MB through two gateways, UDP", "Mbit/s", 800, ("218", "–"), transfers("udp", 50), True),
    Row("cached-packet", "memory for a cached packet beyond it", "B", 400, ("2760", "–"), cached_packet_memory),
    Row("idle-rss", "resident memory, idle", "MB", 26, ("19", "7"), idle_memory),
    Row("pit-find", "PIT lookup, 10⁶ entries against 10³", "×", LOOKUP_TIMES, (), lookups("pit", "find_ns")),
    Row("pit-satisfy", "Data in a PIT of 10⁶ against 10³", "×", LOOKUP_TIMES, (), lookups("pit", "satisfy_ns")),
    Row("fib-match", "FIB match, 10⁶ entries against 10³", "×", LOOKUP_TIMES, (), lookups("fib", "hit_ns")),
)

# Theirs were measured once, on such a machine.
BENCH = Bench(ROWS, {"nfd": "NFD 24.07", "yanfd": "yanfd 1.5"}, FULL, QUICK)


if __name__ == "__main__":
    sys.exit(rows.main(__doc__, [BENCH]))
