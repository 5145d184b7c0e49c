"""A network as placement sees it: nodes, where they are, and the directed bandwidth between neighbours."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Indices = npt.NDArray[np.int64]

MAXIMUM_RATE_MBPS = 1e6  # a terabit per second: anything above is a broken counter, not a link


class TopologyError(ValueError):
    """A topology that cannot be used; the message names the node or link and what would be accepted."""


@dataclass(frozen=True, slots=True)
class NodeAttributes:
    """What decides whether a node may be a head; 0 and None mean unknown, `runtimes` of () that it runs nothing."""

    zone: str = ""
    labels: tuple[str, ...] = ()
    cpus: int = 0
    memory_bytes: int = 0
    addresses: tuple[str, ...] = ()
    runtimes: tuple[str, ...] | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Topology:
    """Nodes and directed links; a link's rate is in Mbit/s from `edges[:, 0]` to `edges[:, 1]`, each pair at most once.

    `coordinates` are (latitude, longitude) with NaN where a node has none; the arrays are made read-only.
    `notes` say what the source had that is not in here. Raises TopologyError.
    """

    names: tuple[str, ...]
    coordinates: Floats
    edges: Indices
    rates_mbps: Floats
    nodes: tuple[NodeAttributes, ...]
    notes: tuple[str, ...] = ()

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
        for array in (self.coordinates, self.edges, self.rates_mbps):
            array.setflags(write=False)

    def _check_edges(self, count: int) -> None:
        if self.edges.ndim != 2 or self.edges.shape[1] != 2 or self.rates_mbps.shape != self.edges.shape[:1]:
            raise TopologyError(
                f"edges must have shape (m, 2) and rates (m,), not {self.edges.shape} and {self.rates_mbps.shape}"
            )
        if self.edges.size and not (self.edges.min() >= 0 and self.edges.max() < count):
            raise TopologyError(f"an edge names node {self.edges.max()} of {count} (they count from 0)")
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
) -> Topology:
    """A Topology from plain values; a node with half a coordinate, or one that is no place on Earth, has none."""
    places = np.full((len(names), 2), np.nan)
    for at, (latitude, longitude) in enumerate(coordinates):
        if latitude is not None and longitude is not None and abs(latitude) <= 90 and abs(longitude) <= 180:
            places[at] = latitude, longitude
    pairs = sorted(rates_mbps)
    return Topology(
        names=tuple(names),
        coordinates=places,
        edges=np.array(pairs, dtype=np.int64).reshape(-1, 2),
        rates_mbps=np.array([rates_mbps[pair] for pair in pairs], dtype=np.float64),
        nodes=tuple(nodes),
        notes=tuple(notes),
    )


def plausible(rate_mbps: object) -> bool:
    """Whether a figure can be a link's rate: a number above 0, finite and below a terabit per second."""
    return isinstance(rate_mbps, int | float) and not isinstance(rate_mbps, bool) and 0 < rate_mbps <= MAXIMUM_RATE_MBPS
