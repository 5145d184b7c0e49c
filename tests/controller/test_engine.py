import json
from contextlib import closing

import pytest

from controller import authority, workspace
from controller.engine import Engine, View
from controller.errors import ControllerError
from controller.repository.publication import Publication
from controller.repository.service_file import ServiceFile
from gateway.protocol import codec, keys
from gateway.protocol.messages import BlobRef, Hardware, Head, NodeReport, Section, ServiceStatus
from tests.controller.fakes import NOW, Home, report

BLOB = BlobRef(b"\1" * 32, 1, b"\2" * 32)
DAY = 86400.0
# When a decision of NOW has been rested from.
LATER = NOW + 60.0


class Network:
    """A line origin - a - b - c whose links carry what `rates` says, and the engine that sees it."""

    def __init__(self, home: Home, engine: Engine) -> None:
        self.home, self.engine = home, engine
        self.rates = {("origin", "a"): 10.0, ("a", "b"): 8.0, ("b", "c"): 6.0}
        self.statuses: dict[str, ServiceStatus] = {}
        self.machines: dict[str, str] = {}
        self.crash_loops: set[tuple[str, str]] = set()

    def reports(self, *without: str) -> dict[str, NodeReport]:
        found = {}
        for node in ("origin", "a", "b", "c"):
            links = {
                other: mbps for pair, mbps in self.rates.items() if node in pair for other in pair if other != node
            }
            status = (self.statuses[node],) if node in self.statuses else ()
            if node not in without:
                hardware = Hardware(architecture=self.machines.get(node, ""))
                found[node] = report(node, links, services=status, hardware=hardware)
        return found

    def view(self, *lost: str) -> View:
        return View(self.reports(*lost), dict.fromkeys(lost, 99.0), frozenset(self.crash_loops))

    def decide(self, *lost: str, after_s: float = 0.0) -> Head | None:
        return self.engine.decide(self.view(*lost), "test", NOW + after_s)

    def crash(self, node: str) -> None:
        """Has a node report that the service ended again and again."""
        reason = "it ended with exit code 1; next try in 241 s"
        self.statuses[node] = ServiceStatus("web", 1, "crash-loop", reason=reason)
        self.crash_loops.add((node, "web"))

    def deploy(self, name: str = "web", platform: str = "", **fields: object) -> None:
        from controller.repository.deployment import deploy

        self.home.store.publish("img:1", codec.encode(Publication("img:1", BLOB, (BLOB,), platform)), NOW)
        wanted = ServiceFile.model_validate({"name": name, "image": "img:1", "replicas": 2} | fields)
        deploy(self.home.store, self.home.authority, wanted, NOW)

    def section(self, service: str = "web") -> Section:
        rows = [codec.decode(Section, d.section) for d in self.home.store.decisions()]
        return next(row for row in rows if row.service == service)

    def heads(self) -> set[str]:
        return {head.node for head in self.section().heads}

    def notes(self) -> dict[str, object]:
        return dict(json.loads(self.home.store.decisions()[0].notes))


@pytest.fixture
def network(home: Home) -> Network:
    with closing(workspace.open_blobs(home.settings)) as blobs:
        engine = Engine(home.authority, home.store, blobs, "origin", "", 7 * DAY)
        yield Network(home, engine)


def test_decision_is_signed_and_its_sections_are_blobs(network: Network) -> None:
    """The head verifies as the controller's, and each section it names is in the blob store under its hash."""
    network.deploy()
    head = network.decide()
    assert head is not None and head.order == (1, 1)
    row = network.home.store.head()
    assert row is not None
    packet = network.home.authority.trust.verify(row.wire)
    assert packet.name == network.home.network.head_version(1, 1)
    (ref,) = codec.decode(Head, packet.content).sections
    content = network.engine._blobs.path(ref.blob.sha256).read_bytes()  # type: ignore[attr-defined]
    section = codec.decode(Section, content)
    assert section == network.section() and len(section.heads) == 2
    spec = keys.parse(network.home.store.services()[0].wire)
    assert (section.specification, section.specification_digest) == (spec.name, spec.digest)


