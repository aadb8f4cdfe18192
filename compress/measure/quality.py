"""How good a model is at its task, with what every test example gave, so that two models compare example by example."""

from __future__ import annotations

import numpy as np
from torch import nn

from compress.errors import MeasureError, first_line
from compress.quality import Judged, OwnMetric
from compress.results import METRICS, Kind, Measurement, Scores
from compress.system.cpu import cpu_class


def quality_measurement(compressed: Judged, dense: Judged) -> Measurement:
    """One quality of both models, judged on the same examples.

    Raises:
        MeasureError: if they were not.
    """
    metric, count = compressed.quality.metric, len(compressed.rows)
    if len(dense.rows) != count:
        raise MeasureError(
            f"{metric.name} of two models takes the same examples, got {len(dense.rows):,} and {count:,} of them"
        )
    declared = None if metric.name in METRICS else metric
    if metric.kind is Kind.ERROR:
        return Measurement(
            metric=metric.name,
            declared=declared,
            dense=dense.value,
            compressed=compressed.value,
            correct=(_correct(dense), _correct(compressed)),
            num_examples=count,
        )
    return Measurement(
        metric=metric.name,
        declared=declared,
        dense=dense.value,
        compressed=compressed.value,
        scores=Scores(
            dense=dense.rows, compressed=compressed.rows, reduce=compressed.quality.reduce, groups=compressed.groups
        ),
        num_examples=count,
    )


def own_measurement(metric: OwnMetric, compressed: nn.Module, dense: nn.Module, threads: int) -> Measurement:
    """A workload's own metric of both models.

    Raises:
        MeasureError: if it cannot be measured, or gives no number.
    """
    values = []
    for model in (dense, compressed):
        try:
            values.append(float(metric.measure(model)))
        except Exception as cause:
            raise MeasureError(f"the metric {metric.name!r} could not be measured: {first_line(cause)}") from cause
    return Measurement(
        metric=metric.name,
        declared=metric.metric,
        dense=values[0],
        compressed=values[1],
        device=cpu_class(threads) if metric.metric.device else "",
    )


def _correct(judged: Judged) -> bytes:
    """One bit for each example, set where it was right."""
    return np.packbits(judged.rows[:, 0] == 0).tobytes()
