"""The pipelines, with forwarders joined by virtual links: no socket, no sleep, no clock but the network's own."""

from __future__ import annotations

import hashlib
import itertools

import pytest

from gateway.forwarder import packet
from gateway.forwarder.forwarder import PIT_SHARE_OF_FACE
from gateway.forwarder.packet import NACK_CONGESTION, NACK_DUPLICATE, NACK_NO_ROUTE, Interest
from gateway.forwarder.pit import DEAD_NONCE_LIFETIME_S
from gateway.protocol import keys, names
from tests.simulation.network import App, Network, Node, data


def line(*node_names: str, prefix: str = "/p", **link: float) -> tuple[Network, App, App]:
    """A chain of nodes with a consumer at its first and a producer of `prefix` at its last."""
    network = Network()
    nodes = [network.node(name) for name in node_names]
    for a, b in itertools.pairwise(node_names):
        network.link(a, b, **link)
        network.nodes[a].route(prefix, b)
    return network, nodes[0].app(), nodes[-1].app(serve=prefix)


def diamond() -> tuple[Network, App, App]:
    """The diamond of the fallback tests: `a` prefers `b`; a consumer at `a`, a producer of /p at `d`."""
    network = Network()
    a, b, c, d = (network.node(name) for name in "abcd")
    for ends in ("ab", "ac", "bd", "cd"):
        network.link(ends[0], ends[1])
    a.route("/p", "b", cost=1)
    a.route("/p", "c", cost=2)
    b.route("/p", "d")
    c.route("/p", "d")
    return network, a.app(), d.app(serve="/p")


# --- the ordinary way


def test_data_comes_back_the_way_the_interest_went() -> None:
    """Data reaches the consumer over three hops, each of which keeps a copy."""
    # consumer - a - b - c - producer
    network, consumer, producer = line("a", "b", "c")
    consumer.ask("/p/x")
    network.run()
    assert consumer.contents == [b"answer"]
    assert len(producer.asked) == 1
    assert all(len(node.forwarder.content_store) == 1 for node in network.nodes.values())
    assert all(len(node.forwarder.pit) == 0 for node in network.nodes.values())


def test_second_consumer_is_answered_by_the_nearest_store() -> None:
    """What passed once is answered where it passed, and the producer is not asked again."""
    # consumer - a - b - producer
    network, consumer, producer = line("a", "b")
    consumer.ask("/p/x")
    network.run()
    other = network.nodes["a"].app()
    other.ask("/p/x")
    network.run()
    assert other.contents == [b"answer"]
    assert len(producer.asked) == 1
    assert network.nodes["a"].forwarder.counters.hits == 1
    assert len(network.nodes["a"].to["b"].sent) == 1


def test_interests_for_the_same_are_aggregated() -> None:
    """Two consumers that wait for the same cost one Interest upstream, and both get the Data."""
    # one, other - a - b - producer
    network, consumer, producer = line("a", "b", delay_s=0.1)
    other = network.nodes["a"].app()
    consumer.ask("/p/x")
    network.run(0.05)
    other.ask("/p/x")
    network.run()
    assert consumer.contents == other.contents == [b"answer"]
    assert len(producer.asked) == 1


def test_a_lost_interest_is_repaired_by_whoever_asks_late() -> None:
    """An Interest that joins one which is pending for long is sent on, since the first was lost."""
    # one, other - a -(fails, recovers)- b - producer
    network, consumer, producer = line("a", "b")
    network.nodes["a"].to["b"].link.fail()
    consumer.ask("/p/x")
    network.run(1.5)
    network.nodes["a"].to["b"].link.recover()
    other = network.nodes["a"].app()
    other.ask("/p/x")
    network.run(0.5)
    assert consumer.contents == other.contents == [b"answer"]
    assert len(producer.asked) == 1


def test_interests_with_other_selectors_are_not_aggregated() -> None:
    """CanBePrefix, MustBeFresh and the implicit digest make another Interest of the same name."""
    # consumer - a - b - producer
    network, consumer, _producer = line("a", "b")
    wire = keys.sign_data(names.parse("/p/x"), b"answer")
    consumer.ask("/p/x")
    consumer.ask("/p/x", must_be_fresh=True)
    consumer.ask("/p/x", can_be_prefix=True)
    consumer.ask("/p/x", digest=hashlib.sha256(wire).digest())
    network.run(0.005)
    assert len(network.nodes["a"].forwarder.pit) == 4
    network.run()
    assert network.nodes["a"].forwarder.counters.satisfied == 4
    assert len(consumer.data) == 4


