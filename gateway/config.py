"""The owner's UCI file as one frozen Settings: what may be set, what it means, and everything wrong with it at once."""

from __future__ import annotations

import socket
from dataclasses import dataclass, replace
from pathlib import Path

from gateway import options as readers
from gateway import uci
from gateway.options import did_you_mean
from gateway.sections import File, Problem, Problems, option, options, read_document, read_section

__all__ = [
    "ControllerSettings",
    "ExecutorSettings",
    "ForwarderSettings",
    "GatewaySettings",
    "MonitorSettings",
    "NeighborSettings",
    "PolicySettings",
    "Problem",
    "RouteSettings",
    "Settings",
    "load",
    "own_tcp_ports",
    "parse",
    "reloaded",
]

RUNTIMES = ("auto", "oci", "docker", "unikernel", "bubblewrap", "none")
# Names that the file may hold already, for a later version.
LATER_RUNTIMES = ("docker", "unikernel")


def _token(text: str) -> str:
    from gateway.protocol.trust import Token  # with it comes the cryptography, which `check` needs for this alone

    Token.parse(text)
    return text


@dataclass(frozen=True, slots=True)
class GatewaySettings:
    """Who this gateway is. `page` is (host, port) of its web page; an empty `token` means none is left to use."""

    enabled: bool = option(readers.boolean, True)
    network: str = option(readers.ndn_name, "/picasso")
    node: str = option(readers.identifier, "")  # parse() puts the machine's name here
    latitude: float | None = option(readers.number(-90, 90), None)
    longitude: float | None = option(readers.number(-180, 180), None)
    zone: str = option(readers.identifier, "")
    labels: tuple[str, ...] = options(readers.plain, (), "label")
    page: tuple[str, int] | None = option(readers.http_address, None)
    state_dir: Path = option(readers.directory, Path("/etc/picasso"))
    run_dir: Path = option(readers.directory, Path("/run/picasso"))
    token: str = option(_token, "", secret=True)


@dataclass(frozen=True, slots=True)
class ControllerSettings:
    """Where the controller's gateway is; an empty `uri` leaves it to the routes that are there anyway."""

    uri: str = option(readers.face_uri, "")
    interval_s: float = option(readers.seconds, 30.0, "interval")


@dataclass(frozen=True, slots=True)
class ForwarderSettings:
    """Faces, networks (interfaces) and caches; with no `blob_dir` nothing is cached on disk.

    `custody_bytes` are kept at most for other nodes' wants, a quarter of `disk_cache_bytes` where it is None.
    """

    listen: tuple[str, ...] = options(readers.listen_uri, ())  # parse() puts the socket in run_dir here
    networks: tuple[str, ...] = options(readers.interface, (), "network")
    memory_cache_bytes: int = option(readers.size_bytes, 16 << 20, "memory_cache")
    blob_dir: Path | None = option(readers.directory, None)
    disk_cache_bytes: int = option(readers.size_bytes, 512 << 20, "disk_cache")
    want_lifetime_s: float = option(readers.seconds, 72 * 3600.0, "want_lifetime")
    custody_bytes: int | None = option(readers.size_bytes, None, "custody")
    discovery: bool = option(readers.boolean, True)
    management_keys: tuple[str, ...] = options(readers.ndn_name, (), "management_key")


@dataclass(frozen=True, slots=True)
class NeighborSettings:
    """A gateway to connect to; `rate_bps` limits what is sent to it and is never taken for a measurement.

    `mtu` (bytes of UDP payload) and `is_reliable` (lost datagrams are sent again, if both ends say so) are for UDP.
    """

    name: str
    uri: str = option(readers.face_uri, "")
    cost: int = option(readers.integer(0, 1 << 31), 1)
    rate_bps: int | None = option(readers.rate_bps, None, "rate")
    mtu: int | None = option(readers.integer(548, 65_507), None)
    is_reliable: bool = option(readers.boolean, False, "reliable")


@dataclass(frozen=True, slots=True)
class RouteSettings:
    """A prefix reached through a neighbor; without `cost` the neighbor's own counts."""

    prefix: str = option(readers.ndn_name, "")
    neighbor: str = option(readers.plain, "")
    cost: int | None = option(readers.integer(0, 1 << 31), None)


@dataclass(frozen=True, slots=True)
class MonitorSettings:
    interval_s: float = option(readers.seconds, 30.0, "interval")
    networks: tuple[str, ...] = options(readers.interface, (), "network")


@dataclass(frozen=True, slots=True)
class ExecutorSettings:
    """Container runtimes in the order of preference, what all services together may use, and where they listen."""

    runtimes: tuple[str, ...] = options(readers.one_of(*RUNTIMES), ("auto",), "runtime")
    memory_bytes: int = option(readers.size_bytes, 256 << 20, "memory")
    cpu: float = option(readers.number(0.01, 1024), 1.5)
    disk_bytes: int = option(readers.size_bytes, 1 << 30, "disk")
    address: str = option(readers.ip_address, "0.0.0.0")  # where the ports of services listen


