"""Decisions on services, one after the other, over reports alone.

o ═══ a ═══ b ═══ c ═══ d      every link 10 Mbit/s each way unless a test says otherwise
"""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from typing import Any

import pytest

from controller.decisions import Wanted
from controller.monitoring.network import View
from controller.planner import Decided, Neighbour, Outcome, Planner, missing_mbit
from controller.replan import Rules
from controller.scene import Scene
from gateway.protocol.messages import BlobRef, Constraints, Hardware, Load, NodeReport, ServiceSpec
from tests.controller.fakes import report

NODES = "oabcd"
MANIFEST, LAYER = BlobRef(b"\1" * 32, 1_000, b"\2" * 32), BlobRef(b"\3" * 32, 9_999_000, b"\4" * 32)
RULES = Rules(rounds=2, apart_s=100.0, payback_s=100.0)


class World:
    """The line of nodes, what each reports, and the decisions so far."""

    def __init__(self) -> None:
        self.rates = dict.fromkeys(pairwise(NODES), 10.0)
        self.facts: dict[str, dict[str, Any]] = {node: {} for node in NODES}
        self.lost: set[str] = set()
        self.decided: dict[str, tuple[Wanted, Decided]] = {}

    def reports(self) -> dict[str, NodeReport]:
        found = {}
        for node in NODES:
            pairs = {pair: mbps for pair, mbps in self.rates.items() if node in pair and not self.lost & set(pair)}
            links = {pair[pair[0] == node]: mbps for pair, mbps in pairs.items()}
            if node not in self.lost:
                found[node] = report(node, links, **self.facts[node])
        return found

    def decide(self, wanted: Wanted, now: float = 0.0) -> Outcome:
        view = View(self.reports(), dict.fromkeys(self.lost, 99.0))
        planner = Planner("o", RULES, view, Scene(view), now)
        name, before = wanted.spec.name, self.decided.get(wanted.spec.name)
        others = [
            Neighbour(other.spec, tuple(head.node for head in decided.section.heads))
            for service, (other, decided) in self.decided.items()
            if service != name
        ]
        outcome = planner.decide(wanted, before[1] if before is not None else None, others)
        assert outcome.section is not None
        heads = {head.node for head in outcome.section.heads}
        is_same = before is not None and {head.node for head in before[1].section.heads} == heads
        since = before[1].since if before is not None and is_same else now
        self.decided[name] = wanted, Decided(outcome.section, outcome.notes, since)
        return outcome

    def heads(self, service: str = "web") -> list[str]:
        return [head.node for head in self.decided[service][1].section.heads]


@pytest.fixture
def world() -> World:
    return World()


def service(name: str = "web", replicas: int = 1, constraints: Constraints | None = None, **fields: Any) -> Wanted:
    wanted = ServiceSpec(name, 1, "main", MANIFEST, (LAYER,), replicas=replicas, memory_bytes=0, **fields)
    return Wanted(replace(wanted, constraints=constraints or Constraints()), b"\x08\x01s", b"d" * 32)


def test_decision_says_how_good_it_is(world: World) -> None:
    """The notes have the mean, the bound, the proof, and for each head who would replace it best."""
    outcome = world.decide(service())
    assert world.heads() == ["a"]
    notes = outcome.notes
    assert (notes["mean_bandwidth_mbps"], notes["bound_mbps"], notes["gap"], notes["proven"]) == (10.0, 10.0, 0.0, True)
    assert notes["runners_up"] == {"a": ["b", 10.0]} and notes["metric"] == "routed"
    assert notes["mean_of_cluster_means_mbps"] == 10.0 and notes["violations"] == {}


def test_every_decision_has_standbys_and_a_delivery_tree(world: World) -> None:
    """Heads and stand-bys know from whom to fetch the image, the stand-bys in order."""
    section = world.decide(service(replicas=2)).section
    assert section is not None and len(section.standbys) == 2
    parents = {head.node: head.parent for head in section.heads} | section.parents
    assert set(parents) == {*world.heads(), *section.standbys}
    assert all(parent in {"o", "", *parents} for parent in parents.values())


