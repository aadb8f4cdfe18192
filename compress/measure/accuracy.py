"""How often a model is wrong, with every test example's outcome kept, so that two models compare example by example."""

from __future__ import annotations

from compress.results import Measurement
from compress.train import Evaluation


def top1_error(compressed: Evaluation, dense: Evaluation) -> Measurement:
    """Share of test images whose most likely class is wrong, in 0..1."""
    return Measurement(
        metric="top1_error",
        dense=dense.top1_error,
        compressed=compressed.top1_error,
        correct=(dense.top1_correct, compressed.top1_correct),
        num_examples=compressed.num_examples,
    )


def top5_error(compressed: Evaluation, dense: Evaluation) -> Measurement:
    """Share of test images whose class is not among the five most likely, in 0..1."""
    return Measurement(
        metric="top5_error",
        dense=dense.top5_error,
        compressed=compressed.top5_error,
        correct=(dense.top5_correct, compressed.top5_correct),
        num_examples=compressed.num_examples,
    )
