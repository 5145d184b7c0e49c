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
