#!/usr/bin/env python3
"""One hop that loses packets: a blob over reliable UDP faces against TCP and HTTP on the same link in the same run.

    python -m bench.lossy --blob-mb 20 --loss 0.03 --rtt-ms 100

A share is the goodput of the blob's bytes against the link's rate; time runs from the first Interest until the blob is
checked and on the disk. TCP and HTTP are cut off after a while, and what came until then counts.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import math
import os
import random
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from bench import measure
from bench.gateways import ROOT, BenchError
from bench.lossy_link import Conditions, LossyLink, UnknownControl, lossy_link
from gateway.forwarder.blobs import BlobStore
from gateway.forwarder.consumer import Consumer
from gateway.forwarder.endpoint import Endpoint, FetchError, connect
from gateway.protocol import keys, names
from gateway.protocol.messages import BlobRef

NETWORK = "/bench"
BLOB, PING = f"{NETWORK}/blob", f"{NETWORK}/ping"
HOP = Conditions()
# Of the size of an image layer; of 20 MB the start, which takes most of a second, would be a tenth.
BLOB_MB = 60.0
RELIABLE = "\toption reliable '1'"
REFERENCE_LIMIT_S = 20.0
# What Linux takes where nobody says otherwise.
_TCP = "cubic"
# Control traffic beside the transfer: as much as hellos and head polls of a few services.
PING_INTERVAL_S = 0.25
_START_S, _STOP_S = 20.0, 10.0
# Longer than the pause before a bandwidth probe, and more than hellos take in a fifth of a second.
_CALM_S, _CALM_BYTES, _MEET_MAX_S = 4.0, 20_000, 40.0
_HTTP_PORT = 8080
Result = dict[str, Any]


class LinkedGateway:
    """A real gateway on a host of the link; its unix socket is reached from anywhere on this machine."""

    def __init__(self, link: LossyLink, host: int, directory: Path, scheme: str, neighbor_options: str = "") -> None:
        self._link, self._host, self.directory = link, host, directory
        directory.mkdir(parents=True, exist_ok=True)
        self.unix, self._log = f"unix://{directory}/ndn.sock", directory / "log"
        (directory / "picasso").write_text(f"""
config gateway 'gateway'
	option network '{NETWORK}'
	option node 'node-{host}'
	option state_dir '{directory}/state'
	option run_dir '{directory}/run'

config forwarder 'forwarder'
	list listen '{self.unix}'
	list listen '{scheme}://{link.addresses[host]}:6363'
	option blob_dir '{directory}/blobs'
	option memory_cache '16M'
	option discovery '0'

config executor 'executor'
	list runtime 'none'

config neighbor 'peer'
	option uri '{scheme}://{link.addresses[1 - host]}:6363'
{neighbor_options}
{"".join(map(_route, (BLOB, PING))) if host == 0 else ""}""")
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def start(self) -> None:
        command = [sys.executable, "-m", "gateway", "run", "--config", str(self.directory / "picasso")]
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                self._link.command(self._host, *command), cwd=ROOT, stdout=log, stderr=log, stdin=subprocess.DEVNULL
            )
        deadline = time.monotonic() + _START_S
        while not Path(self.unix.removeprefix("unix://")).exists():
            if self._process.poll() is not None or time.monotonic() > deadline:
                raise BenchError(f"the gateway does not start:\n{self._log.read_text()}")
            time.sleep(0.05)

    def peer_counters(self) -> dict[str, Any]:
        """The counters of the face to the other gateway."""
        command = [sys.executable, "-m", "gateway", "faces", "--json", "--config", str(self.directory / "picasso")]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=_STOP_S, check=False)
        if done.returncode != 0:
            raise BenchError(f"the gateway's faces can't be read: {done.stderr.strip()}")
        return next(row for row in json.loads(done.stdout) if row["neighbor"] == "peer")

    def stop(self) -> None:
        if self._process is not None:
            self._process.terminate()
            try:
                self._process.wait(_STOP_S)
            finally:
                self._process.kill()
                self._process.wait()


def _route(prefix: str) -> str:
    return f"""
