"""A network for each test; a failed test comes with the table of its links and the end of its trace."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from pathlib import Path

import pytest

from tests.simulation.network import Network, simulation


@pytest.fixture
def net(tmp_path: Path) -> Iterator[Network]:
    with simulation(tmp_path) as network:
        yield network


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Function, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    network = item.funcargs.get("net") if report.when == "call" and report.failed else None
    if isinstance(network, Network):
        report.sections.append(("simulation", network.report()))
    return report
