"""Applies one layer of an image to a directory, as if its author were an enemy: nothing leaves the directory.

Names are taken apart and walked without following links; device files, pipes and set-id bits do not pass; what a
layer may hold is bounded. Symbolic links are kept as they are, absolute ones too: they mean something only inside the
container, and nothing here ever goes through one.
"""

from __future__ import annotations

import os
import shutil
import stat
import tarfile
import zlib
from pathlib import Path
from typing import Protocol

ENTRIES_MAX = 100_000
_COPY_BYTES = 1 << 20
_WHITEOUT, _OPAQUE = ".wh.", ".wh..wh..opq"


class ImageError(Exception):
    """An image that is not what its digests say, or that would do harm; the text names the blob or the entry."""


class Readable(Protocol):
    def read(self, size: int = -1, /) -> bytes: ...


class BoundedReader:
    """Reads at most so many bytes of a stream, then raises: what a few bytes unpack to is not known in advance."""

    def __init__(self, stream: Readable, limit_bytes: int, what: str) -> None:
        self._stream, self._left, self._limit_bytes, self._what = stream, limit_bytes, limit_bytes, what

    def read(self, size: int = -1) -> bytes:
        chunk = self._stream.read(min(size, _COPY_BYTES) if size >= 0 else _COPY_BYTES)
        self._left -= len(chunk)
        if self._left < 0:
            raise ImageError(f"{self._what} unpacks to more than the {self._limit_bytes} bytes that are allowed")
        return chunk


def apply(stream: Readable, root: Path, limit_bytes: int, what: str) -> int:
    """Applies an uncompressed layer to `root`; returns the bytes of its files. Raises ImageError.

    `what` names the layer in errors. After an error the directory is half done: throw it away.
    """
    # Headers and padding: an entry takes up to two kilobytes beside its content.
    reader = BoundedReader(stream, limit_bytes + min(limit_bytes, 64 << 20) + (4 << 20), what)
    layer = _Layer(root, limit_bytes, what)
    try:
        with tarfile.open(fileobj=reader, mode="r|") as archive:  # type: ignore[call-overload]
            for count, member in enumerate(archive):
                if count >= ENTRIES_MAX:
                    raise ImageError(f"{what} has more than {ENTRIES_MAX} entries")
                layer.apply(archive, member)
                archive.members = []  # tarfile keeps every header otherwise
        while reader.read(_COPY_BYTES):  # the digest is of every byte, those after the archive's end too
            pass
    except (tarfile.TarError, zlib.error, EOFError, ValueError, OverflowError, RecursionError) as error:
        raise ImageError(f"{what} is not a layer: {error}") from error
    except OSError as error:
        raise ImageError(f"{what} cannot be unpacked: {error}") from error
    layer.finish()
    return layer.bytes