config route
	option prefix '{prefix}'
	option neighbor 'peer'
"""


@contextlib.contextmanager
def two_gateways(
    link: LossyLink, directory: Path, scheme: str, neighbor_options: str = ""
) -> Iterator[tuple[LinkedGateway, LinkedGateway]]:
    """Gateways on both hosts that have met; the second one's blobs are what was put into its `blobs` before."""
    both = tuple(LinkedGateway(link, host, directory / f"{host}", scheme, neighbor_options) for host in (0, 1))
    try:
        for gateway in reversed(both):
            gateway.start()
        _wait_until_calm(link)
        yield both[0], both[1]
    finally:
        for gateway in both:
            gateway.stop()


def _wait_until_calm(link: LossyLink) -> None:
    """The gateways meet, and probe the link's bandwidth each way; what is measured comes afterwards."""
    deadline, calm_since = time.monotonic() + _MEET_MAX_S, time.monotonic()
    sent = 0
    while time.monotonic() < min(deadline, calm_since + _CALM_S):
        time.sleep(0.2)
        past, sent = sent, sum(link.sent(host)[1] for host in (0, 1))
        if sent - past > _CALM_BYTES:
            calm_since = time.monotonic()


# --- what is fetched over it


def provide(directory: Path, content: bytes) -> BlobRef:
    """Puts a blob where the gateway of host 1 will find it."""
    store = BlobStore(directory / "1" / "blobs", names.Network(NETWORK))
    try:
        return store.add_bytes(content)
    finally:
        store.close()


async def fetch(near: LinkedGateway, far: LinkedGateway, ref: BlobRef, store: BlobStore, limit_s: float) -> Result:
    """Fetches the blob through both gateways, with a little control traffic beside it; how far it came in time."""
    consumer, server = await connect(near.unix), await connect(far.unix)
    held: list[tuple[float, int]] = [(time.monotonic(), 0)]
    try:
        server.serve(names.parse(PING), lambda interest: keys.sign_data(interest.name, b"here", freshness_ms=1000))
        await server.register(names.parse(PING))
        quiet_ms = [await ping(consumer, -number - 1) for number in range(5)]
        fetcher = Consumer(consumer, names.Network(NETWORK))
        pings: list[float] = []
        pinging = asyncio.ensure_future(_ping_on(consumer, pings))
        begun = time.monotonic()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(limit_s):
                await fetcher.fetch_blob(
                    ref, store, progress=lambda have, _: held.append((time.monotonic(), have)), patience_s=limit_s
                )
        spent_s = time.monotonic() - begun
        pinging.cancel()
        came = ref.size if store.has(ref.sha256) else max(have for _, have in held)
        return {
            "seconds": spent_s,
            "bytes": came,
            "interests": fetcher.interests,
            "segments": fetcher.segments,
            "timeouts": fetcher.timeouts,
            "control_ms": _spread(pings),
            "control_quiet_ms": _spread(quiet_ms),
        }
    finally:
        consumer.close()
        server.close()


async def _ping_on(consumer: Endpoint, times_ms: list[float]) -> None:
    number = 0
    while True:
        number += 1
        times_ms.append(await ping(consumer, number))
        await asyncio.sleep(PING_INTERVAL_S)


async def ping(consumer: Endpoint, number: int) -> float:
    """The time in milliseconds that a small packet and its answer take; infinite when it was lost."""
    begun = time.monotonic()
    try:
        await consumer.express(names.parse(f"{PING}/{os.getpid()}-{number}"), must_be_fresh=True, lifetime_ms=3000)
    except FetchError:
        return math.inf
    return (time.monotonic() - begun) * 1000


