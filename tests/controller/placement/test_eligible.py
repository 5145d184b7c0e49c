"""Who may be a head: every constraint refuses with its reason."""

from __future__ import annotations

from dataclasses import replace

import pytest

from controller.placement import NodeAttributes, PlacementError, Request, place, qmp_like
from gateway.protocol.messages import BlobRef, Constraints, ServiceSpec
from tests.controller.placement.networks import Network

FIT = NodeAttributes("north/1", ("roof", "ups"), 2, 2 << 20, (), ("oci",), 1.0, 80.0, 1 << 20)
CASES = [
    (Request(1, Constraints(exclude=("b",))), {}, "excluded by name"),
    (Request(1, refusals={"b": "its owner refused"}), {}, "its owner refused"),
    (Request(1, Constraints(zone="north")), {"zone": ""}, "is in no zone, 'north' is asked for"),
    (Request(1, Constraints(zone="north")), {"zone": "northern"}, "is in zone 'northern', not in 'north'"),
    (Request(1, Constraints(labels=("roof", "ups"))), {"labels": ("roof",)}, "lacks the label ups"),
    (Request(1, Constraints(minimum_cpus=2)), {"cpus": 1}, "has 1 CPUs, 2 are asked for"),
    (Request(1, Constraints(minimum_cpus=2)), {"cpus": 0}, "has an unknown number of CPUs, 2 are asked for"),
    (Request(1, Constraints(minimum_memory_bytes=2 << 20)), {"memory_bytes": 1 << 20}, "has 1 MiB of memory, 2 MiB"),
    (Request(1, Constraints(minimum_free_cpu_percent=50.0)), {"free_cpu_percent": 20.0}, "has 20 % of its CPU free"),
    (
        Request(1, Constraints(minimum_free_memory_bytes=9)),
        {"free_memory_bytes": None},
        "has an unknown amount of memory",
    ),
    (Request(1, Constraints(minimum_availability=0.9)), {"availability": 0.25}, "was heard 25 % of the time, 90 % are"),
    (Request(1, cpu=1.0, reserved={"b": (1.5, 0)}), {}, "has 0.5 of its 2 CPUs left for it, it takes 1"),
    (
        Request(1, memory_bytes=1 << 20, reserved={"b": (0.0, 3 << 19)}),
        {},
        "has 512 KiB of memory left for it, it takes",
    ),
    (Request(1), {"runtimes": ()}, "runs no services"),
    (Request(1, runtime="oci"), {"runtimes": ("docker",)}, "has no oci runtime, only docker"),
]


@pytest.mark.parametrize(("request_", "attributes", "reason"), CASES)
def test_every_constraint_refuses_with_its_reason(
    network: Network, request_: Request, attributes: dict[str, object], reason: str
) -> None:
    """A node that a constraint refuses is no head, and the reason names the constraint and both figures."""
    bad = replace(FIT, **attributes)  # type: ignore[arg-type]
    placement = place(network("a-b 10, b-c 10", a=FIT, b=bad, c=FIT), request_)
    assert reason in placement.refused["b"]
    assert list(placement.refused) == ["b"]
    assert placement.heads[0].node != "b" and "b" not in placement.standbys
    assert "b" in placement.members


def test_what_is_not_known_does_not_refuse_by_capacity(network: Network) -> None:
    """A node that does not say what it has is not held to have too little for the service."""
    request = Request(1, cpu=4.0, memory_bytes=1 << 40, reserved={"a": (9.0, 1 << 50)})
    assert not place(network("a-b 10"), request).refused


def test_the_reduced_sandbox_runs_oci_images(network: Network) -> None:
    """A node whose only runtime is bubblewrap may run what asks for `oci`, and not what asks for `docker`."""
    small = NodeAttributes(runtimes=("bubblewrap",))
    assert place(network("a", a=small), Request(1, runtime="oci")).refused == {}
    with pytest.raises(PlacementError, match="no docker runtime"):
        place(network("a", a=small), Request(1, runtime="docker"))


def test_a_node_that_serves_nobody_at_the_target_is_refused(network: Network) -> None:
    """A node none of whose paths meets the target is no head, also where the merge tree says so."""
    for metric in ("airtime", "widest"):
        placement = place(network("a-b 10, b-c 2"), Request(1, Constraints(minimum_bandwidth_mbps=6.0)), metric=metric)
        assert placement.refused == {"c": "serves no other node at 6 Mbit/s, which is asked for"}
    alone = place(network("a"), Request(1, Constraints(minimum_bandwidth_mbps=6.0)))
    assert alone.refused == {}


def test_the_message_stays_readable() -> None:
    """Nodes that the same constraint refuses share its reason, and of very many only the first are named."""
    topology = qmp_like(130, 1)
    with pytest.raises(PlacementError, match=r"130 nodes may be a head; .* gw-000, gw-001, .* gw-099 and 30 more$"):
        place(topology, Request(1, Constraints(minimum_cpus=2)))


def test_too_few_eligible_nodes(network: Network) -> None:
    """Too few eligible nodes are an error that says why each is refused, or a smaller placement when asked for."""
    request = Request(2, Constraints(exclude=("a", "b")))
    topology = network("a-b 10, b-c 10")
    with pytest.raises(PlacementError, match=r"k is 2, but 1 of 3 nodes may be a head; excluded by name: a, b$"):
        place(topology, request)
    assert [head.node for head in place(topology, request, partial=True).heads] == ["c"]
    nobody = place(topology, Request(1, Constraints(exclude=("a", "b", "c"))), partial=True, bound=True)
    assert (nobody.heads, nobody.members, nobody.unreached) == ((), {}, ("a", "b", "c"))
    assert (nobody.mean_bandwidth_mbps, nobody.gap) == (0.0, None)


def test_a_request_is_made_from_a_specification() -> None:
    """A provider's specification gives k, constraints, runtime and what a head takes."""
    blob = BlobRef(bytes(32), 1, bytes(32))
    wanted = Constraints(zone="sants")
    specification = ServiceSpec(
        "web", 1, "p", blob, (), runtime="oci", replicas=3, constraints=wanted, cpu=2.0, memory_bytes=7
    )
    made = Request.for_service(specification, {"a": "lost"})
    assert made == Request(3, wanted, "oci", {"a": "lost"}, cpu=2.0, memory_bytes=7)
