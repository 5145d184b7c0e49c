"""Wants and blobs on a USB stick, between real gateways that share nothing else."""

from __future__ import annotations

import hashlib
import json
import random
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from gateway.placement_client.identity import Identity, IdentityStore
from gateway.protocol import codec, names, objects
from gateway.protocol.keys import Key
from gateway.protocol.messages import BlobRef, CarriedWant, Want, WantOffer
from gateway.protocol.trust import TrustStore
from tests.integration.gateways import GatewayProcess

NETWORK = names.Network("/test/net")
YEAR_S = 365 * 86400.0
CONTENT = random.Random(3).randbytes(700_123)
REF = objects.describe_bytes(NETWORK, CONTENT)


class Town:
    """A network's anchor, which certifies nodes; gateways of it, and a wanter that is far away."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.anchor = Key.generate(NETWORK.prefix)
        self.anchor_wire = self._certify(self.anchor)
        self.far = Key.generate(NETWORK.node("far"))
        self.far_certificate = self._certify(self.far)
        self.running: list[GatewayProcess] = []

    def _certify(self, key: Key) -> bytes:
        return self.anchor.certify(key.name, key.spki, time.time() - YEAR_S, 10 * YEAR_S, "anchor")

    def gateway(self, node: str, *contents: bytes) -> GatewayProcess:
        """A running gateway of the network, with these blobs on its disk."""
        gateway = GatewayProcess(self.directory / node, node)
        key = Key.generate(NETWORK.node(node))
        store = IdentityStore(gateway.directory / "state", NETWORK, node)
        store.directory.mkdir()
        key.save(store.directory / "identity.key")
        trust = TrustStore(NETWORK, self.anchor_wire)
        store.save(Identity(node, key, self._certify(key), trust))
        blobs = gateway.directory / "blobs" / "blobs" / "sha256"
        blobs.mkdir(parents=True)
        for content in contents:
            (blobs / hashlib.sha256(content).hexdigest()).write_bytes(content)
        self.running.append(gateway)
        return gateway.start()

    def write_want(self, directory: Path, ref: BlobRef) -> None:
        """What an export at the wanter's own gateway would have put on the stick."""
        want = Want(ref, "far", 3, time.time() + 3600, 3600.0, ("elsewhere",))
        packet = self.far.sign(NETWORK.want("far", ref.sha256, 1), codec.encode(want))
        offer = WantOffer("", 0, (CarriedWant(packet, 5, 3600.0),), (self.far_certificate,))
        (directory / "wants").mkdir(parents=True, exist_ok=True)
        name = hashlib.sha256(packet).hexdigest()[:32]
        (directory / "wants" / f"{name}.want").write_bytes(codec.encode(offer))


@pytest.fixture
def town(tmp_path: Path) -> Iterator[Town]:
    town = Town(tmp_path)
    yield town
    for gateway in town.running:
        gateway.stop()


def test_a_stick_carries_a_want_there_and_the_blob_back(town: Town, tmp_path: Path) -> None:
    """The holder takes the want from the stick and puts the blob on it; another custodian takes both from there."""
    stick = tmp_path / "stick"
    town.write_want(stick, REF)
    holder = town.gateway("holder", CONTENT)
    first = holder.call("import", str(stick))
    assert (first.returncode, first.stderr) == (0, "")
    assert "0 blobs (0 bytes) and 1 want taken" in first.stdout
    (row,) = json.loads(holder.call("wants", "--json").stdout)
    assert (row["wanter"], row["blob"], row["state"], row["priority"]) == ("far", REF.sha256.hex(), "here", 3)
    exported = holder.call("export", str(stick))
    assert (exported.returncode, exported.stderr) == (0, "")
    assert f"{REF.sha256.hex()[:16]}   700.1 kB  for far" in exported.stdout
    assert (stick / "blobs" / "sha256" / REF.sha256.hex()).read_bytes() == CONTENT
    assert "is on the stick already, for far" in holder.call("export", str(stick)).stdout

    custodian = town.gateway("custodian")
    taken = custodian.call("import", str(stick))
    assert (taken.returncode, taken.stderr) == (0, "")
    assert "1 blob (700.1 kB) and 1 want taken, 0 blobs left alone, 0 wants known already, 0 failures" in taken.stdout
    path = custodian.directory / "blobs" / "blobs" / "sha256" / REF.sha256.hex()
    assert path.read_bytes() == CONTENT
    assert "is here already, for far" in custodian.call("import", str(stick)).stdout
    table = custodian.call("wants").stdout.splitlines()
    assert table[0].split() == ["blob", "for", "size", "come", "state", "since", "prio", "expires", "from"]
    assert table[1].split()[:6] == [REF.sha256.hex()[:16], "far", "700.1", "kB", "100", "%"]


def test_a_stick_is_not_believed(town: Town, tmp_path: Path) -> None:
    """What is damaged, what nobody wants and what nobody signed is named, left, and nothing of it is taken."""
    stick, damaged = tmp_path / "stick", random.Random(4).randbytes(50_000)
    town.write_want(stick, objects.describe_bytes(NETWORK, damaged))
    blobs = stick / "blobs" / "sha256"
    blobs.mkdir(parents=True)
    (blobs / hashlib.sha256(damaged).hexdigest()).write_bytes(damaged[:-1] + b"!")
    (blobs / REF.sha256.hex()).write_bytes(CONTENT)
    forged = WantOffer("", 0, (CarriedWant(Key.generate(NETWORK.node("far")).sign(NETWORK.prefix, b""), 5, 60.0),))
    (stick / "wants" / "forged.want").write_bytes(codec.encode(forged))
    (stick / "wants" / "noise.want").write_bytes(b"noise")
    gateway = town.gateway("gateway")
    result = gateway.call("import", str(stick))
    assert result.returncode == 1 and result.stderr == ""
    assert f"{REF.sha256.hex()[:16]}   700.1 kB  stays on the stick: nobody waits for it here" in result.stdout
    assert "is damaged: its 50000 bytes have the SHA-256" in result.stdout
    assert "forged.want  the want was not taken: not believed: " in result.stdout
    assert "noise.want  is no want: " in result.stdout
    assert "0 blobs (0 bytes) and 1 want taken, 1 blob left alone, 0 wants known already, 3 failures" in result.stdout
    assert not list((gateway.directory / "blobs" / "blobs" / "sha256").iterdir())


def test_mistakes_are_explained(town: Town, tmp_path: Path) -> None:
    """A directory that is no stick, a wanter that nobody knows and a gateway that does not run are named."""
    gateway = town.gateway("gateway")
    result = gateway.call("import", str(tmp_path / "nothing"))
    assert result.returncode == 1 and "has neither blobs/sha256 nor wants" in result.stderr
    result = gateway.call("export", str(tmp_path / "stick"), "--wants-of", "nobody")
    assert result.returncode == 0 and "0 wants and 0 blobs (0 bytes) put there, 0 failures" in result.stdout
    (tmp_path / "file").write_text("")
    result = gateway.call("export", str(tmp_path / "file"))
    assert result.returncode == 1 and "is the stick mounted and writable?" in result.stderr
    gateway.stop()
    result = gateway.call("export", str(tmp_path / "stick"))
    assert result.returncode == 1 and "start it with: picasso-gateway run" in result.stderr
