"""``sweep``: many settings of some recipes, and what error each of them buys at what time and size."""

from __future__ import annotations

import argparse
import importlib.util
import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from compress.commands.arguments import add_json
from compress.commands.models import WORKLOAD_HELP
from compress.errors import ConfigError

if TYPE_CHECKING:
    from compress.report.pareto import Sweep

_DESCRIPTION = """\
Run recipes with many settings, measure error, file size and time of each model against the dense one, and show which
of them no other one beats. What varies is named by step and setting, here or in a recipe's table [sweep]:

  --set prune_channels.pruning_ratio=0.1,0.2,0.3      these values
  --set prune_channels.pruning_ratio=0.1..0.5         a range
  --set fit.learning_rate=1e-4..1e-1:log              a range, by orders of magnitude
  --set steps.2.epochs=2,4                            by the step's number, where a recipe takes a step twice

The study file keeps every trial. After Ctrl-C the same command goes on where it stopped. Started more than once with
the same study, on one machine or, with a database as the study, on many, it shares the work.
"""
_DEFAULT_TRIALS = 20
_WIDTH = 160  # of a table that is piped into a file


def add_sweep_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """``sweep``."""
    sweep = commands.add_parser(
        "sweep",
        help="try many settings of recipes and show the best trade-offs",
        description=_DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    sweep.add_argument("recipes", metavar="RECIPE", nargs="+", type=Path, help="recipe file")
    sweep.add_argument("--workload", metavar="SPEC", default="digits", help=f"{WORKLOAD_HELP} (default: digits)")
    sweep.add_argument(
        "--study",
        metavar="FILE",
        required=True,
        help="where the trials are kept: a file, begun if it is missing, or the URL of a database, sqlite:///sweep.db",
    )
    sweep.add_argument(
        "--set",
        metavar="NAME=VALUES",
        dest="parameters",
        action="append",
        default=[],
        help="a setting to vary, see above; may be given more than once, and counts more than [sweep]",
    )
    sweep.add_argument(
        "--trials",
        metavar="N",
        type=int,
        help=f"models to make in all, the recipes as they stand among them (default: {_DEFAULT_TRIALS}, all of a grid)",
    )
    how = sweep.add_mutually_exclusive_group()
    how.add_argument("--grid", action="store_true", help="try every combination of the values in turn")
    how.add_argument(
        "--random", action="store_true", help="try combinations at random (default: learn as it goes, TPE)"
    )
    sweep.add_argument("--seed", metavar="N", type=int, default=0, help="of what is tried (default: 0)")
    _add_measuring_options(sweep)
    sweep.add_argument(
        "--output",
        metavar="FILE",
        type=Path,
        action="append",
        default=[],
        help="write the results, by the ending of FILE: .md and .csv the table, .svg the plot, .json everything, also"
        " for pytest's --compress-sweep; may be given more than once",
    )
    sweep.add_argument("--quiet", action="store_true", help="show no progress")
    add_json(sweep)
    sweep.set_defaults(run=_sweep)


def _add_measuring_options(sweep: argparse.ArgumentParser) -> None:
    sweep.add_argument("--threads", metavar="N", type=int, default=1, help="CPU threads to measure with (default: 1)")
    sweep.add_argument(
        "--seconds", metavar="S", type=float, default=4.0, help="how long each time may be measured (default: 4)"
    )
    sweep.add_argument(
        "--processes",
        metavar="N",
        type=int,
        default=3,
        help="fresh processes that times are measured in, 0 for this one (default: 3)",
    )


def _sweep(options: argparse.Namespace) -> None:
    """Run the sweep, write what was asked for, print the table."""
    from compress.report.sweep_file import check_output, sweep_json, write_sweep
    from compress.report.sweep_table import render_sweep_terminal

    for path in options.output:
        check_output(path)
    sweep = _run(options)
    for path in options.output:
        write_sweep(sweep, path)
    if options.json:
        print(sweep_json(sweep), end="")
        return
    is_terminal = sys.stdout.isatty()
    width = shutil.get_terminal_size().columns if is_terminal else _WIDTH
    print(render_sweep_terminal(sweep, width=width, color=is_terminal), end="")


def _run(options: argparse.Namespace) -> Sweep:
    """All that can be wrong is found before a model is trained."""
    if importlib.util.find_spec("optuna") is None:
        raise ConfigError("a sweep needs Optuna, which is not installed: pip install 'pytest-compress[sweep]'")
    from compress.recipe import load_recipe
    from compress.sweep.parameters import parse_parameter
    from compress.sweep.plans import plan_sweep
    from compress.sweep.run import SweepConfig, run_sweep
    from compress.workload.workload import dense_model, load_workload

    config = SweepConfig(
        study=options.study,
        trials=options.trials if options.trials is not None or options.grid else _DEFAULT_TRIALS,
        sampler="grid" if options.grid else "random" if options.random else "tpe",
        seed=options.seed,
        threads=options.threads,
        seconds=options.seconds,
        processes=options.processes,
    )
    given = dict(map(parse_parameter, options.parameters))
    plans = plan_sweep([load_recipe(path) for path in options.recipes], given)
    workload = load_workload(options.workload)
    dense = dense_model(workload, progress=not options.quiet)
    return run_sweep(plans, dense, workload, config, progress=not options.quiet)
