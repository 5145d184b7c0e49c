"""Exact placement where bandwidth is an ultrametric: the widest path between nodes whose links are symmetric.

Drop the links in ascending order of rate and the network falls apart like a tree: its leaves are the nodes, and an
inner vertex is a merge of two parts over the fastest link between them. The bandwidth between two nodes is that of
the merge where they meet.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from controller.placement.network.topology import Floats, Indices
from controller.placement.solvers.solution import Solution, check_heads


@dataclass(frozen=True, slots=True, eq=False)
class MergeTree:
    """The merge tree of n nodes: vertices below n are the leaves, n and above the merges, later ones never faster.

    `children` (n - 1, 2) are the two parts of each merge, `merged_mbps` (n - 1,) its bandwidth, 0 between components.
    `order` (n,) lists the leaves so that every vertex has a run of them; `gaps` (n - 1,) is the bandwidth between
    neighbours in it, and between any two nodes the least gap on the way from one to the other.
    """

    children: Indices
    merged_mbps: Floats
    order: Indices
    gaps: Floats

    @classmethod
    def from_links(cls, n: int, ends: Indices, rates: Floats) -> MergeTree:
        """The tree of n ≥ 1 nodes and undirected links `ends` (m, 2) of `rates` (m,) Mbit/s, in O(m log m).

        The bandwidth is the widest path's. A link without a positive rate is none.
        """
        above = list(range(2 * n - 1))
        first, last, following = list(range(2 * n - 1)), list(range(2 * n - 1)), [-1] * n
        children: list[tuple[int, int]] = []
        merged: list[float] = []
        gap = [0.0] * n
        for one, other, rate in _fastest_first(n, ends, rates):
            left, right = _root(above, one), _root(above, other)
            if left == right:
                continue
            vertex = n + len(children)
            above[left] = above[right] = vertex
            following[last[left]], gap[last[left]] = first[right], rate
            first[vertex], last[vertex] = first[left], last[right]
            children.append((left, right))
            merged.append(rate)
        order = _walk(first[-1], following)
        return cls(
            np.array(children, dtype=np.int64).reshape(-1, 2), np.array(merged), order, np.array(gap)[order[:-1]]
        )

    @classmethod
    def from_matrix(cls, bandwidth: Floats) -> MergeTree:
        """The tree of a symmetric ultrametric (n, n), n ≥ 1, in O(n²): of the links of its maximum spanning tree."""
        n = len(bandwidth)
        best, source = bandwidth[0].copy(), np.zeros(n, dtype=np.int64)
        best[0] = -np.inf
        ends, rates = np.empty((n - 1, 2), dtype=np.int64), np.empty(n - 1)
        for at in range(n - 1):
            node = int(best.argmax())
            ends[at], rates[at] = (source[node], node), best[node]
            nearer = (bandwidth[node] > best) & (best > -np.inf)
            best[nearer], source[nearer] = bandwidth[node, nearer], node
            best[node] = -np.inf
        return cls.from_links(n, ends, rates)

    def __len__(self) -> int:
        return len(self.order)

    def best(self, eligible: Indices, k: int, bonus: Floats) -> Solution:
        """The k eligible nodes of the largest value, in O(n log n); raises ValueError when k do not fit.

        Proof. Write b(v) for the bandwidth of a merge v, 0 above the root, and s(v) for its number of leaves. A member
        gets the b of its lowest ancestor over a head, which telescopes: the sum of b(v) - b(parent of v) over all its
        ancestors over a head. So merge v weighs w(v) = s(v) · (b(v) - b(parent of v)) ≥ 0 as soon as a head is below
        it. That counts each head as a member of its parent; hence a leaf weighs its bonus - b(parent), and the value
        of a set of heads is the weight of all vertices on their ways to the root.

        Let F(v, k) be the best weight of k heads below v. The claim is that F(v, ·) is concave from F(v, 0) = 0. It
        is for a leaf, which has one step or none. The best split between two children merges their steps, largest
        first, and w(v) ≥ 0 is paid with the first head, so it raises the largest step only. Hence each step is the
        weight of a chain: v with the chain of the child that has the heavier one, while the other child's chain ends
        below v. The k heaviest chains of the root are the optimum, and their leaves the heads. (The value is
        M♮-concave because the family of the vertices' leaf sets is laminar; this is its greedy algorithm.)
        """
        check_heads(eligible, k)
        weight = self._weights(bonus)
        chain, leaf = self._chains(weight, eligible)
        parent = self._parents()
        starts = np.flatnonzero((leaf >= 0) & ((parent < 0) | (leaf[parent] != leaf)))
        chosen = starts[np.lexsort((leaf[starts], -chain[starts]))[:k]]
        value = float(chain[chosen].sum())
        return Solution(leaf[chosen], value, value, True, "chain decomposition of the merge tree")

    def rows(self, heads: Indices) -> Floats:
        """The bandwidth (len(heads), n) in Mbit/s from each of some nodes to every node, 0 to itself."""
        position = np.empty_like(self.order)
        position[self.order] = np.arange(len(self))
        rows = np.zeros((len(heads), len(self)))
        for row, head, at in zip(rows, heads, position[heads], strict=True):
            row[self.order[at + 1 :]] = np.minimum.accumulate(self.gaps[at:])
            row[self.order[:at]] = np.minimum.accumulate(self.gaps[:at][::-1])[::-1]
            row[head] = 0.0
        return rows

    def runners_up(self, heads: Indices, eligible: Indices, bonus: Floats) -> list[tuple[int, float] | None]:
        """For each head the eligible node that replaces it best, and the value then; None when no node is left. O(n).

        Without a head, the vertices on its way up that have no other head are lost. A replacement from below these
        brings part of them back; any other one brings the chain that hangs from what is left.
        """
        weight = self._weights(bonus)
        chain, leaf = self._chains(weight, eligible)
        parent, count = self._parents(), self._counts(heads)
        value = float(weight[count > 0].sum())
        hanging = np.flatnonzero((count == 0) & (leaf >= 0) & (count[parent] > 0))
        elsewhere = max(((chain[v], -leaf[v]) for v in hanging), default=(-np.inf, 0))
        answers: list[tuple[int, float] | None] = []
        for head in heads:
            lost, inside, vertex = weight[head], (-np.inf, 0), int(head)
            while parent[vertex] >= 0 and count[parent[vertex]] == 1:
                above = parent[vertex]
                sibling = self.children[above - len(self)].sum() - vertex
                inside = max(inside, (chain[sibling], -leaf[sibling]))
                inside = inside[0] + weight[above], inside[1]
                lost += weight[above]
                vertex = int(above)
            gain, node = max(inside, elsewhere)
            answers.append((int(-node), float(value - lost + gain)) if gain > -np.inf else None)
        return answers

    def _parents(self) -> Indices:
        """The merge above each vertex, -1 above the root."""
        parent = np.full(2 * len(self) - 1, -1)
        parent[self.children] = np.arange(len(self), 2 * len(self) - 1)[:, None]
        return parent

    def _weights(self, bonus: Floats) -> Floats:
        """What each vertex adds to the value as soon as a head is below it."""
        n, parent = len(self), self._parents()
        mbps = np.concatenate((bonus, self.merged_mbps))
        above = np.where(parent < 0, 0.0, mbps[parent])
        size = [1] * n
        for left, right in self.children.tolist():
            size.append(size[left] + size[right])
        return np.array(size) * (mbps - above)

    def _chains(self, weight: Floats, eligible: Indices) -> tuple[Floats, Indices]:
        """Each vertex' heaviest chain down to an eligible leaf, -inf without one, and that leaf, -1 without."""
        n = len(self)
        leaf = np.full(n, -1)
        leaf[eligible] = eligible
        leaves: list[int] = leaf.tolist()
        chain: list[float] = np.where(leaf < 0, -np.inf, weight[:n]).tolist()
        for (left, right), own in zip(self.children.tolist(), weight[n:].tolist(), strict=True):
            heavier = left if (chain[left], -leaves[left]) > (chain[right], -leaves[right]) else right
            chain.append(own + chain[heavier])
            leaves.append(leaves[heavier])
        return np.array(chain), np.array(leaves)

    def _counts(self, heads: Indices) -> Indices:
        """How many heads are below each vertex."""
        count = [0] * len(self)
        for head in heads.tolist():
            count[head] = 1
        for left, right in self.children.tolist():
            count.append(count[left] + count[right])
        return np.array(count)


def _fastest_first(n: int, ends: Indices, rates: Floats) -> Iterable[tuple[int, int, float]]:
    """Links by descending rate, and then links of rate 0 that join whatever is apart."""
    order = np.argsort(-rates, kind="stable")
    order = order[rates[order] > 0]
    for (one, other), rate in zip(ends[order].tolist(), rates[order].tolist(), strict=True):
        yield one, other, rate
    for node in range(1, n):
        yield 0, node, 0.0


def _root(above: list[int], vertex: int) -> int:
    """The top of the part that a vertex is in; halves the way there for the next time."""
    while above[vertex] != vertex:
        above[vertex] = vertex = above[above[vertex]]
    return vertex


def _walk(start: int, following: Sequence[int]) -> Indices:
    """The leaves in tree order."""
    order = [start]
    while following[order[-1]] >= 0:
        order.append(following[order[-1]])
    return np.array(order)
