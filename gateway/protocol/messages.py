"""The messages that gateways and the controller exchange, as values; docs/protocol.md has their CDDL."""

from __future__ import annotations

from dataclasses import dataclass

from gateway.protocol.codec import key


@dataclass(frozen=True, slots=True)
class BlobRef:
    """An immutable object: its SHA-256, its size in bytes and the root of its index of implicit digests."""

    sha256: bytes = key(1)
    size: int = key(2)
    root: bytes = key(3)


# --- what a node says of itself ------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Hardware:
    model: str = key(1, "")
    architecture: str = key(2, "")
    cpus: int = key(3, 0)
    memory_bytes: int = key(4, 0)
    disk_bytes: int = key(5, 0)


@dataclass(frozen=True, slots=True)
class Load:
    """How busy the node is; None where the machine does not say."""

    cpu_percent: float | None = key(1, None)
    load1: float | None = key(2, None)
    memory_available_bytes: int | None = key(3, None)
    disk_free_bytes: int | None = key(4, None)
    temperature_c: float | None = key(5, None)


@dataclass(frozen=True, slots=True)
class Bandwidth:
    """A bandwidth with where it comes from: `goodput`, `probe`, `peer`, `nl80211` or `class`, best first.

    `age_s` counts from the measurement, `confidence` is 0 to 1.
    """

    mbps: float = key(1)
    source: str = key(2)
    age_s: float = key(3, 0.0)
    confidence: float = key(4, 0.0)


@dataclass(frozen=True, slots=True)
class LinkReport:
    """One overlay link as this node sees it: `rx` is from the neighbour to this node, `tx` the other way.

    `rate_*_mbps` is the traffic at the moment; `state` is `up` or `down`; `loss` is 0 to 1.
    """

    node: str = key(1)
    neighbor: str = key(2, "")
    interface: str = key(3, "")
    medium: str = key(4, "")
    state: str = key(5, "up")
    rx: Bandwidth | None = key(6, None)
    tx: Bandwidth | None = key(7, None)
    rtt_ms: float | None = key(8, None)
    loss: float | None = key(9, None)
    signal_dbm: int | None = key(10, None)
    rx_bytes: int = key(11, 0)
    tx_bytes: int = key(12, 0)
    rate_rx_mbps: float | None = key(13, None)
    rate_tx_mbps: float | None = key(14, None)


@dataclass(frozen=True, slots=True)
class InterfaceReport:
    """An interface and its kernel counters; `speed_mbps` is an upper bound of a wired leg, never a measurement."""

    name: str = key(1)
    state: str = key(2, "")
    medium: str = key(3, "")
    speed_mbps: float | None = key(4, None)
    rx_bytes: int = key(5, 0)
    tx_bytes: int = key(6, 0)
    rx_errors: int = key(7, 0)
    tx_errors: int = key(8, 0)
    rx_dropped: int = key(9, 0)
    tx_dropped: int = key(10, 0)


@dataclass(frozen=True, slots=True)
class RouteReport:
    """The next hop (a neighbour node) that this node uses towards `node`."""

    node: str = key(1)
    next_hop: str = key(2)
    cost: int = key(3, 0)


@dataclass(frozen=True, slots=True)
class ServiceStatus:
    """A service on a node: `state` is what the executor does with it, `health` what its check says.

    state: `fetching`, `starting`, `running`, `back-off`, `crash-loop`, `stopped`, `refused`; health: `healthy`,
    `unhealthy`, `unknown`; `started` is Unix time of the running instance; `reason` says why it is refused or down.
    """

    name: str = key(1)
    generation: int = key(2, 0)
    state: str = key(3, "")
    health: str = key(4, "unknown")
    runtime: str = key(5, "")
    restarts: int = key(6, 0)
    started: float | None = key(7, None)
    ports: tuple[int, ...] = key(8, ())
    cpu_percent: float | None = key(9, None)
    memory_bytes: int | None = key(10, None)
    exit_code: int | None = key(11, None)
    reason: str = key(12, "")


@dataclass(frozen=True, slots=True)
class ForwarderCounters:
    interests: int = key(1, 0)
    data: int = key(2, 0)
    nacks: int = key(3, 0)
    hits: int = key(4, 0)
    misses: int = key(5, 0)
    in_bytes: int = key(6, 0)
    out_bytes: int = key(7, 0)
    drops: int = key(8, 0)


@dataclass(frozen=True, slots=True)
class NodeReport:
    """One node's state; ordered by (boot_id, sequence), never by `time`, because its clock may be wrong."""

    node: str = key(1)
    boot_id: str = key(2)
    sequence: int = key(3)
    time: float = key(4, 0.0)
    zone: str = key(5, "")
    latitude: float | None = key(6, None)
    longitude: float | None = key(7, None)
    labels: tuple[str, ...] = key(8, ())
    addresses: tuple[str, ...] = key(9, ())
    uptime_s: float = key(10, 0.0)
    hardware: Hardware = key(11, Hardware())
    load: Load = key(12, Load())
    interfaces: tuple[InterfaceReport, ...] = key(13, ())
    links: tuple[LinkReport, ...] = key(14, ())
    routes: tuple[RouteReport, ...] = key(15, ())
    services: tuple[ServiceStatus, ...] = key(16, ())
    forwarder: ForwarderCounters = key(17, ForwarderCounters())
    blobs: tuple[bytes, ...] = key(18, ())
    runtimes: tuple[str, ...] = key(19, ())
    software: str = key(20, "")
    interval_s: float = key(21, 30.0)


