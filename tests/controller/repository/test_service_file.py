from pathlib import Path

import pytest

from controller.errors import ControllerError, SpecificationError
from controller.repository import service_file
from controller.repository.deployment import deploy
from controller.repository.publication import Publication
from gateway.protocol import codec, keys
from gateway.protocol.messages import BlobRef, Constraints, HealthCheck, Port, ServiceSpec
from tests.controller.fakes import NOW, Home

EXAMPLE = Path(__file__).parents[3] / "examples" / "hello.yaml"
BLOB = BlobRef(b"\1" * 32, 10, b"\2" * 32)


def parse(text: str) -> service_file.ServiceFile:
    return service_file.parse(text, "x.yaml")


def test_example_says_what_it_looks_like() -> None:
    """The example in the repository is a service file, and its units are read."""
    spec = service_file.load(EXAMPLE).specification(4, Publication("hello:1", BLOB, (BLOB,)))
    assert spec == ServiceSpec(
        name="hello",
        version=4,
        provider="main",
        manifest=BLOB,
        blobs=(BLOB,),
        environment={"GREETING": "Bon dia"},
        ports=(Port(container=80, host=8081),),
        memory_bytes=64 << 20,
        disk_bytes=64 << 20,
        health=HealthCheck("/", 80),
        replicas=2,
        constraints=Constraints(minimum_memory_bytes=64 << 20),
    )


def test_constraints_are_read_with_their_units() -> None:
    """Every constraint of the file is in the specification, times in ms and sizes in bytes."""
    text = """
name: web
image: web:1
constraints:
  zone: sants
  labels: [roof]
  minimum_cpus: 2
  minimum_memory: 128M
  minimum_free_cpu_percent: 25
  minimum_free_memory: 64M
  minimum_availability: 0.9
  exclude: [gw-1]
  minimum_bandwidth_mbps: 2
  maximum_latency: 30ms
  maximum_members: 20
  direction: both
  apart: [backup]
  near: {database: 5}
"""
    assert parse(text).specification(1, Publication("web:1", BLOB)).constraints == Constraints(
        zone="sants",
        labels=("roof",),
        minimum_cpus=2,
        minimum_memory_bytes=128 << 20,
        minimum_bandwidth_mbps=2.0,
        exclude=("gw-1",),
        minimum_availability=0.9,
        maximum_latency_ms=30.0,
        apart=("backup",),
        maximum_members=20,
        direction="both",
        minimum_free_cpu_percent=25.0,
        minimum_free_memory_bytes=64 << 20,
        near={"database": 5.0},
    )


def test_short_forms() -> None:
    """A port may be a number, HOST:CONTAINER or both named; numbers in the environment are text."""
    text = "name: a\nimage: a:1\nports: [8001, '8002:2', {host: 8003, container: 3}]\nenvironment: {N: 1}\n"
    wanted = parse(text + "health: {path: /, port: 3, interval: 500ms}")
    assert [(p.host, p.container) for p in wanted.ports] == [(8001, 8001), (8002, 2), (8003, 3)]
    assert wanted.environment == {"N": "1"} and wanted.health is not None and wanted.health.interval == 0.5


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("image: a", "x.yaml:1: name: is missing"),
        ("name: a\nimage: a\nreplica: 2", "x.yaml:3: replica: is not known here"),
        ("name: a/b\nimage: a", "x.yaml:1: name: 'a/b' is no name"),
        ("name: a\nimage: a\nports:\n  - 80\n  - 99999:80", "x.yaml:5: ports.1.host: 99999"),
        ("name: a\nimage: a\nresources:\n  memory: 64X", "x.yaml:4: resources.memory: '64X' is no size"),
        ("name: a\nimage: a\nalgorithm: best", "'best' is no algorithm; .*basp"),
        ("name: a\nimage: a\nconstraints: {direction: up}", "constraints.direction: 'up': .*'down' or 'both'"),
        ("name: a\nimage: a\nconstraints: {minimum_availability: 90}", "constraints.minimum_availability: 90: "),
        ("name: a\nimage: a\nconstraints: {near: {b: 0}}", "constraints.near.b: 0: "),
        ("name: a\nimage: a\nconstraints: {maximum_latency: soon}", "maximum_latency: 'soon' is no time"),
        ("name: a\nimage: a\nconstraints: {apart: [a]}", "'a' is this service itself"),
        ("name: a\nimage: a\nconstraints: {maximum_members: 0}", "constraints.maximum_members: 0: .* or equal to 1"),
        (
            "name: a\nimage: a\nconstraints: {exclude: gw-01}",
            r"exclude: 'gw-01': a list is accepted, as in \[one, two\]",
        ),
        ("name: a\nimage: a\nconstraints: [a]", r"constraints: \['a'\]: names with values are accepted"),
        ("name: a\nimage: a\nenvironment: 5", "environment: 5: names with values are accepted"),
        ("name: a\nimage: a\nreplicas: 0", "x.yaml:3: replicas: 0: "),
        ("name: a\nimage: a\nresources: {cpu: .inf}", "resources.cpu: inf: "),
        ("name: a\nimage: a\nenvironment: {N: yes}", "environment.N: True is ambiguous here; put it in quotes"),
        ("name: a\nimage: a\nhealth: {}", "write either `path`"),
        ("name: a\nimage: a\nports: [80, 80]", "host port 80 is there twice"),
        ("name: a\nimage: a\nhealth: {path: /}", "health.port is needed"),
        ("- name", "a service file starts with"),
        ("name: [", "no YAML"),
        ("", "a service file starts with"),
    ],
)
def test_mistakes_are_named_with_their_line(text: str, says: str) -> None:
    """Each mistake names file, line, field, value and what would be right."""
    with pytest.raises(SpecificationError, match=says):
        parse(text)


