"""What the daemon and the commands open alike: settings, keys, database and the repository of one controller."""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path

from controller import settings as configuration
from controller.authority import Authority, make_private
from controller.errors import ControllerError, RepositoryInUse
from controller.repository.publication import Repository
from controller.settings import Settings
from controller.store import Store
from gateway.forwarder.producer import BlobStore
from gateway.protocol import names
from gateway.protocol.errors import ProtocolError


def load_settings(path: Path) -> Settings:
    """The settings in a file; raises ControllerError with everything that is wrong with it, line by line."""
    settings, problems = configuration.load(path)
    if settings is None:
        raise ControllerError("\n".join(str(problem) for problem in problems))
    return settings


def network_of(settings: Settings) -> names.Network:
    return names.Network(settings.network)


def control_path(settings: Settings) -> Path:
    return settings.state_dir / "controller.sock"


def open_store(settings: Settings, verify: bool = False) -> Store:
    return Store(settings.database, verify)


def open_authority(settings: Settings, store: Store) -> Authority:
    """The keys, with the certificates of all providers and nodes in the trust store; a bad one is left out."""
    authority = Authority(settings.state_dir, network_of(settings))
    add_certificates(authority, store)
    return authority


def add_certificates(authority: Authority, store: Store) -> list[str]:
    """Takes all certificates and revocations into the trust store; returns what is wrong with those it refuses."""
    problems = []
    wires = [(str(path), path) for path in sorted((authority.state_dir / "providers").glob("*.ndn"))]
    found = [(label, path.read_bytes()) for label, path in wires]
    found += [(f"the certificate of node {row.name}", row.certificate) for row in store.nodes()]
    for label, wire in found:
        try:
            authority.trust.add_certificate(wire)
        except ProtocolError as error:
            problems.append(f"{label}: {error}")
    authority.trust.revoked = frozenset(store.revocations())
    return problems


def open_blobs(settings: Settings) -> BlobStore:
    """The blob store of the repository; the caller holds the repository's lock. Nothing in it is ever evicted."""
    try:
        make_private(settings.repository_dir)
        blobs = BlobStore(settings.repository_dir, network_of(settings))
    except OSError as error:
        raise ControllerError(f"repository {settings.repository_dir}: {error.strerror or error}") from error
    pin_all(blobs)
    return blobs


def pin_all(blobs: BlobStore) -> None:
    """What was published stays until it is removed, however full the disk is: this is where it comes from."""
    blobs.pin({ref.sha256 for ref in blobs.complete()})


def open_repository(settings: Settings, blobs: BlobStore, store: Store) -> Repository:
    return Repository(blobs, store, settings.repository_dir)


@contextlib.contextmanager
def repository_lock(settings: Settings) -> Iterator[None]:
    """Only one process may write into the repository; raises RepositoryInUse when another does."""
    path = settings.state_dir / "repository.lock"
    try:
        handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise ControllerError(f"{path}: {error.strerror}; run `picasso-controller init` first") from error
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    except BlockingIOError as error:
        raise RepositoryInUse(f"{path} is held: another picasso-controller uses this repository") from error
    finally:
        os.close(handle)
