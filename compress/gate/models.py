"""Which models a baseline's counts and errors are of once a recording is merged into it: never of two builds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from compress.errors import BaselineError
from compress.gate.baseline import Baseline, Entry
from compress.gate.identity import Relation, relation
from compress.results import Identity


def merged_models(
    old: Baseline | None, path: Path, entries: Sequence[tuple[str, Entry]], models: Mapping[str, Identity]
) -> dict[str, Identity]:
    """Recipe to the models that its counts and errors are of.

    What is recorded of another build must take the place of all that was recorded of the one before. Of entries from
    before fingerprints were known nobody can say whether they are of this build: while one of them is left, the
    recipe's models stay unknown. Times and memory say nothing about it, each class of device may have its own build.

    Args:
        old: the file as it was; None if it is begun.
        path: of the file, for the message.
        entries: (recipe, entry) of what is recorded now.
        models: recipe to the models that were measured now, where that is known.

    Raises:
        BaselineError: if counts or errors of two builds would stand side by side.
    """
    merged = dict(old.models) if old is not None else {}
    for recipe in dict.fromkeys(recipe for recipe, _ in entries):
        recorded = {entry.metric for name, entry in entries if name == recipe and not entry.about.device}
        before = _settled(old, recipe)
        known, now = merged.get(recipe), models.get(recipe)
        if before and not recorded:
            continue
        left = sorted(before - recorded)
        if left and known is not None and now is not None and relation(now, known) is not Relation.SAME:
            raise BaselineError(
                f"counts and errors of a recipe must be of one build, and {', '.join(left)} of {recipe!r} would stay"
                f" that of {relation(now, known)}; record all of its tests together ({path})"
            )
        if now is None or (left and known is None):
            merged.pop(recipe, None)
        elif relation(now, known) is not Relation.SAME or (known is not None and known.recipe != now.recipe):
            # The same model keeps the class that built it first, whoever records it again.
            merged[recipe] = now
    return merged


def _settled(old: Baseline | None, recipe: str) -> set[str]:
    """The metrics of a recipe that hold on every device: its counts and errors."""
    metrics = old.recipes.get(recipe, {}) if old is not None else {}
    return {metric for metric, entries in metrics.items() if "" in entries}
