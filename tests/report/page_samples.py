"""A whole run for the page: three recipes, their layers, two stored baselines, and a sweep of forty trials."""

from __future__ import annotations

import dataclasses
import itertools
from datetime import UTC, datetime
from pathlib import Path

import numpy as np

from compress.gate.baseline import load_baseline
from compress.gate.history import Version
from compress.gate.judge import judge
from compress.gate.limits import Limit
from compress.gate.recording import record
from compress.report.html import Report
from compress.report.pareto import Candidate, Failure, Sweep
from compress.results import LayerChange, Measurement
from tests.gate.samples import DATA, ENVIRONMENT, PROVENANCE, latency, memory, params, top1

DENSE_BYTES = 25_392_280

_LIMITS = {
    "num_params": Limit(metric="num_params", max_ratio=0.65, where="structured.toml"),
    "file_bytes": Limit(metric="file_bytes", max_ratio=0.65, where="structured.toml"),
    "top1_error": Limit(metric="top1_error", max_increase=0.01, where="structured.toml"),
    "cpu_latency_ms": Limit(metric="cpu_latency_ms", max_ratio=0.95, where="structured.toml"),
    "cuda_latency_ms": Limit(metric="cuda_latency_ms", max_ratio=0.95, where="structured.toml"),
}


def measured(*, compressed_params: int, share: float, wrong: int, ratio: float) -> list[Measurement]:
    """All that one recipe measures."""
    size = round(share * DENSE_BYTES)
    return [
        params(compressed_params),
        Measurement(metric="file_bytes", dense=DENSE_BYTES, compressed=size),
        top1(range(8), range(3, 3 + wrong)),
        memory(round(58_660_000 * share)),
        dataclasses.replace(latency(ratio), run_lengths=(20, 20, 20)),
        Measurement(metric="cuda_latency_ms", unmeasured="no CUDA device"),
    ]


RUNS = {
    "structured": measured(compressed_params=4_089_523, share=0.638, wrong=9, ratio=0.8),
    "unstructured": measured(compressed_params=6_402_564, share=1.0, wrong=11, ratio=1.02),
    "compose": measured(compressed_params=3_100_000, share=0.171, wrong=24, ratio=0.41),
}


def report(folder: Path, **changes: object) -> Report:
    """The page's content; the baselines are written into ``folder``."""
    versions = _versions(folder)
    verdicts = [
        judge(
            measurement,
            recipe=recipe,
            limit=_LIMITS.get(measurement.metric),
            baseline=versions[-1].baseline,
            data_sha256=DATA,
        )
        for recipe, measurements in RUNS.items()
        for measurement in measurements
    ]
    whole = Report(
        workload="digits",
        data_sha256=DATA,
        environment=ENVIRONMENT,
        verdicts=verdicts,
        layers={
            "structured": layers(kept=0.8),
            "unstructured": layers(zeros=0.2),
            "compose": layers(kept=0.8, rank=0.4, dtype="int8"),
        },
        versions=versions,
        sweep=sweep(),
    )
    return dataclasses.replace(whole, **changes)


def layers(*, kept: float = 1.0, zeros: float = 0.0, rank: float = 0.0, dtype: str = "float32") -> list[LayerChange]:
    """A network of sixteen convolutions, of whose channels ``kept`` are left."""
    widths = [3, 64, 64, 192, 128, 192, 208, 160, 224, 256, 288, 320, 320, 384, 384, 512, 512]
    changes = []
    for number, (inputs, outputs) in enumerate(itertools.pairwise(widths)):
        left = (round(outputs * kept), round(inputs * kept) if number else inputs)
        shapes = (((*left, 3, 3)),)
        if rank and number > 8:
            middle = round(rank * left[0])
            shapes = ((middle, left[1], 3, 3), (left[0], middle, 1, 1))
        dense, elements = outputs * inputs * 9, sum(int(np.prod(shape)) for shape in shapes)
        changes.append(
            LayerChange(
                name=f"blocks.{number}.conv",
                kind="Conv2d",
                dense_shape=(outputs, inputs, 3, 3),
                shapes=shapes,
                dense_elements=dense,
                elements=elements,
                dense_bytes=4 * dense,
                num_bytes=elements * (1 if dtype == "int8" else 4),
                zeros=round(zeros * elements * (0.5 + number / 16)),
                dense_dtype="float32",
                dtype=dtype,
            )
        )
        changes.append(
            LayerChange(
                name=f"blocks.{number}.norm",
                kind="BatchNorm2d",
                dense_shape=(outputs,),
                shapes=((left[0],),),
                dense_elements=4 * outputs,
                elements=4 * left[0],
                dense_bytes=16 * outputs,
                num_bytes=16 * left[0],
                zeros=0,
                dense_dtype="float32",
                dtype="float32",
            )
        )
    return changes


def sweep(trials: int = 40) -> Sweep:
    """Channels pruned at random ratios: the more, the smaller, the faster, the worse."""
    generator = np.random.default_rng(0)
    candidates = [
        _candidate("structured", 0.2, generator, settings={}),
        Candidate(
            recipe="unstructured", quality=0.022, file_bytes=DENSE_BYTES, num_params=6_402_564, latency_ratio=1.0
        ),
    ]
    for ratio in generator.uniform(0.02, 0.7, trials):
        settings = {"prune_channels.pruning_ratio": round(float(ratio), 3), "fit.epochs": int(generator.integers(1, 5))}
        candidates.append(_candidate("structured", float(ratio), generator, settings=settings))
    return Sweep(
        workload="digits",
        data_sha256=DATA,
        device=ENVIRONMENT.cpu_class,
        num_examples=500,
        dense=Candidate(recipe="dense", quality=0.016, file_bytes=DENSE_BYTES, num_params=6_402_564, latency_ratio=1.0),
        candidates=tuple(candidates),
        failures=(Failure(recipe="structured", settings={"fit.epochs": 9}, reason="the loss is no number"),),
    )


def _candidate(recipe: str, ratio: float, generator: np.random.Generator, *, settings: dict[str, object]) -> Candidate:
    left = (1 - ratio) ** 2
    time = (0.35 + 0.65 * left) * float(np.exp(generator.normal(0, 0.03)))
    return Candidate(
        recipe=recipe,
        quality=round(500 * (0.014 + 0.09 * ratio**2.5 + float(generator.exponential(0.006)))) / 500,
        file_bytes=round(DENSE_BYTES * left),
        num_params=round(6_402_564 * left),
        latency_ratio=time,
        latency_interval=(time * 0.98, time * 1.02),
        settings=settings,
    )


def _versions(folder: Path) -> list[Version]:
    """The same recipes, a little worse each month ago."""
    versions = []
    for months in (3, 2, 1):
        path = folder / f"digits-{months}.json"
        runs = {
            recipe: measured(
                compressed_params=4_089_523 + 100_000 * months if recipe == "structured" else 6_402_564,
                share=0.64 + 0.02 * months if recipe == "structured" else 1.0,
                wrong=9 + 2 * months,
                ratio=0.8 + 0.02 * months if recipe == "structured" else 1.0,
            )
            for recipe in ("structured", "unstructured")
        }
        record(path, runs, provenance=PROVENANCE)
        baseline = dataclasses.replace(load_baseline(path), path=Path("baselines/digits.json"))
        when = datetime(2026, 10 - months, 1, tzinfo=UTC)
        versions.append(Version(when=when, label=f"digits at {months}0c0ffee", baseline=baseline))
    return versions
