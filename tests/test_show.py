"""Datasets as text for people."""

from gateway.show import render


def test_sentences_do_not_run_together() -> None:
    """A list of notes is one line each; a list of words stays in one."""
    text = render(
        "status", {"executor": {"notes": ["runtime a: none", "no container runtime"], "runtimes": ["x", "y"]}}
    )
    assert text.splitlines() == [
        "executor:",
        "  notes:",
        "    runtime a: none",
        "    no container runtime",
        "  runtimes: x y",
    ]


def test_wants_in_units_that_people_read() -> None:
    """Who waits for which blob, how much has come, since when and until when, and why it does not come."""
    rows = [
        {
            "blob": "5fbfe360cca37259" + "0" * 48,
            "wanter": "hub",
            "service": "camera",
            "size": 145_000_000,
            "arrived": 44_950_000,
            "state": "coming",
            "waiting_s": 250.0,
            "priority": 5,
            "expires_s": 72 * 3600.0,
            "coming_from": "pisuerga-7",
            "holders": ["repo"],
        },
        {
            "blob": "ca" * 32,
            "wanter": "sants-2",
            "size": 900,
            "state": "waiting",
            "holders": ["a", "b"],
            "problem": "no",
        },
    ]
    assert render("wants", rows).splitlines() == [
        "blob              for      service  size      come  state    since  prio  expires  from        problem",
        "5fbfe360cca37259  hub      camera   145.0 MB  31 %  coming   4 min  5     72 h     pisuerga-7",
        "cacacacacacacaca  sants-2           0.9 kB    0 %   waiting                        a b         no",
    ]
    assert render("wants", []) == "no wants"