def test_a_prefix_interest_is_answered_by_data_that_a_digest_interest_brought() -> None:
    """Data satisfies all that wait for it: the exact digest, the exact name and the prefixes above it."""
    # three consumers - a - b - producer
    network, consumer, producer = line("a", "b")
    wire = keys.sign_data(names.parse("/p/x/1"), b"answer")
    below, above = network.nodes["a"].app(), network.nodes["a"].app()
    producer_answers = [wire]
    producer._answer = lambda interest: producer_answers.pop() if producer_answers and interest.digest else None
    above.ask("/p/x", can_be_prefix=True)
    consumer.ask("/p/x/1")
    below.ask("/p/x/1", digest=hashlib.sha256(wire).digest())
    network.run()
    assert consumer.contents == above.contents == below.contents == [b"answer"]


def test_the_pit_token_of_each_downstream_comes_back() -> None:
    """Each consumer gets its own PIT token back with Data and with a Nack, and none travels upstream."""
    # one, other - a - b - producer
    network, consumer, _producer = line("a", "b")
    other = network.nodes["a"].app()
    consumer.ask("/p/x", token=b"\x01")
    other.ask("/p/x", token=b"\x02\x03")
    network.run()
    assert (consumer.tokens, other.tokens) == ([b"\x01"], [b"\x02\x03"])
    assert packet.decode_link(network.nodes["a"].to["b"].sent[0]).pit_token is None


def test_an_interest_without_nonce_gets_one() -> None:
    """A nonce is added where there is none, also when other fields follow."""
    # consumer - a - b - producer
    network, consumer, producer = line("a", "b")
    name = names.tlv(7, names.parse("/p/x"))
    consumer.send(names.tlv(packet.INTEREST, name + b"\x21\x00\x0c\x01\x64\x22\x01\x05"))
    network.run()
    assert consumer.contents == [b"answer"]
    asked = producer.asked[0]
    assert asked.nonce is not None and asked.can_be_prefix and asked.lifetime_ms == 100 and asked.hop_limit == 3


def test_an_interest_expires_and_is_forgotten() -> None:
    """Nobody's answer leaves no entry behind, counts as unsatisfied, and no Data that comes later is taken."""
    # consumer - a - b
    network, consumer, producer = line("a", "b")
    producer._answer = lambda interest: None
    consumer.ask("/p/x", lifetime_ms=500)
    network.run(0.4)
    a = network.nodes["a"].forwarder
    assert len(a.pit) == 1 and network.nodes["a"].to["b"].outstanding == 1 and consumer.waiting == 1
    network.run(0.2)
    assert len(a.pit) == 0 and network.nodes["a"].to["b"].outstanding == 0 and consumer.waiting == 0
    assert a.counters.unsatisfied == 1
    producer.send(data("/p/x"))
    network.run()
    assert consumer.data == [] and network.nodes["b"].forwarder.counters.unsolicited == 1


def test_loss_is_repaired_by_retransmissions() -> None:
    """A consumer that asks again gets its Data over a link that loses every second packet."""
    # consumer - a -(50 % loss)- b - producer
    network, consumer, _producer = line("a", "b", loss=0.5)
    for _ in range(40):
        consumer.ask("/p/x", lifetime_ms=300)
        network.run(0.5)
        if consumer.data:
            break
    assert consumer.contents == [b"answer"]


# --- nonces and loops


def test_a_loop_ends_with_a_nack() -> None:
    """An Interest that comes back to where it was is a duplicate; the consumer is told that there is no way."""
    # consumer - a --- b
    #             \   /
    #               c        routes go round: a -> b -> c -> a
    network = Network()
    a, b, c = (network.node(name) for name in "abc")
    for ends in ("ab", "bc", "ca"):
        network.link(ends[0], ends[1])
    a.route("/p", "b")
    b.route("/p", "c")
    c.route("/p", "a")
    consumer = a.app()
    consumer.ask("/p/x")
    network.run(1)
    assert consumer.nacks == [NACK_DUPLICATE]
    assert a.forwarder.counters.loops == 1
    assert sum(len(face.sent) for node in network.nodes.values() for face in node.to.values()) == 6


def test_a_late_copy_of_an_unanswered_interest_is_a_loop() -> None:
    """The dead nonce list knows a nonce after its entry went, for its lifetime and no longer."""
    # consumer - a - b
    network, consumer, producer = line("a", "b")
    producer._answer = lambda interest: None
    wire = consumer.ask("/p/x", lifetime_ms=100)
    network.run(1)
    neighbor = network.nodes["b"].to["a"]
    network.nodes["a"].forwarder.receive(neighbor.other, wire, network.now)
    assert network.nodes["a"].forwarder.counters.loops == 1
    network.run(DEAD_NONCE_LIFETIME_S)
    consumer.send(wire)
    network.run(0.05)
    assert network.nodes["a"].forwarder.counters.loops == 1 and len(producer.asked) == 2


