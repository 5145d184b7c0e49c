"""Two places in a line, 11 km apart, on which the algorithms are worked by hand."""

from __future__ import annotations

from collections.abc import Callable

from controller.placement import NodeAttributes, Topology

Network = Callable[..., Topology]

#  a --10/12-- b --8-- c ---2--- d --6-- e --9/7-- f    each rate there/back in Mbit/s
TWO_PLACES = "a-b 10 12, b-c 8, c-d 2, d-e 6, e-f 9 7"
PLACES = {name: (41.0, 2.0 + at * 1e-4) for at, name in enumerate("abc")} | {
    name: (41.1, 2.0 + at * 1e-4) for at, name in enumerate("def")
}
# What passes every test of the hardware.
FREE = NodeAttributes(cpus=4, memory_bytes=1 << 30, availability=1.0, free_cpu_percent=90.0, free_memory_bytes=1 << 29)
