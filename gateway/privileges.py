"""Leaving root behind: the process that faces the network needs none of it once its files are its own."""

from __future__ import annotations

import logging
import os
import pwd
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
    for directory in directories:
        if directory is not None:
            _give(directory, user)
    return user


def drop(user: pwd.struct_passwd | None) -> None:
    """Becomes the user for good. Reading interfaces and counters by netlink needs no capability, so that none is kept."""
    if user is not None:
        os.initgroups(user.pw_name, user.pw_gid)
        os.setresgid(user.pw_gid, user.pw_gid, user.pw_gid)
        os.setresuid(user.pw_uid, user.pw_uid, user.pw_uid)


def _give(directory: Path, user: pwd.struct_passwd) -> None:
    directory.mkdir(parents=True, exist_ok=True)
    for parent, _, files in os.walk(directory):
        for path in (parent, *(os.path.join(parent, name) for name in files)):
            if os.lstat(path).st_uid != user.pw_uid and not path.endswith("/executor.sock"):
                os.chown(path, user.pw_uid, user.pw_gid, follow_symlinks=False)
