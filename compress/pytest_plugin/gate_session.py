"""One pytest run of the gate: what it compares with, what it has judged so far, how it fails a test, what it writes."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import reduce
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import pytest

from compress.errors import BaselineError, CompressError
from compress.gate.baseline import Baseline, load_baseline
from compress.gate.checks import Status
from compress.gate.demands import Excuse, Gap, Rules, demand_comparison
from compress.gate.identity import BUILD_TOLERANCE
from compress.gate.judge import RECORDED_LOOKS, both_runs, confirm, judge
from compress.gate.limits import Limit
from compress.gate.recording import Provenance, Recorded, record
from compress.gate.transport import pack, unpack
from compress.gate.verdict import Verdict
from compress.pytest_plugin.meter import NO_CUDA, Meter
from compress.pytest_plugin.outcomes import NotMeasured
from compress.report.markdown import render_markdown
from compress.report.table import MARKS, build_table
from compress.results import Identity, Kind, Measurement
from compress.system.files import write_atomically

if TYPE_CHECKING:
    from torch import nn


@dataclass(kw_only=True)
class GateSession:
    """What all tests of one run share.

    Attributes:
        folder: where baselines live.
        compare: name of the baseline to compare with, True for the workload's own, None for no comparison.
        recording: whether a baseline is to be recorded, which takes more looks at a time.
        rules: what may go unmeasured.
        build_tolerance: of counts and bytes of another build, where a recipe states no other.
        provenance: what is measured and where; None until the first gated test has it.
        limits: recipe to the metrics that it limits, of every recipe so far.
        baseline: that tests of this process compared with.
        judged: node id to the verdicts of that test, in order.
    """

    folder: Path
    compare: str | Literal[True] | None = None
    recording: bool = False
    rules: Rules = field(default_factory=Rules)
    build_tolerance: float = BUILD_TOLERANCE
    provenance: Provenance | None = None
    limits: dict[str, tuple[str, ...]] = field(default_factory=dict)
    baseline: Baseline | None = None
    judged: dict[str, list[Verdict]] = field(default_factory=dict)

    @property
    def verdicts(self) -> list[Verdict]:
        """Of every measurement so far, in order."""
        return [verdict for verdicts in self.judged.values() for verdict in verdicts]

    def begin(self, node_id: str) -> None:
        """Forget what was judged by a test that runs once more."""
        self.judged.pop(node_id, None)

    def load_baseline(self, workload: str) -> Baseline | None:
        """The baseline that this run compares with, None if it compares with none.

        Raises:
            BaselineError: if it is missing or damaged.
        """
        if not self.compare:
            return None
        return load_baseline(self._path(workload if self.compare is True else self.compare))

    def check(
        self,
        measure: Callable[[], Measurement],
        *,
        recipe: str,
        limit: Limit | None,
        baseline: Baseline | None,
        identity: Identity | None = None,
        node_id: str = "",
    ) -> Verdict:
        """Measure and judge; a time that does not pass is measured once more before it may be called regressed.

        A time that is to be recorded is measured :data:`RECORDED_LOOKS` times, for every later run is held against it.
        """
        sha256 = self.provenance.data_sha256 if self.provenance else ""

        def judged(measurement: Measurement) -> Verdict:
            return judge(
                measurement,
                recipe=recipe,
                limit=limit,
                baseline=baseline,
                data_sha256=sha256,
                identity=identity,
                environment=self.provenance.environment if self.provenance else None,
                build_tolerance=self.build_tolerance,
            )

        first = measure()
        if self.recording and first.pairs:
            first = reduce(both_runs, (measure() for _ in range(RECORDED_LOOKS - 1)), first)
        verdict = judged(first)
        if verdict.metric.kind is Kind.TIME and verdict.status in (Status.REGRESSED, Status.INCONCLUSIVE):
            second = judged(measure())
            verdict = confirm(verdict, second, judged(both_runs(verdict.measurement, second.measurement)))
        verdict = demand_comparison(verdict, self.rules)
        self.judged.setdefault(node_id, []).append(verdict)
        return verdict

    def tell(self, node_id: str) -> str:
        """What a test brought to light, for the process that concludes."""
        verdicts = tuple(replace(verdict, baseline=None) for verdict in self.judged.get(node_id, ()))
        return pack(_Told(provenance=self.provenance, limits=self.limits, verdicts=verdicts))

    def hear(self, node_id: str, text: str) -> None:
        """Take over what :meth:`tell` made in another process."""
        told = unpack(_Told, text)
        self.provenance = told.provenance
        self.limits |= told.limits
        if self.baseline is None and told.provenance is not None:
            # One that cannot be read has ended the run of whoever compared with it, which says so.
            with suppress(BaselineError):
                self.baseline = self.load_baseline(told.provenance.workload)
        self.judged[node_id] = [replace(verdict, baseline=self.baseline) for verdict in told.verdicts]

    def excuse(self, verdict: Verdict, node_id: str) -> Excuse | None:
        """Why it may stay unmeasured or undecided, if it may."""
        if self.lacks_device(verdict):
            return Excuse(text=f"{NO_CUDA}; with --require-cuda this fails")
        if self.is_inapplicable(verdict):
            return Excuse(text=verdict.measurement.unmeasured or "")
        return self.rules.excuse(Gap(why="", metric=verdict.metric.name, recipe=verdict.recipe, test=node_id))

    def lacks_device(self, verdict: Verdict) -> bool:
        """Whether it was not measured for want of a CUDA device that nobody requires."""
        return verdict.measurement.unmeasured == NO_CUDA and not self.rules.require_cuda

    def is_inapplicable(self, verdict: Verdict) -> bool:
        """Whether there is nothing that the metric could be of, and neither a limit nor the baseline asks for it."""
        recorded = self.baseline is not None and self.baseline.entries(verdict.recipe, verdict.metric.name)
        return verdict.measurement.inapplicable and verdict.limit is None and not recorded

    def record(self, name: str, *, widen: bool = False) -> Recorded:
        """Write all that was measured into the baseline called ``name``.

        With ``widen`` the interval of a time reaches over the one that was recorded of the same before.

        Raises:
            BaselineError: if the file cannot be written, or is of another workload.
        """
        if self.provenance is None:
            raise CompressError("nothing was measured, so there is nothing to record")
        runs: dict[str, list[Measurement]] = {}
        models: dict[str, set[Identity | None]] = {}
        for verdict in self.verdicts:
            runs.setdefault(verdict.recipe, []).append(verdict.measurement)
            models.setdefault(verdict.recipe, set()).add(verdict.identity)
        # Of a recipe whose tests measured several models nobody can say which one its entries are of.
        one = {recipe: identity for recipe, (identity, *others) in models.items() if identity and not others}
        return record(self._path(name), runs, provenance=self.provenance, models=one, widen=widen)

    def write_markdown(self, path: Path, *, title: str = "", missing: Sequence[str] = ()) -> None:
        """Write the reference table as Markdown.

        Args:
            path: of the file.
            title: what the run came to, "" for none.
            missing: what was not measured though no row shows it, one line each.

        Raises:
            CompressError: if the file cannot be written.
        """
        where = self.provenance
        table = build_table(
            self.verdicts,
            workload=where.workload if where else "",
            environment=where.environment if where else None,
        )
        whole = replace(table, title=title, missing=tuple(missing))
        write_atomically(path, render_markdown(whole).encode(), CompressError)

    def _path(self, name: str) -> Path:
        """The file of a baseline; a workload's name may hold what a file's had better not."""
        return self.folder / (re.sub(r"[^\w.-]+", "-", name) + ".json")


@dataclass(frozen=True, kw_only=True)
class _Told:
    """What one process tells another of a test."""

    provenance: Provenance | None
    limits: Mapping[str, tuple[str, ...]]
    verdicts: tuple[Verdict, ...]


@dataclass(frozen=True, kw_only=True)
class Gate:
    """Holds what a meter measures against the recipe's limit and the baseline, and fails the test if it is worse.

    Attributes:
        session: where verdicts are kept for the table and for recording.
        recipe: what made the compressed model.
        limits: of the recipe, by metric.
        baseline: to compare with; None for no comparison.
        node_id: of the running test, for the message.
        options: of the command line, without which another model would be measured.
        identify: what tells which models they are, called with the compressed and the dense one; None for nobody.
    """

    session: GateSession
    recipe: str
    limits: dict[str, Limit]
    baseline: Baseline | None
    node_id: str
    options: tuple[str, ...] = ()
    identify: Callable[[nn.Module, nn.Module], Identity] | None = None

    def __call__(self, meter: Meter, compressed: nn.Module, dense: nn.Module) -> Verdict:
        """Measure, judge, and let the test go on only if the verdict is no worse than inconclusive.

        Raises:
            pytest.fail.Exception: if the metric regressed.
            NotMeasured: if it could not be measured, or is undecided where that must not be.
            pytest.skip.Exception: the same, but it is excused.
        """

        def measure() -> Measurement:
            try:
                return meter(compressed, dense)
            except (CompressError, pytest.skip.Exception) as error:
                # What cannot be measured must stand in the table too, not only in a traceback.
                return Measurement(metric=meter.metric, declared=meter.declared, unmeasured=str(error))

        verdict = self.session.check(
            measure,
            recipe=self.recipe,
            limit=self.limits.get(meter.metric),
            baseline=self.baseline,
            identity=self.identify(compressed, dense) if self.identify is not None else None,
            node_id=self.node_id,
        )
        if verdict.status is Status.REGRESSED:
            pytest.fail(verdict.message(self.node_id, self.options), pytrace=False)
        undecided = verdict.status is Status.INCONCLUSIVE and self.session.rules.strict
        if undecided or verdict.status is Status.NOT_MEASURED:
            excuse = self.session.excuse(verdict, self.node_id)
            if excuse is not None:
                pytest.skip(f"{MARKS[verdict.status]}: {excuse.text}")
            raise NotMeasured(verdict.message(self.node_id, self.options), pytrace=False)
        return verdict
