"""Unmodified NDNts applications (ndncat, and NDNts' own management client) on gateways that are real processes."""

from __future__ import annotations

import hashlib
import json
import os
import random
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from gateways import GatewayProcess, neighbor, route, wait_for

Make = Callable[..., GatewayProcess]
# package.json has the pinned versions; ndncat's two packages that the registry lacks stand beside it.
SOURCE = Path(__file__).parent / "ndnts"
PREFIX = "/test/ndnts"
INSTALL_TIMEOUT_S = 300
CLIENT_TIMEOUT_S = 30
# The first test installs.
pytestmark = pytest.mark.timeout(3 * INSTALL_TIMEOUT_S)


@pytest.fixture(scope="session")
def ndnts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with NDNts in it, installed once a version of package.json and kept for the next run."""
    if not shutil.which("node") or not shutil.which("npm"):
        install_node()
    digest = hashlib.sha256(b"".join(p.read_bytes() for p in sorted(SOURCE.rglob("*")) if p.is_file())).hexdigest()[:16]
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "picasso-gateway-tests"
    if not os.access(cache.parent, os.W_OK):
        cache = tmp_path_factory.mktemp("ndnts")
    directory = cache / f"ndnts-{digest}"
    if not directory.exists():
        cache.mkdir(parents=True, exist_ok=True)
        install_packages(cache, directory)
    return directory


def install_node() -> None:
    """Node.js from the distribution, where we may; otherwise the test can't run."""
    if os.geteuid() != 0 or not shutil.which("apt-get"):
        pytest.skip("node and npm are missing. Type: sudo apt-get install nodejs npm")
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    install = ["apt-get", "install", "-y", "--no-install-recommends", "nodejs", "npm"]
    for command in (install, ["apt-get", "update"], install):
        done = subprocess.run(command, env=environment, capture_output=True, timeout=INSTALL_TIMEOUT_S, check=False)
        if command is install and done.returncode == 0:
            return
    pytest.skip("node and npm are missing, and apt-get can't install them. Type: sudo apt-get install nodejs npm")


def install_packages(cache: Path, directory: Path) -> None:
    """Installs beside the place and moves it there when it is whole: runs side by side don't see half of it."""
    with tempfile.TemporaryDirectory(dir=cache) as temporary:
        made = Path(temporary) / "made"
        shutil.copytree(SOURCE, made)
        npm = ["npm", "install", "--no-save", "--no-package-lock", "--no-audit", "--no-fund", "--ignore-scripts"]
        done = subprocess.run(npm, cwd=made, capture_output=True, text=True, timeout=INSTALL_TIMEOUT_S, check=False)
        if done.returncode != 0:
            pytest.skip(f"npm can't install NDNts: {done.stderr[-2000:]}")
        if not directory.exists():
            made.rename(directory)


@pytest.fixture
def gateways(make_gateway: Make) -> tuple[GatewayProcess, GatewayProcess]:
    """Two gateways joined by TCP; the first has a route for the applications' prefix to the second."""
    a, b = make_gateway("a"), make_gateway("b")
    a.configure(neighbor("b", b.uri) + route(PREFIX, "b"))
    b.configure(neighbor("a", a.uri))
    a.start()
    b.start()
    wait_for(lambda: any(face["up"] for face in a.ask("faces") if face["neighbor"] == "b"))
    return a, b


def environment(gateway: GatewayProcess) -> dict[str, str]:
    return {**os.environ, "NDNTS_UPLINK": f"unix://{gateway.unix}"}


def ndncat(ndnts: Path, *arguments: str) -> list[str]:
    return ["node", str(ndnts / "node_modules/@ndn/cat/cli.cjs"), *arguments]


def get(ndnts: Path, gateway: GatewayProcess, *arguments: str) -> subprocess.CompletedProcess[bytes]:
    command = ndncat(ndnts, "get-segmented", *arguments)
    return subprocess.run(command, env=environment(gateway), capture_output=True, timeout=CLIENT_TIMEOUT_S, check=False)


