"""Small state files that survive a power cut: replaced as a whole, or left as they were."""

from __future__ import annotations

import contextlib
import os
import stat
from pathlib import Path

from gateway import uci


def replace_file(path: Path, content: bytes, mode: int = 0o600) -> None:
    """Puts `content` at `path` in one step and on the disk before it returns; raises OSError.

    Whoever reads sees the old content or the new, never a mixture; a symbolic link stays one.
    """
    path = path.resolve()
    temporary = path.with_name(f".{path.name}.{os.getpid()}.new")
    handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, mode)
    try:
        with os.fdopen(handle, "wb") as file:
            os.fchmod(file.fileno(), mode)  # the umask must not decide
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise
    sync_directory(path.parent)


def sync_directory(directory: Path) -> None:
    """Brings the directory's entries (a rename, a new file) to the disk; raises OSError."""
    handle = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def forget_token(config: Path) -> None:
    """Takes a spent token out of the UCI file; the rest, comments too, stays. Raises OSError or UciError."""
    text = config.read_bytes().decode("utf-8", "surrogateescape")
    without = uci.set_option(text, "@gateway[0]", "token", None)
    if without != text:
        replace_file(config, without.encode("utf-8", "surrogateescape"), stat.S_IMODE(config.stat().st_mode))


def set_aside(path: Path, why: str = "damaged") -> Path:
    """Renames a file to a free name beside it, for its owner to look at, and returns that; raises OSError."""
    for number in range(1, 100):
        kept = path.with_name(f"{path.name}.{why}{'' if number == 1 else f'-{number}'}")
        if not kept.exists():
            path.rename(kept)
            return kept
    raise FileExistsError(f"{path}: a hundred {why} copies lie beside it; remove them")
