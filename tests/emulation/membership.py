"""A network's membership without its ceremonies: every node enrolled on disk, and a repository that decides by call.

The repository stands where the controller stands, on a gateway's unix socket, and says what the controller would say:
a head, sections, specifications, and the blobs they name. So gateways get an image by their own placement client.
"""

from __future__ import annotations

import asyncio
import hashlib
import threading
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from pathlib import Path

from controller import authority
from controller.application import Catalogue
from controller.authority import Authority
from gateway.forwarder.consumer import connect
from gateway.forwarder.endpoint import Endpoint, FetchError, Handler
from gateway.forwarder.packet import Interest
from gateway.forwarder.producer import BlobStore, serve_blobs
from gateway.placement_client.decision_store import DecisionStore, Floors, StoredDecision
from gateway.protocol import codec, keys, names
from gateway.protocol.messages import BlobRef, Head, PlacedHead, Section, SectionRef, ServiceSpec
from tests.emulation.namespaces import EmulationError

PROVIDER = "emulation"
LIFETIME_S = 86400.0
ATTACH_S = 10.0


class Membership:
    """The keys of one network in a directory; a node is enrolled by writing what enrolment leaves on its disk."""

    def __init__(self, directory: Path, prefix: str) -> None:
        self.network, self.directory = names.Network(prefix), directory
        now = time.time()
        authority.make_network(directory, self.network, now)
        authority.make_provider(directory, self.network, PROVIDER, now)
        self.authority = Authority(directory, self.network)

    def enrol(self, states: Mapping[str, Path]) -> None:
        """Makes members of nodes, given their state directories, and lets each know the others' certificates."""
        for node, state in states.items():
            authority.make_gateway_identity(self.authority, state, node, time.time())
        wires = [(state / "identity.ndn").read_bytes() for state in states.values()]
        wires += self.certificates()
        for state in states.values():
            for wire in wires:
                (state / "certificates" / f"{hashlib.sha256(wire).hexdigest()}.ndn").write_bytes(wire)

    def certificates(self) -> tuple[bytes, ...]:
        """Those of the controller and the provider."""
        return tuple((self.directory / f"{name}.ndn").read_bytes() for name in ("controller", f"providers/{PROVIDER}"))


def put_on_disk(decision: StoredDecision, state: Path) -> None:
    """Leaves a decision in a state directory, as if the gateway had got it while it was connected."""
    DecisionStore(state / "decision").save(decision, Floors())


class Repository:
    """Holds images and decides who gets them, on the unix socket of the gateway beside it; runs on its own thread."""

    def __init__(self, membership: Membership, directory: Path, unix: str, node: str) -> None:
        self._membership, self._network, self._unix, self._node = membership, membership.network, unix, node
        directory.mkdir(parents=True, exist_ok=True)
        self.store = BlobStore(directory, self._network)
        self._heads, self._specifications = Catalogue(), Catalogue()
        self._version = 0
        self._newest: StoredDecision | None = None
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="repository", daemon=True)
        self._endpoint: Endpoint | None = None

    def start(self) -> Repository:
        """Attaches to the gateway, which must be up; raises EmulationError."""
        self._thread.start()
        try:
            self._call(self._attach()).result(ATTACH_S)
        except (FetchError, OSError, TimeoutError) as error:
            self.stop()
            raise EmulationError(f"the repository does not get to {self._unix}: {error}") from error
        # A controller with nothing to place has a head too: gateways that ask get an answer, and ask again soon.
        self._publish(self._newest or StoredDecision(self._sign_head(())))
        return self

    def stop(self) -> None:
        if self._endpoint is not None:
            self._loop.call_soon_threadsafe(self._endpoint.close)
        if self._thread.is_alive():
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join()
        self.store.close()

    def _call(self, work: object) -> Future[None]:
        return asyncio.run_coroutine_threadsafe(work, self._loop)  # type: ignore[arg-type]

    async def _attach(self) -> None:
        network = self._network
        endpoint = self._endpoint = await connect(self._unix)
        endpoint.serve(network.head, _answer(self._heads))
        endpoint.serve(network.providers, _answer(self._specifications))
        serve_blobs(endpoint, network, self.store)
        for prefix in (network.controller, network.providers, network.blobs):
            await endpoint.register(prefix)

    # --- what is decided

    def add(self, content: bytes | Path) -> BlobRef:
        """Takes a blob in."""
        return self.store.add(content) if isinstance(content, Path) else self.store.add_bytes(content)

    def decide(
        self, service: str, image: Sequence[BlobRef], parents: Mapping[str, str], standbys: Sequence[str] = ()
    ) -> float:
        """Makes the nodes in `parents` heads of a service, each with the node to fetch the image from.

        `image` is the manifest and then the other blobs. Returns when (time.monotonic) the decision was to be had.
        """
        self._publish(self.compose(service, image, parents, standbys))
        return time.monotonic()

    def _publish(self, decision: StoredDecision) -> None:
        done = threading.Event()

        def publish() -> None:
            for wire in decision.specifications:
                self._specifications.add(wire)
            self._heads.replace([decision.head])
            done.set()

        self._loop.call_soon_threadsafe(publish)
        done.wait(ATTACH_S)

    def compose(
        self, service: str, image: Sequence[BlobRef], parents: Mapping[str, str], standbys: Sequence[str] = ()
    ) -> StoredDecision:
        """The same decision as a gateway keeps it on its disk, newer than any before; `start` tells the newest."""
        specification = self._specification(service, image)
        section = codec.encode(self._section(service, specification, parents, standbys))
        head = self._sign_head((SectionRef("", service, self.store.add_bytes(section)),))
        self._newest = StoredDecision(head, self._membership.certificates(), (section,), (specification,))
        return self._newest

    def _sign_head(self, sections: tuple[SectionRef, ...]) -> bytes:
        self._version, now = self._version + 1, time.time()
        head = Head(self._network.uri, 1, self._version, now, now + LIFETIME_S, sections)
        return self._membership.authority.sign_head(head)

    def _specification(self, service: str, image: Sequence[BlobRef]) -> bytes:
        spec = ServiceSpec(service, self._version + 1, PROVIDER, image[0], tuple(image[1:]))
        return authority.sign_service(self._membership.directory, self._network, spec)

    def _section(
        self, service: str, specification: bytes, parents: Mapping[str, str], standbys: Sequence[str]
    ) -> Section:
        packet = keys.parse(specification)
        heads = tuple(PlacedHead(node, parent=parent) for node, parent in parents.items())
        return Section(service, "", packet.name, packet.digest, "basp", "", self._node, heads, standbys=tuple(standbys))


def _answer(catalogue: Catalogue) -> Handler:
    def answer(interest: Interest) -> bytes | None:
        return catalogue.find(interest.name, interest.can_be_prefix, interest.digest)

    return answer
