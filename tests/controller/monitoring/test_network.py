from controller.monitoring.network import NetworkState
from gateway.protocol.messages import ServiceStatus
from tests.controller.fakes import report


def known(*nodes: str) -> NetworkState:
    state = NetworkState(10.0)
    state.know(dict.fromkeys(nodes), 0.0)
    return state


def test_every_node_is_asked_once_an_interval() -> None:
    """New nodes are due at once, then again after the interval from their answer."""
    state = known("a", "b")
    assert state.due(0.0) == ["a", "b"] and state.due(0.0) == []
    state.heard("a", report("a"), 2.0)
    assert state.next_deadline() == 10.0
    assert state.due(10.0) == ["b"] and state.due(12.0) == ["a"]


def test_silent_node_is_asked_again_soon_then_less_often() -> None:
    """Retries double from a second up to the interval, and an answer ends them."""
    state = NetworkState(10.0)
    state.know({"a": report("a")}, 0.0)
    waits, now = [], 0.0
    for _ in range(6):
        state.failed("a", now)
        deadline = state.next_deadline()
        assert deadline is not None
        waits.append(deadline - now)
        now = deadline
    assert waits == [1.0, 2.0, 4.0, 8.0, 10.0, 10.0]
    state.heard("a", report("a"), now)
    state.failed("a", now)
    assert state.next_deadline() == now + 1.0


def test_node_that_just_enrolled_is_asked_again_every_second_for_a_minute() -> None:
    """Its route comes with its first hello, at any moment; one that stays silent is then asked like any other."""
    state, asked = known("a"), []
    now = 0.0
    while now < 200.0:
        state.failed("a", now)
        now = state.next_deadline() or 0.0
        asked.append(now)
    assert asked[:60] == [float(at) for at in range(1, 61)]
    assert asked[60:65] == [61.0, 63.0, 67.0, 75.0, 85.0]


def test_crash_loop_counts_from_the_second_report_in_a_row() -> None:
    """One report may be bad luck; two make a crash-loop, another generation and a good report begin anew."""
    state = known("a")

    def hear(*states: ServiceStatus) -> frozenset[tuple[str, str]]:
        state.heard("a", report("a", services=states), 1.0)
        return state.crash_loops(1.0)

    looping = ServiceStatus("web", 1, "crash-loop")
    assert hear(looping) == frozenset()
    assert hear(looping) == {("a", "web")}
    assert hear(ServiceStatus("web", 2, "crash-loop")) == frozenset()
    assert hear(looping, ServiceStatus("db", 1, "running")) == frozenset()
    assert hear(looping) == {("a", "web")} and state.crash_loops(1000.0) == frozenset()


def test_node_is_lost_after_three_missed_reports() -> None:
    """Up to three intervals of silence a node is live; the same old report is no sign of life."""
    state = known("a", "b")
    state.heard("a", report("a"), 5.0)
    assert set(state.live(35.0)) == {"a"} and state.next_loss(6.0) == 35.0
    state.heard("a", None, 34.0)
    assert set(state.live(35.1)) == set() and state.lost(40.0) == {"a": 35.0}
    state.heard("a", report("a", sequence=2), 50.0)
    assert set(state.live(50.0)) == {"a"} and state.lost(50.0) == {}


def test_node_that_reports_seldom_has_more_time_but_not_without_end() -> None:
    """A node's own interval counts when it is longer, up to ten times ours."""
    state = known("a", "b")
    state.heard("a", report("a", interval_s=60.0), 0.0)
    state.heard("b", report("b", interval_s=1e12), 0.0)
    assert set(state.live(179.0)) == {"a", "b"} and set(state.lost(181.0)) == {"a"}
    assert set(state.lost(301.0)) == {"a", "b"}


def test_restart_gives_every_node_time_to_be_heard() -> None:
    """Reports from the database count as heard now, so that a restart moves nothing; unknown nodes are forgotten."""
    state = NetworkState(10.0)
    state.know({"a": report("a"), "b": None}, 1000.0)
    assert set(state.live(1029.0)) == {"a"} and set(state.lost(1031.0)) == {"a"}
    state.know({"b": None}, 1031.0)
    assert state.lost(1031.0) == {} and state.due(1031.0) == ["b"]
