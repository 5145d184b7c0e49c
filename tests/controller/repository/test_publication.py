import os
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from controller import workspace
from controller.errors import ImageError
from controller.repository.publication import Repository, find
from gateway.forwarder.producer import BlobStore
from tests.controller import fakes
from tests.controller.fakes import Home

LAYERS = (b"base" * 5000, b"page" * 10)


@pytest.fixture
def blobs(home: Home) -> Iterator[BlobStore]:
    with closing(workspace.open_blobs(home.settings)) as opened:
        yield opened


@pytest.fixture
def repository(home: Home, blobs: BlobStore) -> Repository:
    return workspace.open_repository(home.settings, blobs, home.store)


def write(directory: Path, name: str, content: bytes) -> Path:
    path = directory / name
    path.write_bytes(content)
    return path


def test_every_blob_of_an_image_is_stored_and_found_by_name(
    tmp_path: Path, home: Home, blobs: BlobStore, repository: Repository
) -> None:
    """After publication the store holds the manifest and each blob it names; the database knows the name:tag."""
    repository.publish(write(tmp_path, "hello.tar", fakes.tar(fakes.layout(LAYERS))))
    publication = find(home.store, "hello:1")
    assert publication is not None and len(publication.blobs) == 3
    for blob in publication.all_blobs:
        assert blobs.has(blob.sha256) and blobs.ref(blob.sha256) == blob
        assert fakes.digest(blobs.path(blob.sha256).read_bytes()) == "sha256:" + blob.sha256.hex()


def test_shared_layers_are_told_from_new_ones(tmp_path: Path, repository: Repository) -> None:
    """A second image that shares a layer stores the rest only."""
    first = repository.publish(write(tmp_path, "1.tar", fakes.tar(fakes.layout(LAYERS))))
    assert not first.present
    second = repository.publish(write(tmp_path, "2.tar", fakes.tar(fakes.layout((LAYERS[0], b"other")))), "hello:2")
    assert [blob.sha256 for blob in second.present] == [first.publication.blobs[1].sha256]
    again = repository.publish(tmp_path / "1.tar")
    assert not again.new and len(again.present) == 4


def test_layer_with_wrong_bytes_leaves_nothing_behind(
    tmp_path: Path, home: Home, blobs: BlobStore, repository: Repository
) -> None:
    """A layer that does not match its digest is neither stored nor recorded, and what was published before stays."""
    files = fakes.layout(LAYERS)
    path = next(p for p in files if p.startswith("blobs/") and files[p].startswith(b"\x1f\x8b"))
    files[path] = files[path][:-1] + bytes([files[path][-1] ^ 1])
    with pytest.raises(ImageError, match="does not match its digest"):
        repository.publish(write(tmp_path, "bad.tar", fakes.tar(files)))
    assert find(home.store, "hello:1") is None
    assert bytes.fromhex(path.rpartition("/")[2]) not in {blob.sha256 for blob in blobs.complete()}


def test_any_file_is_one_blob(tmp_path: Path, home: Home, blobs: BlobStore, repository: Repository) -> None:
    """What is no image, or published raw, is a blob of the same bytes; progress ends at the whole."""
    content = os.urandom(30_000)
    seen: list[tuple[int, int]] = []
    published = repository.publish(write(tmp_path, "film.bin", content), progress=lambda *at: seen.append(at))
    blob = published.publication.manifest
    assert blobs.path(blob.sha256).read_bytes() == content and not published.publication.image
    assert seen[-1][0] == seen[-1][1]
    archive = write(tmp_path, "hello.tar", fakes.tar(fakes.layout(LAYERS)))
    assert not repository.publish(archive, raw=True).publication.image
    assert published.to_json(home.network)["name"] == f"/net/blob/{blob.sha256.hex()}"


def test_unreadable_file_is_named(tmp_path: Path, repository: Repository) -> None:
    """A missing file and a directory give a message with their path."""
    with pytest.raises(ImageError, match="nothing-here"):
        repository.publish(tmp_path / "nothing-here")
    with pytest.raises(ImageError, match=str(tmp_path)):
        repository.publish(tmp_path, raw=True)
