"""The owner's last word."""

from __future__ import annotations

from dataclasses import replace

import pytest

from gateway.executor.policy import Policy, admit, refusal
from gateway.protocol.messages import BlobRef, HealthCheck, Port, ServiceSpec

MIB = 1 << 20
REF = BlobRef(b"\1" * 32, 1, b"\2" * 32)
SPEC = ServiceSpec("hello", 1, "ann", REF, (REF,), ports=(Port(8080, 8000),), memory_bytes=64 * MIB, disk_bytes=MIB)
POLICY = Policy(("*",), ((8000, 8999),), 128 * MIB, 1.5, 1 << 30, ("oci",))


def test_what_the_owner_allows_is_admitted() -> None:
    """A service within every limit has no refusal."""
    assert refusal(POLICY, SPEC) == "" and admit(POLICY, [SPEC]) == {"hello": ""}


@pytest.mark.parametrize(
    ("fields", "text"),
    [
        ({"ports": (Port(8080, 22),)}, "port 22"),
        ({"ports": (Port(0, 8000),)}, "container port 0"),
        ({"name": "../../etc"}, "service name"),
        ({"name": "a..b"}, "service name"),
        ({"name": "-x"}, "service name"),
        ({"name": ""}, "service name"),
        ({"name": "a\n"}, "service name"),
        ({"runtime": "docker"}, "docker"),
        ({"restart": "sometimes"}, "sometimes"),
        ({"memory_bytes": 0}, "too small"),
        ({"cpu": 0.0}, "too small"),
        ({"volumes": ("data",)}, "volumes"),
        ({"environment": {"A=B": "x"}}, "environment"),
        ({"environment": {"LD_PRELOAD": "a\0b"}}, "environment"),
        ({"health": HealthCheck()}, "health check"),
        ({"health": HealthCheck(path="/a b", port=1)}, "path"),
        ({"health": HealthCheck(path="/a\r\nX: y", port=1)}, "path"),
        ({"health": HealthCheck(path="/", port=0)}, "port 0"),
        ({"health": HealthCheck(path="/", port=1, interval_s=0.0)}, "out of range"),
    ],
)
def test_each_thing_the_owner_or_the_machine_cannot_allow_is_refused_by_name(fields: dict, text: str) -> None:
    """The refusal names the value."""
    assert text in refusal(POLICY, replace(SPEC, **fields))


def test_the_gateways_own_ports_are_taken() -> None:
    """Its page and its listening ports are no service's, and the refusal names the option."""
    policy = replace(POLICY, own_ports=((8000, "gateway.page"),))
    assert refusal(policy, SPEC) == "its port 8000 is taken by this gateway itself (gateway.page)"
    assert refusal(policy, replace(SPEC, ports=(Port(8080, 8001),))) == ""


def test_only_listed_providers_are_allowed() -> None:
    """Without the star a provider that is not listed is refused by name."""
    policy = replace(POLICY, providers=("bob",))
    assert "'ann'" in refusal(policy, SPEC) and refusal(policy, replace(SPEC, provider="bob")) == ""


def test_services_share_what_the_owner_gives_and_the_first_come_first() -> None:
    """Memory, cpu, disk and ports are for all services together; one that does not fit leaves room for the next."""
    second = replace(SPEC, name="second", ports=(), memory_bytes=100 * MIB)
    third = replace(SPEC, name="third", ports=())
    refusals = admit(POLICY, [SPEC, second, third])
    assert refusals["second"] == "it asks for 100 MiB of memory, 64 MiB are left (executor.memory)"
    assert refusals["hello"] == refusals["third"] == ""
    assert "cpu" in admit(POLICY, [replace(SPEC, cpu=1.0), replace(SPEC, name="b", ports=(), cpu=0.6)])["b"]
    assert "taken by hello" in admit(POLICY, [SPEC, replace(SPEC, name="b")])["b"]
    assert "disk" in admit(POLICY, [replace(SPEC, disk_bytes=2 << 30)])["hello"]
