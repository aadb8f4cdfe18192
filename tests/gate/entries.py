"""Baselines built entry by entry, for what compares them."""

from __future__ import annotations

from compress.gate.baseline import Baseline, Entry
from tests.gate.samples import DATA, DEVICE, ENVIRONMENT, IDENTITY, bits


def baseline(*entries, **changes):
    """A baseline of the recipe ``structured`` with these entries."""
    metrics = {entry.metric: {entry.device: entry} for entry in entries}
    values = {
        "path": "a.json",
        "workload": "digits",
        "data_sha256": DATA,
        "num_examples": 500,
        "environments": {DEVICE: ENVIRONMENT},
        "recipes": {"structured": metrics},
        "models": {"structured": IDENTITY},
    }
    return Baseline(**{**values, **changes})


def params(compressed, dense=100):
    """Parameters."""
    return Entry(metric="num_params", dense=dense, compressed=compressed)


def memory(compressed):
    """Peak memory."""
    return Entry(metric="cpu_peak_bytes", dense=100_000, compressed=compressed, device=DEVICE)


def latency(ratio, compressed=4.0):
    """A latency, of which only the ratio is held."""
    return Entry(metric="cpu_latency_ms", dense=5.0, compressed=compressed, device=DEVICE, ratio=ratio)


def top1(wrong):
    """The error of a model that fails at these of 500 examples."""
    return Entry(metric="top1_error", dense=0.02, compressed=len(wrong) / 500, correct=bits(wrong))
