"""A small network for tests of the controller: its keys on disk, nodes that sign, images in tars, and a fake face."""

from __future__ import annotations

import gzip
import hashlib
import inspect
import io
import json
import tarfile
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from controller import workspace
from controller.authority import Authority
from controller.initialise import Places, Wishes, initialise
from controller.settings import Settings
from controller.store import Store
from gateway.forwarder.consumer import Interest, TimedOut
from gateway.protocol import codec, names
from gateway.protocol.keys import Key
from gateway.protocol.messages import Bandwidth, LinkReport, NodeReport
from gateway.protocol.names import Name

NOW = 1_800_000_000.0
Handler = Callable[[Interest], bytes | Awaitable[bytes | None] | None]


@dataclass
class Home:
    """A controller's files, open."""

    settings: Settings
    store: Store
    authority: Authority

    @property
    def network(self) -> names.Network:
        return self.authority.network

    def enrol(self, node: str) -> Key:
        """A node that is enrolled, with its key."""
        key = Key.generate(self.network.node(node))
        certificate = self.authority.certify_node(node, key.spki, NOW)
        self.store.add_node(node, certificate, NOW)
        self.authority.trust.add_certificate(certificate)
        return key


def make_home(directory: Path, node: str = "origin") -> Home:
    settings = initialise(Places.below(directory), Wishes("/net", node), NOW).settings
    store = workspace.open_store(settings)
    return Home(settings, store, workspace.open_authority(settings, store))


def report(node: str, links: dict[str, float] | None = None, **facts: Any) -> NodeReport:
    """A report with `rx` measured from each neighbour in Mbit/s; on one node every report has its own sequence."""
    rows = tuple(LinkReport(other, rx=Bandwidth(mbps, "goodput")) for other, mbps in (links or {}).items())
    defaults: dict[str, Any] = {
        "boot_id": "b1",
        "sequence": 1,
        "interval_s": 1.0,
        "runtimes": ("oci",),
        "addresses": (f"10.0.0.{len(node)}",),
    }
    return NodeReport(node, links=rows, **(defaults | facts))


def sign_report(home: Home, key: Key, content: NodeReport) -> bytes:
    return key.sign(home.network.report(content.node) + names.version(content.sequence), codec.encode(content), 1000)


class FakeFace:
    """A face without a forwarder: `ask` is an Interest from outside, `answers` are what others would say."""

    def __init__(self) -> None:
        self.handlers: dict[Name, Handler] = {}
        self.registered: list[Name] = []
        self.answers: dict[Name, bytes] = {}
        self.asked: list[tuple[Name, tuple[Name, ...]]] = []

    def serve(self, prefix: Name, handler: Handler) -> None:
        self.handlers[prefix] = handler

    async def register(self, prefix: Name) -> None:
        self.registered.append(prefix)

    async def express(
        self,
        name: Name,
        *,
        can_be_prefix: bool = False,
        must_be_fresh: bool = False,
        lifetime_ms: int = 4000,
        hint: Sequence[Name] = (),
        retries: int = 0,
    ) -> Interest:
        self.asked.append((name, tuple(hint)))
        if name not in self.answers:
            raise TimedOut(f"{names.to_uri(name)}: no answer")
        return Interest(name, self.answers[name])

    async def ask(
        self, name: Name, can_be_prefix: bool = False, parameters: bytes | None = None, digest: bytes | None = None
    ) -> bytes | None:
        prefix = max((p for p in self.handlers if name.startswith(p)), key=len)
        interest = Interest(name, b"", digest=digest, can_be_prefix=can_be_prefix, parameters=parameters)
        answer = self.handlers[prefix](interest)
        return await answer if inspect.isawaitable(answer) else answer


# --- images --------------------------------------------------------------------------------------------------


def digest(content: bytes) -> str:
    return "sha256:" + hashlib.sha256(content).hexdigest()


def blob_path(content: bytes) -> str:
    return "blobs/sha256/" + hashlib.sha256(content).hexdigest()


def as_json(value: Any) -> bytes:
    return json.dumps(value).encode()


def tar(files: dict[str, bytes | tarfile.TarInfo]) -> bytes:
    output = io.BytesIO()
    with tarfile.open(fileobj=output, mode="w") as archive:
        for name, content in files.items():
            if isinstance(content, tarfile.TarInfo):
                archive.addfile(content)
            else:
                info = tarfile.TarInfo(name)
                info.size = len(content)
                archive.addfile(info, io.BytesIO(content))
    return output.getvalue()


def link(name: str, target: str, kind: bytes = tarfile.SYMTYPE) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, target
    return info


def config(layers: Sequence[bytes], architecture: str = "amd64") -> bytes:
    diff_ids = [digest(layer) for layer in layers]
    return as_json({"os": "linux", "architecture": architecture, "rootfs": {"type": "layers", "diff_ids": diff_ids}})


def descriptor(content: bytes, **more: Any) -> dict[str, Any]:
    return {"digest": digest(content), "size": len(content), **more}


def manifest(configuration: bytes, layers: Sequence[bytes]) -> bytes:
    return as_json({"schemaVersion": 2, "config": descriptor(configuration), "layers": [descriptor(x) for x in layers]})


def layout(layers: Sequence[bytes], architecture: str = "amd64", reference: str = "hello:1") -> dict[str, bytes]:
    """The files of an OCI layout with one image of compressed layers."""
    packed = [gzip.compress(layer, mtime=0) for layer in layers]
    configuration = config(layers, architecture)
    image = manifest(configuration, packed)
    entry = descriptor(image, annotations={"org.opencontainers.image.ref.name": reference})
    files = {"oci-layout": b"{}", "index.json": as_json({"schemaVersion": 2, "manifests": [entry]})}
    return files | {blob_path(blob): blob for blob in (image, configuration, *packed)}


def docker_save(layers: Sequence[bytes], tags: Sequence[str] = ("hello:1",)) -> dict[str, bytes]:
    """The files that an old `docker save` writes."""
    configuration = config(layers)
    paths = [f"{hashlib.sha256(layer).hexdigest()}/layer.tar" for layer in layers]
    name = f"{hashlib.sha256(configuration).hexdigest()}.json"
    index = as_json([{"Config": name, "RepoTags": list(tags), "Layers": paths}])
    return {"manifest.json": index, name: configuration, **dict(zip(paths, layers, strict=True))}
