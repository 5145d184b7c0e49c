"""What an image archive holds: one OCI manifest and, in its order, the configuration and the layers it names.

Two forms are read: an OCI image layout (`index.json`), and the older form of `docker save` (`manifest.json`), for which
the OCI manifest is written here. An archive of a recent `docker save` has both; then the layout counts.
"""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from controller.errors import ImageError
from controller.repository.archive import Archive, parse_document
from controller.repository.platform import Platform

INDEX_DEPTH = 3
LAYERS_MAX = 256
REFERENCE_MAX = 255
_WORD = r"[A-Za-z0-9][A-Za-z0-9._-]*"
# A port may follow the first part, which then is a registry.
_REFERENCE = re.compile(rf"({_WORD}(:[0-9]+)?/)?{_WORD}(/{_WORD})*(:[A-Za-z0-9_][A-Za-z0-9._-]*)?")
_CHUNK_BYTES = 1 << 20
_OCI = "application/vnd.oci.image"
_LAYER_MAGIC = ((b"\x1f\x8b", "+gzip"), (b"\x28\xb5\x2f\xfd", "+zstd"))


@dataclass(frozen=True, slots=True)
class Part:
    """A blob of an image: its digest as announced, and where it is inside the archive."""

    sha256: bytes
    size: int
    path: str


@dataclass(frozen=True, slots=True)
class Image:
    """An image in an archive: `parts` are the configuration and the layers, in the manifest's order."""

    reference: str
    platform: str
    manifest: bytes
    parts: tuple[Part, ...]


def read_image(archive: Archive, reference: str = "", wanted: Platform | None = None) -> Image | None:
    """The image in the archive, None when it holds none; raises ImageError for one that cannot be published.

    `reference` chooses among several tags, or names an archive without one; `wanted` chooses among several platforms,
    and is this machine's when it is None.
    """
    if archive.has("index.json"):
        return _read_layout(archive, reference, wanted)
    if archive.has("manifest.json"):
        return _read_docker(archive, reference, wanted)
    return None


# --- OCI image layout ----------------------------------------------------------------------------------------


def _read_layout(archive: Archive, reference: str, wanted: Platform | None) -> Image:
    index = _object(archive.document("index.json"), f"{archive.label}: index.json")
    names = _docker_tags(archive)
    entries = _list(index, "manifests", f"{archive.label}: index.json")
    named = [(_entry_name(entry, names if len(entries) == 1 else []), entry) for entry in entries]
    chosen = _choose_reference(archive.label, named, reference)
    matching = [entry for name, entry in named if name == chosen] or entries
    descriptor = _choose_platform(archive, matching, wanted, INDEX_DEPTH)
    manifest = archive.read(_verified(archive, descriptor).path)
    document = _object(parse_document(manifest, f"{archive.label}: the manifest"), f"{archive.label}: the manifest")
    layers = _list(document, "layers", f"{archive.label}: the manifest")
    if len(layers) > LAYERS_MAX:
        raise ImageError(f"{archive.label}: {len(layers)} layers, at most {LAYERS_MAX} are accepted")
    parts = tuple(_part(archive, d) for d in [document.get("config"), *layers])
    platform = _platform_of(archive, parts[0].path)
    _check_platform(archive, platform, wanted)
    return Image(reference or chosen, str(platform), manifest, parts)


def _entry_name(entry: Any, docker_tags: list[str]) -> str:
    annotations = entry.get("annotations") if isinstance(entry, dict) else None
    annotations = annotations if isinstance(annotations, dict) else {}
    full = annotations.get("io.containerd.image.name")
    tag = annotations.get("org.opencontainers.image.ref.name")
    if isinstance(full, str):
        return normalised(full)
    if isinstance(tag, str) and ":" in tag:
        return tag
    return docker_tags[0] if len(docker_tags) == 1 else ""


def _choose_reference(label: str, named: list[tuple[str, Any]], reference: str) -> str:
    known = sorted({name for name, _ in named if name})
    if reference in known or len(known) < 2:
        return reference if reference in known else "".join(known)
    wish = f"no image {reference!r}" if reference else "several images"
    raise ImageError(f"{label}: {wish} inside; choose one with --name: {', '.join(known)}")


def _choose_platform(archive: Archive, entries: list[Any], wanted: Platform | None, depth: int) -> dict[str, Any]:
    """The descriptor of the manifest for a platform, through nested indexes."""
    flat = [found for entry in entries for found in _manifests(archive, entry, depth)]
    if not flat:
        raise ImageError(f"{archive.label}: no image manifest inside")
    if len(flat) == 1 and (wanted is None or flat[0][0] is None or flat[0][0].fits(wanted)):
        return flat[0][1]
    target = wanted or Platform.of_this_machine()
    for platform, descriptor in flat:
        if platform is not None and platform.fits(target):
            return descriptor
    available = ", ".join(sorted({str(platform) for platform, _ in flat if platform})) or "none that says for what"
    raise ImageError(f"{archive.label}: no image for {target}; choose one with --platform: {available}")


