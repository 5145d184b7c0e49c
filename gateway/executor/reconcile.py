"""Desired against actual: the next steps for every service, and what to say of it. Pure.

Nothing here starts, stops, reads a clock or draws a number: `reconcile()` looks at what should run, what does, and what
happened before, and returns steps that can be printed and compared. It is called again after every step and event.
Times are monotonic seconds.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from gateway.executor.health import Health
from gateway.executor.runtimes.base import Instance

BACK_OFF_MIN_S, BACK_OFF_MAX_S, JITTER = 1.0, 300.0, 0.25
HEALTHY_RESET_S = 60.0
CRASH_LOOP_FAILURES, CRASH_LOOP_WINDOW_S = 5, 600.0
TRIAL_S, PROVEN_S = 120.0, 10.0
STOP_GRACE_S = 10.0

START, STOP, KILL, REMOVE, PREPARE, PROVEN, BAD = "start", "stop", "kill", "remove", "prepare", "proven", "bad"


@dataclass(frozen=True, slots=True)
class Candidate:
    """A generation that may run: `image` is `missing`, `complete` (to prepare), `preparing`, `ready` or `bad`."""

    digest: bytes
    number: int
    restart: str = "always"
    image: str = "ready"
    image_note: str = ""


@dataclass(frozen=True, slots=True)
class Target:
    """What should run of a service: the `wanted` generation, until it can the `previous` one that is known to work.

    `refusal` lets nothing run; `pending` says what is missing to know the wanted generation.
    """

    service: str
    wanted: Candidate | None = None
    previous: Candidate | None = None
    refusal: str = ""
    pending: str = ""
    bad: frozenset[bytes] = frozenset()


@dataclass(frozen=True, slots=True)
class History:
    """What is remembered of a service between two looks."""

    digest: bytes = b""
    trial_since_s: float | None = None
    proven: bool = False
    failures_s: tuple[float, ...] = ()
    delay_s: float = 0.0
    next_start_s: float = 0.0
    restarts: int = 0
    counted_exit_s: float | None = None
    stopping_since_s: float | None = None
    killed: bool = False
    finished: bool = False
    exit_code: int | None = None
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Step:
    action: str
    service: str
    digest: bytes = b""
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What is said of a service; the words are those of ServiceStatus."""

    service: str
    number: int
    state: str
    reason: str
    restarts: int
    exit_code: int | None = None


@dataclass(frozen=True, slots=True)
class Plan:
    """Steps to take now, what is remembered, what is said, and when to look again whatever happens."""

    steps: tuple[Step, ...]
    histories: dict[str, History]
    outcomes: tuple[Outcome, ...]
    deadline_s: float | None


def reconcile(
    targets: Sequence[Target],
    instances: Sequence[Instance],
    histories: Mapping[str, History],
    healths: Mapping[str, Health],
    now_s: float,
    jitter: Callable[[], float],
    grace_s: float = STOP_GRACE_S,
) -> Plan:
    """The plan for all services; `jitter()` gives -1 to 1, `grace_s` is the time between TERM and KILL."""
    running = {instance.labels.service: instance for instance in instances}
    plans = []
    for target in targets:
        look = _Look(target, running.pop(target.service, None), histories, healths, now_s, jitter, grace_s)
        look.service()
        plans.append(look)
    for name, instance in running.items():
        look = _Look(Target(name), instance, histories, healths, now_s, jitter, grace_s)
        look.orphan()
        plans.append(look)
    deadlines = [deadline for look in plans for deadline in look.deadlines]
    return Plan(
        tuple(step for look in plans for step in look.steps),
        {look.target.service: look.history for look in plans},
        tuple(look.outcome for look in plans if look.outcome is not None),
        min(deadlines, default=None),
    )


def after_failure(history: History, reason: str, now_s: float, jitter: Callable[[], float]) -> History:
    """The history after one more failure: when to try again, doubling from one second to five minutes."""
    failures = (*(at for at in history.failures_s if now_s - at < CRASH_LOOP_WINDOW_S), now_s)
    delay = min(BACK_OFF_MAX_S, max(BACK_OFF_MIN_S, history.delay_s * 2))
    if len(failures) >= CRASH_LOOP_FAILURES:
        delay = BACK_OFF_MAX_S
    return replace(
        history,
        failures_s=failures[-CRASH_LOOP_FAILURES:],
        delay_s=delay,
        next_start_s=now_s + delay * (1 + JITTER * jitter()),
        restarts=history.restarts + 1,
        reason=reason,
    )


