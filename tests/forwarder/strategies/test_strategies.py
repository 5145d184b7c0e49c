"""The strategies at work in forwarders that are joined by virtual links, chosen by prefix."""

from __future__ import annotations

import random

import pytest

from gateway.forwarder import packet
from gateway.forwarder.strategies import adaptive
from gateway.forwarder.strategies.adaptive import PROBE_INTERVAL_S, Adaptive, Measurement
from gateway.forwarder.strategy_choice import ADAPTIVE, BEST_ROUTE, MULTICAST
from gateway.protocol import names
from tests.simulation.network import App, Network

#            b (cheap)
#          /   \
# consumer a     d - producer
#          \   /
#            c (dear)


def diamond(strategy: str, b_delay_s: float = 0.01, c_delay_s: float = 0.01) -> tuple[Network, App, App]:
    """The diamond with a strategy at `a` for all names."""
    network = Network()
    a, b, c, d = (network.node(name) for name in "abcd")
    network.link("a", "b", delay_s=b_delay_s)
    network.link("a", "c", delay_s=c_delay_s)
    network.link("b", "d")
    network.link("c", "d")
    a.route("/p", "b", cost=1)
    a.route("/p", "c", cost=2)
    b.route("/p", "d")
    c.route("/p", "d")
    a.forwarder.strategies.set(b"", strategy)
    a.forwarder._strategies[ADAPTIVE] = Adaptive(a.forwarder.fib.longest_prefix, random.Random(1))
    return network, a.app(), d.app(serve="/p")


def ask(network: Network, consumer: App, count: int, every_s: float = 0.5, start: int = 0) -> int:
    """Asks for new names at an interval, with one retransmission each; how many were answered."""
    before = len(consumer.data)
    for number in range(start, start + count):
        consumer.ask(f"/p/{number}", lifetime_ms=400)
        network.run(every_s)
    return len(consumer.data) - before


def sent(network: Network) -> tuple[int, int]:
    """How many packets `a` has sent to `b` and to `c`."""
    faces = network.nodes["a"].to
    return len(faces["b"].sent), len(faces["c"].sent)


def test_multicast_asks_all() -> None:
    """Each next hop is asked, one that is silent or says no costs nothing, and the consumer gets one answer."""
    network, consumer, _ = diamond(MULTICAST)
    consumer.ask("/p/1")
    network.run(1)
    assert sent(network) == (1, 1) and consumer.contents == [b"answer"]
    network.nodes["a"].to["b"].link.fail()
    network.nodes["c"].forwarder.fib.remove(names.parse("/p"), network.nodes["c"].to["d"].id)
    consumer.ask("/p/2", lifetime_ms=500)
    network.run(1)
    assert len(consumer.data) == 1 and consumer.nacks == [] and len(network.nodes["a"].forwarder.pit) == 0


def test_a_strategy_serves_the_prefix_it_was_chosen_for() -> None:
    """The longest prefix decides, a change counts from the next Interest on, and unset names inherit."""
    network, consumer, _ = diamond(BEST_ROUTE)
    choice = network.nodes["a"].forwarder.strategies

    def copies(uri: str) -> int:
        before = sum(sent(network))
        consumer.ask(uri)
        network.run(1)
        return sum(sent(network)) - before

    assert copies("/p/all/1") == 1
    choice.set(names.parse("/p/all"), MULTICAST)
    assert (copies("/p/all/2"), copies("/p/one/2"), copies("/p/all")) == (2, 1, 2)
    choice.set(b"", MULTICAST)
    choice.set(names.parse("/p/one"), BEST_ROUTE)
    assert (copies("/p/one/3"), copies("/p/3")) == (1, 2)
    choice.unset(names.parse("/p/one"))
    assert copies("/p/one/4") == 2


def test_adaptive_finds_the_faster_way() -> None:
    """The dear next hop that is faster is found by probing, and used from then on."""
    network, consumer, _ = diamond(ADAPTIVE, b_delay_s=0.1, c_delay_s=0.01)
    assert ask(network, consumer, 40) == 40
    assert sent(network)[1] >= 1
    before = sent(network)
    assert ask(network, consumer, 40, start=40) == 40
    b, c = (now - then for now, then in zip(sent(network), before, strict=True))
    assert c == 40 and b <= 40 * 0.5 / PROBE_INTERVAL_S + 1


def test_adaptive_leaves_a_lossy_way_and_comes_back() -> None:
    """A next hop that loses Interests is left for the other one; when it is well again it is found again."""
    network, consumer, _ = diamond(ADAPTIVE, b_delay_s=0.01, c_delay_s=0.05)
    assert ask(network, consumer, 20) == 20
    link = network.nodes["a"].to["b"].link
    link.fail()
    ask(network, consumer, 10, start=20)
    assert ask(network, consumer, 60, start=30) >= 58
    link.recover()
    ask(network, consumer, 160, start=90)
    before = sent(network)
    assert ask(network, consumer, 20, start=250) == 20
    assert sent(network)[0] - before[0] == 20


def test_adaptive_believes_a_refusal_at_once() -> None:
    """A next hop without a route is passed over from the first Nack on, and tried again at the probing's pace."""
    network, consumer, _ = diamond(ADAPTIVE)
    network.nodes["b"].forwarder.fib.remove(names.parse("/p"), network.nodes["b"].to["d"].id)
    assert ask(network, consumer, 60) == 60
    assert sent(network)[0] <= 1 + 60 * 0.5 / PROBE_INTERVAL_S + 1


def test_a_probe_is_no_loop_where_the_ways_meet() -> None:
    """A probe has a nonce of its own: the node where both ways meet answers both, and nobody hears of a duplicate."""
    network, consumer, _ = diamond(ADAPTIVE)
    assert ask(network, consumer, 60) == 60
    assert sent(network)[1] >= 2
    assert network.nodes["d"].forwarder.counters.loops == 0
    nonces = {packet.decode_interest(wire).nonce for wire in network.nodes["a"].to["c"].sent}
    assert nonces.isdisjoint(packet.decode_interest(wire).nonce for wire in network.nodes["a"].to["b"].sent)


def test_adaptive_keeps_few_prefixes_in_mind(monkeypatch: pytest.MonkeyPatch) -> None:
    """However many prefixes are asked for, what is kept is bounded, and nothing of entries that are gone."""
    network, consumer, _ = diamond(ADAPTIVE)
    a = network.nodes["a"]
    monkeypatch.setattr(adaptive, "PREFIXES_MAX", 8)
    for number in range(30):
        a.route(f"/p/{number}", "b")
        consumer.ask(f"/p/{number}/x", lifetime_ms=100)
        network.run(0.01)
    network.run(1)
    strategy = a.forwarder._strategies[ADAPTIVE]
    assert isinstance(strategy, Adaptive)
    assert len(strategy._prefixes) == 8 and len(strategy._asked) == 0


def test_ranks() -> None:
    """What works comes first by its expected delay, losses counted in; then the untried; then what is down."""
    fast, lossy, untried, down = (Measurement() for _ in range(4))
    fast.on_answer(0.05, 0.0)
    lossy.on_answer(0.01, 0.0)
    lossy.on_loss(0.0)
    for _ in range(8):
        down.on_loss(0.0)
    assert fast.rank < lossy.rank < untried.rank < down.rank
    down.on_answer(0.01, 1.0)
    assert down.is_down
    down.on_answer(0.01, 1.0 + PROBE_INTERVAL_S)
    assert not down.is_down
