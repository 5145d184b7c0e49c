import pytest

from controller import enrolment as module
from controller.enrolment import Enrolment, TokenBucket
from gateway.protocol import keys, names
from gateway.protocol.keys import Key
from gateway.protocol.messages import EnrolReply, EnrolRequest
from gateway.protocol.trust import enrol_proof
from tests.controller.fakes import NOW, Home

SECRET = b"s" * 16
NETWORK = names.Network("/net")


@pytest.fixture
def enrolment(home: Home) -> Enrolment:
    home.store.add_token("t1", "n1", SECRET, NOW + 100)
    return Enrolment(home.store, home.authority.certify_node)


def make(enrolment: Enrolment, node: str = "n1", secret: bytes = SECRET, now: float = NOW) -> EnrolRequest:
    nonce = enrolment.nonce("t1", now)
    assert nonce is not None
    spki = Key.generate(NETWORK.node(node)).spki
    return EnrolRequest(node, spki, nonce, enrol_proof(secret, nonce, node, spki))


def send(enrolment: Enrolment, request: EnrolRequest, now: float = NOW) -> EnrolReply:
    reply = enrolment.request("t1", request, now)
    assert reply is not None
    return reply


def test_holder_of_the_token_gets_a_certificate_of_its_key(home: Home, enrolment: Enrolment) -> None:
    """The certificate is of the key that was sent, below the node's name, and the node is enrolled."""
    request = make(enrolment)
    reply = send(enrolment, request)
    packet = home.authority.trust.add_certificate(reply.certificate, NOW)
    assert packet.content == request.public_key and packet.name.startswith(NETWORK.node("n1") + keys.KEY)
    row = home.store.node("n1")
    assert row is not None and row.certificate == reply.certificate


def test_token_is_good_for_one_key_once(home: Home, enrolment: Enrolment) -> None:
    """Another key is refused afterwards; the same key, whose reply was lost, gets a certificate again."""
    first = make(enrolment)
    assert send(enrolment, first).certificate
    assert "was used already" in send(enrolment, make(enrolment)).refusal
    nonce = enrolment.nonce("t1", NOW)
    assert nonce is not None
    proof = enrol_proof(SECRET, nonce, "n1", first.public_key)
    assert send(enrolment, EnrolRequest("n1", first.public_key, nonce, proof)).certificate


def test_every_wrong_part_is_refused(home: Home, enrolment: Enrolment) -> None:
    """A wrong secret, a wrong node, no Ed25519 key: each refusal has its reason, and the token stays good."""
    assert "proof" in send(enrolment, make(enrolment, secret=b"x" * 16)).refusal
    assert "is for node 'n1', not for 'n2'" in send(enrolment, make(enrolment, node="n2")).refusal
    nonce = enrolment.nonce("t1", NOW)
    assert nonce is not None
    request = EnrolRequest("n1", b"junk", nonce, enrol_proof(SECRET, nonce, "n1", b"junk"))
    assert "not an Ed25519 public key" in send(enrolment, request).refusal
    assert home.store.node("n1") is None
    assert send(enrolment, make(enrolment)).certificate


def test_nonce_is_good_once_and_for_a_minute(enrolment: Enrolment) -> None:
    """A repeated, an invented and an old nonce are refused."""
    request = make(enrolment, secret=b"x" * 16)
    send(enrolment, request)
    assert "nonce" in send(enrolment, request).refusal
    invented = EnrolRequest("n1", b"k", b"n" * 16, enrol_proof(SECRET, b"n" * 16, "n1", b"k"))
    assert "nonce" in send(enrolment, invented).refusal
    assert "nonce" in send(enrolment, make(enrolment), NOW + 61).refusal


def test_expired_token_is_refused(enrolment: Enrolment) -> None:
    """After its time a token that was not used is void."""
    assert "has expired" in send(enrolment, make(enrolment, now=NOW + 101), NOW + 101).refusal


def test_unknown_token_gets_no_answer(enrolment: Enrolment) -> None:
    """Nobody learns from us which tokens there are not."""
    assert enrolment.nonce("nope", NOW) is None
    assert enrolment.request("nope", make(enrolment), NOW) is None


def test_guessing_is_slowed_down_and_does_not_lock_the_token(enrolment: Enrolment) -> None:
    """Many wrong proofs are refused unread; after a while the owner of the token gets through."""
    refusals = [send(enrolment, make(enrolment, secret=b"x" * 16)).refusal for _ in range(20)]
    assert sum("too many attempts" in refusal for refusal in refusals) == 20 - int(module.ATTEMPTS_PER_TOKEN)
    assert send(enrolment, make(enrolment, now=NOW + 10), NOW + 10).certificate


def test_nonces_of_a_token_are_bounded(enrolment: Enrolment) -> None:
    """Whoever asks for nonces without end displaces only the oldest of the same token."""
    given = [enrolment.nonce("t1", NOW) for _ in range(100)]
    spki = Key.generate(NETWORK.node("n1")).spki
    old, new = given[0], given[-1]
    assert old is not None and new is not None
    assert "nonce" in send(enrolment, EnrolRequest("n1", spki, old, enrol_proof(SECRET, old, "n1", spki))).refusal
    assert send(enrolment, EnrolRequest("n1", spki, new, enrol_proof(SECRET, new, "n1", spki))).certificate


def test_bucket_refills_with_time_and_never_beyond_its_capacity() -> None:
    """Two at once, then one a second; a clock that goes back gives nothing."""
    bucket = TokenBucket(2.0, 1.0)
    assert [bucket.take(0.0) for _ in range(3)] == [True, True, False]
    assert bucket.take(1.0) and not bucket.take(1.5)
    assert not bucket.take(-100.0)
    assert [bucket.take(1000.0) for _ in range(3)] == [True, True, False]
