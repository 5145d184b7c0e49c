"""The demo's service as a real OCI image, built from Debian's static busybox alone.

Two layers: the base (busybox, its users and directories), the same bytes for every service, so that it is stored and
carried once; and the service's page. The archive is an OCI layout that carries Docker's `manifest.json` too, so that
`docker load` and skopeo both read it. The same arguments give the same bytes.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import platform
import secrets
import sys
import tarfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

PORT = 8080
HEALTH_PATH = "/health"
STATUS_PATH = "/cgi-bin/status"
_APPLETS = ("sh", "httpd", "cat", "date", "sleep", "wget")
_USER = 1000
_ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64", "armv7l": "arm", "armv6l": "arm"}

# pid 1 has no default action for SIGTERM: the trap makes a stop immediate. The start time is read from the kernel
# because busybox `date` has whole seconds only.
_START = """#!/bin/sh
while read -r key value rest; do [ "$key" = btime ] && boot=$value; done </proc/stat
read -r up rest </proc/uptime
export STARTED=$((boot + ${up%.*})).${up#*.}
httpd -f -p PORT -h /www &
child=$!
trap 'kill $child; exit 0' TERM INT
echo "serving on port PORT as $PICASSO_SERVICE on $PICASSO_NODE"
while :; do wait $child; kill -0 $child 2>/dev/null || exit 1; done
"""

_PAGE = """#!/bin/sh
nonce=$(cat /www/nonce)
printf 'Content-Type: text/html\\r\\nCache-Control: no-store\\r\\n\\r\\n'
cat <<HTML
<!doctype html>
<html lang="en"><title>SERVICE</title>
<h1>SERVICE</h1>
<p>Served by the gateway <b>$PICASSO_NODE</b>.</p>
<dl><dt>service<dd>SERVICE<dt>node<dd>$PICASSO_NODE<dt>nonce<dd>$nonce<dt>started<dd>$STARTED</dl>
</html>
HTML
"""

_STATUS = """#!/bin/sh
nonce=$(cat /www/nonce)
printf 'Content-Type: application/json\\r\\nCache-Control: no-store\\r\\n\\r\\n'
printf '{"service": "SERVICE", "node": "%s", "nonce": "%s", "started": %s}\\n' "$PICASSO_NODE" "$nonce" "$STARTED"
"""


def build_service_image(output: Path, service: str, nonce: str, busybox: Path = Path("/bin/busybox")) -> Path:
    """Writes the image of `service` to `output` (a tar) and returns it; raises OSError or ValueError with the way out.

    GET / answers a page and /cgi-bin/status JSON, each with service, node, nonce and start time; /health answers ok.
    """
    for name, text in (("service", service), ("nonce", nonce)):
        if not text or not text.replace("-", "").replace(".", "").isalnum():
            raise ValueError(f"{name} {text!r}: letters, digits, dots and hyphens only, because it goes into a page")
    layers = [_base_layer(busybox), _page_layer(service, nonce)]
    packed = [gzip.compress(layer, 9, mtime=0) for layer in layers]
    configuration = _json(_configuration(service, layers))
    manifest = _json(_manifest(configuration, packed))
    output.parent.mkdir(parents=True, exist_ok=True)
    output.write_bytes(_layout(service, manifest, configuration, packed))
    return output


def _base_layer(busybox: Path) -> bytes:
    try:
        program = busybox.read_bytes()
    except OSError as error:
        raise OSError(f"{busybox}: {error.strerror}; install it with: apt-get install busybox-static") from error
    if b"\0httpd\0" not in program:
        raise ValueError(f"{busybox}: a busybox without httpd; install Debian's: apt-get install busybox-static")
    users = f"root:x:0:0:root:/:/bin/sh\nservice:x:{_USER}:{_USER}:service:/:/bin/sh\n"
    archive = _Archive()
    for folder in ("bin", "dev", "etc", "proc", "sys", "tmp"):
        archive.folder(folder)
    archive.file("bin/busybox", program, 0o755)
    for applet in _APPLETS:
        archive.symlink(f"bin/{applet}", "busybox")
    archive.file("etc/passwd", users.encode())
    archive.file("etc/group", f"root:x:0:\nservice:x:{_USER}:\n".encode())
    return archive.close()


def _page_layer(service: str, nonce: str) -> bytes:
    archive = _Archive()
    archive.file("start", _START.replace("PORT", str(PORT)).encode(), 0o755)
    archive.folder("www")
    archive.folder("www/cgi-bin")
    archive.file("www/cgi-bin/index.cgi", _PAGE.replace("SERVICE", service).encode(), 0o755)
    archive.file("www/cgi-bin/status", _STATUS.replace("SERVICE", service).encode(), 0o755)
    archive.file("www/health", b"ok\n")
    archive.file("www/nonce", nonce.encode() + b"\n")
    return archive.close()


class _Archive:
    """A tar with nothing in it that changes from run to run."""

    def __init__(self) -> None:
        self._bytes = io.BytesIO()
        self._tar = tarfile.TarFile(fileobj=self._bytes, mode="w", format=tarfile.USTAR_FORMAT)

    def folder(self, name: str) -> None:
        self._add(name, tarfile.DIRTYPE, 0o755)

    def symlink(self, name: str, target: str) -> None:
        self._add(name, tarfile.SYMTYPE, 0o777, target=target)

    def file(self, name: str, content: bytes, mode: int = 0o644) -> None:
        self._add(name, tarfile.REGTYPE, mode, content)

    def _add(self, name: str, kind: bytes, mode: int, content: bytes = b"", target: str = "") -> None:
        member = tarfile.TarInfo(name)
        member.type, member.mode, member.size, member.linkname = kind, mode, len(content), target
        self._tar.addfile(member, io.BytesIO(content))

    def close(self) -> bytes:
        self._tar.close()
        return self._bytes.getvalue()


def _configuration(service: str, layers: list[bytes]) -> dict[str, Any]:
    machine = platform.machine()
    return {
        "architecture": _ARCHITECTURES.get(machine, machine),
        "os": "linux",
        "config": {
            "User": f"{_USER}:{_USER}",
            "ExposedPorts": {f"{PORT}/tcp": {}},
            "Env": ["PATH=/bin"],
            "Entrypoint": ["/bin/sh", "/start"],
            "WorkingDir": "/",
            "Labels": {"org.opencontainers.image.title": service},
        },
        "rootfs": {"type": "layers", "diff_ids": ["sha256:" + hashlib.sha256(layer).hexdigest() for layer in layers]},
    }


def _manifest(configuration: bytes, packed: list[bytes]) -> dict[str, Any]:
    prefix = "application/vnd.oci.image"
    return {
        "schemaVersion": 2,
        "mediaType": f"{prefix}.manifest.v1+json",
        "config": _descriptor(f"{prefix}.config.v1+json", configuration),
        "layers": [_descriptor(f"{prefix}.layer.v1.tar+gzip", layer) for layer in packed],
    }


def _layout(service: str, manifest: bytes, configuration: bytes, packed: list[bytes]) -> bytes:
    tag = f"picasso/{service}:latest"
    entry = _descriptor("application/vnd.oci.image.manifest.v1+json", manifest)
    entry["annotations"] = {"org.opencontainers.image.ref.name": "latest", "io.containerd.image.name": tag}
    docker = {"Config": _blob(configuration), "RepoTags": [tag], "Layers": [_blob(layer) for layer in packed]}
    archive = _Archive()
    archive.file("oci-layout", b'{"imageLayoutVersion": "1.0.0"}')
    archive.file("index.json", _json({"schemaVersion": 2, "manifests": [entry]}))
    archive.file("manifest.json", _json([docker]))
    for folder in ("blobs", "blobs/sha256"):
        archive.folder(folder)
    for blob in (manifest, configuration, *packed):
        archive.file(_blob(blob), blob)
    return archive.close()


def _descriptor(media_type: str, content: bytes) -> dict[str, Any]:
    digest = "sha256:" + hashlib.sha256(content).hexdigest()
    return {"mediaType": media_type, "digest": digest, "size": len(content)}


def _blob(content: bytes) -> str:
    return "blobs/sha256/" + hashlib.sha256(content).hexdigest()


def _json(value: Any) -> bytes:
    return json.dumps(value, sort_keys=True, separators=(",", ":")).encode()


def main(arguments: Sequence[str]) -> int:
    """`python -m controller.demo.image SERVICE OUTPUT`: an image to try things out with, without Docker."""
    if len(arguments) != 2:
        print("usage: python -m controller.demo.image SERVICE OUTPUT.tar", file=sys.stderr)
        return 2
    try:
        print(build_service_image(Path(arguments[1]), arguments[0], secrets.token_hex(8)))
    except (OSError, ValueError) as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
