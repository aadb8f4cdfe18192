"""Measurements and baselines with known outcomes, shared by the tests of the gate and its reports."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from compress.gate.baseline import Baseline, load_baseline
from compress.gate.judge import judge
from compress.gate.recording import Provenance, record
from compress.results import Environment, Identity, Measurement

DEVICE = "cpu-avx2-1t"
DATA = "0123456789ab" + "0" * 52
ENVIRONMENT = Environment(python="3.11.9", torch="2.15.0", cpu="Test CPU", cpu_class=DEVICE)
IDENTITY = Identity(dense="d" * 64, compressed="c" * 64, recipe="5" * 64, built_on=DEVICE)
PROVENANCE = Provenance(workload="digits", data_sha256=DATA, num_examples=500, environment=ENVIRONMENT)


def params(compressed=4_089_523, dense=6_402_564):
    """Parameters of the reference network, pruned by 20 %."""
    return Measurement(metric="num_params", dense=dense, compressed=compressed)


def memory(compressed=46_980_000, device=DEVICE):
    """Peak memory in bytes."""
    return Measurement(metric="cpu_peak_bytes", dense=58_660_000, compressed=compressed, device=device)


def bits(wrong, n=500):
    """Packed correctness of ``n`` examples of which those at the positions ``wrong`` failed."""
    right = np.ones(n, dtype=bool)
    right[list(wrong)] = False
    return np.packbits(right).tobytes()


def top1(dense_wrong, compressed_wrong, n=500):
    """Top-1 error of two models that fail at the given positions."""
    return Measurement(
        metric="top1_error",
        dense=len(dense_wrong) / n,
        compressed=len(compressed_wrong) / n,
        correct=(bits(dense_wrong, n), bits(compressed_wrong, n)),
        num_examples=n,
    )


def latency(ratio=0.8, *, noise=0.01, pairs=60, seed=0, device=DEVICE):
    """Times of two models of which the compressed one takes ``ratio`` of the other's."""
    generator = np.random.default_rng(seed)
    dense = 5 * np.exp(generator.normal(0, noise, pairs))
    compressed = 5 * ratio * np.exp(generator.normal(0, noise, pairs))
    return Measurement(
        metric="cpu_latency_ms",
        dense=float(np.median(dense)),
        compressed=float(np.median(compressed)),
        device=device,
        pairs=tuple(zip(dense.tolist(), compressed.tolist(), strict=True)),
    )


def baseline_of(folder: Path, *measurements, recipe="structured", identity=IDENTITY) -> Baseline:
    """A baseline that holds exactly these, of the models that ``held`` is about."""
    path = folder / "digits.json"
    models = {recipe: identity} if identity is not None else {}
    record(path, {recipe: measurements}, provenance=PROVENANCE, models=models)
    return load_baseline(path)


def held(
    measurement,
    *,
    recipe="structured",
    identity=IDENTITY,
    environment=ENVIRONMENT,
    **settings,
):
    """The verdict on a recipe, on the data, the models and the machine that the baseline was recorded on."""
    return judge(
        measurement,
        recipe=recipe,
        data_sha256=DATA,
        identity=identity,
        environment=environment,
        **settings,
    )
