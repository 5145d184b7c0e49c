import gzip
import hashlib
import json
import random
import tarfile
from pathlib import Path

import pytest

from controller.errors import ImageError
from controller.repository.archive import open_archive
from controller.repository.image import Image, normalised, read_image
from controller.repository.platform import Platform
from tests.controller import fakes

LAYERS = (b"first layer" * 100, b"second layer" * 100)


def read(path: Path, content: bytes, reference: str = "", platform: str = "") -> Image | None:
    file = path / "image.tar"
    file.write_bytes(content)
    with open_archive(file, path) as archive:
        if archive is None:
            return None
        return read_image(archive, reference, Platform.parse(platform) if platform else None)


def test_layout_gives_manifest_as_stored_and_blobs_in_its_order(tmp_path: Path) -> None:
    """An OCI layout's manifest keeps its bytes, because its digest is the image's name."""
    files = fakes.layout(LAYERS)
    image = read(tmp_path, fakes.tar(files))
    assert image is not None
    document = json.loads(image.manifest)
    assert files["blobs/sha256/" + hashlib.sha256(image.manifest).hexdigest()] == image.manifest
    wanted = [document["config"]["digest"], *(layer["digest"] for layer in document["layers"])]
    assert ["sha256:" + part.sha256.hex() for part in image.parts] == wanted
    assert (image.reference, image.platform) == ("hello:1", "linux/amd64")


def test_docker_save_becomes_an_oci_manifest_of_its_files(tmp_path: Path) -> None:
    """An archive of docker save gives a manifest with the digests and the compression of the files inside."""
    image = read(tmp_path, fakes.tar(fakes.docker_save(LAYERS)))
    assert image is not None
    document = json.loads(image.manifest)
    assert [layer["digest"] for layer in document["layers"]] == [fakes.digest(layer) for layer in LAYERS]
    assert {layer["mediaType"] for layer in document["layers"]} == {"application/vnd.oci.image.layer.v1.tar"}
    assert image.reference == "hello:1"


def test_gzipped_archive_is_read_like_a_plain_one(tmp_path: Path) -> None:
    """Compression of the whole archive changes nothing."""
    plain = read(tmp_path, fakes.tar(fakes.layout(LAYERS)))
    assert read(tmp_path, gzip.compress(fakes.tar(fakes.layout(LAYERS)))) == plain


def test_layers_that_are_links_to_other_layers_are_followed(tmp_path: Path) -> None:
    """docker save writes a repeated layer as a link to the first one."""
    files: dict[str, bytes | tarfile.TarInfo] = dict(fakes.docker_save((LAYERS[0], LAYERS[0])))
    index = json.loads(files["manifest.json"])  # type: ignore[arg-type]
    index[0]["Layers"][1] = "other/layer.tar"
    files["manifest.json"] = fakes.as_json(index)
    files["other/layer.tar"] = fakes.link("other/layer.tar", f"../{index[0]['Layers'][0]}")
    image = read(tmp_path, fakes.tar(files))
    assert image is not None and image.parts[1].sha256 == image.parts[2].sha256


def index_of(*images: tuple[str, str]) -> dict[str, bytes]:
    """A layout with an index inside an index: an image for each (architecture, variant)."""
    files: dict[str, bytes] = {}
    entries = []
    for architecture, variant in images:
        single = fakes.layout((architecture.encode(), variant.encode()), architecture)
        entry = json.loads(single.pop("index.json"))["manifests"][0]
        files |= single
        entries.append(entry | {"platform": {"os": "linux", "architecture": architecture, "variant": variant}})
    absent = {"digest": fakes.digest(b"not saved"), "platform": {"os": "linux", "architecture": "s390x"}}
    inner = fakes.as_json({"manifests": [*entries, absent]})
    files[fakes.blob_path(inner)] = inner
    outer = {"manifests": [fakes.descriptor(inner, annotations={"io.containerd.image.name": "docker.io/library/hi:2"})]}
    return files | {"index.json": fakes.as_json(outer)}


def test_platform_is_chosen_through_nested_indexes(tmp_path: Path) -> None:
    """--platform takes the image for it, with or without a variant; images that were not saved are no choice."""
    archive = fakes.tar(index_of(("amd64", ""), ("arm", "v7"), ("arm64", "v8")))
    for asked, found in (("linux/arm64", "arm64"), ("linux/arm/v7", "arm"), ("linux/amd64", "amd64")):
        image = read(tmp_path, archive, platform=asked)
        assert image is not None and image.platform == f"linux/{found}" and image.reference == "hi:2"


def test_platform_of_a_single_image_is_read_from_its_configuration(tmp_path: Path) -> None:
    """An index that says nothing of the platform, or something false, does not pass an amd64 image off as arm64."""
    files = fakes.layout((b"layer",))
    for declared in (None, {"os": "linux", "architecture": "arm64"}):
        index = json.loads(files["index.json"])
        if declared is not None:
            index["manifests"][0]["platform"] = declared
        archive = fakes.tar(files | {"index.json": fakes.as_json(index)})
        with pytest.raises(ImageError, match="linux/amd64"):
            read(tmp_path, archive, platform="linux/arm64")
    image = read(tmp_path, fakes.tar(files), platform="linux/amd64")
    assert image is not None and image.platform == "linux/amd64"


def test_platform_that_is_not_inside_names_those_that_are(tmp_path: Path) -> None:
    """A choice that cannot be met lists the choices."""
    archive = fakes.tar(index_of(("amd64", ""), ("arm", "v7")))
    with pytest.raises(ImageError, match=r"no image for linux/riscv64; .*linux/amd64, linux/arm/v7"):
        read(tmp_path, archive, platform="linux/riscv64")


