"""``python -m compress``: train a dense model, compress it by a recipe, keep the file."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from compress.errors import CompressError

if TYPE_CHECKING:
    from torch import nn

    from compress.workload import Workload

_WORKLOAD_HELP = (
    "model and data: digits, cifar10, cifar100, imagefolder:DIR, or module:function returning a compress.Workload"
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; 0 if it did what it was asked, 1 with one sentence on stderr if it could not."""
    options = _parser().parse_args(arguments)
    try:
        options.run(options)
    except CompressError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("interrupted; run the same command again to go on", file=sys.stderr)
        return 130
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m compress",
        description="Make PyTorch models smaller and faster. What it cost is measured by: pytest benchmarks.",
    )
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")

    train = commands.add_parser("train", help="train the dense model of a workload", description=_train.__doc__)
    train.set_defaults(run=_train)

    run = commands.add_parser("run", help="compress a workload's model by a recipe", description=_run.__doc__)
    run.add_argument("recipe", type=Path, help="recipe file, e.g. benchmarks/recipes/structured.toml")
    run.set_defaults(run=_run)

    for command in (train, run):
        command.add_argument("--workload", metavar="SPEC", default="digits", help=f"{_WORKLOAD_HELP} (default: digits)")
        command.add_argument("--output", metavar="FILE", type=Path, required=True, help="where to save the model")
        command.add_argument("--quiet", action="store_true", help="show no progress")
    return parser


def _train(options: argparse.Namespace) -> None:
    """Train the dense model of a workload, or take it from the cache, and save it."""
    from compress.workload import dense_model, load_workload

    workload = load_workload(options.workload)
    model = dense_model(workload, progress=not options.quiet)
    _save(model, workload, options)


def _run(options: argparse.Namespace) -> None:
    """Compress the dense model of a workload by a recipe and save the result."""
    from compress.recipe import load_recipe, run_recipe
    from compress.workload import dense_model, load_workload

    # Read first: a typing error in it should not show after an hour of training.
    recipe = load_recipe(options.recipe)
    workload = load_workload(options.workload)
    dense = dense_model(workload, progress=not options.quiet)
    model = run_recipe(recipe, dense, workload, progress=not options.quiet)
    _save(model, workload, options)


def _save(model: nn.Module, workload: Workload, options: argparse.Namespace) -> None:
    """Write the file, and one line that says what is in it."""
    from compress.artifact import save
    from compress.measure.size import count_params
    from compress.train import evaluate

    path: Path = options.output
    save(model, path)
    evaluation = evaluate(model, workload.dataset.test, progress=not options.quiet)
    print(
        f"{path}: {count_params(model):,} parameters, {path.stat().st_size / 1e6:.2f} MB,"
        f" top-1 error {evaluation.top1_error:.2%}, top-5 error {evaluation.top5_error:.2%}"
        f" on {evaluation.num_examples:,} test images"
    )
