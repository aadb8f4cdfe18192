"""What was measured, and on what: plain numbers, free of torch, that all other parts exchange."""

from __future__ import annotations

import itertools
import statistics
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

import numpy as np
from numpy.typing import NDArray


class Unit(StrEnum):
    """What a value counts; decides how it is written in a table."""

    COUNT = "count"
    BYTES = "bytes"
    FRACTION = "fraction"
    MILLISECONDS = "ms"
    NUMBER = "number"  # anything else, in the unit that its title names


class Kind(StrEnum):
    """How two values of a metric may be compared."""

    EXACT = "exact"  # the same on every machine: any change is a change of the model
    ERROR = "error"  # a share of test examples that are wrong: compared by those that changed sides
    SCORE = "score"  # any other figure over test examples: compared by the numbers that each of them gave
    MEMORY = "memory"  # repeatable within one class of device
    TIME = "time"  # only the ratio of dense and compressed, called in turn, means anything


@dataclass(frozen=True, kw_only=True)
class Metric:
    """One criterion of the reference table.

    Attributes:
        name: its key in recipes, baselines and code; carries the unit.
        title: its row in a report.
        short: its row where there is little room, beside a unit.
        unit: what the value counts.
        kind: how values compare.
        tolerance: how far above its baseline a value may lie, as a fraction of the baseline. Of times, how much slower
            is sure to be found: they are held to half of it, so that either mistake is equally far away. Of scores how
            much worse one may be: of shares in their own unit, of others as a fraction.
        device: the device it is measured on, "" where that makes no difference.
        higher_is_better: whether a model is better the higher its value is.
    """

    name: str
    title: str
    short: str
    unit: Unit
    kind: Kind
    tolerance: float = 0.0
    device: str = ""
    higher_is_better: bool = False

    @property
    def is_quality(self) -> bool:
        """Whether it says how good a model is at its task, on test examples."""
        return self.kind in (Kind.ERROR, Kind.SCORE)

    def worse_by(self, before: float, after: float) -> float:
        """By how much ``after`` is worse than ``before``; below 0 where it is better."""
        return before - after if self.higher_is_better else after - before


def metric_of(table: Mapping[str, Any]) -> Metric:
    """The metric that :func:`dataclasses.asdict` took apart, of JSON's types.

    Raises:
        KeyError, TypeError, ValueError: if it is none.
    """
    return Metric(**{**table, "unit": Unit(table["unit"]), "kind": Kind(table["kind"])})


