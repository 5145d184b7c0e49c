"""Composes the parts of a gateway in one process on one event loop; the only file that knows them all."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import hashlib
import logging
import signal
import sys
import time
from collections.abc import Callable, Coroutine, Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gateway import __version__, config, datasets, lean, privileges
from gateway.config import Settings
from gateway.control import ControlServer
from gateway.executor.client import ExecutorClient, ExecutorError
from gateway.forwarder.content_store import ContentStore
from gateway.forwarder.endpoint import FetchError
from gateway.forwarder.faces.manager import FaceError, FaceManager, Neighbor
from gateway.forwarder.forwarder import Forwarder
from gateway.forwarder.management.face_control import ManagedFaces
from gateway.forwarder.packet import decode_data
from gateway.membership import Membership
from gateway.mesh import Mesh
from gateway.mesh_ports import MeshPorts
from gateway.monitor.agent import MonitorAgent
from gateway.monitor.kernel_routes import KernelRoutes
from gateway.monitor.netlink import Netlink
from gateway.monitor.report import Identity as ReportIdentity
from gateway.monitor.sampler import HostSampler
from gateway.monitor_ports import MonitorPorts
from gateway.placement_client.identity import Identity, IdentityStore
from gateway.protocol import names
from gateway.protocol.executor_messages import ExecutorStatus
from gateway.protocol.messages import Hello

# A plain forwarder has no blobs, no services and no membership: these parts are loaded by who turns them on.
if TYPE_CHECKING:
    from gateway.executor_process import ExecutorProcess
    from gateway.fetcher import Fetcher
    from gateway.forwarder.blobs import BlobStore
    from gateway.forwarder.custody import Custody
    from gateway.page import Page, PageService
    from gateway.placement_client.client import PlacementClient
    from gateway.placement_client.enrolment import Enrolment

log = logging.getLogger(__name__)

CONTROLLER_NEIGHBOR = "controller"
# A route that is there only because the controller's address is known; every route the owner wrote comes first.
CONTROLLER_COST = 1_000_000
EXECUTOR_POLL_S = 2.0
STOP_S = 4.0
PAGE_PATIENCE_S = 5.0


class CannotStart(Exception):
    """A part cannot do what the configuration asks; the text says which and why."""


def main(settings: Settings) -> int:
    """Runs a gateway until SIGTERM or SIGINT; 0 after a clean stop, 1 when it could not start."""
    if not settings.gateway.enabled:
        print(f"{settings.path}: option enabled is 0; nothing to run", file=sys.stderr)
        return 0
    try:
        return asyncio.run(_run(settings))
    except (CannotStart, FaceError, OSError) as error:
        print(f"picasso-gateway: {error}", file=sys.stderr)
        return 1


async def _run(settings: Settings) -> int:
    return await Gateway(settings).run()


class Gateway:
    """One gateway; `run` is its whole life."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self._loop = asyncio.get_running_loop()
        self.network = names.Network(settings.gateway.network)
        self.node = settings.gateway.node
        self.started = time.time()
        self.identities = IdentityStore(settings.gateway.state_dir, self.network, self.node)
        self.membership = Membership()
        self.blobs = self._open_blobs()
        self.forwarder = Forwarder(
            ContentStore(settings.forwarder.memory_cache_bytes),
            self.blobs,
            region=[self.network.node(self.node)],
            blobs=self.network.blobs,
        )
        self.executor = ExecutorClient(settings.gateway.run_dir / "executor.sock")
        self.executor_status = ExecutorStatus()
        self.placement: PlacementClient | None = None
        self.enrolment: Enrolment | None = None
        self.monitor: MonitorAgent
        self.fetcher: Fetcher | None = None
        self.custody: Custody | None = None
        self.manager = FaceManager(self.forwarder, on_new_peer=self._set_routes)
        self.faces = ManagedFaces(self.manager, lambda: _neighbors(self.settings))
        self.control = ControlServer(settings.gateway.run_dir / "control.sock", datasets.commands(self))
        self.page: Page | None = None
        self.problems: dict[str, str] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._closers: list[Callable[[], None]] = []
        self._stopping = asyncio.Event()
        self._status = 0
        self._neighbor_nodes: dict[int, str] = {}
        self.kernel = KernelRoutes()
        self._mesh_ports = MeshPorts(self)
        self.mesh = Mesh(self._mesh_ports, self.kernel)

    def _open_blobs(self) -> BlobStore | None:
        forwarder = self.settings.forwarder
        if forwarder.blob_dir is None:
            return None
        from gateway.forwarder.blobs import BlobStore

        lean.hash_in_bulk()
        forwarder.blob_dir.mkdir(parents=True, exist_ok=True)
        return BlobStore(forwarder.blob_dir, self.network, forwarder.disk_cache_bytes)

    # --- life

    async def run(self) -> int:
        settings = self.settings
        loop = self._loop
        settings.gateway.run_dir.mkdir(parents=True, exist_ok=True)
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._on_stop_signal, number)
        loop.add_signal_handler(signal.SIGHUP, self._reload)
        # The executor serves the owner of the run directory, so that is settled before it starts.
        user = privileges.hand_over([settings.gateway.run_dir, settings.gateway.state_dir, settings.forwarder.blob_dir])
        executor = None
        if "none" not in settings.executor.runtimes:
            from gateway.executor_process import ExecutorProcess

            executor = ExecutorProcess(settings)
            executor.start()
        privileges.drop(user)
        try:
            await self._start()
            if executor is not None:
                self._spawn(executor.supervise(self._stopping))
                self._spawn(self._poll_executor())
            log.info("gateway %s of %s is running", self.node, self.network.uri)
            await self._stopping.wait()
        finally:
            await self._stop(executor)
        return self._status

    async def _start(self) -> None:
        settings = self.settings
        self._start_management()
        self.client_endpoint = self.manager.internal("client").endpoint
        networks = settings.forwarder.networks if settings.forwarder.discovery else ()
        await self.manager.start(settings.forwarder.listen, _neighbors(settings), networks)
        self._set_routes()
        identity = self.membership.identity = self.identities.load()
        if settings.forwarder.management_keys and identity is None and not settings.gateway.token:
            self.problems["forwarder.management_key"] = "no member of a network: no certificate is known here"
        self._start_monitor()
        if identity is not None:
            self._join(identity)
        if settings.gateway.token:
            self._spawn(self._enrol())
        # Last: the first answer tells what the disk brought.
        await self.control.start()
        if settings.gateway.page is not None:
            self.page = self._start_page(settings.gateway.page)

    async def _stop(self, executor: ExecutorProcess | None) -> None:
        """Everything in under five seconds: services first, since they take the longest."""
        stopping = asyncio.create_task(executor.stop(self.executor, STOP_S)) if executor is not None else None
        for task in list(self._tasks):
            task.cancel()
        if self.page is not None:
            await asyncio.to_thread(self.page.stop)
        self.control.stop()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if stopping is not None:
            await stopping
        await self.manager.stop()
        for close in self._closers:
            close()
        if self.blobs is not None:
            self.blobs.close()

    def _on_stop_signal(self, number: int) -> None:
        log.info("stopping: %s", signal.Signals(number).name)
        self._stopping.set()

    def _start_page(self, address: tuple[str, int]) -> Page:
        from gateway.page import Page, PageError

        page = Page(address, self._page_directory, f"Gateway {self.node}")
        try:
            page.start()
        except PageError as error:
            raise CannotStart(str(error)) from error
        return page

    def _page_directory(self) -> Sequence[PageService]:
        """For the page's threads: the loop, which owns all state, makes the list."""
        made: Future[Sequence[PageService]] = Future()
        self._loop.call_soon_threadsafe(lambda: made.set_result(datasets.page_services(self)))
        return made.result(PAGE_PATIENCE_S)

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = self._loop.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._done)

    def _done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if task.cancelled() or (error := task.exception()) is None:
            return
        from gateway.executor_process import ExecutorEnded

        if isinstance(error, ExecutorEnded):
            log.critical("%s", error)
        else:
            log.critical("a part of the gateway failed, which is a bug: it stops", exc_info=error)
        self._status = 1
        self._stopping.set()

    def _reload(self) -> None:
        """SIGHUP: neighbours, routes and the policy change while everything runs; what needs a restart is named."""
        if "none" not in self.settings.executor.runtimes:
            self._spawn(self._reload_executor())  # it reads the file itself: this process need not be believed
        settings, problems = config.load(self.settings.path)
        for problem in problems:
            log.warning("%s", problem)
        if settings is None:
            log.error("%s is not usable; the gateway goes on with what it had", self.settings.path)
            return
        merged = config.reloaded(self.settings, settings)
        later = [
            field.name
            for field in dataclasses.fields(Settings)
            if getattr(settings, field.name) != getattr(merged, field.name)
        ]
        if later:
            log.warning("changes in %s take effect after a restart", ", ".join(later))
        self.settings = merged
        self.faces.apply()
        self._set_routes()
        log.info("reloaded %s", self.settings.path)

    async def _reload_executor(self) -> None:
        try:
            await self.executor.reload()
        except ExecutorError as error:
            log.error("the executor goes on with the policy it had: %s", error)

    # --- forwarder

    def _start_management(self) -> None:
        from gateway.forwarder.management import PREFIX, REMOTE_PREFIX, KeyRing, Management

        face = self.manager.internal("management")
        allowed = [names.parse(key) for key in self.settings.forwarder.management_keys]
        key_ring = KeyRing(allowed, lambda: self.membership.certificates) if allowed else None
        self.management = Management(self.forwarder, faces=self.faces, key_ring=key_ring)
        for prefix in (PREFIX, REMOTE_PREFIX) if allowed else (PREFIX,):
            face.endpoint.serve(prefix, self.management.on_interest)
            self.forwarder.fib.add(prefix, face.id, 0, "internal")

    def _set_routes(self) -> None:
        """Puts the static routes of the configuration into the FIB, in place of those that were there."""
        fib = self.forwarder.fib
        fib.remove_origin("static")
        costs = {neighbor.name: neighbor.cost for neighbor in self.settings.neighbors}
        for route in self.settings.routes:
            face = self.manager.face_of(route.neighbor)
            if face is not None:
                cost = route.cost if route.cost is not None else costs.get(route.neighbor, 1)
                fib.add(names.parse(route.prefix), face.id, cost, "static")
        face = self.manager.face_of(_controller_neighbor(self.settings) or "")
        if face is not None:
            fib.add(self.network.prefix, face.id, CONTROLLER_COST, "controller")

    def distance(self, node: str) -> float:
        """How far a node is by the cheapest route to it; this node itself is nearest, an unknown one farthest."""
        if node == self.node:
            return -1.0
        known = self.mesh.distance(node)
        if known is not None:
            return known
        hops = self.forwarder.fib.longest_prefix_match(self.network.node(node))
        return min((float(h.cost) for h in hops if (f := self.forwarder.faces.get(h.face_id)) and f.up), default=1e9)

    async def arrive(self, hints: Sequence[names.Name]) -> None:
        """Sees to it that a holder can be reached, where that is in our power (gateway.mesh.Mesh.arrive)."""
        nodes = [hint for hint in hints if hint.startswith(self.network.nodes)]
        await self.mesh.arrive(names.text(names.components(hint)[-1]) for hint in nodes)

    def pin(self, wire: bytes) -> None:
        self.forwarder.content_store.pin(decode_data(wire))

    # --- monitor

    def _start_monitor(self) -> None:
        gateway = self.settings.gateway
        face = self.manager.internal("monitor")
        for prefix in (names.HELLO, names.PROBE, self.network.node(self.node)):
            self.forwarder.fib.add(prefix, face.id, 0, "internal")
        identity = ReportIdentity(
            node=self.node,
            boot_counter=self._next_boot(),
            kernel_boot_id=_kernel_boot_id(),
            zone=gateway.zone,
            latitude=gateway.latitude,
            longitude=gateway.longitude,
            labels=gateway.labels,
            addresses=_addresses(self.settings),
            software=f"picasso-gateway {__version__}",
            interval_s=self.settings.monitor.interval_s,
        )
        host = HostSampler(disk=self.settings.forwarder.blob_dir or gateway.state_dir)
        netlink = Netlink()
        self._closers += [host.close, netlink.close, self.kernel.close, self.mesh.stop]
        self.monitor = MonitorAgent(
            MonitorPorts(self), face.endpoint, self.network, identity, host, netlink, self.settings.monitor.networks
        )
        self._spawn(self.monitor.run())
        self.manager.on_face_up = self.monitor.on_face_up
        self.kernel.watch(self.mesh.changed, self.mesh.on_link)
        self._spawn(self.mesh.run())
        self._spawn(self._mesh_ports.follow_batman())

    def _next_boot(self) -> int:
        """The number of this start; 0 where the state directory can't be written, which a member must know."""
        try:
            return self.identities.next_boot(time.time())
        except OSError as error:
            self.problems["gateway.state_dir"] = f"{error}; reports are not ordered over restarts"
            log.warning("gateway.state_dir: %s", error)
            return 0

    def on_unknown_key(self, face_id: int, key_name: names.Name) -> None:
        """A neighbour's certificate is missing: it has it itself."""
        self._spawn(self._learn(face_id, key_name))

    async def _learn(self, face_id: int, key_name: names.Name) -> None:
        if await self.membership.learn(self.client_endpoint, face_id, key_name):
            self.monitor.greet_all()

    def on_silence(self, face_id: int, node: str) -> None:
        """A neighbour is not heard any more: what only its hellos said leads nowhere."""
        self._neighbor_nodes.pop(face_id, None)
        self.mesh.on_silence(face_id)
        if self.custody is not None:
            self.custody.on_silence(face_id)

    def on_hello(self, face_id: int, hello: Hello) -> None:
        """A neighbour said who it is: its node name is reached by this face, and it may hold a newer head."""
        is_new = self._neighbor_nodes.get(face_id) != hello.node
        self._neighbor_nodes[face_id] = hello.node
        self.mesh.on_hello(face_id, hello)
        if is_new and self.fetcher is not None:
            self.fetcher.nudge()
        if self.placement is not None:
            self.placement.on_hello(face_id, hello.node, hello.epoch, hello.version)
        if self.custody is not None:
            self.custody.on_hello(face_id, hello.node, hello.boot_id, hello.blobs)

    def neighbor_node(self, face_id: int) -> str:
        return self._neighbor_nodes.get(face_id, "")

    def is_met(self, node: str) -> bool:
        """Whether this node is a neighbour now."""
        faces = [face_id for face_id, neighbor in self._neighbor_nodes.items() if neighbor == node]
        return any((face := self.forwarder.faces.get(face_id)) and face.up for face_id in faces)

    # --- membership

    async def _enrol(self) -> None:
        from gateway.placement_client.enrolment import Enrolment

        self.enrolment = Enrolment(
            self.identities,
            self.client_endpoint,
            self.settings.gateway.token,
            self.settings.path,
            unreachable=(FetchError, ExecutorError),
            forget_as_root=self.executor.forget_token,
            revocation_of=self.placement.revocation_of if self.placement is not None else None,
        )
        identity = await self.enrolment.run()
        if (known := self.membership.identity) is None:
            self.membership.identity = identity
            self._join(identity)
        elif known.key.name != identity.key.name:
            self.membership.renew(identity)
            self.pin(identity.certificate)
        else:
            return  # a token that a power cut had left in the file; it is wiped now
        log.info("gateway %s is enrolled in %s", self.node, self.network.uri)
        self.monitor.greet_all()

    @property
    def revocation(self) -> str:
        """Which head revokes this node's key, in words; empty for a member in good standing."""
        identity = self.membership.identity
        if identity is None or self.placement is None:
            return ""
        return self.placement.session.revocation_of(identity.key.name)

    def _join(self, identity: Identity) -> None:
        """Takes part in the network: serves the certificates it has, follows its decisions."""
        self.pin(identity.certificate)
        for wire in identity.trust.certificates:
            self.pin(wire)
        gateway, controller = self.settings.gateway, self.settings.controller
        if self.blobs is None:
            self.problems["forwarder.blob_dir"] = "not set: this gateway can't keep images, so no service runs here"
        from gateway.fetcher import Fetcher, StoreBlobs
        from gateway.forwarder.consumer import Consumer
        from gateway.placement_client.client import PlacementClient
        from gateway.placement_client.decision_store import DecisionStore
        from gateway.placement_client.session import Session

        self.fetcher = Fetcher(Consumer(self.client_endpoint, self.network), self.arrive)
        session = Session(self.network, self.node, gateway.zone, identity.trust)
        self.placement = PlacementClient(
            session,
            DecisionStore(gateway.state_dir / "decision"),
            self.client_endpoint,
            StoreBlobs(self.fetcher, self.blobs),
            self.executor if "none" not in self.settings.executor.runtimes else None,
            interval_s=controller.interval_s if controller is not None else 30.0,
            unreachable=(FetchError, ExecutorError),
            pin=self.pin,
            distance=self.distance,
        )
        self.placement.start()
        self._spawn(self.placement.run())
        if self.blobs is not None:
            self._spawn(self._keep_wants(self.fetcher, self.blobs))

    async def _keep_wants(self, fetcher: Fetcher, store: BlobStore) -> None:
        """Store and forward: gets blobs for neighbours, and has them get what this node can't reach."""
        try:
            from gateway.forwarder.custody import Custody, Limits
        except ImportError as error:  # OpenWrt has Python's SQLite in a package of its own
            self._tell_want_problem(f"{error}: no wants are made or kept for others; install python3-sqlite3")
            return
        settings = self.settings.forwarder
        budget = settings.disk_cache_bytes // 4 if settings.custody_bytes is None else settings.custody_bytes
        face = self.manager.internal("wants")
        custody = Custody(
            self.node,
            self.network,
            face.endpoint,
            store,
            self.membership,
            store.directory / "wants.db",
            Limits(settings.want_lifetime_s, budget),
            reaches=lambda node: self.forwarder.has_route(self.network.node(node)),
            has_repository=lambda: self.forwarder.has_route(self.network.blobs, is_local=True),
            needed=self.needed_blobs,
            fail=self._tell_want_problem,
            consumer=fetcher,
        )
        await custody.start()
        if self.placement is not None and self.placement.session.decision is not None:
            custody.keep_only(self.needed_blobs())
        self._closers.append(custody.close)
        self.forwarder.fib.add(self.network.wants(self.node), face.id, 0, "internal")
        self.custody = custody
        if self.placement is not None:
            self.placement.entrust(custody)
        self.monitor.greet_all()
        await custody.run()

    def needed_blobs(self) -> set[bytes]:
        """What the services of this node need, whether or not it is here."""
        if self.placement is None:
            return set()
        return {need.ref.sha256 for need in self.placement.session.blob_needs(self.distance)}

    def _tell_want_problem(self, text: str) -> None:
        if text:
            self.problems["wants"] = text
            log.warning("%s", text)
        else:
            self.problems.pop("wants", None)

    async def _poll_executor(self) -> None:
        while True:
            with contextlib.suppress(ExecutorError):
                self.executor_status = await self.executor.status()
            await asyncio.sleep(EXECUTOR_POLL_S)


def _neighbors(settings: Settings) -> list[Neighbor]:
    found = [Neighbor(n.name, n.uri, n.cost, n.rate_bps, n.mtu, n.is_reliable) for n in settings.neighbors]
    if _controller_neighbor(settings) == CONTROLLER_NEIGHBOR and settings.controller is not None:
        found.append(Neighbor(CONTROLLER_NEIGHBOR, settings.controller.uri, CONTROLLER_COST))
    return found


def _controller_neighbor(settings: Settings) -> str | None:
    """The neighbour that leads to the controller: the configured one at its address, or one of its own."""
    if settings.controller is None or not settings.controller.uri:
        return None
    same = next((n.name for n in settings.neighbors if n.uri == settings.controller.uri), None)
    return same or CONTROLLER_NEIGHBOR


def _addresses(settings: Settings) -> tuple[str, ...]:
    """Where users reach services here: the address they listen on, if it is a specific one."""
    address = settings.executor.address
    return () if address in ("0.0.0.0", "::") else (address,)


def _kernel_boot_id() -> str:
    with contextlib.suppress(OSError):
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    return hashlib.sha256(str(time.time()).encode()).hexdigest()