def _manifests(archive: Archive, descriptor: Any, depth: int) -> list[tuple[Platform | None, dict[str, Any]]]:
    part = _verified(archive, descriptor)
    document = _object(archive.document(part.path), f"{archive.label}: {part.path}")
    if "layers" in document:
        platform = _declared_platform(descriptor) or _configured_platform(archive, document)
        return [] if platform is not None and platform.os == "unknown" else [(platform, descriptor)]
    if "manifests" not in document:
        raise ImageError(f"{archive.label}: {part.path} is neither an image manifest nor an index")
    if depth == 0:
        raise ImageError(f"{archive.label}: indexes nested more than {INDEX_DEPTH} deep")
    inner = _list(document, "manifests", f"{archive.label}: {part.path}")
    # Attestations are listed beside the images; what is not in the archive is for platforms that were not saved.
    present = [d for d in inner if isinstance(d, dict) and archive.has(_blob_path(archive.label, d.get("digest")))]
    if not present:
        raise ImageError(f"{archive.label}: {part.path} lists {len(inner)} images, and none of them is inside")
    return [found for d in present for found in _manifests(archive, d, depth - 1)]


def _declared_platform(descriptor: dict[str, Any]) -> Platform | None:
    declared = descriptor.get("platform")
    if not isinstance(declared, dict):
        return None
    facts = (declared.get(key) or "" for key in ("os", "architecture", "variant"))
    return Platform(*(str(fact) for fact in facts))


def _configured_platform(archive: Archive, manifest: dict[str, Any]) -> Platform | None:
    """What the image's own configuration says, for an index that says nothing; None when that is not inside."""
    config = manifest.get("config")
    path = _blob_path(archive.label, config.get("digest") if isinstance(config, dict) else None)
    platform = _platform_of(archive, path) if archive.has(path) else None
    return platform if platform is not None and platform.os else None


def _check_platform(archive: Archive, platform: Platform, wanted: Platform | None) -> None:
    """An index may say nothing of the platform, or something false: what counts is the image's configuration."""
    if wanted is not None and not platform.fits(wanted):
        found = str(platform) or "no platform that it names"
        raise ImageError(f"{archive.label}: the image is for {found}, not for {wanted}")


def _platform_of(archive: Archive, config: str) -> Platform:
    document = _object(archive.document(config), f"{archive.label}: the configuration {config}")
    return Platform(*(str(document.get(key) or "") for key in ("os", "architecture", "variant")))


def _part(archive: Archive, descriptor: Any) -> Part:
    label = archive.label
    path = _blob_path(label, descriptor.get("digest") if isinstance(descriptor, dict) else None)
    size = archive.size(path)
    if descriptor.get("size", size) != size:
        raise ImageError(f"{label}: {path} has {size} bytes, the manifest says {descriptor['size']}")
    return Part(bytes.fromhex(path.rpartition("/")[2]), size, path)


def _verified(archive: Archive, descriptor: Any) -> Part:
    part = _part(archive, descriptor)
    if hashlib.sha256(archive.read(part.path)).digest() != part.sha256:
        raise ImageError(f"{archive.label}: the content of {part.path} does not match its digest")
    return part


def _blob_path(label: str, digest: Any) -> str:
    algorithm, _, text = digest.partition(":") if isinstance(digest, str) else ("", "", "")
    if algorithm != "sha256" or len(text) != 64 or not set(text) <= set("0123456789abcdef"):
        raise ImageError(f"{label}: {digest!r} is no digest; sha256:<64 hex digits> is accepted")
    return f"blobs/sha256/{text}"


# --- docker save ---------------------------------------------------------------------------------------------


def _read_docker(archive: Archive, reference: str, wanted: Platform | None) -> Image:
    entry = _choose_docker_entry(archive, reference)
    label = f"{archive.label}: manifest.json"
    config_path, layer_paths = entry.get("Config"), _list(entry, "Layers", label)
    if not isinstance(config_path, str) or not all(isinstance(path, str) for path in layer_paths):
        raise ImageError(f"{label}: 'Config' and 'Layers' must name files")
    if len(layer_paths) > LAYERS_MAX:
        raise ImageError(f"{archive.label}: {len(layer_paths)} layers, at most {LAYERS_MAX} are accepted")
    platform = _platform_of(archive, config_path)
    _check_platform(archive, platform, wanted)
    parts = tuple(_hash_part(archive, path) for path in [config_path, *layer_paths])
    _check_layers(archive, config_path, parts[1:])
    tags = [tag for tag in entry.get("RepoTags") or [] if isinstance(tag, str)]
    return Image(reference or next(iter(tags), ""), str(platform), _write_manifest(archive, parts), parts)


