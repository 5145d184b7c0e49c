"""With CI=true a skipped test is a failed one: nothing may pass there by not running."""

import os
from collections.abc import Generator

import pytest

CI = os.environ.get("CI", "").lower() in ("1", "true", "yes")


def refuse_skip(report: pytest.TestReport | pytest.CollectReport) -> None:
    """Makes a skip a failure that says why it would have been skipped; an expected failure is none."""
    if CI and report.skipped and not hasattr(report, "wasxfail"):
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else report.longrepr
        report.outcome = "failed"
        report.longrepr = f"skipped with CI=true: {reason}"


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    refuse_skip(report)
    return report


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report() -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    report = yield
    refuse_skip(report)
    return report
