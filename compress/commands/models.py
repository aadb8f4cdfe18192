"""``train`` and ``run``: make a dense model, make a compressed one of it, keep the file."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from compress.commands.arguments import add_json, print_json
from compress.errors import ConfigError

if TYPE_CHECKING:
    from torch import nn

    from compress.recipe import Recipe
    from compress.workload.workload import Workload

WORKLOAD_HELP = (
    "model and data: digits, cifar10, cifar100, imagefolder:DIR, or module:function returning a compress.Workload"
)


def add_train_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """``train``."""
    train = commands.add_parser("train", help="train the dense model of a workload", description=_train.__doc__)
    train.add_argument(
        "recipe",
        type=Path,
        nargs="?",
        help="how to train: a recipe of steps 'fit' (default: the workload's own way), see benchmarks/training",
    )
    train.set_defaults(run=_train)
    _add_options(train)


def add_run_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """``run``."""
    run = commands.add_parser("run", help="compress a workload's model by a recipe", description=_run.__doc__)
    run.add_argument("recipe", type=Path, help="recipe file, e.g. benchmarks/recipes/structured.toml")
    run.set_defaults(run=_run)
    _add_options(run)


def _add_options(command: argparse.ArgumentParser) -> None:
    command.add_argument("--workload", metavar="SPEC", default="digits", help=f"{WORKLOAD_HELP} (default: digits)")
    command.add_argument("--output", metavar="FILE", type=Path, required=True, help="where to save the model")
    command.add_argument("--quiet", action="store_true", help="show no progress")
    add_json(command)


def _train(options: argparse.Namespace) -> None:
    """Train the dense model of a workload, or take it from the cache, and save it. Stopped, it goes on when rerun."""
    from compress.recipe import run_recipe
    from compress.workload.workload import dense_model, initial_model, load_workload, untrained

    # Read first: a typing error in it should not show after the data are loaded.
    recipe = None if options.recipe is None else training(options.recipe)
    workload = load_workload(options.workload)
    if recipe is None:
        model = dense_model(untrained(workload), progress=not options.quiet)
    else:
        model = run_recipe(recipe, initial_model(workload, recipe.steps[0].seed), workload, progress=not options.quiet)
    _save(model, model, workload, options)


def training(path: Path) -> Recipe:
    """The recipe at ``path``, to train an untrained network by: one or several times, each from what the last one made.

    Source: Loshchilov and Hutter, "SGDR", ICLR 2017 (several are warm restarts).

    Raises:
        ConfigError: if it cannot be read, or is not steps ``fit`` without a teacher.
    """
    from compress.recipe import load_recipe
    from compress.recipe.fit_step import Fit

    recipe = load_recipe(path)
    if not recipe.steps or not all(isinstance(step, Fit) and not step.distill for step in recipe.steps):
        raise ConfigError(f"a recipe to train by must be steps 'fit' without a teacher ({path})")
    return recipe


def _run(options: argparse.Namespace) -> None:
    """Compress the dense model of a workload by a recipe and save the result."""
    from compress.recipe import load_recipe, run_recipe
    from compress.workload.workload import dense_model, load_workload

    # Read first: a typing error in it should not show after an hour of training.
    recipe = load_recipe(options.recipe)
    workload = load_workload(options.workload)
    dense = dense_model(workload, progress=not options.quiet)
    model = run_recipe(recipe, dense, workload, progress=not options.quiet)
    _save(model, dense, workload, options)


def _save(model: nn.Module, dense: nn.Module, workload: Workload, options: argparse.Namespace) -> None:
    """Write the file, and one line, or one object, that says what is in it."""
    from compress.artifacts.artifact import load, save
    from compress.exported.executorch import PteModel
    from compress.gate.figures import write_value
    from compress.measure.size import count_params

    path: Path = options.output
    save(model, path, workload.inputs)
    judged = workload.judge(model, dense=dense, progress=not options.quiet)
    if options.json:
        print_json(
            {
                "path": path,
                "num_params": count_params(model),
                "file_bytes": path.stat().st_size,
                **{name: one.value for name, one in judged.items()},
                "num_examples": len(workload.dataset.test),
            }
        )
        return
    figures = [f"{one.quality.metric.title} {write_value(one.quality.metric, one.value)}" for one in judged.values()]
    known = f"{', '.join(figures)} on {len(workload.dataset.test):,} test examples"
    print(f"{path}: {count_params(model):,} parameters, {path.stat().st_size / 1e6:.2f} MB, {known}")
    if path.suffix == ".pte":
        written = load(path)
        assert isinstance(written, PteModel)  # noqa: S101 - what such a file holds
        print(f"{path}: {written.delegation}")