def test_new_nonces_pass_after_the_entry_was_answered() -> None:
    """Neither a new nonce nor none at all is taken for a duplicate once an Interest of that name was answered."""
    # consumer - a - b - producer, whose Data is never fresh
    network, consumer, producer = line("a", "b")
    for _ in range(3):
        consumer.ask("/p/x", must_be_fresh=True)
        network.run()
    consumer.send(names.tlv(packet.INTEREST, names.tlv(7, names.parse("/p/x")) + b"\x12\x00"))
    network.run()
    assert len(consumer.data) == len(producer.asked) == 4
    assert consumer.nacks == []


def test_satisfied_interests_leave_few_dead_nonces() -> None:
    """A transfer that the store can answer again leaves no nonces behind; unanswerable ones do, and go with time."""
    # consumer - a - b - producer
    network, consumer, _producer = line("a", "b")
    dead = network.nodes["a"].forwarder.dead_nonces
    for i in range(100):
        consumer.ask(f"/p/{i}")
    network.run()
    assert len(consumer.data) == 100 and len(dead) == 0
    consumer.ask("/p/fresh", must_be_fresh=True)
    network.run(1)
    assert len(dead) == 1


def test_the_same_interest_again_from_the_same_face_is_no_loop() -> None:
    """A consumer may send the very same packet again while it waits: it is a retransmission."""
    # consumer - a - b
    network, consumer, producer = line("a", "b")
    producer._answer = lambda interest: None
    wire = consumer.ask("/p/x")
    network.run(0.1)
    consumer.send(wire)
    network.run(0.1)
    assert consumer.nacks == [] and network.nodes["a"].forwarder.counters.loops == 0
    assert len(network.nodes["a"].to["b"].sent) == 2


def test_a_retransmission_at_once_is_suppressed() -> None:
    """Who asks again within ten milliseconds gets nothing more sent upstream, and still gets its Data."""
    # consumer - a - b - producer
    network, consumer, _producer = line("a", "b")
    for _ in range(5):
        consumer.ask("/p/x")
        network.run(0.001)
    network.run()
    assert len(network.nodes["a"].to["b"].sent) == 1
    assert consumer.contents == [b"answer"]


# --- Nack and fallback


def test_no_route_is_a_nack_at_once() -> None:
    """Without a route the consumer is told so at once and nothing stays behind."""
    network = Network()
    consumer = network.node("a").app()
    consumer.ask("/p/x", token=b"\x07")
    network.run(0)
    assert consumer.nacks == [NACK_NO_ROUTE]
    assert len(network.nodes["a"].forwarder.pit) == 0
    assert network.nodes["a"].forwarder.counters.no_route == 1


def test_a_nack_travels_back() -> None:
    """A Nack from two hops away reaches the consumer when there is no other way."""
    # consumer - a - b - c (no route)
    network = Network()
    a, b, _ = (network.node(name) for name in "abc")
    network.link("a", "b")
    network.link("b", "c")
    a.route("/p", "b")
    b.route("/p", "c")
    consumer = a.app()
    consumer.ask("/p/x")
    network.run(1)
    assert consumer.nacks == [NACK_NO_ROUTE]
    assert all(len(node.forwarder.pit) == 0 for node in network.nodes.values())


#            b
#          /   \
# consumer a     d - producer        the diamond
#          \   /
#            c


def test_a_nack_makes_the_second_next_hop_try() -> None:
    """When the better neighbour has no route, the other one is asked in the same moment."""
    network, consumer, _producer = diamond()
    network.nodes["b"].forwarder.fib.remove(names.parse("/p"), network.nodes["b"].to["d"].id)
    consumer.ask("/p/x")
    network.run(0.1)
    assert consumer.contents == [b"answer"] and consumer.nacks == []
    assert network.nodes["a"].forwarder.counters.in_nacks == 1


def test_a_retransmission_tries_the_second_next_hop() -> None:
    """When the better neighbour is silent, the consumer's retransmission goes to the other one."""
    network, consumer, _producer = diamond()
    network.nodes["b"].to["d"].link.fail()
    consumer.ask("/p/x")
    network.run(0.5)
    assert consumer.data == []
    consumer.ask("/p/x")
    network.run(0.1)
    assert consumer.contents == [b"answer"]
    network.nodes["b"].to["d"].link.recover()