def _docker_tags(archive: Archive) -> list[str]:
    if not archive.has("manifest.json"):
        return []
    return [
        tag
        for entry in archive.document("manifest.json")
        if isinstance(entry, dict)
        for tag in entry.get("RepoTags") or []
        if isinstance(tag, str)
    ]


def _choose_docker_entry(archive: Archive, reference: str) -> dict[str, Any]:
    entries = archive.document("manifest.json")
    if not isinstance(entries, list) or not entries or not all(isinstance(entry, dict) for entry in entries):
        raise ImageError(f"{archive.label}: manifest.json is no list of images")
    for entry in entries:
        if len(entries) == 1 or reference in (entry.get("RepoTags") or []):
            return dict(entry)
    tags = ", ".join(_docker_tags(archive)) or "none has a name"
    raise ImageError(f"{archive.label}: {len(entries)} images inside; choose one with --name: {tags}")


def _hash_part(archive: Archive, path: str) -> Part:
    digest = hashlib.sha256()
    with archive.open(path) as file:
        while chunk := file.read(_CHUNK_BYTES):
            digest.update(chunk)
    return Part(digest.digest(), archive.size(path), path)


def _check_layers(archive: Archive, config_path: str, layers: tuple[Part, ...]) -> None:
    """Raises ImageError unless the layers are those that the configuration names by the digest of their content."""
    rootfs = archive.document(config_path).get("rootfs")
    diff_ids = rootfs.get("diff_ids") if isinstance(rootfs, dict) else None
    if not isinstance(diff_ids, list) or len(diff_ids) != len(layers):
        raise ImageError(f"{archive.label}: {config_path} does not name the {len(layers)} layers of the image")
    for layer, diff_id in zip(layers, diff_ids, strict=True):
        if not _compression(archive, layer.path) and diff_id != f"sha256:{layer.sha256.hex()}":
            raise ImageError(f"{archive.label}: the content of {layer.path} does not match its digest {diff_id}")


def _compression(archive: Archive, path: str) -> str:
    with archive.open(path) as file:
        start = file.read(4)
    return next((suffix for magic, suffix in _LAYER_MAGIC if start.startswith(magic)), "")


def _write_manifest(archive: Archive, parts: tuple[Part, ...]) -> bytes:
    kinds = [f"{_OCI}.config.v1+json"]
    kinds += [f"{_OCI}.layer.v1.tar{_compression(archive, part.path)}" for part in parts[1:]]
    descriptors = [
        {"mediaType": kind, "digest": f"sha256:{part.sha256.hex()}", "size": part.size}
        for kind, part in zip(kinds, parts, strict=True)
    ]
    manifest = {"schemaVersion": 2, "mediaType": f"{_OCI}.manifest.v1+json"}
    manifest |= {"config": descriptors[0], "layers": descriptors[1:]}
    return json.dumps(manifest, separators=(",", ":"), sort_keys=True).encode()


def _object(document: Any, label: str) -> dict[str, Any]:
    if not isinstance(document, dict):
        raise ImageError(f"{label} is no JSON object")
    return document


def _list(document: dict[str, Any], key: str, label: str) -> list[Any]:
    items = document.get(key)
    if not isinstance(items, list):
        raise ImageError(f"{label} has no list {key!r}")
    return items


def default_reference(path: Path) -> str:
    """What an image without a name of its own is called: its file's name, and `latest`."""
    stem = re.sub(r"[^A-Za-z0-9_-]+", "-", path.name.split(".")[0]).strip("-_") or "image"
    return f"{stem}:latest"


def check_reference(reference: str) -> None:
    """Raises ImageError unless a name has the form that a service file can ask for."""
    if not _REFERENCE.fullmatch(reference) or len(reference) > REFERENCE_MAX:
        raise ImageError(
            f"name {reference!r}: NAME or NAME:TAG is accepted, of letters, digits, '.', '_' and '-', with '/' between "
            f"the parts of a name, at most {REFERENCE_MAX} characters; for instance web:1 or guifi/web:1.2"
        )


def normalised(reference: str) -> str:
    """`hello` is `hello:latest`; a registry's port is no tag; tools that add Docker's registry mean the same image."""
    reference = reference.removeprefix("docker.io/library/")
    return reference if ":" in reference.rpartition("/")[2] else f"{reference}:latest"
