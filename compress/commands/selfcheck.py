"""``selfcheck``: how often the latency gate is wrong on this very machine."""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from compress.commands.arguments import add_json, positive_count, positive_seconds, print_json
from compress.commands.models import WORKLOAD_HELP

if TYPE_CHECKING:
    from rich.progress import Progress

    from compress.selfcheck.trial import Trial

# Apart from "could not" (1) and a command line that makes no sense (2).
MISSED = 3

_DESCRIPTION = """\
Run the latency gate on identical models and on models slowed down by 2, 3, 5 and 10 %, and count how often it was
right, next to what comparing two runs' means or medians would have said of the same samples.
"""
_EPILOG = """\
A trial takes as long as a gated test, 5 to 10 s: the default of 200 + 4 x 50 of them takes about an hour. Interrupt it
whenever you like; the same command goes on where it stopped. Leave the machine alone meanwhile, or use --busy to see
what a neighbour does. Exit status: 0 if the gate held its promise, 3 if it did not, 1 if it could not be measured
"""


def add_selfcheck_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """``selfcheck``."""
    command = commands.add_parser(
        "selfcheck",
        help="measure the latency gate's own false alarms and detections on this machine",
        description=_DESCRIPTION,
        epilog=_EPILOG,
    )
    command.set_defaults(run=_selfcheck)
    add = command.add_argument
    add("--workload", metavar="SPEC", default="digits", help=f"{WORKLOAD_HELP}; its network is measured untrained")
    add("--trials", metavar="N", type=positive_count, default=200, help="trials of identical models (default: 200)")
    add(
        "--slowed-trials",
        metavar="N",
        type=positive_count,
        help="trials with each slow-down of 2, 3, 5 and 10 %% (default: a quarter of --trials)",
    )
    add("--busy", action="store_true", help="keep one core busy with another process all the while")
    add("--threads", metavar="N", type=positive_count, default=1, help="CPU threads of the network (default: 1)")
    add("--processes", metavar="N", type=positive_count, default=3, help="fresh processes of each trial (default: 3)")
    add("--seconds", metavar="S", type=positive_seconds, default=10.0, help="what a trial may take (default: 10)")
    add("--seed", metavar="N", type=int, default=0, help="of the order of the trials (default: 0)")
    add(
        "--results",
        metavar="FILE",
        type=Path,
        help="where every trial is kept, to go on from (default: selfcheck.jsonl, with --busy selfcheck-busy.jsonl)",
    )
    add("--markdown", metavar="FILE", type=Path, help="write the table there too")
    add("--quiet", action="store_true", help="show no progress")
    add_json(command)


def _selfcheck(options: argparse.Namespace) -> int:
    """Take the trials, show the table, and say by the exit status whether the gate held its promise."""
    from compress.errors import CompressError
    from compress.measure.children import Conditions
    from compress.selfcheck.rates import held, rates
    from compress.selfcheck.table import render
    from compress.selfcheck.trials import Plan, run_trials
    from compress.system.cpu import cpu_class
    from compress.system.files import write_atomically
    from compress.workload.workload import load_workload

    workload = load_workload(options.workload)
    plan = Plan(
        workload=workload.name,
        device=cpu_class(options.threads),
        identical_trials=options.trials,
        slowed_trials=options.slowed_trials or max(1, options.trials // 4),
        seconds=options.seconds,
        processes=options.processes,
        busy=options.busy,
        seed=options.seed,
    )
    conditions = Conditions(
        model_factory=workload.model_factory,
        model_args=workload.model_args,
        example_input=workload.inputs,
        threads=options.threads,
    )
    results: Path = options.results or Path("selfcheck-busy.jsonl" if options.busy else "selfcheck.jsonl")
    trials: Sequence[Trial] = ()
    with _progress(shown=not options.quiet) as bar:
        task = bar.add_task("trials")
        for total, trials in run_trials(plan, workload.build().eval(), conditions, results):
            bar.update(task, total=total, completed=len(trials))
    found = rates(trials)
    text = render(plan, trials, found)
    if options.json:
        print_json({"plan": asdict(plan), "held": held(found), "rates": [asdict(row) for row in found]})
    else:
        print(text, end="")
    if options.markdown is not None:
        write_atomically(options.markdown, text.encode(), CompressError)
    return 0 if held(found) else MISSED


@contextmanager
def _progress(*, shown: bool) -> Iterator[Progress]:
    """A bar on a terminal."""
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    console = Console(stderr=True)
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console, transient=True, disable=not (shown and console.is_terminal)) as progress:
        yield progress
