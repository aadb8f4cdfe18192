"""What the tools are tried on side by side: a workload, what may be looked at, and how small the network is to get."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from torch import nn

from compress.data import AnySplit
from compress.data.loaders import drawn
from compress.recipe.training_batches import TrainingBatches
from compress.results import Metric
from compress.workload.workload import Workload, dense_model, judge_on, load_workload

_BATCH_SIZE = 64
# Parameters that may be left; of any other workload these shares of them.
_TARGETS: Mapping[str, tuple[int, ...]] = {"cifar100": (4_090_000, 2_500_000, 1_500_000)}
_SHARES = (0.67, 0.42)


@dataclass(frozen=True, kw_only=True)
class Trial:
    """A network, how small it is to get, and what may be looked at.

    Attributes:
        workload: where it comes from.
        dense: the network.
        test: examples that it is judged on.
        plain: calibration examples as they are.
        augmented: likewise, as training shows them.
        target: how many parameters may be left; None where all may.
    """

    workload: Workload
    dense: nn.Module
    test: AnySplit
    plain: TrainingBatches
    augmented: TrainingBatches
    target: int | None = None

    @property
    def example(self) -> tuple[Any, ...]:
        """The arguments of one forward pass."""
        return self.workload.inputs.args

    @property
    def metric(self) -> Metric:
        """What a model is judged by: the first quality of the workload."""
        return self.workload.qualities[0].metric

    def judged(self, model: nn.Module) -> float:
        """How a model does on the test examples."""
        quality = self.workload.qualities[0]
        return judge_on(self.workload, model, self.test, [quality], dense=self.dense)[quality.name].value


def trial_of(spec: str, *, calibration: int, examples: int) -> Trial:
    """A workload's trained network, with so many examples to look at, and to be judged on, by fixed seeds."""
    workload = load_workload(spec)
    plain = TrainingBatches(
        split=workload.dataset.train, batches=calibration // _BATCH_SIZE, batch_size=_BATCH_SIZE, seed=0
    )
    return Trial(
        workload=workload,
        dense=dense_model(workload),
        test=drawn(workload.dataset.test, examples, seed=0),
        plain=plain,
        augmented=replace(plain, augmented=True),
    )


def targets_of(trial: Trial) -> tuple[int, ...]:
    """How small the network is to get, from the mildest cut on."""
    shares = tuple(round(share * num_params(trial.dense)) for share in _SHARES)
    return _TARGETS.get(trial.workload.name, shares)


def num_params(model: nn.Module) -> int:
    """How many parameters a model has."""
    return sum(parameter.numel() for parameter in model.parameters())
