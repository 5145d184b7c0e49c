"""Topologies from NetJSON and back."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from controller.placement import NodeAttributes, Topology, TopologyError, qmp_like
from controller.placement.network.netjson import from_netjson, to_netjson
from controller.placement.network.topology import assemble

Json = dict[str, object]


def graph(links: list[Json], names: str = "ab", **more: object) -> Json:
    return {"type": "NetworkGraph", "nodes": [{"id": name} for name in names], "links": links, **more}


def link(source: str, target: str, mbps: object = None, **properties: object) -> Json:
    known = properties if mbps is None else {"bandwidth_mbps": mbps, **properties}
    return {"source": source, "target": target, "properties": known}


def node(**properties: object) -> NodeAttributes:
    """What a graph with one node of such properties says of it."""
    found = from_netjson({"type": "NetworkGraph", "nodes": [{"id": "a", "properties": properties}], "links": []})
    return found.nodes[0]


def rates(topology: Topology) -> dict[str, float]:
    pairs = zip(topology.edges.tolist(), topology.rates_mbps.tolist(), strict=True)
    return {topology.names[i] + topology.names[j]: rate for (i, j), rate in pairs}


def test_netjson_is_read_directed_and_the_fastest_parallel_link_stays() -> None:
    """Each link counts in its own direction, of two parallel ones the faster, and one to the node itself is none."""
    found = from_netjson(graph([link("a", "b", 3), link("a", "b", 8.5), link("b", "a", 1), link("a", "a", 9)]))
    assert rates(found) == {"ab": 8.5, "ba": 1.0}


@pytest.mark.parametrize(
    ("document", "named"),
    [
        ([], "NetworkGraph"),
        ({"type": "NetworkRoutes"}, "NetworkRoutes"),
        ({"type": "NetworkGraph", "nodes": {}, "links": []}, "'nodes'"),
        ({"type": "NetworkGraph", "nodes": [{}], "links": []}, "number 1"),
        ({"type": "NetworkGraph", "nodes": [{"id": "a", "properties": {"zone": 5}}], "links": []}, "'zone'"),
        ({"type": "NetworkGraph", "nodes": [{"id": "a", "properties": {"labels": "x"}}], "links": []}, "'labels'"),
        (graph([], "aa"), "'a'"),
        (graph([], "\x1b"), r"'\x1b', printable"),
        ({"type": "NetworkGraph", "nodes": [{"id": 5}], "links": []}, "id is 5, a text is accepted"),
        (graph([link("a", "z\x1b", 1)]), r"'a' -> 'z\x1b'"),
        (graph([link("a", "z", 1)]), "'z'"),
        (graph([{"source": ["a"], "target": "b"}]), "['a']"),
        (graph([link("a", "b", -1)]), "-1"),
        (graph([link("a", "b", math.nan)]), "nan"),
        (graph([link("a", "b", "fast")]), "'fast'"),
        (graph([link("a", "b", True)]), "True"),
        (graph([{"source": "a", "target": "b"}]), "bandwidth_mbps"),
        (graph([{"source": "a", "target": "b", "properties": 7}]), "a -> b"),
    ],
)
def test_bad_netjson_is_refused_by_name(document: object, named: str) -> None:
    """A NetJSON document that cannot be used raises an error that names the part."""
    with pytest.raises(TopologyError, match=r".") as refused:
        from_netjson(document)
    assert named in str(refused.value)


@pytest.mark.parametrize("mbps", [math.nan, math.inf, -3, 0, 1e12, 10**400, "fast", True, []])
def test_an_absurd_rate_leaves_its_link_out(mbps: object) -> None:
    """A rate that cannot be true is named in the notes, and the other links stay."""
    found = from_netjson(graph([link("a", "b", mbps), link("b", "a", 4)]))
    assert rates(found) == {"ba": 4.0}
    assert found.notes == (f"link a -> b: left out, its bandwidth_mbps is {mbps!r}",)


def test_many_unusable_figures_are_a_note_each_kind() -> None:
    """Bad rates, links from a node to itself and figures of nodes that cannot be are counted, the first is named."""
    places: list[Json] = [{"latitude": 999, "cpus": -1}, {"cpus": "lots", "availability": 7}, {"memory_bytes": 5}]
    nodes = [{"id": name, "properties": each} for name, each in zip("abc", places, strict=True)]
    bad = [link("a", "b", -1), link("b", "c", "fast"), link("a", "a", 5), link("a", "c", 5)]
    assert from_netjson(graph(bad) | {"nodes": nodes}).notes == (
        "nodes whose latitude cannot be: 1, the first is a with 999",
        "nodes whose cpus cannot be: 2, the first is a with -1",
        "nodes whose availability cannot be: 1, the first is b with 7",
        "links left out for a rate that cannot be: 2, the first is link a -> b: its bandwidth_mbps is -1",
        "links from a node to itself left out: 1",
    )


def test_an_offline_node_is_left_out_with_its_links() -> None:
    """A node that is not online is no part of the network, and the notes name it."""
    found = from_netjson(
        {
            "type": "NetworkGraph",
            "nodes": [{"id": "a", "properties": {"online": False}}, {"id": "b", "properties": {"online": True}}],
            "links": [link("a", "b", 5)],
        }
    )
    assert (found.names, rates(found), found.notes) == (("b",), {}, ("node a: left out, it is offline",))


def test_the_facts_of_a_node_are_read() -> None:
    """Hardware, availability and what is free; a figure that cannot be true is unknown."""
    assert node(cpus=4, memory_bytes=1000, load1=1.0, memory_used=0.25) == NodeAttributes(
        cpus=4, memory_bytes=1000, free_cpu_percent=75.0, free_memory_bytes=750
    )
    assert node(cpus=0, load1=0.25, availability=0.5) == NodeAttributes(free_cpu_percent=75.0, availability=0.5)
    assert node(load1=9.0, memory_used=0.1) == NodeAttributes(free_cpu_percent=0.0)
    assert node(free_cpu_percent=12.5, free_memory_bytes=7, load1=0.0) == NodeAttributes(
        free_cpu_percent=12.5, free_memory_bytes=7
    )
    assert node(cpus=-1, memory_bytes="many", availability=7, free_cpu_percent=101, zone=None) == NodeAttributes()


def test_a_round_trip_is_that_of_both_directions() -> None:
    """A link's rtt_ms is kept, also for the way back when that says nothing itself; below 0 it is unknown."""
    found = from_netjson(graph([link("a", "b", 3, rtt_ms=4), link("b", "a", 3), link("a", "c", 1, rtt_ms=-1)], "abc"))
    assert found.rtts_ms.tolist() == pytest.approx([4.0, math.nan, 4.0], nan_ok=True)


