"""How errors compare: example by example, so that chance is told from a worse model."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from compress.gate.baseline import Entry, as_recorded
from compress.gate.checks import Check, Facts, Side, Status
from compress.gate.figures import write_exact, write_increase, write_points
from compress.gate.limits import Limit, exceeds
from compress.gate.statistics import detectable_increase, flips, increase_interval, mcnemar

SIGNIFICANCE = 0.05
# How far an error may rise above its baseline: training and evaluation repeat to about that on another machine.
BASELINE_ERROR_MARGIN = 0.005

_SURE = f"{100 * (1 - SIGNIFICANCE):g} % bound"


def limit_of_error(facts: Facts, limit: Limit) -> Check:
    """Hold an error against the dense model's, on the same examples in the same run."""
    measurement = facts.measurement
    change = _change(measurement.correct, measurement.num_examples, facts.compressed - facts.dense)
    # What it allows above a dense model without errors is all that it allows.
    return _check_error(Side.LIMIT, limit.describe(facts.dense), change, limit.bound(0.0))


def baseline_of_error(facts: Facts, entry: Entry, where: str) -> Check:
    """Hold an error against what the compressed model's was when it was recorded, on the same examples."""
    metric, measurement = facts.metric, facts.measurement
    both = (entry.correct, measurement.correct[1]) if entry.correct and measurement.correct else None
    # Its six decimals are all that a recorded error has.
    increase = as_recorded(metric, facts.compressed - entry.compressed)
    change = _change(both, measurement.num_examples, increase)
    margin = write_increase(metric, BASELINE_ERROR_MARGIN)
    text = f"{write_exact(metric, entry.compressed)} + {margin} ({where})"
    check = _check_error(Side.BASELINE, text, change, BASELINE_ERROR_MARGIN)
    if exceeds(-change.increase, BASELINE_ERROR_MARGIN) and change.p_value(improved=True) < SIGNIFICANCE:
        now, before = write_exact(metric, facts.compressed), write_exact(metric, entry.compressed)
        return replace(check, notes=(*check.notes, stale_note(f"{now} against {before}")), stale=True)
    return check


def baseline_of_increase(facts: Facts, entry: Entry, where: str, margins: float = 1.0) -> Check:
    """Hold what an error rose above the dense model's against what it did when it was recorded, of another build.

    Absolute errors of two trainings differ by chance; what compression cost should not. With every example's results of
    all four models, each example is as much worse off as it counts more often as lost: those worse off are held against
    those better off. Without the recorded ones, as few flips are assumed as the recorded errors leave possible.
    """
    metric, measurement = facts.metric, facts.measurement
    increase, before = facts.compressed - facts.dense, entry.compressed - entry.dense
    change = _Change(increase=as_recorded(metric, increase - before), flips=None, n=measurement.num_examples)
    if measurement.correct is not None:
        change = _relative_change(measurement.correct, entry, measurement.num_examples)
    values = f"{write_exact(metric, entry.compressed)} of {write_exact(metric, entry.dense)}"
    margin = margins * BASELINE_ERROR_MARGIN
    text = f"{write_points(before)} + {write_increase(metric, margin)} over dense, {values} ({where})"
    check = _check_error(Side.BASELINE, text, change, margin)
    if exceeds(-change.increase, BASELINE_ERROR_MARGIN) and change.p_value(improved=True) < SIGNIFICANCE:
        gain = f"{write_points(increase)} over dense against {write_points(before)}"
        return replace(check, notes=(*check.notes, stale_note(gain)))
    return check


def increase_change(now: tuple[bytes, bytes], before: tuple[bytes, bytes], n: int) -> tuple[int, int]:
    """Of ``n`` examples, how many flips more were lost than before, and how many fewer.

    Args:
        now, before: which examples the dense and the compressed model classified right, as in a measurement.
        n: how many examples there are.
    """
    worse = _loss(now, n) - _loss(before, n)
    return int(worse.clip(min=0).sum()), int((-worse).clip(min=0).sum())


def stale_note(better: str) -> str:
    """The note that a baseline no longer guards what the model has become, given both values in words."""
    return f"baseline is stale: {better}, record the gain with --benchmark-save"