def test_nothing_new_makes_no_new_head(network: Network) -> None:
    """The same view again, and one whose figures moved a little, leave the head as it is."""
    network.deploy()
    assert network.decide() is not None
    assert network.engine.reason_to_look(network.view()) == ""
    assert network.decide() is None
    network.rates[("a", "b")] = 8.5
    assert network.engine.reason_to_look(network.view(), LATER) == ""
    assert network.decide() is None


def test_looking_at_changed_links_takes_little_of_the_time(network: Network) -> None:
    """After a decision they are no reason for twenty times as long as that took; a lost node is one at any time."""
    network.deploy()
    network.decide()
    network.rates[("a", "b")] = 80.0
    assert network.engine.reason_to_look(network.view(), NOW) == ""
    assert network.engine.reason_to_look(network.view("c"), NOW) == "lost c"
    assert "links changed" in network.engine.reason_to_look(network.view(), LATER)
    assert "links changed" in network.engine.reason_to_look(network.view(), NOW - DAY)  # the clock was set back


def test_lost_head_is_replaced_at_once(network: Network) -> None:
    """A head that is not heard any more is no head in the next decision, and the reason is kept."""
    network.deploy()
    network.decide()
    gone = sorted(network.heads() - {"origin"})[0]
    assert network.engine.reason_to_look(network.view(gone)) == f"lost {gone}"
    head = network.decide(gone)
    assert head is not None and head.order == (1, 2)
    assert gone not in network.heads() and len(network.heads()) == 2
    assert "not heard for 99 s" in str(network.notes()["refused"])


def test_controller_that_is_cut_off_moves_nothing(network: Network) -> None:
    """When most nodes fall silent at once, the decision stays: it is more likely we who are away."""
    network.deploy()
    network.decide()
    before = network.section()
    assert network.engine.reason_to_look(network.view("a", "b", "c")) == ""
    assert network.decide("a", "b", "c") is None
    assert network.section() == before
    assert "cut off" in str(network.notes()["kept"])


def test_service_with_volumes_stays_with_a_silent_head(network: Network) -> None:
    """Silence alone moves no service that writes to volumes: two writers would be worse than none."""
    network.deploy(volumes=["data"])
    network.decide()
    gone = sorted(network.heads() - {"origin"})[0]
    before = network.heads()
    network.decide(gone)
    assert network.heads() == before and "may still write" in str(network.notes()["kept"])


def test_measured_bandwidth_moves_a_service(network: Network) -> None:
    """When the link to a head collapses and stays so, the service moves after so many looks, each asked for in time."""
    network.deploy(replicas=1)
    network.decide()
    before = network.heads()
    for pair in network.rates:
        network.rates[pair] = 0.1 if before & set(pair) else 50.0
    assert "links changed" in network.engine.reason_to_look(network.view(), LATER)
    rules = network.engine.rules
    for at in range(1, rules.rounds + 1):
        due_s = at * rules.apart_s
        assert network.decide(after_s=due_s - 10.0) is None and network.heads() == before
        assert network.engine.reason_to_look(network.view(), NOW + due_s - 9.0) == ""
        assert "looked at again" in network.engine.reason_to_look(network.view(), NOW + due_s)
        moved = network.decide(after_s=due_s)
    assert moved is not None and network.heads() != before
    assert network.engine.reason_to_look(network.view(), NOW + 10 * due_s) == ""


def test_better_placement_is_remembered_over_a_restart(network: Network) -> None:
    """A controller that restarts between two looks goes on counting, by the notes beside the decision."""
    network.deploy(replicas=1)
    network.decide()
    before, home, apart_s = network.heads(), network.home, network.engine.rules.apart_s
    for pair in network.rates:
        network.rates[pair] = 0.1 if before & set(pair) else 50.0
    for at in range(1, network.engine.rules.rounds + 1):
        assert network.heads() == before
        network.engine = Engine(home.authority, home.store, network.engine._blobs, "origin", "", 7 * DAY)
        network.decide(after_s=at * apart_s)
    assert network.heads() != before


