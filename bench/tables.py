"""What a lookup costs in tables of any size, in this process; run as a program it prints one JSON object.

python -m bench.tables fib --entries 1000000
"""

from __future__ import annotations

import argparse
import json
import random
import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))  # this file may be run by its path

from gateway.forwarder import packet
from gateway.forwarder.fib import Fib
from gateway.forwarder.pit import Pit
from gateway.protocol import names
from gateway.protocol.names import Name

# The same so many names are looked up in a small table and in a large one, so that the machine's caches hold them in
# both: the difference is the table's own.
PROBES = 1000
DEPTHS = (2, 4, 8, 16)
_ROUNDS = 7
_NOWHERE = names.parse("/nowhere/at/all")


def prefixes(count: int, depth: int) -> list[Name]:
    """Distinct names of `depth` components, which share their first half."""
    stem = b"".join(names.component(f"c{i}") for i in range(depth - 1))
    return [stem + names.component(f"{i:07d}") for i in range(count)]


def fib(entries: int, depth: int) -> dict[str, float]:
    """Nanoseconds for a longest-prefix match of a name two components below a route, and of one with no route."""
    table, held = Fib(), prefixes(entries, depth)
    for prefix in held:
        table.add(prefix, 300, 1, "static")
    below = names.component("x") + names.segment(7)
    found = [prefix + below for prefix in _some(held)]
    assert table.longest_prefix_match(found[0]) and not table.longest_prefix_match(_NOWHERE)
    missed = [prefix[:-1] + b"\x00" + below for prefix in _some(held)]
    return {
        "hit_ns": _cost_ns(table.longest_prefix_match, found),
        "miss_ns": _cost_ns(table.longest_prefix_match, missed),
    }


def pit(entries: int, depth: int) -> dict[str, float]:
    """Nanoseconds for finding the entry of an Interest, and the entries that a Data packet satisfies."""
    table = Pit(entries + 1)
    for name in prefixes(entries, depth):
        table.insert(_interest(name))
    held = _some(prefixes(entries, depth))
    interests = [_interest(name) for name in held]
    answers = [packet.decode_data(_data(name)) for name in held]
    assert table.find(interests[0]) is not None and len(table.satisfied_by(answers[0])) == 1
    return {"find_ns": _cost_ns(table.find, interests), "satisfy_ns": _cost_ns(table.satisfied_by, answers)}


def _some(held: list[Name]) -> list[Name]:
    return random.Random(1).sample(held, PROBES)


def _interest(name: Name) -> packet.Interest:
    return packet.decode_interest(packet.encode_interest(name, nonce=b"once")[1])


def _data(name: Name) -> bytes:
    signature = b"\x16\x03\x1b\x01\x00" + b"\x17\x20" + bytes(32)
    return names.tlv(packet.DATA, names.tlv(0x07, name) + signature)


def _cost_ns(look_up: Callable[[Any], Any], keys: Iterable[Any]) -> float:
    """The cheapest round's nanoseconds for one call: what disturbs a round only adds to it."""
    probes = list(keys)
    rounds = []
    for _ in range(_ROUNDS):
        started = time.perf_counter_ns()
        for probe in probes:
            look_up(probe)
        rounds.append((time.perf_counter_ns() - started) / len(probes))
    return min(rounds)


TABLES: dict[str, Callable[[int, int], dict[str, float]]] = {"fib": fib, "pit": pit}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("table", choices=sorted(TABLES))
    parser.add_argument("--entries", type=int, default=1000, metavar="N")
    parser.add_argument("--depth", type=int, default=4, metavar="N", help="components of each prefix")
    options = parser.parse_args()
    print(json.dumps(TABLES[options.table](options.entries, options.depth)))


if __name__ == "__main__":
    main()
