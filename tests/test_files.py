from __future__ import annotations

import os
import stat

import pytest

from gateway.files import replace_file, set_aside


def test_a_file_is_replaced_as_a_whole_with_its_mode(tmp_path):
    """The new content and mode are there, and no temporary file is left."""
    path = tmp_path / "state"
    replace_file(path, b"old", 0o644)
    replace_file(path, b"new")
    assert path.read_bytes() == b"new"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert [entry.name for entry in tmp_path.iterdir()] == ["state"]


def test_the_mode_does_not_depend_on_the_umask(tmp_path):
    """A world-readable certificate stays so under a strict umask."""
    before = os.umask(0o077)
    try:
        replace_file(tmp_path / "anchor", b"x", 0o644)
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "anchor").stat().st_mode) == 0o644


def test_a_write_that_fails_leaves_the_old_file(tmp_path, monkeypatch):
    """A full disk costs the new content, never the old."""
    path = tmp_path / "state"
    replace_file(path, b"old")

    def full(_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        replace_file(path, b"new")
    assert path.read_bytes() == b"old"
    assert [entry.name for entry in tmp_path.iterdir()] == ["state"]


def test_a_symbolic_link_stays_one(tmp_path):
    """/etc/config/picasso may be a link to a file elsewhere."""
    (tmp_path / "real").write_bytes(b"old")
    (tmp_path / "link").symlink_to("real")
    replace_file(tmp_path / "link", b"new")
    assert (tmp_path / "link").is_symlink() and (tmp_path / "real").read_bytes() == b"new"


def test_damaged_files_are_kept_under_free_names(tmp_path):
    """The second damaged file does not replace the first."""
    path = tmp_path / "state"
    for content in (b"1", b"2"):
        path.write_bytes(content)
        set_aside(path)
    assert (tmp_path / "state.damaged").read_bytes() == b"1"
    assert (tmp_path / "state.damaged-2").read_bytes() == b"2"
    assert not path.exists()
