"""What a network is like, in the figures of the paper's section 2: throughput, presence, asymmetry, degree, load."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from controller.placement.network.topology import Floats, Indices, Topology
from controller.placement.study import graph

DEVIATING = 0.3  # the paper counts the two-way links whose directions differ by more
ALL_SOURCES = 2000  # in a larger network the paths from SOME_SOURCES nodes stand for all
SOME_SOURCES = 250
BUSIEST = 10
QUANTILES = (0.1, 0.25, 0.5, 0.75, 0.9)

Link = tuple[str, str]


@dataclass(frozen=True, slots=True)
class Past:
    """What a live network has shown over time, by directed link and by node.

    `presence` is the share of the time in which a node was heard, `link_presence` in which a link was; `low_mbps` and
    `median_mbps` are a link's 10 % and 50 % quantiles; `traffic_mbps` is what it carries now.
    """

    presence: Mapping[str, float] = field(default_factory=dict)
    link_presence: Mapping[Link, float] = field(default_factory=dict)
    low_mbps: Mapping[Link, float] = field(default_factory=dict)
    median_mbps: Mapping[Link, float] = field(default_factory=dict)
    traffic_mbps: Mapping[Link, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class BusyLink:
    """A directed link, the share of all least-airtime paths that lead over it, and its traffic where that is known."""

    source: str
    destination: str
    rate_mbps: float
    share_of_paths: float
    traffic_mbps: float | None


@dataclass(frozen=True, slots=True, eq=False)
class Characteristics:
    """The figures of a network; samples are sorted, shares are 0 to 1, distances count hops.

    `rates_mbps` has one value a directed link, `deviations` (1 - slower / faster) and `two_way_mbps` (there, back) one
    a two-way link, `degrees` one a node; `reachable_share` is of all ordered pairs of nodes. Presence and `steadiness`
    (a link's low quantile over its median) are empty where nothing is known of the past.
    """

    nodes: int
    pairs: int
    rates_mbps: Floats
    two_way_mbps: Floats
    deviations: Floats
    degrees: Indices
    component_sizes: tuple[int, ...]
    diameter: int
    reachable_share: float
    busiest: tuple[BusyLink, ...]
    presence: Floats
    link_presence: Floats
    steadiness: Floats

    @property
    def one_way_share(self) -> float:
        """The share of neighbours that only one direction joins."""
        return 1.0 - len(self.deviations) / self.pairs if self.pairs else 0.0

    @property
    def deviating_share(self) -> float:
        """The share of two-way links whose directions differ by more than 30 %."""
        return float((self.deviations > DEVIATING).mean()) if len(self.deviations) else 0.0

    @property
    def exponential_distance(self) -> float:
        """How far the throughput's distribution is from an exponential one of that mean (Kolmogorov–Smirnov)."""
        values, share = ecdf(self.rates_mbps)
        if not len(values):
            return 0.0
        model = exponential(values, float(values.mean()))
        return float(np.maximum(share - model, model - (share - 1.0 / len(values))).max())

    def to_json(self) -> dict[str, Any]:
        """Every figure, and of every sample its quantiles."""
        return {
            "nodes": self.nodes,
            "links": len(self.rates_mbps),
            "pairs": self.pairs,
            "one_way_share": round(self.one_way_share, 4),
            "deviating_share": round(self.deviating_share, 4),
            "throughput_mbps": summary(self.rates_mbps) | {"exponential_distance": round(self.exponential_distance, 4)},
            "asymmetry": summary(self.deviations),
            "degree": summary(self.degrees),
            "components": list(self.component_sizes),
            "diameter": self.diameter,
            "reachable_share": round(self.reachable_share, 4),
            "presence": summary(self.presence),
            "link_presence": summary(self.link_presence),
            "steadiness": summary(self.steadiness),
            "busiest": [
                {
                    "source": link.source,
                    "destination": link.destination,
                    "rate_mbps": round(link.rate_mbps, 3),
                    "share_of_paths": round(link.share_of_paths, 4),
                    "traffic_mbps": link.traffic_mbps,
                }
                for link in self.busiest
            ],
        }


def characterise(topology: Topology, past: Past | None = None) -> Characteristics:
    """The figures of a network as it is in `topology`, and with its past where there is one.

    A link's throughput is its median of the past, else its rate now.
    """
    past = past or Past()
    links = [(topology.names[source], topology.names[destination]) for source, destination in topology.edges]
    rates = np.array(
        [past.median_mbps.get(link, rate) for link, rate in zip(links, topology.rates_mbps, strict=True)],
        dtype=np.float64,
    )
    neighbours = graph.adjacency(topology)
    two_way = _two_way(topology, rates)
    shares, reachable = _loads(topology)
    presence = past.presence or {
        name: node.availability
        for name, node in zip(topology.names, topology.nodes, strict=True)
        if node.availability is not None
    }
    steadiness = [low / past.median_mbps[link] for link, low in past.low_mbps.items() if past.median_mbps.get(link)]
    return Characteristics(
        nodes=len(topology),
        pairs=neighbours.nnz // 2,
        rates_mbps=np.sort(rates),
        two_way_mbps=two_way,
        deviations=np.sort(1.0 - two_way.min(axis=1) / two_way.max(axis=1)),
        degrees=np.sort(graph.degrees(neighbours)),
        component_sizes=tuple(int(size) for size in np.bincount(graph.components(neighbours))),
        diameter=graph.diameter(neighbours),
        reachable_share=reachable,
        busiest=_busiest(links, rates, shares, past.traffic_mbps),
        presence=_sample(presence),
        link_presence=_sample(past.link_presence),
        steadiness=np.sort(np.array(steadiness, dtype=np.float64)),
    )


def ecdf(values: Floats | Indices) -> tuple[Floats, Floats]:
    """The sorted values, and the share of all that is at most each of them."""
    count = len(values)
    return np.sort(np.asarray(values, dtype=np.float64)), np.arange(1, count + 1) / max(count, 1)


def exponential(values: Floats, mean: float) -> Floats:
    """The share of an exponential distribution at most each value."""
    return np.asarray(-np.expm1(-values / mean), dtype=np.float64)


def summary(values: Floats | Indices) -> dict[str, float]:
    """Count, mean, extremes and quantiles of a sample; only the count of an empty one."""
    if not len(values):
        return {"count": 0}
    named = {"count": float(len(values)), "mean": values.mean(), "minimum": values.min(), "maximum": values.max()}
    named |= {
        f"q{100 * share:.0f}": value for share, value in zip(QUANTILES, np.quantile(values, QUANTILES), strict=True)
    }
    return {name: round(float(value), 4) for name, value in named.items()}


def _sample(shares: Mapping[Any, float]) -> Floats:
    return np.sort(np.array(list(shares.values()), dtype=np.float64))


def _two_way(topology: Topology, rates: Floats) -> Floats:
    """(there, back) of each pair of nodes that both directions join, shape (pairs, 2)."""
    n = len(topology)
    there = topology.edges[:, 0] * n + topology.edges[:, 1]
    back = topology.edges[:, 1] * n + topology.edges[:, 0]
    _, first, second = np.intersect1d(there, back, return_indices=True)
    once = topology.edges[first, 0] < topology.edges[first, 1]
    return np.asarray(np.column_stack((rates[first[once]], rates[second[once]])), dtype=np.float64)


def _loads(topology: Topology) -> tuple[Floats, float]:
    """The share of all paths that lead over each link, and the share of all ordered pairs that have a path."""
    n = len(topology)
    sources = np.arange(n) if n <= ALL_SOURCES else np.linspace(0, n - 1, SOME_SOURCES).astype(np.int64)
    loads, paths = graph.path_loads(topology, sources)
    return loads / max(1, paths), paths / max(1, len(sources) * (n - 1))


def _busiest(
    links: Sequence[Link], rates: Floats, shares: Floats, traffic: Mapping[Link, float]
) -> tuple[BusyLink, ...]:
    """The links with the most traffic, where that is known; then those over which the most paths lead."""
    order = sorted(range(len(links)), key=lambda at: (-traffic.get(links[at], 0.0), -shares[at]))[:BUSIEST]
    return tuple(BusyLink(*links[at], float(rates[at]), float(shares[at]), traffic.get(links[at])) for at in order)
