"""Which neighbours lead to a node, by the kernel's routes and by what neighbours tell."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.forwarder.routes import (
    BEHIND,
    HALF_LIFE_S,
    KERNEL,
    RELAYED,
    TOLD,
    Hop,
    Hops,
    Known,
    Peer,
    Steadier,
    Way,
    choose,
    leads_through,
    node_id,
    reach_rows,
)
from gateway.protocol.messages import Reach


def told(*rows: Reach) -> dict[str, Reach]:
    return {row.node: row for row in rows}


def peer(face: int, node: str, *rows: Reach, cost: int = 1, rtt_ms: float | None = None, via: str = "") -> Peer:
    """A neighbour at 10.0.0.<face>, behind the router `via` where one is given."""
    host = f"10.0.0.{face}"
    return Peer(face, node, cost, host, frozenset({host, f"fe80::{face}"}), told(*rows), rtt_ms, (Way(via, 1),))


def faces(hops: Hops) -> list[tuple[int, int]]:
    return [(hop.face_id, hop.cost) for hop in hops]


def ways(**routes: str) -> dict[str, Sequence[Way]]:
    return {address: (Way(gateway, 1),) for address, gateway in routes.items()}


def choose_with(
    peers: list[Peer], addresses: dict[str, list[str]], routes: dict[str, Sequence[Way]]
) -> dict[str, Hops]:
    return choose("a", peers, addresses, lambda address: routes.get(address, ()))


def test_next_hop_of_the_kernel_is_the_gateway_that_has_its_address() -> None:
    """Where the kernel goes to x by an address of b, Interests for x go to b, though c claims to be nearer."""
    #     a ── b ── x     (kernel)
    #      └── c ── x     (c's word)
    peers = [peer(1, "b"), peer(2, "c", Reach("x"))]
    chosen = choose_with(peers, {"x": ["x1"]}, ways(x1="10.0.0.1"))
    assert faces(chosen["x"]) == [(1, KERNEL + 2), (2, TOLD + 2)]


def test_link_local_next_hop() -> None:
    """An IPv6 route by b's link-local address leads to b."""
    chosen = choose_with([peer(1, "b"), peer(2, "c")], {"x": ["x1"]}, ways(x1="fe80::2"))
    assert [hop.node for hop in chosen["x"]] == ["c"]


def test_router_that_is_no_gateway() -> None:
    """Behind the router on the kernel's way, the neighbour that knows x comes before one elsewhere that is nearer."""
    #     a ── r ── b ── y ── x
    #      └── c ── x
    peers = [
        peer(1, "b", Reach("x", 2, node_id("y")), via="10.9.9.9"),
        peer(2, "c", Reach("x", 1)),
    ]
    chosen = choose_with(peers, {"x": ["x1"]}, ways(x1="10.9.9.9"))
    assert faces(chosen["x"]) == [(1, BEHIND + 3), (2, TOLD + 2)]


def test_without_a_kernel_route_the_nearest_by_hello() -> None:
    """What the kernel does not know goes by the distance that neighbours tell, the cost of the own link included."""
    peers = [peer(1, "b", Reach("x", 1), cost=5), peer(2, "c", Reach("x", 3, node_id("q") * 2))]
    assert faces(choose_with(peers, {}, {})["x"]) == [(2, TOLD + 4), (1, TOLD + 6)]


def test_a_way_through_this_node_is_none() -> None:
    """A neighbour that goes to x through us is no next hop to x: nobody counts to infinity."""
    peers = [peer(1, "b", Reach("x", 2, node_id("a")))]
    assert "x" not in choose_with(peers, {}, {})
    assert "x" not in choose_with(peers, {"x": ["x1"]}, ways(x1="10.0.0.1"))


def test_direct_face_through_another_gateway_comes_last() -> None:
    """A face to the controller's gateway that the kernel carries through b is a tunnel: b is asked first."""
    #     a ── b ── hub, and a TCP connection a ══ hub through b
    peers = [peer(1, "b", Reach("hub")), peer(2, "hub", via="10.0.0.1")]
    assert faces(choose_with(peers, {}, {})["hub"]) == [(1, KERNEL + 2), (2, RELAYED + 1)]


def test_direct_face_stays_first_where_nothing_is_between() -> None:
    """A neighbour on the link itself, or behind a router with nobody beside it, is asked directly."""
    assert faces(choose_with([peer(1, "b", Reach("c")), peer(2, "c")], {}, {})["c"]) == [(2, 1)]
    assert faces(choose_with([peer(1, "c", via="10.9.9.9")], {}, {})["c"]) == [(1, 1)]


@pytest.mark.parametrize(
    ("back_way", "rtt_b_c", "expected"),
    [(2, 10.0, 1), (1, 10.0, 2), (2, 60.0, 2)],
    ids=["chain", "star", "detour"],
)
def test_between_behind_one_router(back_way: int, rtt_b_c: float, expected: int) -> None:
    """Behind one router b counts as between where it goes on another way than back, and the times add up."""
    #     a ── r ── b ── c      or      a ── r ── b  and  r ── c
    rows = (Reach("c", 1, way=1, rtt_ms=rtt_b_c), Reach("a", 1, way=back_way))
    peers = [peer(1, "b", *rows, rtt_ms=10.0, via="10.9.9.9"), peer(2, "c", rtt_ms=20.0, via="10.9.9.9")]
    assert choose_with(peers, {}, {})["c"][0].face_id == expected


def test_layer_two_mesh_names_the_relay() -> None:
    """Where batman-adv goes to c through b, b is asked although c seems to be on the link."""
    peers = [peer(1, "b", Reach("c")), peer(2, "c")]
    chosen = choose("a", peers, {}, lambda address: (), lambda node: "b" if node == "c" else "")
    assert faces(chosen["c"]) == [(1, KERNEL + 2), (2, RELAYED + 1)]
    assert faces(chosen["b"]) == [(1, 1)]