@dataclass(frozen=True, kw_only=True)
class _Change:
    """How an error changed; ``flips`` are the examples lost and gained of ``n``, None if nobody kept them."""

    increase: float
    flips: tuple[int, int] | None
    n: int

    def p_value(self, *, improved: bool = False) -> float:
        """Of the change being chance; 0 where the margin alone must decide."""
        if self.flips is None:
            return 0.0
        lost, gained = self.flips
        return mcnemar(gained, lost) if improved else mcnemar(lost, gained)

    def upper_bound(self) -> float:
        """The increase that these flips leave possible, one-sided: below a margin, they prove that it is held."""
        lost, gained = self.flips or (0, 0)
        # Against another build an example may count twice.
        return increase_interval(lost, gained, max(self.n, lost + gained), 1 - 2 * SIGNIFICANCE).high


def _change(correct: tuple[bytes, bytes] | None, n: int, increase: float) -> _Change:
    if correct is None:
        # The difference of two errors carries the rounding of both, which no set of test examples can show.
        return _Change(increase=round(increase, 9), flips=None, n=n)
    lost, gained = flips(*correct, n)
    # Counted, it has no rounding that could carry it across a margin.
    return _Change(increase=(lost - gained) / n, flips=(lost, gained), n=n)


def _relative_change(correct: tuple[bytes, bytes], entry: Entry, n: int) -> _Change:
    if entry.correct is not None and entry.dense_correct is not None:
        worse, better = increase_change(correct, (entry.dense_correct, entry.correct), n)
    else:
        lost, gained = flips(*correct, n)
        before = round((entry.compressed - entry.dense) * n)
        worse, better = lost + max(-before, 0), gained + max(before, 0)
    return _Change(increase=(worse - better) / n, flips=(worse, better), n=n)


def _loss(correct: tuple[bytes, bytes], n: int) -> NDArray[np.int8]:
    """``[n]``: 1 where an example was lost, -1 where it was gained."""
    dense, compressed = (np.unpackbits(np.frombuffer(bits, np.uint8), count=n).astype(np.int8) for bits in correct)
    return dense - compressed


def _check_error(side: Side, bound: str, change: _Change, margin: float) -> Check:
    """An error has regressed only if it rose beyond its margin and chance does not explain it."""
    outcome = write_points(change.increase)
    if change.flips is None:
        status = Status.REGRESSED if exceeds(change.increase, margin) else Status.PASSED
        note = f"without every example's result the {side} was held by its margin alone, chance not considered"
        return Check(side=side, status=status, text=f"{bound}: {outcome}", notes=(note,))
    lost, gained = change.flips
    outcome += f", {lost:,} lost and {gained:,} gained of {change.n:,} examples"
    if not exceeds(change.increase, margin):
        high = change.upper_bound()
        proven = not exceeds(high, margin)
        outcome += f", {'proven' if proven else 'not proven'}: at most {write_points(high)} ({_SURE})"
        notes = () if proven else (_not_proven(side, change, margin),)
        return Check(side=side, status=Status.PASSED, text=f"{bound}: {outcome}", notes=notes, proven=proven)
    p_value = change.p_value()
    status = Status.REGRESSED if p_value < SIGNIFICANCE else Status.INCONCLUSIVE
    outcome += f", p = {p_value:.2g}"
    if status is Status.INCONCLUSIVE:
        outcome += ": beyond the margin, but chance may explain it"
        notes = (f"{change.n:,} examples cannot tell it from chance: the {_detectable(change)}",)
        return Check(side=side, status=status, text=f"{bound}: {outcome}", notes=notes)
    return Check(side=side, status=status, text=f"{bound}: {outcome}")


def _not_proven(side: Side, change: _Change, margin: float) -> str:
    """That the error may yet exceed its margin, by how much, and what so many examples can show at all."""
    return (
        f"{change.n:,} examples do not prove that the error holds the {side}'s margin of {100 * margin:.2f} pt: the "
        f"increase may be up to {100 * change.upper_bound():.2f} pt ({_SURE}), the {_detectable(change)}"
    )


def _detectable(change: _Change) -> str:
    lost, gained = change.flips or (0, 0)
    # Where nothing flipped, one example more or less is what might have.
    share = min(1.0, max(lost + gained, 1) / change.n)
    detectable = detectable_increase(share, change.n, significance=SIGNIFICANCE)
    return f"minimum detectable effect at {100 * share:.1f} % flips is {100 * detectable:.2f} pt"
