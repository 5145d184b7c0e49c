"""The bench itself: a row is measured on a real gateway and lands in table and JSON."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from bench import forwarder, measure, rows
from bench.gateways import ROOT

TINY = forwarder.Scale(runs=1, share=0.1, table_entries=1000)


@pytest.mark.parametrize("name", ["hit-unix-1300", "hit-udp-1300", "miss-unix-8000", "chain-tcp"])
def test_row_is_measured(name: str) -> None:
    """Everything that was asked for came back, and cost the gateway some time and the load tool less."""
    row = next(row for row in forwarder.ROWS if row.name == name)
    figure = rows.measure_row(row, TINY)
    assert figure.error == ""
    assert figure.figure is not None and figure.figure > 0
    run = figure.runs[0]
    assert run["nacks"] == 0 and run["answered"] > 1000
    assert 0 < run["cpu_us"] < 2000


def test_table_and_json_say_the_same(tmp_path: Path) -> None:
    """One row by its name: a line of Markdown with figure and target, and the JSON with every run."""
    target = tmp_path / "figures.json"
    command = [sys.executable, "bench/forwarder.py", "--quick", "--only", "hit-unix-window-1", "--json", str(target)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=100, check=True)
    report = json.loads(target.read_text())
    (figure,) = report["rows"]
    assert figure["name"] == "hit-unix-window-1" and len(figure["runs"]) == 3
    line = next(line for line in done.stdout.splitlines() if "window 1," in line)
    assert f"**{figure['figure']:.3g} µs**" in line
    assert ("| reached |" in line) == (figure["figure"] <= figure["target"])
    assert report["machine"]["cores"] == os.cpu_count()


def test_cpu_of_children_counts() -> None:
    """What a process's child has burnt is in its figure, while the child lives and afterwards."""
    burn = "import time\nwhile time.process_time() < 0.3: pass\n"
    script = (
        f"import subprocess, sys\nsubprocess.run([sys.executable, '-c', {burn!r}])\nprint('done', flush=True)\ninput()"
    )
    command = [sys.executable, "-c", script]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdin is not None and process.stdout is not None
        deadline = time.monotonic() + 20
        while measure.cpu(process.pid).total_s < 0.2:
            assert time.monotonic() < deadline
            time.sleep(0.05)
        process.stdout.readline()
        assert measure.cpu(process.pid).total_s >= 0.3
        process.stdin.close()