def test_service_keeps_off_what_others_take(world: World) -> None:
    """A node with memory for one of two services runs one of them."""
    for facts in world.facts.values():
        facts["hardware"] = Hardware(memory_bytes=128 << 20)
    big = service(), service("db")
    for wanted in big:
        world.decide(replace(wanted, spec=replace(wanted.spec, memory_bytes=100 << 20)))
    assert world.heads("db") != world.heads("web")
    assert "memory left" in world.decided["db"][1].notes["refused"][world.heads("web")[0]]


@pytest.mark.parametrize("who", ["web", "db"])
def test_services_that_are_to_be_apart_share_no_node(world: World, who: str) -> None:
    """Whichever of the two says so."""
    for name, other in (("web", "db"), ("db", "web")):
        world.decide(service(name, constraints=Constraints(apart=(other,) if name == who else ())))
    assert world.heads("db") != world.heads("web")
    assert "runs web, from which it is to be apart" in world.decided["db"][1].notes["refused"].values()


@pytest.mark.parametrize("who", ["web", "db"])
def test_components_with_traffic_are_placed_near_each_other(world: World, who: str) -> None:
    """Far from its members, a component pays for the path to the other only by what the two exchange."""
    world.rates = {("o", "a"): 10.0, ("a", "b"): 10.0, ("b", "c"): 2.0, ("c", "d"): 9.0}
    near = {"web": Constraints(near={"db": 5.0}) if who == "web" else Constraints()}
    near["db"] = Constraints(near={"web": 5.0}) if who == "db" else Constraints()
    world.decide(service("web", constraints=replace(near["web"], exclude=tuple("oab"))))
    assert world.heads("web")[0] in "cd"
    world.decide(service("db", constraints=near["db"]))
    assert world.heads("db") == world.heads("web")
    world.decided.pop("web")
    world.decided.pop("db")
    world.decide(service("db"))
    assert world.heads("db")[0] in "oab"


@pytest.mark.parametrize("algorithm", ["optimal", "greedy", "basp", "hanet", "random", "kmeans"])
def test_algorithm_is_the_services_choice(world: World, algorithm: str) -> None:
    """Each places and says in the section that it did; what does not suit it is told, not raised."""
    for facts in world.facts.values():
        facts["load"] = Load(cpu_percent=10.0, memory_available_bytes=1 << 30)
    outcome = world.decide(service(algorithm=algorithm))
    assert outcome.section is not None and outcome.section.algorithm == algorithm
    assert len(outcome.section.heads) == 1 and outcome.notes["gap"] is not None


# --- what is decided already ---------------------------------------------------------------------------------


def test_lost_head_is_replaced_and_the_others_stay(world: World) -> None:
    """Its stand-by takes its place, and says so; the stand-bys are complete again."""
    world.decide(service(replicas=2))
    first, second = world.heads()
    standby = world.decided["web"][1].section.standbys[0]
    world.rates = dict.fromkeys([("o", "b"), ("b", "d"), ("o", "d"), *world.rates], 10.0)
    world.lost = {second}
    section = world.decide(service(replicas=2)).section
    assert section is not None and world.heads() == [first, standby]
    assert section.heads[1].reason.startswith(f"takes the place of {second}, as its stand-by")
    assert len(section.standbys) == 2 and not set(section.standbys) & {first, standby, second}


def test_another_number_of_replicas_moves_nobody(world: World) -> None:
    """More of them join, fewer of them stay."""
    world.decide(service(replicas=2))
    two = world.heads()
    world.decide(service(replicas=3))
    assert world.heads()[:2] == two and len(world.heads()) == 3
    world.decide(service(replicas=1))
    assert len(world.heads()) == 1 and world.heads()[0] in (*two, *NODES)


def test_another_algorithm_is_followed_at_once(world: World) -> None:
    """It was the operator who asked."""
    world.decide(service())
    world.rates["a", "b"] = 1.0
    outcome = world.decide(service(algorithm="basp"), now=1.0)
    assert outcome.section is not None and outcome.section.algorithm == "basp" and world.heads() != ["a"]


