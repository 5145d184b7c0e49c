"""What a run says at its end."""

from __future__ import annotations

import io
import json
import time
from pathlib import Path

import pytest
from rich.console import Console

from controller.demo import run
from controller.demo.plan import make_plan
from controller.demo.report import Answer, LinkBytes, PlacedReplica, Results, Screen, drawing

GOOD = Answer("service-a", "gw-1", 200, 12.0, "gw-2")
BAD = Answer("service-a", "", 0, 9.0, "gw-3", "[nobody] answers")


def full() -> Results:
    results = Results(nodes=8, cache_hits=30, cache_misses=90, bytes_sent_by_repository=10, bytes_delivered=30)
    results.placements = [PlacedReplica("service-a", "gw-1", "oci", "largest sum", 12.5)]
    results.bytes_per_link = [LinkBytes("gw-1", "gw-2", 1000, 400, 10.0, 9.5, 1.0)]
    results.http = [GOOD, BAD]
    return results


def test_the_json_has_the_documented_keys() -> None:
    """The JSON holds every documented figure, with rows as objects, and survives a file."""
    written = json.loads(json.dumps(full().to_json()))
    documented = {
        "nodes", "placements", "bytes_sent_by_repository", "bytes_per_link", "cache_hit_ratio", "http",
        "after_controller_loss", "after_reboot", "seconds",
    }  # fmt: skip
    assert documented <= set(written)
    assert set(written["placements"][0]) == {"service", "head", "runtime", "reason", "bandwidth_mbps"}
    assert {"service", "node", "status", "latency_ms"} <= set(written["http"][0])
    assert written["cache_hit_ratio"] == 0.25
    assert written["ok"] is True


def shown(results: Results) -> str:
    output = io.StringIO()
    screen = Screen(Console(file=output, width=140), time.monotonic())
    screen.answers(results.http)
    screen.links(results.bytes_per_link)
    screen.placements(results.placements)
    screen.verdict(results)
    return output.getvalue()


def test_the_verdict_is_clear() -> None:
    """Failures are named one by one under a line that says so; without one, the last line says that all worked."""
    results = full()
    assert "Everything worked" in shown(results)
    results.failures = ["service-a [gw-1] did not start"]
    text = shown(results)
    assert "FAILED" in text
    assert "service-a [gw-1] did not start" in text
    assert "Everything worked" not in text
    assert "[nobody] answers" in text


def test_the_drawing_shows_every_node() -> None:
    """Each gateway's number and the controller's sign stand in the drawing, except where two share a place."""
    text = drawing(make_plan(8, 7, "/n", "127.70.3", Path("/tmp")))
    assert "[C]" in text
    assert all(str(number) in text for number in range(8))
    assert max(len(line) for line in text.splitlines()) <= 80


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["--nodes", "2"], "--nodes is 2; 3 to 200"),
        (["--nodes", "999"], "--nodes is 999"),
        (["--services", "0"], "--services is 0"),
        (["--seed", "-1"], "--seed is -1"),
        (["--json", "/no/such/dir/x.json"], "/no/such/dir"),
        (["--keep", "/tmp"], "--keep /tmp: is not empty"),
    ],
)
def test_wrong_arguments_are_named_before_anything_starts(
    arguments: list[str], named: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Arguments out of range end with status 2 and a message with the value and what is accepted."""
    assert run.main(arguments) == 2
    assert named in capsys.readouterr().err