def test_netjson_round_trip() -> None:
    """A topology survives NetJSON text with its names, places, rates, round trips and all that is known of a node."""
    facts = NodeAttributes("z/y", ("roof",), 2, 1 << 20, ("10.0.0.1",), ("oci",), 0.9, 55.5, 1 << 19)
    made = assemble("ab", [(41.0, 2.0), (None, None)], {(0, 1): 3.5}, [facts, NodeAttributes(runtimes=())])
    timed = assemble("ab", [(41.0, 2.0)] * 2, {(0, 1): 3.5, (1, 0): 2.0}, [facts] * 2, (), {(0, 1): 2.5, (1, 0): 3.0})
    for before in (made, timed, qmp_like(12, 3)):
        after = from_netjson(json.loads(json.dumps(to_netjson(before))))
        assert after.names == before.names
        assert np.array_equal(after.coordinates, before.coordinates, equal_nan=True)
        assert np.array_equal(after.rtts_ms, before.rtts_ms, equal_nan=True)
        assert rates(after) == rates(before)
        assert after.nodes == before.nodes
        assert after.notes == ()


scalars = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=3)
anything = st.recursive(scalars, lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner), max_leaves=8)
ids = st.sampled_from(["a", "b", "c"])
KEYS = [
    *("bandwidth_mbps", "transmit_quality", "tx_rate", "link_class", "rtt_ms"),
    *("latitude", "longitude", "zone", "labels", "runtimes", "cpus", "memory_bytes", "availability"),
    *("online", "load1", "free_cpu_percent", "free_memory_bytes", "memory_used"),
]
values = st.sampled_from([1, 10**400, -5, 0.5, math.nan, "fiber", ["x"], False]) | anything
properties = st.dictionaries(st.sampled_from(KEYS), values, max_size=6) | anything
nodes = st.fixed_dictionaries({"id": ids}, optional={"properties": properties, "local_addresses": values}) | anything
links = (
    st.fixed_dictionaries({"source": ids, "target": ids}, optional={"properties": properties, "cost": values})
    | anything
)
documents = st.fixed_dictionaries(
    {"type": st.just("NetworkGraph"), "nodes": st.lists(nodes, max_size=3), "links": st.lists(links, max_size=3)},
    optional={"metric": st.sampled_from(["ETX", "TQ", None, 5])},
)


@given(documents | anything)
def test_any_json_is_a_topology_or_refused(document: object) -> None:
    """Whatever JSON is given, there is a topology that can be written and read again, or a TopologyError."""
    try:
        found = from_netjson(document)
    except TopologyError as refused:
        assert str(refused)
        return
    again = from_netjson(to_netjson(found)) if len(found.edges) else found
    assert rates(again) == rates(found)
    assert again.nodes == found.nodes
