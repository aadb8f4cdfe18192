"""One pytest run of the gate: what it compares with, what it has judged so far, how it fails a test, what it writes."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import pytest

from compress.errors import CompressError
from compress.files import write_atomically
from compress.gate.baseline import Baseline, load_baseline
from compress.gate.checks import Status
from compress.gate.judge import both_runs, confirm, judge
from compress.gate.limits import Limit
from compress.gate.recording import Provenance, Recorded, record
from compress.gate.verdict import Verdict
from compress.report.markdown import render_markdown
from compress.report.table import Table, build_table
from compress.report.terminal import render_terminal
from compress.results import Kind, Measurement

if TYPE_CHECKING:
    from torch import nn

Measure = Callable[["nn.Module", "nn.Module"], Measurement]

NO_CUDA = "no CUDA device"


@dataclass(kw_only=True)
class GateSession:
    """What all tests of one run share.

    Attributes:
        folder: where baselines live.
        compare: name of the baseline to compare with, True for the workload's own, None for no comparison.
        provenance: what is measured and where; None until the first gated test has it.
        verdicts: of every measurement so far, in order.
    """

    folder: Path
    compare: str | Literal[True] | None = None
    provenance: Provenance | None = None
    verdicts: list[Verdict] = field(default_factory=list)

    def load_baseline(self, workload: str) -> Baseline | None:
        """The baseline that this run compares with, None if it compares with none.

        Raises:
            BaselineError: if it is missing or damaged.
        """
        if not self.compare:
            return None
        return load_baseline(self._path(workload if self.compare is True else self.compare))

    def check(
        self, measure: Callable[[], Measurement], *, recipe: str, limit: Limit | None, baseline: Baseline | None
    ) -> Verdict:
        """Measure and judge; a time that does not pass is measured once more before it may be called regressed."""
        sha256 = self.provenance.data_sha256 if self.provenance else ""

        def judged(measurement: Measurement) -> Verdict:
            return judge(measurement, recipe=recipe, limit=limit, baseline=baseline, data_sha256=sha256)

        verdict = judged(measure())
        if verdict.metric.kind is Kind.TIME and verdict.status in (Status.REGRESSED, Status.INCONCLUSIVE):
            second = judged(measure())
            verdict = confirm(verdict, second, judged(both_runs(verdict.measurement, second.measurement)))
        self.verdicts.append(verdict)
        return verdict

    def record(self, name: str) -> Recorded:
        """Write all that was measured into the baseline called ``name``.

        Raises:
            BaselineError: if the file cannot be written, or is of another workload.
        """
        if self.provenance is None:
            raise CompressError("nothing was measured, so there is nothing to record")
        runs: dict[str, list[Measurement]] = {}
        for verdict in self.verdicts:
            runs.setdefault(verdict.recipe, []).append(verdict.measurement)
        return record(self._path(name), runs, provenance=self.provenance)

    def render_terminal(self, *, width: int, color: bool) -> str:
        """The reference table for a terminal."""
        return render_terminal(self._table(), width=width, color=color)

    def write_markdown(self, path: Path) -> None:
        """Write the reference table as Markdown.

        Raises:
            CompressError: if the file cannot be written.
        """
        write_atomically(path, render_markdown(self._table()).encode(), CompressError)

    def _path(self, name: str) -> Path:
        """The file of a baseline; a workload's name may hold what a file's had better not."""
        return self.folder / (re.sub(r"[^\w.-]+", "-", name) + ".json")

    def _table(self) -> Table:
        where = self.provenance
        return build_table(
            self.verdicts,
            workload=where.workload if where else "",
            environment=where.environment if where else None,
        )


@dataclass(frozen=True, kw_only=True)
class Meter:
    """Measures one metric: called with the compressed and the dense model, returns both values.

    Attributes:
        metric: a key of :data:`compress.results.METRICS`.
        measure: what is called.
    """

    metric: str
    measure: Measure

    def __call__(self, compressed: nn.Module, dense: nn.Module) -> Measurement:
        return self.measure(compressed, dense)


@dataclass(frozen=True, kw_only=True)
class Gate:
    """Holds what a meter measures against the recipe's limit and the baseline, and fails the test if it is worse.

    Attributes:
        session: where verdicts are kept for the table and for recording.
        recipe: what made the compressed model.
        limits: of the recipe, by metric.
        baseline: to compare with; None for no comparison.
        node_id: of the running test, for the message.
        require_cuda: whether a missing CUDA device fails what needs one.
        options: of the command line, without which another model would be measured.
    """

    session: GateSession
    recipe: str
    limits: dict[str, Limit]
    baseline: Baseline | None
    node_id: str
    require_cuda: bool
    options: tuple[str, ...] = ()

    def __call__(self, meter: Meter, compressed: nn.Module, dense: nn.Module) -> Verdict:
        """Measure, judge, and let the test go on only if the verdict is no worse than inconclusive.

        Raises:
            pytest.fail.Exception: if the metric regressed or could not be measured.
            pytest.skip.Exception: if it needs a CUDA device, there is none, and none is required.
        """

        def measure() -> Measurement:
            try:
                return meter(compressed, dense)
            except CompressError as error:
                # What cannot be measured must stand in the table too, not only in a traceback.
                return Measurement(metric=meter.metric, unmeasured=str(error))

        limit = self.limits.get(meter.metric)
        verdict = self.session.check(measure, recipe=self.recipe, limit=limit, baseline=self.baseline)
        if verdict.measurement.unmeasured == NO_CUDA and not self.require_cuda:
            pytest.skip(f"NOT MEASURED: {NO_CUDA}; with --require-cuda this fails")
        if verdict.status in (Status.REGRESSED, Status.NOT_MEASURED):
            pytest.fail(verdict.message(self.node_id, self.options), pytrace=False)
        return verdict


# Where the plugin keeps it in pytest's config.
GATE = pytest.StashKey[GateSession]()