# What comes with this package, in the order of rows in every report. A workload declares others beside them.
METRICS: Mapping[str, Metric] = {
    metric.name: metric
    for metric in (
        Metric(name="num_params", title="parameters", short="parameters", unit=Unit.COUNT, kind=Kind.EXACT),
        Metric(
            name="num_nonzero_params", title="non-zero parameters", short="non-zero", unit=Unit.COUNT, kind=Kind.EXACT
        ),
        Metric(name="macs", title="MACs per image", short="MACs", unit=Unit.COUNT, kind=Kind.EXACT),
        # The container's header may grow by some bytes from one version of a library to the next.
        Metric(
            name="file_bytes", title="file size", short="file size", unit=Unit.BYTES, kind=Kind.EXACT, tolerance=0.005
        ),
        # As it travels and lies in archives: there zeros cost next to nothing. Another zlib packs a little otherwise.
        Metric(
            name="compressed_file_bytes",
            title="file size, deflated",
            short="deflated",
            unit=Unit.BYTES,
            kind=Kind.EXACT,
            tolerance=0.01,
        ),
        Metric(name="top1_error", title="top-1 error", short="top-1 error", unit=Unit.FRACTION, kind=Kind.ERROR),
        Metric(name="top5_error", title="top-5 error", short="top-5 error", unit=Unit.FRACTION, kind=Kind.ERROR),
        # Of outputs to those of the dense model: a quality that needs no targets.
        Metric(
            name="output_error",
            title="output error, relative",
            short="output error",
            unit=Unit.FRACTION,
            kind=Kind.SCORE,
            tolerance=0.005,
        ),
        # Of the file that a runtime executes to the model that it was made of: the one or the other, by the task.
        Metric(
            name="artifact_answer_error",
            title="answers changed by the file",
            short="file's changes",
            unit=Unit.FRACTION,
            kind=Kind.ERROR,
        ),
        Metric(
            name="artifact_output_error",
            title="output error of the file",
            short="file's error",
            unit=Unit.FRACTION,
            kind=Kind.SCORE,
            tolerance=0.005,
        ),
        Metric(
            name="cpu_peak_bytes",
            title="runtime memory, CPU",
            short="CPU memory",
            unit=Unit.BYTES,
            kind=Kind.MEMORY,
            tolerance=0.05,
            device="cpu",
        ),
        Metric(
            name="peak_tensor_bytes", title="live tensors, peak", short="live tensors", unit=Unit.BYTES, kind=Kind.EXACT
        ),
        Metric(
            name="cuda_peak_bytes",
            title="runtime memory, CUDA",
            short="CUDA memory",
            unit=Unit.BYTES,
            kind=Kind.MEMORY,
            tolerance=0.005,
            device="cuda",
        ),
        Metric(
            name="cpu_latency_ms",
            title="time per image, CPU",
            short="CPU time",
            unit=Unit.MILLISECONDS,
            kind=Kind.TIME,
            tolerance=0.05,
            device="cpu",
        ),
        Metric(
            name="cuda_latency_ms",
            title="time per image, CUDA",
            short="CUDA time",
            unit=Unit.MILLISECONDS,
            kind=Kind.TIME,
            tolerance=0.05,
            device="cuda",
        ),
        Metric(
            name="cuda_device_ms",
            title="device time per image, CUDA",
            short="CUDA device",
            unit=Unit.MILLISECONDS,
            kind=Kind.TIME,
            tolerance=0.05,
            device="cuda",
        ),
        Metric(
            name="cuda_graph_ms",
            title="graph replay per image, CUDA",
            short="CUDA graph",
            unit=Unit.MILLISECONDS,
            kind=Kind.TIME,
            tolerance=0.05,
            device="cuda",
        ),
        # The profiler's own cost per operation rides on these two, so they get twice the tolerance.
        Metric(
            name="cpu_time_ms",
            title="total CPU time (profiler)",
            short="CPU profiler",
            unit=Unit.MILLISECONDS,
            kind=Kind.TIME,
            tolerance=0.10,
            device="cpu",
        ),
        Metric(
            name="cuda_time_ms",
            title="total CUDA time (profiler)",
            short="CUDA profiler",
            unit=Unit.MILLISECONDS,
            kind=Kind.TIME,
            tolerance=0.10,
            device="cuda",
        ),
    )
}


# Qualities of other tasks stand where those of image classification do.
_PLACE_OF_QUALITIES = list(METRICS).index("top5_error")

Reduction = Callable[[NDArray[np.float64], NDArray[np.float64]], NDArray[np.float64]]
"""Rows of numbers ``[n, width]``, one for each example, and weights of the examples ``[draws, n]``, to one figure for
each draw, ``[draws]``."""


def in_order(metrics: Iterable[Metric]) -> list[Metric]:
    """Each metric once, in the order of rows in a report: declared ones after the package's own of their kind."""
    places = {name: place for place, name in enumerate(METRICS)}
    once = {metric.name: metric for metric in metrics}

    def place(metric: Metric) -> float:
        return places.get(metric.name, _PLACE_OF_QUALITIES + 0.5 if metric.is_quality else len(places))

    return sorted(once.values(), key=place)


@dataclass(frozen=True, kw_only=True, eq=False)
class Scores:
    """What single test examples gave, of two models, and how that becomes one figure.

    Attributes:
        dense, compressed: ``[n, width]``: a row of numbers for each example.
        reduce: the figure of such rows; None where it is no longer known, as in another process.
        groups: ``[n]``: which examples belong together, as those of one recording do; None where each is on its own.
    """

    dense: NDArray[np.float64]
    compressed: NDArray[np.float64]
    reduce: Reduction | None = None
    groups: NDArray[np.int64] | None = None


