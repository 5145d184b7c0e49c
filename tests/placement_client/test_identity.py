from __future__ import annotations

import stat

import pytest

from gateway.placement_client.identity import Identity, IdentityStore
from gateway.protocol import keys
from gateway.protocol.keys import Key


@pytest.fixture
def store(world, tmp_path):
    return IdentityStore(tmp_path / "state", world.network, "n1")


def enrol(world, store):
    """Writes a whole identity, as enrolment does."""
    key, trust = store.make_key(), world.trust()
    for wire in world.shelf.packets.values():
        if keys.is_certificate(keys.parse(wire)):
            trust.add_certificate(wire)
    certificate = world.controller.certify(key.name, key.spki, world.now, 1e6, "controller")
    trust.add_certificate(certificate)
    store.save(Identity("n1", key, certificate, trust))
    return key, certificate


def test_an_empty_directory_is_a_node_that_is_not_enrolled(store):
    """Nothing there is no problem: a plain forwarder has no identity."""
    assert store.load() is None
    assert store.problems == {}


def test_what_was_saved_is_loaded_with_everything_it_trusts(world, store):
    """Key, certificate, anchor and the certificates of others come back, and the key is readable by its owner only."""
    key, certificate = enrol(world, store)
    identity = store.load()
    assert identity.key.name == key.name and identity.certificate == certificate
    identity.trust.verify(world.one_service())
    assert stat.S_IMODE((store.directory / "identity.key").stat().st_mode) == 0o600
    assert store.problems == {}


@pytest.mark.parametrize("name", ["anchor.ndn", "identity.key", "identity.ndn"])
@pytest.mark.parametrize("content", [b"", b"\xff\x00random", b"Name: /x\n-----BEGIN"])
def test_a_damaged_file_is_named_and_left_as_it_is(world, store, name, content):
    """The node counts as not enrolled, says why, and the file is there for its owner to look at."""
    enrol(world, store)
    (store.directory / name).write_bytes(content)
    assert store.load() is None
    assert list(store.problems) == [name]
    assert (store.directory / name).read_bytes() == content


def test_a_certificate_of_another_key_is_no_identity(world, store):
    """A certificate that does not fit the key is named as the problem."""
    enrol(world, store)
    other = Key.generate(world.network.node("n1"))
    wire = world.controller.certify(other.name, other.spki, world.now, 1e6, "controller")
    (store.directory / "identity.ndn").write_bytes(wire)
    assert store.load() is None
    assert "does not certify this node's key" in store.problems["identity.ndn"]


def test_the_key_of_another_node_is_not_used(world, store):
    """After a change of `option node` the old key is set aside, not signed with and not lost."""
    enrol(world, store)
    renamed = IdentityStore(store.directory, world.network, "n2")
    assert renamed.load() is None
    assert "not of node 'n2'" in renamed.problems["identity.key"]
    old = (store.directory / "identity.key").read_bytes()
    assert renamed.make_key().identity == world.network.node("n2")
    assert (store.directory / "identity.key.damaged").read_bytes() == old


def test_a_damaged_certificate_of_another_is_reported_and_the_rest_is_used(world, store):
    """One broken file among the certificates does not make the node a stranger."""
    enrol(world, store)
    (store.directory / "certificates" / "00.ndn").write_bytes(b"\x06\x01")
    assert store.load() is not None
    assert list(store.problems) == ["certificates/00.ndn"]


def test_a_lost_certificate_of_the_controller_does_not_end_the_membership(world, store):
    """The node's own certificate need not be proven to itself; only what others say waits for the issuer's."""
    enrol(world, store)
    for path in (store.directory / "certificates").iterdir():
        path.unlink()
    assert store.load().node == "n1"
    assert store.problems == {}


def test_making_a_key_twice_gives_the_same_key(store):
    """A retried enrolment proves the same key, so that a reply that was lost does not spend the token."""
    assert store.make_key().name == store.make_key().name


def test_every_boot_has_a_greater_number(store):
    """The counter survives restarts, and a damaged one goes on from the clock, above every count."""
    assert [store.next_boot(now=1e9) for _ in range(3)] == [1, 2, 3]
    (store.directory / "boot_counter").write_bytes(b"\x80junk")
    assert store.next_boot(now=1e9) == 10**9 + 1
    assert store.next_boot(now=5.0) == 10**9 + 2
    assert (store.directory / "boot_counter.damaged").read_bytes() == b"\x80junk"
