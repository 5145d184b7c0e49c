"""When a service counts as healthy."""

from __future__ import annotations

from gateway.executor.health import START_INTERVAL_S, Health
from gateway.protocol.messages import HealthCheck

CHECK = HealthCheck(path="/", port=1)


def test_it_is_asked_often_until_the_first_good_answer_and_then_as_specified() -> None:
    """Half a second while it starts, ten seconds once it is healthy."""
    health = Health.begin(CHECK, 100.0, 100.0)
    assert (health.state, health.next_check_s) == ("unknown", 100.0)
    health = health.on_result("refused", 100.0)
    assert (health.state, health.next_check_s) == ("unknown", 100.0 + START_INTERVAL_S)
    health = health.on_result("", 100.5)
    assert (health.state, health.healthy_since_s, health.next_check_s) == ("healthy", 100.5, 110.5)


def test_failures_count_after_the_grace_and_three_make_it_unhealthy() -> None:
    """Fifteen seconds of grace, then three failures in a row."""
    health = Health.begin(CHECK, 0.0, 0.0)
    for now_s in (1.0, 5.0, 14.9, 15.0, 15.5):
        health = health.on_result("refused", now_s)
        assert health.state == "unknown"
    assert health.on_result("refused", 16.0).state == "unhealthy"


def test_one_good_answer_forgets_the_failures() -> None:
    """Two failures, a good answer and two failures leave it healthy, since its first good answer."""
    health = Health.begin(CHECK, 0.0, 0.0).on_result("", 1.0)
    for problem, now_s in (("x", 11.0), ("x", 21.0), ("", 31.0), ("x", 41.0), ("x", 51.0)):
        health = health.on_result(problem, now_s)
    assert (health.state, health.healthy_since_s) == ("healthy", 1.0)
    assert health.on_result("x", 61.0).state == "unhealthy"


def test_without_a_check_what_runs_is_healthy() -> None:
    """There is nothing to ask and nothing to wait for."""
    health = Health.begin(None, 5.0, 9.0)
    assert (health.state, health.healthy_since_s, health.next_check_s) == ("healthy", 5.0, None)
