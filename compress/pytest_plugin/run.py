"""One pytest run as the plugin sees it: what it was asked for, which tests were to hold a model, what became of them.

Kept in every pytest session of its environment, so nothing here imports the gate before a test asks for it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

import pytest

from compress.errors import BaselineError, CompressError
from compress.pytest_plugin.model_files import ModelFile
from compress.pytest_plugin.options import Settings
from compress.pytest_plugin.outcomes import WORST_LAST, NotMeasured, Outcome, outcome_of, reason_of

if TYPE_CHECKING:
    from compress.gate.demands import Rules
    from compress.pytest_plugin.gate_session import GateSession
    from compress.pytest_plugin.progress import RunProgress


@dataclass(kw_only=True, eq=False)
class PytestRun:
    """The state of one run, a plugin of its own; of a run on several processes, as far as it is known here.

    Attributes:
        settings: what the options come to.
        compare: name of the baseline to compare with, True for the workload's own, None for no comparison.
        recording: whether a baseline is to be recorded.
        own_timings: whether pytest-benchmark has stored runs that ``compare`` names too.
        is_worker: whether this process only runs tests for another one, which concludes.
        recipes: names of the recipes that tests were made for.
        files: by such a name, the file that its model comes from; nothing of a recipe that is run.
        selected: node ids of the tests that ask for the gate and were to be run.
        deselected: how many more there are.
        outcomes: node id to what became of a test, and why if it is known.
        unreadable: why there is no baseline to compare with; None if there is one, or none is needed.
        session: of the gate; None until a test asks for it.
        exitstatus: that the run ended with.
        progress: shows how far it is; None where pytest does.
    """

    settings: Settings
    compare: str | Literal[True] | None = None
    recording: bool = False
    own_timings: bool = False
    is_worker: bool = False
    recipes: list[str] = field(default_factory=list)
    files: dict[str, ModelFile] = field(default_factory=dict)
    selected: list[str] = field(default_factory=list)
    deselected: int = 0
    outcomes: dict[str, tuple[Outcome, str]] = field(default_factory=dict)
    unreadable: str | None = None
    session: GateSession | None = None
    exitstatus: int = 0
    progress: RunProgress | None = None

    def gate_session(self) -> GateSession:
        """The gate of this run."""
        if self.session is None:
            from compress.pytest_plugin.gate_session import GateSession

            self.session = GateSession(
                folder=self.settings.baselines,
                compare=self.compare,
                recording=self.recording,
                rules=self.rules(),
                build_tolerance=self.settings.build_tolerance,
            )
        return self.session

    def rules(self) -> Rules:
        """What may go unmeasured.

        Raises:
            ConfigError: if an excuse names a metric that there is none of.
        """
        from compress.gate.demands import Rules, parse_excuse

        return Rules(
            require_cuda=self.settings.require_cuda,
            require_baseline=self.settings.require_baseline,
            strict=self.settings.strict,
            excuses=tuple(map(parse_excuse, self.settings.excuses)),
        )

    def note_selected(self, items: Iterable[pytest.Item]) -> dict[str, str]:
        """Keep which of the tests that will run are to hold a model; node id to the recipe of those made for one."""
        ours = [item for item in items if asks_for_gate(item)]
        self.selected = [item.nodeid for item in ours]
        paths = {item.nodeid: getattr(item, "callspec", None) for item in ours}
        return {
            nodeid: spec.params[RECIPE_PARAMETER].stem
            for nodeid, spec in paths.items()
            if spec is not None and RECIPE_PARAMETER in spec.params
        }

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Keep the worst that became of a test in any of its phases, and what the gate of another process found."""
        outcome = outcome_of(report)
        known = self.outcomes.get(report.nodeid)
        if outcome is not None and (known is None or WORST_LAST.index(outcome) >= WORST_LAST.index(known[0])):
            self.outcomes[report.nodeid] = (outcome, reason_of(report))
        told = getattr(report, "compress_told", None)
        if told is not None and not self.is_worker:
            self.gate_session().hear(report.nodeid, told)


# What tests are parametrized by.
RECIPE_PARAMETER = "_recipe_path"

# Where the plugin keeps them in pytest's config.
RUN = pytest.StashKey[PytestRun]()


def is_own(definition: pytest.FixtureDef[object]) -> bool:
    """Whether a fixture is the plugin's, and not one that a project has put in its place."""
    return definition.func.__module__.startswith("compress.pytest_plugin.fixtures.")


def asks_for_gate(item: pytest.Item) -> bool:
    """Whether a test asks for the plugin's ``gate``, be it through a project's own that builds on it."""
    info = getattr(item, "_fixtureinfo", None)
    definitions = list(info.name2fixturedefs.get("gate", ())) if info is not None else []
    while definitions:
        definition = definitions.pop()
        if is_own(definition):
            return True
        if "gate" not in definition.argnames:
            return False
    return False


@contextmanager
def stop_on_error(config: pytest.Config) -> Iterator[None]:
    """End the run, in one sentence: without a workload, a dense model or a baseline no test can say anything."""
    try:
        yield
    except CompressError as error:
        run = config.stash[RUN]
        if isinstance(error, BaselineError):
            run.unreadable = str(error)
        if not run.is_worker:
            pytest.exit(str(error), returncode=pytest.ExitCode.USAGE_ERROR)
        # pytest-xdist takes a process that exits for a broken one: it is asked to stop.
        config.pluginmanager.getplugin("session").shouldstop = str(error)
        raise NotMeasured(str(error), pytrace=False) from None


@contextmanager
def at_work(config: pytest.Config, what: str) -> Iterator[None]:
    """Show what is done, and let its progress bars through to the terminal; for what is no measurement."""
    capture, progress = config.pluginmanager.getplugin("capturemanager"), config.stash[RUN].progress
    with (
        capture.global_and_fixture_disabled() if capture is not None else nullcontext(),
        progress.working(what) if progress is not None else nullcontext(),
    ):
        yield
