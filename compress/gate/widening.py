"""Several recordings of the same times as one: how far a machine drifts from hour to hour is part of their spread.

The interval of one recording covers what changes while it is taken. What all of its processes share, such as a clock
that is lower for an hour, no number of processes shows: only another recording does.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from compress.gate.baseline import Baseline, Entry
from compress.results import Environment, Identity, Kind


def widened(
    entries: Sequence[tuple[str, Entry]],
    old: Baseline | None,
    models: Mapping[str, Identity],
    environment: Environment,
) -> list[tuple[str, Entry]]:
    """What is recorded now, the interval of each time reaching over the one that was recorded before.

    A time stands as it was measured now where the one before is of other steps, another dense model, other versions or
    another machine, or has no interval: that would be a change, and no drift. The ratio is always that of now.

    Args:
        entries: (recipe, entry) of what is recorded now.
        old: the file as it was; None if it is begun.
        models: recipe to the models that were measured now, where that is known.
        environment: of this run.
    """
    if old is None or old.environments.get(environment.cpu_class) != environment:
        return list(entries)
    return [
        (recipe, _over(entry, old.entries(recipe, entry.metric).get(entry.device)))
        if _is_of_the_same(models.get(recipe), old.models.get(recipe))
        else (recipe, entry)
        for recipe, entry in entries
    ]


def _is_of_the_same(now: Identity | None, before: Identity | None) -> bool:
    """Whether both came from the same dense model by the same steps; each class of device may build its own of them."""
    return now is not None and before is not None and (now.dense, now.recipe) == (before.dense, before.recipe)


def _over(now: Entry, before: Entry | None) -> Entry:
    if now.about.kind is not Kind.TIME or before is None:
        return now
    if now.ratio_interval is None or before.ratio_interval is None:
        return now
    (low, high), (lowest, highest) = now.ratio_interval, before.ratio_interval
    return replace(now, ratio_interval=(min(low, lowest), max(high, highest)))
