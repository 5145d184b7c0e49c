"""batman-adv's originators, from bytes laid out as linux/batman_adv.h has them: the module is on few machines."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.monitor import batman
from gateway.monitor.batman import Originator, parse_originator

# One message of the answer to BATADV_CMD_GET_ORIGINATORS: nlmsghdr, genlmsghdr, attributes.
BEST = bytes.fromhex(
    "50000000 1d00 0200 01000000 00000000"  # 80 bytes, family 29, NLM_F_MULTI
    "08 01 0000"  # BATADV_CMD_GET_ORIGINATORS, version 1
    "0a000900 02aabbccdd01 0000"  # ORIG_ADDRESS, padded
    "0a001800 02aabbccdd02 0000"  # NEIGH_ADDRESS
    "08000600 03000000"  # HARD_IFINDEX 3
    "05001900 f0000000"  # TQ 240
    "08001700 e8030000"  # LAST_SEEN_MSECS 1000
    "04001600"  # FLAG_BEST
    "08001a00 90d00300"  # THROUGHPUT 250,000 kbit/s
)
LAST_SEEN = bytes.fromhex("08001700 e8030000")


def test_best_originator() -> None:
    """The mesh goes to 02:…:01 by 02:…:02 on device 3."""
    assert len(BEST) == struct.unpack_from("=I", BEST)[0]
    assert parse_originator(BEST) == Originator("02:aa:bb:cc:dd:01", "02:aa:bb:cc:dd:02", 3, 240, 250_000)


def test_others_are_left_out() -> None:
    """A second-best neighbour, one that was not heard for a minute, and half an address are no way."""
    assert parse_originator(BEST.replace(bytes.fromhex("04001600"), bytes.fromhex("04002600"))) is None
    silent = LAST_SEEN[:4] + struct.pack("=I", 60_000)
    assert parse_originator(BEST.replace(LAST_SEEN, silent)) is None
    assert parse_originator(BEST.replace(bytes.fromhex("0a000900"), bytes.fromhex("09000900"))) is None


def test_a_figure_of_another_size_is_none() -> None:
    """A quality of four bytes is not read as one of one byte."""
    odd = BEST.replace(bytes.fromhex("05001900"), bytes.fromhex("08001900"))
    assert parse_originator(odd) == Originator("02:aa:bb:cc:dd:01", "02:aa:bb:cc:dd:02", 3, None, 250_000)


@given(st.binary(max_size=120))
def test_any_bytes_are_parsed_or_refused(tail: bytes) -> None:
    """Whatever follows the header is an originator, none, or a ValueError."""
    try:
        found = parse_originator(BEST[:20] + tail)
    except ValueError:
        return
    assert found is None or len(found.mac) == 17


def test_no_attribute_runs_over_the_end() -> None:
    """A length beyond the message is refused."""
    with pytest.raises(ValueError, match="bytes in a message"):
        parse_originator(BEST[:29])


def test_kernel_without_batman() -> None:
    """Where no such family is registered there are no originators, and that is no error."""
    assert list(batman.originators([1])) == []
