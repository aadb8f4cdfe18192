"""What a reader should know beside the table, like with like: one sentence however many values it is about."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from compress.gate.checks import Side, Status
from compress.gate.demands import describe
from compress.gate.figures import join_some
from compress.gate.verdict import Verdict
from compress.report.names import ALIKE, by_metric, dense_value, is_number, of_recipes, together
from compress.report.screen import Screen
from compress.results import Kind

_FEW = 2


def remarks(screen: Screen) -> list[str]:
    """One sentence each, the most important first."""
    return [
        # What goes unmeasured on purpose is said aloud, whatever else there is to say.
        *_excused(screen),
        *_undecided(screen),
        *_without_baseline(screen),
        *_limits_elsewhere(screen),
        *screen.notes,
        *_stale(screen),
        *_unproven(screen),
        *_other_dense(screen),
        *_measured_otherwise(screen),
        *_not_gated(screen),
    ]


def _undecided(screen: Screen) -> Iterator[str]:
    undecided = screen.of_status(Status.INCONCLUSIVE)
    errors = [verdict for verdict in undecided if verdict.metric.is_quality]
    others = [verdict for verdict in undecided if not verdict.metric.is_quality]
    more = {"more pairs (--compress-seconds) or a quieter machine": others, "more test examples": errors}
    for what, verdicts in more.items():
        if verdicts:
            yield f"undecided: {of_recipes(verdicts, screen.recipes)}: {what} would decide"


def _without_baseline(screen: Screen) -> Iterator[str]:
    """Memory and times of a class of device that the baseline does not know."""
    found = [
        verdict
        for verdict in screen.verdicts
        if verdict.baseline is not None
        and verdict.gated
        and not any(check.side in (Side.BASELINE, Side.MEASUREMENT) for check in verdict.checks)
    ]
    path = next((verdict.baseline.path for verdict in found if verdict.baseline is not None), None)
    if path is None:
        return
    kinds = {Kind.TIME: "times", Kind.MEMORY: "memory"}
    what = " and ".join(word for kind, word in kinds.items() if any(verdict.metric.kind is kind for verdict in found))
    devices = " and ".join(sorted({verdict.measurement.device for verdict in found}))
    advice = "" if screen.records == path.stem else f"; add it with --benchmark-save={path.stem}"
    yield f"{what}: {path} has none for {devices}, only limits were held{advice}"


def _limits_elsewhere(screen: Screen) -> Iterator[str]:
    """Limits that are for other classes of device than this."""
    found = [
        (f"{', '.join(verdict.limit.devices)}, not for {verdict.measurement.device}", verdict)
        for verdict in screen.verdicts
        if verdict.limit is not None
        and verdict.measurement.device
        and verdict.limit.is_bound
        and not verdict.limit.binds(verdict.measurement.device)
    ]
    for devices, verdicts in together(found).items():
        yield f"limits of {of_recipes(verdicts, screen.recipes)} are for {devices}: not held"


def _excused(screen: Screen) -> Iterator[str]:
    gaps: dict[str, list[str]] = {}
    for text in dict.fromkeys(excuse.text for excuse, _ in screen.excused):
        gaps[text] = describe([gap for excuse, gap in screen.excused if excuse.text == text], most=_FEW)
    if len(gaps) > _FEW:
        yield f"excused by name: {join_some(list(gaps), 6)}"
        return
    for text, lines in gaps.items():
        more = f", and {len(lines) - 1} more" if len(lines) > 1 else ""
        yield f"excused by {text}: {lines[0]}{more}"


def _stale(screen: Screen) -> Iterator[str]:
    found = [(verdict, check) for verdict in screen.verdicts for check in verdict.checks if check.stale]
    if len(found) == 1:
        verdict, check = found[0]
        yield f"{of_recipes([verdict], screen.recipes)}: {check.notes[-1]}"
    elif found:
        which = of_recipes([verdict for verdict, _ in found], screen.recipes)
        yield f"baseline is stale: {which} are better, record the gain with --benchmark-save"


def _unproven(screen: Screen) -> Iterator[str]:
    found = [verdict for verdict in screen.verdicts if not all(check.proven for check in verdict.checks)]
    if found:
        examples = max(verdict.measurement.num_examples for verdict in found)
        which = of_recipes(found, screen.recipes)
        yield f"{examples:,} examples do not prove {which} within margin"


def _other_dense(screen: Screen) -> Iterator[str]:
    """Recipes whose own dense model was much faster than the one that the table shows, as a compiled one is."""
    recipes: dict[str, None] = {}
    for row in by_metric(screen.verdicts).values():
        shown = dense_value(row.values())
        for recipe, verdict in row.items():
            own = verdict.measurement.dense
            if shown is not None and is_number(own) and 0 < own < ALIKE * shown:
                recipes[recipe] = None
    if recipes:
        yield f"{join_some(list(recipes), 3)}: times are ratios to their own dense run, a faster one"


def _measured_otherwise(screen: Screen) -> Iterator[str]:
    """What was said of how a value was measured."""
    said = [(note, verdict) for verdict in screen.verdicts for note in verdict.measurement.notes]
    return (f"{of_recipes(verdicts, screen.recipes)}: {note}" for note, verdicts in together(said).items())


def _not_gated(screen: Screen) -> Iterator[str]:
    found: Sequence[Verdict] = [verdict for verdict in screen.verdicts if not verdict.gated]
    if found:
        yield f"held against nothing, for there is no limit and no baseline: {of_recipes(found, screen.recipes)}"
