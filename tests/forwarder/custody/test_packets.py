"""Wants as packets: what is read of them, and how many an offer carries."""

from __future__ import annotations

import pytest

from gateway.forwarder.custody import packets
from gateway.forwarder.custody.wants import Limits, Offered, Wants
from gateway.protocol import codec, keys
from gateway.protocol.errors import MessageError
from gateway.protocol.messages import BlobRef, Want, WantOffer
from tests.forwarder.custody.want_world import NAMES, member

REF = BlobRef(b"x" * 32, 1000, b"y" * 32)


def signed(want: Want, version: int = 7) -> keys.Packet:
    name = NAMES.want(want.wanter, want.blob.sha256, version)
    return keys.parse(member(want.wanter)[0].sign(name, codec.encode(want)))


def test_reads_what_was_signed() -> None:
    """The want and its version, which is in the name."""
    want = Want(REF, "a", 3, 1.9e9, 3600.0, ("h1", "h2"))
    assert packets.read(NAMES, signed(want, 1 << 40)) == (want, 1 << 40)
    assert len(signed(want).wire) < 500


def test_a_want_under_another_name_is_none() -> None:
    """Its name says whose it is, and the rules of trust look at the name only."""
    packet = member("a")[0].sign(NAMES.want("a", REF.sha256, 7), codec.encode(Want(REF, "b")))
    with pytest.raises(MessageError, match="holds a want of 'b'"):
        packets.read(NAMES, keys.parse(packet))


def test_an_offer_fits_into_a_packet() -> None:
    """As many wants as fit, in order, each certificate once, and neither the reader's nor ours."""
    wants = Wants("me", Limits(1e6, 1 << 30))
    for number in range(40):
        wanter = ("me", "reader", "a", "b")[number % 4]
        want = Want(BlobRef(bytes([number]) * 32, 1000, b"y" * 32), wanter, 5, 0.0, 3600.0, ("holder-1", "holder-2"))
        offered = Offered(want, 7, signed(want).wire, member(wanter)[1], 5, 3600.0)
        wants.put_own(number, 0, offered) if wanter == "me" else wants.offer(number, 0, offered)
    entries = sorted(wants, key=lambda e: e.since)
    taken, offer = packets.fill(entries, 100.0, "reader", "me")
    assert taken == entries[: len(taken)] and 12 <= len(taken) < 40
    assert set(offer.certificates) == {member("a")[1], member("b")[1]}
    assert [each.hops for each in offer.wants[:2]] == [7, 4]
    assert offer.wants[0].left_s == 3600.0 - 100.0
    offer, count = packets.with_held(offer, [bytes([n]) * 32 for n in range(100)])
    assert count == len(offer.held) and len(codec.encode(offer)) <= packets.OFFER_MAX_BYTES
    _, count = packets.with_held(WantOffer("me"), [bytes([n]) * 32 for n in range(100)])
    assert count == packets.HELD_MAX
