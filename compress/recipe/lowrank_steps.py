"""The step that factorizes layers, with calibration images out of the training split."""

from __future__ import annotations

import math
from dataclasses import dataclass

from torch import nn

from compress.calling.pairs import pinned_threads, ratio_of
from compress.errors import ConfigError
from compress.lowrank import LowRankConfig, factorize
from compress.pruning.timing import paired_latency
from compress.recipe.context import Context
from compress.recipe.training_batches import TrainingBatches

_BATCH_SIZE = 64


@dataclass(frozen=True, kw_only=True)
class Factorize(LowRankConfig):
    """Settings of the step ``factorize``: those of :func:`compress.factorize`, and what it takes from the workload.

    Attributes:
        calibration_images: training images, not augmented, that the layers' outputs are compared on; with 0 of them
            the weights are.
        threads: of the CPU, for a target of "latency".
        seed: of the choice of images.
    """

    calibration_images: int = 256
    threads: int = 1
    seed: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.calibration_images < 0:
            raise ConfigError(f"calibration_images must be at least 0, got {self.calibration_images}")
        if self.threads < 1:
            raise ConfigError(f"threads must be at least 1, got {self.threads}")


def apply_factorize(settings: Factorize, model: nn.Module, context: Context) -> nn.Module:
    """Chains of smaller layers."""
    example = context.workload.inputs

    def latency_ratio(compressed: nn.Module, dense: nn.Module) -> float:
        with pinned_threads(settings.threads):
            return ratio_of(paired_latency(compressed, dense, example))

    calibration = None
    if settings.calibration_images:
        calibration = TrainingBatches(
            split=context.workload.dataset.train,
            batches=math.ceil(settings.calibration_images / _BATCH_SIZE),
            batch_size=min(_BATCH_SIZE, settings.calibration_images),
            seed=settings.seed,
        )
    return factorize(
        model,
        example,
        settings,
        calibration=calibration,
        measure=latency_ratio,
        outputs=context.workload.outputs,
        progress=context.progress,
    )
