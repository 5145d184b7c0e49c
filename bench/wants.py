"""What it costs to keep wants: one SQLite file in WAL mode against one small file each.

python -m bench.wants --wants 1000 [--json FILE]

Bytes are those that this process has had written to the disk (`write_bytes` of /proc/self/io, what the filesystem adds
for names and inodes not among them), for wants that come in offers of 16, change one at a time, and are removed; start
is the time to read them all. On tmpfs no bytes are counted.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import random
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol

sys.path.insert(0, str(Path(__file__).parents[1]))  # this file may be run by its path

from gateway.files import replace_file, sync_directory
from gateway.forwarder.custody.clock import Mark
from gateway.forwarder.custody.store import Row, WantStore
from gateway.forwarder.custody.wants import Key

OFFER = 16
CHANGES = 64
MARK = Mark(0.0, "boot", 0.0, 1.8e9)


class Store(Protocol):
    def apply(self, written: Sequence[Row], removed: Sequence[Key]) -> None: ...
    def load(self) -> int: ...
    def close(self) -> None: ...


class Database:
    """The gateway's own store."""

    def __init__(self, directory: Path) -> None:
        self._store = WantStore(directory / "wants.db")
        self._store.load()

    def apply(self, written: Sequence[Row], removed: Sequence[Key]) -> None:
        self._store.apply(written, removed, MARK, 1)

    def load(self) -> int:
        return len(self._store.load().rows)

    def close(self) -> None:
        self._store.close()


class Files:
    """A file for each want, replaced as a whole: on the disk, and so is its name, before the call returns."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def _path(self, key: Key) -> Path:
        return self._directory / hashlib.sha256(key[0].encode() + key[1]).hexdigest()[:32]

    def apply(self, written: Sequence[Row], removed: Sequence[Key]) -> None:
        for row in written:
            content = row.packet + row.certificate + repr(row.expires_at).encode()
            replace_file(self._path((row.wanter, row.sha256)), content)
        for key in removed:
            self._path(key).unlink(missing_ok=True)
        sync_directory(self._directory)

    def load(self) -> int:
        return sum(len(path.read_bytes()) > 0 for path in self._directory.iterdir())

    def close(self) -> None:
        pass


STORES: dict[str, Callable[[Path], Store]] = {"sqlite": Database, "files": Files}


def measure(make: Callable[[Path], Store], directory: Path, count: int) -> dict[str, float]:
    """Kilobytes written and milliseconds for each want, by what happens to it."""
    chance = random.Random(1)
    rows = [_row(chance, number) for number in range(count)]
    store = make(directory)
    figures: dict[str, float] = {}

    def note(what: str, calls: Sequence[tuple[Sequence[Row], Sequence[Key]]], wants: int) -> None:
        before, started = _written_bytes(), time.perf_counter()
        for written, removed in calls:
            store.apply(written, removed)
        os.sync()  # what the store itself leaves to the kernel counts as well
        figures[f"{what}_kB"] = (_written_bytes() - before) / wants / 1000
        figures[f"{what}_ms"] = (time.perf_counter() - started) * 1000 / wants

    note("offered", [(rows[at : at + OFFER], ()) for at in range(0, count, OFFER)], count)
    changed = [replace(row, hops=1) for row in chance.sample(rows, CHANGES)]
    note("changed", [((row,), ()) for row in changed], CHANGES)
    started = time.perf_counter()
    assert store.load() == count
    figures["start_ms"] = (time.perf_counter() - started) * 1000
    figures["disk_kB"] = sum(p.stat().st_blocks * 512 for p in directory.iterdir()) / 1000
    keys = [(row.wanter, row.sha256) for row in rows]
    note("removed", [((), keys[at : at + OFFER]) for at in range(0, count, OFFER)], count)
    store.close()
    return {name: round(value, 3) for name, value in figures.items()}


def _row(chance: random.Random, number: int) -> Row:
    """As large as a real one: a signed want with two holders, and a node's certificate."""
    name = f"gateway-{number % 100}"
    return Row(name, chance.randbytes(32), chance.randbytes(420), chance.randbytes(430), 7, 2e5, 1.0, 1.8e9, name)


def _written_bytes() -> int:
    lines = Path("/proc/self/io").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("write_bytes:"))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--wants", type=int, default=1000, metavar="N")
    parser.add_argument("--directory", type=Path, metavar="DIR", help="on the disk to measure (default: the temporary)")
    parser.add_argument("--json", type=Path, metavar="FILE")
    options = parser.parse_args()
    result: dict[str, Any] = {}
    for name, make in STORES.items():
        directory = Path(tempfile.mkdtemp(dir=options.directory))
        try:
            result[name] = measure(make, directory, options.wants)
        finally:
            shutil.rmtree(directory)
    print(f"{'':<12}" + "".join(f"{name:>12}" for name in result))
    for figure in next(iter(result.values())):
        print(f"{figure:<12}" + "".join(f"{result[name][figure]:>12}" for name in result))
    if options.json is not None:
        options.json.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
