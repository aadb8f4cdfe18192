"""What the gate concluded about a measurement, and how it is said to whoever reads a failed build."""

from __future__ import annotations

import shlex
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from compress.gate.baseline import Baseline
from compress.gate.checks import Check, Side, Status
from compress.gate.figures import write_change, write_exact, write_value
from compress.gate.identity import Kinship, files_sentence, identity_sentence
from compress.gate.limits import Limit
from compress.gate.statistics import RatioInterval
from compress.results import Identity, Kind, Measurement, Metric, Unit

_HEADLINES: Mapping[Status, str] = {
    Status.PASSED: "passed",
    Status.INCONCLUSIVE: "is INCONCLUSIVE",
    Status.NOT_MEASURED: "was NOT MEASURED",
    Status.REGRESSED: "REGRESSED",
}


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """What the gate concluded about one metric of one recipe.

    Attributes:
        recipe: name of the recipe.
        measurement: what was measured.
        status: the worst of the checks; passed if there are none, see ``gated``.
        checks: one for each side that the measurement was held against.
        notes: what a reader should know even if it passed.
        ratio: times only: what all processes come to together; None for other metrics.
        limit: the recipe's limit, None if it states none.
        baseline: the baseline compared with, None if there was no comparison.
        identity: which models were measured, None if nobody knows.
        kinship: how they are related to those of the baseline; None if there was no comparison.
    """

    recipe: str
    measurement: Measurement
    status: Status
    checks: tuple[Check, ...] = ()
    notes: tuple[str, ...] = ()
    ratio: RatioInterval | None = None
    limit: Limit | None = None
    baseline: Baseline | None = None
    identity: Identity | None = None
    kinship: Kinship | None = None

    @property
    def metric(self) -> Metric:
        """What was measured."""
        return self.measurement.about

    @property
    def gated(self) -> bool:
        """Whether it was held against anything at all; if not, it is only reported."""
        return bool(self.checks)

    @property
    def reasons(self) -> tuple[str, ...]:
        """Why it did not pass: one line for each side that did not hold."""
        # What could not be compared says itself what is missing.
        return tuple(
            check.text if check.status is Status.NOT_MEASURED else f"{check.side}: {check.text}"
            for check in self.checks
            if check.status is not Status.PASSED
        )

    def message(self, node_id: str = "", options: Sequence[str] = ()) -> str:
        """Everything a reader of a failed build needs, in several lines.

        Args:
            node_id: pytest's name of the test that measured, to be run again; "" for any of this recipe.
            options: what else the command line needs to measure the same again.
        """
        rows = [(self.metric.title, _values(self)), *((check.side.value, check.text) for check in self.checks)]
        rows += [("note", note) for note in self.notes]
        width = max(len(label) for label, _ in rows)
        compared = f", compared with {self.kinship.relation}" if self.kinship is not None else ""
        lines = [f"{self.metric.name} of recipe {self.recipe!r} {_HEADLINES[self.status]}{compared}", ""]
        lines += [f"  {label:<{width}}  {text}" for label, text in rows]
        if self.status is not Status.PASSED:
            lines += ["", *_next_steps(self, node_id, options)]
        return "\n".join(lines)


def models_compared(verdicts: Iterable[Verdict]) -> str:
    """Which models come from files, and which these are beside those of the baseline, for the head of a report.

    "" if all were made in this run, and nothing was compared.
    """
    known = list(verdicts)
    from_files = files_sentence({one.recipe: one.identity for one in known if one.identity is not None})
    compared = identity_sentence({one.recipe: one.kinship for one in known if one.kinship is not None})
    return "; ".join(text for text in (from_files, compared) if text)


def _values(verdict: Verdict) -> str:
    """Both models' values and what changed, as exactly as they are known."""
    metric, measurement = verdict.metric, verdict.measurement
    dense, compressed = measurement.dense, measurement.compressed
    if dense is None and compressed is None:
        return "no value"
    parts = [f"{_value(metric, compressed)}, dense {_value(metric, dense)}"]
    if dense is not None and compressed is not None and metric.kind is not Kind.TIME:
        parts.append(write_change(metric, dense, compressed))
    if verdict.ratio is not None:
        parts.append(_interval(verdict.ratio, measurement))
    text = ", ".join(part for part in parts if part)
    return f"{text}, on {measurement.device}" if measurement.device else text


def _interval(ratio: RatioInterval, measurement: Measurement) -> str:
    each = [statistics.median(compressed / dense for dense, compressed in run) for run in measurement.runs]
    processes = f", {len(each)} processes: {', '.join(f'x{median:.3f}' for median in each)}" if len(each) > 1 else ""
    ends = f"x{ratio.low:.3f} to x{ratio.high:.3f}"
    return f"x{ratio.median:.3f} ({100 * ratio.confidence:g} % interval {ends}, {ratio.num_pairs:,} pairs{processes})"


def _value(metric: Metric, value: float | None) -> str:
    if value is None:
        return "no value"
    text = write_value(metric, value)
    return f"{text} ({write_exact(metric, value)})" if metric.unit is Unit.BYTES else text


def _next_steps(verdict: Verdict, node_id: str, options: Sequence[str]) -> list[str]:
    """What to run, and what to change if the new value is meant."""
    tests = [node_id] if node_id else ["benchmarks", "-k", verdict.recipe]
    command = shlex.join(["pytest", *tests, *options])
    # Of one test nothing else is demanded.
    compare = " --benchmark-compare --compress-partial" if verdict.baseline is not None else ""
    lines = [f"To look further, run: {command}{compare}"]
    broken = {check.side for check in verdict.checks if check.status is Status.REGRESSED}
    if Side.LIMIT in broken and verdict.limit is not None:
        where = verdict.limit.where or f"recipe {verdict.recipe!r}"
        lines.append(f"To accept it on purpose, change the limit of {verdict.metric.name} in {where}")
    if Side.BASELINE in broken and verdict.baseline is not None:
        path = verdict.baseline.path
        save = f"{command} --benchmark-save={shlex.quote(path.stem)}"
        lines.append(f"To make it the new baseline, run: {save} and review the change of {path}")
    if verdict.status is Status.INCONCLUSIVE:
        more = "more pairs or a quieter machine" if verdict.metric.kind is Kind.TIME else "more test examples"
        lines.append(f"To decide it takes {more}")
    return lines
