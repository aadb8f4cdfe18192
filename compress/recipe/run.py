"""Running a recipe: each step on what the step before it made."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from types import ModuleType
from typing import Any

from torch import nn

from compress import (
    artifact,
    channels,
    data,
    distillation,
    exported,
    half,
    lowrank,
    macs,
    pruning,
    quantization,
    substitute,
    train,
)
from compress.cache import cache_path, cached_model
from compress.errors import CompressError
from compress.recipe import fit_step, lowrank_steps, pruning_steps, quantization_steps, training_batches
from compress.recipe.context import Context
from compress.recipe.steps import apply_step
from compress.recipe.toml import Recipe
from compress.workload import Workload, ingredients


def run_recipe(recipe: Recipe, dense: nn.Module, workload: Workload, *, progress: bool = True) -> nn.Module:
    """The compressed model that ``recipe`` makes of ``dense``, in eval mode; ``dense`` is left as it is.

    The result is kept in the user's cache directory under a hash of the dense model's bytes, the data, the shape of the
    example input, the steps and the code of every technique, so that only what changed is computed again. An
    interrupted fine-tuning goes on where it stopped.

    Raises:
        CompressError: what the step that failed raises, with the recipe and the step named.
    """
    made_from = {
        **ingredients(workload),
        "dense": artifact.digest(dense),
        # What is coupled to what can depend on the shape; the values may be drawn anew in every run.
        "example_input": [list(workload.example_input.shape), str(workload.example_input.dtype)],
        "steps": [[type(step).__name__, asdict(step)] for step in recipe.steps],
    }
    techniques = (channels, data, distillation, exported, half, lowrank, macs, pruning, quantization, substitute, train)
    steps = (fit_step, lowrank_steps, pruning_steps, quantization_steps, training_batches)
    sources: tuple[ModuleType | Callable[..., Any], ...] = (*techniques, *steps, apply_step, workload.model_factory)
    path = cache_path(f"{workload.name}-{recipe.name}", made_from, sources)

    def compressed() -> nn.Module:
        model = dense
        for number, step in enumerate(recipe.steps, 1):
            checkpoint = path.with_suffix(f".step{number}.checkpoint")
            context = Context(dense=dense, workload=workload, checkpoint=checkpoint, progress=progress)
            try:
                model = apply_step(step, model, context)
            except CompressError as cause:
                raise type(cause)(f"{cause} (recipe {recipe.path}, step {number})") from cause
        return model

    return cached_model(path, workload.build, compressed).eval()
