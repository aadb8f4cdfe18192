"""What a run came to, in the lines that a reader sees first: the verdict, what is behind it, and what to do."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from compress.gate.checks import Side, Status
from compress.gate.demands import describe
from compress.gate.figures import join_some
from compress.report.console import STYLES, fitted, wrapped
from compress.report.screen import Screen
from compress.report.table import MARKS, NOT_GATED

# Beyond these lines a list of what is wrong is no longer read.
_MOST_LINES = 8
_FEWEST_LINES = 3
_MOST_NAMES = 4

Styled = tuple[str, str]  # a line and its style


def headline(screen: Screen, *, width: int) -> list[Styled]:
    """The verdict in a line, what regressed recipe by recipe, what could not be measured, and what to do about it."""
    verdict, status = _verdict(screen)
    bad = [line for lines in fitted(list(_regressed(screen)), width=width, lines=_MOST_LINES) for line in lines]
    room = max(_FEWEST_LINES, _MOST_LINES - len(bad))
    missing = [f"COULD NOT MEASURE: {line}" for line in describe(screen.gaps, most=_MOST_NAMES)]
    return [
        *((line, STYLES[status]) for line in wrapped(verdict, width=width)),
        *((line, STYLES[Status.REGRESSED]) for line in bad),
        *((line, STYLES[Status.NOT_MEASURED]) for one in fitted(missing, width=width, lines=room) for line in one),
        *((line, "") for line in wrapped(_advice(screen), width=width)),
    ]


def about(screen: Screen, *, width: int) -> list[Styled]:
    """The lines at the head of the table: what was measured where, which model it was, how many of each mark."""
    where = screen.environment
    machine = f" on {where.cuda_class or where.cpu_class}, torch {where.torch}" if where else ""
    texts = [f"workload: {screen.workload}{machine}", screen.identity, f"verdicts: {_counts(screen)}"]
    return [(line, "") for text in texts if text for line in wrapped(text, width=width)]


def _verdict(screen: Screen) -> tuple[str, Status]:
    end = f"exit status {screen.exit_status}"
    if screen.of_status(Status.REGRESSED):
        return f"REGRESSED: {_beyond(screen)}: {end}", Status.REGRESSED
    if screen.title == "regressed":
        return f"FAILED: no value regressed, but another test failed: {end}", Status.REGRESSED
    if screen.title == "could not measure":
        return f"nothing regressed, but something could not be measured: {end}", Status.NOT_MEASURED
    if not any(verdict.gated for verdict in screen.verdicts):
        return f"REPORTED: nothing was held, for there is no limit and no baseline: {end}", Status.INCONCLUSIVE
    undecided = len(screen.of_status(Status.INCONCLUSIVE))
    left_open = f", {undecided} undecided" if undecided else ""
    return f"HELD: no value is worse than it may be{left_open}: {end}", Status.PASSED


def _beyond(screen: Screen) -> str:
    """How many values regressed, and against what."""
    bad = screen.of_status(Status.REGRESSED)
    broken = Counter(check.side for verdict in bad for check in verdict.checks if check.status is Status.REGRESSED)
    measured = sum(verdict.gated and verdict.status is not Status.NOT_MEASURED for verdict in screen.verdicts)
    sides = {Side.LIMIT: "beyond a limit", Side.BASELINE: "above the baseline"}
    parts = [f"{broken[side]} {words}" for side, words in sides.items() if broken[side]]
    return f"{len(bad)} of {measured} values, {', '.join(parts)}"


def _regressed(screen: Screen) -> Iterator[str]:
    by_recipe: dict[str, list[str]] = {}
    for verdict in screen.of_status(Status.REGRESSED):
        by_recipe.setdefault(verdict.recipe, []).append(verdict.metric.short)
    yield from (f"  {recipe}: {join_some(names, _MOST_NAMES)}" for recipe, names in by_recipe.items())
    yield from (f"REGRESSED: {line}" for line in screen.hidden)


def _advice(screen: Screen) -> str:
    if screen.of_status(Status.REGRESSED):
        return "Each failure above says why, what to run, and how to accept the new value on purpose."
    if screen.title == "could not measure":
        return "Measure it, record it with --benchmark-save, or excuse it by name with --compress-excuse."
    if screen.title == "held" and not screen.compares:
        return "Held by the recipes' limits alone: --benchmark-save records a baseline, --benchmark-compare holds it."
    return ""


def _counts(screen: Screen) -> str:
    """How many of each mark there are."""
    latest = {(verdict.metric.name, verdict.recipe): verdict for verdict in screen.verdicts}
    marks = Counter(MARKS[verdict.status] if verdict.gated else NOT_GATED for verdict in latest.values())
    order = (*reversed(tuple(MARKS.values())), NOT_GATED)
    return ", ".join(f"{marks[mark]} {mark}" for mark in order if marks[mark])
