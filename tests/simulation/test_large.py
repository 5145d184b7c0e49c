"""Networks like a city's: 200 nodes, several consumers, seconds of real time, the same with the same seed."""

from __future__ import annotations

from pathlib import Path

import pytest

from controller.placement.network.generator import qmp_like
from gateway.protocol.messages import BlobRef
from tests.simulation import contacts
from tests.simulation.network import Network, simulation
from tests.simulation.routing import tree_to

SIZE = 400_000
# As a small gateway has it: `memory_cache '16M'`.
CACHE_BYTES = 16 << 20


def city(net: Network, nodes: int, seed: int) -> list[str]:
    """A qmp-like network: every pair that has a link in both directions, at its two rates; delays of 2 ms."""
    topology = qmp_like(nodes, seed)
    rates = {(int(a), int(b)): float(rate) for (a, b), rate in zip(topology.edges, topology.rates_mbps, strict=True)}
    for name in topology.names:
        net.node(name, cache_bytes=CACHE_BYTES)
    for (a, b), rate in sorted(rates.items()):
        back = rates.get((b, a))
        if a < b and back is not None:
            net.link(topology.names[a], topology.names[b], delay_s=0.002, rate_mbps=(rate, back))
    return list(topology.names)


def give_disk(net: Network, directory: Path, *members: str) -> None:
    """Some nodes keep blobs; the others only forward."""
    for name in members:
        node = net.nodes[name]
        node.directory = directory / name
        node.directory.mkdir()
        node.power_off()
        node.power_on()


def spread(directory: Path, nodes: int, consumers: int, seed: int, size: int = SIZE) -> tuple[Network, BlobRef, float]:
    with simulation(directory, seed) as net:
        members = city(net, nodes, seed)
        origin = max(members, key=lambda name: len(net.nodes[name].links))
        chosen = net.random.sample([name for name in members if name != origin], consumers)
        give_disk(net, directory, origin, *chosen)
        net.learn_routes([origin])
        ref = net.publish(origin, size)
        took = net.wait(*(net.nodes[name].fetch(ref, origin) for name in chosen), limit_s=3600)
        parents = tree_to(net, origin)
        ways = {(name, parents[name]) for leaf in chosen for name in way(parents, leaf, origin)}
        bound = len(ways) * size
        assert net.bytes <= 1.12 * bound, f"{net.bytes / bound:.3f} of the bound\n{net.table()}"
        assert all(net.nodes[name].has(ref) for name in chosen)
        return net, ref, took


def way(parents: dict[str, str], leaf: str, origin: str) -> list[str]:
    """The nodes from a leaf up to the origin, without it."""
    found = [leaf]
    while parents[found[-1]] != origin:
        found.append(parents[found[-1]])
    return found


def test_200_nodes_twelve_consumers_one_blob(tmp_path: Path) -> None:
    """Twelve of 200 nodes ask one origin for a blob at once: each link of the tree that joins them carries it once."""
    #
    #          o   o ── o          200 nodes, hubs and leaves with the rates of a community network,
    #        o ─ HUB ─ o   o       twelve consumers anywhere, the origin at the largest hub
    #       o   / │ ╲ ── HUB ─ o
    #          o  o  o    │ ╲
    #
    spread(tmp_path, 200, 12, seed=3)


def test_the_same_network_again_is_the_same_run(tmp_path: Path) -> None:
    """Two runs with one seed agree in every packet and in the time they end."""
    runs = []
    for number in range(2):
        (tmp_path / str(number)).mkdir()
        net, ref, took = spread(tmp_path / str(number), 60, 5, seed=5, size=100_000)
        runs.append((net.fingerprint, net.bytes, ref, took))
    assert runs[0] == runs[1]


def test_a_city_with_bad_radio_delivers(tmp_path: Path) -> None:
    """A third of the links flap while six consumers fetch; routes follow within a second, and all get the blob."""
    # a qmp-like network of 60 nodes
    with simulation(tmp_path, 4) as net:
        members = city(net, 60, 4)
        origin = max(members, key=lambda name: len(net.nodes[name].links))
        chosen = net.random.sample([name for name in members if name != origin], 6)
        give_disk(net, tmp_path, origin, *chosen)
        net.convergence_s = 1.0
        net.learn_routes([origin], spare=1)
        for number, link in enumerate(net.links.values()):
            if number % 3 == 0:
                contacts.flapping(net, link, mean_up_s=6, mean_down_s=2, until_s=60)
        ref = net.publish(origin, SIZE)
        net.wait(*(net.nodes[name].fetch(ref, origin, patience_s=60) for name in chosen), limit_s=300)
        assert all(net.nodes[name].has(ref) for name in chosen)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(5))
def test_200_nodes_forty_consumers(tmp_path: Path, seed: int) -> None:
    """Forty consumers of a blob five times as large, for five networks."""
    spread(tmp_path, 200, 40, seed=seed, size=5 * SIZE)
