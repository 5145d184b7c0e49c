"""The wants on the disk: what comes back after a crash, from a damaged file, and from a disk that is full."""

from __future__ import annotations

import os
import random
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from gateway.forwarder.custody.clock import Mark
from gateway.forwarder.custody.store import Row, WantStore, WantStoreError

ROOT = Path(__file__).parents[3]
MARK = Mark(12.5, "boot1", 30.0, 1.8e9)


def row(number: int, **changes: object) -> Row:
    values = {
        "wanter": f"n{number}",
        "sha256": bytes([number % 256]) * 32,
        "packet": b"packet %d" % number,
        "certificate": b"certificate" * 30,
        "hops": 3,
        "expires_at": 1e5 + number / 3,
        "since": 0.1,
        "since_unix": 1.8e9 + 0.25,
        "came_from": "pisuerga-7",
    }
    return Row(**(values | changes))  # type: ignore[arg-type]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "wants.db"


@pytest.fixture
def store(path: Path) -> Iterator[WantStore]:
    store = WantStore(path)
    store.load()
    yield store
    store.close()


def again(path: Path) -> WantStore:
    return WantStore(path)


def test_gives_back_what_it_was_given(store: WantStore, path: Path) -> None:
    """Rows, the moment, and the newest version, after removals and changes."""
    store.apply([row(1), row(2), row(3)], [], MARK, 7)
    store.apply([row(2, hops=1)], [("n1", bytes([1]) * 32)], Mark(13.0, "boot1", 31.0, 1.9e9), 8)
    store.close()
    reader = again(path)
    loaded = reader.load()
    assert sorted(loaded.rows, key=lambda r: r.wanter) == [row(2, hops=1), row(3)]
    assert (loaded.mark, loaded.version, loaded.problem) == (Mark(13.0, "boot1", 31.0, 1.9e9), 8, "")
    reader.close()


def test_a_new_store_is_empty(path: Path) -> None:
    """No file is no problem."""
    store = WantStore(path)
    loaded = store.load()
    assert (loaded.rows, loaded.mark, loaded.version, loaded.problem) == ([], None, 0, "")
    store.close()


@pytest.mark.parametrize("damage", ["noise", "cut", "pages", "empty table"])
def test_a_damaged_file_is_set_aside(store: WantStore, path: Path, damage: str) -> None:
    """The gateway starts with an empty table, says so, and the owner finds the old file beside the new one."""
    store.apply([row(number) for number in range(200)], [], MARK, 7)
    store.close()
    content = path.read_bytes()
    if damage == "noise":
        content = random.Random(1).randbytes(len(content))
    elif damage == "cut":
        content = content[: len(content) * 2 // 3]
    elif damage == "pages":
        content = content[:4096] + b"\xff" * (len(content) - 4096)
    else:
        content = content[:4096].replace(b"wanter TEXT", b"wantes TEXT") + content[4096:]
    path.write_bytes(content)
    reader = again(path)
    loaded = reader.load()
    assert loaded.rows == [] and "was damaged" in loaded.problem and "kept as wants.db.damaged" in loaded.problem
    assert path.with_name("wants.db.damaged").read_bytes() == content
    reader.apply([row(1)], [], MARK, 1)
    reader.close()
    last = again(path)
    assert last.load().rows == [row(1)]
    last.close()


def test_a_damaged_row_is_left_out(store: WantStore, path: Path) -> None:
    """A flipped bit costs one want, which neighbours tell again."""
    store.apply([row(1), row(2), row(3)], [], MARK, 7)
    store.close()
    database = sqlite3.connect(path)
    database.execute("UPDATE wants SET packet = x'00' WHERE wanter = 'n2'")
    database.execute("UPDATE wants SET hops = 'many' WHERE wanter = 'n3'")
    database.commit()
    database.close()
    reader = again(path)
    loaded = reader.load()
    assert loaded.rows == [row(1)] and loaded.problem == f"2 damaged rows of {path} were left out"
    reader.close()


def test_a_directory_that_cannot_be_used_is_named(tmp_path: Path) -> None:
    """No file is set aside for a fault of its directory."""
    store = WantStore(tmp_path / "missing" / "wants.db")
    with pytest.raises(WantStoreError, match=r"missing/wants\.db: unable to open"):
        store.load()
    with pytest.raises(WantStoreError, match="is not open"):
        store.apply([row(1)], [], MARK, 1)
    store.close()


def test_a_full_disk_leaves_what_was_there(store: WantStore, path: Path) -> None:
    """A change that does not fit is refused whole, and the next one that fits is taken."""
    store.apply([row(1)], [], MARK, 1)
    assert store._database is not None
    pages = store._database.execute("PRAGMA page_count").fetchone()[0]
    store._database.execute(f"PRAGMA max_page_count={pages + 1}")
    with pytest.raises(WantStoreError, match="full"):
        store.apply([row(2, packet=bytes(100_000))], [("n1", bytes([1]) * 32)], MARK, 2)
    store.apply([row(3)], [], MARK, 3)
    store.close()
    reader = again(path)
    loaded = reader.load()
    assert (loaded.rows, loaded.version) == ([row(1), row(3)], 3)
    reader.close()


WRITER = """
import sys, pathlib
from tests.forwarder.custody.test_store import MARK, row
from gateway.forwarder.custody.store import WantStore
store = WantStore(pathlib.Path(sys.argv[1]))
store.load()
for number in range(int(sys.argv[2]), 100_000):
    # Two rows that belong together, and the pair before the last is taken away.
    pair = [row(2 * number), row(2 * number + 1)]
    gone = [(f"n{2 * number - 4 + k}", bytes([(2 * number - 4 + k) % 256]) * 32) for k in range(2)]
    store.apply(pair, gone, MARK, number)
    print(number, flush=True)
"""


def _kill_while_writing(path: Path, chance: random.Random, first: int) -> int:
    """Starts a writer, kills it at a random moment, and checks what is left; the number to go on with."""
    command = [sys.executable, "-c", WRITER, str(path), str(first)]
    writer = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    assert writer.stdout is not None
    said = first
    for _ in range(chance.randrange(1, 60)):
        said = int(writer.stdout.readline())
    os.kill(writer.pid, signal.SIGKILL)
    said = int(([str(said)] + [line for line in writer.stdout.read().split("\n")[:-1] if line])[-1])
    writer.wait()
    writer.stdout.close()
    store = WantStore(path)
    loaded = store.load()
    store.close()
    assert loaded.problem == ""
    numbers = sorted(int(r.wanter[1:]) for r in loaded.rows)
    assert loaded.version >= said, "a transaction that was said to be done is lost"
    newest = 2 * loaded.version + 1
    assert numbers == [n for n in range(newest - 3, newest + 1) if n >= 0], "half a transaction is there"
    return loaded.version + 1


def test_survives_kill_at_random_moments(path: Path) -> None:
    """Killed at any moment, every transaction that was done is there, and none by half."""
    chance, number = random.Random(7), 0
    for _ in range(8):
        number = _kill_while_writing(path, chance, number)