def test_past_of_a_link_counts(network: Network) -> None:
    """What a link fell short of in one hour of ten is all that is counted on, and its better moments are no news."""
    for node in ("a", "b"):
        network.home.store.add_node(node, b"", 0.0)
    for at in range(10):
        content = codec.encode(report("b", {"a": 2.0}, sequence=at))
        network.home.store.save_report("b", "b0", at, content, NOW - 3600.0 * (at + 0.5))
    for _ in network.engine.history.keep(NOW, 30.0):
        pass
    network.deploy(replicas=1)
    network.decide()
    assert network.engine._links["a", "b"] == 2.0 and network.engine._links["b", "a"] == 8.0
    network.rates["a", "b"] = 9.9
    assert network.engine.reason_to_look(network.view(), LATER) == ""


def test_services_of_one_decision_see_each_other(network: Network) -> None:
    """Two that are to be apart share no node, although neither was anywhere before; one that is removed leaves room."""
    only = {"exclude": ["origin", "c"]}
    network.deploy("db", replicas=1, constraints=only)
    network.deploy("web", replicas=2, constraints=only | {"apart": ["db"]})
    network.decide()
    db, web = ({head.node for head in network.section(name).heads} for name in ("db", "web"))
    assert db | web == {"a", "b"} and not db & web
    network.home.store.undeploy("db")
    network.decide()
    assert {head.node for head in network.section("web").heads} == {"a", "b"}


def test_new_version_stays_where_the_old_one_was(network: Network) -> None:
    """An update needs no move: the heads have most of the image already; a constraint it does not meet moves it."""
    network.deploy(replicas=1)
    network.decide()
    before = network.heads()
    network.rates[("a", "b")] = 8.4
    network.deploy(replicas=1, environment={"A": "1"})
    assert network.decide() is not None and network.heads() == before
    network.deploy(replicas=1, constraints={"exclude": sorted(before)})
    assert network.decide() is not None and network.heads() != before


def test_refusal_by_the_owner_is_respected_and_not_forgotten(network: Network) -> None:
    """A node that refuses is no head; after the service moved away it is not tried again with the same version."""
    network.deploy(replicas=1)
    network.decide()
    (first,) = network.heads()
    network.statuses[first] = ServiceStatus("web", 1, "refused", reason="provider main is not allowed")
    network.decide()
    assert first not in network.heads()
    del network.statuses[first]
    network.rates[("a", "b")] = 80.0
    network.decide()
    assert first not in network.heads()
    assert "provider main is not allowed" in str(network.notes()["refused"])
    network.deploy(replicas=1, environment={"A": "1"})
    network.decide()
    assert first not in network.notes()["refusals"]  # type: ignore[operator]


def test_refusal_is_a_reason_to_look(network: Network) -> None:
    """A head that refuses is replaced when its report comes, not when something else changes."""
    network.deploy(replicas=1)
    network.decide()
    (first,) = network.heads()
    network.statuses[first] = ServiceStatus("web", 1, "refused", reason="no")
    assert network.engine.reason_to_look(network.view(), NOW) == f"{first} refuses web"
    network.decide()
    assert network.engine.reason_to_look(network.view(), NOW) == ""


def test_service_leaves_a_node_where_it_crashes_and_does_not_come_back(network: Network) -> None:
    """A crash-loop counts as a refusal of that version, in words, also when the node says no more of it."""
    network.deploy(replicas=1)
    network.decide()
    (first,) = network.heads()
    network.crash(first)
    assert network.engine.reason_to_look(network.view(), NOW) == f"{first} is in a crash-loop with web"
    assert network.decide() is not None and first not in network.heads()
    refused = network.notes()["refused"]
    assert isinstance(refused, dict)
    assert refused[first] == "crash-loop: version 1 ended again and again there (it ended with exit code 1)"
    network.statuses[first] = ServiceStatus("web", 1, "running")  # its last moments there
    network.crash_loops.clear()
    network.decide()
    refused = network.notes()["refused"]
    assert isinstance(refused, dict) and first in refused and first not in network.heads()
    network.deploy(replicas=1, environment={"A": "1"})
    network.decide()
    assert network.notes()["crashes"] == {}


