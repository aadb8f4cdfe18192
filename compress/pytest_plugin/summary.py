"""What a run shows at its end, below all that pytest says: the last thing on the screen is what it came to."""

from __future__ import annotations

from typing import Any

import pytest

from compress.gate.verdict import models_compared
from compress.pytest_plugin.conclusion import CONCLUSION
from compress.pytest_plugin.run import PytestRun
from compress.report.screen import Screen
from compress.report.terminal import render_terminal


def show(reporter: pytest.TerminalReporter, run: PytestRun) -> None:
    """Write the screen of a run that has ended; nothing if there is nothing to say."""
    session, conclusion = run.gate_session(), reporter.config.stash.get(CONCLUSION, None)
    if conclusion is None or not (session.verdicts or conclusion.lines):
        return
    where, records = session.provenance, reporter.config.getoption("benchmark_save", None) or ""
    screen = Screen(
        verdicts=session.verdicts,
        workload=where.workload if where else "",
        environment=where.environment if where else None,
        identity=models_compared(session.verdicts),
        title=conclusion.title,
        exit_status=run.exitstatus,
        compares=bool(run.compare or records),
        records=records,
        hidden=conclusion.hidden,
        gaps=conclusion.gaps,
        excused=conclusion.excused,
        notes=conclusion.notes,
    )
    writer = reporter._tw
    verbose = reporter.config.get_verbosity() > 0
    reporter.section("compressed models")
    reporter.write(render_terminal(screen, width=writer.fullwidth, color=writer.hasmarkup, verbose=verbose))


def hush_timings(config: pytest.Config, run: PytestRun) -> None:
    """Leave pytest-benchmark's table of times out where it shows nothing but ours, which are in our table as ratios."""
    timings: Any = getattr(config, "_benchmarksession", None)
    asked = any(config.getoption(name, None) for name in ("benchmark_histogram", "benchmark_cprofile"))
    if timings is None or asked or config.get_verbosity() > 0:
        return
    timings.quiet = timings.quiet or all(one.fullname in run.gate_session().judged for one in timings.benchmarks)
