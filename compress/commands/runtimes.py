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

    from compress.gate.statistics import RatioInterval
    from compress.measure.runtimes import RuntimeRow

_FLOAT = "float32"
# More than that is another model and not another runtime.
_MAX_CHANGED = 0.005
_AT_ONCE = 64


def add_runtimes_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """``runtimes``."""
    parser = commands.add_parser(
        "runtimes",
        help="time a model and its compressed forms under each runtime, and say which is best here",
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
    parser.add_argument(
        "--examples", metavar="N", type=int, default=1000, help="test examples to compare answers on (1000; 0 for none)"
    )
    parser.add_argument(
        "--best",
        action="store_true",
        help=f"say which of all is fastest on this machine, among those that change {_MAX_CHANGED * 100:.1f} %% of the"
        " answers of their model at most, or its outputs by as much",
    )
    parser.add_argument("--threads", metavar="N", type=int, default=1, help="threads of an operation (1)")
    parser.add_argument("--quiet", action="store_true", help="show no progress")


def _runtimes(options: argparse.Namespace) -> None:
    """Prepare every model under every runtime, check that outputs agree, then time all of them in turn.

    Preparing, which compiles, is timed apart from the forward passes. "x dense eager" is how many times as fast as the
    float model in eager mode, "x float" as the float model under the same runtime, both medians over rounds in which
    every row is called once. "difference" is the relative error of the outputs to the same model's in eager mode on the
    inputs that are timed, "changed" the share of test examples that get another class than from it; of models that are
    no classifiers "output error" is the relative error on test examples. "MB" is the size of the file that is executed.
    """
    from rich.console import Console

    from compress.calling.batches import first_of, repeated
    from compress.calling.inputs import inputs_of
    from compress.calling.pairs import pinned_threads
    from compress.measure.runtimes import Examples, prepare_rows, time_rows
    from compress.quality import parity_of
    from compress.recipe import load_recipe, run_recipe
    from compress.system.cpu import cpu_class
    from compress.workload.workload import dense_model, load_workload

    runtimes = _checked(options)
    recipes = [load_recipe(path) for path in options.recipe]
    workload = load_workload(options.workload)
    dense = dense_model(workload, progress=not options.quiet)
    models = {_FLOAT: dense}
    for recipe in recipes:
        models[recipe.name] = run_recipe(recipe, dense, workload, progress=not options.quiet)
    console = Console(stderr=True, quiet=options.quiet)
    rows: list[RuntimeRow] = []
    with pinned_threads(options.threads):
        examples, test, quality = None, workload.dataset.test, parity_of(workload.qualities)
        if options.examples:
            examples = Examples.of(models, test.batches(_AT_ONCE), options.examples, quality, workload.outputs)
        for batch in options.batch:
            given = inputs_of(next(iter(test.batches(batch)))[0])
            inputs = repeated(first_of(given, batch), batch)
            new = prepare_rows(
                models, inputs, runtimes, lambda text: console.print(text, highlight=False), examples=examples
            )
            time_rows(new, options.seconds)
            rows += new
    Console(width=140).print(table(rows, "changed" if quality.is_error else "output error"))
    _tell(rows)
    if options.best:
        for batch in options.batch:
            print(best(rows, batch, cpu_class(options.threads)))


def _checked(options: argparse.Namespace) -> list[str]:
    """The runtimes asked for.

    Raises:
        ConfigError: if an option is out of range.
    """
    from compress.artifacts.runtimes import RUNTIMES, check_runtime

    runtimes = options.runtime or list(RUNTIMES)
    for runtime in runtimes:
        check_runtime(runtime)
    for name, values in (("batch", options.batch), ("threads", [options.threads])):
        if min(values) < 1:
            raise ConfigError(f"--{name} must be at least 1, got {min(values)}")
    if options.examples < 0:
        raise ConfigError(f"--examples must be at least 0, got {options.examples}")
    if options.best and "eager" not in runtimes:
        raise ConfigError(f"--best compares with eager, which --runtime leaves out: {' '.join(runtimes)}")
    return runtimes


def _tell(rows: list[RuntimeRow]) -> None:
    """What the table has no room for."""
    for row in rows:
        if row.unavailable or row.note:
            print(f"{row.precision} under {row.runtime} at batch {row.batch}: {row.unavailable or row.note}")


def best(rows: list[RuntimeRow], batch: int, device: str) -> str:
    """Which model under which runtime is fastest at that batch size, how sure that is, and what is as fast."""
    from compress.gate.statistics import paired_ratio

    timed = [row for row in rows if row.batch == batch and row.latencies_ms]
    allowed = [row for row in timed if math.isnan(row.parity) or row.parity <= _MAX_CHANGED]
    eager = _row(rows, batch, "eager")
    if eager is None or not allowed:
        return f"batch {batch} on {device}: nothing ran that could be compared"
    first = min(allowed, key=lambda row: row.median_ms)

    def times_as_fast(row: RuntimeRow, other: RuntimeRow) -> RatioInterval:
        return paired_ratio(list(zip(row.latencies_ms, other.latencies_ms, strict=True)))

    gain = times_as_fast(first, eager)
    tied = [row for row in allowed if row is not first and times_as_fast(first, row).low <= 1]
    ties = ", ".join(f"{row.precision} under {row.runtime}" for row in tied)
    return (
        f"batch {batch} on {device}: {first.precision} under {first.runtime}, {first.median_ms:.2f} ms,"
        f" x{gain.median:.2f} [{gain.low:.2f}, {gain.high:.2f}] as fast as the float model in eager mode"
        + (f"; no slower, as far as this shows: {ties}" if ties else "")
    )


def table(rows: list[RuntimeRow], parity: str = "changed") -> Table:
    """Runtime x precision x batch; ``parity`` heads what was compared on test examples."""
    from rich.table import Table

    found = Table(
        "batch", "precision", "runtime", "prepare s", "ms", "x dense eager", "x float", "difference", parity, "MB"
    )
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
            "-" if math.isnan(row.parity) else f"{row.parity:.2%}",
            f"{row.file_bytes / 1e6:.3g}" if row.file_bytes else "-",
        )
    return found


def _row(rows: list[RuntimeRow], batch: int, runtime: str) -> RuntimeRow | None:
    """The float model's."""
    found = (row for row in rows if (row.batch, row.precision, row.runtime) == (batch, _FLOAT, runtime))
    return next((row for row in found if row.latencies_ms), None)


def _number(value: float, digits: int) -> str:
    return "-" if math.isnan(value) else f"{value:.{digits}f}"
