"""The integer program of services that are placed together."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from controller.placement.network.topology import Floats, Indices
from controller.placement.solvers.program import Program
from controller.placement.solvers.service import Service


def heads_program(services: Mapping[int, Service], capacity: Floats) -> tuple[Program, dict[int, Indices]]:
    """Who may be a head: k of each service, capacity (n, resources) and `apart` kept; the variables of each service."""
    program = Program()
    opened = {at: program.add(service.bonus[service.eligible], integral=True) for at, service in services.items()}
    for at, service in services.items():
        program.limit(np.array([float(service.k)]), (np.zeros_like(opened[at]), opened[at], 1.0), equal=True)
        for other in {*service.apart} & {*services} - {at}:
            pair = ((services[one].eligible, opened[one], 1.0) for one in (at, other))
            program.limit(np.ones(len(capacity)), *pair)
    for resource, limits in enumerate(capacity.T):
        taken = ((service.eligible, opened[at], service.demand[resource]) for at, service in services.items())
        program.limit(limits, *taken)
    return program, opened


def serve_members(program: Program, service: Service, opened: Indices) -> None:
    """Adds the gain of a service's members: a node is one, or it is a head."""
    head = np.full(len(service.bandwidth), -1)
    head[service.eligible] = opened
    for node, rates in enumerate(service.bandwidth[service.eligible].T):
        levels = _cover(program, rates, opened, 1.0)
        if head[node] >= 0:
            each = np.arange(len(levels))
            program.limit(np.ones(len(levels)), (each, levels, 1.0), (each, np.full_like(each, head[node]), 1.0))


def serve_heads(
    program: Program, service: Service, opened: Indices, other: Service, others: Indices, weight: float
) -> None:
    """Adds the gain that a service's heads have from the heads of another one that it is near to."""
    bandwidth = service.between_heads()[np.ix_(other.eligible, service.eligible)]
    for head, rates in zip(opened, bandwidth.T, strict=True):
        levels = _cover(program, rates, others, weight)
        each = np.arange(len(levels))
        program.limit(np.zeros(len(levels)), (each, levels, 1.0), (each, np.full_like(each, head), -1.0))


def _cover(program: Program, rates: Floats, opened: Indices, weight: float) -> Indices:
    """Variables that say which levels of bandwidth a node is served at, by descending level, with their gains.

    Level t is reached with a head of at least that rate, so z_t ≤ z_(t-1) + the sum of y_i over heads of just that
    rate; it adds the difference to the next lower level (Elloumi 2010).
    """
    negated, at = np.unique(-rates, return_inverse=True)
    levels = -negated[negated < 0]
    reached = program.add(weight * (levels - np.append(levels[1:], 0.0)))
    useful, each = np.flatnonzero(at < len(levels)), np.arange(len(levels))
    program.limit(
        np.zeros(len(levels)),
        (each, reached, 1.0),
        (each[1:], reached[:-1], -1.0),
        (at[useful], opened[useful], -1.0),
    )
    return reached
