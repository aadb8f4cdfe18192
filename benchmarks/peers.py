"""One trained network made smaller by several tools, without training: what each costs at the same number of weights.

Run ``python benchmarks/peers.py DIR`` with CIFAR-100 as folders of images under DIR: ``train/<class>/*.png`` and
``test/<class>/*.png``. For each way to cut and repair, and each number of parameters left, it measures top-1 error on
the same test images, all from the same calibration images. What is measured is kept in a file, so that a run that was
stopped goes on, and is printed as the table of ``docs/peers.md``. Torch-Pruning comes from the extra ``comparison``.
"""

from __future__ import annotations

import argparse
import copy
import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn import functional

import compress
from compress.data import ImageData, Split
from compress.errors import ConfigError
from compress.models import googlenet
from compress.recipe.training_batches import TrainingBatches
from compress.system.files import write_atomically

_BATCH_SIZE = 64
_TARGETS = (4_090_000, 2_500_000, 1_500_000)
_HALVINGS = 9


@dataclass(frozen=True, kw_only=True)
class Trial:
    """A network, how small it is to get, and what may be looked at.

    Attributes:
        dense: the network.
        target: how many parameters may be left; None where masks leave all.
        plain: calibration images as they are.
        augmented: likewise, as training shows them.
        example: one input.
    """

    dense: nn.Module
    target: int | None
    plain: TrainingBatches
    augmented: TrainingBatches
    example: torch.Tensor


Way = Callable[[Trial], nn.Module]


def num_params(model: nn.Module) -> int:
    """How many parameters a model has."""
    return sum(parameter.numel() for parameter in model.parameters())


def by_torch_pruning(trial: Trial, importance: str, *, everywhere: bool) -> nn.Module:
    """Torch-Pruning's cut to the target, with the statistics of batch norms measured anew."""
    low, high, best = 0.0, 0.95, None
    for _ in range(_HALVINGS):
        ratio = (low + high) / 2
        small = _torch_pruned(trial, importance, ratio, everywhere=everywhere)
        if trial.target is None or num_params(small) <= trial.target:
            best, high = small, ratio
        else:
            low = ratio
    if best is None:
        raise RuntimeError(f"Torch-Pruning leaves more than {trial.target} parameters")
    return compress.recalibrate(best, trial.augmented)


def _torch_pruned(trial: Trial, importance: str, ratio: float, *, everywhere: bool) -> nn.Module:
    import torch_pruning  # noqa: PLC0415 - an extra

    model = copy.deepcopy(trial.dense)
    kinds = {
        "l1": partial(torch_pruning.importance.GroupMagnitudeImportance, p=1),
        "taylor": torch_pruning.importance.GroupTaylorImportance,
    }
    head = next(module for module in model.modules() if isinstance(module, nn.Linear))
    pruner = torch_pruning.pruner.BasePruner(
        model,
        trial.example,
        importance=kinds[importance](),
        pruning_ratio=ratio,
        global_pruning=everywhere,
        ignored_layers=[head],
    )
    if importance == "taylor":
        for images, labels in trial.plain:
            functional.cross_entropy(model(images), labels).backward()
    pruner.step()
    model.zero_grad()
    return model


def by_compress(
    trial: Trial, importance: str, scope: Any = "layer", *, repair: bool = True, rounds: int = 1
) -> nn.Module:
    """This package's cut to the target, in rounds; reconstructed after each, or recalibrated after the last."""
    small, dense = trial.dense, trial.dense
    assert trial.target is not None
    for number in range(1, rounds + 1):
        left = num_params(dense) * (trial.target / num_params(dense)) ** (number / rounds)
        options = compress.PruneOptions(max_params=int(left), scope=scope, batches=trial.plain)
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