@dataclass(frozen=True, slots=True)
class Heard:
    """A neighbour that this node hears: of its last 16 hellos so many, and the measured rate from it to us."""

    node: str = key(1)
    received_of_16: int = key(2, 0)
    rx: Bandwidth | None = key(3, None)


@dataclass(frozen=True, slots=True)
class Reach:
    """A node that the teller reaches, so that nodes beyond the neighbours are known: a distance, and where it listens.

    `cost` adds up those of the overlay links; `path` has the first 4 bytes of the SHA-256 of each node's name between
    the teller and `node`, nearest first; `uri` is a face URI of `node`. `way` numbers the teller's IP next hops: nodes
    with one number begin with the same one. `rtt_ms` is measured, to the teller's own neighbours only.
    """

    node: str = key(1)
    cost: int = key(2, 1)
    path: bytes = key(3, b"")
    uri: str = key(4, "")
    way: int = key(5, 0)
    rtt_ms: float | None = key(6, None)


@dataclass(frozen=True, slots=True)
class Hello:
    """Who is at the other end of a face, whom it hears, which head it holds, and which blobs.

    `blobs` are the first 8 bytes of the SHA-256 of blobs that it holds whole or in part, newest first, at most 64.
    `faces` are the URIs at which it may be dialled, `links` its link-local and hardware addresses, for who finds those
    in a routing table.
    """

    node: str = key(1)
    boot_id: str = key(2)
    sequence: int = key(3)
    addresses: tuple[str, ...] = key(4, ())
    epoch: int = key(5, 0)
    version: int = key(6, 0)
    heard: tuple[Heard, ...] = key(7, ())
    blobs: tuple[bytes, ...] = key(8, ())
    faces: tuple[str, ...] = key(9, ())
    links: tuple[str, ...] = key(10, ())
    reach: tuple[Reach, ...] = key(11, ())


# --- what a provider allows to run ---------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Port:
    container: int = key(1)
    host: int = key(2)


@dataclass(frozen=True, slots=True)
class HealthCheck:
    """HTTP GET of `path` on the container port `port` (any 2xx or 3xx is healthy), or `command` inside (exit 0)."""

    path: str = key(1, "")
    port: int = key(2, 0)
    command: tuple[str, ...] = key(3, ())
    interval_s: float = key(4, 10.0)
    timeout_s: float = key(5, 2.0)
    failures: int = key(6, 3)
    grace_s: float = key(7, 15.0)


@dataclass(frozen=True, slots=True)
class Constraints:
    """What a node must have to be a head, and what the heads must do for their members; empty or zero asks for nothing.

    `minimum_bandwidth_mbps` and `maximum_latency_ms` (round trip) are targets of the path from a head to a member;
    `maximum_members` caps a head. `direction` is `down` (bandwidth counts from head to member) or `both` (the slower
    direction). `apart` are services with which it shares no node, `near` those with which it exchanges traffic: the
    path from their best head counts for so many members' worth of bandwidth.
    """

    zone: str = key(1, "")
    labels: tuple[str, ...] = key(2, ())
    minimum_cpus: int = key(3, 0)
    minimum_memory_bytes: int = key(4, 0)
    minimum_bandwidth_mbps: float = key(5, 0.0)
    exclude: tuple[str, ...] = key(6, ())
    minimum_availability: float = key(7, 0.0)
    maximum_latency_ms: float = key(8, 0.0)
    apart: tuple[str, ...] = key(9, ())
    maximum_members: int = key(10, 0)
    direction: str = key(11, "down")
    minimum_free_cpu_percent: float = key(12, 0.0)
    minimum_free_memory_bytes: int = key(13, 0)
    near: dict[str, float] = key(14, dict)


@dataclass(frozen=True, slots=True)
class ServiceSpec:
    """What may run, signed by its provider: the image by digest, its limits, and what it asks of placement.

    `manifest` is the OCI image manifest; `blobs` are the configuration and the layers it names, in its order;
    `platform` is what the image is built for (`linux/arm64`), empty where nobody knows. `cpu` is in cores; `restart`
    is `always`, `on-failure` or `never`; `runtime` is `any`, `docker`, `oci` or `unikernel`.
    """

    name: str = key(1)
    version: int = key(2)
    provider: str = key(3)
    manifest: BlobRef = key(4)
    blobs: tuple[BlobRef, ...] = key(5)
    runtime: str = key(6, "any")
    command: tuple[str, ...] = key(7, ())
    environment: dict[str, str] = key(8, dict)
    ports: tuple[Port, ...] = key(9, ())
    cpu: float = key(10, 0.5)
    memory_bytes: int = key(11, 64 << 20)
    disk_bytes: int = key(12, 64 << 20)
    health: HealthCheck | None = key(13, None)
    restart: str = key(14, "always")
    volumes: tuple[str, ...] = key(15, ())
    replicas: int = key(16, 1)
    algorithm: str = key(17, "optimal")
    constraints: Constraints = key(18, Constraints())
    platform: str = key(19, "")