@contextmanager
def put(ndnts: Path, gateway: GatewayProcess, prefix: str, *arguments: str) -> Iterator[None]:
    """A producer that has registered its prefix; ended at the end."""
    command = ndncat(ndnts, "put-segmented", prefix, *arguments)
    process = subprocess.Popen(
        command, env=environment(gateway), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL
    )
    try:
        wait_for(lambda: prefix in registered(gateway) or process.poll() is not None, what=f"{prefix} is registered")
        assert process.poll() is None, process.communicate()[0].decode()
        yield
        process.terminate()
        output = process.communicate(timeout=CLIENT_TIMEOUT_S)[0].decode()
        assert process.returncode == 0, output
    finally:
        process.kill()
        process.wait()


def registered(gateway: GatewayProcess) -> list[str]:
    return [row["prefix"] for row in gateway.ask("routes") if row["origin"] == "application"]


def test_ndncat_serves_and_fetches_through_two_gateways(
    ndnts: Path, gateways: tuple[GatewayProcess, GatewayProcess], tmp_path: Path
) -> None:
    """A file of NDNts' producer comes whole to its consumer at the other gateway, by each way to find its version.

    The second fetch comes from the cache beside the consumer, and with the producer its prefix goes.
    """
    a, b = gateways
    content = random.Random(3).randbytes(120_000)
    (tmp_path / "content").write_bytes(content)
    prefix = f"{PREFIX}/file"
    with put(ndnts, b, prefix, "--file", str(tmp_path / "content"), "--ver", "7"):
        for version in ("rdr", "cbp", "7"):
            got = get(ndnts, a, prefix, "--ver", version)
            assert (got.returncode, got.stderr) == (0, b"") and got.stdout == content, version
    wait_for(lambda: prefix not in registered(b), what="the prefix is gone")
    again = get(ndnts, a, prefix, "--ver", "7")
    assert again.returncode == 0 and again.stdout == content


def test_ndncat_on_one_gateway(ndnts: Path, make_gateway: Make, tmp_path: Path) -> None:
    """Producer and consumer side by side, without versions."""
    gateway = make_gateway("a").start()
    (tmp_path / "content").write_bytes(b"a short text")
    with put(ndnts, gateway, "/here/text", "--file", str(tmp_path / "content"), "--ver", "none"):
        got = get(ndnts, gateway, "/here/text", "--ver", "none")
        assert (got.returncode, got.stdout) == (0, b"a short text")


def test_ndnts_manages_a_gateway(ndnts: Path, make_gateway: Make) -> None:
    """NDNts' own management client gets every command done and reads every dataset, with all that it requires."""
    gateway = make_gateway("a").start()
    done = subprocess.run(
        ["node", str(ndnts / "manage.js")],
        env=environment(gateway),
        capture_output=True,
        text=True,
        timeout=CLIENT_TIMEOUT_S,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    register = found["register"]
    assert (register["status"], register["name"], register["origin"]) == (200, "/8=ndnts/8=a", 65)
    assert (register["cost"], register["flags"], register["expirationPeriod"]) == (3, 1, 60000)
    assert found["deep"]["status"] == 414 and "components" in found["deep"]["text"]
    assert found["strategy"]["status"] == 200
    assert (found["update"]["status"], found["update"]["faceId"]) == (200, register["faceId"])
    assert found["update"]["flags"] & 1 and found["erased"] == 0 and found["unregister"]["status"] == 200
    assert [face["faceId"] for face in found["found"]] == [register["faceId"]]
    uris = {face["uri"]: face["faceScope"] for face in found["faces"]}
    assert uris["internal://management"] == 1 and any(uri.startswith("fd://") for uri in uris)
    assert {"uri", "localUri", "faceScope", "nInBytes", "flags"} <= found["faces"][0].keys()
    assert found["status"][0]["nfdVersion"].startswith("picasso-gateway-")
    assert found["cs"][0]["capacity"] > 0
    assert found["strategies"][-1][0] == "/8=ndnts" and "multicast" in found["strategies"][-1][1]
    routes = dict(found["routes"])
    assert routes["/8=ndnts/8=a"][0]["origin"] == 65 and 0 < routes["/8=ndnts/8=a"][0]["expirationPeriod"] <= 60000