def test_a_face_that_goes_down_makes_the_second_next_hop_try() -> None:
    """What was asked of a neighbour whose connection breaks is asked of the other one at once."""
    network, consumer, _producer = diamond()
    consumer.ask("/p/x")
    network.run(0.005)
    network.nodes["a"].to["b"].link.fail(notice=True)
    network.run(0.1)
    assert consumer.contents == [b"answer"]
    consumer.ask("/p/y")
    network.run(0.1)
    assert len(consumer.data) == 2 and len(network.nodes["a"].to["b"].sent) == 1


def test_all_nacks_give_the_mildest_reason() -> None:
    """When every next hop said no the consumer gets one Nack, with the reason that is likeliest to pass."""
    network, consumer, _producer = diamond()
    network.nodes["b"].forwarder.fib.remove(names.parse("/p"), network.nodes["b"].to["d"].id)
    network.nodes["c"].forwarder.pit.capacity = 0
    consumer.ask("/p/x")
    network.run(0.1)
    assert consumer.nacks == [NACK_CONGESTION]


def test_a_nack_of_an_old_nonce_is_ignored() -> None:
    """A Nack must name the nonce that was sent to that neighbour; one from elsewhere or of before changes nothing."""
    # consumer - a - b
    network, consumer, producer = line("a", "b")
    producer._answer = lambda interest: None
    consumer.ask("/p/x")
    network.run(0.1)
    old = packet.encode_interest(names.parse("/p/x"), nonce=b"old!")[1]
    a = network.nodes["a"]
    a.forwarder.receive(a.to["b"], packet.encode_link(old, nack_reason=NACK_NO_ROUTE), network.now)
    network.run(0.1)
    assert consumer.nacks == [] and len(a.forwarder.pit) == 1


def test_the_neighbour_we_wait_for_does_not_cost_others_their_entry() -> None:
    """A neighbour that asks us for what we ask of it is refused alone; who waits here goes on waiting."""
    # consumer - a - b - producer, and b has a route to a
    network, consumer, producer = line("a", "b")
    producer._answer = lambda interest: None
    consumer.ask("/p/x")
    network.run(0.1)
    a = network.nodes["a"]
    a.forwarder.receive(a.to["b"], packet.encode_interest(names.parse("/p/x"))[1], network.now)
    network.run(0.1)
    assert consumer.nacks == [] and a.to["b"].counters.out_nacks == 1
    producer.send(data("/p/x", b"late"))
    network.run(0.1)
    assert consumer.contents == [b"late"]


def test_data_is_not_sent_back_to_where_it_came_from() -> None:
    """Of two faces that wait, the one that brings the Data itself gets no copy."""
    # consumer - a - b, c: b asks a for the same before a's own upstream c is replaced by b
    network = Network()
    a, _b, _c = (network.node(name) for name in "abc")
    network.link("a", "b")
    network.link("a", "c")
    a.route("/p", "c", cost=1)
    a.route("/p", "b", cost=2)
    consumer = a.app()
    a.forwarder.receive(a.to["b"], packet.encode_interest(names.parse("/p/x"))[1], 0.0)
    consumer.ask("/p/x")
    network.run(0.02)
    consumer.ask("/p/x")
    assert len(a.to["b"].sent) == 1
    a.forwarder.receive(a.to["b"], data("/p/x", b"from b"), network.now)
    network.run(0.001)
    assert consumer.contents == [b"from b"]
    assert a.to["b"].counters.out_data == 0


# --- ForwardingHint


def test_a_hint_leads_to_the_holder_and_ends_there() -> None:
    """Nodes in transit route on the holder's node name; the holder takes the hint off and routes on the name."""
    # consumer - a - b - holder - producer of /foreign
    network = Network()
    a, b, holder = (network.node(name) for name in ("a", "b", "holder"))
    network.link("a", "b")
    network.link("b", "holder")
    a.route("/net/node/holder", "b")
    b.route("/net/node/holder", "holder")
    producer = holder.app(serve="/foreign")
    consumer = a.app()
    consumer.ask("/foreign/x", hint=[names.parse("/net/node/holder")], hop_limit=9)
    network.run()
    assert consumer.contents == [b"answer"]
    assert packet.decode_interest(a.to["b"].sent[0]).hint == (names.parse("/net/node/holder"),)
    assert producer.asked[0].hint == () and producer.asked[0].hop_limit == 6


