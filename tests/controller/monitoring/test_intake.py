from controller.monitoring.intake import Intake, stored_reports
from controller.monitoring.order import Order, compare
from gateway.protocol import codec, names
from tests.controller.fakes import NOW, Home, report, sign_report


def intake(home: Home) -> Intake:
    return Intake(home.network, home.store, home.authority.trust.verify)


def test_reports_are_ordered_by_boot_and_sequence() -> None:
    """Within a boot the sequence decides; a new boot id is newer, one seen before is old."""
    assert compare("b1", 1, None, 0, ()) is Order.NEWER
    assert compare("b1", 5, "b1", 4, ()) is Order.NEWER
    assert compare("b1", 4, "b1", 4, ()) is Order.SAME
    assert compare("b1", 3, "b1", 4, ()) is Order.OLDER
    assert compare("b2", 1, "b1", 900, {"b1"}) is Order.NEWER
    assert compare("b1", 999, "b2", 1, {"b1", "b2"}) is Order.OLDER


def test_newest_report_is_stored_and_a_replay_is_not(home: Home) -> None:
    """A report is taken once; older ones, of this boot or the last, change nothing and become the node's problem."""
    key, taker = home.enrol("n1"), intake(home)
    old = sign_report(home, key, report("n1", sequence=5, time=9e9))
    assert taker.accept("n1", old, NOW).report is not None
    assert taker.accept("n1", old, NOW).problem == "" and taker.accept("n1", old, NOW).report is None
    rebooted = sign_report(home, key, report("n1", boot_id="b2", sequence=1, time=0.0))
    assert taker.accept("n1", rebooted, NOW).report is not None
    assert "an older report came again" in taker.accept("n1", old, NOW).problem
    row = home.store.node("n1")
    assert row is not None and (row.boot_id, row.sequence) == ("b2", 1) and "older report" in row.problem
    assert [r.boot_id for r in home.store.history("n1")] == ["b2", "b1"]


def test_forged_reports_are_refused_by_name(home: Home) -> None:
    """Another node's signature, another node's content, rubbish, and no signature: none is stored, each is named."""
    mine, theirs, taker = home.enrol("n1"), home.enrol("n2"), intake(home)
    forged = theirs.sign(home.network.report("n1") + names.version(1), codec.encode(report("n1")))
    speaks_for_other = mine.sign(home.network.report("n1") + names.version(1), codec.encode(report("n2")))
    elsewhere = mine.sign(home.network.node("n1") + names.component("record"), codec.encode(report("n1")))
    rubbish = mine.sign(home.network.report("n1") + names.version(1), b"\xff")
    damaged = sign_report(home, mine, report("n1"))[:-1] + b"\0"
    for wire, says in (
        (forged, "may not say this"),
        (speaks_for_other, "speaks for 'n2'"),
        (elsewhere, "is no report"),
        (rubbish, "not CBOR"),
        (damaged, "signature is wrong"),
        (b"\x06\x00", "Data packet"),
    ):
        assert says in taker.accept("n1", wire, NOW).problem
    row = home.store.node("n1")
    assert row is not None and row.report is None and row.problem


def test_stored_reports_come_back_and_damaged_ones_are_named(home: Home) -> None:
    """After a restart the last reports are there; one that cannot be read costs its node only."""
    key = home.enrol("n1")
    home.enrol("n2")
    intake(home).accept("n1", sign_report(home, key, report("n1")), NOW)
    home.store.save_report("n2", "b", 1, b"\xff", NOW)
    assert stored_reports(home.store) == {"n1": report("n1")}
    row = home.store.node("n2")
    assert row is not None and "cannot be read" in row.problem
