"""A whole running emulation: the network, its gateways, their membership and the repository at the root."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType

from gateway.protocol.messages import BlobRef
from tests.emulation.gateways import EmulatedGateway, start_all, stop_all
from tests.emulation.image import Image
from tests.emulation.membership import Membership, Repository
from tests.emulation.namespaces import EmulationError
from tests.emulation.network import EmulatedNetwork
from tests.emulation.topology import Topology, delivery_parents, overlay_neighbors

PREFIX = "/picasso/emulation"
SETTLE_S, QUIET_ROUNDS, QUIET_BYTES_S = 90.0, 30, 20_000
# In memory: the disk of this machine is not what sixteen memory cards would be.
_MEMORY = Path("/dev/shm")


def scratch() -> Path:
    """A new directory for the files of a run, in memory where that is possible."""
    return Path(tempfile.mkdtemp(prefix="pe-", dir=_MEMORY if _MEMORY.is_dir() else None))


class Emulation:
    """Gateways on a topology whose root has the repository; a context manager that leaves nothing behind.

    Gateways are neighbours of those that lie next to them by the kernel's routes. `neighbor_options` are written into
    every neighbor section. Raises EmulationError.
    """

    def __init__(
        self,
        topology: Topology,
        root: str,
        transport: str = "tcp4",
        neighbor_options: Mapping[str, str] | None = None,
        forwarder_options: Mapping[str, str] | None = None,
        interval_s: float = 2.0,
    ) -> None:
        self.root, self.directory = root, scratch()
        self.directory.chmod(0o755)
        self.parents = delivery_parents(topology, root)
        self.network = EmulatedNetwork(topology, self.directory)
        near = overlay_neighbors(topology)
        self.neighbors = {node: len(others) for node, others in near.items()}
        self.gateways = {
            node: EmulatedGateway(
                self.network,
                node,
                PREFIX,
                self.directory / node,
                {other: neighbor_options or {} for other in near[node]},
                self._prefixes(node),
                transport,
                forwarder_options,
                interval_s,
            )
            for node in topology.gateways
        }
        self.membership = Membership(self.directory / "keys", PREFIX)
        self.membership.enrol({node: gateway.state for node, gateway in self.gateways.items()})
        self.repository = Repository(self.membership, self.directory / "repository", self.gateways[root].unix, root)

    def _prefixes(self, node: str) -> list[tuple[str, str]]:
        """The static routes of a node: everything, and its parent by name, by way of the parent."""
        parent = self.parents.get(node)
        return [(PREFIX, parent), (f"{PREFIX}/node/{parent}", parent)] if parent is not None else []

    def __enter__(self) -> Emulation:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def start(self) -> Emulation:
        """Starts every gateway, then the repository."""
        start_all(list(self.gateways.values()))
        self.repository.start()
        return self

    def close(self) -> None:
        """Ends everything; may be called twice."""
        try:
            self.repository.stop()
            stop_all(list(self.gateways.values()))
        finally:
            self.network.close()

    def settle(self, timeout_s: float = SETTLE_S) -> None:
        """Waits until all neighbours have measured the links between them, which they do once they are up."""
        started = time.monotonic()
        unmeasured = set(self.gateways)
        while unmeasured:
            self.check()
            if time.monotonic() - started > timeout_s:
                raise EmulationError(f"links not measured after {timeout_s:g} s at {', '.join(sorted(unmeasured))}")
            time.sleep(0.5)
            unmeasured = {node for node in unmeasured if not self._has_measured(node)}
        self._wait_until_quiet()

    def _has_measured(self, node: str) -> bool:
        rows = self.gateways[node].ask("links")
        return len(rows) >= self.neighbors[node] and all(row["rx_source"] for row in rows)

    def _wait_until_quiet(self) -> None:
        last = self.network.traffic()
        for _ in range(QUIET_ROUNDS):
            time.sleep(1.0)
            now = self.network.traffic()
            if all((now[pair] - last[pair]).bytes < QUIET_BYTES_S for pair in now):
                return
            last = now

    def add(self, image: Image) -> list[BlobRef]:
        """Puts an image into the repository; the manifest's BlobRef comes first."""
        return [self.repository.add(blob) for blob in image.blobs]

    def deliver(self, service: str, image: list[BlobRef]) -> float:
        """Decides that every gateway but the root runs the service, each with its parent in the tree; when that was."""
        return self.repository.decide(service, image, self.parents)

    def check(self) -> None:
        """Raises EmulationError when a gateway has ended."""
        for gateway in self.gateways.values():
            gateway.check()