def test_a_second_delegation_is_used_when_the_first_leads_nowhere() -> None:
    """The first delegation with a usable next hop decides, so that a holder that is cut off costs nothing."""
    # consumer - a - b - producer;  a - c (down)
    network, consumer, _producer = line("a", "b", prefix="/net/node/b")
    network.node("c")
    network.link("a", "c").fail(notice=True)
    network.nodes["a"].route("/net/node/c", "c")
    network.nodes["b"].app(serve="/foreign")
    consumer.ask("/foreign/x", hint=[names.parse("/net/node/c"), names.parse("/net/node/b")])
    network.run()
    assert consumer.contents == [b"answer"]


def test_a_store_on_the_way_answers_for_the_holder() -> None:
    """A node in transit that has the Data answers by name, whatever the hint says."""
    # consumer - a - b (has it) - holder
    network = Network()
    a, b, _ = (network.node(name) for name in ("a", "b", "holder"))
    network.link("a", "b")
    network.link("b", "holder")
    a.route("/net/node/holder", "b")
    b.route("/net/node/holder", "holder")
    b.forwarder.content_store.insert(packet.decode_data(data("/foreign/x", b"cached")), 0.0)
    consumer = a.app()
    consumer.ask("/foreign/x", hint=[names.parse("/net/node/holder")])
    network.run()
    assert consumer.contents == [b"cached"] and b.to["holder"].sent == []


# --- hop limit and scope


@pytest.mark.parametrize(("hop_limit", "arrives"), [(0, 0), (1, 0), (2, 0), (3, 1)])
def test_hop_limit(hop_limit: int, arrives: int) -> None:
    """An Interest with hop limit n passes n forwarders, the consumer's own included; less by one at each."""
    # consumer - a - b - c - producer
    network, consumer, producer = line("a", "b", "c")
    consumer.ask("/p/x", hop_limit=hop_limit)
    network.run(1)
    assert len(producer.asked) == arrives
    assert len(network.nodes["a"].to["b"].sent) == (hop_limit > 1)
    if arrives:
        assert producer.asked[0].hop_limit == 0


def test_localhost_never_crosses_a_link() -> None:
    """/localhost is refused from a neighbour, as Interest and as Data, and is not sent to one."""
    # consumer - a - b - application that serves /localhost/x
    network, consumer, producer = line("a", "b", prefix="/localhost")
    consumer.ask("/localhost/x")
    network.run(1)
    assert producer.asked == [] and network.nodes["a"].to["b"].sent == []
    assert consumer.nacks == [NACK_NO_ROUTE]
    b = network.nodes["b"]
    b.forwarder.receive(b.to["a"], packet.encode_interest(names.parse("/localhost/x"))[1], network.now)
    b.forwarder.receive(b.to["a"], data("/localhost/x"), network.now)
    network.run(1)
    assert producer.asked == [] and b.forwarder.counters.scope_violations == 2


def test_localhost_between_applications_of_one_node() -> None:
    """/localhost works within a node and is never kept in the store."""
    network = Network()
    node = network.node("a")
    producer = node.app(serve="/localhost/x")
    consumer = node.app()
    for _ in range(2):
        consumer.ask("/localhost/x/1")
        network.run(1)
    assert len(consumer.data) == len(producer.asked) == 2


def test_localhop_crosses_one_link() -> None:
    """/localhop goes to the neighbour's applications and no further, and is not kept."""
    # consumer - a - b - c
    network, consumer, far = line("a", "b", "c", prefix="/localhop")
    near = network.nodes["b"].app(serve="/localhop/x")
    consumer.ask("/localhop/x/1")
    consumer.ask("/localhop/y/1")
    network.run(1)
    assert consumer.contents == [b"answer"] and len(near.asked) == 1
    assert far.asked == [] and network.nodes["b"].to["c"].sent == []
    assert len(network.nodes["a"].forwarder.content_store) == 0


# --- the face that the consumer names


def star() -> tuple[Network, App, list[Node]]:
    """A node with three neighbours, each with an application that answers /localhop/hello with the node's name."""
    network = Network()
    a = network.node("a")
    others = [network.node(name) for name in "bcd"]
    for other in others:
        network.link("a", other.name)
        answer = other.name.encode()
        app = other.app(
            answer=lambda interest, text=answer: keys.sign_data(interest.name, text)  # type: ignore[misc]
        )
        other.forwarder.fib.add(names.parse("/localhop/hello"), app.id, 0, "app")
    consumer = a.app()
    consumer.local_fields = True
    return network, consumer, others


#       b
#       |
# c --- a --- d      the star, a consumer at its centre