def test_service_that_crashes_everywhere_stays_where_it_is(network: Network) -> None:
    """Then the service is faulty, not the nodes: it is not taken away, and the nodes are named."""
    network.deploy(replicas=1, constraints={"exclude": ["origin", "c"]})
    network.decide()
    network.crash("a")
    network.crash("b")
    before = network.heads()
    network.decide()
    assert network.heads() == before
    assert network.notes()["problem"] == "crash-loop on every node that may run it: a, b"


def test_service_with_volumes_stays_where_it_crashes(network: Network) -> None:
    """Its data is there; the operator reads why it does not move."""
    network.deploy(replicas=1, volumes=["data"])
    network.decide()
    (first,) = network.heads()
    network.crash(first)
    network.decide()
    assert network.heads() == {first}
    assert network.notes()["problem"] == f"crash-loop on {first}; it stays where its volumes are"


def test_node_of_another_architecture_is_refused(network: Network) -> None:
    """An image for amd64 goes to a node that can run it, and each of the others is told from it in words."""
    network.machines = {"origin": "mips", "a": "aarch64", "b": "x86_64", "c": "armv7l"}
    network.deploy(replicas=2, platform="linux/amd64")
    network.decide()
    assert network.heads() == {"b"}
    refused = network.notes()["refused"]
    assert isinstance(refused, dict)
    assert set(refused) == {"origin", "a", "c"}
    assert refused["a"] == "has architecture aarch64, the image is for linux/amd64"


def test_figures_that_are_shown_are_those_of_now(network: Network) -> None:
    """A placement that was decided before anything was measured shows 0.0 Mbit/s only as long as that is so."""
    from controller import listings

    rates, network.rates = network.rates, {}
    network.deploy(replicas=1, constraints={"exclude": ["origin", "a", "c"]})
    network.decide()
    (head,) = listings.placement(network.home.store)["services"][0]["heads"]
    assert head["bandwidth_mbps"] == 0.0
    network.rates = rates
    network.decide()
    network.rates[("a", "b")] = 7.0
    network.decide()
    (head,) = listings.placement(network.home.store)["services"][0]["heads"]
    assert head["bandwidth_mbps"] == pytest.approx((7.0 + 7.0 + 6.0) / 3, abs=0.01)
    assert " 0.0 Mbit/s" not in head["reason"]


def test_lasting_problem_is_logged_once(network: Network, caplog: pytest.LogCaptureFixture) -> None:
    """A service that nobody may run is no news at the next look, and is again after it was well."""
    network.deploy()
    for _ in range(3):
        network.engine.decide(View({}), "test", NOW)
    assert caplog.text.count("web is placed nowhere") == 1


def test_fewer_nodes_than_replicas_runs_on_those_there_are(network: Network) -> None:
    """A service gets the heads that exist, with a note, and the rest when they come."""
    network.deploy(replicas=4, constraints={"exclude": ["origin"]})
    network.decide()
    assert network.heads() == {"a", "b", "c"} and "3 of 4 replicas" in str(network.notes()["problem"])


def test_service_that_nobody_may_run_is_told_and_does_no_harm(network: Network) -> None:
    """A constraint that nothing satisfies gives a section without heads; other services are placed."""
    network.deploy("impossible", constraints={"labels": ["submarine"]})
    network.deploy()
    assert network.decide() is not None
    assert network.section("impossible").heads == () and len(network.heads()) == 2


def test_no_node_heard_yet_is_no_decision_on_a_service(network: Network) -> None:
    """Before the first report a service is placed nowhere, and no section says so to anybody."""
    network.deploy()
    head = network.engine.decide(View({}), "start", NOW)
    assert head is not None and head.sections == ()
    assert "no node" in json.loads(network.home.store.meta("unplaced"))["web"]["problem"]


