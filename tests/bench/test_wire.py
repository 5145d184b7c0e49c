"""The load tool's packets are those that the forwarder's codec makes and reads."""

from __future__ import annotations

import random

from hypothesis import given
from hypothesis import strategies as st

from bench.producer import register_command
from bench.wire import FIRST_NUMBER, Answers, Interests
from gateway.forwarder import packet
from gateway.protocol import names

PREFIX = names.parse("/bench/data")
numbers = st.lists(st.integers(FIRST_NUMBER, 2**32 - 1), min_size=1, max_size=64)


@given(numbers)
def test_full_interests_have_every_field(wanted: list[int]) -> None:
    """With `is_full` each has a PIT token, MustBeFresh, a lifetime and a hop limit, and its answer is counted."""
    wires, _ = packet.split_stream(bytes(Interests(PREFIX, 64, is_full=True).ask(wanted)))
    links = [packet.decode_link(wire) for wire in wires]
    decoded = [packet.decode_interest(link.fragment) for link in links]
    assert [interest.name for interest in decoded] == [PREFIX + names.segment(number) for number in wanted]
    assert all(one.must_be_fresh and one.hop_limit == 16 and one.lifetime_ms == 3000 for one in decoded)
    assert len({interest.nonce for interest in decoded}) == len(wanted)
    plain, full = Answers(PREFIX, 100, 1), Answers(PREFIX, 100, 1, is_full=True)
    answers = b"".join(
        packet.encode_link(plain.answer(one.name), pit_token=link.pit_token)
        for one, link in zip(decoded, links, strict=True)
    )
    assert full.count(bytearray(answers), len(answers)) == len(wanted)


@given(numbers)
def test_interests_are_asked_for_by_number(wanted: list[int]) -> None:
    """A batch is one well-formed Interest a number, each with a nonce of its own."""
    interests = Interests(PREFIX, 64)
    packets, _ = packet.split_stream(bytes(interests.ask(wanted)))
    decoded = [packet.decode_interest(wire) for wire in packets]
    assert [interest.name for interest in decoded] == [PREFIX + names.segment(number) for number in wanted]
    assert len({interest.nonce for interest in decoded}) == len(wanted)


@given(numbers, st.integers(0, 8000))
def test_answers_are_counted_and_name_what_was_asked(wanted: list[int], content_bytes: int) -> None:
    """A producer's batch answers the numbers of the Interests, and a consumer counts it whole, the rest kept back."""
    interests, answers = Interests(PREFIX, 64), Answers(PREFIX, content_bytes, 64)
    asked = bytearray(interests.ask(wanted))
    assert interests.count(asked, len(asked)) == len(wanted)
    wires = bytes(answers.with_numbers(interests.numbers(asked, len(wanted))))
    packets, _ = packet.split_stream(wires)
    decoded = [packet.decode_data(wire) for wire in packets]
    assert [data.name for data in decoded] == [PREFIX + names.segment(number) for number in wanted]
    assert all(len(data.content) == content_bytes for data in decoded)
    assert answers.count(bytearray(wires), len(wires)) == len(wanted)
    assert answers.count(bytearray(wires), len(wires) - 1) == len(wanted) - 1


def test_other_packets_are_not_counted() -> None:
    """A Nack among the answers, or a lone one, is never taken for Data."""
    answers = Answers(PREFIX, 100, 4)
    data = answers.answer(PREFIX + names.segment(FIRST_NUMBER))
    nack = packet.encode_link(packet.encode_interest(PREFIX)[1], nack_reason=150)
    for wire in (nack, data + nack, nack + data, data + nack + data):
        assert answers.count(bytearray(wire), len(wire)) is None


def test_register_command_is_signed() -> None:
    """The command has the four components of the older signed form behind the parameters."""
    random.seed(1)
    interest = packet.decode_interest(register_command(PREFIX))
    parts = names.components(interest.name)
    assert [names.to_uri(part) for part in parts[:4]] == ["/localhost", "/nfd", "/rib", "/register"]
    assert len(parts) == 9