def test_each_named_next_hop_answers_for_itself() -> None:
    """The same Interest to three named faces at once brings three answers, each to its own token."""
    network, consumer, others = star()
    for other in others:
        consumer.ask("/localhop/hello", token=other.name.encode(), next_hop_face=other.to["a"].other.id)
    network.run(1)
    assert sorted(zip(consumer.tokens, consumer.contents, strict=True)) == [(b"b", b"b"), (b"c", b"c"), (b"d", b"d")]


def test_a_named_next_hop_has_no_fallback() -> None:
    """A face that is down or says no is the end of an Interest that named it; other routes are not tried."""
    network, consumer, others = star()
    a, b = network.nodes["a"], others[0]
    a.route("/localhop/hello", "c")
    b.forwarder.fib.remove(names.parse("/localhop/hello"), 257)
    consumer.ask("/localhop/hello", next_hop_face=a.to["b"].id)
    network.run(1)
    a.to["d"].link.fail(notice=True)
    consumer.ask("/localhop/hello", next_hop_face=a.to["d"].id)
    consumer.ask("/localhop/hello", next_hop_face=9999)
    network.run(1)
    assert consumer.nacks == [NACK_NO_ROUTE] * 3 and consumer.data == []


def test_next_hop_face_is_for_those_who_may() -> None:
    """A face without local fields can't choose its next hop: the field is ignored and the routes decide."""
    network, _consumer, _others = star()
    a = network.nodes["a"]
    a.route("/localhop/hello", "c")
    stranger = a.app()
    stranger.ask("/localhop/hello", next_hop_face=a.to["b"].id)
    network.run(1)
    assert stranger.contents == [b"c"]


def test_the_incoming_face_is_told_to_those_who_may() -> None:
    """An application with local fields learns from which face an Interest came; others get the bare packet."""
    # a - b
    network, consumer, producer = line("a", "b")
    producer.local_fields = True
    consumer.ask("/p/x")
    network.run(1)
    assert producer.asked[0].incoming_face == network.nodes["b"].to["a"].id
    assert packet.decode_link(network.nodes["a"].to["b"].sent[0]).incoming_face is None


# --- what is not believed


def test_unsolicited_data_is_dropped() -> None:
    """Data that nobody asked for is neither kept nor passed on, from neighbours as from applications."""
    network, consumer, _producer = line("a", "b")
    a = network.nodes["a"]
    a.forwarder.receive(a.to["b"], data("/p/x"), 0.0)
    consumer.send(data("/p/x"))
    network.run(1)
    assert a.forwarder.counters.unsolicited == 2 and len(a.forwarder.content_store) == 0


def test_data_from_a_face_that_was_not_asked_is_dropped() -> None:
    """A neighbour off the path can't answer in place of the one that was asked."""
    # consumer - a - b - producer;  a - c (answers without being asked)
    network, consumer, _producer = line("a", "b", delay_s=0.1)
    network.node("c")
    network.link("a", "c")
    a = network.nodes["a"]
    consumer.ask("/p/x")
    a.forwarder.receive(a.to["c"], data("/p/x", b"forged"), network.now)
    network.run(1)
    assert consumer.contents == [b"answer"] and a.forwarder.counters.unsolicited == 1


def test_a_poisoned_store_is_a_miss_for_the_digest() -> None:
    """An Interest by implicit digest passes a store that holds other bytes of that name; only the right Data counts."""
    # consumer - a - b (poisoned) - c - producer
    network, consumer, producer = line("a", "b", "c")
    wire = data("/p/x", b"true")
    producer._answer = lambda interest: wire
    b = network.nodes["b"].forwarder
    b.content_store.insert(packet.decode_data(data("/p/x", b"poison")), 0.0)
    consumer.ask("/p/x", digest=hashlib.sha256(wire).digest())
    network.run(1)
    assert consumer.contents == [b"true"]
    other = network.nodes["b"].app()
    other.ask("/p/x")
    network.run(1)
    assert other.contents == [b"true"]


def test_data_with_another_digest_leaves_the_interest_pending() -> None:
    """A forged answer to an Interest by digest is dropped and the entry goes on waiting for the right one."""
    # consumer - a - b
    network, consumer, producer = line("a", "b")
    wire = data("/p/x", b"true")
    producer._answer = lambda interest: data("/p/x", b"forged")
    consumer.ask("/p/x", digest=hashlib.sha256(wire).digest())
    network.run(1)
    assert consumer.data == [] and len(network.nodes["b"].forwarder.content_store) == 0
    producer.send(wire)
    network.run(1)
    assert consumer.contents == [b"true"]


