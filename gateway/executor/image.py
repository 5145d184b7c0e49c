"""Images from the blob directory: every digest checked, layers unpacked once and shared, nothing half done kept.

images/chains/<chain id>/           the tree after some layers; its files are hard links shared with other trees
images/manifests/<manifest>.json    which chains and configuration an image that was checked has
"""

from __future__ import annotations

import ctypes
import gzip
import hashlib
import json
import os
import shutil
import stat
import tempfile
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from gateway.executor import layer
from gateway.executor.layer import ImageError, Readable
from gateway.files import replace_file
from gateway.protocol.messages import BlobRef, ServiceSpec

__all__ = ["Image", "ImageError", "ImageStore"]

DOCUMENT_MAX_BYTES = 1 << 20
LAYERS_MAX = 127
_NOBODY = 65534
_MOUNT_POINTS = ("proc", "dev", "tmp")
_MANIFESTS = ("application/vnd.oci.image.manifest.v1+json", "application/vnd.docker.distribution.manifest.v2+json")
_PLAIN = ("application/vnd.oci.image.layer.v1.tar", "application/vnd.docker.image.rootfs.diff.tar")
_GZIP = ("application/vnd.oci.image.layer.v1.tar+gzip", "application/vnd.docker.image.rootfs.diff.tar.gzip")


@dataclass(frozen=True, slots=True)
class Image:
    """An image that was checked and unpacked; never run as root, whatever it asks."""

    rootfs: Path
    command: tuple[str, ...]
    environment: tuple[str, ...]
    directory: str
    uid: int
    gid: int


@dataclass(frozen=True, slots=True)
class _Layer:
    sha256: str
    size: int
    gzip: bool
    diff_id: str


