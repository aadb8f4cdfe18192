"""What a run came to: whether anything regressed, what could not be measured, and the exit status that says so."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from compress.errors import BaselineError
from compress.gate.checks import Status
from compress.gate.demands import Excuse, Gap, describe, missing
from compress.pytest_plugin.gate_session import GateSession
from compress.pytest_plugin.options import COULD_NOT_MEASURE
from compress.pytest_plugin.outcomes import Outcome
from compress.pytest_plugin.run import PytestRun

_PYTEST_DECIDES = (pytest.ExitCode.OK, pytest.ExitCode.TESTS_FAILED, pytest.ExitCode.NO_TESTS_COLLECTED)


@dataclass(frozen=True, kw_only=True)
class Conclusion:
    """What a run came to.

    Attributes:
        failed: whether a metric regressed, or another test failed.
        hidden: what regressed though its test is not reported as failed.
        gaps: what was to be measured and was not; an excuse covers none of them.
        unreadable: whether there was no baseline to compare with, which ended the run.
        unseen: those of the gaps that the table has no row for.
        excused: what an excuse covers.
        notes: what else a reader should know.
    """

    failed: bool
    unreadable: bool = False
    hidden: tuple[str, ...] = ()
    gaps: tuple[Gap, ...] = ()
    unseen: tuple[Gap, ...] = ()
    excused: tuple[tuple[Excuse, Gap], ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def title(self) -> str:
        """What the run came to, in a few words."""
        if self.failed:
            return "regressed"
        return "could not measure" if self.gaps else "held"

    @property
    def lines(self) -> tuple[str, ...]:
        """What the table does not show, one line each."""
        return (
            *(f"REGRESSED: {line}" for line in self.hidden),
            *(f"COULD NOT MEASURE: {line}" for line in describe(self.unseen)),
            *(f"excused by {excuse.text}: {line}" for excuse, gap in self.excused for line in describe([gap])),
            *self.notes,
        )

    def status(self, exitstatus: int) -> int:
        """The exit status of the run; what interrupts pytest keeps its own."""
        if exitstatus not in _PYTEST_DECIDES and not self.unreadable:
            return exitstatus
        if self.failed:
            return pytest.ExitCode.TESTS_FAILED
        return COULD_NOT_MEASURE if self.gaps else exitstatus


CONCLUSION: pytest.StashKey[Conclusion] = pytest.StashKey()


def conclude(run: PytestRun, *, only_timings: bool) -> Conclusion:
    """Put together what the tests of a run brought to light, and what was to be and did not.

    Args:
        run: that has ended.
        only_timings: whether pytest-benchmark compared timings of its own, so that a comparison may have been asked of
            it alone.
    """
    session = run.gate_session()
    seen = list(_unmeasured(session))
    unseen = [*_silent_tests(run, session), *_missing(run, session)]
    if not session.verdicts and not unseen and run.compare and _is_ours(run, only_timings=only_timings):
        unseen.append(Gap(why="a comparison was asked for, and no test called the gate"))
    excused = [(excuse, gap) for gap in (*seen, *unseen) if (excuse := session.rules.excuse(gap)) is not None]
    covered = [gap for _, gap in excused]
    needless = [excuse.text for excuse in session.rules.excuses if excuse not in [used for used, _ in excused]]
    return Conclusion(
        failed=_failed(run, session),
        unreadable=run.unreadable is not None,
        hidden=tuple(_hidden(run, session)),
        gaps=tuple(gap for gap in (*seen, *unseen) if gap not in covered),
        unseen=tuple(gap for gap in unseen if gap not in covered),
        excused=tuple(excused),
        notes=(*_partial(run), *(f"excuse {text} was not needed" for text in needless)),
    )


def _failed(run: PytestRun, session: GateSession) -> bool:
    """Whether anything is worse than not measured: a test that broke before it called the gate is not."""
    return any(verdict.status is Status.REGRESSED for verdict in session.verdicts) or any(
        outcome is Outcome.FAILED and (node_id in session.judged or node_id not in run.selected)
        for node_id, (outcome, _) in run.outcomes.items()
    )


def _hidden(run: PytestRun, session: GateSession) -> Iterator[str]:
    for node_id, verdicts in session.judged.items():
        outcome, _ = run.outcomes.get(node_id, (Outcome.PASSED, ""))
        for verdict in verdicts:
            if verdict.status is Status.REGRESSED and outcome is not Outcome.FAILED:
                yield f"{verdict.metric.name} of {verdict.recipe}, though its test is reported as {outcome}: {node_id}"


def _unmeasured(session: GateSession) -> Iterator[Gap]:
    """What the table shows as not measured, but for what a missing device, no sense in it or no strictness excuses."""
    for node_id, verdicts in session.judged.items():
        for verdict in verdicts:
            undecided = verdict.status is Status.INCONCLUSIVE and session.rules.strict
            if not undecided and verdict.status is not Status.NOT_MEASURED:
                continue
            if not session.lacks_device(verdict) and not session.is_inapplicable(verdict):
                why = "; ".join(verdict.reasons)
                yield Gap(metric=verdict.metric.name, recipe=verdict.recipe, test=node_id, why=why)


def _silent_tests(run: PytestRun, session: GateSession) -> Iterator[Gap]:
    """Tests that asked for the gate and did not call it."""
    reasons = {
        Outcome.PASSED: "passed without calling the gate",
        Outcome.SKIPPED: "was skipped",
        Outcome.XFAILED: "is expected to fail",
        Outcome.NOT_MEASURED: "could not begin",
        Outcome.FAILED: "failed before it called the gate",
    }
    # Without a baseline the run ended before them, which is said once.
    for node_id in run.selected if run.unreadable is None else ():
        if not session.judged.get(node_id):
            outcome, why = run.outcomes.get(node_id, (None, ""))
            reason = "did not run" if outcome is None else reasons[outcome]
            yield Gap(test=node_id, why=f"{reason}: {why}" if why else reason)


def _missing(run: PytestRun, session: GateSession) -> list[Gap]:
    """What the baseline and the limits guard and no test measured; demanded only of a run that compares."""
    if run.unreadable is not None:
        return [Gap(why=run.unreadable)]
    if not run.compare or run.settings.partial or session.provenance is None:
        return []
    try:
        baseline = session.baseline or session.load_baseline(session.provenance.workload)
    except BaselineError as error:
        return [Gap(why=str(error))]
    gaps = missing(
        session.verdicts,
        limits=session.limits,
        baseline=baseline,
        recipes=run.recipes if run.settings.recipes_named or run.settings.models else None,
        cuda=session.rules.require_cuda or session.provenance.environment.cuda_class is not None,
    )
    known = {verdict.recipe for verdict in session.verdicts} | {gap.recipe for gap in gaps}
    return gaps + [Gap(recipe=name, why="no test measured anything of it") for name in run.recipes if name not in known]


def _is_ours(run: PytestRun, *, only_timings: bool) -> bool:
    """Whether it is a baseline of ours that was to be compared with, and not pytest-benchmark's timings."""
    folder = run.settings.baselines
    if run.selected or run.deselected:
        return True
    if isinstance(run.compare, str) and (folder / f"{run.compare}.json").exists():
        return True
    return not only_timings and any(map(_looks_like_baseline, folder.glob("*.json")))


def _looks_like_baseline(path: Path) -> bool:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return isinstance(content, dict) and {"schema", "workload", "recipes"} <= content.keys()


def _partial(run: PytestRun) -> Iterator[str]:
    if run.compare and run.settings.partial:
        tests = f", {run.deselected} tests of the gate were deselected" if run.deselected else ""
        yield f"partial: only what was selected is held (--compress-partial){tests}"
