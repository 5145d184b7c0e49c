"""A seeded topology like a community network's, for the demonstration, the tests and the evaluation.

The figures are those that the BASP paper measured in QMP Sants-UPC: throughput exponential with a mean of 21.8 Mbit/s,
56 % of the links one-way, 30 % of the two-way links deviating by more than 30 %, a few hubs with about 20 neighbours.

Up to NEAR_ALL nodes any two may have a link, and the reach of a radio grows with the network. Beyond, a radio reaches
as far as in a network of the paper's size: what is generated is like many such networks grown together, with paths as
much longer.
"""

from __future__ import annotations

import math

import numpy as np
from scipy.spatial import cKDTree

from controller.placement.network.topology import Floats, NodeAttributes, Topology, TopologyError, assemble

MEAN_MBPS = 21.8
MINIMUM_MBPS = 0.5  # a slower radio link is no link to its routing daemon
DEVIATING = 0.3
FASTER_MEAN_MBPS = MEAN_MBPS / (1.0 - (DEVIATING * 0.5 + (1.0 - DEVIATING) * 0.15) / 2)  # the other direction is slower
CENTRE = (41.3800, 2.1200)
EXTENT_DEGREES = 0.0007  # times the square root of the number of nodes, so that density stays the same
REACH = 0.35  # of the extent: radio links are mostly to near nodes, and to high ones beyond
NEAR_ALL = 2000
PAPER_NODES = 54
MEMORY_BYTES = 256 << 20
NEIGHBOURS = 64  # the nearest nodes that a larger network's radios may reach; a farther one has a chance below 1 %

Pair = tuple[int, int]


def qmp_like(n: int, seed: int, one_way: float = 0.56, links_per_node: float = 2.8) -> Topology:
    """A connected topology of n nodes, the same for the same arguments; `one_way` is the share of one-way links wanted.

    Two-way links of a spanning tree join all nodes, so that in a small network fewer than `one_way` are one-way.
    Raises TopologyError.
    """
    if n < 1 or seed < 0 or not 0 <= one_way <= 1 or not 0 <= links_per_node < math.inf:
        raise TopologyError(
            f"no topology of {n} nodes, seed {seed}, a share of {one_way} one-way links and {links_per_node} links a "
            "node; accepted are 1 node or more, a seed of 0 or more, a share of 0 to 1 and 0 links or more"
        )
    random = np.random.default_rng(seed)
    places = np.array(CENTRE) + random.normal(0.0, EXTENT_DEGREES * np.sqrt(n), (n, 2))
    tree, extra = (_links if n <= NEAR_ALL else _near_links)(places, links_per_node, random)
    rates: dict[Pair, float] = {}
    turned = one_way_links(len(tree), len(extra), one_way)
    for at, (a, b) in enumerate(tree + extra):
        there, back = _rates(random)
        rates[a, b] = there
        if at < len(tree) + len(extra) - turned:
            rates[b, a] = back
    width = len(str(n - 1))
    return assemble(
        [f"gw-{at:0{width}}" for at in range(n)],
        [(round(float(latitude), 6), round(float(longitude), 6)) for latitude, longitude in places],
        rates,
        _hardware(n, seed),
    )


def _hardware(n: int, seed: int) -> list[NodeAttributes]:
    """Routers as a community has them: most with plenty free and nearly always heard, some busy, some often away.

    Drawn apart from places and rates, which do not depend on it.
    """
    random = np.random.default_rng((seed, n))
    free_cpu, free_share, presence = random.beta(4.0, 1.5, n), random.uniform(0.3, 0.9, n), random.beta(20.0, 0.8, n)
    return [
        NodeAttributes(
            cpus=1,
            memory_bytes=MEMORY_BYTES,
            free_cpu_percent=round(100 * float(cpu), 1),
            free_memory_bytes=int(MEMORY_BYTES * share),
            availability=round(float(heard), 3),
        )
        for cpu, share, heard in zip(free_cpu, free_share, presence, strict=True)
    ]


def one_way_links(tree: int, extra: int, share: float) -> int:
    """How many links are one-way: the share asked for, as far as links outside the spanning tree go."""
    return min(extra, round(share * (tree + extra)))


