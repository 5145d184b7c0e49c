from dataclasses import replace

from hypothesis import given, strategies

from controller import decisions
from controller.decisions import Wanted
from controller.placement import ClusterHead, Member, Placement
from gateway.protocol.messages import BlobRef, PlacedHead, Section, ServiceSpec
from tests.controller.fakes import report

BLOB = BlobRef(b"\1" * 32, 1, b"\2" * 32)
WANTED = Wanted(ServiceSpec("web", 3, "main", BLOB, (BLOB,)), b"\x08\x01s", b"d" * 32)
PAIRS = {
    ("o", "a"): 10.0,
    ("a", "b"): 20.0,
    ("o", "b"): 5.0,
    ("b", "c"): 7.0,
    ("o", "c"): 7.0,
    ("a", "x"): 3.0,
    ("b", "x"): 4.0,
}


def bandwidth(source: str, destination: str) -> float:
    return PAIRS.get((source, destination), 0.0)


def way(source: str, destination: str) -> list[tuple[str, float]]:
    """Every pair is a link."""
    rate = bandwidth(source, destination)
    return [(destination, 1 / rate)] if rate else []


def ways(*links: str, **rates: float) -> decisions.Way:
    """Least-airtime paths over links such as "o-a", of 1 Mbit/s both ways unless `o_a` says otherwise."""
    airtimes = {}
    for link in links:
        a, b = link.split("-")
        airtimes[a, b] = airtimes[b, a] = 1 / rates.get(f"{a}_{b}", 1.0)

    def way(source: str, destination: str) -> list[tuple[str, float]]:
        best: dict[str, list[tuple[str, float]]] = {source: []}
        waiting = {source}
        while waiting:
            node = min(waiting, key=lambda name: (sum(s for _, s in best[name]), name))
            waiting.remove(node)
            for (here, there), airtime_s in airtimes.items():
                path = [*best[node], (there, airtime_s)]
                if here == node and (there not in best or sum(s for _, s in path) < sum(s for _, s in best[there])):
                    best[there] = path
                    waiting.add(there)
        return best.get(destination, [])

    return way


def copies(origin: str, parents: dict[str, str], way: decisions.Way) -> dict[tuple[str, str], int]:
    """How often each link carries the image when every node on the way hands on what has passed it."""
    found: dict[tuple[str, str], int] = {}
    has, waiting = {origin}, [node for node in parents if node != origin]
    while waiting:
        node = next(node for node in waiting if parents[node] in has)
        waiting.remove(node)
        passed = [parents[node], *(name for name, _ in way(parents[node], node))]
        last = max(at for at, name in enumerate(passed) if name in has)
        for here, there in zip(passed[last:], passed[last + 1 :], strict=False):
            found[here, there] = found.get((here, there), 0) + 1
        has.update(passed)
    return found


def placement(heads: dict[str, float], members: dict[str, str]) -> Placement:
    return Placement(
        "basp",
        "airtime",
        len(heads),
        0,
        tuple(ClusterHead(node, "widest", mbps) for node, mbps in heads.items()),
        {node: Member(head, 1.0) for node, head in members.items()},
        {"r": "no runtime"},
        (),
        ("s",),
        1.0,
        0.0,
    )


def reports(*nodes: str) -> dict[str, decisions.NodeReport]:
    return {node: report(node, addresses=(f"tcp4://10.0.0.{at}:6363",)) for at, node in enumerate(nodes)}


def test_section_tells_everything_that_gateways_need() -> None:
    """Heads with reason, address and parent, stand-bys, members, and the specification by name and digest."""
    made = placement({"a": 3.0, "b": 4.0}, {"x": "b"})
    section = decisions.section_of(WANTED, made, "o", reports("o", "a", "b", "x"), way, "snap")
    assert section == Section(
        "web",
        "",
        WANTED.specification,
        WANTED.digest,
        "basp",
        "snap",
        "o",
        (PlacedHead("a", "widest", 3.0, "10.0.0.1", "o"), PlacedHead("b", "widest", 4.0, "10.0.0.2", "a")),
        ("s",),
        {"x": "b"},
        {"s": "o"},
    )


def tree(way: decisions.Way, *nodes: str, origin: str = "o") -> dict[str, str]:
    return decisions.DeliveryTree(origin, way).attach(nodes)


def test_image_travels_over_the_fastest_paths() -> None:
    """Each head asks the nearest that has the image, among equals the origin; an unreached one asks the origin."""
    assert tree(way, "c", "b", "a", "far") == {"a": "o", "b": "a", "c": "o", "far": "o"}
    assert tree(way, "o", "a") == {"o": "", "a": "o"}


def test_heads_on_one_path_are_a_chain() -> None:
    """
    o --- a --- t --- b --- c
    """
    assert tree(ways("o-a", "a-t", "t-b", "b-c"), "c", "a", "b") == {"a": "o", "b": "a", "c": "b"}