@dataclass(frozen=True, slots=True)
class PolicySettings:
    """The owner's last word: whose services may run, and on which ports (ranges with both ends)."""

    allow_providers: tuple[str, ...] = options(readers.provider_or_any, ("*",), "allow_provider")
    allow_ports: tuple[tuple[int, int], ...] = options(readers.port_range, ((8000, 8999),), "allow_port")


@dataclass(frozen=True, slots=True)
class Settings:
    """Everything in the file; `controller` is None when no such section is there."""

    path: Path
    gateway: GatewaySettings
    controller: ControllerSettings | None
    forwarder: ForwarderSettings
    neighbors: tuple[NeighborSettings, ...]
    routes: tuple[RouteSettings, ...]
    monitor: MonitorSettings
    executor: ExecutorSettings
    policy: PolicySettings

    @property
    def services_dir(self) -> Path:
        """Where the executor keeps services and what it was last told, beside the blobs they come from."""
        blob_dir = self.forwarder.blob_dir
        return (blob_dir.parent if blob_dir else self.gateway.state_dir) / "services"


_ONCE = ("gateway", "controller", "forwarder", "monitor", "executor", "policy")
_REPEATED = ("neighbor", "route")


def load(path: Path) -> tuple[Settings | None, list[Problem]]:
    """The settings of a file and all that is wrong with it, by line; None in their place if any of that is an error."""
    problems = Problems(path)
    document = read_document(path, problems)
    if document is None:
        return None, problems.in_order()
    return parse(document, problems, socket.gethostname())


def reloaded(running: Settings, changed: Settings) -> Settings:
    """The running settings with what of the changed file counts at once; all the rest waits for a restart.

    At once: neighbours, routes, the policy, the limits of services, and that a spent token is gone.
    """
    limits = changed.executor
    token = running.gateway.token if changed.gateway.token else ""
    return replace(
        running,
        gateway=replace(running.gateway, token=token),
        neighbors=changed.neighbors,
        routes=changed.routes,
        executor=replace(
            running.executor, memory_bytes=limits.memory_bytes, cpu=limits.cpu, disk_bytes=limits.disk_bytes
        ),
        policy=changed.policy,
    )


def own_tcp_ports(settings: Settings) -> tuple[tuple[int, str], ...]:
    """The TCP ports that the gateway listens on at the address of the services, and which option each comes from."""
    taken = [(*settings.gateway.page, "gateway.page")] if settings.gateway.page else []
    for uri in settings.forwarder.listen:
        if uri.startswith("tcp"):
            _, host, port = readers.face_parts(uri)
            taken.append((host, port, "forwarder.listen"))
    address = settings.executor.address
    return tuple((port, option) for host, port, option in taken if port and _hosts_overlap(host, address))


def _hosts_overlap(one: str, other: str) -> bool:
    return one == other or "::" in (one, other) or ("0.0.0.0" in (one, other) and ":" not in one + other)


def parse(document: uci.Document, problems: Problems, hostname: str) -> tuple[Settings | None, list[Problem]]:
    """As load(), of a document and the problems found so far; a node without a name is called like its host."""
    path, understood = problems.path, not problems.fatal
    file = File(document, problems)
    gateway = file.one("gateway", GatewaySettings)
    settings = Settings(
        path=path,
        gateway=replace(gateway, node=gateway.node or readers.node_of(hostname)),
        controller=file.one("controller", ControllerSettings) if file.of("controller") else None,
        forwarder=_with_listen(file.one("forwarder", ForwarderSettings), gateway.run_dir),
        neighbors=tuple(
            read_section(NeighborSettings, section, where, problems, name=where)
            for where, section in file.of("neighbor")
        ),
        routes=tuple(read_section(RouteSettings, section, where, problems) for where, section in file.of("route")),
        monitor=file.one("monitor", MonitorSettings),
        executor=file.one("executor", ExecutorSettings),
        policy=file.one("policy", PolicySettings),
    )
    file.check_types(_ONCE, _REPEATED)
    if understood:  # else what seems to be missing may stand in a line that was not
        _check_gateway(settings.gateway, file)
        _check_listen(file)
        _check_neighbors(settings.neighbors, file)
        _check_routes(settings, file)
        _check_executor(settings, file)
    return (None if problems.fatal else settings), problems.in_order()


def _with_listen(forwarder: ForwarderSettings, run_dir: Path) -> ForwarderSettings:
    # Only the local socket unless the owner says more: an open port is never a default.
    return forwarder if forwarder.listen else replace(forwarder, listen=(f"unix://{run_dir}/ndn.sock",))


