"""What changed from one baseline to another, and whether it got worse: for whoever reviews the change of the file."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum

from compress.gate.baseline import Baseline, Entry
from compress.gate.error_rules import BASELINE_ERROR_MARGIN
from compress.gate.identity import BUILD_TOLERANCE, HOW_ANOTHER_BUILD_IS_HELD, Relation, relation
from compress.gate.limits import exceeds
from compress.gate.score_rules import score_margin
from compress.gate.statistics import flips
from compress.results import Environment, Kind, Metric, in_order


class Trend(StrEnum):
    """Which way an entry went. What moves by no more than its metric's tolerance only changed."""

    WORSE = "worse"
    GONE = "gone"
    BETTER = "better"
    NEW = "new"
    CHANGED = "changed"
    SAME = "same"


@dataclass(frozen=True, kw_only=True)
class Change:
    """One entry in both files.

    Attributes:
        recipe: name of the recipe.
        metric: what was measured.
        device: class of device, "" where it makes no difference.
        before, after: the entries; None where a file has none.
        trend: which way it went.
        flips: errors only: how many test examples were lost and gained, None if the files do not say.
    """

    recipe: str
    metric: Metric
    device: str
    before: Entry | None
    after: Entry | None
    trend: Trend
    flips: tuple[int, int] | None = None


@dataclass(frozen=True, kw_only=True)
class Difference:
    """What changed from one file to another.

    Attributes:
        before, after: the files.
        about: what changed beside the entries, one line each.
        changes: by recipe, metric and class of device, unchanged ones too.
    """

    before: Baseline
    after: Baseline
    about: tuple[str, ...]
    changes: tuple[Change, ...]

    @property
    def worse(self) -> bool:
        """Whether any entry got worse, or is no longer guarded at all."""
        return any(change.trend in (Trend.WORSE, Trend.GONE) for change in self.changes)


def compare_baselines(before: Baseline, after: Baseline) -> Difference:
    """Compare two files, entry by entry, each metric by its own tolerance and times by their ratios."""
    return Difference(
        before=before, after=after, about=tuple(_about(before, after)), changes=tuple(_changes(before, after))
    )


def held_value(entry: Entry) -> float:
    """What the gate compares: of a time the ratio to the dense model, of all else the compressed model's value."""
    return entry.compressed if entry.ratio is None else entry.ratio


def _changes(before: Baseline, after: Baseline) -> Iterator[Change]:
    for recipe in sorted(before.recipes.keys() | after.recipes.keys()):
        related = relation(after.models.get(recipe), before.models.get(recipe))
        same_model = related is Relation.SAME
        metrics = in_order(entry.about for entry in (*before.everything, *after.everything))
        for metric in metrics:
            old, new = before.entries(recipe, metric.name), after.entries(recipe, metric.name)
            for device in sorted(old.keys() | new.keys()):
                one, other = old.get(device), new.get(device)
                yield Change(
                    recipe=recipe,
                    metric=metric,
                    device=device,
                    before=one,
                    after=other,
                    trend=_trend(metric, one, other, same_model=same_model),
                    flips=_flips(before, after, one, other),
                )


def _trend(metric: Metric, before: Entry | None, after: Entry | None, *, same_model: bool) -> Trend:
    """Of another build as the gate would hold it: counts within its tolerance, errors over their dense model."""
    if before is None or after is None:
        return Trend.NEW if before is None else Trend.GONE
    if before == after:
        return Trend.SAME
    old, new = held_value(before), held_value(after)
    tolerance = metric.tolerance
    margin = score_margin(metric, before.compressed) if metric.kind is Kind.SCORE else BASELINE_ERROR_MARGIN
    if not same_model:
        if metric.is_quality:
            old, new = old - before.dense, new - after.dense
        elif metric.kind is not Kind.TIME:
            tolerance = max(tolerance, BUILD_TOLERANCE)
    allowance = margin if metric.is_quality else tolerance * old
    worse = metric.worse_by(old, new)
    if exceeds(worse, allowance):
        return Trend.WORSE
    return Trend.BETTER if exceeds(-worse, allowance) else Trend.CHANGED


def _flips(before: Baseline, after: Baseline, one: Entry | None, other: Entry | None) -> tuple[int, int] | None:
    if one is None or other is None or one.correct is None or other.correct is None:
        return None
    if (before.data_sha256, before.num_examples) != (after.data_sha256, after.num_examples):
        return None
    return flips(one.correct, other.correct, before.num_examples)


def _about(before: Baseline, after: Baseline) -> Iterator[str]:
    if before.workload != after.workload:
        yield f"workload: {before.workload} -> {after.workload}; these are not the same models"
    if before.data_sha256 != after.data_sha256:
        yield (
            f"test data: sha256 {before.data_sha256[:12]} -> {after.data_sha256[:12]}; errors on other examples do not "
            "compare"
        )
    if before.num_examples != after.num_examples:
        yield f"test examples: {before.num_examples:,} -> {after.num_examples:,}"
    yield from _models(before, after)
    for name in sorted(before.environments.keys() | after.environments.keys()):
        change = _environment(before.environments.get(name), after.environments.get(name))
        if change:
            yield f"environment {name}: {change}"


def _models(before: Baseline, after: Baseline) -> Iterator[str]:
    """How the models of both files are related, like with like; nothing of those that are the same."""
    together: dict[str, list[str]] = {}
    for recipe in sorted(before.recipes.keys() & after.recipes.keys()):
        related = relation(after.models.get(recipe), before.models.get(recipe))
        if related is not Relation.SAME:
            together.setdefault(related, []).append(recipe)
    for words, recipes in together.items():
        yield f"models of {', '.join(recipes)}: {words}; {HOW_ANOTHER_BUILD_IS_HELD}"


def _environment(before: Environment | None, after: Environment | None) -> str:
    if before is None or after is None:
        return "new" if before is None else "gone"
    pairs = {
        key: (getattr(before, key), getattr(after, key)) for key in ("python", "torch", "cpu", "cuda_class", "gpu")
    }
    return ", ".join(f"{key} {old} -> {new}" for key, (old, new) in pairs.items() if old != new)
