"""Skips are allowed on a developer's machine only: a pytest plugin, named in pyproject.toml.

With TRACE_TEST_REQUIRE_ALL=1, as CI runs, a skipped test is a failure that says what was missing.
"""

import os
from collections.abc import Generator

import pytest

REQUIRE_ALL = "TRACE_TEST_REQUIRE_ALL"


def reason_of(report: pytest.TestReport | pytest.CollectReport) -> str:
    """What the skip said: pytest keeps (file, line, reason)."""
    if isinstance(report.longrepr, tuple):
        return report.longrepr[2].removeprefix("Skipped: ")
    return str(report.longrepr)


def fail_if_skipped(report: pytest.TestReport | pytest.CollectReport) -> None:
    if os.environ.get(REQUIRE_ALL) == "1" and report.skipped and not hasattr(report, "wasxfail"):
        reason = reason_of(report)
        report.outcome = "failed"
        report.longrepr = f"{REQUIRE_ALL}=1 and this would have been skipped, because: {reason}"


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    fail_if_skipped(report)
    return report


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report() -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    report = yield
    fail_if_skipped(report)
    return report
