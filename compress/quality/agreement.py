"""Qualities that need no targets: how near outputs come to the dense model's, and a file's to its own model's."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from compress.calling.fidelity import powers
from compress.quality.quality import Quality
from compress.quality.reductions import of_means
from compress.quality.tensors import tensor_of


def output_error() -> Quality:
    """Relative error of a model's outputs, of any structure, to those of the dense model, over all examples.

    The root of the mean, over the tensors that are put out, of the error's power over the dense tensor's own; see
    :func:`compress.calling.fidelity.relative_error`. Every tensor has a row for each example; where not all have,
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


def artifact_output_error() -> Quality:
    """The same of a file that a runtime executes to the model it was made of."""
    return replace(output_error(), name="artifact_output_error")


def artifact_answer_error() -> Quality:
    """Share of examples to which such a file gives another answer: logits ``[n, num_classes]`` of both."""

    def rows(outputs: Any, exact: Any) -> Tensor:
        found, wanted = (tensor_of(one, "logits").argmax(dim=1) for one in (outputs, exact))
        return (found != wanted).reshape(len(wanted), -1).any(dim=1)

    return Quality(name="artifact_answer_error", rows=rows, better="lower", is_error=True, against="dense")


def parity_of(qualities: Iterable[Quality]) -> Quality:
    """What a file is held to its model by, where models are judged by these."""
    return artifact_answer_error() if any(quality.of_classes for quality in qualities) else artifact_output_error()


def _of_powers(means: NDArray[np.float64]) -> NDArray[np.float64]:
    noise, signal = means[:, ::2], means[:, 1::2]
    # Without an error there is none, of whatever it would be a part.
    ratios = np.where(noise == 0, 0.0, noise / signal)
    found: NDArray[np.float64] = np.sqrt(ratios.mean(axis=1))
    return found


_relative = of_means(_of_powers)
