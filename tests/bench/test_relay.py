"""The slow link of the bench is what it says: its rate, its delay, its queue, and what it loses."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from bench.lossy_link import Conditions, LossyLink, lossy_link
from bench.relay import Pipe, bandwidth_delay_bytes

needs_namespaces = pytest.mark.skipif(
    os.geteuid() != 0 or shutil.which("nft") is None or not Path("/dev/net/tun").exists(),
    reason="only root makes network namespaces and TUN devices, with the commands ip and nft",
)


def test_a_packet_takes_its_time() -> None:
    """A packet arrives after its own length at the rate and the delay, and not a moment earlier."""
    pipe = Pipe(8_000_000, 0.05, 10_000)
    assert pipe.push(bytes(1000), 1.0)
    assert pipe.next_deadline() == pytest.approx(1.0 + 0.001 + 0.05)
    assert pipe.pop(1.0509) == [] and pipe.pop(1.0511) == [bytes(1000)]
    assert pipe.next_deadline() is None


def test_the_rate_is_kept_and_order_too() -> None:
    """A flood of ten times the rate leaves in its order at exactly the rate."""
    pipe, arrived, now = Pipe(8_000_000, 0.02, 50_000), [], 0.0
    for number in range(10_000):
        pipe.push(number.to_bytes(4, "big") * 250, now)
        now += 0.0001
        arrived += pipe.pop(now)
    assert arrived == sorted(arrived)
    assert sum(map(len, arrived)) == pytest.approx(1_000_000 * (1.0 - 0.02), abs=2000)
    assert pipe.counters.dropped > 8900


def test_the_queue_holds_one_round_trip() -> None:
    """What stands in the queue is at most what the link carries in a round trip; what has no room is dropped."""
    queue_bytes = bandwidth_delay_bytes(20e6, 0.05)
    assert queue_bytes == 250_000
    pipe = Pipe(20e6, 0.05, queue_bytes)
    taken = sum(pipe.push(bytes(1000), 0.0) for _ in range(400))
    assert taken == 250 and pipe.counters.dropped == 150
    assert pipe.push(bytes(1000), 0.0004)


# Sends numbered datagrams in groups; the receiver prints when it was sent and when it came, of each.
_SEND = """
import socket, struct, sys, time
address, groups, size, pause_s = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), float(sys.argv[4])
with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as out:
    for _ in range(groups):
        for _ in range(size):
            out.sendto(struct.pack("d", time.monotonic()) + bytes(964), (address, 7000))
        time.sleep(pause_s)
"""
_RECEIVE = """
import json, socket, struct, sys, time
with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as inward:
    inward.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
    inward.bind((sys.argv[1], 7000))
    print("ready", flush=True)
    came = []
    inward.settimeout(15)
    try:
        while True:
            wire = inward.recv(2000)
            came.append((struct.unpack("d", wire[:8])[0], time.monotonic()))
            inward.settimeout(2)
    except TimeoutError:
        print(json.dumps(came))
"""


def pass_datagrams(link: LossyLink, groups: int, size: int, pause_s: float) -> list[tuple[float, float]]:
    """When each of the datagrams of 1,000 bytes (with their IP headers) that arrived was sent, and when it came."""
    command = link.command(1, sys.executable, "-c", _RECEIVE, link.addresses[1])
    receiver = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        assert receiver.stdout is not None and receiver.stdout.readline() == "ready\n"
        arguments = (link.addresses[1], str(groups), str(size), str(pause_s))
        subprocess.run(link.command(0, sys.executable, "-c", _SEND, *arguments), check=True, timeout=60)
        out, _ = receiver.communicate(timeout=30)
    finally:
        receiver.kill()
        receiver.wait()
    return [(sent, came) for sent, came in json.loads(out)]


@needs_namespaces
def test_the_link_is_slow_and_long() -> None:
    """Bursts over real devices arrive after the delay and spread out to the rate, and none of their packets is lost."""
    with lossy_link(Conditions(rate_bps=8e6, rtt_ms=100, loss=0)) as link:
        came = pass_datagrams(link, 5, 90, 0.2)
    assert len(came) == 450
    assert min(arrived - sent for sent, arrived in came) >= 0.05
    for begin in range(0, 450, 90):
        # 89 packets of 992 + 8 bytes, IP and UDP included, behind the first one; a receiver may wake up late.
        assert came[begin + 89][1] - came[begin][0] >= 0.05 + 90 * 0.001 - 0.001
    assert [counter["dropped"] for counter in link.counters] == [0, 0]


@needs_namespaces
def test_the_link_loses_what_it_should() -> None:
    """Of 4,000 packets about a tenth is lost, on the way in, after they have used the link; each is counted."""
    with lossy_link(Conditions(rate_bps=100e6, rtt_ms=10, loss=0.1)) as link:
        came = pass_datagrams(link, 80, 50, 0.005)
        lost, carried = link.lost(1), link.arrived(1)[0]
    assert 300 <= lost <= 500
    assert len(came) == 4000 - lost
    assert carried >= 4000


@needs_namespaces
def test_nothing_stays_behind() -> None:
    """Hosts, devices and the relay are gone afterwards, also when the work in between fails."""
    with pytest.raises(KeyError), lossy_link(Conditions()) as link:
        assert all(Path("/run/netns", name).exists() for name in link.namespaces)
        raise KeyError
    assert not any(Path("/run/netns", name).exists() for name in link.namespaces)
    assert link._relay is not None and link._relay.poll() is not None
