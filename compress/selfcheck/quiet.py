"""Whether a machine is quiet enough to hold times on: one model against itself, as a gated test would measure it."""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn

from compress.gate.checks import ratio_intervals, recorded_ratio
from compress.gate.rules import change_bound
from compress.measure.children import Children, Conditions
from compress.measure.latency import Effort, runs_in, time_measurement
from compress.results import METRICS, Measurement

_METRIC = METRICS["cpu_latency_ms"]


@dataclass(frozen=True, kw_only=True)
class Quietness:
    """What came of comparing a model with itself.

    Attributes:
        latency_ms: median of one forward pass.
        ratio: of one call to the other, 1 in truth; ``low`` and ``high`` are its 99 % interval.
        processes: ``(low, high)`` in each process, all together 99 % sure.
        bound: how far a ratio may grow before the gate calls it slower.
    """

    latency_ms: float
    ratio: float
    low: float
    high: float
    processes: tuple[tuple[float, float], ...]
    bound: float

    @property
    def quiet(self) -> bool:
        """Whether every process settles that the model is as fast as itself."""
        return all(1 / self.bound <= low and high <= self.bound for low, high in self.processes)


def measure_quietness(model: nn.Module, conditions: Conditions, *, seconds: float, processes: int = 3) -> Quietness:
    """Time ``model`` against itself.

    Args:
        model: in eval mode, built by ``conditions.model_factory``.
        conditions: how fresh processes find it, what it is called with, threads.
        seconds: how long that may take; at least 30 pairs are taken in each process.
        processes: how many fresh ones.

    Raises:
        MeasureError: if a process fails, is killed or hangs.
    """
    with Children(processes, threads=conditions.threads) as children:
        runs = runs_in(children, {"dense": model, "compressed": model}, conditions, Effort(seconds=seconds))
    return quietness(time_measurement(_METRIC.name, runs, ""))


def quietness(measured: Measurement) -> Quietness:
    """What a measurement of a model against itself says of the machine."""
    whole = recorded_ratio(measured)
    return Quietness(
        latency_ms=measured.dense or 0.0,
        ratio=whole.median,
        low=whole.low,
        high=whole.high,
        processes=tuple((interval.low, interval.high) for interval in ratio_intervals(measured)),
        bound=change_bound(_METRIC.tolerance),
    )
