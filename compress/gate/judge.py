"""A measurement held against both sides: its recipe's limit, and what was recorded of it before."""

from __future__ import annotations

import statistics
from dataclasses import dataclass, replace
from functools import partial

from compress.errors import ConfigError
from compress.gate.baseline import Baseline
from compress.gate.checks import Check, Facts, Side, Status, gather
from compress.gate.figures import write_value
from compress.gate.identity import BUILD_TOLERANCE, Kinship, relation
from compress.gate.limits import Limit, find_metric
from compress.gate.rules import hold_baseline, hold_limit
from compress.gate.verdict import Verdict
from compress.results import Environment, Identity, Kind, Measurement, Metric

# How often a time is measured that is to be recorded. Its interval counts in full against every later run; on simulated
# clocks, of slow-downs by 5 %, 67 to 88 % are found with one look, 93 to 99 % with three, 95 to 99 % with five.
RECORDED_LOOKS = 5

_WORST_LAST = tuple(Status)
_FIRST = {
    Status.PASSED: "passed",
    Status.INCONCLUSIVE: "was inconclusive",
    Status.NOT_MEASURED: "could not be measured",
    Status.REGRESSED: "lay beyond its bound",
}


def judge(
    measurement: Measurement,
    *,
    recipe: str,
    limit: Limit | None = None,
    baseline: Baseline | None = None,
    data_sha256: str = "",
    identity: Identity | None = None,
    environment: Environment | None = None,
    build_tolerance: float = BUILD_TOLERANCE,
) -> Verdict:
    """Hold a measurement against both sides: the recipe's limit, and what was recorded before.

    Args:
        measurement: of one metric.
        recipe: name of the recipe that was measured.
        limit: that the recipe states for this metric.
        baseline: to compare with; None for no comparison.
        data_sha256: hash of the test data of this run, compared with the baseline's.
        identity: which models were measured; None if nobody knows, and then they are taken for another build.
        environment: where; the bytes of one model's file may differ with the libraries that write it.
        build_tolerance: how far counts and bytes of another build may lie above the baseline's, as a fraction of them,
            where the limit states no other.

    Raises:
        ConfigError: if the metric is unknown or the limit is that of another one.
    """
    metric = measurement.declared or find_metric(measurement.metric, where=f"recipe {recipe!r}")
    if limit is not None and limit.metric != metric.name:
        raise ConfigError(
            f"a limit holds for its own metric, got that of {limit.metric} for {metric.name} ({recipe!r})"
        )
    kinship = _kinship(recipe, baseline, identity) if baseline is not None else None
    facts = gather(measurement)
    if isinstance(facts, str):
        checks: tuple[Check, ...] = (Check(side=Side.MEASUREMENT, status=Status.NOT_MEASURED, text=facts),)
        notes: tuple[str, ...] = measurement.notes
    else:
        by_limit = (hold_limit(facts, limit),) if limit is not None and limit.binds(measurement.device) else ()
        by_baseline: Check | None = None
        if baseline is not None and kinship is not None:
            stated = limit.build_tolerance if limit is not None else None
            allowed = _Allowed(
                kinship=kinship,
                tolerance=build_tolerance if stated is None else stated,
                same_libraries=_same_libraries(baseline, kinship, environment),
            )
            by_baseline = _hold_recorded(facts, recipe, baseline, data_sha256, allowed)
        checks = by_limit if by_baseline is None else (*by_limit, by_baseline)
        notes = (*measurement.notes, *_unbound(limit, measurement), *_notes(facts, recipe, baseline, checks))
    return Verdict(
        recipe=recipe,
        measurement=measurement,
        status=max((check.status for check in checks), key=_WORST_LAST.index, default=Status.PASSED),
        checks=checks,
        notes=notes,
        ratio=None if isinstance(facts, str) else facts.pooled,
        limit=limit,
        baseline=baseline,
        identity=identity,
        kinship=kinship,
    )


def both_runs(first: Measurement, second: Measurement) -> Measurement:
    """Two measurements of the same time as one, with the processes of both; the second where either has no value."""
    if first.unmeasured is not None or second.unmeasured is not None:
        return second
    runs = (*first.runs, *second.runs)
    pairs = tuple(pair for run in runs for pair in run)
    return replace(
        second,
        dense=statistics.median(dense for dense, _ in pairs),
        compressed=statistics.median(compressed for _, compressed in pairs),
        pairs=pairs,
        run_lengths=tuple(map(len, runs)),
    )


def confirm(first: Verdict, second: Verdict, both: Verdict) -> Verdict:
    """What two measurements of the same time come to: regressed only if every process of both is beyond a bound.

    A machine that is busy for some seconds can push one measurement over a bound; it rarely does so twice.

    Args:
        first, second: the verdicts on each measurement.
        both: the verdict on :func:`both_runs`.
    """
    note = f"measured twice, the first time it {_FIRST[first.status]}"
    if confirmed_status(second.status, both.status) is not both.status:
        return replace(second, notes=(*second.notes, note))
    if both.status is Status.INCONCLUSIVE and second.status is Status.REGRESSED:
        note = "only the second of two measurements lies beyond its bound: undecided"
    return replace(both, notes=(*both.notes, note))


