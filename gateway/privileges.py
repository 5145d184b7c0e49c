"""Leaving root behind: the process that faces the network needs none of it once its files are its own."""

from __future__ import annotations

import logging
import os
import pwd
import stat
from collections.abc import Iterable
from pathlib import Path

log = logging.getLogger(__name__)

USER = "picasso"


def hand_over(directories: Iterable[Path | None]) -> pwd.struct_passwd | None:
    """Gives the directories to the user `picasso`; None when this process is not root or there is no such user."""
    if os.geteuid() != 0:
        return None
    try:
        user = pwd.getpwnam(USER)
    except KeyError:
        log.warning("the user %r does not exist: the gateway runs as root (adduser --system --group %s)", USER, USER)
        return None
    for needed in (Path(os.__file__), Path(__file__)):
        if not _may_read(user, needed):
            log.warning("the user %r may not read %s: the gateway runs as root", USER, needed)
            return None
    for directory in directories:
        if directory is not None:
            _give(directory, user)
    return user


def drop(user: pwd.struct_passwd | None) -> None:
    """Becomes the user for good. Reading interfaces and counters by netlink needs no capability: none is kept."""
    if user is not None:
        os.initgroups(user.pw_name, user.pw_gid)
        os.setresgid(user.pw_gid, user.pw_gid, user.pw_gid)
        os.setresuid(user.pw_uid, user.pw_uid, user.pw_uid)


def _may_read(user: pwd.struct_passwd, path: Path) -> bool:
    """Whether the user reaches and reads a file: Python loads modules when they are first used, after root is gone."""
    for place in (path, *path.resolve().parents):
        status = place.stat()
        shift = 6 if status.st_uid == user.pw_uid else 3 if status.st_gid == user.pw_gid else 0
        needed = 4 if place == path else 1
        if not status.st_mode >> shift & needed:
            return False
    return True


def _give(directory: Path, user: pwd.struct_passwd) -> None:
    """Gives a directory and what lies in it, except what is root's on purpose (a directory closed to all others)."""
    directory.mkdir(parents=True, exist_ok=True)
    os.chown(directory, user.pw_uid, user.pw_gid)
    for entry in os.scandir(directory):
        status = entry.stat(follow_symlinks=False)
        if entry.is_dir(follow_symlinks=False):
            if status.st_mode & 0o077:
                _give(Path(entry.path), user)
        elif stat.S_ISREG(status.st_mode):
            os.chown(entry.path, user.pw_uid, user.pw_gid, follow_symlinks=False)
