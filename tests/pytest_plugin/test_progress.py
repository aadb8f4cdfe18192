from __future__ import annotations

import io
import re
from types import SimpleNamespace

import pytest

from compress.errors import CompressError
from compress.pytest_plugin.progress import RunProgress
from compress.system.progress import track
from tests.asleep_project import TESTS, make_asleep_project

A, B, C = "t.py::test_macs[one]", "t.py::test_time[one]", "t.py::test_macs[two]"
RECIPES = {A: "one", B: "one", C: "two", "t.py::test_time[two]": "two"}


class Reporter:
    """As much of pytest's reporter as is written to."""

    def __init__(self, *, terminal):
        self.text = ""
        self.isatty = lambda: terminal
        self._tw = SimpleNamespace(fullwidth=60)
        self.config = SimpleNamespace(cache=None)
        self.showfspath = None

    def write(self, text, **_how):
        self.text += text

    def write_line(self, line, *, red=False):
        self.text += f"{line}{' in red' if red else ''}\n"

    def ensure_newline(self):
        pass


def progress_of(*, terminal=True, **values):
    """A progress and what it is written with."""
    reporter = Reporter(terminal=terminal)
    return RunProgress(reporter=reporter, recipes=RECIPES, clock=lambda: 100.0, **values), reporter


def report(nodeid, seconds, outcome="passed"):
    """What a test's only phase came to."""
    return pytest.TestReport(
        nodeid=nodeid, location=("", 0, ""), keywords={}, outcome=outcome, longrepr=None, when="call", duration=seconds
    )


def run(progress, nodeid, seconds, outcome="passed"):
    """Run a test."""
    progress.pytest_runtest_logstart(nodeid)
    progress.pytest_runtest_logreport(report(nodeid, seconds, outcome))
    progress.pytest_runtest_logfinish(nodeid)


def shown(reporter):
    """What a terminal shows in the end, line by line."""
    lines = [""]
    for part in re.findall(r"[\r\n]|[^\r\n]+", reporter.text):
        if part == "\n":
            lines.append("")
        elif part != "\r":
            lines[-1] = part + lines[-1][len(part) :]
    return [line.rstrip() for line in lines]


def test_a_terminal_shows_what_is_measured_now():
    """One line says the recipe, the criterion, how many tests, how long it took, and soon how long is left."""
    progress, reporter = progress_of()
    progress.pytest_runtest_logstart(A)
    assert shown(reporter) == ["one (1 of 2): macs, test 1 of 4, 0:00"]
    progress.pytest_runtest_logreport(report(A, 2.0))
    progress.pytest_runtest_logfinish(A)
    run(progress, B, 60.0)
    progress.pytest_runtest_logstart(C)
    assert shown(reporter) == [
        "one: 2 passed in 1:02, about 1:02 left",
        "two (2 of 2): macs, test 3 of 4, 0:00, about 1:02 left",
    ]
    assert max(map(len, shown(reporter))) < 60


def test_what_a_test_took_the_last_time_is_how_long_it_will_take():
    """The next run knows from its first test on how long it will last."""
    progress, reporter = progress_of(expected=dict.fromkeys(RECIPES, 10.0))
    progress.pytest_runtest_logstart(A)
    assert shown(reporter)[-1].endswith("about 0:40 left")
    run(progress, A, 1.0)
    stored = {}
    reporter.config.cache = SimpleNamespace(set=stored.__setitem__)
    progress.pytest_sessionfinish()
    assert stored["compress/seconds"] == {**dict.fromkeys(RECIPES, 10.0), A: 1.0}


def test_a_log_has_lines_and_nothing_is_written_over():
    """Where no terminal is, each step that is taken has a line, and each recipe, in red if a test of it failed."""
    progress, reporter = progress_of(terminal=False)
    progress.pytest_runtest_logstart(A)
    with progress.working("compressing"):
        progress.step("step 1 of 1, fit")
    progress.pytest_runtest_logreport(report(A, 2.0, "failed"))
    progress.pytest_runtest_logfinish(A)
    run(progress, B, 1.0)
    assert reporter.text.splitlines() == [
        "one (1 of 2): step 1 of 1, fit, test 1 of 4, 0:00",
        "one: 1 failed (macs), 1 passed in 0:03, about 0:03 left in red",
    ]


def test_bars_show_below_what_is_done(monkeypatch):
    """While a model is made the step stands above the bar of how far it is, and an error ends both."""
    stream = io.StringIO()
    stream.isatty = lambda: True
    monkeypatch.setattr("sys.stderr", stream)
    monkeypatch.setenv("TERM", "xterm-256color")
    progress, _ = progress_of()
    progress.pytest_runtest_logstart(A)

    def work():
        with progress.working("compressing"):
            progress.step("step 2 of 3, fit")
            for _ in track(range(2), "evaluating", shown=True):
                pass
            raise CompressError("no steam")

    with pytest.raises(CompressError):
        work()
    text = stream.getvalue()
    assert text.index("step 2 of 3, fit, test 1 of 4") < text.index("evaluating")
    progress.step("step 3 of 3, quantize")


def test_a_failure_keeps_its_word_in_pytests_own_summary(pytester, monkeypatch):
    """Letters and files are replaced while tests run, other tests are shown as ever, and the summary stays whole."""
    project = make_asleep_project(pytester, monkeypatch)
    project.write_recipe("other", {"num_params": "max_ratio = 0.4", "cpu_peak_bytes": "max_ratio = 0.6"})
    project.write_tests(f"{TESTS}\ndef test_plain():\n    pass\n")
    lines = pytester.runpytest_inprocess("benchmarks", "-p", "no:hypothesispytest").outlines
    assert any(re.fullmatch(r"half: 2 passed in 0:0\d(, about 0:0\d left)?", line) for line in lines)
    assert any(re.fullmatch(r"other: 1 failed \(num_params\), 1 passed in 0:0\d", line) for line in lines)
    assert any(line.startswith("benchmarks/test_mine.py .") for line in lines)
    assert any(line.startswith("FAILED benchmarks/test_mine.py::test_num_params[other]") for line in lines)


@pytest.mark.parametrize("option", ["-v", "-q", "-s"])
def test_who_asks_pytest_for_more_or_less_has_it(pytester, monkeypatch, option):
    """Its own way of showing tests is left as it is then."""
    make_asleep_project(pytester, monkeypatch)
    lines = pytester.runpytest_inprocess("benchmarks", "-p", "no:hypothesispytest", option).outlines
    assert not any(line.startswith("half: ") for line in lines)
