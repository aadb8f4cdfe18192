"""The table of a self-check, as Markdown that reads well on a terminal too."""

from __future__ import annotations

import statistics
from collections.abc import Sequence

from compress.gate.judge import RECORDED_LOOKS
from compress.gate.rules import change_bound
from compress.selfcheck.rates import LEAST_DETECTED, MOST_FALSE_ALARMS, TOLERANCE, Rates, held, lower_bound, upper_bound
from compress.selfcheck.trial import Trial
from compress.selfcheck.trials import Plan

_HEADINGS = (
    "slow-down",
    "trials",
    "gate: red",
    "undecided",
    "95 % sure",
    f"red if bound at {TOLERANCE:.0%}",
    f"pytest-benchmark mean:{TOLERANCE:.0%}",
    f"median:{TOLERANCE:.0%}",
)


def render(plan: Plan, trials: Sequence[Trial], found: Sequence[Rates]) -> str:
    """What was measured, the table, and what it comes to."""
    rows = [_HEADINGS, *map(_row, found)]
    widths = [max(len(row[i]) for row in rows) for i in range(len(_HEADINGS))]
    lines = [
        "| " + " | ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)) + " |" for row in rows
    ]
    lines.insert(1, "| " + " | ".join("-" * (width - 1) + ":" for width in widths) + " |")
    return "\n".join([*_introduction(plan, trials), "", *lines, "", _conclusion(found), ""])


def _introduction(plan: Plan, trials: Sequence[Trial]) -> list[str]:
    taken = sorted(trial.seconds for trial in trials)
    second_looks = sum(trial.second is not None for trial in trials)
    neighbour = "another process keeping one core busy" if plan.busy else "no load of our own beside it"
    dense = statistics.median(trial.first.dense or 0.0 for trial in trials)
    what = f"{plan.workload}, {dense:.3g} ms a call, on {plan.device}, {neighbour}"
    bounds = f"{change_bound(TOLERANCE) - 1:.1%} above its baseline, halfway to the {TOLERANCE:.0%} that it must find"
    looks = f"{second_looks:,} of {len(trials):,} took a second look"
    times = f"median {statistics.median(taken):.1f} s, longest {taken[-1]:.1f} s, of {plan.seconds:g} s allowed"
    return [
        f"Self-check of the latency gate: {what}.",
        f"Each trial takes {plan.processes} fresh processes; its baseline is {RECORDED_LOOKS} of identical models.",
        f"The gate holds a ratio to {bounds}.",
        f"Time of a trial: {times}; {looks}.",
    ]


def _row(row: Rates) -> tuple[str, ...]:
    if row.slowdown == 0:
        name, sure = "none", f"at most {upper_bound(row.red, row.trials):.1%}"
    else:
        name, sure = f"{row.slowdown:.0%}", f"at least {lower_bound(row.red, row.trials):.1%}"
    counts = (row.red, row.undecided, row.red_at_tolerance, row.mean_red, row.median_red)
    red, undecided, *others = (f"{count / row.trials:.1%}" for count in counts)
    return name, f"{row.trials:,}", red, undecided, sure, *others


def _conclusion(found: Sequence[Rates]) -> str:
    goal = (
        f"at most {MOST_FALSE_ALARMS:.0%} false alarms, and at least {LEAST_DETECTED:.0%} of slow-downs by"
        f" {TOLERANCE:.0%} and more found"
    )
    return f"{'Held' if held(found) else 'MISSED'}: {goal}."
