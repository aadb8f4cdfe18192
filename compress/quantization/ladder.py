"""What is tried, one after the other, before a layer falls back to float: only as far as the contract asks."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import NamedTuple

from compress.calling.batches import first_of
from compress.quantization import search
from compress.quantization.contract import Accuracy
from compress.quantization.equalization import equalizing_scales
from compress.quantization.observed import folded
from compress.quantization.report import RungReport
from compress.quantization.rungs import adaptive_roundings, corrected_biases, squared_error_ranges
from compress.quantization.search import Found
from compress.quantization.tuning import Tuning
from compress.system.progress import working

# Inputs that the means of biases are measured on.
_BIAS_INPUTS = 128
# Of the layers, the share that is rounded anew: the worst ones.
_WORST = 0.5


Rung = Callable[[Found], Tuning]


def _ranges(found: Found) -> Tuning:
    return replace(found.tuning, ranges=squared_error_ranges(found.simulation))


def _biases(found: Found) -> Tuning:
    inputs = first_of(found.batches[0], _BIAS_INPUTS)
    changed = corrected_biases(found.simulation, search.reference(found), inputs)
    return replace(found.tuning, biases={**found.tuning.biases, **changed})


def _equalized(found: Found) -> Tuning:
    # Ranges and biases were those of other weights.
    return Tuning(scales=equalizing_scales(folded(found.program), found.batches))


def _roundings(found: Found) -> Tuning:
    worst = found.ranked[: max(1, round(_WORST * len(found.ranked)))]
    return replace(found.tuning, weights=adaptive_roundings(found.simulation, found.batches, worst))


RUNGS: tuple[tuple[str, tuple[Rung, ...]], ...] = (
    ("ranges of weights by squared error", (_ranges,)),
    ("biases corrected", (_biases,)),
    ("channels equalized", (_equalized, _ranges, _biases)),
    ("adaptive rounding", (_roundings, _biases)),
)


class Climbed(NamedTuple):
    """Where a climb ended: the model with what was kept, its accuracy with every layer in int8, and what was tried."""

    found: Found
    accuracy: float
    rungs: tuple[RungReport, ...]


def climb(found: Found, accuracy: Accuracy, wanted: float, *, progress: bool) -> Climbed:
    """As many rungs as it takes for the simulated int8 model to reach the accuracy wanted with no layer in float.

    A rung that makes it worse is not kept. Where none is enough, what they brought is, and layers fall back to float
    from there.
    """
    reached = accuracy(found.simulation)
    reports: list[RungReport] = []
    for name, steps in RUNGS:
        if reached >= wanted or not found.ranked:
            break
        tried = found
        with working(f"int8: {name}", shown=progress):
            for step in steps:
                tried = search.retuned(tried, step(tried))
            after = accuracy(tried.simulation)
        is_kept = after > reached
        reports.append(RungReport(name=name, accuracy_before=reached, accuracy_after=after, is_kept=is_kept))
        if is_kept:
            found, reached = tried, after
    if found.tuning != Tuning() and reached < wanted:
        found = search.ranked_anew(found, progress=progress)
    return Climbed(found, reached, tuple(reports))
