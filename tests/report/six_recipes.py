"""A run of the six recipes of this repository, as its own baseline recorded it, made worse in one way or another.

Counts and errors are those of the committed baseline. Times and memory are made up, for which classes of machine the
committed one knows is nothing that a test may rest on.
"""

from __future__ import annotations

import dataclasses
import functools
import tomllib
from pathlib import Path

import numpy as np

from compress.gate.baseline import Baseline, Entry, load_baseline
from compress.gate.demands import Rules, demand_comparison
from compress.gate.judge import judge
from compress.gate.limits import parse_limits
from compress.pytest_plugin.meter import NO_CUDA
from compress.results import METRICS, Environment, Kind, Measurement, Metric

ROOT = Path(__file__).parents[2]
RECIPES = sorted((ROOT / "benchmarks" / "recipes").glob("*.toml"))
DEVICE = "cpu-avx512_vnni-1t"
# All recipes' limits hold at it.
RATIO = 0.7
ENVIRONMENT = Environment(python="3.11.9", torch="2.15.0", cpu="Test CPU", cpu_class=DEVICE)


def _recorded_on_one_machine() -> Baseline:
    """The committed baseline with the times and memory of one class of processor, the same for every recipe."""
    baseline = load_baseline(ROOT / "baselines" / "digits.json")
    measured = {metric.name: {DEVICE: _made_up(metric)} for metric in METRICS.values() if metric.device == "cpu"}
    return dataclasses.replace(
        baseline,
        path=Path("baselines/digits.json"),
        environments={DEVICE: ENVIRONMENT},
        recipes={recipe: {**metrics, **measured} for recipe, metrics in baseline.recipes.items()},
    )


def _made_up(metric: Metric) -> Entry:
    dense = 60 * 2.0**20 if metric.kind is Kind.MEMORY else 5.0
    entry = Entry(metric=metric.name, dense=dense, compressed=RATIO * dense, device=DEVICE)
    if metric.kind is Kind.TIME:
        return dataclasses.replace(entry, ratio=RATIO, ratio_interval=(RATIO - 0.005, RATIO + 0.005))
    return entry


CARD = {"cpu": DEVICE, "cuda": "cuda-sm90"}
BASELINE = _recorded_on_one_machine()
PAIRS, EXAMPLES = 60, BASELINE.num_examples
# Wider than any bound is away from what was recorded.
NOISY = 1.3


@functools.cache
def run(*, cuda=False, device=DEVICE, worse=1.0, noise=1.001, lost=0, limited=True, compared=True):
    """The verdicts of a run in the order in which the benchmarks give them.

    Args:
        cuda: whether the machine has a device.
        device: class of its CPU.
        worse: what every value but the errors is multiplied by.
        noise: what times vary by, up and down, as a factor.
        lost: how many more examples a compressed model gets wrong.
        limited: whether the recipes' limits are held.
        compared: whether with the baseline.
    """
    verdicts = []
    for path in RECIPES:
        limits = parse_limits(tomllib.loads(path.read_text(encoding="utf-8"))["limits"], where=str(path))
        recorded = [one for one in METRICS.values() if one.device == "cuda" or BASELINE.entries(path.stem, one.name)]
        for metric in recorded:
            measured = _measured(metric, path.stem, cuda=cuda, device=device, worse=worse, noise=noise, lost=lost)
            verdict = judge(
                measured,
                recipe=path.stem,
                limit=limits.get(metric.name) if limited else None,
                baseline=BASELINE if compared else None,
                data_sha256=BASELINE.data_sha256,
            )
            verdicts.append(demand_comparison(verdict, Rules()) if limited else verdict)
    return tuple(verdicts)


def _measured(metric, recipe, *, cuda, device, worse, noise, lost):
    if metric.device == "cuda" and not cuda:
        return Measurement(metric=metric.name, unmeasured=NO_CUDA)
    # What nobody recorded on a card is as on the processor.
    twin = {"cuda_peak_bytes": "cpu_peak_bytes", "cuda_time_ms": "cpu_time_ms"}.get(metric.name, "cpu_latency_ms")
    entries = BASELINE.entries(recipe, twin if metric.device == "cuda" else metric.name)
    entry = next(iter(entries.values()))
    where = {"": "", "cpu": device, "cuda": CARD["cuda"]}[metric.device]
    if metric.kind is Kind.ERROR:
        return _errors(metric.name, round(entry.dense * EXAMPLES), round(entry.compressed * EXAMPLES) + lost)
    if metric.kind is not Kind.TIME:
        return Measurement(metric=metric.name, dense=entry.dense, compressed=worse * entry.compressed, device=where)
    # Slow for a while, then fast: no order of the pairs hides it.
    factors = np.where(np.arange(PAIRS) % 2, noise, 1 / noise)
    pairs = tuple((entry.dense, entry.dense * entry.ratio * worse * factor) for factor in factors.tolist())
    return Measurement(
        metric=metric.name, dense=entry.dense, compressed=worse * entry.compressed, device=where, pairs=pairs
    )


def _errors(name, dense, compressed):
    """Both models fail at the first examples, one of them at some more."""
    right = [np.arange(EXAMPLES) >= wrong for wrong in (dense, compressed)]
    bits = tuple(np.packbits(one).tobytes() for one in right)
    return Measurement(
        metric=name,
        dense=dense / EXAMPLES,
        compressed=compressed / EXAMPLES,
        correct=(bits[0], bits[1]),
        num_examples=EXAMPLES,
    )