class ImageStore:
    """Unpacks the images of specifications from a directory of blobs (`blobs/sha256/<hex>` below `blob_dir`)."""

    def __init__(self, blob_dir: Path, directory: Path) -> None:
        self._blobs = blob_dir / "blobs" / "sha256"
        self._lock = threading.Lock()
        self._chains, self._manifests = directory / "chains", directory / "manifests"
        for folder in (self._chains, self._manifests):
            folder.mkdir(parents=True, exist_ok=True)
        for left in self._chains.glob(".new-*"):  # a power cut came while they were written
            _remove(left)

    def missing(self, spec: ServiceSpec) -> int:
        """How many blobs of the image are not here yet; 0 also for an image that is unpacked already."""
        if self._recorded(spec) is not None:
            return 0
        return sum(not self._is_here(ref) for ref in {ref.sha256: ref for ref in (spec.manifest, *spec.blobs)}.values())

    def prepare(self, spec: ServiceSpec) -> Image:
        """The image, checked against every digest and unpacked; slow the first time. Raises ImageError.

        What is unpacked may take `spec.disk_bytes` at most.
        """
        recorded = self._recorded(spec)
        if recorded is not None:
            return recorded
        manifest = self._document(spec.manifest.sha256.hex(), spec.manifest.size, "manifest")
        descriptor = _entry(manifest, "config", dict)
        config = self._document(_digest(descriptor), _entry(descriptor, "size", int), "configuration")
        layers = _layers(manifest, config)
        _check_signed(spec, [_digest(descriptor), *(each.sha256 for each in layers)])
        with self._lock:  # two images with a layer in common must not both unpack it
            chains = self._unpack(layers, spec.disk_bytes)
        settings = config.get("config") or {}
        image = _image(self._chains / chains[-1], settings)  # raises before anything is recorded
        record = {"chains": chains, "config": settings}
        replace_file(self._manifests / f"{spec.manifest.sha256.hex()}.json", json.dumps(record).encode())
        return image

    def collect(self, keep: set[bytes]) -> None:
        """Removes what no manifest in `keep` (SHA-256) needs."""
        chains: set[str] = set()
        for path in self._manifests.glob("*.json"):
            if path.stem in {sha256.hex() for sha256 in keep}:
                chains.update(json.loads(path.read_text())["chains"])
            else:
                path.unlink()
        for chain in self._chains.iterdir():
            if chain.name not in chains:
                _remove(chain)

    def _recorded(self, spec: ServiceSpec) -> Image | None:
        path = self._manifests / f"{spec.manifest.sha256.hex()}.json"
        try:
            record = json.loads(path.read_text())
            rootfs = self._chains / record["chains"][-1]
            return _image(rootfs, record["config"]) if rootfs.is_dir() else None
        except (OSError, ValueError, LookupError, TypeError, ImageError):
            return None

    def _is_here(self, ref: BlobRef) -> bool:
        try:
            status = os.lstat(self._blobs / ref.sha256.hex())
        except OSError:
            return False
        return stat.S_ISREG(status.st_mode) and status.st_size == ref.size

    def _open(self, sha256: str, size: int, what: str) -> IO[bytes]:
        """An open blob of the right size; its bytes are hashed as they are used, because the file may yet change."""
        try:
            file = os.fdopen(os.open(self._blobs / sha256, os.O_RDONLY | os.O_NOFOLLOW), "rb")
        except OSError as error:
            raise ImageError(f"{what} {sha256[:12]}…: {error.strerror}") from error
        actual = os.fstat(file.fileno()).st_size
        if actual != size:
            file.close()
            raise ImageError(f"{what} {sha256[:12]}… has {actual} bytes, {size} were announced")
        return file

    def _document(self, sha256: str, size: int, what: str) -> dict[str, Any]:
        if size > DOCUMENT_MAX_BYTES:
            raise ImageError(f"{what} {sha256[:12]}… has {size} bytes, at most {DOCUMENT_MAX_BYTES} are accepted")
        with self._open(sha256, size, what) as file:
            content = file.read(DOCUMENT_MAX_BYTES + 1)
        _check_digest(hashlib.sha256(content).hexdigest(), sha256, what)
        try:
            document = json.loads(content)
        except (ValueError, RecursionError) as error:
            raise ImageError(f"{what} {sha256[:12]}… is not JSON: {error}") from error
        if not isinstance(document, dict):
            raise ImageError(f"{what} {sha256[:12]}… is no JSON object")
        return document

    def _unpack(self, layers: list[_Layer], limit_bytes: int) -> list[str]:
        """The ids of the chains, the last is of all layers; made from the longest one that is there already."""
        ids = _chain_ids(layers)
        start = max((n + 1 for n, chain in enumerate(ids) if (self._chains / chain).is_dir()), default=0)
        used = 0
        for n in range(start, len(layers)):
            used += self._step(ids[n - 1] if n else None, ids[n], layers[n], limit_bytes - used)
        return ids

    def _step(self, below: str | None, chain: str, part: _Layer, limit_bytes: int) -> int:
        temporary = Path(tempfile.mkdtemp(prefix=".new-", dir=self._chains))
        tree = temporary / "tree"
        try:
            if below:
                layer.copy_links(self._chains / below, tree)
            else:
                tree.mkdir(0o755)
            used = self._apply(part, tree, limit_bytes)
            _make_mount_points(tree)
            _synchronize(tree)
            tree.rename(self._chains / chain)
        finally:
            _remove(temporary)
        return used

    def _apply(self, part: _Layer, tree: Path, limit_bytes: int) -> int:
        what = f"layer {part.sha256[:12]}…"
        with self._open(part.sha256, part.size, "layer") as file:
            packed = _Hashing(file)
            stream = gzip.GzipFile(fileobj=packed) if part.gzip else packed  # type: ignore[call-overload]
            unpacked = _Hashing(stream)
            used = layer.apply(unpacked, tree, limit_bytes, what)
            while packed.read(1 << 20):
                pass
        _check_digest(packed.digest.hexdigest(), part.sha256, "layer")
        _check_digest(unpacked.digest.hexdigest(), part.diff_id, "unpacked layer")
        return used


class _Hashing:
    """A stream whose bytes are hashed on their way."""

    def __init__(self, stream: Readable) -> None:
        self._stream = stream
        self.digest = hashlib.sha256()

    def read(self, size: int = -1) -> bytes:
        chunk = self._stream.read(size)
        self.digest.update(chunk)
        return chunk


def _layers(manifest: dict[str, Any], config: dict[str, Any]) -> list[_Layer]:
    media_type = manifest.get("mediaType", _MANIFESTS[0])
    if media_type not in _MANIFESTS:
        raise ImageError(f"the manifest is of type {media_type!r}; give the manifest of one platform, not an index")
    descriptors = _entry(manifest, "layers", list)
    diff_ids = _entry(_entry(config, "rootfs", dict), "diff_ids", list)
    if len(descriptors) != len(diff_ids) or not 0 < len(descriptors) <= LAYERS_MAX:
        raise ImageError(f"the manifest has {len(descriptors)} layers, its configuration {len(diff_ids)}")
    layers = []
    for descriptor, diff_id in zip(descriptors, diff_ids, strict=True):
        kind = _entry(descriptor, "mediaType", str)
        if kind not in _PLAIN + _GZIP:
            raise ImageError(f"a layer is of type {kind!r}; this gateway unpacks tar and tar+gzip")
        size = _entry(descriptor, "size", int)
        layers.append(_Layer(_digest(descriptor), size, kind in _GZIP, _digest({"digest": diff_id})))
    return layers


