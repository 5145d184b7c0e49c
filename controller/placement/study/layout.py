"""Where to draw the nodes of a network."""

from __future__ import annotations

import numpy as np

from controller.placement.clusters import metres
from controller.placement.network.topology import Floats, Topology
from controller.placement.study import graph

PIVOTS = 60  # nodes from which hops are counted for a map without coordinates; more change nothing that one sees


def positions(topology: Topology) -> Floats:
    """(x, y) of every node, shape (n, 2): coordinates in metres, east and north.

    A node without coordinates stands beside those of its neighbours that have a place; a component without any stands
    in a row below the map. Without any coordinates hops make the map.
    """
    spots = np.flip(metres(topology.coordinates), axis=1).copy()
    if len(topology) and np.isnan(spots).all():
        return _by_hops(topology)
    neighbours = graph.adjacency(topology)
    while True:
        placed = ~np.isnan(spots[:, 0])
        weight = np.asarray(neighbours @ placed.astype(float))
        new = np.flatnonzero(~placed & (weight > 0))
        if not len(new):
            break
        means = (neighbours @ np.where(placed[:, None], spots, 0.0))[new] / weight[new, None]
        spots[new] = means + _beside(len(new)) * 0.02 * np.ptp(spots[placed], axis=0).max(initial=1.0)
    return _in_a_row_below(spots)


def _beside(count: int) -> Floats:
    """So many directions, all different (the golden angle)."""
    angle = np.arange(1, count + 1) * np.pi * (3.0 - 5.0**0.5)
    return np.column_stack((np.cos(angle), np.sin(angle)))


def _in_a_row_below(spots: Floats) -> Floats:
    lost = np.isnan(spots[:, 0])
    if lost.any():
        low, high = np.nanmin(spots, axis=0), np.nanmax(spots, axis=0)
        spots[lost, 0] = np.linspace(low[0], high[0], int(lost.sum()) + 2)[1:-1]
        spots[lost, 1] = low[1] - 0.1 * max(high[1] - low[1], 1.0)
    return spots


def _by_hops(topology: Topology) -> Floats:
    """Distances on the map like hops, component beside component (pivot MDS; Brandes and Pich, 2006)."""
    neighbours = graph.adjacency(topology)
    label = graph.components(neighbours)
    spots = np.zeros((len(topology), 2))
    right = 0.0
    for component in range(label.max() + 1):
        members = np.flatnonzero(label == component)
        pivots = members[np.linspace(0, len(members) - 1, min(PIVOTS, len(members))).astype(np.int64)]
        squared = graph.hops_from(neighbours, pivots)[:, members] ** 2
        centred = squared - squared.mean(axis=0) - squared.mean(axis=1, keepdims=True) + squared.mean()
        _, scale, axes = np.linalg.svd(-0.5 * centred, full_matrices=False)
        plane = np.zeros((len(members), 2))
        plane[:, : min(2, len(scale))] = (axes[:2] * np.sqrt(scale[:2, None])).T
        plane[:, 0] += right - plane[:, 0].min(initial=0.0)
        right = plane[:, 0].max() + 1.0
        spots[members] = plane
    return spots