def test_standbys_keep_their_turn(world: World) -> None:
    """They hold the image: new figures do not change their order, and who replaces a missing one comes last."""
    world.decide(service())
    before = world.decided["web"][1].section.standbys
    world.rates["c", "d"] = 11.0
    world.decide(service(), now=1.0)
    assert world.decided["web"][1].section.standbys == before
    world.lost = {before[0]}
    world.rates["a", "c"] = 10.0
    world.rates["o", "c"] = 10.0
    world.decide(service(), now=2.0)
    after = world.decided["web"][1].section.standbys
    assert after[0] == before[1] and len(after) == 2


def test_standby_that_is_busy_for_a_moment_stays_one(world: World) -> None:
    """The image is not carried elsewhere for it; one that the service excludes is none any more."""
    wanted = service(constraints=Constraints(minimum_free_cpu_percent=50.0))
    for facts in world.facts.values():
        facts["load"] = Load(cpu_percent=10.0)
    world.decide(wanted)
    before = world.decided["web"][1].section.standbys
    world.facts[before[0]]["load"] = Load(cpu_percent=97.0)
    world.decide(wanted, now=1.0)
    assert world.decided["web"][1].section.standbys == before
    world.decide(service(constraints=Constraints(exclude=before[:1])), now=2.0)
    assert before[0] not in world.decided["web"][1].section.standbys


def worse_for_a(world: World) -> None:
    world.rates = {("o", "a"): 1.0, ("a", "b"): 1.0, ("b", "c"): 10.0, ("c", "d"): 10.0}


def test_better_placement_is_taken_when_it_lasts(world: World) -> None:
    """After so many looks, with the reason of the first; until then the notes say what is waited for."""
    world.decide(service())
    worse_for_a(world)
    assert world.decide(service(), now=50.0).recheck == 100.0
    outcome = world.decide(service(), now=100.0)
    assert world.heads() == ["a"] and outcome.recheck == 200.0
    assert "may be better (+450%): so at 1 of 2 looks" in outcome.notes["waits"]
    assert not outcome.notes["proven"] and outcome.notes["gap"] == pytest.approx(4.5 / 5.5, abs=0.02)
    outcome = world.decide(service(), now=200.0)
    assert world.heads() == ["b"] and outcome.section is not None and "Mbit/s" in outcome.section.heads[0].reason
    assert "rival" not in outcome.notes and outcome.recheck == float("inf")


def test_better_placement_that_does_not_last_is_forgotten(world: World) -> None:
    """One bad hour of a link moves nothing."""
    before = dict(world.rates)
    world.decide(service())
    worse_for_a(world)
    world.decide(service(), now=100.0)
    world.rates = before
    assert "rival" not in world.decide(service(), now=200.0).notes
    assert world.heads() == ["a"]


def test_move_must_be_worth_the_image(world: World) -> None:
    """80 Mbit for 0.2 Mbit/s during 100 s are too much, unless the rival has the image already."""
    wanted = service()
    world.rates = dict.fromkeys(world.rates, 0.1)
    world.decide(wanted)
    world.rates = {pair: mbps / 10 for pair, mbps in world.rates.items() if "a" in pair} | {
        pair: mbps for pair, mbps in world.rates.items() if "a" not in pair
    }
    for at in range(1, 5):
        world.decide(wanted, now=at * 100.0)
    assert world.heads() == ["a"]
    for node in "bcd":
        world.facts[node]["blobs"] = (MANIFEST.sha256, LAYER.sha256)
    for at in range(5, 8):
        world.decide(wanted, now=at * 100.0)
    assert world.heads() != ["a"]


def test_what_is_missing_of_the_image_is_counted() -> None:
    """By blob and node, in Mbit."""
    reports = {"a": report("a", blobs=(MANIFEST.sha256,)), "b": report("b")}
    assert missing_mbit(service().spec, ["a", "b"], reports) == pytest.approx(79.992 + 80.0)


def test_service_with_volumes_does_not_move_for_bandwidth(world: World) -> None:
    """Its data would stay behind."""
    wanted = service(volumes=("data",))
    world.decide(wanted)
    worse_for_a(world)
    for at in range(1, 5):
        world.decide(wanted, now=at * 100.0)
    assert world.heads() == ["a"]


