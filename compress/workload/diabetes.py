"""Regression: how a disease progresses within a year, from ten measurements, by a small network."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from compress import quality
from compress.train import FitConfig
from compress.workload.batches import Batches, train_and_test
from compress.workload.workload import Workload

_TEST_EXAMPLES = 142
_BATCH = 32
_WIDTH = 64
# Mean and spread of the progression, so that the network learns numbers around 0.
_MEAN, _SPREAD = 152.0, 77.0


class Progression(nn.Module):
    """``[n, 10]`` standardized measurements to ``[n]``, the progression."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(10, _WIDTH), nn.ReLU(), nn.Linear(_WIDTH, _WIDTH), nn.ReLU(), nn.Linear(_WIDTH, 1)
        )

    def forward(self, measurements: Tensor) -> Tensor:
        numbers: Tensor = self.layers(measurements)[:, 0]
        return _MEAN + _SPREAD * numbers


def squared_error(outputs: Tensor, targets: Tensor) -> Tensor:
    """Mean squared error in units of the progression's spread."""
    return F.mse_loss(outputs / _SPREAD, targets / _SPREAD)


def diabetes() -> Workload:
    """442 patients of scikit-learn's diabetes data, judged by RMSE.

    Source: Efron, Hastie, Johnstone and Tibshirani, "Least Angle Regression", Annals of Statistics 32, 2004.
    """
    return Workload(
        name="diabetes",
        model_factory=Progression,
        data=_data,
        example_inputs=torch.zeros(1, 10),
        quality=[quality.rmse(), quality.r2()],
        loss=squared_error,
        fit=FitConfig(epochs=60, learning_rate=0.02, weight_decay=1e-2, validation_fraction=0.0, autocast="off"),
    )


def _data() -> tuple[Batches, Batches]:
    from sklearn.datasets import load_diabetes  # noqa: PLC0415 - takes a second that other workloads need not pay

    bunch = load_diabetes()
    # Scaled by scikit-learn to a sum of squares of 1 for each measurement.
    measurements = torch.from_numpy(bunch.data).float() * len(bunch.data) ** 0.5
    progression = torch.from_numpy(bunch.target).float()
    return train_and_test(measurements, progression, num_test=_TEST_EXAMPLES, batch_size=_BATCH)
