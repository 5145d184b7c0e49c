"""Looks at what should run and what does, and takes the steps that reconcile() names, until it is told to end."""

from __future__ import annotations

import contextlib
import os
import random
import select
import signal
import threading
import time
from concurrent.futures import Future
from dataclasses import replace
from queue import SimpleQueue

from gateway import config
from gateway.config import Settings
from gateway.executor import checker
from gateway.executor import reconcile as steps
from gateway.executor.decision import Generation
from gateway.executor.desired import DesiredState
from gateway.executor.health import Health
from gateway.executor.image import Image, ImageStore
from gateway.executor.images import Images
from gateway.executor.reconcile import History, Outcome, Plan, Step, after_failure, reconcile
from gateway.executor.runtimes.base import Instance, Labels, Launch, Runtime, RuntimeFailure
from gateway.executor.runtimes.selection import Selection
from gateway.executor.workers import Workers
from gateway.files import forget_token
from gateway.protocol.executor_messages import (
    APPLY,
    DETACH,
    FORGET_TOKEN,
    LOGS,
    RELOAD,
    STATUS,
    STOP,
    ExecutorReply,
    ExecutorRequest,
    ExecutorStatus,
)
from gateway.protocol.messages import ServiceStatus

LOOK_S = 30.0
FETCH_LOOK_S = 1.0
SHUTDOWN_GRACE_S = 3.0
SHUTDOWN_S = 4.0
_STARTING_LOOK_S = 0.02
_TMP_MAX_BYTES = 16 << 20
_STEPS_IN_A_ROW = 100


