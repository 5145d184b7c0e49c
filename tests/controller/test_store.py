import sqlite3
import stat
from pathlib import Path

import pytest

from controller import store as module
from controller.errors import StoreError
from controller.store import Decision, Store


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "controller.db"


def test_database_is_private_and_survives_its_process(path: Path) -> None:
    """The file is readable by its owner only, because it holds secrets, and what was stored is there again."""
    first = Store(f"sqlite:///{path}")
    first.add_token("id", "n1", b"secret", 10.0)
    first.close()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    token = Store(f"sqlite:///{path}").token("id")
    assert token is not None and (token.node, token.secret, token.used) == ("n1", b"secret", None)


def test_history_of_a_node_is_capped(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The newest reports of each node stay, whatever the others send."""
    monkeypatch.setattr(module, "HISTORY_PER_NODE", 5)
    store = Store(f"sqlite:///{path}")
    for node in ("a", "b"):
        store.add_node(node, b"c", 0.0)
    store.save_report("b", "boot", 1, b"only", 0.0)
    for sequence in range(12):
        store.save_report("a", "boot", sequence, b"%d" % sequence, float(sequence))
    assert [row.sequence for row in store.history("a")] == [11, 10, 9, 8, 7]
    assert [row.content for row in store.history("b")] == [b"only"]
    row = store.node("a")
    assert row is not None and (row.sequence, row.report, row.received) == (11, b"11", 11.0)


def test_boot_ids_are_remembered_and_capped(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Old boots are known again, the oldest are forgotten first."""
    monkeypatch.setattr(module, "BOOTS_PER_NODE", 3)
    store = Store(f"sqlite:///{path}")
    store.add_node("a", b"c", 0.0)
    for boot in range(5):
        store.save_report("a", f"b{boot}", 1, b"", float(boot))
    assert store.boots("a") == {"b2", "b3", "b4"}


def test_token_is_spent_once(path: Path) -> None:
    """The second use of a token changes neither the token nor the node's certificate."""
    store = Store(f"sqlite:///{path}")
    store.add_token("id", "a", b"s", 10.0)
    assert store.use_token("id", b"key", b"first", 1.0)
    assert not store.use_token("id", b"other", b"second", 2.0)
    node, token = store.node("a"), store.token("id")
    assert node is not None and node.certificate == b"first"
    assert token is not None and token.public_key == b"key"


def test_new_token_voids_the_unused_one(path: Path) -> None:
    """Of several tokens for one node only the last one is good; one that was used stays known."""
    store = Store(f"sqlite:///{path}")
    store.add_token("used", "a", b"s", 10.0)
    store.use_token("used", b"key", b"cert", 1.0)
    store.add_token("old", "a", b"s", 10.0)
    store.add_token("new", "a", b"s", 10.0)
    assert store.token("old") is None and store.token("new") is not None and store.token("used") is not None


def test_only_the_last_deployment_is_active(path: Path) -> None:
    """A new version replaces the old one, and a removed service has none, but its versions still count."""
    store = Store(f"sqlite:///{path}")
    store.deploy("s", 1, "main", b"1", 0.0)
    store.deploy("s", 2, "main", b"2", 0.0)
    assert [(row.version, row.wire) for row in store.services()] == [(2, b"2")]
    assert store.undeploy("s") and not store.undeploy("s")
    assert store.services() == [] and store.last_version("s") == 2


def test_heads_are_ordered_and_old_ones_given_back(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The newest head is the one of the greatest epoch and version; what is dropped is returned, decisions replaced."""
    monkeypatch.setattr(module, "HEADS_KEPT", 2)
    store = Store(f"sqlite:///{path}")
    decision = Decision("s", "", b"section", "{}", 1.0)
    assert store.save_head((1, 9), b"1.9", 5.0, "first", [decision]) == []
    assert store.save_head((2, 1), b"2.1", 4.0, "clock went back", []) == []
    assert store.save_head((2, 2), b"2.2", 6.0, "third", [decision]) == [b"1.9"]
    head = store.head()
    assert head is not None and head.wire == b"2.2" and len(store.heads()) == 2
    assert store.decisions() == [decision]


@pytest.mark.parametrize("damage", [b"not a database at all", b"SQLite format 3\0" + b"\xff" * 4096])
def test_damaged_database_is_named_with_the_way_out(path: Path, damage: bytes) -> None:
    """A file that is no database stops the start, says which it is and what to do, and is left as it is."""
    path.write_bytes(damage)
    with pytest.raises(StoreError, match=r"controller\.db: the database is damaged .*epoch --raise"):
        Store(f"sqlite:///{path}")
    assert path.read_bytes() == damage


def test_damage_inside_is_found_at_the_start(path: Path) -> None:
    """Pages that were overwritten are noticed before anything is decided from them."""
    store = Store(f"sqlite:///{path}")
    for at in range(50):
        store.publish(f"n{at}", b"x" * 2000, 0.0)
    store.close()
    with sqlite3.connect(path) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    content = bytearray(path.read_bytes())
    content[40_000:60_000] = b"\xaa" * 20_000
    path.write_bytes(content)
    with pytest.raises(StoreError, match="damaged"):
        Store(f"sqlite:///{path}")


def test_database_of_another_release_or_in_no_directory_is_refused(tmp_path: Path, path: Path) -> None:
    """Another schema and a missing directory each have a message of their own."""
    store = Store(f"sqlite:///{path}")
    store.set_meta("schema", "99")
    store.close()
    with pytest.raises(StoreError, match="another release"):
        Store(f"sqlite:///{path}")
    with pytest.raises(StoreError, match=r"nowhere.*No such file"):
        Store(f"sqlite:///{tmp_path}/nowhere/x.db")
    with pytest.raises(StoreError, match=r"nosuch://user:\*\*\*@host") as caught:
        Store("nosuch://user:hush@host/db")
    assert "hush" not in str(caught.value)
