"""OCI images of random bytes, as heavy as one likes: what a layer holds does not matter on the way."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import random
import tarfile
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Image:
    """The blobs of an image, manifest first, then configuration and layers in their order."""

    manifest: bytes
    configuration: bytes
    layers: tuple[bytes, ...]

    @property
    def blobs(self) -> tuple[bytes, ...]:
        return self.manifest, self.configuration, *self.layers

    @property
    def size(self) -> int:
        """Bytes of all blobs."""
        return sum(map(len, self.blobs))


def make(layers: Sequence[bytes]) -> Image:
    """The image of these packed layers (see `layer`)."""
    prefix = "application/vnd.oci.image"
    diff_ids = ["sha256:" + hashlib.sha256(gzip.decompress(each)).hexdigest() for each in layers]
    configuration = _json({"architecture": "amd64", "os": "linux", "rootfs": {"type": "layers", "diff_ids": diff_ids}})
    manifest = {
        "schemaVersion": 2,
        "mediaType": f"{prefix}.manifest.v1+json",
        "config": _descriptor(f"{prefix}.config.v1+json", configuration),
        "layers": [_descriptor(f"{prefix}.layer.v1.tar+gzip", each) for each in layers],
    }
    return Image(_json(manifest), configuration, tuple(layers))


def layer(size: int, seed: int) -> bytes:
    """A packed layer of about so many bytes, which nothing can pack further; the same for the same arguments."""
    archive = io.BytesIO()
    with tarfile.TarFile(fileobj=archive, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        member = tarfile.TarInfo(f"data-{seed}")
        member.size = size
        tar.addfile(member, io.BytesIO(random.Random(seed).randbytes(size)))
    return gzip.compress(archive.getvalue(), 1, mtime=0)


def _descriptor(media_type: str, content: bytes) -> dict[str, object]:
    return {"mediaType": media_type, "digest": "sha256:" + hashlib.sha256(content).hexdigest(), "size": len(content)}


def _json(value: object) -> bytes:
    return json.dumps(value, sort_keys=True, separators=(",", ":")).encode()
