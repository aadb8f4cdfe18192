"""How scores compare: figures over the test examples, held by the numbers that each example gave."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from compress.gate.baseline import Entry, as_recorded
from compress.gate.checks import Check, Facts, Side, Status
from compress.gate.error_rules import stale_note
from compress.gate.figures import write_difference, write_exact, write_increase
from compress.gate.limits import Limit, exceeds
from compress.gate.statistics import PairedScores
from compress.results import Metric, Scores, Unit

# Of a change being chance. Exchanges are exact, so no more of the unchanged models than this are called worse.
SIGNIFICANCE = 0.01
_CONFIDENCE = 0.95
_SURE = f"{100 * _CONFIDENCE:g} % bound"


def limit_of_score(facts: Facts, limit: Limit) -> Check:
    """Hold a score against the dense model's, on the same examples in the same run."""
    metric, scores = facts.metric, facts.measurement.scores
    margin = metric.worse_by(facts.dense, limit.bound(facts.dense))
    change = metric.worse_by(facts.dense, facts.compressed)
    paired = None if scores is None else _paired(metric, scores, (scores.dense,), (scores.compressed,))
    return _check_score(Side.LIMIT, metric, limit.describe(facts.dense), _Held(change, margin, paired))


def baseline_of_score(facts: Facts, entry: Entry, where: str) -> Check:
    """Hold a score against what it was when it was recorded, on the same examples."""
    metric, scores = facts.metric, facts.measurement.scores
    margin = score_margin(metric, entry.compressed)
    change = metric.worse_by(entry.compressed, as_recorded(metric, facts.compressed))
    paired = None
    if scores is not None and entry.scores is not None and _are_alike(scores, entry.scores):
        paired = _paired(metric, scores, (entry.scores[1],), (entry.as_kept(scores.compressed, 1),))
    text = f"{write_exact(metric, entry.compressed)} {_sign(metric)} {write_increase(metric, margin)} ({where})"
    check = _check_score(Side.BASELINE, metric, text, _Held(change, margin, paired))
    if exceeds(-change, margin) and (paired is None or paired.p_value(improved=True) < SIGNIFICANCE):
        now, before = write_exact(metric, facts.compressed), write_exact(metric, entry.compressed)
        return replace(check, notes=(*check.notes, stale_note(f"{now} against {before}")), stale=True)
    return check


def baseline_of_score_change(facts: Facts, entry: Entry, where: str, margins: float = 1.0) -> Check:
    """Hold what a score lost against the dense model with what it did when it was recorded, of another build."""
    metric, scores = facts.metric, facts.measurement.scores
    margin = margins * score_margin(metric, entry.compressed)
    before = metric.worse_by(entry.dense, entry.compressed)
    change = as_recorded(metric, metric.worse_by(facts.dense, facts.compressed) - before)
    paired = None
    if scores is not None and entry.scores is not None and _are_alike(scores, entry.scores):
        now = (entry.as_kept(scores.compressed, 1), entry.as_kept(scores.dense, 0))
        paired = _paired(metric, scores, (entry.scores[1], entry.scores[0]), now)
    values = f"{write_exact(metric, entry.compressed)} of {write_exact(metric, entry.dense)}"
    lost = write_difference(metric, entry.compressed - entry.dense)
    text = f"{lost} {_sign(metric)} {write_increase(metric, margin)} over dense, {values} ({where})"
    return _check_score(Side.BASELINE, metric, text, _Held(change, margin, paired))


def _are_alike(now: Scores, recorded: tuple[NDArray[np.float64], NDArray[np.float64]]) -> bool:
    """Whether the rows have the same columns: a quality that gives others now is held by its figure alone."""
    return now.dense.shape[1:] == recorded[0].shape[1:]


def score_margin(metric: Metric, recorded: float) -> float:
    """How much worse than its baseline a score may be, in its own unit."""
    return metric.tolerance if metric.unit is Unit.FRACTION else metric.tolerance * abs(recorded)


class _Held:
    """By how much a score got worse, how much it may, and the examples that say whether that is chance."""

    def __init__(self, change: float, margin: float, paired: PairedScores | None) -> None:
        # The difference of two figures carries the rounding of both, which no set of test examples can show.
        self.change = round(change, 12)
        self.margin = margin
        self.paired = paired


def _paired(
    metric: Metric, scores: Scores, before: tuple[object, ...], after: tuple[object, ...]
) -> PairedScores | None:
    if scores.reduce is None:
        return None
    return PairedScores(
        before=before,  # type: ignore[arg-type]
        after=after,  # type: ignore[arg-type]
        reduce=scores.reduce,
        sign=-1 if metric.higher_is_better else 1,
        groups=scores.groups,
    )


def _sign(metric: Metric) -> str:
    return "-" if metric.higher_is_better else "+"


def _check_score(side: Side, metric: Metric, bound: str, held: _Held) -> Check:
    """A score has regressed only if it is beyond its margin and chance does not explain it."""
    outcome = write_difference(metric, -held.change if metric.higher_is_better else held.change)
    beyond = exceeds(held.change, held.margin)
    if held.paired is None:
        status = Status.REGRESSED if beyond else Status.PASSED
        note = f"without every example's result the {side} was held by its margin alone, chance not considered"
        return Check(side=side, status=status, text=f"{bound}: {outcome}", notes=(note,))
    paired = held.paired
    low, high = paired.lower_bound(_CONFIDENCE), paired.upper_bound(_CONFIDENCE)
    interval = (-high, -low) if metric.higher_is_better else (low, high)
    if not beyond:
        proven = not exceeds(high, held.margin)
        outcome += f", {'proven' if proven else 'not proven'}: {_at_most(metric, high)} ({_SURE})"
        notes = () if proven else (_not_proven(side, metric, held, high),)
        text = f"{bound}: {outcome}"
        return Check(side=side, status=Status.PASSED, text=text, notes=notes, proven=proven, interval=interval)
    p_value = paired.p_value()
    status = Status.REGRESSED if p_value < SIGNIFICANCE else Status.INCONCLUSIVE
    outcome += f", p = {p_value:.2g}"
    notes = ()
    if status is Status.INCONCLUSIVE:
        outcome += ": beyond the margin, but chance may explain it"
        notes = (f"{_units(paired)} cannot tell it from chance: the {_detectable(metric, held)}",)
    return Check(side=side, status=status, text=f"{bound}: {outcome}", notes=notes, interval=interval)


def _at_most(metric: Metric, worse: float) -> str:
    return f"worse by at most {write_increase(metric, worse)}" if worse > 0 else "no worse"


def _not_proven(side: Side, metric: Metric, held: _Held, high: float) -> str:
    assert held.paired is not None  # noqa: S101 - for the type checker
    return (
        f"{_units(held.paired)} do not prove that {metric.name} holds the {side}'s margin of"
        f" {write_increase(metric, held.margin)}: it may be worse by up to {write_increase(metric, high)} ({_SURE}),"
        f" the {_detectable(metric, held)}"
    )


def _detectable(metric: Metric, held: _Held) -> str:
    assert held.paired is not None  # noqa: S101 - for the type checker
    effect = held.paired.detectable(held.margin, significance=SIGNIFICANCE)
    if effect == float("inf"):
        return "minimum detectable effect is out of their reach"
    return f"minimum detectable effect is {write_increase(metric, effect)}"


def _units(paired: PairedScores) -> str:
    if paired.groups is None:
        return f"{paired.num_examples:,} examples"
    return f"{paired.num_examples:,} examples in {paired.num_units:,} groups"