@pytest.mark.parametrize("bad", [b"", b"\x00", b"\x05\x00", b"\x64\x02\x50\x00", b"\x06\x03\x07\x01\x08", b"\xff" * 20])
def test_a_bad_packet_changes_nothing(bad: bytes) -> None:
    """What is no packet is counted at its face and the next packet works."""
    network, consumer, _producer = line("a", "b")
    consumer.send(bad)
    consumer.ask("/p/x")
    network.run(1)
    assert consumer.contents == [b"answer"]
    assert consumer.counters.undecodable == (0 if bad == b"\x64\x02\x50\x00" else 1)


# --- freshness, pinning, full tables


def test_must_be_fresh() -> None:
    """Data answers from the store for MustBeFresh within its freshness period, and for others afterwards as well."""
    # consumer - a - b - producer of Data that is fresh for one second
    network, consumer, producer = line("a", "b")
    producer._answer = lambda interest: keys.sign_data(interest.name, b"v", 1000)
    consumer.ask("/p/x", must_be_fresh=True)
    network.run(0.5)
    consumer.ask("/p/x", must_be_fresh=True)
    network.run(0.3)
    assert len(consumer.data) == 2 and len(producer.asked) == 1
    network.run(0.5)
    consumer.ask("/p/x")
    network.run(0.1)
    assert len(producer.asked) == 1
    consumer.ask("/p/x", must_be_fresh=True)
    network.run(0.1)
    assert len(consumer.data) == 4 and len(producer.asked) == 2


def test_no_cache_is_respected() -> None:
    """Data that its producer marks as not to be cached is passed on and not kept."""
    # consumer - a - application
    network = Network()
    node = network.node("a")
    no_cache = names.tlv(0x0334, names.tlv(0x0335, b"\x01"))
    producer = node.app(serve="/p")
    producer._answer = lambda interest: names.tlv(
        0x64, no_cache + names.tlv(0x50, keys.sign_data(interest.name, b"secret"))
    )
    consumer = node.app()
    for _ in range(2):
        consumer.ask("/p/x")
        network.run(1)
    assert consumer.contents == [b"secret"] * 2 and len(producer.asked) == 2


def test_pinned_packets_answer_from_the_network_too() -> None:
    """A pinned certificate answers a neighbour's Interest although nobody's flood of Data leaves room for it."""
    # consumer - a - b
    network, consumer, producer = line("a", "b")
    b = network.nodes["b"].forwarder
    b.content_store.pin(packet.decode_data(data("/p/KEY/1", b"certificate")))
    for i in range(3000):
        b.content_store.insert(packet.decode_data(data(f"/flood/{i}", b"x" * 500)), 0.0)
    consumer.ask("/p/KEY", can_be_prefix=True)
    network.run(1)
    assert consumer.contents == [b"certificate"] and producer.asked == []


def test_a_full_pit_is_a_congestion_nack() -> None:
    """When the PIT is full new Interests are Nacked; who waits already gets its Data, and then there is room again."""
    # flooder, consumers - a - b - producer that answers late
    network, _consumer, producer = line("a", "b")
    producer._answer = lambda interest: None
    a = network.nodes["a"].forwarder
    a.pit.capacity = 8
    apps = [network.nodes["a"].app() for _ in range(5)]
    for i, app in enumerate(apps[:4]):
        app.ask(f"/p/{i}/1", lifetime_ms=2000)
        app.ask(f"/p/{i}/2", lifetime_ms=2000)
    apps[4].ask("/p/new")
    apps[4].ask("/p/0/1")
    network.run(0.1)
    assert apps[4].nacks == [NACK_CONGESTION] and a.counters.pit_full == 1
    producer.send(data("/p/0/1", b"late"))
    network.run(0.1)
    assert apps[0].contents == apps[4].contents == [b"late"]
    network.run(2)
    producer._answer = lambda interest: data("/p/new", b"room")
    apps[4].ask("/p/new")
    network.run(1)
    assert apps[4].contents == [b"late", b"room"]


def test_a_flood_from_one_face_leaves_room_for_others() -> None:
    """One face can fill no more than its share of the PIT; others are served as before."""
    # flooder, consumer - a - b - producer
    network, consumer, producer = line("a", "b")
    a = network.nodes["a"].forwarder
    a.pit.capacity = 40
    producer._answer = lambda interest: keys.sign_data(interest.name, b"answer") if b"good" in interest.name else None
    flooder = network.nodes["a"].app()
    for i in range(100):
        flooder.ask(f"/p/{i}", lifetime_ms=60_000)
    for i in range(5):
        consumer.ask(f"/p/good/{i}")
    network.run(1)
    assert len(flooder.nacks) == 100 - 40 * PIT_SHARE_OF_FACE
    assert len(consumer.data) == 5 and consumer.nacks == []


