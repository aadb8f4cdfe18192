"""What may become of a test that is to hold a model, in words that pytest has none for."""

from __future__ import annotations

from enum import StrEnum

import pytest


class NotMeasured(pytest.fail.Exception):  # type: ignore[name-defined, misc]
    """What a test fails with that could not be measured: the model may be as good as ever."""

    # As pytest's own outcomes call themselves in a report.
    __module__ = "builtins"


class Outcome(StrEnum):
    """What became of a test, from best to worst."""

    PASSED = "passed"
    SKIPPED = "skipped"
    XFAILED = "xfailed"
    NOT_MEASURED = "not measured"
    FAILED = "failed"


WORST_LAST = tuple(Outcome)


def outcome_of(report: pytest.TestReport) -> Outcome | None:
    """What a report of one phase says; None where it leaves the test open."""
    if report.failed:
        return Outcome.NOT_MEASURED if getattr(report, "compress_not_measured", False) else Outcome.FAILED
    if report.skipped:
        return Outcome.XFAILED if hasattr(report, "wasxfail") else Outcome.SKIPPED
    return Outcome.PASSED if report.passed and report.when == "call" else None


def reason_of(report: pytest.TestReport) -> str:
    """Why it came to that, as far as the report knows; "" if it does not."""
    if hasattr(report, "wasxfail"):
        # Some versions of pytest say what they give.
        return str(report.wasxfail).removeprefix("reason: ")
    if report.skipped and isinstance(report.longrepr, tuple):
        return report.longrepr[2].removeprefix("Skipped: ")
    return "its process crashed" if report.when not in ("setup", "call", "teardown") else ""
