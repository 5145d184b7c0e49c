from __future__ import annotations

from gateway.placement_client.tips import FIRST_PAUSE_S, LONGEST_PAUSE_S, MAX_FACES, Tip, Tips


def test_the_greatest_number_is_taken_first_and_one_tip_a_face_is_kept():
    """Asking for the newest first saves the Interests for the others."""
    tips = Tips()
    for face, version in ((1, 3), (2, 9), (1, 5)):
        assert tips.add(Tip(face, f"n{face}", 1, version), now=0.0)
    assert [tip.version for tip in (tips.take(), tips.take())] == [9, 5]
    assert tips.take() is None


def test_a_face_whose_tip_was_false_is_not_listened_to_for_a_while():
    """A forged hello costs one Interest, then one in 30 s, then one in 60 s; the silence ends after ten minutes."""
    tips, now = Tips(), 0.0
    for pause_s in (FIRST_PAUSE_S, 2 * FIRST_PAUSE_S):
        assert tips.add(Tip(1, "evil", 9, 9), now)
        tips.take()
        tips.failed(1, now)
        assert not tips.add(Tip(1, "evil", 9, 9), now + pause_s - 1)
        now += pause_s
    for _ in range(10):
        tips.failed(1, now)
    assert tips.add(Tip(1, "evil", 9, 9), now + LONGEST_PAUSE_S)


def test_a_true_tip_clears_the_record_of_its_face():
    """An honest neighbour that lost a packet once is believed again."""
    tips = Tips()
    tips.failed(1, 0.0)
    tips.held(1)
    assert tips.add(Tip(1, "n1", 1, 1), 0.0)


def test_the_number_of_faces_remembered_is_bounded():
    """Hellos from ever new faces do not grow the memory."""
    tips = Tips()
    accepted = sum(tips.add(Tip(face, "n", 1, face), 0.0) for face in range(1000))
    assert accepted == len(tips) == MAX_FACES
