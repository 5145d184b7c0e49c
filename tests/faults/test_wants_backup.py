"""A controller restored from an old backup: what nodes wait for, and what they report, goes on."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from controller.monitoring.intake import Intake
from gateway.forwarder.custody import Limits
from gateway.placement_client.session import Clock, EpochUnproven, Session, Verdict
from gateway.protocol import keys
from gateway.protocol.keys import Key
from tests.controller.fakes import Home, make_home, report, sign_report
from tests.forwarder.custody.want_world import NAMES, Place
from tests.forwarder.custody.want_world import World as Wanting
from tests.placement_client.conftest import NOW, YEAR_S, FakeBlobs, Shelf
from tests.placement_client.conftest import World as Deciding
from tests.simulation.network import simulation


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Home]:
    made = make_home(tmp_path / "c")
    yield made
    made.store.close()


CLOCK = Clock(NOW + 60, synchronized=True)


class Controller(Deciding):
    """As the placement client's tests have it, for the network of the simulation."""

    def __init__(self) -> None:
        self.network = NAMES
        self.anchor = Key.generate(NAMES.anchor)
        self.anchor_wire = self.anchor.certify(self.anchor.name, self.anchor.spki, NOW, YEAR_S, "self")
        self.shelf, self.blobs = Shelf(), FakeBlobs()
        self.controller = self.certified(NAMES.controller)
        self.provider = self.certified(NAMES.provider("upc"))
        self.shelf.put(self.anchor_wire)


def follow(controller: Controller, session: Session, wire: bytes) -> None:
    assert session.offer_head(wire, "controller", CLOCK) is Verdict.NEWER
    controller.complete(session)
    session.adopt()


def needed(session: Session) -> set[bytes]:
    return {need.ref.sha256 for need in session.blob_needs(lambda node: 0.0)}


def wanted(place: Place) -> set[bytes]:
    return {sha256 for wanter, sha256 in place.waits() if wanter == "a"}


def test_wants_outlive_a_controller_from_an_old_backup(tmp_path: Path) -> None:
    """Its old heads change nothing of what is waited for; a new epoch does, once the anchor has opened it.

    a ┄┄ f ┄┄ b: a is to run a service whose blobs b has.
    """
    controller = Controller()
    with simulation(tmp_path) as net:
        world = Wanting(net)
        limits = Limits(72 * 3600.0, 64 << 20)
        a, f, b = (world.place(name, limits) for name in "afb")
        world.link("a", "f")
        world.link("f", "b")
        session = controller.session("a")
        backup = controller.one_service(version=3, heads=("b",))
        follow(controller, session, controller.one_service(version=5, heads=("a", "b")))
        needs = session.blob_needs(lambda node: 0.0)
        assert len(needs) == 2
        for need in needs:
            b.node.store.add_bytes(controller.content(need.ref))
            a.want(need.ref, *need.holders)
        world.meet("a", "f", 2)
        assert wanted(f) == needed(session) == {need.ref.sha256 for need in needs}

        assert session.offer_head(backup, "controller", CLOCK) is Verdict.REFUSED
        assert session.rejected == {"older head": 1}
        a.custody.keep_only(needed(session))
        world.meet("f", "b", 4)
        world.meet("a", "f", 4)
        assert all(a.has(need.ref) for need in needs) and wanted(f) == set()

        lost = controller.blob(b"a layer that nobody has")
        a.want(lost)
        world.meet("a", "f", 2)
        moved_on = controller.head([], version=1, epoch=2)
        with pytest.raises(EpochUnproven) as caught:
            session.offer_head(moved_on, "controller", CLOCK)
        assert not session.add_epoch(controller.controller.sign(caught.value.name, b""), "controller")
        assert wanted(f) == {lost.sha256}
        assert session.add_epoch(controller.anchor.sign(caught.value.name, b""), "controller")
        follow(controller, session, moved_on)
        a.custody.keep_only(needed(session))
        world.meet("a", "f", 2)
        assert wanted(f) == wanted(a) == set()


def test_reports_outlive_a_controller_from_an_old_backup(home: Home) -> None:
    """The database is that of last month: the next report of every node is newer than what it holds, and is taken."""
    key = home.enrol("n1")
    taker = Intake(home.network, home.store, home.authority.trust.verify)
    assert taker.accept("n1", sign_report(home, key, report("n1", boot_id="1-x", sequence=5)), NOW).report is not None
    for boot_id, sequence in (("1-x", 900), ("4-x", 1), ("4-x", 2)):
        wire = sign_report(home, key, report("n1", boot_id=boot_id, sequence=sequence))
        assert taker.accept("n1", wire, NOW).report is not None, keys.parse(wire).name
    row = home.store.node("n1")
    assert row is not None and (row.boot_id, row.sequence, row.problem) == ("4-x", 2, "")
