"""Leaving root: what the unprivileged user gets, and what stays root's."""

from __future__ import annotations

import os
import pwd
from pathlib import Path

import pytest

from gateway import privileges

NOBODY = pwd.getpwnam("nobody")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
def test_directories_are_handed_over_and_the_executors_stay(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The user gets its directories and what lies in them; a directory that root keeps for itself stays root's."""
    monkeypatch.setattr(privileges, "USER", "nobody")
    monkeypatch.setattr(privileges, "_may_read", lambda user, path: True)
    state = tmp_path / "state"
    (state / "decision").mkdir(parents=True)
    (state / "services").mkdir(mode=0o700)
    (state / "services" / "desired.cbor").write_bytes(b"x")
    (state / "identity.key").write_bytes(b"x")
    (state / "elsewhere").symlink_to(tmp_path / "outside")
    (tmp_path / "outside").write_bytes(b"x")
    os.chmod(state / "decision", 0o755)
    user = privileges.hand_over([state, None, tmp_path / "new"])
    assert user is not None and user.pw_name == "nobody"
    owners = {path.name: path.lstat().st_uid for path in (state, *state.iterdir(), tmp_path / "new")}
    assert owners["state"] == owners["decision"] == owners["identity.key"] == owners["new"] == NOBODY.pw_uid
    assert owners["services"] == 0 and (state / "services" / "desired.cbor").stat().st_uid == 0
    assert (tmp_path / "outside").stat().st_uid == 0


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")
def test_dropping_is_for_good() -> None:
    """After the drop neither root's files nor root itself can be had again."""
    child = os.fork()
    if child == 0:
        privileges.drop(NOBODY)
        try:
            os.setuid(0)
        except PermissionError:
            os._exit(0 if os.getresuid() == (NOBODY.pw_uid,) * 3 and os.getgroups() == [NOBODY.pw_gid] else 2)
        os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def test_code_that_the_user_may_not_read_keeps_the_gateway_at_root(tmp_path: Path) -> None:
    """A file below a directory that is closed to the user is noticed before it is too late."""
    closed = tmp_path / "closed"
    closed.mkdir()
    file = closed / "module.py"
    file.write_text("")
    os.chmod(closed, 0o700)
    stranger = pwd.struct_passwd(("x", "x", 54321, 54321, "", "/", ""))
    assert not privileges._may_read(stranger, file)
    owner = pwd.struct_passwd(("x", "x", os.getuid(), os.getgid(), "", "/", ""))
    assert privileges._may_read(owner, Path("/etc/passwd"))


def test_an_ordinary_user_has_nothing_to_drop(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without root nothing changes hands."""
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert privileges.hand_over([Path("/nonexistent")]) is None
