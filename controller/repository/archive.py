"""Reads the files inside a tar archive that a stranger may have made: nothing is unpacked, everything has a limit."""

from __future__ import annotations

import gzip
import json
import posixpath
import shutil
import tarfile
import tempfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, BinaryIO, cast

from controller.errors import ImageError

MEMBERS_MAX = 100_000
LINKS_MAX = 8
# Manifests, indexes and configurations; the largest seen in public registries have some 100 kB.
DOCUMENT_MAX_BYTES = 4 << 20
# One read of a tar header: extended headers hold a path or two.
_HEADER_MAX_BYTES = 8 << 20
_CHUNK_BYTES = 1 << 20
_GZIP_MAGIC = b"\x1f\x8b"
# Unpacking a compressed archive may take this share of the space that is free, whatever the archive claims.
_SPOOL_SHARE = 0.8


class Archive:
    """The regular files of a tar archive by path; raises ImageError, which names the archive and the file inside."""

    def __init__(self, label: str, file: BinaryIO, size: int) -> None:
        self.label, self._file = label, file
        guarded = cast(IO[bytes], _Guarded(file, label))
        try:
            self._tar = tarfile.open(fileobj=guarded, mode="r:")  # noqa: SIM115 — the caller owns the file
            self._members = dict(self._index(size))
        except (tarfile.TarError, EOFError, ValueError, OverflowError, RecursionError) as error:
            raise ImageError(f"{label}: the archive is damaged: {error}") from error

    def _index(self, size: int) -> Iterator[tuple[str, tarfile.TarInfo]]:
        end = 0
        for count, member in enumerate(self._tar):
            if count >= MEMBERS_MAX:
                raise ImageError(f"{self.label}: more than {MEMBERS_MAX} files inside; no image has that many")
            if member.issparse():
                raise ImageError(f"{self.label}: {member.name} is a sparse file; no image tool writes those")
            end = member.offset_data + member.size if member.isreg() else member.offset_data
            if end > size:
                raise ImageError(f"{self.label}: cut short inside {member.name}; copy or save it again")
            yield posixpath.normpath(member.name), member
        self._file.seek(-(-end // tarfile.BLOCKSIZE) * tarfile.BLOCKSIZE)
        if self._file.read(tarfile.BLOCKSIZE) != bytes(tarfile.BLOCKSIZE):
            raise ImageError(f"{self.label}: cut short, the end of the archive is missing; copy or save it again")

    def has(self, path: str) -> bool:
        return posixpath.normpath(path) in self._members

    def size(self, path: str) -> int:
        return self._resolve(path).size

    def open(self, path: str) -> IO[bytes]:
        """The content of a file inside; links between files of the archive are followed."""
        content = self._tar.extractfile(self._resolve(path))
        if content is None:
            raise ImageError(f"{self.label}: {path} is no regular file")
        return content

    def document(self, path: str) -> Any:
        """A JSON file inside."""
        return parse_document(self.read(path), f"{self.label}: {path}")

    def read(self, path: str) -> bytes:
        """A small file inside, at most DOCUMENT_MAX_BYTES."""
        size = self.size(path)
        if size > DOCUMENT_MAX_BYTES:
            raise ImageError(f"{self.label}: {path} has {size} bytes, at most {DOCUMENT_MAX_BYTES} are accepted")
        return self.open(path).read()

    def _resolve(self, path: str) -> tarfile.TarInfo:
        at = posixpath.normpath(path)
        for _ in range(LINKS_MAX):
            member = self._members.get(at)
            if member is None:
                raise ImageError(f"{self.label}: {path} is missing inside the archive")
            if member.isreg():
                return member
            if not (member.issym() or member.islnk()):
                raise ImageError(f"{self.label}: {path} is no regular file")
            base = posixpath.dirname(at) if member.issym() else ""
            at = posixpath.normpath(posixpath.join(base, member.linkname))
        raise ImageError(f"{self.label}: {path} is a link that leads in circles")


class _Guarded:
    """A file whose single reads are bounded, so that a forged header length cannot fill the memory."""

    def __init__(self, file: BinaryIO, label: str) -> None:
        self._file, self._label = file, label

    def read(self, size: int = -1) -> bytes:
        if size < 0 or size > _HEADER_MAX_BYTES:
            raise ImageError(f"{self._label}: a header of {size} bytes; the archive is damaged or hostile")
        return self._file.read(size)

    def seek(self, offset: int, whence: int = 0) -> int:
        return self._file.seek(offset, whence)

    def tell(self) -> int:
        return self._file.tell()


def parse_document(content: bytes, label: str) -> Any:
    """A JSON object or list; raises ImageError."""
    try:
        return json.loads(content)
    except (ValueError, RecursionError) as error:
        raise ImageError(f"{label} is no JSON: {error}") from error


@contextmanager
def open_archive(path: Path, spool_directory: Path) -> Iterator[Archive | None]:
    """The tar archive in a file, gzip-compressed or not; None when the file is no tar archive.

    A compressed one is unpacked into an unnamed file in `spool_directory`, because an image is not read in its order.
    """
    try:
        with path.open("rb") as file:
            if not _is_gzip(file):
                size = path.stat().st_size
                yield Archive(str(path), file, size) if _is_tar(file) else None
                return
            with tempfile.TemporaryFile(dir=spool_directory) as spool:
                size = _unpack(path, file, spool, spool_directory)
                yield Archive(str(path), cast(BinaryIO, spool), size) if size else None
    except OSError as error:
        raise ImageError(f"{error.filename or path}: {error.strerror or error}") from error


def _is_gzip(file: BinaryIO) -> bool:
    magic = file.read(2)
    file.seek(0)
    return magic == _GZIP_MAGIC


def _is_tar(file: IO[bytes]) -> bool:
    block = file.read(tarfile.BLOCKSIZE)
    file.seek(0)
    return block[257:262] == b"ustar"


def _unpack(path: Path, file: BinaryIO, spool: IO[bytes], spool_directory: Path) -> int:
    """Unpacks a compressed tar into `spool` and returns its size, 0 when it holds no tar archive."""
    limit = int(shutil.disk_usage(spool_directory).free * _SPOOL_SHARE)
    size = 0
    try:
        with gzip.GzipFile(fileobj=file) as unpacked:
            first = unpacked.read(tarfile.BLOCKSIZE)
            if first[257:262] != b"ustar":
                return 0
            chunk = first
            while chunk:
                size += len(chunk)
                if size > limit:
                    raise ImageError(f"{path}: unpacks to more than {limit} bytes, all that {spool_directory} can take")
                spool.write(chunk)
                chunk = unpacked.read(_CHUNK_BYTES)
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise ImageError(f"{path}: the compressed archive is damaged: {error}") from error
    spool.seek(0)
    return size
