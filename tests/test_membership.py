"""Who a node is before it is enrolled, afterwards, and with a new key."""

from __future__ import annotations

import asyncio
import functools
from types import SimpleNamespace
from typing import Any

import pytest

from gateway.forwarder.endpoint import FetchError
from gateway.membership import FETCHES_MAX, Membership
from gateway.placement_client.identity import Identity
from gateway.protocol import keys, names
from gateway.protocol.errors import UnknownKey
from gateway.protocol.keys import Key
from gateway.protocol.trust import TrustStore

NETWORK = names.Network("/net")
NOW, YEAR_S = 1_800_000_000.0, 365 * 86400.0
ANCHOR, NODE, OTHER, STRANGER = (
    Key.generate(name) for name in (NETWORK.anchor, NETWORK.node("a"), NETWORK.node("b"), names.parse("/elsewhere"))
)


@functools.cache
def certified(key: Key, issuer: Key = ANCHOR) -> bytes:
    return issuer.certify(key.name, key.spki, NOW, YEAR_S, "anchor")


def identity(key: Key, *known: Key) -> Identity:
    trust = TrustStore(NETWORK, certified(ANCHOR))
    for each in (key, *known):
        trust.add_certificate(certified(each))
    return Identity("a", key, certified(key), trust)


def member(*known: Key) -> Membership:
    membership = Membership()
    membership.identity = identity(NODE, *known)
    return membership


def of_other() -> bytes:
    return OTHER.sign(NETWORK.report("b"), b"")


class Neighbor:
    """An endpoint whose other end has one certificate, or answers nothing."""

    def __init__(self, wire: bytes | None) -> None:
        self.wire = wire
        self.asked: list[tuple[bytes, dict[str, Any]]] = []

    async def express(self, name: bytes, **options: Any) -> Any:
        self.asked.append((name, options))
        await asyncio.sleep(0)
        if self.wire is None:
            raise FetchError("nothing came")
        return SimpleNamespace(wire=self.wire)


def learn(membership: Membership, neighbor: Any) -> bool:
    return asyncio.run(membership.learn(neighbor, 7, OTHER.name))


def test_a_plain_forwarder_signs_with_digests_and_believes_everybody() -> None:
    """Without an identity no key is known, none is learned, and none is asked for."""
    plain, neighbor = Membership(), Neighbor(certified(OTHER))
    assert keys.parse(plain.sign(NETWORK.report("a"), b"x")).key_name is None
    assert plain.verify(of_other()).name == NETWORK.report("b")
    plain.add_certificate(certified(OTHER))
    assert (list(plain.certificates), plain.certificate(OTHER.name)) == ([], None)
    assert not learn(plain, neighbor)
    assert neighbor.asked == []


def test_a_member_signs_with_its_key_and_believes_who_is_certified() -> None:
    """What it signs verifies; what a key signed that it does not know raises, until the certificate is there."""
    membership = member()
    assert membership.verify(membership.sign(NETWORK.report("a"), b"x")).content == b"x"
    with pytest.raises(UnknownKey):
        membership.verify(of_other())
    membership.add_certificate(certified(OTHER))
    membership.verify(of_other())
    assert membership.certificate(OTHER.name) == certified(OTHER)
    assert certified(OTHER) in membership.certificates


@pytest.mark.parametrize(
    ("answer", "is_learned"), [(certified(OTHER), True), (certified(OTHER, STRANGER), False), (None, False)]
)
def test_a_missing_certificate_is_asked_of_its_owner(answer: bytes | None, is_learned: bool) -> None:
    """It is asked for on the face where it is missing; a forged one, and silence, change nothing."""
    membership, neighbor = member(), Neighbor(answer)
    assert learn(membership, neighbor) is is_learned
    ((name, options),) = neighbor.asked
    assert (name, options["next_hop_face"]) == (OTHER.name, 7)
    assert (membership.certificate(OTHER.name) is not None) is is_learned
    assert learn(membership, neighbor) is is_learned, "and may be asked for again"


def test_certificates_are_asked_for_once_and_not_too_many_at_a_time() -> None:
    """The same key twice, and many keys at once, cost no more Interests than they should."""
    membership, neighbor = member(), Neighbor(None)
    endpoint: Any = neighbor
    wanted = [b"\x08\x01%c" % (97 + number) for number in (0, 0, *range(2 * FETCHES_MAX))]

    async def scene() -> None:
        await asyncio.gather(*(membership.learn(endpoint, 7, name) for name in wanted))

    asyncio.run(scene())
    assert len(neighbor.asked) == len({name for name, _ in neighbor.asked}) == FETCHES_MAX


def test_a_renewed_member_goes_on_believing_whom_it_believed() -> None:
    """The new key signs; certificates of before and those that came with the new identity are all known."""
    membership, third = member(OTHER), Key.generate(NETWORK.node("c"))
    trust = membership.identity.trust if membership.identity is not None else None
    new_key = Key.generate(NETWORK.node("a"))
    membership.renew(identity(new_key, third))
    assert membership.identity is not None
    assert membership.identity.key is new_key
    assert membership.identity.trust is trust, "others hold on to it"
    for key in (NODE, OTHER, third, new_key):
        assert membership.certificate(key.name) == certified(key)
