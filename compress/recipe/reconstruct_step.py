"""The step that fits a cut network's layers again to the dense one's outputs, on images of the training split."""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn

from compress.pruning.reconstruct import reconstruct
from compress.recipe.context import Context
from compress.recipe.pruning_steps import check_least, on_best_device
from compress.recipe.training_batches import TrainingBatches


@dataclass(frozen=True, kw_only=True)
class Reconstruct:
    """Settings of the step ``reconstruct``, see :func:`compress.reconstruct`.

    It comes right after the cut, and makes its recalibration unnecessary: ``recalibration_batches = 0`` saves the time.

    Attributes:
        batches: of the training split, not augmented.
        batch_size: images in each of them.
        seed: of the choice of images and of positions in them.
    """

    batches: int = 8
    batch_size: int = 64
    seed: int = 0

    def __post_init__(self) -> None:
        check_least("batches", self.batches, 1)
        check_least("batch_size", self.batch_size, 1)


def apply_reconstruct(settings: Reconstruct, model: nn.Module, context: Context) -> nn.Module:
    """Fit the layers to those of the model before the recipe's first step."""
    batches = TrainingBatches(
        split=context.workload.dataset.train,
        batches=settings.batches,
        batch_size=settings.batch_size,
        seed=settings.seed,
    )
    return on_best_device(
        model,
        lambda moved: reconstruct(moved, context.dense, batches, seed=settings.seed, progress=context.progress),
    )
