"""What the gate, and other rules, said to each trial of a self-check, and how often they were wrong."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import reduce

from scipy import special

from compress.gate.checks import Status, ratio_intervals, recorded_ratio
from compress.gate.judge import RECORDED_LOOKS, both_runs, confirmed_status
from compress.gate.rules import change_bound, place_ratio
from compress.gate.statistics import relative_ratio
from compress.results import METRICS, Measurement
from compress.selfcheck.trial import Trial

TOLERANCE = METRICS["cpu_latency_ms"].tolerance
# What the gate promises: of identical models, and of slow-downs as large as its tolerance.
MOST_FALSE_ALARMS = 0.01
LEAST_DETECTED = 0.95

_CONFIDENCE = 0.95


@dataclass(frozen=True, kw_only=True)
class Rates:
    """What came of all trials with one slow-down.

    Attributes:
        slowdown: fraction by which the second model was slower.
        trials: how many.
        red, undecided: how often the gate said so.
        red_at_tolerance: how often it would have called red what is beyond the whole tolerance, not half of it.
        mean_red, median_red: how often pytest-benchmark's comparison of means and medians would have failed.
    """

    slowdown: float
    trials: int
    red: int
    undecided: int
    red_at_tolerance: int
    mean_red: int
    median_red: int


def status_against(before: Measurement, now: Measurement, bound: float = change_bound(TOLERANCE)) -> Status:
    """What the gate says to a measurement whose baseline is another one."""
    recorded = recorded_ratio(before)
    return place_ratio([relative_ratio(interval, recorded) for interval in ratio_intervals(now)], bound)


def verdict(before: Measurement, trial: Trial, bound: float = change_bound(TOLERANCE)) -> Status:
    """What the gate says to a trial in the end, its second look included."""
    first = status_against(before, trial.first, bound)
    if first is Status.PASSED or trial.second is None:
        return first
    second = status_against(before, trial.second, bound)
    return confirmed_status(second, status_against(before, both_runs(trial.first, trial.second), bound))


def recorded(trials: Sequence[Trial]) -> Measurement | None:
    """What a baseline would hold after these trials: the last of identical models, as many as a recording takes looks.

    None while there are fewer.
    """
    identical = [trial.measured for trial in trials if trial.slowdown == 0][-RECORDED_LOOKS:]
    return reduce(both_runs, identical) if len(identical) == RECORDED_LOOKS else None


def rates(trials: Sequence[Trial]) -> list[Rates]:
    """How often each rule called each slow-down red, each trial against what :func:`recorded` of those before it.

    pytest-benchmark's rules compare with the last of identical models alone, as its files hold one run.
    """
    found: dict[float, list[tuple[bool, ...]]] = {}
    for place, trial in enumerate(trials):
        before = recorded(trials[:place])
        if before is not None:
            last = next(one for one in reversed(trials[:place]) if one.slowdown == 0)
            found.setdefault(trial.slowdown, []).append(_outcomes(before, last, trial))
    return [
        Rates(
            slowdown=slowdown,
            trials=len(rows),
            red=sum(row[0] for row in rows),
            undecided=sum(row[1] for row in rows),
            red_at_tolerance=sum(row[2] for row in rows),
            mean_red=sum(row[3] for row in rows),
            median_red=sum(row[4] for row in rows),
        )
        for slowdown, rows in sorted(found.items())
    ]


def upper_bound(count: int, trials: int) -> float:
    """The share that so many of so many trials leave possible, 95 % sure (Clopper and Pearson, one-sided)."""
    return 1.0 if count >= trials else float(special.betaincinv(count + 1, trials - count, _CONFIDENCE))


def lower_bound(count: int, trials: int) -> float:
    """The share that so many of so many trials prove at least, 95 % sure (Clopper and Pearson, one-sided)."""
    return 0.0 if count <= 0 else float(special.betaincinv(count, trials - count + 1, 1 - _CONFIDENCE))


def held(found: Sequence[Rates]) -> bool:
    """Whether the gate kept its promise: of false alarms, and of slow-downs as large as its tolerance or larger."""
    return all(
        row.red <= MOST_FALSE_ALARMS * row.trials if row.slowdown == 0 else row.red >= LEAST_DETECTED * row.trials
        for row in found
        if row.slowdown == 0 or row.slowdown >= TOLERANCE
    )


def _outcomes(before: Measurement, last: Trial, trial: Trial) -> tuple[bool, ...]:
    said = verdict(before, trial)
    return (
        said is Status.REGRESSED,
        said is Status.INCONCLUSIVE,
        verdict(before, trial, 1 + TOLERANCE) is Status.REGRESSED,
        _slower(statistics.fmean, last, trial),
        _slower(statistics.median, last, trial),
    )


def _slower(middle: Callable[[Sequence[float]], float], before: Trial, trial: Trial) -> bool:
    """Whether pytest-benchmark's ``--benchmark-compare-fail=mean:5%`` or ``median:5%`` would have failed."""
    then, now = (middle([compressed for _, compressed in measured.measured.pairs]) for measured in (before, trial))
    return now > then * (1 + TOLERANCE)