def _chain_ids(layers: list[_Layer]) -> list[str]:
    """The OCI chain ids: each names its layer and all below it."""
    ids: list[str] = []
    for part in layers:
        if ids:
            text = f"sha256:{ids[-1]} sha256:{part.diff_id}"
            ids.append(hashlib.sha256(text.encode()).hexdigest())
        else:
            ids.append(part.diff_id)
    return ids


def _check_signed(spec: ServiceSpec, digests: list[str]) -> None:
    signed = {ref.sha256.hex() for ref in spec.blobs}
    for digest in digests:
        if digest not in signed:
            raise ImageError(f"the manifest names {digest[:12]}…, which the specification of {spec.name} does not")


def _image(rootfs: Path, config: dict[str, Any]) -> Image:
    command = [*(config.get("Entrypoint") or ()), *(config.get("Cmd") or ())]
    environment = config.get("Env") or ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"]
    directory = config.get("WorkingDir") or "/"
    for item in (*command, *environment, directory):
        if not isinstance(item, str) or "\0" in item:
            raise ImageError(f"the image's configuration has {item!r:.40} where a text belongs")
    if not directory.startswith("/"):
        raise ImageError(f"the image's working directory {directory!r} is not absolute")
    uid, gid = _user(rootfs, str(config.get("User") or ""))
    return Image(rootfs, tuple(command), tuple(environment), directory, uid, gid)


def _user(rootfs: Path, user: str) -> tuple[int, int]:
    """The numbers of the image's user; root and none become nobody."""
    name, _, group = user.partition(":")
    if name.isdigit():
        uid, gid = int(name), int(name)
    else:
        uid, gid = _lookup(rootfs, name)
    if group.isdigit():
        gid = int(group)
    if not 0 < uid < 1 << 31:
        return _NOBODY, _NOBODY
    return uid, gid if 0 < gid < 1 << 31 else _NOBODY


def _lookup(rootfs: Path, name: str) -> tuple[int, int]:
    if not name:
        return 0, 0
    try:
        if (rootfs / "etc").is_symlink():
            raise OSError("etc is a link")
        handle = os.open(rootfs / "etc" / "passwd", os.O_RDONLY | os.O_NOFOLLOW)
        with os.fdopen(handle) as file:
            rows = [line.split(":") for line in file.read(DOCUMENT_MAX_BYTES).splitlines()]
    except (OSError, UnicodeDecodeError):
        rows = []
    for row in rows:
        if row[0] == name and len(row) > 3 and row[2].isdigit() and row[3].isdigit():
            return int(row[2]), int(row[3])
    raise ImageError(f"the image runs as user {name!r}, which its etc/passwd does not have")


def _make_mount_points(tree: Path) -> None:
    for name in _MOUNT_POINTS:
        path = tree / name
        if path.is_symlink() or (path.exists() and not path.is_dir()):
            raise ImageError(f"the image has no directory /{name} but something else of that name")
        path.mkdir(exist_ok=True)
    (tree / "tmp").chmod(0o1777)  # runc gives the mount that is to cover it the same mode


def _synchronize(tree: Path) -> None:
    """Brings the file system to the disk: one call for thousands of small files."""
    handle = os.open(tree, os.O_RDONLY | os.O_DIRECTORY)
    try:
        if ctypes.CDLL(None, use_errno=True).syncfs(handle) != 0:
            os.sync()
    finally:
        os.close(handle)


def _remove(path: Path) -> None:
    """Removes a tree, also where an ordinary user's directories are not writable."""
    if os.geteuid() != 0:
        for folder, _, _ in os.walk(path):
            os.chmod(folder, 0o700)
    shutil.rmtree(path, ignore_errors=True)


def _check_digest(actual: str, expected: str, what: str) -> None:
    if actual != expected:
        raise ImageError(f"{what} {expected[:12]}… is damaged: its SHA-256 is {actual[:12]}…")


def _digest(descriptor: Any) -> str:
    text = _entry(descriptor, "digest", str)
    algorithm, _, value = text.partition(":")
    if algorithm != "sha256" or len(value) != 64 or set(value) - set("0123456789abcdef"):
        raise ImageError(f"{text!r:.80} is no SHA-256 digest")
    return str(value)


def _entry(document: Any, name: str, kind: type) -> Any:
    value = document.get(name) if isinstance(document, dict) else None
    if type(value) is not kind:
        raise ImageError(f"the image's documents have no {kind.__name__} {name!r} where one belongs")
    return value