def test_rows_tell_distance_path_and_way() -> None:
    """Of a node is told: its distance, who is on the way, where it listens, and which IP next hop leads there."""
    chosen = {"b": (Hop(1, "b", 1, 1),), "x": (Hop(1, "b", TOLD + 3, 3, node_id("c")),), "y": ()}
    known = {"b": Known("tcp4://10.0.0.1:6363", Way("", 1), 7.0), "x": Known("tcp4://10.0.0.9:6363")}
    assert reach_rows(chosen, known, 10) == (
        Reach("b", 1, b"", "tcp4://10.0.0.1:6363", 1, 7.0),
        Reach("x", 3, node_id("b") + node_id("c"), "tcp4://10.0.0.9:6363", 0, None),
    )
    assert [row.node for row in reach_rows(chosen, known, 1)] == ["b"]


def test_path_bytes() -> None:
    """A path is read in steps of four bytes, at no other offset; a broken one leads through everybody."""
    path = node_id("b") + node_id("c")
    assert node_id("b") == hashlib.sha256(b"b").digest()[:4]
    assert leads_through("b", path) and leads_through("c", path) and not leads_through("d", path)
    assert not leads_through("b", b"\x00\x00" + node_id("b") + b"\x00\x00")
    assert leads_through("d", path[:-1])


# --- many nodes ------------------------------------------------------------------------------------------------


@settings(max_examples=40, deadline=None)
@given(st.integers(3, 9), st.randoms(use_true_random=False))
def test_told_distances_converge_without_loops(size: int, random: object) -> None:
    """In any network, after links break too, following first next hops by hello distance reaches the node or nobody."""
    nodes = [f"n{i}" for i in range(size)]
    links = {(i, j) for i in range(size) for j in range(i) if random.random() < 0.5}  # type: ignore[attr-defined]
    hellos: dict[str, tuple[Reach, ...]] = dict.fromkeys(nodes, ())
    for broken in (False, True):
        if broken:
            links = {link for link in links if random.random() < 0.7}  # type: ignore[attr-defined]
        for _ in range(2 * size):
            chosen = {node: _choose_at(node, nodes, links, hellos) for node in nodes}
            hellos = {node: reach_rows(chosen[node], {}, 99) for node in nodes}
        for start in nodes:
            for end in _component(start, nodes, links) - {start}:
                at, seen = start, {start}
                while at != end:
                    at = chosen[at][end][0].node
                    assert at not in seen, "a loop"
                    seen.add(at)
            assert set(chosen[start]) == _component(start, nodes, links) - {start}


def _choose_at(
    node: str, nodes: list[str], links: set[tuple[int, int]], hellos: dict[str, tuple[Reach, ...]]
) -> dict[str, Hops]:
    own = nodes.index(node)
    ends = [j if i == own else i for i, j in links if own in (i, j)]
    return choose(node, [peer(j + 1, nodes[j], *hellos[nodes[j]]) for j in ends], {}, lambda address: ())


def _component(start: str, nodes: list[str], links: set[tuple[int, int]]) -> set[str]:
    found, todo = {start}, [nodes.index(start)]
    while todo:
        at = todo.pop()
        for i, j in links:
            if at in (i, j) and nodes[i + j - at] not in found:
                found.add(nodes[i + j - at])
                todo.append(i + j - at)
    return found


# --- hysteresis ------------------------------------------------------------------------------------------------


def by(face: int) -> dict[str, Hops]:
    return {"x": (Hop(face, f"n{face}", 10, 2),)}


def test_a_change_is_followed_at_once() -> None:
    """A route that moves now and then is followed each time without delay."""
    steadier = Steadier()
    for turn in range(20):
        now = turn * 60.0
        face = 1 + turn % 2
        assert steadier.settle(now, by(face), lambda hop: True)["x"][0].face_id == face


def test_a_flapping_route_is_held() -> None:
    """Two changes a second for a minute are at most six changes of the first next hop; 20 s later it is followed."""
    steadier, changes, last = Steadier(), 0, 1
    for turn in range(120):
        settled = steadier.settle(turn * 0.5, by(1 + turn % 2), lambda hop: True)
        assert {hop.face_id for hop in settled["x"]} >= {1 + turn % 2}, "the new next hop is there, if only behind"
        changes += settled["x"][0].face_id != last
        last = settled["x"][0].face_id
    assert 4 <= changes <= 6
    assert steadier.settle(60.0 + 2 * HALF_LIFE_S, by(2), lambda hop: True)["x"][0].face_id == 2


def test_a_lost_face_is_never_held() -> None:
    """However much a route has flapped: a next hop that is gone is left at once."""
    steadier = Steadier()
    for turn in range(20):
        steadier.settle(turn * 0.1, by(1 + turn % 2), lambda hop: True)
    held = steadier.settle(2.0, by(1), lambda hop: True)["x"][0].face_id
    other = 3 - held
    assert steadier.settle(2.1, by(other), lambda hop: hop.face_id != held)["x"][0].face_id == other
    assert steadier.settle(2.2, {}, lambda hop: False) == {}


def test_forgotten_nodes_leave_nothing_behind() -> None:
    """A thousand nodes that came and went are forgotten when they have been quiet."""
    steadier = Steadier()
    for i in range(1000):
        steadier.settle(i * 0.001, {f"n{i}": (Hop(1, "b", 1, 1),)}, lambda hop: True)
    steadier.settle(200.0, {}, lambda hop: True)
    steadier.settle(300.0, {}, lambda hop: True)
    assert not steadier._nodes
