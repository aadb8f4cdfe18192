"""Sequences: handwritten digits read row by row, each to be named once its last row is read, by a small LSTM."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn, optim

from compress import quality
from compress.train import FitConfig
from compress.workload.batches import Batches, train_and_test
from compress.workload.workload import Workload

NUM_CLASSES = 10
ROWS, VALUES = 8, 8
_WIDTH = 64
_TEST_EXAMPLES = 500
_BATCH = 32
_DARKEST = 16


class Reader(nn.Module):
    """``[n, 8, 8]``, rows of grey values in 0..1, to ``[n, 10]`` logits.

    Source: Hochreiter and Schmidhuber, "Long Short-Term Memory", Neural Computation 9, 1997.
    """

    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(VALUES, _WIDTH, batch_first=True)
        self.head = nn.Sequential(nn.Linear(_WIDTH, _WIDTH), nn.ReLU(), nn.Linear(_WIDTH, NUM_CLASSES))

    def forward(self, rows: Tensor) -> Tensor:
        read, _ = self.lstm(rows)
        logits: Tensor = self.head(read[:, -1])
        return logits


def adam(groups: Sequence[dict[str, Any]]) -> optim.Optimizer:
    """What recurrent layers learn by sooner than by plain descent."""
    return optim.AdamW(list(groups), lr=5e-3)


def sequence() -> Workload:
    """1,797 of scikit-learn's digits as sequences of 8 rows of 8 values, judged by top-1 error."""
    return Workload(
        name="sequence",
        model_factory=Reader,
        data=_data,
        example_inputs=torch.zeros(1, ROWS, VALUES),
        quality=[quality.topk_error(1, NUM_CLASSES)],
        optimizer=adam,
        fit=FitConfig(epochs=30, learning_rate=5e-3, label_smoothing=0.0, validation_fraction=0.0, autocast="off"),
    )


def _data() -> tuple[Batches, Batches]:
    from sklearn.datasets import load_digits  # noqa: PLC0415 - takes a second that other workloads need not pay

    bunch = load_digits()
    rows, labels = torch.from_numpy(bunch.images).float() / _DARKEST, torch.from_numpy(bunch.target).long()
    return train_and_test(rows, labels, num_test=_TEST_EXAMPLES, batch_size=_BATCH)
