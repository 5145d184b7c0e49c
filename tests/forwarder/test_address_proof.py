"""The reflector limit, pure: what an unproven peer may get, and what proves it."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from gateway.forwarder import packet
from gateway.forwarder.faces.address_proof import AMPLIFICATION, ASK_AGAIN_S, HELD_MAX_BYTES, AddressProof
from gateway.protocol import keys, names

COOKIE = b"12345678"


def asked() -> tuple[AddressProof, bytes]:
    """A peer that has sent 100 bytes, and the question to it."""
    proof = AddressProof(COOKIE)
    proof.on_received(100)
    question = proof.question(0.0)
    assert question is not None
    return proof, question


def test_the_question_is_a_hello_that_only_the_peer_sees() -> None:
    """The question is an Interest below the hello's name with the cookie in it, and is not asked without need."""
    proof, question = asked()
    name = packet.decode_interest(question).name
    assert names.to_uri(name) == "/localhop/picasso/hello/32=ask/12345678"
    assert proof.question(ASK_AGAIN_S - 0.1) is None
    assert proof.question(ASK_AGAIN_S) is not None


def test_data_and_nack_prove_and_nothing_else_does() -> None:
    """The cookie in an answer of either kind proves the address; packets without it do not."""
    for answer in (lambda i: keys.sign_data(packet.decode_interest(i).name, b""), nack):
        proof, question = asked()
        assert not proof.is_answer(keys.sign_data(names.HELLO, b"")) and not proof.is_proven
        assert proof.is_answer(answer(question)) and proof.is_proven
        assert proof.question(100.0) is None


def nack(interest: bytes) -> bytes:
    return packet.encode_link(interest, nack_reason=packet.NACK_NO_ROUTE)


@given(st.lists(st.tuples(st.booleans(), st.integers(0, 9000)), max_size=60))
def test_never_more_than_three_times(moves: list[tuple[bool, int]]) -> None:
    """In any order of packets, what is sent stays within three times what came, the questions included."""
    proof, came, went = AddressProof(COOKIE), 0, 0
    for now, (is_in, size) in enumerate(moves):
        if is_in:
            proof.on_received(size)
            came += size
            question = proof.question(float(now))
            went += len(question or b"")
        elif proof.may_send(size):
            went += size
        assert went <= AMPLIFICATION * came


def test_answers_wait_within_bounds() -> None:
    """A first window of segments waits for the proof in its order; more is refused, and nothing is given twice."""
    proof, _ = asked()
    kept = 0
    while proof.hold(bytes([kept]) * 8000, True):
        kept += 1
    assert kept == HELD_MAX_BYTES // 8000 >= 4
    assert [wire[0] for wire, _ in proof.release()] == list(range(kept))
    assert proof.release() == [] and proof.hold(bytes(8000), True)