# --- what the controller decides -----------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class PlacedHead:
    """A node that runs the service, why, and the node from which it fetches the image (`parent`).

    `bandwidth_mbps` is the mean bandwidth from it to its members; `address` is where users reach its ports.
    """

    node: str = key(1)
    reason: str = key(2, "")
    bandwidth_mbps: float = key(3, 0.0)
    address: str = key(4, "")
    parent: str = key(5, "")


@dataclass(frozen=True, slots=True)
class Section:
    """Where one service runs in one zone (`""` is the whole network); `members` maps a node to its head.

    `specification` is the name of the ServiceSpec packet, `specification_digest` that packet's implicit digest;
    `origin` is the node beside the repository, which holds every blob of the service. `parents` maps each stand-by to
    the node from which it fetches the image.
    """

    service: str = key(1)
    zone: str = key(2)
    specification: bytes = key(3)
    specification_digest: bytes = key(4)
    algorithm: str = key(5, "")
    snapshot: str = key(6, "")
    origin: str = key(7, "")
    heads: tuple[PlacedHead, ...] = key(8, ())
    standbys: tuple[str, ...] = key(9, ())
    members: dict[str, str] = key(10, dict)
    parents: dict[str, str] = key(11, dict)


@dataclass(frozen=True, slots=True)
class SectionRef:
    zone: str = key(1)
    service: str = key(2)
    blob: BlobRef = key(3)


@dataclass(frozen=True, slots=True)
class Head:
    """The one mutable object of a network: everything that is decided, by hash. Newer is a greater (epoch, version)."""

    network: str = key(1)
    epoch: int = key(2)
    version: int = key(3)
    issued: float = key(4)
    expires: float = key(5)
    sections: tuple[SectionRef, ...] = key(6, ())
    revocations: tuple[bytes, ...] = key(7, ())

    @property
    def order(self) -> tuple[int, int]:
        return self.epoch, self.version


# --- enrolment -----------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class EnrolRequest:
    """`proof` is HMAC-SHA256 with the token's secret over nonce, node name and public key (trust.enrol_proof)."""

    node: str = key(1)
    public_key: bytes = key(2)
    nonce: bytes = key(3)
    proof: bytes = key(4)


@dataclass(frozen=True, slots=True)
class EnrolReply:
    """The node's new certificate as a Data packet, or the reason of the refusal."""

    certificate: bytes = key(1, b"")
    refusal: str = key(2, "")


# --- wants: store and forward --------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Want:
    """A node asks whoever meets it to get a blob for it, or, `withdrawn`, to leave it; signed by the wanter.

    `priority` is 0 (control) to 9 (bulk); `lifetime_s` counts from the signature and is what custodians go by, because
    clocks may be wrong; `expires` is the end by the wanter's clock, for people; `holders` are nodes that have the blob.
    """

    blob: BlobRef = key(1)
    wanter: str = key(2)
    priority: int = key(3, 5)
    expires: float = key(4, 0.0)
    lifetime_s: float = key(5, 0.0)
    holders: tuple[str, ...] = key(6, ())
    withdrawn: bool = key(7, False)


@dataclass(frozen=True, slots=True)
class CarriedWant:
    """A want's signed packet on its way: how many more nodes may take it, and how much of its lifetime is left."""

    packet: bytes = key(1)
    hops: int = key(2, 0)
    left_s: float = key(3, 0.0)


@dataclass(frozen=True, slots=True)
class WantOffer:
    """What a node tells another when they meet: wants to take into custody, and what it holds for the other.

    `certificates` are those of the wanters; `held` are SHA-256 of blobs which the asked node wants. `serial` only makes
    every offer another packet.
    """

    node: str = key(1)
    serial: int = key(2, 0)
    wants: tuple[CarriedWant, ...] = key(3, ())
    certificates: tuple[bytes, ...] = key(4, ())
    held: tuple[bytes, ...] = key(5, ())


@dataclass(frozen=True, slots=True)
class WantRefusal:
    """Which want of an offer was not taken, by its place in it, and why.

    `is_passing` where it may be taken in a moment: a certificate is on its way, or too much was asked at once.
    """

    index: int = key(1)
    reason: str = key(2, "")
    is_passing: bool = key(3, False)


@dataclass(frozen=True, slots=True)
class WantAnswer:
    """What became of an offer; `held` are SHA-256 of blobs in it that the asked node has, whole or in part."""

    refusals: tuple[WantRefusal, ...] = key(1, ())
    held: tuple[bytes, ...] = key(2, ())
