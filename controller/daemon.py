"""The controller's daemon: one loop that serves, asks and decides, and one thread for everything that blocks.

face      connects to the gateway's socket and comes back when it goes away
monitor   asks every enrolled node for its report
history   keeps what an hour of reports says when it is over
decide    looks at placements when services, nodes or links changed
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
import signal
import time
from collections.abc import Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

from controller import workspace
from controller.application import Application
from controller.authority import key_hash
from controller.control import ControlServer, Report
from controller.engine import Engine
from controller.enrolment import Enrolment
from controller.errors import ControllerError
from controller.monitoring.hour import HOUR_S
from controller.monitoring.intake import Intake, Verdict, stored_reports
from controller.monitoring.network import NetworkState, View
from controller.repository.platform import Platform
from controller.settings import Settings
from gateway.forwarder.consumer import Endpoint, FetchError, connect
from gateway.forwarder.producer import serve_blobs
from gateway.protocol.errors import ProtocolError
from gateway.protocol.messages import Head

log = logging.getLogger(__name__)
T = TypeVar("T")

POLLS_AT_ONCE = 16
RECONNECT_FIRST_S, RECONNECT_MOST_S = 0.5, 30.0
# Reports of one round arrive together; so do the nodes of a network that was just switched on.
SETTLE_S = 0.3
# An hour is looked at when its last reports are in the database, and not by all controllers at once.
AFTER_THE_HOUR_S = (5.0, 60.0)
_OVER = object()


class Controller:
    """Owns the open files and the tasks of one controller; raises ControllerError when it cannot start."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.network = workspace.network_of(settings)
        self.store = workspace.open_store(settings, verify=True)
        self.authority = workspace.open_authority(settings, self.store)
        self.blobs = workspace.open_blobs(settings)
        self.repository = workspace.open_repository(settings, self.blobs, self.store)
        self._thread = ThreadPoolExecutor(1, "controller")
        lifetime_s, rules = settings.decision_lifetime_s, settings.rules
        self.engine = Engine(self.authority, self.store, self.blobs, settings.node, settings.zone, lifetime_s, rules)
        self.intake = Intake(self.network, self.store, self.authority.trust.verify)
        self.network_state = NetworkState(settings.report_interval_s)
        enrolment = Enrolment(self.store, self.authority.certify_node)
        self.application = Application(self.authority, enrolment, self.work, self._on_enrolled)
        self.endpoint: Endpoint | None = None
        self._problems: dict[str, str] = {}
        self._stopping = False
        self._look = asyncio.Event()
        self._poll = asyncio.Event()
        self._tasks: set[asyncio.Task[None]] = set()

    async def work(self, call: Callable[[], T], /) -> T:
        """Runs a blocking call on the controller's one worker thread."""
        return await asyncio.get_running_loop().run_in_executor(self._thread, call)

    async def run(self) -> None:
        """Serves until it is cancelled."""
        control = ControlServer(
            workspace.control_path(self.settings),
            {"status": self._status, "refresh": self._refresh, "publish": self._publish},
        )
        await control.start()
        try:
            await self._reload_state()
            async with asyncio.TaskGroup() as group:
                for job in (self._keep_face, self._monitor, self._keep_history, self._decide):
                    group.create_task(self._forever(job))
        finally:
            self._stopping = True
            control.stop()
            for task in self._tasks:
                task.cancel()
            if self.endpoint is not None:
                self.endpoint.close()

    def close(self) -> None:
        """Ends the worker thread after what it is doing, and closes the files."""
        self._thread.shutdown(wait=True, cancel_futures=True)
        self.blobs.close()
        self.store.close()

    async def _forever(self, job: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """Keeps one job going whatever it stumbles over: a bug in one must not stop the others."""
        while True:
            try:
                await job()
            except ControllerError as error:
                self._note(job.__name__, str(error))
            except Exception as error:
                text = f"{job.__name__.strip('_')} failed and is started again: {error!r}"
                if text != self._problems.get(job.__name__):
                    log.exception("%s", text)
                self._problems[job.__name__] = text
            await asyncio.sleep(1.0)

    @property
    def problem(self) -> str:
        """What does not work at the moment, in words."""
        return "; ".join(problem for problem in self._problems.values() if problem)

    def _note(self, where: str, problem: str) -> None:
        """Keeps what is wrong somewhere until it is right again; logs it once."""
        if problem and problem != self._problems.get(where):
            log.error("%s", problem)
        self._problems[where] = problem

    # --- what is known -----------------------------------------------------------------------------------------

    async def _reload_state(self) -> None:
        """Takes what is in the database and among the keys into memory: the commands may have changed it."""
        nodes, head, services, reports = await self.work(
            lambda: (
                self.store.nodes(),
                self.store.head(),
                self.store.services(active_only=False),
                stored_reports(self.store),
            )
        )
        problems = await self.work(lambda: workspace.add_certificates(self.authority, self.store))
        self._note("certificates", "; ".join(problems))
        await self._reload_keys()
        self.application.specifications.replace(row.wire for row in services)
        self.application.heads.replace([head.wire] if head is not None else [])
        self.network_state.know({row.name: reports.get(row.name) for row in nodes}, time.monotonic())
        self._poll.set()
        self._look.set()

    async def _reload_keys(self) -> None:
        """Serves the certificates that are in force, and the anchor's statement that opened the epoch."""
        trust = self.authority.trust
        self.application.certificates.replace(w for w in trust.certificates if key_hash(w) not in trust.revoked)
        try:
            statement = await self.work(self.authority.epoch_statement)
        except ControllerError as error:
            self._note("epoch", str(error))
        else:
            self._note("epoch", "")
            self.application.epochs.replace([] if statement is None else [statement[1]])

    def _on_enrolled(self, node: str, certificate: bytes) -> None:
        log.info("node %s is enrolled", node)
        try:
            self.authority.trust.add_certificate(certificate)
        except ProtocolError as error:
            log.error("the new certificate of %s: %s", node, error)
        self._spawn(self._welcome(node))

    async def _welcome(self, node: str) -> None:
        await self._reload_state()
        if self.endpoint is not None:
            with contextlib.suppress(FetchError):  # the next connection registers it
                await self.application.attach_node(self.endpoint, node)

    def _spawn(self, job: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(job)
        self._tasks.add(task)
        task.add_done_callback(self._finished)

    def _finished(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("a task failed: %s", error, exc_info=error)

    # --- face --------------------------------------------------------------------------------------------------

    async def _keep_face(self) -> None:
        delay = RECONNECT_FIRST_S
        while True:
            try:
                await self._use_face(await connect(self.settings.gateway))
                delay = RECONNECT_FIRST_S
                log.warning("the gateway at %s closed the connection", self.settings.gateway)
            except (OSError, FetchError, ValueError) as error:
                self._note("_keep_face", f"{error}; trying again")
            await asyncio.sleep(delay * random.uniform(0.75, 1.25))
            delay = min(RECONNECT_MOST_S, delay * 2)

    async def _use_face(self, endpoint: Endpoint) -> None:
        try:
            serve_blobs(endpoint, self.network, self.blobs)
            nodes = [row.name for row in await self.work(self.store.nodes)]
            await self.application.attach(endpoint, nodes)
            self.endpoint = endpoint
            self._note("_keep_face", "")
            self._poll.set()
            log.info("serving %s through %s", self.network.uri, self.settings.gateway)
            await endpoint.closed()
        finally:
            self.endpoint = None
            endpoint.close()

    # --- monitor -----------------------------------------------------------------------------------------------

    async def _monitor(self) -> None:
        limit = asyncio.Semaphore(POLLS_AT_ONCE)
        while True:
            endpoint = self.endpoint
            if endpoint is not None:
                for node in self.network_state.due(time.monotonic()):
                    self._spawn(self._ask(endpoint, node, limit))
            self._note("_monitor", "")
            deadline = self.network_state.next_deadline()
            wait = 1.0 if deadline is None or endpoint is None else max(0.05, deadline - time.monotonic())
            await _wait(self._poll, wait)

    async def _ask(self, endpoint: Endpoint, node: str, limit: asyncio.Semaphore) -> None:
        lifetime_ms = int(min(4.0, max(0.5, self.settings.report_interval_s / 2)) * 1000)
        async with limit:
            try:
                wire = await self.application.fetch_report(endpoint, node, lifetime_ms)
                verdict = await self.work(lambda: self.intake.accept(node, wire, time.time()))
            except FetchError as error:
                reason = str(error)
                verdict = await self.work(lambda: self.intake.missed(node, reason))
            except ControllerError as error:
                self._note("_ask", str(error))
                verdict = Verdict(problem=str(error))
        if verdict.problem:
            log.debug("no report of %s: %s", node, verdict.problem)
            self.network_state.failed(node, time.monotonic())
        else:
            self._note("_ask", "")
            self.network_state.heard(node, verdict.report, time.monotonic())
            self._look.set()
        self._poll.set()  # the next question may be due sooner than it was when this one was asked

    # --- history -----------------------------------------------------------------------------------------------

    async def _keep_history(self) -> None:
        while True:
            hour = self.engine.history.keep(time.time(), self.settings.report_interval_s)
            # A node at a time: reports and questions that come meanwhile do not wait for all of them.
            while await self.work(lambda hour=hour: next(hour, _OVER)) is not _OVER:  # type: ignore[misc]
                pass
            self._note("_keep_history", "")
            await asyncio.sleep(HOUR_S - time.time() % HOUR_S + random.uniform(*AFTER_THE_HOUR_S))

    # --- decide ------------------------------------------------------------------------------------------------

    def _view(self) -> View:
        return self.network_state.view(time.monotonic())

    async def _decide(self) -> None:
        while True:
            now = time.monotonic()
            loss = self.network_state.next_loss(now)
            await _wait(self._look, min(60.0, max(0.05, loss - now + 0.05) if loss is not None else 60.0))
            await asyncio.sleep(SETTLE_S)
            self._look.clear()
            view = self._view()
            why = await self.work(lambda view=view: self.engine.reason_to_look(view))  # type: ignore[misc]
            head = await self._place(view, why) if why else await self.work(self.engine.renew)
            await self._announce(head)
            self._note("_decide", "")

    async def _place(self, view: View, why: str) -> Head | None:
        return await self.work(lambda: self.engine.decide(view, why))

    async def _announce(self, head: Head | None) -> None:
        if head is not None:
            workspace.pin_all(self.blobs)
            row = await self.work(self.store.head)
            self.application.heads.replace([row.wire] if row is not None else [])

    # --- commands ----------------------------------------------------------------------------------------------

    async def _status(self, request: dict[str, Any], report: Report) -> dict[str, Any]:
        try:
            head = await self.work(self.engine.current)
        except ControllerError as error:
            head = None
            self._note("status", str(error))
        else:
            self._note("status", "")
        return {
            "network": self.network.uri,
            "gateway": self.settings.gateway,
            "connected": self.endpoint is not None,
            "problem": self.problem,
            "head": None if head is None else list(head.order),
            "live": sorted(self._view().reports),
            "lost": {node: round(seconds, 1) for node, seconds in self._view().lost.items()},
            "counters": dict(self.application.counters),
        }

    async def _refresh(self, request: dict[str, Any], report: Report) -> dict[str, Any]:
        """The database or the keys changed: look at everything again, and say which head came of it."""
        await self._reload_state()
        head = await self._place(self._view(), str(request.get("why") or "asked for"))
        await self._announce(head)
        current = head or await self.work(self.engine.current)
        return {"head": None if current is None else list(current.order), "changed": head is not None}

    async def _publish(self, request: dict[str, Any], report: Report) -> dict[str, Any]:
        loop = asyncio.get_running_loop()
        platform = Platform.parse(request["platform"]) if request.get("platform") else None

        def progress(done: int, total: int) -> None:
            if self._stopping:
                raise ControllerError("the controller stops; publish again when it is back")
            throttle(done, total)

        throttle = Throttle(lambda done, total: _discard(loop.call_soon_threadsafe(report, done, total)))
        published = await self.blobs.run(
            self.repository.publish,
            Path(str(request.get("path", ""))),
            str(request.get("name") or ""),
            platform,
            bool(request.get("raw")),
            progress,
        )
        workspace.pin_all(self.blobs)
        return published.to_json(self.network)

    # --- reload ------------------------------------------------------------------------------------------------

    async def reload(self) -> None:
        """Reads the configuration again; what is wrong in it is reported, and the old one stays."""
        try:
            settings = workspace.load_settings(self.settings.path)
        except ControllerError as error:
            log.error("the configuration stays as it was:\n%s", error)
            return
        fixed = ("network", "state_dir", "database", "repository_dir", "node")
        if changed := [name for name in fixed if getattr(settings, name) != getattr(self.settings, name)]:
            log.warning("a restart is needed for the new %s", ", ".join(changed))
        moved = settings.gateway != self.settings.gateway
        self.settings = settings
        self.network_state.interval_s = settings.report_interval_s
        self.engine.lifetime_s, self.engine.zone = settings.decision_lifetime_s, settings.zone
        self.engine.rules = settings.rules
        await self._reload_state()
        if moved and self.endpoint is not None:
            self.endpoint.close()
        log.info("configuration read again")

    def request_reload(self) -> None:
        self._spawn(self.reload())


class Throttle:
    """Passes progress on ten times a second at most, and always the end."""

    def __init__(self, report: Report) -> None:
        self._report, self._last = report, 0.0

    def __call__(self, done: int, total: int) -> None:
        now = time.monotonic()
        if now - self._last >= 0.1 or done >= total:
            self._last = now
            self._report(done, total)


def _discard(_result: object) -> None:
    """For callbacks whose result nobody wants."""


async def _wait(event: asyncio.Event, timeout_s: float) -> None:
    # Not wait_for(), which before Python 3.12 loses a cancellation that comes together with the event.
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(timeout_s):
            await event.wait()
    event.clear()


async def serve(settings: Settings) -> None:
    """Runs a controller until SIGTERM or SIGINT; SIGHUP reads the configuration again."""
    with workspace.repository_lock(settings):
        controller = Controller(settings)
        try:
            task = asyncio.ensure_future(controller.run())
            loop = asyncio.get_running_loop()
            for number in (signal.SIGTERM, signal.SIGINT):
                loop.add_signal_handler(number, task.cancel)
            loop.add_signal_handler(signal.SIGHUP, controller.request_reload)
            with contextlib.suppress(asyncio.CancelledError):
                await task
        finally:
            controller.close()
