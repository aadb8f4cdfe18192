"""Whether what a runtime executes computes what the model it was made of does, on test examples.

Two questions, by what a workload's models put out: of classifiers, how many examples get another answer; of all others,
how large the error of the outputs is.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import Any

import torch
from torch import nn

from compress.artifacts.runtimes import PACKAGING, Call
from compress.calling.batches import batch_size, in_batches
from compress.calling.inputs import Inputs, each_batch
from compress.calling.outputs import Outputs, selected
from compress.calling.pairs import pinned_threads
from compress.exported.file_model import FileModel
from compress.measure.children import Conditions, ready
from compress.measure.quality import quality_measurement
from compress.quality import Judged, Quality, judge_model
from compress.results import Measurement

_NO_FILE = "the recipe's runtime makes no file of a model"
_NO_MODEL = "the model that the file was made of is not known"

Answered = tuple[Inputs, Any]
"""Inputs of some examples, and what the model itself puts out for them."""


def artifact_parity(
    compressed: nn.Module,
    conditions: Conditions,
    batches: Iterable[Any],
    quality: Quality,
    *,
    outputs: Outputs | None = None,
) -> Measurement:
    """The file that a runtime makes of a model and executes, against the model: the dense value is the model's own, 0.

    Nothing is measured of runtimes that make no file, and of models that are a file themselves.

    Args:
        compressed: the model; moved to the CPU.
        conditions: the runtime, its threads, and the example inputs that the file is made for.
        batches: of the test examples, of any size.
        quality: :func:`compress.quality.artifact_answer_error` or :func:`compress.quality.artifact_output_error`.
        outputs: which of what the model puts out counts.

    Raises:
        ConfigError: if what the runtime needs is not installed.
        ModelError: if the model does not run under it, or not on the examples.
    """
    missing = _NO_FILE if conditions.runtime not in PACKAGING else _NO_MODEL
    if conditions.runtime not in PACKAGING or isinstance(compressed, FileModel):
        return Measurement(metric=quality.name, unmeasured=missing, inapplicable=True)
    with pinned_threads(conditions.threads):
        call = ready(compressed, conditions)
        answers = answered(compressed, batches, outputs)
        judged = parity(call, answers, quality, batch=batch_size(conditions.inputs), outputs=outputs)
    itself = judged.rows.copy()
    # The first column of each pair, or the only one, is what differs.
    itself[:, ::2] = 0.0
    return quality_measurement(judged, replace(judged, rows=itself, value=0.0))


def answered(model: Call, batches: Iterable[Any], outputs: Outputs | None = None) -> Iterator[Answered]:
    """What the model itself puts out for each batch; of pairs (inputs, targets) the inputs are taken."""
    for batch in each_batch(batches, name="test examples"):
        with torch.no_grad():
            yield batch.inputs, selected(batch.inputs.call(model), outputs)


def parity(
    call: Call, answers: Iterable[Answered], quality: Quality, *, batch: int, outputs: Outputs | None = None
) -> Judged:
    """How what a runtime prepared, for ``batch`` inputs at once, answers where the model itself answered."""
    held = replace(quality, against="targets")
    return judge_model(_Served(call, batch), answers, [held], outputs=outputs)[quality.name]


class _Served(nn.Module):
    """What takes ``batch`` inputs at once, called with any number of them."""

    def __init__(self, call: Call, batch: int) -> None:
        super().__init__()
        self._call, self._batch = call, batch

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        return in_batches(self._call, Inputs(args=args, kwargs=kwargs), self._batch)