CUTS: Mapping[str, Way] = {
    "l1, every layer alike, reconstructed": partial(by_compress, importance="l1"),
    "obs, every layer alike, reconstructed": partial(by_compress, importance="obs"),
    "obs, by a budget, reconstructed": partial(by_compress, importance="obs", scope="budget"),
    "obs, by a budget, reconstructed in 3 rounds": partial(by_compress, importance="obs", scope="budget", rounds=3),
    "l1, every layer alike, recalibrated": partial(by_compress, importance="l1", repair=False),
    "Torch-Pruning, l1, every layer alike, recalibrated": partial(by_torch_pruning, importance="l1", everywhere=False),
    "Torch-Pruning, taylor, global, recalibrated": partial(by_torch_pruning, importance="taylor", everywhere=True),
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


def main() -> None:
    """Read the command line, measure what is not known yet, and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("directory", help="holds the folders train and test")
    parser.add_argument("--calibration", type=int, default=512, help="training images that a repair sees")
    parser.add_argument("--images", type=int, default=10_000, help="test images, chosen by a fixed seed")
    parser.add_argument("--threads", type=int, default=2, help="of the CPU")
    parser.add_argument("--only", default="", help="ways with this in their names; the dense network always")
    parser.add_argument("--results", type=Path, default=Path("peers.json"), help="keeps what was measured")
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    data = compress.image_folder(given.directory)
    plain = TrainingBatches(split=data.train, batches=given.calibration // _BATCH_SIZE, batch_size=_BATCH_SIZE, seed=0)
    trial = Trial(
        dense=googlenet(weights="cifar100").eval(),
        target=None,
        plain=plain,
        augmented=replace(plain, augmented=True),
        example=torch.zeros(1, *data.image_shape),
    )
    test = _chosen(data, given.images)
    ways = {"dense": lambda one: one.dense, **MASKS}
    wanted = [(name, None, way) for name, way in ways.items()]
    wanted += [(name, target, way) for target in _TARGETS for name, way in CUTS.items()]
    for name, target, way in wanted:
        if name == "dense" or given.only in name:
            _measured(given.results, f"{name}|{target}|{len(test)}", replace(trial, target=target), way, test)
    print(table(json.loads(given.results.read_text(encoding="utf-8")), len(test)))


def _measured(file: Path, key: str, trial: Trial, way: Way, test: Split) -> None:
    known = json.loads(file.read_text(encoding="utf-8")) if file.exists() else {}
    if key in known:
        return
    start = time.perf_counter()
    small = way(trial)
    seconds = time.perf_counter() - start
    error = compress.evaluate(small, test).top1_error
    known[key] = {"top1_error": round(error, 6), "num_params": num_params(small), "seconds": round(seconds, 1)}
    write_atomically(file, (json.dumps(known, indent=1, sort_keys=True) + "\n").encode(), ConfigError)
    print(key, known[key], flush=True)


def table(known: Mapping[str, Mapping[str, float]], images: int) -> str:
    """What was measured on so many test images, in Markdown."""
    dense = known[f"dense|None|{images}"]["top1_error"]

    def cell(name: str, target: int | None) -> str:
        one = known.get(f"{name}|{target}|{images}")
        return "" if one is None else f"{one['top1_error']:.2%} ({100 * (one['top1_error'] - dense):+.2f})"

    lines = [
        f"Top-1 error on {images} test images, and points more than the dense network's {dense:.2%}.",
        "",
        f"| channels removed | {' | '.join(f'{target / 1e6:.2f} M left' for target in _TARGETS)} |",
        f"| --- |{' ---: |' * len(_TARGETS)}",
        *(f"| {name} | {' | '.join(cell(name, target) for target in _TARGETS)} |" for name in CUTS),
        "",
        "| weights at zero | error |",
        "| --- | ---: |",
        *(f"| {name} | {cell(name, None)} |" for name in MASKS),
    ]
    return "\n".join(lines)


def _chosen(data: ImageData, count: int) -> Split:
    order = torch.randperm(len(data.test), generator=torch.Generator().manual_seed(0))
    return data.test.subset(order[:count])


if __name__ == "__main__":
    main()
