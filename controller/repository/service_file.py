"""The provider's service file (YAML) and the specification that it becomes."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, field_validator, model_validator

from controller.authority import NAME_PATTERN
from controller.errors import SpecificationError
from controller.repository.publication import Publication
from gateway.protocol.messages import Constraints, HealthCheck, Port, ServiceSpec

FILE_MAX_BYTES = 1 << 20
_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*([KMGT]?)(?:i?B)?", re.IGNORECASE)
_TIME = re.compile(r"(\d+(?:\.\d+)?)\s*(ms|s|m|h|d)?")
_SIZE_UNITS = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40}
_TIME_UNITS = {"": 1.0, "ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_KINDS = {  # what pydantic says of these is about Python
    "tuple_type": "a list is accepted, as in [one, two]",
    "dict_type": "names with values are accepted, as in {name: value}",
    "model_type": "names with values are accepted, as in {name: value}",
}
_NAME_RULE = "letters, digits, '.', '_' and '-' are accepted, at most 63"


def _size(value: object) -> object:
    if isinstance(value, str):
        match = _SIZE.fullmatch(value.strip())
        if match is None:
            raise ValueError(f"{value!r} is no size; 64M, 1G or a number of bytes is accepted")
        return int(float(match[1]) * _SIZE_UNITS[match[2].upper()])
    return value


def _time(value: object) -> object:
    if isinstance(value, str):
        match = _TIME.fullmatch(value.strip())
        if match is None:
            raise ValueError(f"{value!r} is no time; 10s, 500ms or a number of seconds is accepted")
        return float(match[1]) * _TIME_UNITS[match[2] or ""]
    return value


def _port_mapping(value: object) -> object:
    """`8080:80` is host:container as people know it; a single number is the same port on both sides."""
    if isinstance(value, int) and not isinstance(value, bool):
        return {"host": value, "container": value}
    if isinstance(value, str):
        host, _, container = value.partition(":")
        if not host.isascii() or not host.isdigit() or not (container or host).isdigit():
            raise ValueError(f"{value!r} is no port; HOST:CONTAINER such as '8080:80' is accepted")
        return {"host": int(host), "container": int(container or host)}
    return value


def _text(value: object) -> object:
    """YAML reads 8080 and 1.5 as numbers; in an environment and on a command line they are text."""
    if isinstance(value, bool) or value is None:
        raise ValueError(f"{value!r} is ambiguous here; put it in quotes")
    return str(value) if isinstance(value, int | float) else value


Size = Annotated[int, BeforeValidator(_size), Field(ge=0)]
Duration = Annotated[float, BeforeValidator(_time), Field(gt=0, le=86400)]
PortNumber = Annotated[int, Field(ge=1, le=65535)]
Text = Annotated[str, BeforeValidator(_text)]
Words = tuple[Text, ...]


class _Model(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=False, allow_inf_nan=False)


class _Port(_Model):
    host: PortNumber
    container: PortNumber


class _Health(_Model):
    path: str = ""
    port: PortNumber | None = None
    command: Words = ()
    interval: Duration = 10.0
    timeout: Duration = 2.0
    failures: Annotated[int, Field(ge=1, le=100)] = 3
    grace: Duration = 15.0

    @model_validator(mode="after")
    def _one_kind(self) -> _Health:
        if bool(self.path) == bool(self.command):
            raise ValueError("write either `path` (an HTTP check) or `command`")
        if self.path and not self.path.startswith("/"):
            raise ValueError(f"path {self.path!r} must start with '/'")
        return self


class _Resources(_Model):
    cpu: Annotated[float, Field(gt=0, le=1024)] = 0.5
    memory: Annotated[Size, Field(ge=1 << 20)] = 64 << 20
    disk: Size = 64 << 20


class _Constraints(_Model):
    zone: str = ""
    labels: tuple[str, ...] = ()
    minimum_cpus: Annotated[int, Field(ge=0)] = 0
    minimum_memory: Size = 0
    minimum_bandwidth_mbps: Annotated[float, Field(ge=0)] = 0.0
    exclude: tuple[str, ...] = ()
    minimum_availability: Annotated[float, Field(ge=0, le=1)] = 0.0
    maximum_latency: Duration | None = None
    apart: tuple[str, ...] = ()
    maximum_members: Annotated[int, Field(ge=1)] | None = None
    direction: Literal["down", "both"] = "down"
    minimum_free_cpu_percent: Annotated[float, Field(ge=0, le=100)] = 0.0
    minimum_free_memory: Size = 0
    near: dict[str, Annotated[float, Field(gt=0, le=1e6)]] = {}


class ServiceFile(_Model):
    """What a provider writes; `version` is chosen at deployment when it is left out."""

    name: str
    version: Annotated[int, Field(ge=1, lt=1 << 63)] | None = None
    image: Text
    provider: str = "main"
    runtime: Literal["any", "docker", "oci", "unikernel"] = "any"
    command: Words = ()
    environment: dict[str, Text] = {}
    ports: tuple[Annotated[_Port, BeforeValidator(_port_mapping)], ...] = ()
    resources: _Resources = _Resources()
    health: _Health | None = None
    restart: Literal["always", "on-failure", "never"] = "always"
    volumes: tuple[str, ...] = ()
    replicas: Annotated[int, Field(ge=1, le=1000)] = 1
    algorithm: str = "optimal"
    constraints: _Constraints = _Constraints()

    @field_validator("name", "provider")
    @classmethod
    def _is_name(cls, value: str) -> str:
        if not NAME_PATTERN.fullmatch(value):
            raise ValueError(f"{value!r} is no name; {_NAME_RULE}")
        return value

    @field_validator("algorithm")
    @classmethod
    def _is_algorithm(cls, value: str) -> str:
        from controller.placement import algorithms  # brings numpy, which a listing does not need

        if value not in algorithms():
            raise ValueError(f"{value!r} is no algorithm; {', '.join(algorithms())} are accepted")
        return value

    @model_validator(mode="after")
    def _is_apart_from_others(self) -> ServiceFile:
        wanted = self.constraints
        if self.name in {*wanted.apart, *wanted.near}:
            raise ValueError(f"{self.name!r} is this service itself; apart and near take the names of others")
        return self

    @model_validator(mode="after")
    def _ports_fit(self) -> ServiceFile:
        hosts = [port.host for port in self.ports]
        twice = {port for port in hosts if hosts.count(port) > 1}
        if twice:
            raise ValueError(f"host port {min(twice)} is there twice")
        if self.health is not None and self.health.path and self.health.port is None and len(self.ports) != 1:
            raise ValueError("health.port is needed, because the service has not exactly one port")
        return self

    def specification(self, version: int, publication: Publication) -> ServiceSpec:
        """The message that the provider signs."""
        return ServiceSpec(
            name=self.name,
            version=version,
            provider=self.provider,
            manifest=publication.manifest,
            blobs=publication.blobs,
            runtime=self.runtime,
            command=self.command,
            environment=dict(self.environment),
            ports=tuple(Port(port.container, port.host) for port in self.ports),
            cpu=self.resources.cpu,
            memory_bytes=self.resources.memory,
            disk_bytes=self.resources.disk,
            health=self._health_check(),
            restart=self.restart,
            volumes=self.volumes,
            replicas=self.replicas,
            algorithm=self.algorithm,
            constraints=self._constraints(),
            platform=publication.platform,
        )

    def _health_check(self) -> HealthCheck | None:
        health = self.health
        if health is None:
            return None
        port = health.port or (self.ports[0].container if health.path else 0)
        return HealthCheck(
            health.path, port, health.command, health.interval, health.timeout, health.failures, health.grace
        )

    def _constraints(self) -> Constraints:
        wanted = self.constraints
        return Constraints(
            zone=wanted.zone,
            labels=wanted.labels,
            minimum_cpus=wanted.minimum_cpus,
            minimum_memory_bytes=wanted.minimum_memory,
            minimum_bandwidth_mbps=wanted.minimum_bandwidth_mbps,
            exclude=wanted.exclude,
            minimum_availability=wanted.minimum_availability,
            maximum_latency_ms=1000.0 * (wanted.maximum_latency or 0.0),
            apart=wanted.apart,
            maximum_members=wanted.maximum_members or 0,
            direction=wanted.direction,
            minimum_free_cpu_percent=wanted.minimum_free_cpu_percent,
            minimum_free_memory_bytes=wanted.minimum_free_memory,
            near=dict(wanted.near),
        )


def load(path: Path) -> ServiceFile:
    """The service file at `path`; raises SpecificationError with every mistake and its line."""
    try:
        if path.stat().st_size > FILE_MAX_BYTES:
            raise SpecificationError(f"{path}: larger than {FILE_MAX_BYTES} bytes; this is no service file")
        return parse(path.read_text(encoding="utf-8"), str(path))
    except OSError as error:
        raise SpecificationError(f"{path}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise SpecificationError(f"{path}: no UTF-8 text: {error}") from error


def parse(text: str, label: str) -> ServiceFile:
    """As load(), of text; `label` stands before every message."""
    try:
        tree = yaml.compose(text, Loader=yaml.SafeLoader)
        content = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise SpecificationError(f"{label}: no YAML: {' '.join(str(error).split())}") from error
    except (RecursionError, ValueError) as error:
        raise SpecificationError(f"{label}: no YAML that can be read: {error}") from error
    if not isinstance(content, dict):
        raise SpecificationError(f"{label}: a service file starts with `name:` and `image:`; see examples/hello.yaml")
    try:
        return ServiceFile.model_validate(content)
    except ValidationError as error:
        lines = [_explain(detail, tree, label) for detail in error.errors(include_url=False, include_context=False)]
        raise SpecificationError("\n".join(lines)) from error


def _explain(detail: Any, tree: yaml.Node | None, label: str) -> str:
    location = [str(part) for part in detail["loc"]]
    line = _line(tree, location)
    text = str(detail["msg"]).removeprefix("Value error, ")
    if detail["type"] == "extra_forbidden":
        text = "is not known here"
    elif detail["type"] == "missing":
        text = "is missing"
    elif detail["type"] in _KINDS:
        text = f"{detail['input']!r:.60}: {_KINDS[detail['type']]}"
    elif not detail["type"].startswith("value_error"):
        text = f"{detail['input']!r:.60}: {text[0].lower()}{text[1:]}"
    return f"{label}:{line}: {'.'.join(location)}{': ' if location else ''}{text}"


def _line(node: yaml.Node | None, location: list[str]) -> int:
    """The line of the innermost part of `location` that the file has."""
    line = 1 if node is None else node.start_mark.line + 1
    for part in location:
        if isinstance(node, yaml.MappingNode):
            found = next(((k, v) for k, v in node.value if k.value == part), None)
            if found is None:
                return line
            line, node = found[0].start_mark.line + 1, found[1]
        elif isinstance(node, yaml.SequenceNode) and part.isdigit() and int(part) < len(node.value):
            node = node.value[int(part)]
            line = node.start_mark.line + 1
        else:
            return line
    return line
