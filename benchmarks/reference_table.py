"""The reference experiment's table, with this package's figures below it.

    python benchmarks/reference_table.py [FILE]                          the table in docs/cifar100.md
    python benchmarks/reference_table.py --short                         the one in README.md
    python benchmarks/reference_table.py --picture docs/cifar100.svg     the picture above it

The figures are a baseline's, so it needs neither data nor torch; the command that records one is in
docs/cifar100.md.
"""

from __future__ import annotations

import argparse
import statistics
from pathlib import Path

from compress.errors import CompressError
from compress.gate.baseline import Baseline, Entry, load_baseline
from compress.gate.figures import write_change, write_value
from compress.report.markdown import pipe_table
from compress.report.pareto import Candidate, Sweep
from compress.report.sweep_file import write_sweep
from compress.results import METRICS

BASELINE = Path(__file__).parents[1] / "baselines" / "cifar100.json"
COLUMNS = (
    "num_params",
    "file_bytes",
    "top1_error",
    "top5_error",
    "cpu_peak_bytes",
    "cpu_latency_ms",
    "cpu_time_ms",
)
SHORT = ("num_params", "file_bytes", "top1_error")
SHORT_ROWS = ("structured", "lowrank", "int8", "compose")
# Field of a candidate -> the metric that it shows.
DRAWN = {"quality": "top1_error", "file_bytes": "file_bytes", "num_params": "num_params"}
# As they stand in the report: PyTorch 2.0, one Tesla T4.
EXPERIMENT = (
    ("experiment: dense", "6.4 M", "25 MB", "22.96 %", "6.19 %", "58.66 MB", "15.74 ms", "27.4 ms"),
    ("experiment: unstructured", "6.4 M", "25 MB", "27.5 % (+4.54)", "6.61 %", "58.66 MB", "15.6 ms", "26.8 ms"),
    ("experiment: structured", "4.09 M", "16 MB", "25.85 % (+2.89)", "6.91 %", "46.98 MB", "16.7 ms", "31.8 ms"),
)
# The dense row of each group is what its recipes' times are ratios to.
GROUPS = (
    ("dense", ("unstructured", "structured", "lowrank")),
    ("dense, compiled", ("int8", "structured-int8", "compose")),
)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "baseline", nargs="?", type=Path, default=BASELINE, metavar="FILE", help="what to show (default: %(default)s)"
    )
    parser.add_argument("--device", metavar="CLASS", help="whose times and memory (default: the baseline's first)")
    parser.add_argument("--short", action="store_true", help="five rows of this package's own")
    parser.add_argument("--picture", metavar="FILE.svg", type=Path, help="draw error against size and time instead")
    options = parser.parse_args()
    try:
        baseline = load_baseline(options.baseline)
    except CompressError as error:
        parser.error(str(error))
    device = options.device or next(iter(baseline.environments))
    if device not in baseline.environments:
        parser.error(f"--device must be one of {', '.join(baseline.environments)}, got {device!r}")
    if options.picture is not None:
        write_sweep(trade_offs(baseline, device), options.picture)
    else:
        print("\n".join((short_table if options.short else table)(baseline, device)))


def table(baseline: Baseline, device: str) -> list[str]:
    """The lines of the table."""
    rows = [*EXPERIMENT]
    for title, recipes in GROUPS:
        measured = [[entry_of(baseline, recipe, name, device) for name in COLUMNS] for recipe in recipes]
        rows.append((f"this package: {title}", *map(write_dense, zip(*measured, strict=True))))
        rows += [(recipe, *map(write_compressed, entries)) for recipe, entries in zip(recipes, measured, strict=True)]
    heads = ("", *(METRICS[name].title for name in COLUMNS))
    return pipe_table(heads, rows, right=range(1, len(heads)))


def short_table(baseline: Baseline, device: str) -> list[str]:
    """The lines of the table with the columns that most people ask for, times as ratios under the same runtime."""
    rows = [("dense", *(write_dense((entry_of(baseline, SHORT_ROWS[0], name, device),)) for name in SHORT), "x1")]
    for recipe in SHORT_ROWS:
        entries = [entry_of(baseline, recipe, name, device) for name in SHORT]
        time = entry_of(baseline, recipe, "cpu_latency_ms", device)
        ratio = "" if time is None else f"x{time.ratio:.2f}"
        rows.append((recipe, *map(write_compressed, entries), ratio))
    heads = ("", *(METRICS[name].title for name in SHORT), "time per image")
    return pipe_table(heads, rows, right=range(1, len(heads)))


def trade_offs(baseline: Baseline, device: str) -> Sweep:
    """Every recipe as a candidate, beside the dense model."""
    recipes = [recipe for _, group in GROUPS for recipe in group]
    names = (*DRAWN.values(), "cpu_latency_ms")
    measured = {recipe: {name: entry_of(baseline, recipe, name, device) for name in names} for recipe in recipes}
    dense = measured[recipes[0]]
    return Sweep(
        workload=baseline.workload,
        data_sha256=baseline.data_sha256,
        device=device,
        num_examples=baseline.num_examples,
        dense=Candidate(
            recipe="dense", **{field: dense[name].dense for field, name in DRAWN.items()}, latency_ratio=1.0
        ),
        candidates=tuple(
            Candidate(
                recipe=recipe,
                **{field: entries[name].compressed for field, name in DRAWN.items()},
                latency_ratio=entries["cpu_latency_ms"].ratio,
                latency_interval=entries["cpu_latency_ms"].ratio_interval,
            )
            for recipe, entries in measured.items()
        ),
    )


def entry_of(baseline: Baseline, recipe: str, name: str, device: str) -> Entry | None:
    """What was recorded, on this class of device where that makes a difference."""
    entries = baseline.entries(recipe, name)
    return entries.get("") or entries.get(device)


def write_dense(entries: tuple[Entry | None, ...]) -> str:
    """The dense model's value, of times the middle one of all runs."""
    known = [entry for entry in entries if entry is not None]
    if not known:
        return ""
    return write_value(METRICS[known[0].metric], statistics.median_low(entry.dense for entry in known))


def write_compressed(entry: Entry | None) -> str:
    """The value, and what changed: of errors in points, of times as the ratio that was measured."""
    if entry is None:
        return ""
    metric = METRICS[entry.metric]
    change = write_change(metric, entry.dense, entry.compressed, entry.ratio).removesuffix(" pt")
    return f"{write_value(metric, entry.compressed)} ({change})"


if __name__ == "__main__":
    main()
