"""Whatever bytes come from the network, nothing but a refusal comes of them."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from subprocess import CompletedProcess

import pytest

from tests.fuzz import fuzz
from tests.fuzz.targets import TARGETS

# A look a minute long in all would be too dear on every change; `make fuzz` gives each target a million inputs.
SECONDS = 1
MILLION = 1_000_000


@pytest.fixture(scope="module")
def outcomes() -> dict[str, CompletedProcess[str]]:
    """Every target's run, as many at a time as there are processors."""
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        runs = {target: pool.submit(fuzz.run, target, MILLION, SECONDS, 1) for target in TARGETS}
    return {target: run.result() for target, run in runs.items()}


@pytest.mark.parametrize("target", TARGETS)
def test_hostile_bytes_are_refused_or_understood(target: str, outcomes: dict[str, CompletedProcess[str]]) -> None:
    """A second of inputs, each grown from those that reached new code, finds no exception, hang or leak."""
    done = outcomes[target]
    assert done.returncode == 0, done.stderr[-12_000:]
    assert int(fuzz.outcome(done).split()[0]) > 100


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("target", TARGETS)
def test_a_million_hostile_inputs(target: str) -> None:
    """The same for a million inputs, for fewer where each takes long."""
    done = fuzz.run(target, int(MILLION * TARGETS[target].share), 0, seed=2)
    assert done.returncode == 0, done.stderr[-12_000:]


@pytest.mark.parametrize("unguided", [False, True])
def test_defect_is_found(unguided: bool) -> None:
    """A decoder that fails on some inputs is found, and the input that did it is shown."""
    done = fuzz.run("defect", MILLION, 20, seed=1, unguided=unguided)
    assert done.returncode != 0
    assert "finding in defect: 06" in done.stderr
    assert "IndexError" in done.stderr
