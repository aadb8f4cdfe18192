"""Ways to cut a network and repair it without training, of this package and Torch-Pruning; and training after one."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional

import compress
from benchmarks.peers_subjects import Trial
from compress.errors import ConfigError
from compress.recipe.context import Context
from compress.recipe.fit_step import Fit
from compress.recipe.steps import apply_step
from compress.recipe.toml import load_recipe

_HALVINGS = 9
# What Torch-Pruning is told to leave whole. Behind CREPE's last convolution it takes other columns of the classifier
# than those of the channels that it removes: time comes before channels there.
_WHOLE: Mapping[str, tuple[str, ...]] = {"pitch": ("layers.26",)}
_RECIPES = Path(__file__).parent / "recipes"

Way = Callable[[Trial], nn.Module]


def by_torch_pruning(trial: Trial, importance: str, *, everywhere: bool) -> nn.Module:
    """Torch-Pruning's cut to the target, with the statistics of batch norms measured anew."""
    assert trial.target is not None
    gradients = _gradients(trial) if importance == "taylor" else {}
    low, high, best = 0.0, 0.95, None
    for _ in range(_HALVINGS):
        ratio = (low + high) / 2
        small = _torch_pruned(trial, importance, ratio, gradients, everywhere=everywhere)
        if trial.target.count(small, trial.example) <= trial.target.left:
            best, high = small, ratio
        else:
            low = ratio
    if best is None:
        raise ConfigError(f"Torch-Pruning leaves more than {trial.target.title}")
    return compress.recalibrate(best, trial.augmented)


def _torch_pruned(
    trial: Trial, importance: str, ratio: float, gradients: Mapping[str, Tensor], *, everywhere: bool
) -> nn.Module:
    import torch_pruning  # noqa: PLC0415 - an extra

    model = copy.deepcopy(trial.dense)
    kinds = {
        "l1": partial(torch_pruning.importance.GroupMagnitudeImportance, p=1),
        "taylor": torch_pruning.importance.GroupTaylorImportance,
    }
    head = [module for module in model.modules() if isinstance(module, nn.Linear)][-1]
    pruner = torch_pruning.pruner.BasePruner(
        model,
        trial.example,
        importance=kinds[importance](),
        pruning_ratio=ratio,
        global_pruning=everywhere,
        ignored_layers=[head, *map(model.get_submodule, _WHOLE.get(trial.workload.name, ()))],
    )
    for name, parameter in model.named_parameters():
        parameter.grad = gradients[name].clone() if name in gradients else None
    pruner.step()
    model.zero_grad()
    return model


def _gradients(trial: Trial) -> dict[str, Tensor]:
    """Of the loss on the calibration examples, summed over their batches."""
    model = copy.deepcopy(trial.dense)
    loss = trial.workload.loss or functional.cross_entropy
    for inputs, targets in trial.plain:
        loss(model(inputs), targets).backward()
    return {name: one.grad for name, one in model.named_parameters() if one.grad is not None}


def by_compress(
    trial: Trial, importance: str, scope: Any = "layer", *, repair: bool = True, rounds: int = 1
) -> nn.Module:
    """This package's cut to the target, in rounds; reconstructed after each, or recalibrated after the last."""
    small, dense, target = trial.dense, trial.dense, trial.target
    assert target is not None
    whole = target.count(dense, trial.example)
    for number in range(1, rounds + 1):
        left = {f"max_{target.of}": int(whole * (target.left / whole) ** (number / rounds))}
        options = compress.PruneOptions(**left, scope=scope, batches=trial.plain)
        small = compress.prune_channels(small, trial.example, importance=importance, options=options)
        if repair:
            small = compress.reconstruct(small, dense, trial.plain)
    return small if repair else compress.recalibrate(small, trial.augmented)


def by_masks(trial: Trial, *, repair: bool = True, **settings: Any) -> nn.Module:
    """Weights held at zero, reconstructed or recalibrated."""
    small = compress.prune_weights(trial.dense, **settings)
    if repair:
        return compress.reconstruct(small, trial.dense, trial.plain)
    return compress.recalibrate(small, trial.augmented)


# The most telling first.
CUTS: Mapping[str, Way] = {
    "l1, every layer alike, reconstructed": partial(by_compress, importance="l1"),
    "obs, every layer alike, reconstructed": partial(by_compress, importance="obs"),
    "obs, by a budget, reconstructed": partial(by_compress, importance="obs", scope="budget"),
    "Torch-Pruning, l1, every layer alike, recalibrated": partial(by_torch_pruning, importance="l1", everywhere=False),
    "Torch-Pruning, taylor, global, recalibrated": partial(by_torch_pruning, importance="taylor", everywhere=True),
    "l1, every layer alike, recalibrated": partial(by_compress, importance="l1", repair=False),
    "obs, by a budget, reconstructed in 3 rounds": partial(by_compress, importance="obs", scope="budget", rounds=3),
    "Torch-Pruning, l1, global, recalibrated": partial(by_torch_pruning, importance="l1", everywhere=True),
    "Torch-Pruning, taylor, every layer alike, recalibrated": partial(
        by_torch_pruning, importance="taylor", everywhere=False
    ),
}
MASKS: Mapping[str, Way] = {
    "70 % of every layer's weights, reconstructed": partial(by_masks, sparsity=0.7),
    "70 % of all weights, reconstructed": partial(by_masks, sparsity=0.7, scope="global"),
    "2:4, reconstructed": partial(by_masks, pattern="2:4"),
    "2:4, recalibrated": partial(by_masks, pattern="2:4", repair=False),
}


def trained_on(small: nn.Module, trial: Trial, epochs: int, checkpoint: Path) -> nn.Module:
    """What the recipe of structured pruning for the data makes of a network after its cut, in so many epochs.

    Args:
        small: the network as it was cut and repaired; not to be used afterwards.
        trial: whose dense network teaches.
        epochs: shared out over the recipe's trainings as the recipe does.
        checkpoint: what the files are called in which trainings keep how far they are, each with an ending of its own.

    Raises:
        ConfigError: if the recipe trains nothing, or has more trainings than there are epochs.
    """
    recipe = load_recipe(_RECIPES / trial.workload.dataset.name / "structured.toml")
    for number, step in enumerate(shortened(recipe.steps[1:], epochs)):
        under_way, done = (checkpoint.with_name(f"{checkpoint.name}.{number}{end}") for end in ("", ".safetensors"))
        if done.exists():
            small.load_state_dict(load_file(done))
            continue
        context = Context(dense=trial.dense, workload=trial.workload, checkpoint=under_way, progress=True)
        small = apply_step(step, small, context)
        save_file({name: tensor.contiguous() for name, tensor in small.state_dict().items()}, done)
    return small


def shortened(steps: Sequence[Any], epochs: int) -> list[Any]:
    """Steps of a recipe with that many epochs in all, in the shares that each training has of them.

    Raises:
        ConfigError: if none of them trains, or one is left without an epoch.
    """
    trainings = [step.epochs for step in steps if isinstance(step, Fit)]
    whole = sum(trainings)
    if not trainings or any(one * epochs % whole for one in trainings):
        raise ConfigError(f"epochs must be shared out as the recipe's {trainings} are, got {epochs}")

    def short(step: Any) -> Any:
        if not isinstance(step, Fit):
            return step
        share = step.epochs * epochs // whole
        return replace(step, epochs=share, image_sizes=step.image_sizes[-share:])

    return [short(step) for step in steps]
