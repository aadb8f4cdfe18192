"""How far a run of the gate is: which recipe, what is done with it, how many tests, about how long still.

On a terminal one line says so and is written over, above the bars of whatever takes long; elsewhere there is a line for
each step that is taken and for what each recipe came to. It is written between measurements only: a clock that ticks
beside one would be measured too.
"""

from __future__ import annotations

import contextlib
import statistics
import time
from collections import Counter
from collections.abc import Callable, Generator, Iterator, Mapping
from dataclasses import dataclass, field

import pytest

from compress.pytest_plugin.outcomes import Outcome, outcome_of

# Where pytest keeps from one run to the next how long each test took.
_CACHE = "compress/seconds"
_BAD = (Outcome.FAILED, Outcome.NOT_MEASURED)
_BAD_FIRST = (*_BAD, Outcome.PASSED, Outcome.XFAILED, Outcome.SKIPPED)


@dataclass(kw_only=True, eq=False)
class RunProgress:
    """Shows the tests of the gate in place of pytest's files and letters; a plugin of its own.

    Attributes:
        reporter: what it is written with.
        recipes: node id to the recipe of each test that is shown.
        expected: node id to how many seconds a test took the last time.
        seconds: node id to how many it took this time.
        done: recipe to the tests that ended, by what became of them.
        current: node id of the test that runs or ran last, "" before the first.
        clock: seconds from whenever.
    """

    reporter: pytest.TerminalReporter
    recipes: Mapping[str, str]
    expected: Mapping[str, float] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)
    done: dict[str, dict[str, Outcome]] = field(default_factory=dict)
    current: str = ""
    clock: Callable[[], float] = time.monotonic
    _running: str = ""
    _retitle: Callable[[str], None] | None = None
    _began: float = field(init=False)

    def __post_init__(self) -> None:
        self._began = self.clock()

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_logstart(self, nodeid: str) -> None:
        """Say what is measured now, and keep pytest from naming its file."""
        ours = nodeid in self.recipes
        self.reporter.showfspath = False if ours else None
        self._erase()
        if ours:
            self.current = self._running = nodeid
            self.reporter.ensure_newline()
            if self.reporter.isatty():
                self.reporter.write(self._status(_function(nodeid))[: self._width], flush=True)

    @pytest.hookimpl(wrapper=True)
    def pytest_report_teststatus(
        self, report: pytest.CollectReport | pytest.TestReport
    ) -> Generator[None, tuple[str, str, object], tuple[str, str, object]]:
        """Let pytest count a test that runs without writing a letter for it; later it needs the word."""
        category, letter, word = yield
        return (category, "", "") if report.nodeid == self._running else (category, letter, word)

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Add up how long a test's phases took, and keep the worst that became of it."""
        if report.nodeid in self.recipes:
            self.seconds[report.nodeid] = self.seconds.get(report.nodeid, 0.0) + report.duration
            outcome = outcome_of(report)
            if outcome is not None:
                self.done.setdefault(self.recipes[report.nodeid], {})[report.nodeid] = outcome

    def pytest_runtest_logfinish(self, nodeid: str) -> None:
        """Say what a recipe came to once its last test has run."""
        self._running = ""
        recipe = self.recipes.get(nodeid)
        if recipe is None or any(name == recipe and test not in self.seconds for test, name in self.recipes.items()):
            return
        self._erase()
        bad = [test for test, outcome in self.done[recipe].items() if outcome in _BAD]
        self.reporter.write_line(self._result(recipe), red=bool(bad))

    @pytest.hookimpl(tryfirst=True)
    def pytest_sessionfinish(self) -> None:
        """Keep how long each test took, for the next run to know."""
        self._erase()
        cache = getattr(self.reporter.config, "cache", None)
        if cache is not None:
            cache.set(_CACHE, {**self.expected, **{test: round(took, 2) for test, took in self.seconds.items()}})

    @contextlib.contextmanager
    def working(self, what: str) -> Iterator[None]:
        """Show ``what`` is done while it takes long and is no measurement; bars of its own are shown below."""
        if not self.reporter.isatty():
            yield
            return
        from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

        from compress.system.progress import stderr_console

        self._erase()
        doing, left = (
            TextColumn(text, markup=False) for text in ("{task.description},", self._left().removeprefix(", "))
        )
        columns = (SpinnerColumn("line"), doing, TimeElapsedColumn(), left)
        with Progress(*columns, console=stderr_console(), get_time=self.clock, transient=True) as bar:
            task = bar.add_task(self._doing(what))
            # The time that is shown is the run's.
            bar.tasks[task].start_time = self._began
            self._retitle = lambda what: bar.update(task, description=self._doing(what))
            try:
                yield
            finally:
                self._retitle = None

    def step(self, what: str) -> None:
        """Say which step is taken now to make the model of the current recipe."""
        if self._retitle is not None:
            self._retitle(what)
        else:
            self.reporter.write_line(self._status(what))

    @property
    def _width(self) -> int:
        # A terminal may break the line that its last column is written in.
        return self.reporter._tw.fullwidth - 1

    def _erase(self) -> None:
        if self.reporter.isatty():
            self.reporter.write("\r" + " " * self._width + "\r", flush=True)

    def _status(self, what: str) -> str:
        """``compose (1 of 6): fit, test 1 of 96, 0:12, about 3:10 left``."""
        return f"{self._doing(what)}, {_clock(self.clock() - self._began)}{self._left()}"

    def _doing(self, what: str) -> str:
        names = list(dict.fromkeys(self.recipes.values()))
        recipe = self.recipes.get(self.current, "")
        which = f"{recipe} ({names.index(recipe) + 1} of {len(names)}): " if recipe else ""
        begun = self.recipes.keys() & {*self.seconds, self.current}
        return f"{which}{what}, test {max(1, len(begun))} of {len(self.recipes)}"

    def _result(self, recipe: str) -> str:
        """``compose: 11 passed, 5 skipped in 0:38, about 3:10 left``, with the names of what failed."""
        counts = Counter(self.done[recipe].values())
        parts = []
        for outcome in _BAD_FIRST:
            if counts[outcome]:
                bad = outcome in _BAD
                tests = [_function(test) for test, became in self.done[recipe].items() if became is outcome]
                parts.append(f"{counts[outcome]} {outcome}" + (f" ({', '.join(tests)})" if bad else ""))
        took = sum(took for test, took in self.seconds.items() if self.recipes[test] == recipe)
        return f"{recipe}: {', '.join(parts)} in {_clock(took)}{self._left()}"

    def _left(self) -> str:
        """How long the tests that are to run will take; nothing before anything is known of each of them."""
        known: dict[str, list[float]] = {}
        for test, took in self.seconds.items():
            known.setdefault(_function(test), []).append(took)
        left = 0.0
        for test in self.recipes.keys() - self.seconds.keys():
            alike = known.get(_function(test))
            if test not in self.expected and alike is None:
                return ""
            left += self.expected[test] if test in self.expected else statistics.fmean(alike or ())
        return f", about {_clock(left)} left" if left else ""


def shown_progress(config: pytest.Config, recipes: Mapping[str, str]) -> RunProgress | None:
    """What shows these tests of a run, node id to recipe; None where pytest does as it was asked to."""
    reporter = config.pluginmanager.getplugin("terminalreporter")
    if reporter is None or not recipes or config.get_verbosity() != 0 or config.getoption("capture") == "no":
        return None
    cache = getattr(config, "cache", None)
    known = cache.get(_CACHE, {}) if cache is not None else {}
    return RunProgress(reporter=reporter, recipes=recipes, expected=known if isinstance(known, dict) else {})


def _function(nodeid: str) -> str:
    """``cpu_latency`` of ``benchmarks/test_latency.py::test_cpu_latency[int8]``."""
    return nodeid.rpartition("::")[2].partition("[")[0].removeprefix("test_")


def _clock(seconds: float) -> str:
    minutes, seconds = divmod(round(seconds), 60)
    return f"{minutes}:{seconds:02}"
