"""The steps that a recipe can name: for each its settings, and what it does to a model."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from torch import nn

from compress.pruning.checks import check_ratio
from compress.pruning.importance import importance_of
from compress.pruning.structured import prune_channels
from compress.pruning.unstructured import Scope, check_settings, prune_weights
from compress.recipe.context import Context
from compress.recipe.fit_step import Fit, apply_fit
from compress.recipe.lowrank_steps import Factorize, apply_factorize


@dataclass(frozen=True, kw_only=True)
class PruneChannels:
    """Settings of the step ``prune_channels``, see :func:`compress.prune_channels`."""

    pruning_ratio: float = 0.2
    importance: str = "l1"

    def __post_init__(self) -> None:
        # Now, not after hours of training the dense model.
        check_ratio(self.pruning_ratio)
        importance_of(self.importance)


@dataclass(frozen=True, kw_only=True)
class PruneWeights:
    """Settings of the step ``prune_weights``, see :func:`compress.prune_weights`."""

    sparsity: float = 0.2
    scope: Scope = "layer"

    def __post_init__(self) -> None:
        check_settings(self.sparsity, self.scope)


class Step(NamedTuple):
    """One kind of step: the dataclass of its settings, and ``apply(settings, model, context) -> model``."""

    settings: type[Any]
    apply: Callable[[Any, nn.Module, Context], nn.Module]


def _prune_channels(settings: PruneChannels, model: nn.Module, context: Context) -> nn.Module:
    return prune_channels(model, context.workload.example_input, settings.pruning_ratio, settings.importance)


def _prune_weights(settings: PruneWeights, model: nn.Module, _: Context) -> nn.Module:
    return prune_weights(model, settings.sparsity, settings.scope)


STEPS: Mapping[str, Step] = {
    "factorize": Step(Factorize, apply_factorize),
    "fit": Step(Fit, apply_fit),
    "prune_channels": Step(PruneChannels, _prune_channels),
    "prune_weights": Step(PruneWeights, _prune_weights),
}


def apply_step(settings: object, model: nn.Module, context: Context) -> nn.Module:
    """What the step with these ``settings`` makes of ``model``."""
    apply = next(step.apply for step in STEPS.values() if step.settings is type(settings))
    return apply(settings, model, context)
