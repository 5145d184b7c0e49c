"""The owner's last word: which of the assigned services this gateway lets run. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from gateway.protocol.messages import ServiceSpec
from gateway.units import binary_size

# It becomes the name of a directory, a host, a container and a control group.
_NAME = re.compile(r"[a-z0-9]([a-z0-9.-]{0,61}[a-z0-9])?")
_RESTARTS = ("always", "on-failure", "never")
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_CPU_MINIMUM = 0.01
_MEMORY_MINIMUM_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class Policy:
    """What the owner's configuration allows; the sizes are for all services together.

    `own_ports` are those that this gateway itself listens on where services would, each with the option that says so.
    """

    providers: tuple[str, ...]
    ports: tuple[tuple[int, int], ...]
    memory_bytes: int
    cpu: float
    disk_bytes: int
    runtimes: tuple[str, ...]
    own_ports: tuple[tuple[int, str], ...] = ()


def refusal(policy: Policy, spec: ServiceSpec) -> str:
    """Why this service may not run here whatever else does; empty when it may."""
    if _NAME.fullmatch(spec.name) is None or ".." in spec.name:
        return f"{spec.name!r:.80} is no service name: small letters, digits, hyphens and dots, at most 63"
    if "*" not in policy.providers and spec.provider not in policy.providers:
        return f"the owner does not allow the provider {spec.provider!r} (policy.allow_provider)"
    if spec.runtime not in ("any", *policy.runtimes):
        return f"it needs the runtime {spec.runtime!r}; this gateway has {', '.join(policy.runtimes) or 'none'}"
    return _port_refusal(policy, spec) or _field_refusal(spec)


def admit(policy: Policy, specs: Iterable[ServiceSpec]) -> dict[str, str]:
    """Service name -> refusal (empty when admitted) of these services together, the first ones first."""
    memory, cpu, disk = policy.memory_bytes, policy.cpu, policy.disk_bytes
    taken: dict[int, str] = {}
    refusals = {}
    for spec in specs:
        reason = refusal(policy, spec) or _shortage(spec, memory, cpu, disk) or _conflict(spec, taken)
        refusals[spec.name] = reason
        if not reason:
            memory, cpu, disk = memory - spec.memory_bytes, cpu - spec.cpu, disk - spec.disk_bytes
            taken |= {port.host: spec.name for port in spec.ports}
    return refusals


def _port_refusal(policy: Policy, spec: ServiceSpec) -> str:
    own = dict(policy.own_ports)
    for port in spec.ports:
        if not 0 < port.container < 1 << 16:
            return f"its container port {port.container} is no port"
        if not any(low <= port.host <= high for low, high in policy.ports):
            return f"the owner does not allow the port {port.host} (policy.allow_port)"
        if port.host in own:
            return f"its port {port.host} is taken by this gateway itself ({own[port.host]})"
    return ""


def _field_refusal(spec: ServiceSpec) -> str:
    if spec.restart not in _RESTARTS:
        return f"its restart policy {spec.restart!r:.40} is none of {', '.join(_RESTARTS)}"
    if not spec.cpu >= _CPU_MINIMUM or spec.memory_bytes < _MEMORY_MINIMUM_BYTES or spec.disk_bytes <= 0:
        return f"its limits are too small: cpu {spec.cpu:g}, memory {spec.memory_bytes}, disk {spec.disk_bytes}"
    if spec.volumes:
        return "it asks for volumes, which this gateway does not offer"
    texts = (*spec.command, *spec.environment, *spec.environment.values())
    if any("\0" in text for text in texts) or any(_VARIABLE.fullmatch(name) is None for name in spec.environment):
        return "its command or environment has a text that no program can be given"
    health = spec.health
    if health is None:
        return ""
    if bool(health.path) == bool(health.command):
        return "its health check has to be a path or a command, one of the two"
    if health.path and (not health.path.startswith("/") or not health.path.isprintable() or " " in health.path):
        return f"its health check's path {health.path!r:.80} is no path"
    if health.path and not 0 < health.port < 1 << 16:
        return f"its health check's port {health.port} is no port"
    if not (health.interval_s >= 1.0 and 0 < health.timeout_s <= 60.0 and health.failures >= 1 and health.grace_s >= 0):
        return "its health check's times are out of range (interval at least 1 s, timeout at most 60 s)"
    return ""


def _shortage(spec: ServiceSpec, memory: int, cpu: float, disk: int) -> str:
    for option, asked, left in (("memory", spec.memory_bytes, memory), ("disk", spec.disk_bytes, disk)):
        if asked > left:
            return f"it asks for {binary_size(asked)} of {option}, {binary_size(left)} are left (executor.{option})"
    if spec.cpu > cpu + 1e-9:
        return f"it asks for {spec.cpu:g} of cpu, {cpu:g} are left (executor.cpu)"
    return ""


def _conflict(spec: ServiceSpec, taken: dict[int, str]) -> str:
    hosts = [port.host for port in spec.ports]
    for host in hosts:
        if host in taken or hosts.count(host) > 1:
            return f"its port {host} is taken by {taken.get(host, spec.name)}"
    return ""
