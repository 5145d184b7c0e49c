"""Layers as an enemy would write them, and as honest tools do."""

from __future__ import annotations

import contextlib
import io
import os
import tarfile
from pathlib import Path

import pytest
from executor_world import member, tar
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.executor import layer
from gateway.executor.layer import ImageError

LIMIT = 1 << 20


def apply(content: bytes, root: Path, limit: int = LIMIT) -> int:
    root.mkdir(exist_ok=True)
    return layer.apply(io.BytesIO(content), root, limit, "layer x")


@pytest.mark.parametrize(
    ("members", "text"),
    [
        ([(member("../escaped"), b"x")], "outside"),
        ([(member("a/../../escaped"), b"x")], "outside"),
        ([member("etc", tarfile.SYMTYPE, "/etc"), (member("etc/escaped"), b"x")], "goes through 'etc'"),
        ([member("up", tarfile.SYMTYPE, "../.."), (member("up/escaped"), b"x")], "goes through 'up'"),
        ([member("link", tarfile.LNKTYPE, "/etc/passwd")], "hard link"),
        ([member("link", tarfile.LNKTYPE, "../secret")], "outside"),
        ([member("s", tarfile.SYMTYPE, "/etc/passwd"), member("link", tarfile.LNKTYPE, "s")], "hard link"),
        ([member("null", tarfile.CHRTYPE)], "device"),
        ([member("disk", tarfile.BLKTYPE)], "device"),
        ([member("pipe", tarfile.FIFOTYPE)], "device or a pipe"),
        ([(member("big"), bytes(LIMIT + 1))], "more than"),
        ([(member("a"), b"x"), (member("a/b"), b"x")], "goes through 'a'"),
        ([member(".wh...")], "whiteout"),
    ],
)
def test_a_hostile_entry_is_refused_and_nothing_leaves_the_directory(tmp_path: Path, members, text: str) -> None:
    """Whatever an entry is called or points to, it is refused by name and no file appears outside the root."""
    (tmp_path / "secret").write_text("secret")
    with pytest.raises(ImageError, match=text):
        apply(tar(*members), tmp_path / "root")
    assert sorted(os.listdir(tmp_path)) == ["root", "secret"]
    assert not (tmp_path / "root" / "link").exists()


@pytest.mark.parametrize("content", [b"", b"not a tar" * 200, tar((member("f"), b"x" * 5000))[:1536]])
def test_bytes_that_are_no_layer_are_refused(tmp_path: Path, content: bytes) -> None:
    """An empty, foreign or cut archive is an ImageError, not another exception."""
    with pytest.raises(ImageError, match="layer x"):
        apply(content, tmp_path / "root")


def test_an_announced_size_beyond_the_limit_is_refused_before_it_is_written(tmp_path: Path) -> None:
    """A header that announces terabytes is refused by its figure."""
    info = member("huge")
    info.size = 1 << 42
    with pytest.raises(ImageError, match="more than"):
        apply(info.tobuf() + bytes(1024), tmp_path / "root")


def test_absolute_links_are_kept_as_they_are_and_never_followed(tmp_path: Path) -> None:
    """A symbolic link to an absolute path means something inside the container only, and is kept for it."""
    apply(tar(member("var-run", tarfile.SYMTYPE, "/run")), tmp_path / "root")
    assert os.readlink(tmp_path / "root" / "var-run") == "/run"


def test_set_id_bits_do_not_pass(tmp_path: Path) -> None:
    """A set-uid program of an image becomes an ordinary one."""
    apply(tar((member("su", mode=0o6755), b"x")), tmp_path / "root")
    assert (tmp_path / "root" / "su").stat().st_mode & 0o7777 == 0o755


def test_whiteouts_hide_what_is_below_and_spare_their_own_layer(tmp_path: Path) -> None:
    """A whiteout removes one name, an opaque one everything below its directory, but nothing its own layer brings."""
    root = tmp_path / "root"
    apply(tar(*[(member(f"{d}/{f}"), b"old") for d in ("a", "b") for f in ("one", "two")]), root)
    apply(
        tar(
            (member("b/new"), b"new"),
            member("b/.wh..wh..opq"),
            member("a/.wh.one"),
            (member("a/two"), b"new"),
            member("a/.wh.two"),
        ),
        root,
    )
    assert {str(p.relative_to(root)): p.read_text() for p in root.rglob("*") if p.is_file()} == {
        "a/two": "new",
        "b/new": "new",
    }


def test_a_shared_file_is_replaced_and_never_written_through(tmp_path: Path) -> None:
    """A layer that changes a file of the layer below leaves the tree below as it was."""
    apply(tar((member("file"), b"below")), tmp_path / "below")
    layer.copy_links(tmp_path / "below", tmp_path / "above")
    assert (tmp_path / "above" / "file").stat().st_ino == (tmp_path / "below" / "file").stat().st_ino
    apply(tar((member("file", mode=0o755), b"above")), tmp_path / "above")
    assert (tmp_path / "below" / "file").read_text() == "below"
    assert (tmp_path / "below" / "file").stat().st_mode & 0o777 == 0o644


_PARTS = st.lists(st.sampled_from(["..", ".", "a", "b", "etc", "", ".wh.a", ".wh..wh..opq"]), min_size=1, max_size=4)
_KINDS = st.sampled_from([tarfile.REGTYPE, tarfile.DIRTYPE, tarfile.SYMTYPE, tarfile.LNKTYPE])


@settings(max_examples=150, deadline=None)
@given(st.lists(st.tuples(_PARTS, _KINDS, _PARTS, st.booleans()), max_size=6))
def test_no_sequence_of_entries_reaches_outside(tmp_path_factory: pytest.TempPathFactory, entries) -> None:
    """Any mix of files, directories, links and whiteouts is applied or refused, and the world outside is untouched."""
    base = tmp_path_factory.mktemp("layer")
    for name in ("a", "b", "etc"):
        (base / name).mkdir()
        (base / name / "a").write_text("outside")
    members = []
    for parts, kind, target, absolute in entries:
        info = member("/".join(parts), kind, ("/" if absolute else "") + "/".join(target))
        members.append((info, b"inside") if kind == tarfile.REGTYPE else info)
    with contextlib.suppress(ImageError):
        apply(tar(*members), base / "root")
    outside = {str(p.relative_to(base)) for p in base.rglob("*") if (base / "root") not in (p, *p.parents)}
    assert outside == {"a", "b", "etc", "a/a", "b/a", "etc/a"}
    assert all((base / name / "a").read_text() == "outside" for name in ("a", "b", "etc"))