def test_several_images_need_a_name(tmp_path: Path) -> None:
    """An archive with two tags says which there are; --name chooses one."""
    one, two = fakes.layout((b"1",), reference="one:1"), fakes.layout((b"2",), reference="two:1")
    entries = [json.loads(files["index.json"])["manifests"][0] for files in (one, two)]
    both = fakes.tar(one | two | {"index.json": fakes.as_json({"manifests": entries})})
    with pytest.raises(ImageError, match="several images inside; choose one with --name: one:1, two:1"):
        read(tmp_path, both)
    image = read(tmp_path, both, "two:1")
    assert image is not None and fakes.digest(image.manifest) == entries[1]["digest"]


def broken(kind: str) -> bytes:
    files: dict[str, bytes | tarfile.TarInfo] = dict(fakes.layout(LAYERS))
    index = json.loads(fakes.layout(LAYERS)["index.json"])
    path = "blobs/sha256/" + index["manifests"][0]["digest"].removeprefix("sha256:")
    document = json.loads(fakes.layout(LAYERS)[path])
    layer = "blobs/sha256/" + document["layers"][0]["digest"].removeprefix("sha256:")
    if kind == "manifest changed":
        files[path] = fakes.as_json(document | {"schemaVersion": 3})
    elif kind == "layer missing":
        del files[layer]
    elif kind == "layer of another size":
        files[layer] = b"short"
    elif kind == "digest with a path":
        index["manifests"][0]["digest"] = "sha256:../../../etc/passwd"
        files["index.json"] = fakes.as_json(index)
    elif kind == "index is a list":
        files["index.json"] = b"[]"
    elif kind == "index nested in itself":
        files["index.json"] = b"[" * 100_000
    elif kind == "link in circles":
        files[layer] = fakes.link(layer, layer.rpartition("/")[2])
    elif kind == "link out of the archive":
        files[layer] = fakes.link(layer, "../../../../etc/passwd")
    elif kind == "device":
        files[layer] = fakes.link(layer, "", tarfile.CHRTYPE)
    elif kind == "index too large":
        files["index.json"] = b" " * (5 << 20)
    return fakes.tar(files)


@pytest.mark.parametrize(
    ("kind", "says"),
    [
        ("manifest changed", "does not match its digest"),
        ("layer missing", "is missing inside"),
        ("layer of another size", "has 5 bytes, the manifest says"),
        ("digest with a path", "is no digest"),
        ("index is a list", "is no JSON object"),
        ("index nested in itself", "is no JSON"),
        ("link in circles", "leads in circles"),
        ("link out of the archive", "is missing inside"),
        ("device", "is no regular file"),
        ("index too large", "at most"),
    ],
)
def test_hostile_layout_is_refused_by_name(tmp_path: Path, kind: str, says: str) -> None:
    """Whatever is wrong inside, the message names the archive and the thing."""
    with pytest.raises(ImageError, match=says) as caught:
        read(tmp_path, broken(kind))
    assert str(tmp_path / "image.tar") in str(caught.value)


def test_docker_layer_that_is_not_its_digest_is_refused(tmp_path: Path) -> None:
    """A layer whose bytes are not those that the configuration names is not published."""
    files = fakes.docker_save(LAYERS)
    path = json.loads(files["manifest.json"])[0]["Layers"][0]
    files[path] = b"x" * len(files[path])
    with pytest.raises(ImageError, match="does not match its digest"):
        read(tmp_path, fakes.tar(files))


def test_archive_cut_short_anywhere_is_refused(tmp_path: Path) -> None:
    """A copy that stopped half-way is an error at any length, never a smaller image."""
    whole = fakes.tar(fakes.layout(LAYERS))
    end = len(whole.rstrip(b"\0"))
    for length in (600, 1100, end // 2, end - 700, end):
        with pytest.raises(ImageError):
            read(tmp_path, whole[:length])
    with pytest.raises(ImageError, match="compressed archive is damaged"):
        read(tmp_path, gzip.compress(whole)[:-20])


def test_flipped_bytes_never_raise_anything_else(tmp_path: Path) -> None:
    """Random damage gives ImageError or an image, never another exception."""
    whole = fakes.tar(fakes.layout((b"small",)))
    dice = random.Random(7)
    for _ in range(300):
        damaged = bytearray(whole)
        for _ in range(dice.randint(1, 20)):
            damaged[dice.randrange(len(whole))] = dice.randrange(256)
        try:
            read(tmp_path, bytes(damaged))
        except ImageError:
            continue


def test_header_that_claims_gigabytes_is_not_read_into_memory(tmp_path: Path) -> None:
    """An extended header of a forged length is refused before it is read."""
    info = tarfile.TarInfo("x")
    info.type, info.size = tarfile.XHDTYPE, 8 << 30
    with pytest.raises(ImageError, match="hostile"):
        read(tmp_path, info.tobuf(tarfile.GNU_FORMAT) + b"\0" * 4096)


def test_other_files_are_no_image(tmp_path: Path) -> None:
    """A file that is no archive, or an archive of something else, is not taken for an image."""
    assert read(tmp_path, b"just text") is None
    assert read(tmp_path, b"") is None
    assert read(tmp_path, gzip.compress(b"just text")) is None
    assert read(tmp_path, fakes.tar({"notes.txt": b"hello"})) is None


def test_reference_without_tag_is_latest() -> None:
    """A name has a tag, and a registry's port is none."""
    assert normalised("hello") == "hello:latest"
    assert normalised("host:5000/hello") == "host:5000/hello:latest"
    assert normalised("hello:2") == normalised("docker.io/library/hello:2") == "hello:2"
