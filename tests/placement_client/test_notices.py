"""When a failure is said, and how loudly."""

from __future__ import annotations

import logging

import pytest

from gateway.placement_client.notices import STARTING_S, Notices


def test_what_settles_in_the_first_seconds_is_no_warning(caplog: pytest.LogCaptureFixture) -> None:
    """It is INFO at the start, a warning once it lasts, said once each; what was not expected is one at once."""
    times = [0.0]
    notices = Notices(logging.getLogger("test"), lambda: times[-1])
    caplog.set_level(logging.INFO)
    for at in (0.0, 1.0, STARTING_S, STARTING_S + 1):
        times.append(at)
        notices.tell("executor", "no such file", expected_at_start=True)
    assert [record.levelname for record in caplog.records] == ["INFO", "WARNING"]
    caplog.clear()
    times.append(0.0)
    notices.tell("disk", "full")
    notices.tell("disk", "")
    notices.tell("disk", "full")
    assert [record.levelname for record in caplog.records] == ["WARNING", "WARNING"]