def test_new_network_has_a_head_at_once(network: Network) -> None:
    """Before any node is heard there is an empty head, so that whoever asks gets an answer; then it is no news."""
    nobody = View({})
    assert network.engine.reason_to_look(nobody) == "the network is new"
    head = network.engine.decide(nobody, "the network is new", NOW)
    assert head is not None and head.sections == () and network.engine.reason_to_look(nobody) == ""


def test_removed_service_leaves_the_head(network: Network) -> None:
    """After undeployment the next head has no section of the service."""
    network.deploy()
    network.decide()
    network.home.store.undeploy("web")
    head = network.decide()
    assert head is not None and head.sections == () and head.order == (1, 2)


def test_head_is_renewed_before_it_expires(network: Network) -> None:
    """At half its lifetime the same decision is signed again; the clock going back never shortens `issued`."""
    network.deploy()
    first = network.decide()
    assert first is not None and network.engine.renew(NOW + 3 * DAY) is None
    second = network.engine.renew(NOW + 4 * DAY)
    assert second is not None and second.sections == first.sections and second.order == (1, 2)
    assert second.expires == NOW + 11 * DAY
    network.home.store.undeploy("web")
    third = network.decide()
    assert third is not None and third.issued == second.issued


def test_raised_epoch_starts_new_versions_at_once(network: Network) -> None:
    """After the anchor raised the epoch the same decision is signed in it."""
    network.deploy()
    network.decide()
    network.home.authority.raise_epoch(5)
    head = network.decide()
    assert head is not None and head.order == (5, 1)


def test_revoked_node_is_named_in_the_next_head(network: Network) -> None:
    """The head carries the hash of the key's name, and the controller itself believes that key no more."""
    import hashlib

    from gateway.protocol.errors import TrustError

    home = network.home
    key = home.enrol("a")
    network.deploy()
    network.decide()
    row = home.store.node("a")
    assert row is not None and home.store.revoke_node("a", authority.key_hash(row.certificate))
    head = network.decide()
    assert head is not None and head.revocations == (hashlib.sha256(key.name).digest(),)
    assert network.decide() is None
    workspace.add_certificates(home.authority, home.store)
    with pytest.raises(TrustError, match="is revoked"):
        home.authority.trust.verify(key.sign(home.network.report("a"), b""))


def test_forged_specification_in_the_database_is_not_decided(network: Network) -> None:
    """A service that its provider did not sign is left out, however it came into the database."""
    from gateway.protocol.messages import ServiceSpec

    forger = keys.Key.load(network.home.settings.state_dir / "controller.key")
    spec = ServiceSpec("evil", 1, "main", BLOB, (BLOB,))
    name = network.home.network.service("main", "evil", 1)
    network.home.store.deploy("evil", 1, "main", forger.sign(name, codec.encode(spec)), NOW)
    head = network.decide()
    assert head is not None and head.sections == ()


def test_head_that_does_not_fit_is_an_error_and_the_last_one_stays(
    network: Network, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Too many services for one packet stop the decision with a message, not the controller."""
    network.deploy()
    network.decide()
    for at in range(6):
        network.deploy(f"{at:02}" + "x" * 60, replicas=1)
    monkeypatch.setattr(keys, "PACKET_MAX_BYTES", 900)
    with pytest.raises(ControllerError, match="a head of 7 sections is too large"):
        network.decide()
    monkeypatch.undo()
    head = network.engine.current()
    assert head is not None and head.order == (1, 1) and len(head.sections) == 1


def test_old_sections_are_removed_from_the_repository(network: Network, monkeypatch: pytest.MonkeyPatch) -> None:
    """What no kept head names any more takes no room for ever; what one still names stays."""
    from controller import store

    monkeypatch.setattr(store, "HEADS_KEPT", 2)
    network.deploy()
    blobs = []
    for nodes in ("origin", "a", "b", "c", "origin"):
        network.deploy(constraints={"exclude": [nodes]})
        head = network.decide()
        assert head is not None
        blobs.append(head.sections[0].blob.sha256)
    assert [network.engine._blobs.has(blob) for blob in blobs] == [False, False, False, True, True]
