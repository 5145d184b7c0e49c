"""Offers judged one by one: what is refused for now, what for good, and what is counted."""

from __future__ import annotations

import logging
from collections.abc import Callable

import pytest

from gateway.forwarder.custody.reception import BUSY, CHECKS_BURST, CHECKS_PER_S, Reception
from gateway.forwarder.custody.wants import Limits, Offered, Wants
from gateway.protocol import codec
from gateway.protocol.messages import BlobRef, CarriedWant, Want, WantAnswer, WantOffer
from tests.forwarder.custody.want_world import NAMES, NOW, Member, member

HOUR_S = 3600.0
MB = 1 << 20


class Node:
    """A reception with its table, of the node `me`, that knows its own key alone and holds the blobs in `here`."""

    def __init__(self, per_wanter_max: int = 100) -> None:
        self.now = 0.0
        self.here: dict[bytes, BlobRef] = {}
        self.withdrawn: list[bytes] = []
        self.stale: list[Offered] = []
        self.wants = Wants("me", Limits(72 * HOUR_S, 1000 * MB, per_wanter_max=per_wanter_max))
        self.reception = Reception(
            self.wants,
            NAMES,
            Member("me"),
            self,
            now=lambda: self.now,
            now_unix=lambda: NOW,
            on_withdrawn=self.withdrawn.append,
            on_stale_own=self.stale.append,
        )

    def is_here(self, sha256: bytes) -> bool:
        return sha256 in self.here

    def ref(self, sha256: bytes) -> BlobRef | None:
        return self.here.get(sha256)

    def take(self, *wants: bytes, certificates: tuple[bytes, ...] = (), face_id: int = 1) -> WantAnswer:
        carried = tuple(CarriedWant(packet, 4, HOUR_S) for packet in wants)
        return self.reception.take(WantOffer("n", 1, carried, certificates), None, face_id)


def blob(number: int) -> BlobRef:
    return BlobRef(bytes([number]) * 32, MB, bytes([number, 1]) * 16)


def want(wanter: str, ref: BlobRef, *, version: int = 1, signer: str = "", withdrawn: bool = False) -> bytes:
    content = codec.encode(Want(ref, wanter, lifetime_s=HOUR_S, withdrawn=withdrawn))
    return member(signer or wanter)[0].sign(NAMES.want(wanter, ref.sha256, version), content)


def refused(answer: WantAnswer) -> list[tuple[int, bool, str]]:
    """What was refused, whether it may be taken in a moment, and the first word of the reason."""
    return [(each.index, each.is_passing, each.reason.split()[0]) for each in answer.refusals]


def test_a_want_whose_certificate_is_missing_may_be_offered_again(caplog: pytest.LogCaptureFixture) -> None:
    """It is refused for now, is neither counted nor logged as not believed, and taken as soon as the key is known."""
    caplog.set_level(logging.DEBUG)
    node, packet = Node(), want("a", blob(1))
    assert refused(node.take(packet)) == [(0, True, "not")]
    assert (node.reception.not_believed, caplog.messages) == (0, [])
    assert node.take(packet, certificates=(member("a")[1],)) == WantAnswer()
    assert [entry.key for entry in node.wants] == [("a", blob(1).sha256)]


@pytest.mark.parametrize(
    "make",
    [
        lambda: want("a", blob(1), signer="me"),
        lambda: want("a", blob(1))[:-4] + bytes(4),
        lambda: member("a")[0].sign(NAMES.want("a", blob(1).sha256, 1), b"not known yet"),
    ],
    ids=["another's signature", "a damaged one", "no want"],
)
def test_a_want_that_is_not_believed_is_refused_for_good(make: Callable[[], bytes]) -> None:
    """Whatever words the sender brings into the reason, offering it again is of no use; it is counted."""
    node = Node()
    assert refused(node.take(make(), certificates=(member("a")[1],))) == [(0, False, "not")]
    assert node.reception.not_believed == 1


def test_a_face_that_has_had_its_checks_is_told_to_come_again() -> None:
    """The refusal is passing; another face is served meanwhile, and this one again when time has passed."""
    node, known = Node(), (member("a")[1],)
    forged = want("a", blob(1), signer="me")
    node.take(*[forged] * CHECKS_BURST, certificates=known)
    answer = node.take(want("a", blob(2)), certificates=known)
    assert [(each.is_passing, each.reason) for each in answer.refusals] == [(True, BUSY)]
    assert node.take(want("a", blob(3)), certificates=known, face_id=2) == WantAnswer()
    node.now = 1 / CHECKS_PER_S
    assert node.take(want("a", blob(2)), certificates=known) == WantAnswer()
    assert node.reception.not_believed == CHECKS_BURST


def test_a_want_that_is_known_costs_no_check() -> None:
    """A busy face may repeat what was taken before."""
    node, known = Node(), (member("a")[1],)
    packet = want("a", blob(1))
    node.take(packet, *[want("a", blob(2), signer="me")] * CHECKS_BURST, certificates=known)
    assert refused(node.take(packet, want("a", blob(3)))) == [(1, True, "busy:")]


def test_a_refusal_of_the_table_is_for_good_and_tells_what_is_here() -> None:
    """A wanter with too many wants is refused, but learns that the blob is here; each row stands for itself."""
    node, refs = Node(per_wanter_max=1), [blob(1), blob(2)]
    node.here = {refs[1].sha256: refs[1]}
    answer = node.take(*(want("a", ref) for ref in refs), certificates=(member("a")[1],))
    assert refused(answer) == [(1, False, "its")]
    assert answer.held == (refs[1].sha256,)


def test_a_withdrawn_want_is_told_of_once() -> None:
    """Whoever keeps a want learns of its end; the blob is not offered for it, and a copy of it says nothing new."""
    node, known, ref = Node(), (member("a")[1],), blob(1)
    node.take(want("a", ref), certificates=known)
    node.here = {ref.sha256: ref}
    end = want("a", ref, version=2, withdrawn=True)
    assert node.take(end) == node.take(end) == WantAnswer()
    assert node.withdrawn == [ref.sha256]


def test_an_own_want_that_others_still_keep_is_told_of() -> None:
    """A want of this node that it does not know any more is to be withdrawn; it is no refusal."""
    node = Node()
    assert node.take(want("me", blob(1))) == WantAnswer()
    assert [each.want.blob for each in node.stale] == [blob(1)]