# --- what no single option shows -----------------------------------------------------------------------------


def _check_gateway(gateway: GatewaySettings, file: File) -> None:
    if (gateway.latitude is None) != (gateway.longitude is None):
        given = "latitude" if gateway.longitude is None else "longitude"
        file.problems.error("latitude and longitude go together; one is missing", *file.place("gateway", given))
    network_is_wrong = file.problems.about(file.place("gateway", "network")[1])
    if gateway.token and not network_is_wrong and gateway.token.rsplit(".", 3)[0] != gateway.network:
        text = f"is for the network {gateway.token.rsplit('.', 3)[0]!r}, and this gateway's is {gateway.network!r}"
        file.problems.error(text, *file.place("gateway", "token"))


def _check_listen(file: File) -> None:
    given = file.given("forwarder", "listen")
    place = file.place("forwarder", "listen")[1]
    seen: list[str] = []
    for value, line in zip(given.values, given.lines, strict=True) if given else ():
        try:
            uri = readers.listen_uri(value)
        except ValueError:
            continue  # empty, or reported where it was read
        clash = next((other for other in seen if _same_socket(uri, other)), None)
        if clash is not None:
            file.problems.error(f"{value!r} takes the same port or path as {clash!r}; keep one", line, place)
        seen.append(uri)


def _same_socket(one: str, other: str) -> bool:
    if one.startswith("unix:") or other.startswith("unix:"):
        return one == other
    (scheme, host, port), (other_scheme, other_host, other_port) = readers.face_parts(one), readers.face_parts(other)
    wildcard = "0.0.0.0" in (host, other_host) or "::" in (host, other_host)
    return (scheme, port) == (other_scheme, other_port) and port != 0 and (host == other_host or wildcard)


def _check_neighbors(neighbors: tuple[NeighborSettings, ...], file: File) -> None:
    first: dict[str, str] = {}
    for index, neighbor in enumerate(neighbors):
        section = file.of("neighbor")[index][1]
        if section.name is None:
            text = "a neighbor needs a name; write: config neighbor 'portal'"
            file.problems.error(text, section.line, neighbor.name)
        if section.get("uri") is None:
            file.problems.error("is missing: a neighbor needs its face URI", *file.place("neighbor", "uri", index))
        for name, is_set in (("mtu", neighbor.mtu is not None), ("reliable", neighbor.is_reliable)):
            if is_set and neighbor.uri and not neighbor.uri.startswith("udp"):
                file.problems.warning("has no effect: it is for UDP", *file.place("neighbor", name, index))
        if neighbor.uri and first.setdefault(neighbor.uri, neighbor.name) != neighbor.name:
            text = f"{neighbor.uri!r} is the neighbor {first[neighbor.uri]!r} already"
            file.problems.warning(text, *file.place("neighbor", "uri", index))


def _check_routes(settings: Settings, file: File) -> None:
    known = [neighbor.name for neighbor in settings.neighbors]
    first: dict[tuple[str, str], int] = {}
    for index, route in enumerate(settings.routes):
        section = file.of("route")[index][1]
        for name in ("prefix", "neighbor"):
            if section.get(name) is None:
                file.problems.error("is missing: a route needs it", *file.place("route", name, index))
        if route.neighbor and route.neighbor not in known:
            text = f"there is no neighbor {route.neighbor!r}{did_you_mean(route.neighbor, known)}"
            file.problems.error(text, *file.place("route", "neighbor", index))
        elif first.setdefault((route.prefix, route.neighbor), section.line) != section.line:
            text = f"the same route stands on line {first[route.prefix, route.neighbor]} already"
            file.problems.warning(text, section.line, file.of("route")[index][0])


def _check_executor(settings: Settings, file: File) -> None:
    runtimes = settings.executor.runtimes
    line, place = file.place("executor", "runtime")
    if not runtimes and not file.problems.about(place):
        file.problems.error("names no runtime; write auto or none", line, place)
    if len(runtimes) > 1 and "none" in runtimes:
        file.problems.error("'none' switches the executor off and stands alone", line, place)
    if len(set(runtimes)) < len(runtimes):
        file.problems.warning("names a runtime twice", line, place)
    for name in dict.fromkeys(name for name in runtimes if name in LATER_RUNTIMES):
        rest = "another one of the list is used" if len(set(runtimes)) > 1 else "no service can run; write auto"
        file.problems.warning(f"this version has no {name} runtime: {rest}", line, place)
    if settings.forwarder.blob_dir is None:
        no_store = "has no effect without forwarder.blob_dir"
        if file.given("forwarder", "disk_cache"):
            file.problems.warning(no_store, *file.place("forwarder", "disk_cache"))
        if file.given("executor", "runtime") and runtimes != ("none",):
            file.problems.warning(no_store + ": images are kept there", line, place)