def _spread(times_ms: Sequence[float]) -> Result:
    if not times_ms:
        return {"count": 0}
    ordered = sorted(times_ms)
    return {
        "count": len(ordered),
        "median": round(statistics.median(ordered), 1),
        "p95": round(ordered[min(len(ordered) - 1, int(len(ordered) * 0.95))], 1),
        "lost": ordered.count(math.inf),
    }


def through_gateways(
    conditions: Conditions, content: bytes, scheme: str = "udp4", neighbor_options: str = "", limit_s: float = 300.0
) -> Result:
    """One blob over a link of its own: goodput, what it cost on the link and of the processors, control latency."""
    with tempfile.TemporaryDirectory(prefix="picasso-lossy-") as name, lossy_link(conditions) as link:
        directory = Path(name)
        link.set_tcp(_TCP)
        ref = provide(directory, content)
        with two_gateways(link, directory, scheme, neighbor_options) as (near, far):
            store = BlobStore(directory / "fetched", names.Network(NETWORK))
            counted = [gateway.peer_counters() for gateway in (near, far)]
            before, carried = [link.sent(host) for host in (0, 1)], link.arrived(0)
            used = [measure.cpu(gateway.pid) for gateway in (near, far)]
            try:
                result = asyncio.run(fetch(near, far, ref, store, limit_s))
            finally:
                store.close()
            used = [measure.cpu(gateway.pid) - past for gateway, past in zip((near, far), used, strict=True)]
            carried = _less(link.arrived(0), carried)
            sent = [_less(link.sent(host), past) for host, past in zip((0, 1), before, strict=True)]
            lost = [link.lost(host) for host in (1, 0)]
            layers = [_link_layer(gateway, past) for gateway, past in zip((near, far), counted, strict=True)]
        result |= _share(conditions, result)
        packets = sum(count for count, _ in sent)
        result |= {
            "wire_bytes_per_blob_byte": round(sent[1][1] / max(1, result["bytes"]), 4),
            "busy": round(carried[1] * 8 / conditions.rate_bps / result["seconds"], 4),
            "back_bytes_per_blob_byte": round(sent[0][1] / max(1, result["bytes"]), 4),
            "cpu_us_per_packet": [round(cpu.total_s * 1e6 / max(1, packets), 1) for cpu in used],
            "packets": [count for count, _ in sent],
            "lost": lost,
            "link_layer": layers,
        }
    result["queue_drops"] = [counter["dropped"] for counter in link.counters]
    result["queue_max_bytes"] = [round(counter["queued_max_bytes"]) for counter in link.counters]
    return result


def _less(now: tuple[int, int], past: tuple[int, int]) -> tuple[int, int]:
    return now[0] - past[0], now[1] - past[1]


def _link_layer(gateway: LinkedGateway, past: Result) -> dict[str, int]:
    """What the link layer of the face to the other gateway has done since; nothing where it is a stream."""
    return {name: value - past["link"][name] for name, value in gateway.peer_counters().get("link", {}).items()}


def _share(conditions: Conditions, result: Result) -> Result:
    mbps = result["bytes"] * 8e-6 / result["seconds"]
    return {"mbps": round(mbps, 3), "share": round(mbps * 1e6 / conditions.rate_bps, 4)}


# --- HTTP, for reference


_DOWNLOAD = """
import contextlib, sys, time, urllib.request
limit_s, have, begun = float(sys.argv[2]), 0, time.monotonic()
with urllib.request.urlopen(sys.argv[1], timeout=limit_s) as answer, contextlib.suppress(TimeoutError):
    while time.monotonic() - begun < limit_s and (chunk := answer.read1(1 << 16)):
        have += len(chunk)
print(have, time.monotonic() - begun)
"""


