"""Members to heads that can serve only so many."""

from __future__ import annotations

import itertools

import numpy as np
import numpy.typing as npt

from controller.placement.network.topology import Floats, Indices


def assign(bandwidth_rows: Floats, heads: Indices, maximum_members: int) -> Indices:
    """Each node's head as an index into `heads` (n,), -1 for the heads and for nodes that none serves.

    `bandwidth_rows` (k, n) is from each head to every node; no head gets more than `maximum_members`, and the sum of
    the members' bandwidth is the largest possible. Successive shortest paths: all begin with their best head, and
    while one has too many, a member moves on, perhaps pushing another further, along the chain that costs least.
    """
    k, n = bandwidth_rows.shape
    rows = np.vstack((bandwidth_rows, np.zeros(n)))  # the last serves nobody, and as many as there are
    rows[:, heads] = 0.0
    head = np.where(rows.max(axis=0) > 0, rows.argmax(axis=0), k)
    members = np.bincount(head, minlength=k + 1)
    costs, movers = np.empty((k + 1, k + 1)), np.empty((k + 1, k + 1), dtype=np.int64)
    way = list(range(k + 1))
    while True:
        for at in way:
            _price(rows, head, at, costs, movers)
        if members[:k].max(initial=0) <= maximum_members:
            return np.where(rows[head, np.arange(n)] > 0, head, -1)
        room = np.append(members[:k] < maximum_members, True)
        way = _cheapest(costs, int(members[:k].argmax()), room)
        for node, to in [(movers[one, other], other) for one, other in itertools.pairwise(way)]:
            head[node] = to
        members[way[0]] -= 1
        members[way[-1]] += 1


def _price(rows: Floats, head: Indices, at: int, costs: Floats, movers: Indices) -> None:
    """What it costs to move a member of one head to each other, and the member for which that is least."""
    own = np.flatnonzero(head == at)
    costs[at] = np.inf
    if len(own):
        losses = rows[at, own] - rows[:, own]
        least = losses.argmin(axis=1)
        movers[at], costs[at] = own[least], losses[np.arange(len(rows)), least]
    costs[at, at] = np.inf


def _cheapest(costs: Floats, start: int, room: npt.NDArray[np.bool_]) -> list[int]:
    """The heads on the cheapest way from one to one with room, by Bellman and Ford."""
    distance = np.full(len(costs), np.inf)
    distance[start] = 0.0
    before = np.full(len(costs), -1)
    for _ in range(len(costs)):
        through = distance[:, None] + costs
        nearest = through.argmin(axis=0)
        shorter = through[nearest, np.arange(len(costs))] < distance - 1e-12
        if not shorter.any():
            break
        distance[shorter], before[shorter] = through[nearest, np.arange(len(costs))][shorter], nearest[shorter]
    way = [int(np.where(room, distance, np.inf).argmin())]
    while way[-1] != start:
        way.append(int(before[way[-1]]))
    return way[::-1]
