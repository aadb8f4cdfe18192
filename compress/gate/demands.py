"""What a run has to measure, what may be left out of it, and what is missing: nothing unmeasured passes."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace

from compress.gate.baseline import Baseline
from compress.gate.checks import Check, Side, Status
from compress.gate.figures import join_some
from compress.gate.limits import find_metric
from compress.gate.verdict import Verdict
from compress.results import METRICS, Metric, in_order


@dataclass(frozen=True, kw_only=True)
class Excuse:
    """A metric, of one recipe or of all, or a test, that may go unmeasured.

    Attributes:
        text: as the user gave it.
        metric: its name, "" if it is a test that is excused.
        recipe: name of the recipe, "" for any.
        test: pytest's node id, with or without the part in brackets.
    """

    text: str
    metric: str = ""
    recipe: str = ""
    test: str = ""

    def covers(self, gap: Gap) -> bool:
        """Whether it is the one that is excused."""
        if self.test:
            return self.test in (gap.test, gap.test.partition("[")[0])
        return self.metric == gap.metric and self.recipe in ("", gap.recipe)


@dataclass(frozen=True, kw_only=True)
class Gap:
    """Something that was to be measured and was not.

    Attributes:
        why: in words.
        metric, recipe: what it is about, "" where that is not known.
        test: pytest's node id, "" if no test was there to measure it.
    """

    why: str
    metric: str = ""
    recipe: str = ""
    test: str = ""

    @property
    def what(self) -> str:
        """Its name for a reader."""
        if self.metric:
            return f"{self.metric} of {self.recipe}"
        return self.test or (f"recipe {self.recipe}" if self.recipe else "this run")


@dataclass(frozen=True, kw_only=True)
class Rules:
    """What may go unmeasured, and what may not stay undecided.

    Attributes:
        require_cuda: whether a missing CUDA device is no excuse.
        require_baseline: whether what has no baseline for this class of device has not been measured.
        strict: whether what is inconclusive has not been measured either.
        excuses: what is excused by name.
    """

    require_cuda: bool = False
    require_baseline: bool = False
    strict: bool = False
    excuses: tuple[Excuse, ...] = ()

    def excuse(self, gap: Gap) -> Excuse | None:
        """The excuse that covers it, if any."""
        return next((excuse for excuse in self.excuses if excuse.covers(gap)), None)


def parse_excuse(text: str, metrics: Mapping[str, Metric] | None = None) -> Excuse:
    """Read ``METRIC``, ``METRIC:RECIPE`` or ``FILE::TEST``.

    Args:
        text: as the user gave it.
        metrics: those that the workload has, by name; None where they are not known yet, and any name will do.

    Raises:
        ConfigError: if there is no such metric; it names the nearest.
    """
    if "::" in text:
        return Excuse(text=text, test=text)
    metric, _, recipe = text.partition(":")
    if metrics is not None:
        find_metric(metric, where=f"excuse {text!r}", metrics=metrics)
    return Excuse(text=text, metric=metric, recipe=recipe)


def demand_comparison(verdict: Verdict, rules: Rules) -> Verdict:
    """A verdict for which a baseline was asked for, and there may be none on this class of device.

    Where the recipe's limit was held, that is what was held and the missing comparison is said; where nothing was held
    at all, or the rules require a baseline, the metric was not measured.
    """
    compared = any(check.side in (Side.BASELINE, Side.MEASUREMENT) for check in verdict.checks)
    if verdict.baseline is None or compared or (verdict.gated and not rules.require_baseline):
        return verdict
    text = f"{'; '.join(verdict.notes)}; record it with --benchmark-save"
    check = Check(side=Side.BASELINE, status=Status.NOT_MEASURED, text=text)
    worse = verdict.status is Status.REGRESSED
    return replace(
        verdict,
        status=verdict.status if worse else Status.NOT_MEASURED,
        checks=(*verdict.checks, check),
        notes=(),
    )


def missing(
    verdicts: Sequence[Verdict],
    *,
    limits: Mapping[str, Collection[str]],
    baseline: Baseline | None,
    recipes: Collection[str] | None,
    cuda: bool,
) -> list[Gap]:
    """Metrics that a recipe's limits or the baseline guard and that no test measured.

    Args:
        verdicts: of the whole run.
        limits: recipe to the metrics that it limits.
        baseline: that the run compares with.
        recipes: names of those that the run is confined to; None for all that the baseline knows.
        cuda: whether what takes a CUDA device is demanded too.
    """
    measured = {(verdict.recipe, verdict.metric.name) for verdict in verdicts}
    guarded: dict[tuple[str, str], str] = {}
    declared = {verdict.metric.name: verdict.metric for verdict in verdicts}
    if baseline is not None:
        declared |= {entry.metric: entry.about for entry in baseline.everything}
        for recipe, metrics in sorted(baseline.recipes.items()):
            if recipes is None or recipe in recipes:
                guarded |= {(recipe, metric): f"it stands in {baseline.path}" for metric in metrics}
    for recipe, limited in limits.items():
        guarded |= {(recipe, metric): "its recipe limits it" for metric in limited}
    known = {**METRICS, **declared}
    order = [metric.name for metric in in_order(known.values())]
    return [
        Gap(metric=metric, recipe=recipe, why=f"{why}, and no test measured it")
        for (recipe, metric), why in sorted(guarded.items(), key=lambda item: (item[0][0], _place(item[0][1], order)))
        if (recipe, metric) not in measured and (cuda or metric not in known or known[metric].device != "cuda")
    ]


def _place(name: str, order: Sequence[str]) -> int:
    """Where a metric stands; one that only a limit names, and nothing measured, comes last."""
    return order.index(name) if name in order else len(order)


def describe(gaps: Sequence[Gap], *, most: int | None = None) -> list[str]:
    """One line for each reason; what shares it stands together, and so do recipes of which the same metrics share it.

    Args:
        gaps: to be named.
        most: names of each sort in a line; None for all of them.
    """
    names: dict[tuple[str, str], dict[str, None]] = {}
    for gap in gaps:
        recipe = gap.recipe if gap.metric else ""
        # A reason that names what it is about would share a line with none.
        why = gap.why.replace(f"{gap.metric} of {gap.recipe!r}", "it") if gap.metric else gap.why
        names.setdefault((recipe, why), {})[gap.metric or gap.what] = None
    recipes: dict[tuple[tuple[str, ...], str], list[str]] = {}
    for (recipe, why), what in names.items():
        recipes.setdefault((tuple(what), why), []).append(recipe)
    return [
        f"{join_some(what, most)}{f' of {join_some(which, most)}' if any(which) else ''}: {why}"
        for (what, why), which in recipes.items()
    ]