def test_all_mistakes_come_at_once() -> None:
    """Two mistakes are two lines of one message."""
    with pytest.raises(SpecificationError) as caught:
        parse("name: a\nimage: a\nreplicas: x\nrestart: maybe")
    assert len(str(caught.value).splitlines()) == 2


def publish(home: Home) -> None:
    home.store.publish("hello:1", codec.encode(Publication("hello:1", BLOB, (BLOB,))), NOW)


def test_versions_count_up_and_the_same_file_changes_nothing(home: Home) -> None:
    """A changed file gets the next version, the same one none, and a used version is refused."""
    publish(home)
    text = "name: hello\nimage: hello:1\n"
    assert deploy(home.store, home.authority, parse(text), NOW) == (1, True)
    assert deploy(home.store, home.authority, parse(text), NOW) == (1, False)
    assert deploy(home.store, home.authority, parse(text + "replicas: 2"), NOW) == (2, True)
    with pytest.raises(SpecificationError, match="had version 2 already"):
        deploy(home.store, home.authority, parse(text + "version: 1"), NOW)
    assert [row.version for row in home.store.services()] == [2]
    assert [row.version for row in home.store.services(active_only=False)] == [1, 2]


def test_specification_is_signed_by_its_provider(home: Home) -> None:
    """What is stored verifies under the provider's key and nobody else's."""
    publish(home)
    deploy(home.store, home.authority, parse("name: hello\nimage: hello:1"), NOW)
    packet = home.authority.trust.verify(home.store.services()[0].wire)
    assert packet.key_name is not None
    assert keys.identity_of(packet.key_name) == home.network.provider("main")


def test_what_cannot_be_deployed_says_what_to_do(home: Home) -> None:
    """An image that is not published, a file, and a provider without key: each message names the way out."""
    wanted = "name: hello\nimage: hello:1\n"
    with pytest.raises(SpecificationError, match=r"'hello:1' is not published; .* \(published: nothing yet\)"):
        deploy(home.store, home.authority, parse(wanted), NOW)
    publish(home)
    with pytest.raises(ControllerError, match=r"provider 'other' has no key .*provider add other"):
        deploy(home.store, home.authority, parse(wanted + "provider: other"), NOW)
    home.store.publish("film:1", codec.encode(Publication("film:1", BLOB, image=False)), NOW)
    with pytest.raises(SpecificationError, match="is a file, not an image"):
        deploy(home.store, home.authority, parse("name: f\nimage: film:1"), NOW)
    big = "environment: {A: " + "x" * 9000 + "}"
    with pytest.raises(ControllerError, match="does not fit into one packet"):
        deploy(home.store, home.authority, parse(wanted + big), NOW)
    assert home.store.services() == []
