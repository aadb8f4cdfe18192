"""The steps that a recipe can name: for each its settings, and what it does to a model."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from torch import nn

from compress.quantization.aware import QuantizeAwareConfig
from compress.recipe import pruning_steps
from compress.recipe.context import Context
from compress.recipe.fit_step import Fit, apply_fit
from compress.recipe.lowrank_steps import Factorize, apply_factorize
from compress.recipe.quantization_steps import Half, Quantize, apply_half, apply_quantize, apply_quantize_aware_fit
from compress.recipe.reconstruct_step import Reconstruct, apply_reconstruct


class Step(NamedTuple):
    """One kind of step: the dataclass of its settings, and ``apply(settings, model, context) -> model``."""

    settings: type[Any]
    apply: Callable[[Any, nn.Module, Context], nn.Module]


STEPS: Mapping[str, Step] = {
    "factorize": Step(Factorize, apply_factorize),
    "fit": Step(Fit, apply_fit),
    "half": Step(Half, apply_half),
    "prune_channels": Step(pruning_steps.PruneChannels, pruning_steps.apply_prune_channels),
    "prune_rounds": Step(pruning_steps.PruneRounds, pruning_steps.apply_prune_rounds),
    "prune_weights": Step(pruning_steps.PruneWeights, pruning_steps.apply_prune_weights),
    "quantize": Step(Quantize, apply_quantize),
    "quantize_aware_fit": Step(QuantizeAwareConfig, apply_quantize_aware_fit),
    "recalibrate": Step(pruning_steps.Recalibrate, pruning_steps.apply_recalibrate),
    "reconstruct": Step(Reconstruct, apply_reconstruct),
}


def apply_step(settings: object, model: nn.Module, context: Context) -> nn.Module:
    """What the step with these ``settings`` makes of ``model``."""
    apply = next(step.apply for step in STEPS.values() if step.settings is type(settings))
    return apply(settings, model, context)


def step_name(settings: object) -> str:
    """What a recipe's file calls the step with these ``settings``."""
    return next(name for name, step in STEPS.items() if step.settings is type(settings))