def test_a_face_that_is_removed_leaves_nothing_behind() -> None:
    """A consumer or neighbour that goes takes its routes with it; its Interests expire and the rest works on."""
    # one, other - a - b - producer
    network, consumer, producer = line("a", "b")
    other = network.nodes["a"].app()
    producer._answer = lambda interest: None
    consumer.ask("/p/x", lifetime_ms=1000)
    other.ask("/p/x", lifetime_ms=1000)
    network.run(0.1)
    a = network.nodes["a"].forwarder
    a.remove_face(consumer)
    producer.send(data("/p/x", b"late"))
    network.run(0.1)
    assert other.contents == [b"late"] and consumer.data == []
    a.remove_face(network.nodes["a"].to["b"])
    other.ask("/p/y")
    network.run(2)
    assert other.nacks == [NACK_NO_ROUTE] and len(a.pit) == 0 and len(a.fib) == 0


def test_the_disk_store_answers_after_the_memory() -> None:
    """A packet source behind the content store answers by name and digest, never an Interest that wants fresh Data."""

    class Disk:
        def is_arriving(self, name: bytes, now: float) -> bool:
            return False

        def find(self, name: bytes, can_be_prefix: bool = False, digest: bytes | None = None) -> bytes | None:
            wire = data("/net/blob/x", b"from disk")
            right = digest is None or digest == hashlib.sha256(wire).digest()
            return wire if name == names.parse("/net/blob/x") and right else None

    network = Network()
    node = network.node("a", disk=Disk(), blobs=names.parse("/net/blob"))
    consumer = node.app()
    consumer.ask("/net/blob/x")
    consumer.ask("/net/blob/x", digest=hashlib.sha256(data("/net/blob/x", b"from disk")).digest())
    consumer.ask("/net/blob/x", digest=bytes(32))
    consumer.ask("/net/blob/x", must_be_fresh=True)
    network.run(1)
    assert consumer.contents == [b"from disk"] * 2 and consumer.nacks == [NACK_NO_ROUTE] * 2
    counters = node.forwarder.counters
    assert (counters.blob_hits, counters.blob_misses) == (2, 2)


def test_what_is_arriving_is_waited_for() -> None:
    """Who asks this node as a holder for what it is fetching itself waits for that; no second copy crosses a link."""
    is_arriving = True

    class Disk:
        def is_arriving(self, name: bytes, now: float) -> bool:
            return is_arriving

        def find(self, name: bytes, can_be_prefix: bool = False, digest: bytes | None = None) -> bytes | None:
            return None

    # child - a - origin
    network = Network()
    a, origin = network.node("a", disk=Disk(), blobs=names.parse("/net/blob")), network.node("origin")
    network.node("child")
    network.link("child", "a")
    network.link("a", "origin")
    a.route("/net", "origin")
    asked = []

    def answer(interest: Interest) -> bytes:
        asked.append(interest.name)
        return data("/net/blob/x", b"from the origin")

    origin.app(serve="/net/blob", answer=answer)
    child, own = network.nodes["child"].app(), a.app()
    network.nodes["child"].route("/net", "a")
    here = [names.parse("/net/node/a")]
    child.ask("/net/blob/x", hint=here)
    network.run(1)
    assert not asked and not child.nacks and len(a.forwarder.pit) == 1
    own.ask("/net/blob/x")
    network.run(1)
    assert len(asked) == 1 and child.contents == own.contents == [b"from the origin"]
    is_arriving = False
    child.ask("/net/blob/y", hint=here)
    network.run(1)
    assert len(asked) == 2


# --- what others ask


def test_a_route_is_to_just_its_prefix_by_a_face_that_is_up() -> None:
    """Neither a shorter prefix nor a face that is down is a route; an application's is told from a neighbour's."""
    # app - a - b
    network = Network()
    a, _ = network.node("a"), network.node("b")
    app = a.app(serve="/here")
    network.link("a", "b")
    a.route("/there", "b")
    forwarder, here, there = a.forwarder, names.parse("/here"), names.parse("/there")
    assert [forwarder.has_route(prefix) for prefix in (here, there, names.parse("/here/x"))] == [True, True, False]
    assert [forwarder.has_route(prefix, is_local=True) for prefix in (here, there)] == [True, False]
    a.to["b"].up = False
    assert not forwarder.has_route(there)
    a.to["b"].up = True
    forwarder.remove_face(app)
    assert not forwarder.has_route(here)
