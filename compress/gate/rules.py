"""One measurement against one bound: how each kind of metric compares with the dense model and with its baseline."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from compress.gate.baseline import Entry, as_recorded
from compress.gate.checks import CONFIDENCE, Check, Facts, Side, Status
from compress.gate.error_rules import baseline_of_error, baseline_of_increase, limit_of_error, stale_note
from compress.gate.figures import write_change, write_exact, write_increase
from compress.gate.limits import Limit, exceeds, is_beyond
from compress.gate.score_rules import baseline_of_score, baseline_of_score_change, limit_of_score
from compress.gate.statistics import RatioInterval, relative_ratio
from compress.results import Kind


def hold_limit(facts: Facts, limit: Limit) -> Check:
    """Hold a compressed model against what its recipe promises relative to the dense model."""
    return _LIMIT_RULES[facts.metric.kind](facts, limit)


def hold_baseline(
    facts: Facts, entry: Entry, where: str, *, tolerance: float, same_model: bool, margins: float = 1.0
) -> Check:
    """Hold a compressed model against what was recorded of it before.

    Args:
        facts: what was measured now.
        entry: what was recorded, on the same class of device.
        where: the baseline file.
        tolerance: how far a count or bytes may lie above what was recorded, as a fraction of it.
        same_model: whether both models are, to the bit, those of the baseline: an error is then compared with what it
            was, else by its increase over the dense model.
        margins: how many margins that increase may lie above what was recorded.
    """
    match facts.metric.kind:
        case Kind.EXACT | Kind.MEMORY:
            return _baseline_of_value(facts, entry, where, tolerance)
        case Kind.TIME:
            return _baseline_of_ratio(facts, entry, where)
        case Kind.ERROR:
            if same_model:
                return baseline_of_error(facts, entry, where)
            return baseline_of_increase(facts, entry, where, margins)
        case Kind.SCORE:
            if same_model:
                return baseline_of_score(facts, entry, where)
            return baseline_of_score_change(facts, entry, where, margins)


def place_ratio(intervals: Sequence[RatioInterval], bound: float) -> Status:
    """Where a ratio lies: beyond the bound only if every process's whole interval does, within it only if all do."""
    if all(exceeds(interval.low, bound) for interval in intervals):
        return Status.REGRESSED
    if not any(exceeds(interval.high, bound) for interval in intervals):
        return Status.PASSED
    return Status.INCONCLUSIVE


def change_bound(tolerance: float) -> float:
    """The factor to which a ratio may have grown since: halfway between "as before" and what must be found.

    A slow-down that lies on the bound itself is found every other time at best, and an honest gate leaves it undecided.
    Halfway, either mistake is equally far away.
    """
    return 1 + tolerance / 2


def _limit_of_value(facts: Facts, limit: Limit) -> Check:
    excess = limit.broken_by(facts.dense, facts.compressed)
    return Check(
        side=Side.LIMIT,
        status=Status.REGRESSED if excess else Status.PASSED,
        text=f"{limit.describe(facts.dense)}: {excess or 'held'}",
    )


def _limit_of_ratio(facts: Facts, limit: Limit) -> Check:
    status = place_ratio(facts.intervals, limit.bound(1.0))
    outcome = _in_words(status, len(facts.intervals))
    return Check(side=Side.LIMIT, status=status, text=f"{limit.describe(facts.dense)}: {outcome}")


def _baseline_of_value(facts: Facts, entry: Entry, where: str, tolerance: float) -> Check:
    metric, recorded = facts.metric, entry.compressed
    # Rounded alike, the same value never differs from itself.
    value = as_recorded(metric, facts.compressed)
    worst, best = recorded * (1 + tolerance), recorded * (1 - tolerance)
    if metric.higher_is_better:
        worst, best = best, worst
    broken = is_beyond(metric, value, worst)
    change = write_change(metric, recorded, facts.compressed)
    if broken:
        excess = f"{'missed' if metric.higher_is_better else 'exceeded'} by "
        excess += write_increase(metric, facts.compressed - recorded)
        outcome = f"{excess} ({change})" if change else excess
    else:
        outcome = "held"
    now, before = write_exact(metric, facts.compressed), write_exact(metric, recorded)
    stale = is_beyond(metric, best, value)
    allowance = f" {'-' if metric.higher_is_better else '+'} {100 * tolerance:g} %" if tolerance else ""
    text = f"{before}{allowance} ({where}): {outcome}"
    notes = (stale_note(f"{now} against {before}"),) if stale else ()
    status = Status.REGRESSED if broken else Status.PASSED
    return Check(side=Side.BASELINE, status=status, text=text, notes=notes, stale=stale)


def _baseline_of_ratio(facts: Facts, entry: Entry, where: str) -> Check:
    """Whether the ratio has changed since, both uncertainties considered, by more than half of what must be found."""
    recorded, tolerance = _recorded_ratio(entry), facts.metric.tolerance
    changes = [relative_ratio(interval, recorded) for interval in facts.intervals]
    status = place_ratio(changes, change_bound(tolerance))
    stale = all(exceeds(1 - tolerance / 2, change.high) for change in changes)
    spread = f" (x{recorded.low:.3f} to x{recorded.high:.3f})" if recorded.low < recorded.high else ""
    allowance = f" + {50 * tolerance:g} %, halfway to the {100 * tolerance:g} % that must be found"
    now = f"x{facts.measurement.ratio:.3f}"
    return Check(
        side=Side.BASELINE,
        status=status,
        text=f"x{recorded.median:.3f}{spread}{allowance} ({where}): {_in_words(status, len(facts.intervals))}",
        notes=(stale_note(f"{now} against x{recorded.median:.3f}"),) if stale else (),
        stale=stale,
    )


def _recorded_ratio(entry: Entry) -> RatioInterval:
    ratio = entry.ratio or 0.0
    low, high = entry.ratio_interval or (ratio, ratio)
    return RatioInterval(median=ratio, low=low, high=high, num_pairs=0, confidence=CONFIDENCE)


def _in_words(status: Status, num_processes: int) -> str:
    each = f" in each of {num_processes} processes" if num_processes > 1 else ""
    match status:
        case Status.REGRESSED:
            return f"exceeded, all of the interval lies above it{each}"
        case Status.PASSED:
            return f"held, all of the interval lies within it{each}"
        case _ if num_processes > 1:
            return f"undecided, {num_processes} processes do not all lie on one side of it"
        case _:
            return "undecided, the interval reaches across it"


_LIMIT_RULES: Mapping[Kind, Callable[[Facts, Limit], Check]] = {
    Kind.EXACT: _limit_of_value,
    Kind.MEMORY: _limit_of_value,
    Kind.TIME: _limit_of_ratio,
    Kind.ERROR: limit_of_error,
    Kind.SCORE: limit_of_score,
}
