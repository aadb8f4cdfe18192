"""Running a recipe: each step on what the step before it made."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from types import ModuleType
from typing import Any

from torch import nn

from compress import channels, data, exported, lowrank, macs, pruning, quality, quantization, reconstruction, train
from compress.artifacts import artifact
from compress.artifacts.cache import cache_path, cached_model
from compress.errors import CompressError
from compress.modules import substitute
from compress.modules.copying import copied
from compress.recipe import (
    fit_step,
    lowrank_steps,
    pruning_steps,
    quantization_steps,
    reconstruct_step,
    training_batches,
)
from compress.recipe.context import Context
from compress.recipe.steps import apply_step, step_name
from compress.recipe.toml import Recipe
from compress.workload.workload import Workload, ingredients


def run_recipe(
    recipe: Recipe,
    dense: nn.Module,
    workload: Workload,
    *,
    progress: bool = True,
    on_step: Callable[[str], None] | None = None,
) -> nn.Module:
    """The compressed model that ``recipe`` makes of ``dense``, in eval mode; ``dense`` is left as it is.

    The result is kept in the user's cache directory under a hash of the dense model's bytes, the data, the shape of the
    example input, the steps and the code of every technique, so that only what changed is computed again. What was
    trained or reconstructed on the way is kept too, so that recipes which begin alike do that once. An interrupted
    fine-tuning goes on where it stopped.

    Args:
        recipe: its steps, in order.
        dense: the model before the first of them.
        workload: data and example input.
        progress: whether to show how far a step is, on stderr.
        on_step: told of each step before it is taken: "step 3 of 4, fit"; of none that the cache knows.

    Raises:
        CompressError: what the step that failed raises, with the recipe and the step named.
    """
    made_from = {
        **ingredients(workload),
        "dense": artifact.digest(dense),
        # What is coupled to what can depend on the shape; the values may be drawn anew in every run.
        "example_inputs": [[list(one.shape), str(one.dtype)] for one in workload.inputs.tensors],
    }
    techniques = (
        *(channels, data, exported, lowrank, macs, pruning, quality, quantization, reconstruction, substitute, train),
    )
    steps = (fit_step, lowrank_steps, pruning_steps, quantization_steps, reconstruct_step, training_batches)
    sources: tuple[ModuleType | Callable[..., Any], ...] = (*techniques, *steps, apply_step, *workload.code)

    def after(number: int) -> nn.Module:
        """The model after the first ``number`` steps."""
        if number == 0:
            return dense
        done = recipe.steps[:number]
        path = cache_path(
            "-".join([workload.name, *(type(step).__name__ for step in done)]),
            {**made_from, "steps": [[type(step).__name__, asdict(step)] for step in done]},
            sources,
        )

        def made() -> nn.Module:
            model = after(number - 1)
            context = Context(
                dense=dense, workload=workload, checkpoint=path.with_suffix(".checkpoint"), progress=progress
            )
            if on_step is not None:
                on_step(f"step {number} of {len(recipe.steps)}, {step_name(done[-1])}")
            try:
                return apply_step(done[-1], model, context)
            except CompressError as cause:
                raise type(cause)(f"{cause} (recipe {recipe.path}, step {number})") from cause

        return cached_model(path, workload.build, made) if _is_kept(done, recipe) else made()

    return after(len(recipe.steps)).eval() if recipe.steps else copied(dense).eval()


def _is_kept(done: tuple[Any, ...], recipe: Recipe) -> bool:
    """Whether the model after the steps ``done`` goes to the cache: the last one, and what took long to make.

    A file holds no masks, which later steps must still find: after pruned weights only the last model is kept.
    """
    if len(done) == len(recipe.steps):
        return True
    slow = isinstance(done[-1], (fit_step.Fit, pruning_steps.PruneRounds, reconstruct_step.Reconstruct))
    return slow and not any(isinstance(step, pruning_steps.PruneWeights) for step in done)
