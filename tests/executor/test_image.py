"""Images from blobs: what is checked, what is shared, what is refused."""

from __future__ import annotations

import gzip
import hashlib
import json
from dataclasses import replace
from pathlib import Path

import pytest
from executor_world import World, member, tar

from gateway.executor.image import Image, ImageError, ImageStore
from gateway.protocol.messages import ServiceSpec


class Builder:
    """Writes images made of given layers into a blob directory."""

    def __init__(self, world: World) -> None:
        self.world, self.blob_dir = world, world.directory / "blobs"
        self.store = ImageStore(self.blob_dir, world.directory / "images")

    def spec(self, *layers: bytes, config: dict | None = None, manifest: dict | None = None, **fields) -> ServiceSpec:
        packed = [gzip.compress(each, mtime=0) for each in layers]
        document = {
            "config": {"Entrypoint": ["/run"]} | (config or {}),
            "rootfs": {"diff_ids": [digest(each) for each in layers]},
        }
        configuration = json.dumps(document).encode()
        text = json.dumps(
            {
                "mediaType": "application/vnd.oci.image.manifest.v1+json",
                "config": descriptor(configuration, "application/vnd.oci.image.config.v1+json"),
                "layers": [descriptor(each, "application/vnd.oci.image.layer.v1.tar+gzip") for each in packed],
            }
            | (manifest or {})
        ).encode()
        blobs = {hashlib.sha256(each).hexdigest(): each for each in (text, configuration, *packed)}
        ref, refs = self.world.store(self.blob_dir, blobs, hashlib.sha256(text).hexdigest())
        return replace(ServiceSpec("hello", 1, "ann", ref, refs), **fields)

    def path(self, sha256: bytes) -> Path:
        return self.blob_dir / "blobs" / "sha256" / sha256.hex()


def digest(content: bytes) -> str:
    return "sha256:" + hashlib.sha256(content).hexdigest()


def descriptor(content: bytes, media_type: str) -> dict:
    return {"mediaType": media_type, "digest": digest(content), "size": len(content)}


TAR = "application/vnd.oci.image.layer.v1.tar"
BASE = tar((member("bin/run", mode=0o755), b"program"), (member("etc/passwd"), b"web:x:33:34::/:/x\n"))
PAGE = tar((member("page"), b"page"))


@pytest.fixture
def builder(world: World) -> Builder:
    return Builder(world)


def test_an_image_is_unpacked_with_what_it_says_of_itself(builder: Builder) -> None:
    """Layers in order, command, environment, directory and the user by name are those of the image."""
    config = {"User": "web", "Env": ["A=b"], "WorkingDir": "/etc", "Cmd": ["-x"]}
    image = builder.store.prepare(builder.spec(BASE, PAGE, config=config))
    assert image == Image(image.rootfs, ("/run", "-x"), ("A=b",), "/etc", 33, 34)
    assert (image.rootfs / "bin" / "run").read_text() == "program" and (image.rootfs / "page").read_text() == "page"
    assert (image.rootfs / "proc").is_dir() and (image.rootfs / "tmp").is_dir()


@pytest.mark.parametrize("user", ["", "root", "0", "0:0", "root:root"])
def test_no_image_runs_as_root(builder: Builder, user: str) -> None:
    """An image that asks for root, or for nothing, runs as nobody."""
    passwd = tar((member("etc/passwd"), b"root:x:0:0::/:/x\n"))
    image = builder.store.prepare(builder.spec(passwd, config={"User": user}))
    assert (image.uid, image.gid) == (65534, 65534)


def test_layers_are_shared_between_images(builder: Builder) -> None:
    """Two images on one base have one file of the base on the disk, and the base is unpacked once."""
    one = builder.store.prepare(builder.spec(BASE, PAGE))
    two = builder.store.prepare(builder.spec(BASE, tar((member("page"), b"other"))))
    assert (one.rootfs / "bin/run").stat().st_ino == (two.rootfs / "bin/run").stat().st_ino
    assert (one.rootfs / "page").read_text() == "page" and (two.rootfs / "page").read_text() == "other"


def test_an_image_needs_its_blobs_only_until_it_is_unpacked(builder: Builder) -> None:
    """Missing blobs are counted; once unpacked the image is there without them, also for the next process."""
    spec = builder.spec(BASE, PAGE)
    content = builder.path(spec.blobs[1].sha256).read_bytes()
    builder.path(spec.blobs[1].sha256).unlink()
    assert builder.store.missing(spec) == 1
    builder.path(spec.blobs[1].sha256).write_bytes(content)
    assert builder.store.missing(spec) == 0
    builder.store.prepare(spec)
    for ref in (spec.manifest, *spec.blobs):
        builder.path(ref.sha256).unlink()
    again = ImageStore(builder.blob_dir, builder.world.directory / "images")
    assert again.missing(spec) == 0 and (again.prepare(spec).rootfs / "page").read_text() == "page"