class _Look:
    """One look at one service: `service()` or `orphan()` fills steps, history, outcome and deadlines."""

    def __init__(
        self,
        target: Target,
        instance: Instance | None,
        histories: Mapping[str, History],
        healths: Mapping[str, Health],
        now_s: float,
        jitter: Callable[[], float],
        grace_s: float,
    ) -> None:
        self.target, self.instance, self.now_s, self.grace_s = target, instance, now_s, grace_s
        self._jitter = jitter
        restarts = instance.restarts if instance else 0
        self.history = histories.get(target.service) or History(restarts=restarts)
        self.health = healths.get(target.service)
        self.steps: list[Step] = []
        self.deadlines: list[float] = []
        self.outcome: Outcome | None = None

    def orphan(self) -> None:
        """Ours, but not wanted any more."""
        assert self.instance is not None
        if self.instance.state == "exited":
            self._step(REMOVE)
            self.history = History()
        else:
            self._stop("it is not assigned to this node")

    def service(self) -> None:
        self._count_exit()
        self._prepare_wanted()
        candidate = self._choose()
        if self.history.stopping_since_s is not None:
            self._stop("")
            self._say(candidate, "stopped" if candidate is None else "starting", self.history.reason)
        elif candidate is None:
            self._rest()
        elif not self._runs:
            self._start(candidate)
        elif self.instance is not None and self.instance.labels.digest != candidate.digest:
            self._stop(f"generation {candidate.number} takes its place")
            self._say(candidate, "starting", self.history.reason)
        else:
            self._watch(candidate)

    @property
    def _runs(self) -> bool:
        return self.instance is not None and self.instance.state != "exited"

    def _count_exit(self) -> None:
        """An instance that ended: as we asked, as its policy allows, or as a failure; each is counted once."""
        instance = self.instance
        if instance is None or instance.state != "exited" or self.history.counted_exit_s == instance.started_s:
            if instance is None and self.history.stopping_since_s is not None:
                self.history = replace(self.history, stopping_since_s=None, killed=False)
            return
        asked = self.history.stopping_since_s is not None
        self.history = replace(
            self.history,
            counted_exit_s=instance.started_s,
            stopping_since_s=None,
            killed=False,
            exit_code=instance.exit_code,
        )
        if asked:
            return
        reason = instance.reason or f"it ended with exit code {instance.exit_code}"
        candidate = self._candidate(instance.labels.digest)
        restart = candidate.restart if candidate else "always"
        if restart == "never" or (restart == "on-failure" and instance.exit_code == 0):
            self.history = replace(self.history, finished=True, reason=reason)
        else:
            self.history = after_failure(self.history, reason, self.now_s, self._jitter)

    def _prepare_wanted(self) -> None:
        for candidate in (self.target.wanted, self.target.previous):
            if candidate and candidate.image == "complete" and not self.target.refusal:
                self._step(PREPARE, candidate.digest)

    def _candidate(self, digest: bytes) -> Candidate | None:
        for candidate in (self.target.wanted, self.target.previous):
            if candidate and candidate.digest == digest:
                return candidate
        return None

    def _choose(self) -> Candidate | None:
        """The wanted generation if it can run and was not bad, else the previous one, else none."""
        if self.target.refusal:
            return None
        wanted, previous = self.target.wanted, self.target.previous
        can_go_back = previous is not None and self._can_run(previous)
        if wanted and self._can_run(wanted) and not (wanted.digest in self.target.bad and can_go_back):
            if not (can_go_back and self._trial_failed(wanted)):
                return wanted
            self._step(BAD, wanted.digest, f"it was not healthy within {TRIAL_S:g} s")
        return previous if can_go_back else None

    def _can_run(self, candidate: Candidate) -> bool:
        """Its image is unpacked, or it runs already: what became of the image since then does not matter."""
        running = self.instance is not None and self._runs and self.instance.labels.digest == candidate.digest
        return running or candidate.image == "ready"

    def _trial_failed(self, wanted: Candidate) -> bool:
        history = self.history
        if history.digest != wanted.digest or history.proven or history.trial_since_s is None:
            return False
        self.deadlines.append(history.trial_since_s + TRIAL_S)
        if self.health and self.health.healthy_since_s is not None:
            return False  # it has to stay so for a while: _watch() proves it, a failure takes it back here
        return self.now_s >= history.trial_since_s + TRIAL_S

    def _rest(self) -> None:
        """Nothing may run: say why, and stop what does when the owner or the provider says so."""
        target, wanted = self.target, self.target.wanted
        if self._runs:
            self._stop(target.refusal or "no generation of it may run")
        if target.refusal:
            self._say(wanted, "refused", target.refusal)
        elif target.pending:
            self._say(wanted, "fetching", target.pending)
        elif wanted and wanted.image == "bad":
            self._say(wanted, "refused", wanted.image_note)
        elif wanted and wanted.image == "missing":
            self._say(wanted, "fetching", wanted.image_note)
        else:
            self._say(wanted, "starting", "its image is being unpacked")

    def _start(self, candidate: Candidate) -> None:
        history = self.history
        if history.digest != candidate.digest:
            history = History(digest=candidate.digest, trial_since_s=self.now_s, restarts=history.restarts)
            self.history = replace(history, counted_exit_s=self.history.counted_exit_s)
        if history.finished:
            self._say(candidate, "stopped", history.reason)
        elif self.now_s >= history.next_start_s:
            self._step(START, candidate.digest)
            self._say(candidate, "starting", self._aside(candidate))
        else:
            self.deadlines.append(history.next_start_s)
            state = "crash-loop" if self._is_crash_loop else "back-off"
            wait = f"next try in {history.next_start_s - self.now_s:.0f} s"
            self._say(candidate, state, "; ".join(filter(None, (history.reason, wait, self._aside(candidate)))))

    @property
    def _is_crash_loop(self) -> bool:
        recent = [at for at in self.history.failures_s if self.now_s - at < CRASH_LOOP_WINDOW_S]
        return len(recent) >= CRASH_LOOP_FAILURES

    def _watch(self, candidate: Candidate) -> None:
        """It runs and should: take its health into account."""
        if self.history.digest != candidate.digest:  # started by an earlier run of the executor
            self.history = replace(self.history, digest=candidate.digest, trial_since_s=self.now_s)
        health = self.health
        if health is not None and health.state == "unhealthy":
            reason = f"it is unhealthy: {health.reason}"
            self.history = after_failure(self.history, reason, self.now_s, self._jitter)
            self._stop(reason)
            self._say(candidate, "starting", reason)
            return
        since = health.healthy_since_s if health else None
        if since is not None:
            self._prove(candidate, since)
        starting = self.instance is None or self.instance.state == "starting" or since is None
        reason = health.reason if health and starting else ""
        aside = "; ".join(filter(None, (reason, self._aside(candidate))))
        self._say(candidate, "starting" if starting else "running", aside)

    def _prove(self, candidate: Candidate, since_s: float) -> None:
        if not self.history.proven:
            if self.now_s >= since_s + PROVEN_S:
                self.history = replace(self.history, proven=True)
                self._step(PROVEN, candidate.digest)
            else:
                self.deadlines.append(since_s + PROVEN_S)
        if self.history.failures_s or self.history.delay_s:
            if self.now_s >= since_s + HEALTHY_RESET_S:
                self.history = replace(self.history, failures_s=(), delay_s=0.0, next_start_s=0.0, reason="")
            else:
                self.deadlines.append(since_s + HEALTHY_RESET_S)

    def _stop(self, reason: str) -> None:
        """TERM, and after the grace KILL."""
        history = self.history
        if history.stopping_since_s is None:
            self._step(STOP, reason=reason)
            history = replace(history, stopping_since_s=self.now_s, killed=False, reason=reason)
        if history.stopping_since_s is not None and not history.killed:
            kill_s = history.stopping_since_s + self.grace_s
            if self.now_s >= kill_s:
                self._step(KILL, reason=f"it did not stop within {self.grace_s:g} s")
                history = replace(history, killed=True)
            else:
                self.deadlines.append(kill_s)
        self.history = history

    def _aside(self, candidate: Candidate) -> str:
        """Why it is not the wanted generation that runs."""
        target, wanted = self.target, self.target.wanted
        if target.pending:
            return f"generation {candidate.number} goes on: {target.pending}"
        if wanted is None or wanted.digest == candidate.digest:
            return ""
        if wanted.digest in target.bad:
            return f"back to generation {candidate.number}: {wanted.number} was not healthy within {TRIAL_S:g} s"
        return f"generation {wanted.number}: {wanted.image_note or 'its image is being unpacked'}"

    def _step(self, action: str, digest: bytes = b"", reason: str = "") -> None:
        self.steps.append(Step(action, self.target.service, digest, reason))

    def _say(self, candidate: Candidate | None, state: str, reason: str) -> None:
        history, number = self.history, candidate.number if candidate else 0
        exit_code = None if state == "running" else history.exit_code
        self.outcome = Outcome(self.target.service, number, state, reason, history.restarts, exit_code)
