"""Takes images and files into the repository: every blob into the blob store, the list of them into the database."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Protocol, cast

from controller.errors import ImageError
from controller.repository.archive import Archive, open_archive
from controller.repository.image import Image, Part, check_reference, default_reference, normalised, read_image
from controller.repository.platform import Platform
from controller.store import Store
from gateway.protocol import codec, names
from gateway.protocol.codec import key
from gateway.protocol.messages import BlobRef

# Called with the bytes stored so far and in all.
Progress = Callable[[int, int], None]


@dataclass(frozen=True, slots=True)
class Publication:
    """What was published under a name: an image's manifest and the blobs it names, or a file (`image` is false)."""

    reference: str = key(1)
    manifest: BlobRef = key(2)
    blobs: tuple[BlobRef, ...] = key(3, ())
    platform: str = key(4, "")
    image: bool = key(5, True)

    @property
    def all_blobs(self) -> tuple[BlobRef, ...]:
        """Every blob once, the manifest first."""
        return tuple(dict.fromkeys((self.manifest, *self.blobs)))

    @property
    def size_bytes(self) -> int:
        return sum(blob.size for blob in self.all_blobs)


@dataclass(frozen=True, slots=True)
class Published:
    """The outcome: what is new in the repository and what was there already (shared layers, published before)."""

    publication: Publication
    new: tuple[BlobRef, ...]
    present: tuple[BlobRef, ...]

    def to_json(self, network: names.Network) -> dict[str, Any]:
        """For people and for scripts; `name` is where the manifest, or the file, is found in the network."""
        publication = self.publication
        return {
            "reference": publication.reference,
            "kind": "image" if publication.image else "file",
            "platform": publication.platform,
            "name": names.to_uri(network.blob(publication.manifest.sha256)),
            "sha256": publication.manifest.sha256.hex(),
            "size_bytes": publication.size_bytes,
            "new_bytes": sum(blob.size for blob in self.new),
            "blobs": [
                {"sha256": blob.sha256.hex(), "size_bytes": blob.size, "new": blob in self.new}
                for blob in publication.all_blobs
            ],
        }


class Blobs(Protocol):
    """The part of the blob store that the repository needs."""

    def has(self, sha256: bytes) -> bool: ...
    def ref(self, sha256: bytes) -> BlobRef | None: ...
    def add(self, source: Path | BinaryIO) -> BlobRef: ...
    def add_bytes(self, content: bytes) -> BlobRef: ...


class Repository:
    """The images and files of a network. Calls block: they read, hash and write whole files."""

    def __init__(self, blobs: Blobs, store: Store, spool_directory: Path) -> None:
        self._blobs, self._store, self._spool_directory = blobs, store, spool_directory

    def publish(
        self,
        path: Path,
        reference: str = "",
        platform: Platform | None = None,
        raw: bool = False,
        progress: Progress | None = None,
    ) -> Published:
        """Publishes an image archive, or any other file as one blob; raises ImageError and then records nothing.

        Whoever gives a name or a platform means an image; a file that is none is then an error unless it is `raw`.
        """
        if reference:
            check_reference(reference)
        if not raw:
            with open_archive(path, self._spool_directory) as archive:
                image = read_image(archive, reference, platform) if archive is not None else None
                if archive is not None and image is not None:
                    return self._publish_image(archive, image, default_reference(path), progress)
            if path.is_file() and (reference or platform is not None):
                raise ImageError(
                    f"{path} is no image, neither an OCI layout nor of `docker save`; --raw publishes it as it is"
                )
        return self._publish_file(path, reference or path.name, progress)

    def _publish_image(self, archive: Archive, image: Image, fallback: str, progress: Progress | None) -> Published:
        counter = _Counter(sum(part.size for part in image.parts), progress)
        present = {part.sha256 for part in image.parts if self._blobs.has(part.sha256)}
        stored = tuple(self._store_part(archive, part, counter) for part in image.parts)
        manifest_sha256 = hashlib.sha256(image.manifest).digest()
        if self._blobs.has(manifest_sha256):
            present.add(manifest_sha256)
        manifest = self._blobs.add_bytes(image.manifest)
        reference = normalised(image.reference or fallback)
        return self._record(Publication(reference, manifest, stored, image.platform), present)

    def _store_part(self, archive: Archive, part: Part, counter: _Counter) -> BlobRef:
        known = self._blobs.ref(part.sha256) if self._blobs.has(part.sha256) else None
        if known is not None:
            counter.advance(part.size)
            return known
        with archive.open(part.path) as file:
            checked = _Checked(file.read, part, f"{archive.label}: {part.path}", counter)
            return self._add(cast(BinaryIO, checked))

    def _publish_file(self, path: Path, reference: str, progress: Progress | None) -> Published:
        try:
            with path.open("rb") as file:
                size = path.stat().st_size
                counter = _Counter(2 * size, progress)
                digest = _hash(file.read, counter)
                present = {digest} if self._blobs.has(digest) else set()
                file.seek(0)
                part = Part(digest, size, path.name)
                blob = self._add(cast(BinaryIO, _Checked(file.read, part, str(path), counter)))
        except IsADirectoryError as error:
            raise ImageError(f"{path} is a directory; publish a file") from error
        except OSError as error:
            raise ImageError(f"{error.filename or path}: {error.strerror or error}") from error
        return self._record(Publication(reference, blob, image=False), present)

    def _add(self, source: BinaryIO) -> BlobRef:
        try:
            return self._blobs.add(source)
        except OSError as error:
            raise ImageError(f"the repository cannot store a blob: {error}") from error

    def _record(self, publication: Publication, present: set[bytes]) -> Published:
        self._store.publish(publication.reference, codec.encode(publication))
        blobs = publication.all_blobs
        new = tuple(blob for blob in blobs if blob.sha256 not in present)
        return Published(publication, new, tuple(blob for blob in blobs if blob.sha256 in present))


def find(store: Store, reference: str) -> Publication | None:
    """The image or file of this name; `hello` means `hello:latest`."""
    row = store.publication(reference) or store.publication(normalised(reference))
    return None if row is None else codec.decode(Publication, row.content)


class _Counter:
    def __init__(self, total: int, progress: Progress | None) -> None:
        self._total, self._progress, self._done = total, progress, 0

    def advance(self, count: int) -> None:
        self._done += count
        if self._progress is not None:
            self._progress(self._done, self._total)


class _Checked:
    """A file whose end is reached only if the content has the announced digest, so that nothing else is stored."""

    def __init__(self, read: Callable[[int], bytes], part: Part, label: str, counter: _Counter) -> None:
        self._read, self._part, self._label, self._counter = read, part, label, counter
        self._digest = hashlib.sha256()

    def read(self, size: int = -1) -> bytes:
        chunk = self._read(size if size >= 0 else self._part.size + 1)
        self._digest.update(chunk)
        self._counter.advance(len(chunk))
        if not chunk and self._digest.digest() != self._part.sha256:
            raise ImageError(f"{self._label}: the content does not match its digest sha256:{self._part.sha256.hex()}")
        return chunk


def _hash(read: Callable[[int], bytes], counter: _Counter) -> bytes:
    digest = hashlib.sha256()
    while chunk := read(1 << 20):
        digest.update(chunk)
        counter.advance(len(chunk))
    return digest.digest()
