"""Token buckets of a face: who is within them feels nothing, who is not loses Interests and nothing else."""

from __future__ import annotations

import pytest

from gateway.forwarder import packet
from gateway.forwarder.faces.base import Face
from gateway.forwarder.faces.limits import FaceLimits, Limits, TokenBucket
from gateway.protocol import keys, names

INTEREST = packet.encode_interest(names.parse("/p/x"))[1]
DATA = keys.sign_data(names.parse("/p/x"), b"")


def test_a_bucket_keeps_its_rate() -> None:
    """A bucket gives its burst and then its rate; a debt is paid off before anything else."""
    bucket = TokenBucket(10.0, 20.0, 0.0)
    bucket.spend(20, 0.0)
    assert not bucket.is_in_debt
    bucket.spend(30, 0.0)
    bucket.spend(0, 2.9)
    assert bucket.is_in_debt
    bucket.spend(0, 3.1)
    assert not bucket.is_in_debt
    bucket.spend(21, 1000.0)
    assert bucket.is_in_debt


@pytest.mark.parametrize("cause", ["interests", "entries", "replies", "unanswered"])
def test_each_limit_stops_interests(cause: str) -> None:
    """Whichever limit a face exceeds, its Interests are dropped and counted until the rate has paid for it."""
    face = Face("udp4://192.0.2.1:6363")
    limits = FaceLimits(face, Limits(interests_s=100, pit_entries_s=50, reply_bytes_s=10_000, unanswered_s=20), 0.0)
    assert not limits.is_exceeded(0.0)
    if cause == "interests":
        face.counters.in_interests += 200
        face.counters.out_data += 200
    elif cause == "unanswered":
        face.counters.in_interests += 60
        face.counters.out_data += 15
    elif cause == "entries":
        limits.on_entries(100)
    else:
        face.counters.out_data_bytes += 20_000
    assert limits.is_exceeded(0.1)
    assert limits.is_exceeded(0.8)
    assert limits.without_interests([INTEREST, DATA, packet.encode_link(INTEREST, pit_token=b"t")]) == [DATA]
    assert limits.dropped == 2 and limits.debt_s > 0.0
    assert not limits.is_exceeded(2.1) and limits.debt_s == 0.0


def test_what_is_no_interest_passes() -> None:
    """Data, Nacks, IDLE and bytes that are no packet pass a face in debt: they cost what they cost anyway."""
    nack = packet.encode_link(INTEREST, nack_reason=packet.NACK_NO_ROUTE)
    wires = [DATA, packet.encode_link(DATA, congestion_mark=1), nack, b"\x64\x00", b"", b"\x64\x05x"]
    assert FaceLimits(Face(""), Limits(), 0.0).without_interests(wires) == wires


def test_a_long_quiet_does_not_save_up() -> None:
    """A face that was quiet for an hour has one second's worth, no more."""
    face = Face("")
    limits = FaceLimits(face, Limits(interests_s=100), 0.0)
    face.counters.in_interests += 101
    face.counters.out_data += 101
    assert limits.is_exceeded(3600.0)


def test_the_defaults_carry_a_gigabit() -> None:
    """A face at 1 Gbit/s of 8 kB segments, for a minute, is never limited."""
    face = Face("")
    limits = FaceLimits(face, Limits(), 0.0)
    for ms in range(0, 60_000, 20):
        face.counters.in_interests += 313
        face.counters.out_data += 313
        face.counters.out_data_bytes += 313 * 8000
        limits.on_entries(313)
        assert not limits.is_exceeded(ms / 1000)
