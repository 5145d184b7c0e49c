"""k-means on coordinates: phase 1 of the paper's Algorithm 1."""

from __future__ import annotations

import numpy as np

from controller.placement.network.topology import Floats, Indices
from controller.placement.problem import Paths

MAXIMUM_ROUNDS = 100  # Lloyd's algorithm settles in a few; the bound is for ties that go back and forth
EARTH_METRES_PER_DEGREE = 111_195.0


def metres(coordinates: Floats) -> Floats:
    """Latitudes and longitudes on a plane in metres, true enough over the extent of a community network."""
    located = coordinates[~np.isnan(coordinates[:, 0])]
    middle = np.radians(located[:, 0].mean()) if len(located) else 0.0
    scale: Floats = EARTH_METRES_PER_DEGREE * np.array([1.0, np.cos(middle)])
    return coordinates * scale


def k_means(points: Floats, k: int, random: np.random.Generator) -> tuple[Indices, Floats]:
    """Each point's cluster and the clusters' centroids, from k of the points at random as the first centroids.

    Gives fewer clusters when there are fewer distinct points than k; none is empty.
    """
    distinct = np.unique(points, axis=0)
    k = min(k, len(distinct))
    centroids = distinct[np.sort(random.choice(len(distinct), size=k, replace=False))]
    cluster = np.zeros(len(points), dtype=np.int64)
    for _ in range(MAXIMUM_ROUNDS):
        away = (points[:, None, 0] - centroids[:, 0]) ** 2 + (points[:, None, 1] - centroids[:, 1]) ** 2
        cluster = away.argmin(axis=1)
        for empty in np.setdiff1d(np.arange(k), cluster):
            # Take the farthest point of a cluster that keeps another one.
            shared = np.bincount(cluster, minlength=k)[cluster] > 1
            cluster[np.where(shared, away[np.arange(len(points)), cluster], -1.0).argmax()] = empty
        moved = np.array([points[cluster == at].mean(axis=0) for at in range(k)]).reshape(k, 2)
        if np.array_equal(moved, centroids):
            break
        centroids = moved
    return cluster, centroids


def cluster_nodes(paths: Paths, k: int, random: np.random.Generator) -> tuple[Indices, Floats, Floats]:
    """Every node's cluster (-1: none), the centroids, and all points in metres.

    A node without coordinates joins the cluster of its best-connected neighbour: of the nodes that have one, the node
    with the best path to it, either way. One that reaches no such node stays without.
    """
    points = metres(paths.topology.coordinates)
    lost, located = np.flatnonzero(np.isnan(points[:, 0])), np.flatnonzero(~np.isnan(points[:, 0]))
    cluster = np.full(len(paths), -1, dtype=np.int64)
    if not len(located):
        return cluster, np.zeros((0, 2)), points
    cluster[located], centroids = k_means(points[located], k, random)
    if len(lost):
        reach = np.maximum(paths.rows(lost), paths.columns(lost))[:, located]
        best = reach.argmax(axis=1)
        cluster[lost] = np.where(reach[np.arange(len(lost)), best] > 0, cluster[located[best]], -1)
    return cluster, centroids, points