class _Layer:
    """The state of applying one layer: what it has brought, so that its whiteouts spare that."""

    def __init__(self, root: Path, limit_bytes: int, what: str) -> None:
        self._root, self._limit_bytes, self._what = root, limit_bytes, what
        self._own: set[str] = set()
        self._modes: dict[Path, int] = {}
        self._is_root = os.geteuid() == 0
        self.bytes = 0

    def apply(self, archive: tarfile.TarFile, member: tarfile.TarInfo) -> None:
        parts = self._parts(member.name)
        if not parts:
            return
        parent = self._parent(parts)
        if parts[-1] == _OPAQUE:
            self._hide_all(parent, parts[:-1])
        elif parts[-1].startswith(_WHITEOUT):
            self._hide(parent, parts[-1].removeprefix(_WHITEOUT), parts[:-1])
        else:
            self._create(archive, member, parent / parts[-1])
            self._own.update("/".join(parts[: n + 1]) for n in range(len(parts)))

    def finish(self) -> None:
        """Directories get their modes last, because one without write permission could not be filled."""
        for path, mode in self._modes.items():
            if path.is_dir() and not path.is_symlink():
                path.chmod(mode)

    def _parts(self, name: str) -> list[str]:
        parts = [part for part in name.split("/") if part not in ("", ".")]
        if ".." in parts or "\0" in name:
            raise ImageError(f"{self._what}: the entry {name!r} leads outside the image")
        return parts

    def _parent(self, parts: list[str]) -> Path:
        """The directory of an entry, made where it is missing; a link or a file on the way is refused."""
        path = self._root
        for part in parts[:-1]:
            path = path / part
            kind = _kind(path)
            if kind == 0:
                path.mkdir(0o755)
            elif kind != stat.S_IFDIR:
                raise ImageError(f"{self._what}: the entry {'/'.join(parts)!r} goes through {part!r}, no directory")
        return path

    def _create(self, archive: tarfile.TarFile, member: tarfile.TarInfo, path: Path) -> None:
        if member.isdir():
            self._directory(member, path)
            return
        _delete(path)
        if member.isreg():
            self._file(archive, member, path)
        elif member.issym():
            path.symlink_to(member.linkname)
            self._chown(member, path)
        elif member.islnk():
            self._hard_link(member, path)
        else:
            raise ImageError(f"{self._what}: {member.name!r} is a device or a pipe; images may not bring any")

    def _directory(self, member: tarfile.TarInfo, path: Path) -> None:
        if _kind(path) != stat.S_IFDIR:
            _delete(path)
            path.mkdir()
        path.chmod(0o700)
        self._chown(member, path)
        self._modes[path] = (member.mode & 0o1777) | (0 if self._is_root else 0o700)

    def _file(self, archive: tarfile.TarFile, member: tarfile.TarInfo, path: Path) -> None:
        self.bytes += member.size
        if member.size < 0 or self.bytes > self._limit_bytes:
            raise ImageError(f"{self._what} unpacks to more than the {self._limit_bytes} bytes that are allowed")
        source = archive.extractfile(member)
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
        with os.fdopen(handle, "wb") as file:
            if source is not None:
                shutil.copyfileobj(source, file, _COPY_BYTES)
            self._chown(member, path)
            # An ordinary user must be able to read what belongs to nobody else here; set-id bits never pass.
            os.fchmod(file.fileno(), (member.mode & 0o777) | (0 if self._is_root else 0o400))

    def _hard_link(self, member: tarfile.TarInfo, path: Path) -> None:
        parts = self._parts(member.linkname)
        if not parts:
            raise ImageError(f"{self._what}: {member.name!r} is a hard link to nothing")
        target = self._parent(parts) / parts[-1]
        if _kind(target) != stat.S_IFREG:
            raise ImageError(
                f"{self._what}: {member.name!r} is a hard link to {member.linkname!r}, no file of the image"
            )
        os.link(target, path, follow_symlinks=False)

    def _hide(self, parent: Path, name: str, above: list[str]) -> None:
        if name in ("", ".", ".."):
            raise ImageError(f"{self._what}: a whiteout without a name in {'/'.join(above)!r}")
        if "/".join([*above, name]) not in self._own:
            _delete(parent / name)

    def _hide_all(self, parent: Path, above: list[str]) -> None:
        for name in os.listdir(parent):
            relative = "/".join([*above, name])
            if relative not in self._own:
                _delete(parent / name)
            elif _kind(parent / name) == stat.S_IFDIR:
                self._hide_all(parent / name, [*above, name])

    def _chown(self, member: tarfile.TarInfo, path: Path) -> None:
        if self._is_root:
            os.chown(path, member.uid, member.gid, follow_symlinks=False)


def _kind(path: Path) -> int:
    """The type bits of what is at `path` itself, 0 when nothing is."""
    try:
        return stat.S_IFMT(os.lstat(path).st_mode)
    except FileNotFoundError:
        return 0


def _delete(path: Path) -> None:
    kind = _kind(path)
    if kind == stat.S_IFDIR:
        shutil.rmtree(path)
    elif kind:
        path.unlink()


def copy_links(source: Path, target: Path) -> None:
    """A copy of a tree that shares the files by hard link; they are never written, only replaced."""
    target.mkdir()
    pending = [(source, target)]
    folders = [(source, target)]
    while pending:
        here, there = pending.pop()
        for entry in os.scandir(here):
            copy = there / entry.name
            if entry.is_dir(follow_symlinks=False):
                copy.mkdir()
                pending.append((Path(entry.path), copy))
                folders.append((Path(entry.path), copy))
            elif entry.is_symlink():
                copy.symlink_to(os.readlink(entry.path))
                _copy_owner(Path(entry.path), copy)
            else:
                os.link(entry.path, copy, follow_symlinks=False)
    for here, there in folders:
        _copy_owner(here, there)
        there.chmod(stat.S_IMODE(here.stat().st_mode))


def _copy_owner(source: Path, target: Path) -> None:
    if os.geteuid() == 0:
        status = os.lstat(source)
        os.chown(target, status.st_uid, status.st_gid, follow_symlinks=False)
