"""``runtimes``: one model and what recipes make of it, under every runtime, in one table."""

from __future__ import annotations

import argparse
import math
from pathlib import Path
from typing import TYPE_CHECKING

from compress.commands.models import WORKLOAD_HELP
from compress.errors import ConfigError

if TYPE_CHECKING:
    from rich.table import Table

    from compress.measure.runtimes import RuntimeRow

_FLOAT = "float32"


def add_runtimes_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """``runtimes``."""
    parser = commands.add_parser(
        "runtimes",
        help="time a model and its compressed forms under eager, Inductor, ONNX Runtime and AOTInductor",
        description=_runtimes.__doc__,
    )
    parser.set_defaults(run=_runtimes)
    parser.add_argument("--workload", metavar="SPEC", default="digits", help=f"{WORKLOAD_HELP} (default: digits)")
    parser.add_argument(
        "--recipe",
        metavar="FILE",
        type=Path,
        action="append",
        default=[],
        help="a compressed form, e.g. benchmarks/recipes/int8.toml; may be given more than once (default: none)",
    )
    parser.add_argument("--batch", metavar="N", type=int, nargs="+", default=[1, 64], help="batch sizes (1 64)")
    parser.add_argument("--runtime", metavar="NAME", nargs="+", help="only these (default: all)")
    parser.add_argument("--seconds", metavar="S", type=float, default=20.0, help="timing of each batch size (20)")
    parser.add_argument("--threads", metavar="N", type=int, default=1, help="threads of an operation (1)")
    parser.add_argument("--quiet", action="store_true", help="show no progress")


def _runtimes(options: argparse.Namespace) -> None:
    """Prepare every model under every runtime, check that outputs agree, then time all of them in turn.

    Preparing, which compiles, is timed apart from the forward passes. "x dense eager" is how many times as fast as the
    float model in eager mode, "x float" as the float model under the same runtime, both medians over rounds in which
    every row is called once.
    """
    from rich.console import Console

    from compress.measure.runtimes import prepare_rows, time_rows
    from compress.pairs import pinned_threads
    from compress.recipe import load_recipe, run_recipe
    from compress.runtimes import RUNTIMES, check_runtime
    from compress.workload import dense_model, load_workload

    runtimes = options.runtime or list(RUNTIMES)
    for runtime in runtimes:
        check_runtime(runtime)
    for name, values in (("batch", options.batch), ("threads", [options.threads])):
        if min(values) < 1:
            raise ConfigError(f"--{name} must be at least 1, got {min(values)}")
    recipes = [load_recipe(path) for path in options.recipe]
    workload = load_workload(options.workload)
    dense = dense_model(workload, progress=not options.quiet)
    models = {_FLOAT: dense}
    for recipe in recipes:
        models[recipe.name] = run_recipe(recipe, dense, workload, progress=not options.quiet)
    console = Console(stderr=True, quiet=options.quiet)
    rows: list[RuntimeRow] = []
    with pinned_threads(options.threads):
        for batch in options.batch:
            inputs = next(iter(workload.dataset.test.batches(batch)))[0]
            new = prepare_rows(models, inputs, runtimes, lambda text: console.print(text, highlight=False))
            time_rows(new, options.seconds)
            rows += new
    Console(width=140).print(table(rows))
    for row in rows:
        if row.unavailable:
            print(f"{row.precision} under {row.runtime} at batch {row.batch}: {row.unavailable}")


def table(rows: list[RuntimeRow]) -> Table:
    """Runtime x precision x batch."""
    from rich.table import Table

    found = Table("batch", "precision", "runtime", "prepare s", "ms", "x dense eager", "x float", "difference")
    for row in rows:
        eager = _row(rows, row.batch, "eager")
        same = _row(rows, row.batch, row.runtime)
        found.add_row(
            str(row.batch),
            row.precision,
            row.runtime,
            _number(row.prepare_s, 1),
            _number(row.median_ms, 2),
            _number(row.speedup_over(eager) if eager else math.nan, 2),
            _number(row.speedup_over(same) if same else math.nan, 2),
            "-" if math.isnan(row.difference) else f"{row.difference:.1e}",
        )
    return found


def _row(rows: list[RuntimeRow], batch: int, runtime: str) -> RuntimeRow | None:
    """The float model's."""
    found = (row for row in rows if (row.batch, row.precision, row.runtime) == (batch, _FLOAT, runtime))
    return next((row for row in found if row.latencies_ms), None)


def _number(value: float, digits: int) -> str:
    return "-" if math.isnan(value) else f"{value:.{digits}f}"
