"""Desired against actual, on a virtual clock and with a runtime of a few lines: no process, no sleep."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.executor.health import Health
from gateway.executor.reconcile import (
    BACK_OFF_MAX_S,
    BAD,
    KILL,
    PREPARE,
    PROVEN,
    REMOVE,
    START,
    STOP,
    Candidate,
    History,
    Target,
    after_failure,
    reconcile,
)
from gateway.executor.runtimes.base import Instance, Labels
from gateway.protocol.messages import HealthCheck

ONE, TWO = Candidate(b"1", 1), Candidate(b"2", 2)
CHECK = HealthCheck(path="/", port=1)


@dataclass
class Node:
    """A machine in memory: `broken` digests end at once, `sick` ones run and never get healthy, `deaf` ignore TERM."""

    now_s: float = 1000.0
    jitter: float = 0.0
    broken: set[bytes] = field(default_factory=set)
    sick: set[bytes] = field(default_factory=set)
    deaf: set[bytes] = field(default_factory=set)
    bad: set[bytes] = field(default_factory=set)
    instances: dict[str, Instance] = field(default_factory=dict)
    healths: dict[str, Health] = field(default_factory=dict)
    histories: dict[str, History] = field(default_factory=dict)
    log: list[tuple[float, str, bytes]] = field(default_factory=list)
    deadline_s: float | None = None

    def look(self, *targets: Target) -> dict[str, object]:
        """Looks and acts until nothing is to do; what is said of each service."""
        for _ in range(20):
            self._check()
            live = [replace(t, bad=t.bad | self.bad) for t in targets]
            plan = reconcile(
                live, list(self.instances.values()), self.histories, self.healths, self.now_s, lambda: self.jitter
            )
            self.histories, self.deadline_s = plan.histories, plan.deadline_s
            steps = [step for step in plan.steps if step.action != PREPARE]
            for step in steps:
                self._act(step)
            if not steps:
                return {outcome.service: outcome for outcome in plan.outcomes}
        raise AssertionError(f"it does not come to rest: {self.log[-10:]}")

    def advance(self, seconds: float, *targets: Target) -> dict[str, object]:
        """Lets time pass, looking at every deadline and at least every five seconds."""
        end = self.now_s + seconds
        while self.now_s < end:
            steps = [end, self.now_s + 5.0] + (
                [self.deadline_s] if self.deadline_s and self.deadline_s > self.now_s else []
            )
            self.now_s = min(steps)
            outcome = self.look(*targets)
        return outcome

    def starts(self) -> list[tuple[float, bytes]]:
        return [(at, digest) for at, action, digest in self.log if action == START]

    def exit(self, service: str, code: int) -> None:
        self.instances[service] = replace(self.instances[service], state="exited", exit_code=code)
        self.healths.pop(service, None)

    def _check(self) -> None:
        for service, instance in self.instances.items():
            if instance.state == "running":
                problem = "no" if instance.labels.digest in self.sick else ""
                health = self.healths.get(service)
                if health is None or health.started_s != instance.started_s:
                    health = Health.begin(CHECK, instance.started_s, self.now_s)
                if health.next_check_s is not None and health.next_check_s <= self.now_s:
                    health = health.on_result(problem, self.now_s)
                self.healths[service] = health

    def _act(self, step) -> None:
        self.log.append((self.now_s, step.action, step.digest))
        if step.action == START:
            labels = Labels("t", step.service, step.digest, int(step.digest))
            self.instances[step.service] = Instance(labels, "running", self.now_s, self.now_s + len(self.log) * 1e-6)
            if step.digest in self.broken:
                self.exit(step.service, 1)
        elif step.action == KILL or (
            step.action == STOP and self.instances[step.service].labels.digest not in self.deaf
        ):
            self.exit(step.service, 137 if step.action == KILL else 0)
        elif step.action == REMOVE:
            del self.instances[step.service]
        elif step.action == BAD:
            self.bad.add(step.digest)


def test_a_wanted_service_is_started_once_and_left_alone() -> None:
    """Looking again changes nothing: reconciling is idempotent."""
    node, target = Node(), Target("s", ONE)
    assert node.look(target)["s"].state == "running"
    node.advance(300, target)
    assert [digest for _, digest in node.starts()] == [b"1"]


def test_what_is_not_wanted_any_more_is_stopped_and_removed() -> None:
    """A service without a target ends by TERM; its state goes."""
    node = Node()
    node.look(Target("s", ONE))
    node.look()
    assert [action for _, action, _ in node.log] == [START, STOP, REMOVE] and node.instances == {}


def test_a_service_that_ignores_term_is_killed_after_ten_seconds() -> None:
    """TERM, ten seconds, KILL."""
    node = Node(deaf={b"1"})
    node.look(Target("s", ONE))
    node.look()
    node.advance(9.9)
    assert KILL not in [action for _, action, _ in node.log]
    node.advance(0.2)
    assert [action for _, action, _ in node.log][-2:] == [KILL, REMOVE]


def test_back_off_doubles_and_five_failures_are_a_crash_loop_still_retried() -> None:
    """A service that ends at once is tried after 1, 2, 4 and 8 seconds, then every 300: said so, never given up."""
    node, target = Node(broken={b"1"}), Target("s", ONE)
    assert node.look(target)["s"].state == "back-off"
    outcome = node.advance(20, target)["s"]
    assert [at - 1000 for at, _ in node.starts()] == [0, 1, 3, 7, 15]
    assert outcome.state == "crash-loop" and outcome.restarts == 5 and "exit code 1" in outcome.reason
    node.advance(BACK_OFF_MAX_S, target)
    assert len(node.starts()) == 6


def test_a_minute_of_health_forgives() -> None:
    """After 60 healthy seconds the next failure waits one second again."""
    node, target = Node(broken={b"1"}), Target("s", ONE)
    node.advance(8, target)
    node.broken.clear()
    node.advance(80, target)
    assert node.histories["s"].failures_s == ()
    node.exit("s", 1)
    node.look(target)
    assert node.histories["s"].delay_s == 1.0


@settings(deadline=None)
@given(st.lists(st.tuples(st.floats(0, 1000), st.floats(-1, 1)), max_size=30))
def test_back_off_stays_within_its_bounds(failures: list[tuple[float, float]]) -> None:
    """Whatever happens when, the wait is between 0.75 and 375 seconds and never shrinks without health."""
    history, now_s = History(), 0.0
    for gap, jitter in failures:
        now_s += gap
        before, history = history.delay_s, after_failure(history, "x", now_s, lambda jitter=jitter: jitter)
        assert 0.75 <= history.next_start_s - now_s <= 375 and (history.delay_s >= before)


@pytest.mark.parametrize(
    ("restart", "code", "starts"), [("always", 0, 2), ("on-failure", 0, 1), ("on-failure", 1, 2), ("never", 1, 1)]
)
def test_restart_policies(restart: str, code: int, starts: int) -> None:
    """always restarts, on-failure only after a failure, never does not; the state says `stopped` then."""
    node, target = Node(), Target("s", replace(ONE, restart=restart))
    node.look(target)
    node.exit("s", code)
    outcome = node.advance(60, target)["s"]
    assert len(node.starts()) == starts and (outcome.state == "stopped") == (starts == 1)


def test_an_unhealthy_service_is_restarted() -> None:
    """Three bad answers after the grace stop and start it; the reason is told."""
    node, target = Node(), Target("s", ONE)
    node.look(target)
    node.advance(20, target)
    node.sick.add(b"1")
    node.advance(40, target)
    assert len(node.starts()) == 2 and "unhealthy" in node.histories["s"].reason


@pytest.mark.parametrize("image", ["missing", "complete", "preparing", "bad"])
def test_the_old_generation_runs_until_the_new_ones_image_is_ready(image: str) -> None:
    """Nothing is stopped before the new image is complete and verified; what is missing is told."""
    node = Node()
    node.look(Target("s", ONE))
    waiting = Target("s", replace(TWO, image=image, image_note="3 of 5 blobs have not arrived"), previous=ONE)
    outcome = node.advance(300, waiting)["s"]
    assert (outcome.state, outcome.number) == ("running", 1) and "generation 2" in outcome.reason
    assert node.look(Target("s", TWO, previous=ONE))["s"].number == 2
    assert [digest for _, digest in node.starts()] == [b"1", b"2"]


@pytest.mark.parametrize("fault", ["broken", "sick"])
def test_a_generation_that_does_not_get_healthy_is_taken_back_and_remembered(fault: str) -> None:
    """Within 120 seconds of its first start the previous generation is back, and the bad one is not tried again."""
    node = Node()
    node.advance(20, Target("s", ONE))
    getattr(node, fault).add(b"2")
    update = Target("s", TWO, previous=ONE)
    node.look(update)
    begin = node.now_s
    outcome = node.advance(130, update)["s"]
    assert (outcome.state, outcome.number) == ("running", 1) and "back to generation 1" in outcome.reason
    assert node.bad == {b"2"} and node.starts()[-1][1] == b"1" and node.starts()[-1][0] - begin <= 121
    count = len(node.starts())
    node.advance(600, update)
    assert len(node.starts()) == count


def test_without_a_generation_to_go_back_to_the_new_one_is_tried_on() -> None:
    """The only generation there is never becomes bad."""
    node, target = Node(broken={b"1"}), Target("s", ONE)
    node.advance(700, target)
    assert node.bad == set() and len(node.starts()) > 5


def test_a_generation_is_proven_after_ten_healthy_seconds() -> None:
    """PROVEN comes once, after ten seconds of health and not before."""
    node, target = Node(), Target("s", ONE)
    node.look(target)
    node.advance(9.5, target)
    assert PROVEN not in [action for _, action, _ in node.log]
    node.advance(60, target)
    assert [action for _, action, _ in node.log].count(PROVEN) == 1


def test_a_refused_service_is_stopped_and_says_why() -> None:
    """When the owner forbids what runs, it ends."""
    node = Node()
    node.look(Target("s", ONE))
    outcome = node.look(Target("s", ONE, refusal="the owner does not allow it"))["s"]
    assert (outcome.state, outcome.reason) == ("refused", "the owner does not allow it")
    assert node.instances["s"].state == "exited"


def test_a_decision_that_is_not_complete_stops_nothing() -> None:
    """While a section or specification is on its way, the generation known to work goes on."""
    node = Node()
    node.look(Target("s", ONE))
    outcome = node.advance(100, Target("s", None, previous=ONE, pending="its section has not arrived"))["s"]
    assert outcome.state == "running" and "has not arrived" in outcome.reason and len(node.starts()) == 1
    assert Node().look(Target("s", pending="its section has not arrived"))["s"].state == "fetching"


def test_a_running_instance_of_an_earlier_executor_is_adopted() -> None:
    """With no history and its image not looked at yet, what runs and is wanted is left running."""
    node = Node()
    node.look(Target("s", ONE))
    node.histories.clear()
    assert node.look(Target("s", replace(ONE, image="complete")))["s"].state == "running"
    assert len(node.starts()) == 1


_TARGETS = st.sampled_from(
    [
        (),
        (Target("s", ONE),),
        (Target("s", TWO, previous=ONE),),
        (Target("s", replace(TWO, image="missing"), previous=ONE),),
        (Target("s", ONE, refusal="no"),),
        (Target("s", None, previous=ONE, pending="wait"),),
    ]
)
_EVENTS = st.lists(
    st.tuples(_TARGETS, st.integers(0, 400), st.sampled_from(["", "exit", "broken", "sick", "deaf", "well"])),
    max_size=12,
)


@settings(max_examples=60, deadline=None)
@given(_EVENTS)
def test_it_always_comes_to_rest_and_recovers(events) -> None:
    """After any history of decisions and faults, a wanted and working service is running in the end."""
    node = Node()
    for targets, wait_s, event in events:
        if event == "exit" and "s" in node.instances:
            node.exit("s", 1)
        elif event == "well":
            node.broken, node.sick, node.deaf = set(), set(), set()
        elif event in ("broken", "sick", "deaf"):
            getattr(node, event).add(b"2")
        node.look(*targets)
        if wait_s:
            node.advance(wait_s, *targets)
    node.broken, node.sick, node.deaf = set(), set(), set()
    outcome = node.advance(800, Target("s", ONE))["s"]
    assert (outcome.state, outcome.number) == ("running", 1)
