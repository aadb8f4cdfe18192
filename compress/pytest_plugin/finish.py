"""What is left to do when all tests have run: the conclusion, the reports, the baseline."""

from __future__ import annotations

from typing import Any

import pytest

from compress.errors import CompressError
from compress.gate.demands import Gap, describe
from compress.pytest_plugin.conclusion import CONCLUSION, Conclusion, conclude
from compress.pytest_plugin.html_session import HTML
from compress.pytest_plugin.options import COULD_NOT_MEASURE
from compress.pytest_plugin.run import PytestRun


def finish(session: pytest.Session, run: PytestRun) -> None:
    """Conclude a run, and write the reports and the baseline that were asked for.

    Args:
        session: of pytest, which has run its tests; its exit status becomes the run's.
        run: that the session was.
    """
    timings: Any = getattr(session.config, "_benchmarksession", None)
    only_timings = run.own_timings and bool(timings and timings.benchmarks)
    conclusion = session.config.stash[CONCLUSION] = conclude(run, only_timings=only_timings)
    session.exitstatus = run.exitstatus = conclusion.status(session.exitstatus)
    name = session.config.getoption("benchmark_save", None)
    if not run.gate_session().verdicts:
        if name and session.exitstatus == pytest.ExitCode.USAGE_ERROR:
            # Whoever asked for a baseline is told of the error; that there are no timings deserves no warning too.
            _record(session, run, name)
            timings.save = None
        return
    if not _write_report(session.config, run, conclusion):
        _fail(session)
    if name and not (_record(session, run, name) and timings.benchmarks):
        # A run whose baseline is refused stores no timings, and to have none of them deserves no warning.
        timings.save = None


def _fail(session: pytest.Session) -> None:
    """Turn a run that held into one that failed."""
    session.exitstatus = session.exitstatus or pytest.ExitCode.USAGE_ERROR


def _write_report(config: pytest.Config, run: PytestRun, conclusion: Conclusion) -> bool:
    """Write the reports that were asked for; whether all is well."""
    path, html = run.settings.report, config.stash[HTML]
    try:
        if path is not None:
            title = f"Compressed models: {conclusion.title}"
            run.gate_session().write_markdown(path, title=title, missing=conclusion.lines)
            _say(config, f"report written to {path}")
        if html is not None:
            html.write(run.gate_session(), title=conclusion.title, missing=conclusion.lines)
            _say(config, f"page written to {html.path}")
    except CompressError as error:
        _say(config, f"no report: {error}", red=True)
        return False
    return True


def _record(session: pytest.Session, run: PytestRun, name: str) -> bool:
    """Record the baseline if the whole run held; whether it did."""
    if session.exitstatus != pytest.ExitCode.OK:
        failed = session.testsfailed
        reason = f"{failed} test{'s' if failed > 1 else ''} failed" if failed else "the run was broken off"
        if not failed and session.exitstatus == COULD_NOT_MEASURE:
            reason = "something could not be measured"
        _say(session.config, f"baseline {name!r} NOT recorded: {reason}", red=True)
        return False
    try:
        recorded = run.gate_session().record(name, widen=run.settings.widen)
    except CompressError as error:
        _say(session.config, f"baseline {name!r} NOT recorded: {error}", red=True)
        _fail(session)
        return False
    path = recorded.path
    if recorded.replaced:
        _say(session.config, f"baseline {path} begun anew: {recorded.replaced}")
    _say(session.config, f"baseline {'recorded in' if recorded.changed else 'unchanged:'} {path}")
    skipped = [Gap(metric=metric, recipe=recipe, why=reason) for recipe, metric, reason in recorded.skipped]
    for line in describe(skipped):
        _say(session.config, f"  not recorded: {line}")
    return True


def _say(config: pytest.Config, line: str, *, red: bool = False) -> None:
    reporter = config.pluginmanager.getplugin("terminalreporter")
    if reporter is not None:
        reporter.ensure_newline()
        reporter.write_line(line, red=red)