class Supervisor:
    """The executor but for its process: `run()` belongs to one thread, `handle()`, `stop()`, `detach()` to any.

    `tag` marks this gateway's instances; `workers` unpack images and ask for health.
    """

    def __init__(self, settings: Settings, selection: Selection, tag: str, workers: Workers) -> None:
        self._settings, self._selection, self._tag, self._workers = settings, selection, tag, workers
        self._runtime = selection.runtime
        self._lock = threading.Lock()
        self._wake_read, self._wake_write = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self._images: Images | None = None
        if settings.forwarder.blob_dir is not None:
            store = ImageStore(settings.forwarder.blob_dir, settings.services_dir / "images")
            self._images = Images(store, workers, self._wake)
        self._desired = DesiredState(settings, selection, self._images)
        self._histories: dict[str, History] = {}
        self._healths: dict[str, Health] = {}
        self._instances: dict[str, Instance] = {}
        self._outcomes: tuple[Outcome, ...] = ()
        self._results: SimpleQueue[tuple[str, float, str]] = SimpleQueue()
        self._checking: set[str] = set()
        self._samples: dict[str, tuple[float, float, float | None]] = {}
        self._stopping = self._detached = False
        self._stopped = threading.Event()

    # --- what comes from outside

    def handle(self, request: ExecutorRequest) -> ExecutorReply:
        """The reply to one request."""
        if request.operation == APPLY and request.desired is not None:
            with self._lock:
                error = self._desired.apply(request.desired)
            self._wake()
            return ExecutorReply(error=error)
        if request.operation == STATUS:
            return ExecutorReply(status=self.status())
        if request.operation == LOGS:
            if self._runtime is None or request.service not in self._instances:
                return ExecutorReply(error=f"no service {request.service!r:.80} runs here")
            return ExecutorReply(logs=self._runtime.logs(request.service))
        if request.operation == STOP:
            self.stop()
            return ExecutorReply(error="" if self._stopped.wait(SHUTDOWN_S) else "some services do not stop")
        if request.operation == DETACH:
            self.detach()
            return ExecutorReply()
        if request.operation == RELOAD:
            return ExecutorReply(error=self._reload())
        if request.operation == FORGET_TOKEN:
            return ExecutorReply(error=self._forget_token())
        return ExecutorReply(error=f"{request.operation!r:.40} is no request")

    def _forget_token(self) -> str:
        try:
            forget_token(self._settings.path)
        except (OSError, ValueError) as error:
            return f"{self._settings.path}: {error}"
        return ""

    def _reload(self) -> str:
        """Takes policy and limits from the file as it is now; the reason when it cannot be used."""
        settings, problems = config.load(self._settings.path)
        if settings is None:
            return "; ".join(str(problem) for problem in problems if problem.severity == "error")
        with self._lock:
            self._settings = config.reloaded(self._settings, settings)
            self._desired.set_settings(self._settings)
        self._wake()
        return ""

    def stop(self) -> None:
        """Ends every service, then run()."""
        self._stopping = True
        self._wake()

    def detach(self) -> None:
        """Ends run(); the services go on."""
        self._detached = True
        self._wake()

    def _wake(self) -> None:
        with contextlib.suppress(BlockingIOError):
            os.write(self._wake_write, b"x")

    # --- looking and acting

    def run(self) -> None:
        """Looks and acts until stop() or detach()."""
        self._forget_ended()
        while not self._detached:
            for _ in range(_STEPS_IN_A_ROW):
                plan = self._look()
                if not plan.steps:
                    break
                for step in plan.steps:
                    self._act(step)
            if self._stopping and not self._instances:
                self._stopped.set()
                return
            self._wait(plan.deadline_s)

    def _forget_ended(self) -> None:
        """What ended while nobody looked (a reboot) is started anew, and is nobody's failure."""
        if self._runtime:
            for instance in self._runtime.list_managed():
                if instance.state == "exited":
                    self._runtime.remove(instance.labels.service)

    def _look(self) -> Plan:
        """One look at everything; the plan's steps are still to be taken, its deadline is never None."""
        now_s = time.monotonic()
        with self._lock:
            targets = [] if self._stopping else self._desired.targets(now_s)
            instances = self._runtime.list_managed() if self._runtime else []
            self._instances = {instance.labels.service: instance for instance in instances}
            self._update_healths(now_s)
            grace_s = SHUTDOWN_GRACE_S if self._stopping else steps.STOP_GRACE_S
            plan = reconcile(targets, instances, self._histories, self._healths, now_s, _jitter, grace_s)
            self._histories, self._outcomes = plan.histories, plan.outcomes
        fetching = any(c and c.image == "missing" for t in targets for c in (t.wanted, t.previous))
        deadlines = [now_s + (FETCH_LOOK_S if fetching else LOOK_S), *self._check_times()]
        if plan.deadline_s is not None:
            deadlines.append(plan.deadline_s)
        return replace(plan, deadline_s=min(deadlines))

    def _wait(self, deadline_s: float | None) -> None:
        """Sleeps until the deadline, a wake-up, or the end of an instance."""
        poller = select.poll()
        poller.register(self._wake_read, select.POLLIN)
        for descriptor in self._runtime.watch() if self._runtime else ():
            poller.register(descriptor, select.POLLIN)
        timeout_s = max(0.0, (deadline_s or 0.0) - time.monotonic())
        # An instance that starts says so in its status file only: look often, for the few milliseconds that it takes.
        if any(instance.state == "starting" for instance in self._instances.values()):
            timeout_s = min(timeout_s, _STARTING_LOOK_S)
        poller.poll(timeout_s * 1000)
        with contextlib.suppress(BlockingIOError):
            os.read(self._wake_read, 4096)

    def _act(self, step: Step) -> None:
        """Takes one step; what fails becomes a failure of that service and of nothing else."""
        if self._runtime is None:
            return
        try:
            with self._lock:
                generation = self._desired.generation(step.service, step.digest)
                if step.action == steps.PROVEN and generation:
                    self._desired.on_proven(generation)
                elif step.action == steps.BAD:
                    self._desired.on_bad(step.service, step.digest)
                elif step.action == steps.PREPARE and generation and self._images:
                    self._images.prepare(generation)
                elif step.action == steps.START and generation and self._images:
                    self._start(self._runtime, generation, self._images.image(step.digest))
            if step.action == steps.STOP:
                self._runtime.signal(step.service, signal.SIGTERM)
            elif step.action == steps.KILL:
                self._runtime.signal(step.service, signal.SIGKILL)
            elif step.action == steps.REMOVE:
                self._runtime.remove(step.service)
        except (OSError, RuntimeFailure) as error:
            history = self._histories.get(step.service, History())
            reason = f"{step.action} failed: {error}"
            self._histories[step.service] = after_failure(history, reason, time.monotonic(), _jitter)

    def _start(self, runtime: Runtime, generation: Generation, image: Image) -> None:
        self._desired.on_start(generation)
        runtime.start(self._launch(generation, image, self._histories[generation.spec.name].restarts))

    def _launch(self, generation: Generation, image: Image, restarts: int) -> Launch:
        spec, gateway = generation.spec, self._settings.gateway
        environment = dict(entry.partition("=")[::2] for entry in image.environment) | spec.environment
        environment |= {"PICASSO_NODE": gateway.node, "PICASSO_SERVICE": spec.name, "PICASSO_NETWORK": gateway.network}
        command = spec.command or image.command
        if not command:
            raise RuntimeFailure("neither its image nor its specification names a command")
        return Launch(
            labels=Labels(self._tag, spec.name, generation.digest, spec.version),
            rootfs=image.rootfs,
            command=command,
            environment=tuple(f"{name}={value}" for name, value in environment.items()),
            directory=image.directory,
            uid=image.uid,
            gid=image.gid,
            address=self._settings.executor.address,
            ports=spec.ports,
            health_port=spec.health.port if spec.health and spec.health.path else 0,
            cpu=spec.cpu,
            memory_bytes=spec.memory_bytes,
            tmp_bytes=min(_TMP_MAX_BYTES, spec.memory_bytes // 2),
            restarts=restarts,
        )

    # --- health

    def _update_healths(self, now_s: float) -> None:
        """Takes in the answers that came, begins with new instances, and asks whom it is time to ask."""
        healths = {}
        for service, instance in self._instances.items():
            health = self._healths.get(service)
            if instance.state == "running":
                if health is None or health.started_s != instance.started_s:
                    generation = self._desired.generation(service, instance.labels.digest)
                    check = generation.spec.health if generation else None
                    health = Health.begin(check, instance.started_s, now_s)
                healths[service] = health
        self._healths = healths
        while not self._results.empty():
            service, started_s, problem = self._results.get()
            self._checking.discard(service)
            if service in healths and healths[service].started_s == started_s:
                healths[service] = healths[service].on_result(problem, now_s)
        for service, health in healths.items():
            if health.next_check_s is not None and health.next_check_s <= now_s and service not in self._checking:
                self._check(service, health)

    def _check(self, service: str, health: Health) -> None:
        if self._runtime is None or health.check is None:
            return
        self._checking.add(service)

        def report(done: Future[str]) -> None:
            error = done.exception()
            self._results.put((service, health.started_s, repr(error) if error else done.result()))
            self._wake()

        self._workers.submit(checker.check, self._runtime, service, health.check).add_done_callback(report)

    def _check_times(self) -> list[float]:
        due = [h.next_check_s for service, h in self._healths.items() if service not in self._checking]
        return [at for at in due if at is not None]

    # --- what is said

    def status(self) -> ExecutorStatus:
        """What runs, what was refused and why, and what the owner should know."""
        with self._lock:
            outcomes, instances, healths = self._outcomes, dict(self._instances), dict(self._healths)
            decision, notes = self._desired.decision, (*self._selection.notes, *self._desired.notes)
        services = tuple(self._service_status(each, instances.get(each.service), healths) for each in outcomes)
        runtimes = (self._runtime.name,) if self._runtime else ()
        if self._runtime is None:
            notes = (*notes, self._selection.refusal)
        epoch, version = decision.head.order if decision else (0, 0)
        return ExecutorStatus(services, runtimes, notes, epoch, version)

    def _service_status(self, outcome: Outcome, instance: Instance | None, healths: dict[str, Health]) -> ServiceStatus:
        running = instance if instance and instance.state == "running" else None
        health = healths.get(outcome.service) if running else None
        cpu_percent, memory_bytes = self._usage(outcome.service) if running else (None, None)
        return ServiceStatus(
            name=outcome.service,
            generation=running.labels.generation if running else outcome.number,
            state=outcome.state,
            health=health.state if health else "unknown",
            runtime=f"{self._runtime.name} ({self._runtime.note})" if self._runtime else "",
            restarts=outcome.restarts,
            started=running.started if running else None,
            ports=running.ports if running else (),
            cpu_percent=cpu_percent,
            memory_bytes=memory_bytes,
            exit_code=outcome.exit_code,
            reason=outcome.reason,
        )

    def _usage(self, service: str) -> tuple[float | None, int | None]:
        """CPU percent between two questions at least a second apart, and the memory now."""
        stats = self._runtime.stats(service) if self._runtime else None
        if stats is None:
            return None, None
        now_s = time.monotonic()
        at_s, cpu_s, percent = self._samples.get(service, (now_s, stats.cpu_s, None))
        if now_s - at_s >= 1.0:
            percent = max(0.0, round(100 * (stats.cpu_s - cpu_s) / (now_s - at_s), 1))
            at_s, cpu_s = now_s, stats.cpu_s
        self._samples[service] = at_s, cpu_s, percent
        return percent, stats.memory_bytes


def _jitter() -> float:
    return random.uniform(-1, 1)