def test_branches_part_where_their_paths_do() -> None:
    """Both ask above the fork, however slow that is: the gateway at the fork has what the other one fetched.

              a
             /
    o ===== t
             \\
              b
    """
    assert tree(ways("o-t", "t-a", "t-b", o_t=0.1), "a", "b") == {"a": "o", "b": "o"}


def test_standbys_follow_the_heads() -> None:
    """A stand-by asks a head or another stand-by; no head waits for a stand-by, even where that one is on its way.

    o --- s --- a --- r
    """
    grown = decisions.DeliveryTree("o", ways("o-s", "s-a", "a-r"))
    assert grown.attach(["a"]) == {"a": "o"}
    assert grown.attach(["r", "s"]) == {"s": "o", "r": "a"}


@given(strategies.dictionaries(strategies.tuples(*[strategies.sampled_from("oabcdetu")] * 2), strategies.floats(1, 99)))
def test_delivery_is_a_tree_from_the_origin(rates: dict[tuple[str, str], float]) -> None:
    """Whatever the links, following parents from any head ends at the origin."""
    links = {f"{min(pair)}-{max(pair)}": rate for pair, rate in rates.items() if pair[0] != pair[1]}
    heads = ["a", "b", "c", "d", "e"]
    parents = tree(ways(*links, **{link.replace("-", "_"): rate for link, rate in links.items()}), *heads)
    for node in heads:
        steps = 0
        while node != "o":
            node, steps = parents[node], steps + 1
            assert steps <= len(heads)


@given(strategies.lists(strategies.integers(0, 100), min_size=9, max_size=9), strategies.data())
def test_no_link_of_a_tree_carries_the_image_twice(above: list[int], data: strategies.DataObject) -> None:
    """In a network that is a tree, with heads and stand-bys anywhere, each link carries one copy, and no other any."""
    nodes = ["o", *"abcdefghi"]
    over = {node: nodes[above[at] % (at + 1)] for at, node in enumerate(nodes[1:])}
    way = ways(*(f"{parent}-{node}" for node, parent in over.items()))
    fetching = data.draw(strategies.lists(strategies.sampled_from(nodes[1:]), unique=True))
    heads = len(fetching) // 2
    grown = decisions.DeliveryTree("o", way)
    parents = grown.attach(fetching[:heads]) | grown.attach(fetching[heads:])
    needed = set()
    for node in fetching:
        while node != "o":
            needed.add((over[node], node))
            node = over[node]
    assert copies("o", parents, way) == dict.fromkeys(needed, 1)


def test_figures_alone_are_no_new_decision() -> None:
    """Two sections that differ in bandwidth, reason and snapshot only say the same; another head or parent does not."""
    one = Section("web", "", b"", b"", heads=(PlacedHead("a", "r", 1.0, "x", "o"),), snapshot="1")
    same = replace(one, snapshot="2", heads=(PlacedHead("a", "other", 2.0, "x", "o"),))
    assert decisions.same_decision(one, same)
    assert not decisions.same_decision(one, replace(one, heads=(PlacedHead("a", "r", 1.0, "x", "b"),)))
    assert not decisions.same_decision(one, replace(one, members={"x": "a"}))


def test_address_is_one_that_others_can_reach() -> None:
    """Hosts of URIs and bare addresses count; sockets, wildcards and link-local do not, loopback only if alone."""
    cases = {
        ("unix:///run/x", "tcp4://0.0.0.0:6363", "fe80::1", "10.1.2.3"): "10.1.2.3",
        ("tcp6://[2001:db8::7]:6363",): "2001:db8::7",
        ("127.0.0.1", "192.168.1.4"): "192.168.1.4",
        ("127.0.0.1",): "127.0.0.1",
        ("tcp4://127.64.3.10:6363",): "127.64.3.10",
        ("tcp4://[bad",): "",
        (): "",
    }
    for addresses, host in cases.items():
        assert decisions.address_of(report("n", addresses=addresses)) == host
    assert decisions.address_of(None) == ""


def test_small_changes_of_bandwidth_are_none() -> None:
    """A quarter more or less is noise; more than that, a new link and a lost one are changes."""
    before = {("a", "b"): 10.0, ("b", "a"): 10.0, ("a", "c"): 1.0}
    after = {("a", "b"): 12.0, ("b", "a"): 14.0, ("c", "a"): 1.0}
    assert decisions.changed_links(before, after) == [("a", "c"), ("b", "a"), ("c", "a")]
    assert decisions.changed_links(before, before) == []


def test_head_lists_sections_in_a_fixed_order_and_orders_go_up() -> None:
    """The same sections give the same head; versions count up within an epoch and start again in a new one."""
    sections = [(Section(name, "", b"", b""), BLOB) for name in ("b", "a")]
    head = decisions.compose_head("/net", (1, 2), 5.0, 10.0, sections)
    assert [ref.service for ref in head.sections] == ["a", "b"] and head.expires == 15.0
    assert decisions.next_order(1, None) == (1, 1)
    assert decisions.next_order(1, (1, 7)) == (1, 8)
    assert decisions.next_order(3, (1, 7)) == (3, 1)
    assert decisions.next_order(1, (3, 7)) == (3, 8)
