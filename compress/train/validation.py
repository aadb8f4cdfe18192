"""What an epoch came to on the examples held out for it, and which epoch was the best."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from compress.calling.inputs import Batch, each_batch, evaluating
from compress.data import AnySplit
from compress.errors import ConfigError
from compress.quality import Quality
from compress.quality.evaluation import num_examples, rows_of
from compress.quality.reductions import mean
from compress.train.checkpoint import State, tensors_of
from compress.train.evaluation import outputs_of
from compress.train.objective import applied
from compress.train.progress import EpochRecord
from compress.train.run import Run


def record_of(state: State, run: Run, loss: Tensor) -> EpochRecord:
    """What the epoch that just ended came to, over all processes."""
    processes = run.processes
    return EpochRecord(
        train_loss=float(processes.total(loss)) / processes.world_size,
        validation=None if run.validation is None else _validated(state, run, run.validation),
        judged_by="loss" if run.quality is None else run.quality.metric.title,
        learning_rate=state.learning_rate,
    )


def _validated(state: State, run: Run, split: AnySplit) -> float:
    """What the held-out examples come to: each process takes its part where parts can be put together again.

    Raises:
        ConfigError: if that is no number, as the area under a curve of a single class is.
    """
    processes, quality = run.processes, run.quality
    parts = processes.world_size if quality is None or quality.reduce is mean else 1
    batches = split.batches(run.batch_size, rank=processes.rank if parts > 1 else 0, world_size=parts)
    rows: list[NDArray[np.float64]] = []
    with evaluating(state.kept), torch.no_grad():
        for batch in each_batch(batches, name="validation examples", device=processes.device):
            found = outputs_of(state.kept, batch.inputs, run.objective.num_classes, outputs=run.objective.outputs)
            count = num_examples(batch)
            if quality is None:
                value = float(applied(run.objective.loss, found, batch.targets, "the loss"))
                rows.append(np.full((count, 1), value))
            else:
                rows.append(rows_of(quality, found, _expected(quality, batch, run), count))
    every = np.concatenate(rows)
    if parts == 1:
        value = float((quality.reduce if quality is not None else mean)(every, np.ones((1, len(every))))[0])
    else:
        sums = processes.total(torch.tensor([every.sum(), float(len(every))], device=processes.device))
        value = float(sums[0]) / float(sums[1])
    if math.isnan(value):
        judged_by = "the loss" if quality is None else f"the quality {quality.name!r}"
        raise ConfigError(
            f"{judged_by} of the {len(every):,} examples held out must be a number to choose the best epoch by, got"
            " nan: hold out more, or others (validation_fraction)"
        )
    return value


def _expected(quality: Quality, batch: Batch, run: Run) -> Any:
    """What outputs are held against: the targets, or what the teacher puts out."""
    if quality.against == "targets":
        return batch.targets
    assert run.objective.teacher is not None  # noqa: S101 - asked for before the training began
    return outputs_of(
        run.objective.teacher.model, batch.inputs, run.objective.num_classes, outputs=run.objective.outputs
    )


def keep_best_(state: State, *, higher_is_better: bool) -> None:
    """Take the epoch that just ended for the best one, unless an earlier one was better."""
    now = state.history[-1].validation
    if now is None:
        state.best_epoch = len(state.history)
        return
    best = state.history[state.best_epoch - 1].validation if state.best_epoch else None
    if best is None or (now >= best if higher_is_better else now <= best):
        state.best_epoch = len(state.history)
        state.best = {name: value.clone() for name, value in tensors_of(state.kept).items()}
