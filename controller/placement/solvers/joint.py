"""Several services placed together: they share the nodes' capacity, keep apart, and are near what they talk to."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from controller.placement.network.topology import Floats, Indices
from controller.placement.solvers.joint_program import heads_program, serve_heads, serve_members
from controller.placement.solvers.lagrangian import Median, relax, slack
from controller.placement.solvers.median import solve
from controller.placement.solvers.service import Service
from controller.placement.solvers.solution import Solution, value_of

PROGRAM = 2_000_000  # figures of a bandwidth up to which an integer program is tried
ROUNDS = 20

Heads = dict[int, Indices]


def joint(
    services: Sequence[Service],
    capacity: Floats,
    seconds: float = 10.0,
    *,
    clock: Callable[[], float] = time.process_time,
) -> list[Solution | None]:
    """Heads for services that share the nodes' `capacity` (n, resources), for the largest sum of their values.

    A service that finds no place beside those before it is None; capacity below 0 is none. A solution's value counts
    what it is near to, and its bound has the gap of the whole sum. After `seconds` of `clock` the best found: heads
    that are best alone if they go together, else those of rounds, in which each service answers the others, and of an
    integer program, of which the bounds of the services alone leave only the candidates that can be better.
    """
    end = clock() + seconds
    return Joint(services, np.maximum(capacity, 0.0), end, clock).solutions()


@dataclass(slots=True, eq=False)
class Joint:
    """One call of joint(); `placed` are the services that find a place, `heads` the best so far, of `value`."""

    services: Sequence[Service]
    capacity: Floats
    end: float
    clock: Callable[[], float]
    placed: list[int] = field(default_factory=list)
    heads: Heads = field(default_factory=dict)
    value: float = 0.0
    method: str = "each service by itself"

    def solutions(self) -> list[Solution | None]:
        """The answer of joint()."""
        self.find_places()
        alone = {at: self._alone(at) for at in self.placed}
        bound = sum(most for _, most in alone.values())
        self._offer({at: heads for at, (heads, _) in alone.items()})
        if bound > self.value + slack(self.value):
            self.method = "one service after another, in rounds"
            for start in self.starts():
                self._offer(self.rounds(start))
        if bound > self.value + slack(self.value):
            bound = self._program({at: most for at, (_, most) in alone.items()}, bound)
        gap = max(0.0, bound - self.value)
        values = {at: self._value(self.heads, at) for at in self.placed}
        return [
            Solution.of(self.heads[at], values[at], values[at] + gap, self.method) if at in self.heads else None
            for at in range(len(self.services))
        ]

    def _late(self) -> bool:
        return self.clock() >= self.end

    def find_places(self) -> None:
        """The services that find a place, each beside those before it, with some heads."""
        for at, service in enumerate(self.services):
            wanted = [*self.placed, at]
            if service.k <= len(service.eligible):
                program, opened = heads_program({other: self.services[other] for other in wanted}, self.capacity)
                found = program.solve(np.inf).values
                if found is not None:
                    self.placed = wanted
                    self.heads = {i: self.services[i].eligible[found[opened[i]] > 0.5] for i in wanted}
        self.value = self._sum(self.heads)

    def _offer(self, heads: Heads) -> None:
        """Takes heads that are allowed and better."""
        if self._allowed(heads) and (value := self._sum(heads)) > self.value:
            self.heads, self.value = heads, value

    def _allowed(self, heads: Heads) -> bool:
        return all(np.isin(heads[at], self._room(heads, at)).all() for at in heads)

    def _room(self, heads: Heads, at: int) -> Indices:
        """The eligible nodes of a service on which the others leave it room."""
        left = self.capacity.copy()
        shared = np.zeros(len(left), dtype=bool)
        for other in heads.keys() - {at}:
            left[heads[other]] -= self.services[other].demand
            if self._apart(at, other):
                shared[heads[other]] = True
        eligible = self.services[at].eligible
        fits = (left >= self.services[at].demand).all(axis=1) & ~shared
        room: Indices = eligible[fits[eligible]]
        return room

    def _apart(self, one: int, other: int) -> bool:
        return other in self.services[one].apart or one in self.services[other].apart

    def _sum(self, heads: Heads) -> float:
        return sum(self._value(heads, at) for at in heads)

    def _value(self, heads: Heads, at: int) -> float:
        """A service's value with what it has from being near to others."""
        service = self.services[at]
        value = value_of(service.bandwidth, heads[at], service.bonus)
        for other, weight in self._near(at, heads):
            ways = service.between_heads()[np.ix_(heads[other], heads[at])]
            value += weight * float(ways.max(axis=0).sum())
        return value

    def _near(self, at: int, placed: Mapping[int, Indices] | Sequence[int]) -> Iterator[tuple[int, float]]:
        """The placed services that one is near to."""
        near = self.services[at].near.items()
        return ((other, weight) for other, weight in near if other in placed and other != at)

    def _median(self, at: int) -> Median:
        """A service as if it were alone, and as near to others as its nodes could come."""
        service = self.services[at]
        bonus = service.bonus.copy()
        for other, weight in self._near(at, self.placed):
            ways = service.between_heads()
            full = (self.capacity < service.demand + self.services[other].demand).any(axis=1)
            lonely = np.flatnonzero(full | self._apart(at, other))
            ways[lonely, lonely] = 0.0
            bonus += weight * ways[self.services[other].eligible].max(axis=0)
        return Median.of(service.bandwidth, service.eligible, service.k, bonus)

    def _alone(self, at: int) -> tuple[Indices, float]:
        """Heads of a service alone, and a bound of its value in any placement."""
        median = self._median(at)
        chosen, bound = solve(median, self._late)
        return median.nodes[chosen], bound

    def starts(self) -> Iterator[Heads]:
        """Placements to improve: one service after another in every order by turns, and the one at hand."""
        for first in range(len(self.placed)):
            heads: Heads = {}
            for at in self.placed[first:] + self.placed[:first]:
                if len(self._room(heads, at)) >= self.services[at].k:
                    heads[at] = self._response(heads, at)
            if len(heads) == len(self.placed):
                yield heads
        yield self.heads

    def rounds(self, heads: Heads) -> Heads:
        """Each service at its best beside the others, again and again until none gains."""
        value = self._sum(heads)
        for _ in range(ROUNDS):
            before = value
            for at in heads:
                other = heads | {at: self._response(heads, at)}
                if (better := self._sum(other)) > value + slack(value):
                    heads, value = other, better
            if value == before or self._late():
                break
        return heads

    def _response(self, heads: Heads, at: int) -> Indices:
        """The best heads of a service beside the others: their heads that are near to it count as members of it."""
        service, room = self.services[at], self._room(heads, at)
        bonus = service.bonus.copy()
        for other, weight in self._near(at, heads):
            bonus += weight * service.between_heads()[heads[other]].max(axis=0)
        median = Median.of(service.bandwidth, room, service.k, bonus)
        members = [
            self.services[other].near[at] * self.services[other].between_heads()[np.ix_(room, heads[other])]
            for other in heads
            if other != at and at in self.services[other].near
        ]
        chosen, _ = solve(replace(median, gives=np.hstack((median.gives, *members))), self._late)
        return median.nodes[chosen]

    def _program(self, alone: Mapping[int, float], bound: float) -> float:
        """The integer program of the candidates that can be in a better placement; the bound that it leaves."""
        left = {}
        for at in self.placed:
            median = self._median(at)
            value = self.value - (bound - alone[at])
            kept = np.concatenate(relax(median, 0, value, self._late).decided(0, median.k, value))
            left[at] = replace(self.services[at], eligible=median.nodes[np.sort(kept)])
        if sum(service.bandwidth.shape[1] * len(service.eligible) for service in left.values()) > PROGRAM:
            return bound
        program, opened = heads_program(left, self.capacity)
        for at, service in left.items():
            serve_members(program, service, opened[at])
            for other, weight in self._near(at, self.placed):
                serve_heads(program, service, opened[at], left[other], opened[other], weight)
        outcome = program.solve(self.end - self.clock())
        if outcome.values is not None:
            self._offer({at: service.eligible[outcome.values[opened[at]] > 0.5] for at, service in left.items()})
        self.method = "integer program of all services"
        return min(bound, max(self.value, outcome.bound))
