"""What can be checked and what a check came to: the vocabulary of verdicts, and the numbers that they rest on."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

import numpy as np

from compress.errors import MeasureError
from compress.gate.statistics import (
    RatioInterval,
    check_rows,
    min_pairs,
    num_correct,
    paired_ratio,
    pooled_ratio,
    process_confidence,
)
from compress.results import Kind, Measurement, Metric, Unit

CONFIDENCE = 0.99
# Half the width of every process's interval at which a measurement may stop before its time is up.
PRECISION = 0.004

_RESAMPLES_OF_A_LOOK = 400

# Errors arrive as single-precision floats at the worst.
_ERROR_ROUNDING = 1e-6


class Status(StrEnum):
    """What a check came to, from best to worst: a missing value weighs more than an undecided one."""

    PASSED = "passed"
    INCONCLUSIVE = "inconclusive"
    NOT_MEASURED = "not_measured"
    REGRESSED = "regressed"


class Side(StrEnum):
    """What a check holds a measurement against."""

    MEASUREMENT = "measurement"  # that there is one at all
    LIMIT = "limit"
    BASELINE = "baseline"


@dataclass(frozen=True, kw_only=True)
class Check:
    """One side of a verdict, in words.

    Attributes:
        side: what was held against.
        status: what it came to.
        text: the bound and how it was met or missed.
        notes: what a reader should know even if it passed.
        proven: whether the measurement proves that the bound is held, and does not merely leave it possible.
        stale: whether the value is so much better than its baseline that this guards nothing any more.
        interval: scores only: what compressed less dense, or less the baseline, is sure to lie in.
    """

    side: Side
    status: Status
    text: str
    notes: tuple[str, ...] = ()
    proven: bool = True
    stale: bool = False
    interval: tuple[float, float] | None = None


@dataclass(frozen=True, kw_only=True)
class Facts:
    """A measurement that holds numbers that can be compared.

    Attributes:
        metric: what was measured.
        measurement: the numbers as they came.
        dense, compressed: its values.
        intervals: times only: the interval of the ratio in each process, of which all must agree.
        pooled: times only: what the processes come to together.
    """

    metric: Metric
    measurement: Measurement
    dense: float
    compressed: float
    intervals: tuple[RatioInterval, ...] = ()
    pooled: RatioInterval | None = None


def gather(measurement: Measurement) -> Facts | str:
    """The numbers of a measurement, or the reason why there are none to compare."""
    metric = measurement.about
    if measurement.unmeasured is not None:
        return measurement.unmeasured
    dense, compressed = measurement.dense, measurement.compressed
    if dense is None or compressed is None:
        return f"the {'dense' if dense is None else 'compressed'} model has no value"
    for model, value in (("dense", dense), ("compressed", compressed)):
        least = -math.inf if metric.kind is Kind.SCORE or metric.unit is Unit.NUMBER else 0
        if not least <= value <= (1 if metric.kind is Kind.ERROR else math.inf) or math.isinf(value):
            return f"the {model} model's value is {value}, which {metric.name} cannot be"
    if metric.device and not measurement.device:
        return f"its class of device is not known, and {metric.name} holds only within one"
    intervals: tuple[RatioInterval, ...] = ()
    try:
        if metric.kind is Kind.TIME:
            intervals = ratio_intervals(measurement)
        elif measurement.correct is not None:
            _check_bits(measurement, (dense, compressed))
        elif measurement.scores is not None:
            _check_scores(measurement, (dense, compressed))
    except MeasureError as error:
        return str(error)
    return Facts(
        metric=metric,
        measurement=measurement,
        dense=dense,
        compressed=compressed,
        intervals=intervals,
        pooled=recorded_ratio(measurement) if intervals else None,
    )


def ratio_intervals(measurement: Measurement) -> tuple[RatioInterval, ...]:
    """The interval of the ratio in each process, as wide as it takes for all of them together to be 99 % sure.

    Raises:
        MeasureError: if a process took too few pairs, or a time is not a positive number.
    """
    confidence = process_confidence(max(1, len(measurement.runs)), CONFIDENCE)
    return _intervals(measurement, confidence)


def recorded_ratio(measurement: Measurement) -> RatioInterval:
    """What all processes come to together, with its 99 % interval: what a reader sees, and a baseline keeps.

    Raises:
        MeasureError: if a process took too few pairs, or a time is not a positive number.
    """
    return pooled_ratio(_intervals(measurement, CONFIDENCE))


def precise_enough(runs: Sequence[Sequence[tuple[float, float]]]) -> bool:
    """Whether these pairs settle the ratio in each process so well that more of them would hardly change a verdict.

    Bounds lie some percent away from where a model usually is; an interval that is small beside that leaves no doubt,
    and each halving of it would take four times the pairs.
    """
    confidence = process_confidence(len(runs), CONFIDENCE)
    intervals = [paired_ratio(run, confidence=confidence, resamples=_RESAMPLES_OF_A_LOOK) for run in runs]
    return all(math.log(interval.high / interval.low) <= 2 * PRECISION for interval in intervals)


def _intervals(measurement: Measurement, confidence: float) -> tuple[RatioInterval, ...]:
    needed = min_pairs(CONFIDENCE)
    for run in measurement.runs or ((),):
        if len(run) < needed:
            raise MeasureError(
                f"the {100 * CONFIDENCE:g} % interval of a ratio of times takes at least {needed} pairs, got {len(run)}"
            )
    return tuple(paired_ratio(run, confidence=confidence) for run in measurement.runs)


def _check_scores(measurement: Measurement, values: tuple[float, float]) -> None:
    scores, n = measurement.scores, measurement.num_examples
    if scores is None or n < 1:
        raise MeasureError(f"a quality takes at least one example, got {n}")
    for value, rows in zip(values, (scores.dense, scores.compressed), strict=True):
        check_rows(rows, n)
        if scores.reduce is not None:
            found = float(scores.reduce(rows, np.ones((1, n)))[0])
            if not math.isclose(found, value, rel_tol=_ERROR_ROUNDING, abs_tol=_ERROR_ROUNDING):
                raise MeasureError(f"the value {value:.6g} is not that of its {n:,} single results, {found:.6g}")


def _check_bits(measurement: Measurement, errors: tuple[float, float]) -> None:
    n = measurement.num_examples
    if n < 1:
        raise MeasureError(f"an error takes at least one example, got {n}")
    for error, correct in zip(errors, measurement.correct or (), strict=True):
        counted = 1 - num_correct(correct, n) / n
        if abs(counted - error) > _ERROR_ROUNDING:
            raise MeasureError(f"the error {error:.6g} is not that of its {n:,} single results, {counted:.6g}")
