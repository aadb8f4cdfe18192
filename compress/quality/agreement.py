"""Qualities that need no targets: how near a model's outputs come to the dense model's."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from compress.fidelity import powers
from compress.quality.quality import Quality
from compress.quality.reductions import of_means


def output_error() -> Quality:
    """Relative error of a model's outputs, of any structure, to those of the dense model, over all examples.

    The root of the mean, over the tensors that are put out, of the error's power over the dense tensor's own; see
    :func:`compress.fidelity.relative_error`. Every tensor has a row for each example; where not all have,
    ``outputs=`` of the workload names those that do. The dense model's own is 0.
    """
    return Quality(
        name="output_error",
        rows=lambda outputs, exact: powers(exact, outputs),
        better="lower",
        reduce=_relative,
        unit="fraction",
        against="dense",
    )


def _of_powers(means: NDArray[np.float64]) -> NDArray[np.float64]:
    noise, signal = means[:, ::2], means[:, 1::2]
    # Without an error there is none, of whatever it would be a part.
    ratios = np.where(noise == 0, 0.0, noise / signal)
    found: NDArray[np.float64] = np.sqrt(ratios.mean(axis=1))
    return found


_relative = of_means(_of_powers)
