"""What the tools are tried on side by side: a workload, what may be looked at, and how small the network is to get."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from torch import nn

from compress.calling.inputs import evaluating
from compress.data import AnySplit
from compress.data.loaders import drawn
from compress.macs import macs_of
from compress.recipe.training_batches import TrainingBatches
from compress.results import Metric
from compress.workload.workload import Workload, dense_model, judge_on, load_workload

_BATCH_SIZE = 64
# Parameters that may be left; of any other workload these shares of them.
_TARGETS: Mapping[str, tuple[int, ...]] = {"cifar100": (4_090_000, 2_500_000, 1_500_000)}
_SHARES = (0.67, 0.42)


@dataclass(frozen=True, kw_only=True)
class Target:
    """How small a network is to get.

    Attributes:
        of: what is counted: parameters, or the multiply-accumulates of one forward pass on the workload's input.
        left: how many there may be.
    """

    of: Literal["params", "macs"] = "params"
    left: int

    def __str__(self) -> str:
        return str(self.left) if self.of == "params" else f"{self.left} MACs"

    @property
    def title(self) -> str:
        """As a table names it: 4.09 M, 44.7 M MACs."""
        return f"{self.left / 1e6:.2f} M" if self.of == "params" else f"{self.left / 1e6:.1f} M MACs"

    def count(self, model: nn.Module, example: tuple[Any, ...]) -> int:
        """How many a model has."""
        if self.of == "params":
            return num_params(model)
        with evaluating(model), torch.no_grad():
            return macs_of(lambda: model(*example)).whole("a target")


@dataclass(frozen=True, kw_only=True)
class Trial:
    """A network, how small it is to get, and what may be looked at.

    Attributes:
        workload: where it comes from.
        dense: the network.
        test: examples that it is judged on.
        plain: calibration examples as they are.
        augmented: likewise, as training shows them.
        target: how small it is to get; None where it stays whole.
    """

    workload: Workload
    dense: nn.Module
    test: AnySplit
    plain: TrainingBatches
    augmented: TrainingBatches
    target: Target | None = None

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


def targets_of(trial: Trial, times_fewer_macs: Sequence[float] = ()) -> tuple[Target, ...]:
    """How small the network is to get, from the mildest cut on: by parameters, unless MACs are asked for."""
    if times_fewer_macs:
        whole = Target(of="macs", left=0).count(trial.dense, trial.example)
        return tuple(Target(of="macs", left=int(whole / times)) for times in sorted(times_fewer_macs))
    shares = tuple(round(share * num_params(trial.dense)) for share in _SHARES)
    return tuple(Target(left=left) for left in _TARGETS.get(trial.workload.name, shares))


def num_params(model: nn.Module) -> int:
    """How many parameters a model has."""
    return sum(parameter.numel() for parameter in model.parameters())