@pytest.mark.parametrize("which", ["manifest", "configuration", "layer"])
def test_a_blob_whose_bytes_do_not_match_its_digest_is_refused(builder: Builder, which: str) -> None:
    """One flipped byte in any blob is found, the blob is named, and no image is left behind."""
    spec = builder.spec(BASE, PAGE)
    ref = {"manifest": spec.manifest, "configuration": spec.blobs[0], "layer": spec.blobs[2]}[which]
    content = bytearray(builder.path(ref.sha256).read_bytes())
    content[8 if which == "layer" else -2] ^= 1  # in a gzip header's flags the stream itself stays readable
    builder.path(ref.sha256).write_bytes(bytes(content))
    with pytest.raises(ImageError, match=ref.sha256.hex()[:12]):
        builder.store.prepare(spec)
    assert list((builder.world.directory / "images" / "manifests").iterdir()) == []
    assert not [p for p in (builder.world.directory / "images" / "chains").iterdir() if (p / "page").exists()]


def test_a_layer_that_unpacks_to_something_else_is_refused(builder: Builder) -> None:
    """The configuration's diff_ids are checked against the unpacked bytes."""
    spec = builder.spec(BASE)
    configuration = json.loads(builder.path(spec.blobs[0].sha256).read_text())
    other = builder.spec(BASE, config=configuration["config"])
    document = configuration | {"rootfs": {"diff_ids": [digest(b"other")]}}
    text = json.dumps(document).encode()
    manifest = json.loads(builder.path(other.manifest.sha256).read_text())
    manifest["config"] = descriptor(text, manifest["config"]["mediaType"])
    body = json.dumps(manifest).encode()
    layer_bytes = builder.path(spec.blobs[1].sha256).read_bytes()
    blobs = {hashlib.sha256(each).hexdigest(): each for each in (text, body, layer_bytes)}
    ref, refs = builder.world.store(builder.blob_dir, blobs, hashlib.sha256(body).hexdigest())
    with pytest.raises(ImageError, match="unpacked layer"):
        builder.store.prepare(ServiceSpec("hello", 1, "ann", ref, refs))


def test_a_few_bytes_that_unpack_to_many_are_refused(builder: Builder) -> None:
    """A layer beyond the service's disk limit is refused, however small its blob."""
    bomb = tar((member("zeros"), bytes(3 << 20)))
    with pytest.raises(ImageError, match="more than the 1048576 bytes"):
        builder.store.prepare(builder.spec(bomb, disk_bytes=1 << 20))


@pytest.mark.parametrize(
    ("manifest", "text"),
    [
        ({"mediaType": "application/vnd.oci.image.index.v1+json"}, "index"),
        ({"layers": []}, "0 layers"),
        ({"layers": [{"mediaType": TAR + "+zstd", "digest": "sha256:" + "0" * 64, "size": 1}]}, "zstd"),
        ({"layers": [{"mediaType": TAR, "digest": "sha256:../../etc", "size": 1}]}, "SHA-256"),
        ({"layers": [7]}, "mediaType"),
        ({"config": []}, "config"),
    ],
)  # fmt: skip
def test_a_manifest_of_another_kind_is_refused_by_name(builder: Builder, manifest: dict, text: str) -> None:
    """What this gateway cannot unpack is an ImageError that says what it is."""
    spec = builder.spec(BASE)
    body = json.dumps(json.loads(builder.path(spec.manifest.sha256).read_text()) | manifest).encode()
    builder.path(hashlib.sha256(body).digest()).write_bytes(body)
    with pytest.raises(ImageError, match=text):
        builder.store.prepare(replace(spec, manifest=builder.world.ref(body)))


def test_blobs_that_the_provider_did_not_sign_for_are_refused(builder: Builder) -> None:
    """The manifest may name only what the signed specification names."""
    spec = builder.spec(BASE, PAGE)
    with pytest.raises(ImageError, match="does not"):
        builder.store.prepare(replace(spec, blobs=spec.blobs[:2]))


def test_what_a_power_cut_left_is_removed_and_what_nobody_needs_too(builder: Builder) -> None:
    """Half unpacked trees go at the next start; images outside `keep` go with the layers only they have."""
    chains = builder.world.directory / "images" / "chains"
    (chains / ".new-abc" / "tree").mkdir(parents=True)
    store = ImageStore(builder.blob_dir, builder.world.directory / "images")
    assert list(chains.iterdir()) == []
    keep, other = builder.spec(BASE, PAGE), builder.spec(BASE, tar((member("page"), b"other")))
    kept = store.prepare(keep)
    store.prepare(other)
    store.collect({keep.manifest.sha256})
    assert len(list(chains.iterdir())) == 2 and (kept.rootfs / "page").exists()
