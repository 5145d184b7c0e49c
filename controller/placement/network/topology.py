"""A network as placement sees it: nodes, where they are, and the directed bandwidth between neighbours."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TypeGuard

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Indices = npt.NDArray[np.int64]

MAXIMUM_RATE_MBPS = 1e6  # a terabit per second: anything above is a broken counter, not a link


class TopologyError(ValueError):
    """A topology that cannot be used; the message names the node or link and what would be accepted."""


@dataclass(frozen=True, slots=True)
class NodeAttributes:
    """What decides whether a node may be a head; 0 and None mean unknown, `runtimes` of () that it runs nothing.

    `availability` is the share of time in which the node was heard, 0 to 1; what is free is free at the moment.
    """

    zone: str = ""
    labels: tuple[str, ...] = ()
    cpus: int = 0
    memory_bytes: int = 0
    addresses: tuple[str, ...] = ()
    runtimes: tuple[str, ...] | None = None
    availability: float | None = None
    free_cpu_percent: float | None = None
    free_memory_bytes: int | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Topology:
    """Nodes and directed links; a link's rate is in Mbit/s from `edges[:, 0]` to `edges[:, 1]`, each pair at most once.

    `coordinates` (n, 2) are latitude and longitude with NaN where a node has none. `rtts_ms` (m,) are the links' round
    trips with NaN where one is unknown; left empty, all are. `routes` (r, 3) are rows of node, destination, next hop.
    The arrays are made read-only. `notes` say what the source had that is not in here. Raises TopologyError.
    """

    names: tuple[str, ...]
    coordinates: Floats
    edges: Indices
    rates_mbps: Floats
    nodes: tuple[NodeAttributes, ...]
    notes: tuple[str, ...] = ()
    rtts_ms: Floats = field(default_factory=lambda: np.zeros(0))
    routes: Indices = field(default_factory=lambda: np.zeros((0, 3), dtype=np.int64))

    def __post_init__(self) -> None:
        count = len(self.names)
        if len(set(self.names)) != count:
            twice = sorted({name for name in self.names if self.names.count(name) > 1})
            raise TopologyError(f"node {twice[0]!r} is there twice; names must be unique")
        if len(self.nodes) != count or self.coordinates.shape != (count, 2):
            raise TopologyError(
                f"{count} names need {count} node attributes and coordinates of shape ({count}, 2), "
                f"not {len(self.nodes)} and {self.coordinates.shape}"
            )
        self._check_edges(count)
        if not self.rtts_ms.size:
            object.__setattr__(self, "rtts_ms", np.full(len(self.edges), np.nan))
        self._check_rtts()
        self._check_routes(count)
        for array in (self.coordinates, self.edges, self.rates_mbps, self.rtts_ms, self.routes):
            array.setflags(write=False)

    def _check_edges(self, count: int) -> None:
        if self.edges.ndim != 2 or self.edges.shape[1] != 2 or self.rates_mbps.shape != self.edges.shape[:1]:
            raise TopologyError(
                f"edges must have shape (m, 2) and rates (m,), not {self.edges.shape} and {self.rates_mbps.shape}"
            )
        self._check_range("an edge", self.edges)
        bad = np.flatnonzero(~((self.rates_mbps > 0) & (self.rates_mbps <= MAXIMUM_RATE_MBPS)))
        if bad.size:
            raise TopologyError(
                f"link {self._link(int(bad[0]))} has a rate of {self.rates_mbps[bad[0]]} Mbit/s; "
                f"a rate is above 0 and at most {MAXIMUM_RATE_MBPS:.0f}, and a link that is down is left out"
            )
        loops = np.flatnonzero(self.edges[:, 0] == self.edges[:, 1])
        if loops.size:
            raise TopologyError(f"link {self._link(int(loops[0]))} leads from a node to itself")
        flat = self.edges[:, 0] * count + self.edges[:, 1]
        if len(np.unique(flat)) != len(flat):
            raise TopologyError("a pair of nodes has two links in one direction; keep the faster one")

    def _check_range(self, what: str, nodes: Indices) -> None:
        beyond = nodes[(nodes < 0) | (nodes >= len(self))]
        if beyond.size:
            raise TopologyError(f"{what} names node {beyond[0]} of {len(self)} (they count from 0)")

    def _check_rtts(self) -> None:
        if self.rtts_ms.shape != self.rates_mbps.shape:
            raise TopologyError(f"{len(self.edges)} links need as many round trips, not {self.rtts_ms.shape}")
        bad = np.flatnonzero((self.rtts_ms < 0) | np.isinf(self.rtts_ms))
        if bad.size:
            raise TopologyError(
                f"link {self._link(int(bad[0]))} has a round trip of {self.rtts_ms[bad[0]]} ms; "
                "accepted are 0 and above, and NaN for an unknown one"
            )

    def _check_routes(self, count: int) -> None:
        if self.routes.ndim != 2 or self.routes.shape[1] != 3:
            raise TopologyError(f"routes must have shape (r, 3), not {self.routes.shape}")
        self._check_range("a route", self.routes)
        flat = self.routes[:, 0] * count + self.routes[:, 1]
        if len(np.unique(flat)) != len(flat):
            raise TopologyError("a node has two routes to one destination; keep the one that it uses")

    def _link(self, edge: int) -> str:
        source, destination = self.edges[edge]
        return f"{self.names[source]} -> {self.names[destination]}"

    def __len__(self) -> int:
        return len(self.names)

    def index(self, name: str) -> int:
        """The index of a node; raises TopologyError with the names that exist."""
        try:
            return self.names.index(name)
        except ValueError:
            some = ", ".join(self.names[:8]) + (", …" if len(self.names) > 8 else "")
            raise TopologyError(f"no node {name!r} in this topology; it has {some or 'no node at all'}") from None

    def links_between(self, sources: Indices, destinations: Indices) -> Indices:
        """The link from each source to its destination as an index into `edges`, -1 where there is none; any shape."""
        if not len(self.edges):
            return np.full(np.shape(sources), -1, dtype=np.int64)
        flat = self.edges[:, 0] * len(self) + self.edges[:, 1]
        order = np.argsort(flat)
        wanted = np.asarray(sources) * len(self) + destinations
        at = order[np.minimum(np.searchsorted(flat, wanted, sorter=order), len(flat) - 1)]
        return np.where(flat[at] == wanted, at, -1)

    def matrix(self) -> Floats:
        """The direct links as an n × n matrix in Mbit/s, 0 where there is none."""
        rates = np.zeros((len(self), len(self)))
        rates[self.edges[:, 0], self.edges[:, 1]] = self.rates_mbps
        return rates


def assemble(
    names: Sequence[str],
    coordinates: Sequence[tuple[float | None, float | None]],
    rates_mbps: dict[tuple[int, int], float],
    nodes: Sequence[NodeAttributes],
    notes: Sequence[str] = (),
    rtts_ms: Mapping[tuple[int, int], float] | None = None,
    routes: Mapping[tuple[int, int], int] | None = None,
) -> Topology:
    """A Topology from plain values; a node with half a coordinate, or one that is no place on Earth, has none.

    `rtts_ms` may leave links out, and `routes` has the next hop by node and destination.
    """
    places = np.full((len(names), 2), np.nan)
    for at, (latitude, longitude) in enumerate(coordinates):
        if latitude is not None and longitude is not None and abs(latitude) <= 90 and abs(longitude) <= 180:
            places[at] = latitude, longitude
    pairs = sorted(rates_mbps)
    known = rtts_ms or {}
    return Topology(
        names=tuple(names),
        coordinates=places,
        edges=np.array(pairs, dtype=np.int64).reshape(-1, 2),
        rates_mbps=np.array([rates_mbps[pair] for pair in pairs], dtype=np.float64),
        nodes=tuple(nodes),
        notes=tuple(notes),
        rtts_ms=np.array([known.get(pair, np.nan) for pair in pairs], dtype=np.float64),
        routes=np.array(
            [(at, destination, hop) for (at, destination), hop in sorted((routes or {}).items())], dtype=np.int64
        ).reshape(-1, 3),
    )


def symmetric(topology: Topology) -> Topology:
    """The same network with only the links that work both ways, both directions at the rate of the slower one."""
    back = topology.links_between(topology.edges[:, 1], topology.edges[:, 0])
    both = np.flatnonzero(back >= 0)
    one_way = len(back) - len(both)
    return replace(
        topology,
        edges=topology.edges[both],
        rates_mbps=np.minimum(topology.rates_mbps[both], topology.rates_mbps[back[both]]),
        rtts_ms=topology.rtts_ms[both],
        notes=(*topology.notes, f"one-way links left out: {one_way}") if one_way else topology.notes,
    )


def plausible(rate_mbps: object) -> TypeGuard[float]:
    """Whether a figure can be a link's rate: a number above 0, finite and below a terabit per second."""
    return isinstance(rate_mbps, int | float) and not isinstance(rate_mbps, bool) and 0 < rate_mbps <= MAXIMUM_RATE_MBPS
