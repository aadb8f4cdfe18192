"""Verdicts by criterion, and what a reader is told of several of them at once: names joined, values of one model."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from typing import TypeGuard

from compress.gate.figures import join_some
from compress.gate.verdict import Verdict
from compress.results import Metric, in_order

# Times of one model that differ by more were not taken under the same runtime.
ALIKE = 0.75


def by_metric(verdicts: Iterable[Verdict]) -> dict[str, dict[str, Verdict]]:
    """Metric to recipe to verdict; in the order of the metrics, the later of two about the same counts."""
    latest = {(verdict.metric.name, verdict.recipe): verdict for verdict in verdicts}
    ordered = in_order(verdict.metric for verdict in latest.values())
    return {
        shown.name: {recipe: one for (metric, recipe), one in latest.items() if metric == shown.name}
        for shown in ordered
    }


def metric_of(row: Mapping[str, Verdict]) -> Metric:
    """The metric that the verdicts of a row are about."""
    return next(iter(row.values())).metric


def dense_value(verdicts: Iterable[Verdict]) -> float | None:
    """The dense model's value of one metric; of times, which each recipe's run takes anew, the middle one.

    Times under a compiler are those of another program: left out where there are times of the model as it is, which
    takes longer.
    """
    values = [value for verdict in verdicts if is_number(value := verdict.measurement.dense)]
    if not values:
        return None
    return statistics.median_low([value for value in values if max(values) <= 0 or value >= ALIKE * max(values)])


def is_number(value: float | None) -> TypeGuard[float]:
    """Whether there is a value, and it is one that can be written."""
    return value is not None and math.isfinite(value)


def of_recipes(verdicts: Sequence[Verdict], everyone: Sequence[str], *, most: int = 3) -> str:
    """What some verdicts are about, in the table's words: ``file size, MACs (int8, compose)``.

    Args:
        verdicts: to be named.
        everyone: recipes of the run, which need no names where all of them are meant.
        most: of the metrics and of the recipes to be named.
    """
    titles = list(dict.fromkeys(verdict.metric.short for verdict in verdicts))
    recipes = list(dict.fromkeys(verdict.recipe for verdict in verdicts))
    whole = len(recipes) > most and set(recipes) == set(everyone)
    which = f"all {len(recipes)} recipes" if whole else join_some(recipes, most)
    return f"{join_some(titles, most)} ({which})"


def together(keyed: Iterable[tuple[str, Verdict]]) -> Mapping[str, list[Verdict]]:
    """Verdicts of which the same is to be said."""
    groups: dict[str, list[Verdict]] = {}
    for key, verdict in keyed:
        groups.setdefault(key, []).append(verdict)
    return groups
