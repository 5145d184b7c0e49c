"""The demo's image, as other tools see it."""

from __future__ import annotations

import json
import tarfile
from pathlib import Path

import pytest

from controller.demo.image import build_service_image


def test_the_same_arguments_give_the_same_bytes(tmp_path: Path) -> None:
    """Two builds are equal byte for byte; another nonce changes the page's layer only."""
    one = build_service_image(tmp_path / "1.tar", "hello", "n1")
    assert one.read_bytes() == build_service_image(tmp_path / "2.tar", "hello", "n1").read_bytes()
    other = build_service_image(tmp_path / "3.tar", "maps", "n2")
    layers = [manifest(path)["Layers"] for path in (one, other)]
    assert layers[0][0] == layers[1][0] and layers[0][1] != layers[1][1]


def test_the_archive_is_an_oci_layout_and_a_docker_archive(tmp_path: Path) -> None:
    """Both entry points are there and name blobs that are in the archive."""
    path = build_service_image(tmp_path / "1.tar", "hello", "n1")
    with tarfile.open(path) as tar:
        names = set(tar.getnames())
        index = json.load(tar.extractfile("index.json"))
        assert json.load(tar.extractfile("oci-layout")) == {"imageLayoutVersion": "1.0.0"}
    assert "blobs/sha256/" + index["manifests"][0]["digest"][7:] in names
    assert {manifest(path)["Config"], *manifest(path)["Layers"]} <= names


@pytest.mark.parametrize(("service", "nonce"), [("a b", "n"), ("hello", "$(reboot)"), ("", "n"), ("hello", "")])
def test_texts_that_would_become_code_are_refused(tmp_path: Path, service: str, nonce: str) -> None:
    """Service and nonce stand in a shell script: anything but plain words is refused."""
    with pytest.raises(ValueError, match="letters"):
        build_service_image(tmp_path / "1.tar", service, nonce)


def test_a_missing_busybox_says_how_to_get_it(tmp_path: Path) -> None:
    """The error names the file and the package."""
    with pytest.raises(OSError, match="apt-get install busybox-static"):
        build_service_image(tmp_path / "1.tar", "hello", "n1", tmp_path / "busybox")


def manifest(path: Path) -> dict:
    with tarfile.open(path) as tar:
        return json.load(tar.extractfile("manifest.json"))[0]
