"""Verdicts of every outcome, as one run of two recipes might give them."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from compress.gate.judge import judge
from compress.gate.limits import Limit
from compress.results import Measurement
from tests.gate.samples import DATA, DEVICE, IDENTITY, baseline_of, memory, params, top1

LIMITS = {
    "num_params": Limit(metric="num_params", max_ratio=0.65, where="r.toml"),
    "top1_error": Limit(metric="top1_error", max_increase=0.01, where="r.toml"),
    "cpu_latency_ms": Limit(metric="cpu_latency_ms", max_ratio=1.0, where="r.toml"),
}


def times(dense, compressed):
    """A time without noise."""
    pairs = ((dense, compressed),) * 10
    return Measurement(metric="cpu_latency_ms", dense=dense, compressed=compressed, device=DEVICE, pairs=pairs)


def verdicts(folder):
    """Passed, regressed, inconclusive, not measured, not gated and not run."""
    baseline = dataclasses.replace(baseline_of(folder, params()), path=Path("baselines/digits.json"))
    no_card = Measurement(metric="cuda_latency_ms", unmeasured="there is no CUDA device")
    runs = {
        "structured": (no_card, params(), top1(range(20), range(20, 52), 1000), times(5.25, 4.1)),
        "int8": (times(5.0, 6.0), top1(range(20), range(21), 1000), memory(), no_card),
    }
    return [
        judge(
            measurement,
            recipe=recipe,
            limit=LIMITS.get(measurement.metric),
            baseline=baseline if measurement.metric == "num_params" else None,
            data_sha256=DATA,
            identity=IDENTITY,
        )
        for recipe, measurements in runs.items()
        for measurement in measurements
    ]