def test_guess_is_put_right_by_the_first_measurement(world: World) -> None:
    """Heads that were chosen when no link was known move as soon as one is."""
    rates, world.rates = world.rates, {}
    world.decide(service())
    assert world.heads() == ["a"]
    world.rates = {pair: mbps for pair, mbps in rates.items() if "a" not in pair}
    world.decide(service(), now=1.0)
    assert world.heads()[0] in "bcd"


def test_measured_heads_are_no_guess_after_a_blackout(world: World) -> None:
    """When every link was gone, the first that comes back moves nothing that was chosen by measurement."""
    world.decide(service())
    rates, world.rates = world.rates, {}
    world.decide(service(), now=1.0)
    world.rates = {("c", "d"): 10.0}
    world.decide(service(), now=2.0)
    assert world.heads() == ["a"]
    world.rates = rates
    world.decide(service(), now=3.0)
    assert world.heads() == ["a"] and not world.decided["web"][1].notes["is_guess"]


def test_head_that_is_busy_for_a_moment_stays(world: World) -> None:
    """A measured constraint moves a head when it fails at look after look, one that was written down at once."""
    wanted = service(constraints=Constraints(minimum_free_cpu_percent=50.0))
    for facts in world.facts.values():
        facts["load"] = Load(cpu_percent=10.0)
    world.decide(wanted)
    world.facts["a"]["load"] = Load(cpu_percent=97.0)
    world.facts["a"]["hardware"] = Hardware(cpus=4)
    world.decide(wanted, now=100.0)
    assert world.heads() == ["a"] and "of its CPU free" in world.decided["web"][1].notes["refused"]["a"]
    world.decide(wanted, now=200.0)
    assert world.heads() == ["b"]
    world.decide(replace(wanted, spec=replace(wanted.spec, constraints=Constraints(exclude=("b",)))), now=201.0)
    assert world.heads() != ["b"]


def test_service_does_not_drive_itself_away(world: World) -> None:
    """What it takes of its node's CPU is free for it."""
    wanted = service(constraints=Constraints(minimum_free_cpu_percent=50.0), cpu=0.5)
    for facts in world.facts.values():
        facts |= {"load": Load(cpu_percent=10.0), "hardware": Hardware(cpus=1)}
    world.decide(wanted)
    world.facts["a"]["load"] = Load(cpu_percent=70.0)
    for at in range(1, 5):
        world.decide(wanted, now=at * 100.0)
    assert world.heads() == ["a"] and "a" not in world.decided["web"][1].notes["refused"]


def test_missed_targets_are_told(world: World) -> None:
    """A member below the service's minimum is served all the same, and named."""
    world.rates["c", "d"] = 3.0
    outcome = world.decide(service(constraints=Constraints(minimum_bandwidth_mbps=5.0)))
    assert outcome.section is not None and outcome.section.members["d"] in world.heads()
    assert "3.0 Mbit/s" in outcome.notes["violations"]["d"]


def test_more_nodes_than_replicas_may_be_missing(world: World) -> None:
    """Heads that a crowd of refusals leaves are kept, and joined by others when they come."""
    tight = service(replicas=3, constraints=Constraints(exclude=("o", "c", "d")))
    world.decide(tight)
    assert sorted(world.heads()) == ["a", "b"]
    assert world.decide(tight, now=1.0).notes["problem"].startswith("2 of 3 replicas")
    world.decide(replace(tight, spec=replace(tight.spec, constraints=Constraints(exclude=("o", "c")))), now=2.0)
    assert sorted(world.heads()) == ["a", "b", "d"]


def test_rival_that_is_lost_is_no_rival(world: World) -> None:
    """Nobody waits for the word of a node that is not heard."""
    world.decide(service())
    worse_for_a(world)
    world.decide(service(), now=100.0)
    world.lost = {"b"}
    world.rates["c", "o"] = 5.0
    outcome = world.decide(service(), now=200.0)
    assert world.heads() == ["a"] and outcome.notes["rival"]["rounds"] == 1


def test_service_near_one_that_is_lost_is_placed_all_the_same(world: World) -> None:
    """A head that is not heard draws nobody."""
    world.decide(service("web", constraints=Constraints(exclude=tuple("oabc"))))
    world.lost = {"d"}
    world.decide(service("db", constraints=Constraints(near={"web": 5.0})))
    assert len(world.heads("db")) == 1 and "d" not in world.heads("db")
