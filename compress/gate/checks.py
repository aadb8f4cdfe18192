"""What can be checked and what a check came to: the vocabulary of verdicts, and the numbers that they rest on."""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import StrEnum

from compress.errors import MeasureError
from compress.gate.statistics import RatioInterval, min_pairs, num_correct, paired_ratio
from compress.results import METRICS, Kind, Measurement, Metric

CONFIDENCE = 0.99

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
    """

    side: Side
    status: Status
    text: str
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Facts:
    """A measurement that holds numbers that can be compared.

    Attributes:
        metric: what was measured.
        measurement: the numbers as they came.
        dense, compressed: its values.
        intervals: times only: the interval of the ratio, one for each run of pairs.
    """

    metric: Metric
    measurement: Measurement
    dense: float
    compressed: float
    intervals: tuple[RatioInterval, ...] = ()


def gather(measurement: Measurement) -> Facts | str:
    """The numbers of a measurement, or the reason why there are none to compare."""
    metric = METRICS[measurement.metric]
    if measurement.unmeasured is not None:
        return measurement.unmeasured
    dense, compressed = measurement.dense, measurement.compressed
    if dense is None or compressed is None:
        return f"the {'dense' if dense is None else 'compressed'} model has no value"
    for model, value in (("dense", dense), ("compressed", compressed)):
        if not 0 <= value <= (1 if metric.kind is Kind.ERROR else math.inf) or math.isinf(value):
            return f"the {model} model's value is {value}, which {metric.name} cannot be"
    if metric.device and not measurement.device:
        return f"its class of device is not known, and {metric.name} holds only within one"
    intervals: tuple[RatioInterval, ...] = ()
    try:
        if metric.kind is Kind.TIME:
            intervals = _intervals(measurement)
        elif measurement.correct is not None:
            _check_bits(measurement, (dense, compressed))
    except MeasureError as error:
        return str(error)
    return Facts(metric=metric, measurement=measurement, dense=dense, compressed=compressed, intervals=intervals)


def _intervals(measurement: Measurement) -> tuple[RatioInterval, ...]:
    needed = min_pairs(CONFIDENCE)
    if len(measurement.pairs) < needed:
        raise MeasureError(
            f"the {100 * CONFIDENCE:g} % interval of a ratio of times takes at least {needed} pairs, "
            f"got {len(measurement.pairs)}"
        )
    return (paired_ratio(measurement.pairs, confidence=CONFIDENCE),)


def _check_bits(measurement: Measurement, errors: tuple[float, float]) -> None:
    n = measurement.num_examples
    if n < 1:
        raise MeasureError(f"an error takes at least one example, got {n}")
    for error, correct in zip(errors, measurement.correct or (), strict=True):
        counted = 1 - num_correct(correct, n) / n
        if abs(counted - error) > _ERROR_ROUNDING:
            raise MeasureError(f"the error {error:.6g} is not that of its {n:,} single results, {counted:.6g}")