def confirmed_status(second: Status, both: Status) -> Status:
    """The status after a second look: what both looks say together, unless only the first one was in doubt."""
    return second if both is Status.INCONCLUSIVE and second is Status.PASSED else both


# Two trainings of a network differ in what it costs to compress them, which the test examples of neither tell: mean IoU
# of a U-Net that was trained on two processors fell by 0.75 and by 1.56 points at the same cut.
_MARGINS = 4.0


@dataclass(frozen=True, kw_only=True)
class _Allowed:
    """What may differ from a baseline, and by how much.

    Attributes:
        kinship: of the models.
        tolerance: of counts and bytes of another build.
        same_libraries: whether a file of the same model has the same bytes.
    """

    kinship: Kinship
    tolerance: float
    same_libraries: bool

    def of(self, metric: Metric) -> float:
        """The tolerance for a metric that is a count or bytes."""
        if not self.kinship.is_same:
            return max(metric.tolerance, self.tolerance)
        return 0.0 if metric.kind is Kind.EXACT and self.same_libraries else metric.tolerance


def _kinship(recipe: str, baseline: Baseline, identity: Identity | None) -> Kinship:
    recorded = baseline.models.get(recipe)
    return Kinship(relation=relation(identity, recorded), baseline=str(baseline.path), recorded=recorded, now=identity)


def _same_libraries(baseline: Baseline, kinship: Kinship, environment: Environment | None) -> bool:
    """Whether the models of the baseline were recorded on this class of machine, with these versions."""
    recorded = baseline.environments.get(kinship.recorded.built_on) if kinship.recorded is not None else None
    return recorded is not None and recorded == environment


def _unbound(limit: Limit | None, measurement: Measurement) -> tuple[str, ...]:
    """What is to be said of a limit that is for other classes of device."""
    if limit is None or not limit.is_bound or limit.binds(measurement.device):
        return ()
    return (f"its limit is for {', '.join(limit.devices)}, not for {measurement.device}: not held",)


def _notes(facts: Facts, recipe: str, baseline: Baseline | None, checks: tuple[Check, ...]) -> tuple[str, ...]:
    notes = [note for check in checks for note in check.notes]
    if baseline is not None and not any(check.side is Side.BASELINE for check in checks):
        notes.append(_other_devices(facts, recipe, baseline))
    if not checks and not notes:
        notes.append("held against nothing, only reported: there is no limit, and no baseline to compare with")
    return tuple(notes)


def _hold_recorded(facts: Facts, recipe: str, baseline: Baseline, data_sha256: str, allowed: _Allowed) -> Check | None:
    """The baseline's side; None where it may know other classes of device, but not this one."""
    reason = _why_incomparable(facts, baseline, data_sha256)
    if reason is not None:
        return Check(side=Side.BASELINE, status=Status.NOT_MEASURED, text=reason)
    metric, device = facts.metric, facts.measurement.device
    entries = baseline.entries(recipe, metric.name)
    if device in entries:
        hold = partial(
            hold_baseline,
            facts,
            entries[device],
            str(baseline.path),
            tolerance=allowed.of(metric),
            same_model=allowed.kinship.is_same,
        )
        check = hold()
        in_doubt = check.status is Status.REGRESSED and metric.is_quality and allowed.kinship.is_of_another_dense_model
        return _undecided(check) if in_doubt and hold(margins=_MARGINS).status is not Status.REGRESSED else check
    if metric.device:
        return None
    text = f"no baseline entry for {metric.name} of {recipe!r} in {baseline.path}; record it with --benchmark-save"
    return Check(side=Side.BASELINE, status=Status.NOT_MEASURED, text=text)


def _undecided(check: Check) -> Check:
    note = "the dense model is another one, which may cost more or less to compress: recording it anew would decide"
    return replace(check, status=Status.INCONCLUSIVE, notes=(*check.notes, note))


def _why_incomparable(facts: Facts, baseline: Baseline, data_sha256: str) -> str | None:
    if baseline.data_sha256 != data_sha256:
        return (
            f"{baseline.path} was recorded on other test data (sha256 {baseline.data_sha256[:12]}, "
            f"now {data_sha256[:12] or 'unknown'}); record it again with --benchmark-save"
        )
    measurement = facts.measurement
    if measurement.num_examples and measurement.num_examples != baseline.num_examples:
        return (
            f"{baseline.path} was recorded on {baseline.num_examples:,} examples, now {measurement.num_examples:,}; "
            f"record it again with --benchmark-save"
        )
    return None


def _other_devices(facts: Facts, recipe: str, baseline: Baseline) -> str:
    """What the baseline knows of other classes of device: information, for figures hold only within their own."""
    metric, device = facts.metric, facts.measurement.device
    entries = baseline.entries(recipe, metric.name)
    if not entries:
        return f"{baseline.path} has no {metric.name} of {recipe!r} for any class of device: not compared"
    known = ", ".join(
        f"{write_value(metric, entry.compressed) if entry.ratio is None else f'x{entry.ratio:.3f}'} on {name}"
        for name, entry in sorted(entries.items())
    )
    return f"{baseline.path} has {metric.name} of {recipe!r} not for {device} but {known}: not compared"