def _links(places: Floats, links_per_node: float, random: np.random.Generator) -> tuple[list[Pair], list[Pair]]:
    """Nodes join one by one to near and well-connected ones; then near pairs with good places get further links."""
    n = len(places)
    away = np.linalg.norm(places[:, None, :] - places[None, :, :], axis=2)
    near = np.exp(-away / (REACH * EXTENT_DEGREES * np.sqrt(max(n, 2))))
    height = _heights(n, random)
    degree = np.zeros(n)
    tree: list[Pair] = []
    for node in range(1, n):
        weight = near[node, :node] * height[:node] * (1.0 + degree[:node])
        other = int(random.choice(node, p=weight / weight.sum()))
        tree.append((other, node))
        degree[[other, node]] += 1
    rows, columns = np.triu_indices(n, 1)
    weight = near[rows, columns] * np.minimum(height[rows] * height[columns], 6.0)
    weight[[_pair_at(n, pair) for pair in tree]] = 0.0
    wanted = min(round(links_per_node * n) - len(tree), int((weight > 0).sum())) if n > 2 else 0
    if wanted <= 0:
        return tree, []
    chosen = random.choice(len(weight), size=wanted, replace=False, p=weight / weight.sum())
    return tree, [(int(rows[at]), int(columns[at])) for at in chosen]


def _near_links(places: Floats, links_per_node: float, random: np.random.Generator) -> tuple[list[Pair], list[Pair]]:
    """The same among the nearest nodes only, in memory that grows with n."""
    n = len(places)
    height = _heights(n, random)
    tree = _near_tree(places, height, random)
    away, others = cKDTree(places).query(places, NEIGHBOURS + 1)
    nodes = np.repeat(np.arange(n), NEIGHBOURS)
    ends = np.sort(np.stack([nodes, others[:, 1:].ravel()], axis=1), axis=1)
    flat, first = np.unique(ends[:, 0] * n + ends[:, 1], return_index=True)
    is_free = ~np.isin(flat, [a * n + b for a, b in tree])
    ends, away = ends[first[is_free]], away[:, 1:].ravel()[first[is_free]]
    weight = _nearness(away) * np.minimum(height[ends].prod(axis=1), 6.0)
    wanted = min(max(0, round(links_per_node * n) - len(tree)), len(weight))
    # Weighted sampling without replacement: the pairs that a race of exponential clocks sees first.
    chosen = np.sort(np.argsort(random.exponential(size=len(weight)) / weight)[:wanted])
    return tree, [(a, b) for a, b in ends[chosen].tolist()]


def _near_tree(places: Floats, height: Floats, random: np.random.Generator) -> list[Pair]:
    """Nodes join by halves: each to one of the nearest that were there when its half began."""
    degree = np.zeros(len(places))
    tree: list[Pair] = []
    begun = 1
    while begun < len(places):
        joining = np.arange(begun, min(2 * begun, len(places)))
        count = min(begun, NEIGHBOURS)
        away, others = cKDTree(places[:begun]).query(places[joining], np.arange(1, count + 1))
        weights = (_nearness(away) + 1e-12) * height[others]  # a node far from all others joins one all the same
        for node, candidates, weight in zip(joining.tolist(), others, weights, strict=True):
            chances = np.cumsum(weight * (1.0 + degree[candidates]))
            other = int(candidates[min(count - 1, np.searchsorted(chances, random.random() * chances[-1], "right"))])
            tree.append((other, node))
            degree[[other, node]] += 1
        begun *= 2
    return tree


def _heights(n: int, random: np.random.Generator) -> Floats:
    return np.minimum(random.pareto(1.5, n), 3.0) + 0.3


def _nearness(away: Floats) -> Floats:
    return np.asarray(np.exp(-away / (REACH * EXTENT_DEGREES * np.sqrt(PAPER_NODES))))


def _pair_at(n: int, pair: Pair) -> int:
    """The position of a pair a < b in the order of triu_indices."""
    a, b = pair
    return a * (2 * n - a - 1) // 2 + b - a - 1


def _rates(random: np.random.Generator) -> tuple[float, float]:
    """The rates of a link's two directions in Mbit/s."""
    faster = MINIMUM_MBPS + random.exponential(FASTER_MEAN_MBPS - MINIMUM_MBPS)
    deviates = random.random() < DEVIATING
    slower = faster * (1.0 - (random.uniform(0.3, 0.7) if deviates else random.uniform(0.0, 0.3)))
    pair = (round(faster, 2), round(max(slower, MINIMUM_MBPS), 2))
    return pair if random.random() < 0.5 else pair[::-1]
