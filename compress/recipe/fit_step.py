"""The step that trains, on the labels alone or with the dense model for a teacher."""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn

from compress import train
from compress.recipe.context import Context
from compress.train import FitConfig


@dataclass(frozen=True, kw_only=True)
class Fit(FitConfig):
    """Settings of the step ``fit``: those of :func:`compress.fit`, and whether the dense model is the teacher.

    Attributes:
        distill: whether to learn from the dense model's outputs too.
    """

    distill: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.distill:
            self.check_untaught("set distill = true")


def apply_fit(settings: Fit, model: nn.Module, context: Context) -> nn.Module:
    """Train."""
    return train.fit(
        model,
        context.workload.dataset,
        settings,
        **context.workload.training,
        teacher=context.dense if settings.distill else None,
        checkpoint=context.checkpoint,
        progress=context.progress,
    ).model
