"""What the tests of the executor share: a network with its keys and images, and a gateway with a real executor."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import hashlib
import io
import json
import os
import pickle
import random
import signal
import socket
import subprocess
import sys
import tarfile
import tempfile
import time
import urllib.request
from dataclasses import replace
from pathlib import Path

from controller.demo.image import build_service_image
from gateway.config import (
    ExecutorSettings,
    ForwarderSettings,
    GatewaySettings,
    MonitorSettings,
    PolicySettings,
    Settings,
)
from gateway.executor.agent import tag_of
from gateway.executor.client import ExecutorClient
from gateway.executor.runtimes import oci, processes
from gateway.protocol import codec, keys, names
from gateway.protocol.executor_messages import Desired, ExecutorStatus
from gateway.protocol.keys import Key
from gateway.protocol.messages import BlobRef, Head, HealthCheck, PlacedHead, Port, Section, SectionRef, ServiceSpec
from gateway.protocol.objects import describe_bytes
from gateway.protocol.trust import TrustStore

ROOT = Path(__file__).parents[2]
YEAR_S = 365 * 86400.0
HTTP = HealthCheck(path="/health", port=8080, interval_s=1.0)


class World:
    """The anchor, a controller and the provider `ann` of the network /test; images and decisions on demand."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.network = names.Network("/test")
        self.anchor_key = Key.generate(self.network.anchor)
        self.controller_key = Key.generate(self.network.controller)
        self.provider_key = Key.generate(self.network.provider("ann"))
        self.anchor = self.certify(self.anchor_key)
        self.certificates = (self.certify(self.controller_key), self.certify(self.provider_key))

    def certify(self, key: Key) -> bytes:
        return self.anchor_key.certify(key.name, key.spki, time.time() - 60, YEAR_S, "anchor")

    def trust(self) -> TrustStore:
        return TrustStore(self.network, self.anchor)

    def image(
        self, blob_dir: Path, service: str = "hello", nonce: str = "nonce"
    ) -> tuple[BlobRef, tuple[BlobRef, ...]]:
        """Builds the demo image into a blob directory; its manifest and its other blobs."""
        return self.store(blob_dir, *demo_image(service, nonce))

    def store(self, blob_dir: Path, blobs: dict[str, bytes], manifest: str) -> tuple[BlobRef, tuple[BlobRef, ...]]:
        folder = blob_dir / "blobs" / "sha256"
        folder.mkdir(parents=True, exist_ok=True)
        for sha256, content in blobs.items():
            (folder / sha256).write_bytes(content)
        document = json.loads(blobs[manifest])
        order = [document["config"], *document["layers"]]
        refs = tuple(self.ref(blobs[entry["digest"].removeprefix("sha256:")]) for entry in order)
        return self.ref(blobs[manifest]), refs

    def ref(self, content: bytes) -> BlobRef:
        return describe_bytes(self.network, content)

    def sign_spec(self, spec: ServiceSpec, key: Key | None = None) -> bytes:
        name = self.network.service(spec.provider, spec.name, spec.version)
        return (key or self.provider_key).sign(name, codec.encode(spec))

    def decide(
        self,
        specs: list[bytes],
        node: str = "n1",
        version: int = 1,
        epoch: int = 1,
        key: Key | None = None,
        standby: bool = False,
        **head: object,
    ) -> Desired:
        """A decision that assigns the specifications to `node`; `key` signs the head instead of the controller."""
        sections = tuple(self.section(wire, "other" if standby else node) for wire in specs)
        refs = tuple(SectionRef("", codec.decode(Section, section).service, self.ref(section)) for section in sections)
        message = replace(Head("/test", epoch, version, time.time(), time.time() + YEAR_S, refs), **head)
        name = self.network.head_version(epoch, version)
        return Desired(
            (key or self.controller_key).sign(name, codec.encode(message)), self.certificates, sections, tuple(specs)
        )

    def section(self, wire: bytes, node: str) -> bytes:
        packet = keys.parse(wire)
        service = codec.decode(ServiceSpec, packet.content).name
        digest = hashlib.sha256(wire).digest()
        return codec.encode(Section(service, "", packet.name, digest, heads=(PlacedHead(node),)))