def through_http(
    conditions: Conditions, content: bytes, congestion_control: str, limit_s: float = REFERENCE_LIMIT_S
) -> Result:
    """The same bytes from a web server on the same kind of link."""
    with tempfile.TemporaryDirectory(prefix="picasso-lossy-") as directory, lossy_link(conditions) as link:
        link.set_tcp(congestion_control)
        Path(directory, "blob").write_bytes(content)
        address = link.addresses[1]
        server = subprocess.Popen(
            link.command(1, sys.executable, "-m", "http.server", "-d", directory, "-b", address, str(_HTTP_PORT)),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        try:
            time.sleep(1.0)
            url = f"http://{address}:{_HTTP_PORT}/blob"
            command = link.command(0, sys.executable, "-c", _DOWNLOAD, url, str(limit_s))
            done = subprocess.run(command, capture_output=True, text=True, timeout=limit_s * 3 + 10, check=False)
        finally:
            server.terminate()
            server.wait(_STOP_S)
        if done.returncode != 0:
            raise BenchError(f"HTTP: {done.stderr.strip()}")
        have, seconds = done.stdout.split()
        result = {"bytes": int(have), "seconds": float(seconds)}
        return result | _share(conditions, result)


# --- the row of the table


def lossy_hop_share(
    blob_mb: float = BLOB_MB, conditions: Conditions = HOP, seed: int = 1, is_compared: bool = True
) -> Result:
    """The share of the link's rate that a blob over a reliable UDP face reaches, and what TCP reaches beside it.

    `share` is the figure; `udp`, `tcp`, `http cubic` and `http bbr` have the runs. Raises BenchError.
    """
    content = random.Random(seed).randbytes(int(blob_mb * 1e6))
    runs = {"udp": through_gateways(conditions, content, "udp4", RELIABLE)}
    if is_compared:
        runs["tcp"] = through_gateways(conditions, content, "tcp4", limit_s=REFERENCE_LIMIT_S)
        for control in ("cubic", "bbr"):
            with contextlib.suppress(UnknownControl):
                runs[f"http {control}"] = through_http(conditions, content, control)
    return {"share": runs["udp"]["share"], "conditions": asdict(conditions), "blob_mb": blob_mb, **runs}


def render(results: Sequence[Result]) -> str:
    """The runs as a Markdown table."""
    lines = ["| link | way | share | Mbit/s | bytes sent for one of the blob | control packet, median / p95 |"]
    lines.append("|---|---|---|---|---|---|")
    for result in results:
        where = result["conditions"]
        link = f"{where['rate_bps'] / 1e6:g} Mbit/s, {where['rtt_ms']:g} ms, {where['loss']:.0%}"
        for way, run in result.items():
            if isinstance(run, dict) and "share" in run:
                lines.append(f"| {link} | {way} | **{run['share']:.1%}** | {run['mbps']:.3g} | {_costs(run)} |")
    return "\n".join(lines)


def _costs(run: Result) -> str:
    control = run.get("control_ms", {})
    spread = f"{control['median']:.0f} / {control['p95']:.0f} ms" if control.get("count") else "–"
    return f"{run['wire_bytes_per_blob_byte']:.3f} | {spread}" if "packets" in run else "– | –"


def main() -> int:
    options = _parser().parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # by way of every `finally`, so that nothing stays
    results = []
    try:
        for run in range(options.runs):
            for loss in options.loss:
                conditions = Conditions(options.rate * 1e6, options.rtt_ms, loss)
                results.append(lossy_hop_share(options.blob_mb, conditions, run, not options.only_udp))
    except BenchError as error:
        print(error, file=sys.stderr)
        return 1
    print(render(results))
    if options.json is not None:
        options.json.write_text(json.dumps(results, indent=2) + "\n")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--blob-mb", type=float, default=BLOB_MB, metavar="MB")
    parser.add_argument("--rate", type=float, default=20, metavar="MBIT/S")
    parser.add_argument("--rtt-ms", type=float, default=100, metavar="MS")
    parser.add_argument("--loss", type=float, nargs="+", default=[0.03], metavar="SHARE", help="each way: 0.03 is 3 %%")
    parser.add_argument("--runs", type=int, default=1)
    parser.add_argument("--only-udp", action="store_true", help="without TCP and HTTP")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write every run there")
    return parser


if __name__ == "__main__":
    sys.exit(main())