@dataclass(frozen=True, kw_only=True)
class Measurement:
    """One metric of a compressed model and of the dense one it came from, measured in the same run.

    Attributes:
        metric: its name.
        declared: what it is, where it is none of :data:`METRICS`.
        dense: the dense model's value, in the metric's unit; None if it could not be measured.
        compressed: the compressed model's value; None if it could not be measured.
        device: the class of device it holds for (``cpu-avx2-1t``, ``cuda-sm90``), "" where it holds on all.
        pairs: times only: (dense, compressed) in milliseconds, in the order they were taken, process by process.
        run_lengths: times only: how many of the pairs each process took; () if all came from one.
        correct: errors only: for dense and compressed, one bit for each test example, packed as by
            ``numpy.packbits``; set where the example was classified right.
        scores: scores only: what each test example gave.
        num_examples: qualities only: how many test examples there are.
        unmeasured: why there is no value; None where there is one.
        inapplicable: whether there is none because there is nothing that it could be of: that fails a run only where a
            limit or a baseline asks for it.
        info: further figures for a reader, never gated.
        notes: what a reader should know of how it was measured.
    """

    metric: str
    declared: Metric | None = None
    dense: float | None = None
    compressed: float | None = None
    device: str = ""
    pairs: tuple[tuple[float, float], ...] = ()
    run_lengths: tuple[int, ...] = ()
    correct: tuple[bytes, bytes] | None = None
    scores: Scores | None = None
    num_examples: int = 0
    unmeasured: str | None = None
    inapplicable: bool = False
    info: Mapping[str, float] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    @property
    def about(self) -> Metric:
        """What was measured."""
        return self.declared or METRICS[self.metric]

    @property
    def runs(self) -> tuple[tuple[tuple[float, float], ...], ...]:
        """The pairs of each process; empty without any."""
        if not self.run_lengths:
            return (self.pairs,) if self.pairs else ()
        ends = list(itertools.accumulate(self.run_lengths))
        return tuple(self.pairs[end - length : end] for end, length in zip(ends, self.run_lengths, strict=True))

    @property
    def ratio(self) -> float | None:
        """``compressed / dense``; for times the mean over processes of each one's median over pairs."""
        if self.pairs:
            return statistics.geometric_mean(
                statistics.median(compressed / dense for dense, compressed in run) for run in self.runs
            )
        if self.compressed is None or not self.dense:
            return None
        return self.compressed / self.dense


@dataclass(frozen=True, kw_only=True)
class Environment:
    """Where a measurement was made: kept beside the numbers so that a reader can tell runs apart.

    Attributes:
        python, torch: versions.
        cpu: the processor's own name.
        cpu_class: instruction set and threads, ``cpu-avx512_vnni-2t``: CPU figures compare within it.
        cuda_class: ``cuda-sm90``, or None without a CUDA device.
        gpu: the CUDA device's own name, or None.
    """

    python: str
    torch: str
    cpu: str
    cpu_class: str
    cuda_class: str | None = None
    gpu: str | None = None


@dataclass(frozen=True, kw_only=True)
class Identity:
    """Which two models were measured, and what made the one of the other.

    Attributes:
        dense, compressed: fingerprints of the models: SHA-256 in hex.
        recipe: SHA-256, in hex, of the steps of the recipe.
        built_on: class of the CPU that built them, or that measured those of a file.
        file: name of the file that the compressed model came from; "" where the recipe was run.
    """

    dense: str
    compressed: str
    recipe: str
    built_on: str
    file: str = ""


@dataclass(frozen=True, kw_only=True)
class LayerChange:
    """What compression made of one layer of the dense model.

    Attributes:
        name: path of the layer in the dense model, ``""`` for tensors that belong to none of its layers.
        kind: its class in the dense model.
        dense_shape: of its largest tensor in the dense model.
        shapes: of what stands there now, the matrices and kernels in order; several where it was factorized.
        dense_elements, elements: numbers in its tensors, before and now.
        dense_bytes, num_bytes: their bytes, before and now.
        zeros: how many of the numbers are exactly zero now.
        dense_dtype, dtype: type of its largest tensor, before and now; "" where nothing is left.
    """

    name: str
    kind: str
    dense_shape: tuple[int, ...]
    shapes: tuple[tuple[int, ...], ...]
    dense_elements: int
    elements: int
    dense_bytes: int
    num_bytes: int
    zeros: int
    dense_dtype: str
    dtype: str

    @property
    def is_factorized(self) -> bool:
        """Whether several smaller factors stand where one tensor stood."""
        return len(self.shapes) > 1

    @property
    def is_quantized(self) -> bool:
        """Whether its numbers are of a narrower type than before."""
        return bool(self.dtype) and self.dtype != self.dense_dtype