class Gateway:
    """A gateway's directories and settings, and its executor as a process of its own."""

    def __init__(
        self,
        world: World,
        node: str = "n1",
        directory: Path | None = None,
        user: int | None = None,
        providers: tuple[str, ...] = ("*",),
        **executor: object,
    ) -> None:
        self.world, self.node, self.user = world, node, user
        base = directory or world.directory / node
        self.blob_dir = base / "blobs"
        self.address = f"127.{random.randrange(1, 255)}.{random.randrange(255)}.{random.randrange(1, 255)}"
        self.settings = Settings(
            path=base / "config",
            gateway=GatewaySettings(network="/test", node=node, state_dir=base / "state", run_dir=base / "run"),
            controller=None,
            forwarder=ForwarderSettings(blob_dir=self.blob_dir),
            neighbors=(),
            routes=(),
            monitor=MonitorSettings(),
            executor=ExecutorSettings(address=self.address, **executor),
            policy=PolicySettings(allow_providers=providers),
        )
        for folder in (base / "state", base / "run", self.blob_dir):
            folder.mkdir(parents=True, exist_ok=True)
        (base / "state" / "anchor.ndn").write_bytes(world.anchor)
        self.base = base
        self.process: subprocess.Popen[bytes] | None = None
        self.client = ExecutorClient(self.settings.gateway.run_dir / "executor.sock")

    def spec(self, service: str = "hello", version: int = 1, nonce: str = "nonce", **fields: object) -> ServiceSpec:
        manifest, blobs = self.world.image(self.blob_dir, service, nonce)
        spec = ServiceSpec(service, version, "ann", manifest, blobs, ports=(Port(8080, 8000),), health=HTTP)
        return replace(spec, **fields)

    def start(self) -> Gateway:
        code = (
            "import pickle, sys; from gateway.executor.agent import main; sys.exit(main(pickle.load(sys.stdin.buffer)))"
        )
        command = [sys.executable, "-c", code]
        self.process = subprocess.Popen(
            as_user(self.user, command) if self.user else command,
            stdin=subprocess.PIPE,
            cwd=ROOT,
            env=os.environ | {"PYTHONPATH": str(ROOT)},
        )
        self.process.stdin.write(pickle.dumps(self.settings))
        self.process.stdin.close()
        wait_until(self._answers, 10)
        return self

    def _answers(self) -> bool:
        assert self.process.poll() is None, f"the executor ended with {self.process.returncode}"
        with socket.socket(socket.AF_UNIX) as probe:
            return probe.connect_ex(str(self.settings.gateway.run_dir / "executor.sock")) == 0

    def apply(self, desired: Desired) -> None:
        asyncio.run(self.client.apply(desired))

    def status(self) -> ExecutorStatus:
        return asyncio.run(self.client.status())

    def service(self, name: str = "hello"):
        return next((each for each in self.status().services if each.name == name), None)

    def wait_for(self, state: str, name: str = "hello", timeout_s: float = 10, **fields: object):
        """Waits until the service is in this state with these fields; the last status in the error if not."""
        seen = None

        def reached() -> bool:
            nonlocal seen
            seen = self.service(name)
            return seen is not None and seen.state == state and all(getattr(seen, k) == v for k, v in fields.items())

        wait_until(reached, timeout_s, lambda: f"{name}: {seen}; {self.status().notes}")
        return seen

    def get(self, path: str = "/cgi-bin/status", port: int = 8000):
        with urllib.request.urlopen(f"http://{self.address}:{port}{path}", timeout=5) as answer:
            return json.loads(answer.read())

    def processes(self) -> list[int]:
        """The executor's shims and their descendants, wherever their parents are by now."""
        tag = f"tag={tag_of(self.settings)}"
        shims = [pid for pid in processes.pids() if tag in processes.command_line(pid)]
        return shims + [child for shim in shims for child in processes.descendants(shim)]

    def terminate(self) -> int:
        self.process.terminate()
        return self.process.wait(5)

    def kill(self) -> None:
        self.process.kill()
        self.process.wait(5)

    def kill_everything(self) -> None:
        """The executor and all it ever started, at one blow."""
        victims = self.processes()
        self.kill()
        for pid in victims:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        wait_until(lambda: not self.processes(), 5)

    def destroy(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.wait(5)
        for pid in self.processes():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        oci.end_groups(f"picasso-{tag_of(self.settings)}-*")

    def groups(self) -> list[Path]:
        """The control groups of its services."""
        return oci.groups(f"picasso-{tag_of(self.settings)}-*")


@functools.cache
def demo_image(service: str, nonce: str) -> tuple[dict[str, bytes], str]:
    """The blobs of the demo's image by their digests, and the manifest's digest."""
    with tempfile.TemporaryDirectory() as directory:
        path = build_service_image(Path(directory) / "image.tar", service, nonce)
        with tarfile.open(path) as archive:
            files = {each.name: archive.extractfile(each).read() for each in archive if each.isreg()}
    prefix = "blobs/sha256/"
    manifest = json.loads(files["index.json"])["manifests"][0]["digest"].removeprefix("sha256:")
    return {name.removeprefix(prefix): files[name] for name in files if name.startswith(prefix)}, manifest


def as_user(uid: int, command: list[str]) -> list[str]:
    """The command as another user, who may use this interpreter even when it lies in root's home.

    In a mount namespace of its own an unreadable directory above the interpreter is replaced by an empty one that
    holds the interpreter's directories only.
    """
    script, prefix = [], Path(sys.base_prefix).resolve()
    hidden = next((p for p in reversed(prefix.parents) if not p.stat().st_mode & 0o001), None)
    if hidden:
        script = [f"mount --bind {prefix} /mnt", f"mount -t tmpfs -o mode=755 tmpfs {hidden}"]
        script += [f"mkdir -p {prefix}", f"mount --bind /mnt {prefix}", "umount /mnt"]
    drop = f"setpriv --reuid={uid} --regid={uid} --clear-groups"
    return ["unshare", "-m", "sh", "-c", " && ".join([*script, f'exec {drop} -- "$0" "$@"']), *command]


def member(
    name: str, kind: bytes = tarfile.REGTYPE, target: str = "", mode: int = 0o644, size: int = 0
) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname, info.mode, info.size = kind, target, mode, size
    return info


def tar(*members: tarfile.TarInfo | tuple[tarfile.TarInfo, bytes]) -> bytes:
    output = io.BytesIO()
    with tarfile.open(fileobj=output, mode="w") as archive:
        for each in members:
            info, content = each if isinstance(each, tuple) else (each, b"")
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return output.getvalue()


def wait_until(condition, timeout_s: float, explain=lambda: "") -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, f"not within {timeout_s} s: {explain()}"
        time.sleep(0.03)
