"""A verdict as a picture: the value and its interval on a line, with the limit and the baseline that it was held to."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup

from compress.gate.checks import Status, ratio_intervals
from compress.gate.error_rules import BASELINE_ERROR_MARGIN
from compress.gate.figures import write_change, write_difference, write_points, write_value
from compress.gate.rules import change_bound
from compress.gate.score_rules import score_margin
from compress.gate.statistics import flips, increase_interval
from compress.gate.verdict import Verdict
from compress.report.svg import Picture, Scale, element, percent, scale_of
from compress.report.table import MARKS
from compress.results import Kind, Unit, in_order

HEIGHT = 62
_LINE = 31
_CONFIDENCE = 0.90

Ends = tuple[float, float]


@dataclass(frozen=True, kw_only=True)
class Bound:
    """What a value was held to: the most that it may be, and how that is written."""

    value: float
    text: str


@dataclass(frozen=True, kw_only=True)
class Gauge:
    """One verdict, on an axis of its own: qualities by how far above the dense model they lie, all else as a ratio.

    Attributes:
        title: the metric's.
        value: measured, in human units.
        change: against the dense model.
        mark: what the gate said, in a word.
        status: the same for a program.
        place: of the value on the axis.
        dense: place of the dense model on the axis.
        higher_is_better: whether the bounds are the least that it may be.
        interval: what the place is sure to lie in; None for a value that is exact.
        confidence: of that interval, in words; "" without one.
        processes: times only: the interval in each process, all of which must lie on one side of a bound.
        limit, baseline: what it was held to, None if to nothing.
        reasons: why it did not pass, in full.
    """

    title: str
    value: str
    change: str
    mark: str
    status: Status
    place: float
    dense: float
    higher_is_better: bool = False
    interval: Ends | None
    confidence: str
    processes: tuple[Ends, ...]
    limit: Bound | None
    baseline: Bound | None
    reasons: tuple[str, ...]

    @property
    def words(self) -> str:
        """All that the picture shows."""
        parts = [f"{self.title}: {self.value}, {self.change}"]
        if self.interval is not None:
            parts.append(f"{self.confidence} {self.interval[0]:.4g} to {self.interval[1]:.4g}")
        parts += [bound.text for bound in (self.limit, self.baseline) if bound is not None]
        return ", ".join([*parts, self.mark])


def gauge_of(verdict: Verdict) -> Gauge | None:
    """A verdict's gauge; None if it holds no number, or was held to nothing."""
    metric, measurement = verdict.metric, verdict.measurement
    dense, compressed = measurement.dense, measurement.compressed
    if not verdict.gated or dense is None or compressed is None or verdict.status is Status.NOT_MEASURED:
        return None
    size = 100.0 if metric.unit is Unit.FRACTION else 1.0
    if not metric.is_quality and not dense:
        return None
    median = verdict.ratio.median if verdict.ratio is not None else None
    ratio = compressed / dense if dense and median is None else median
    interval, confidence = _interval(verdict)
    return Gauge(
        title=metric.title,
        value=write_value(metric, compressed),
        change=write_change(metric, dense, compressed, ratio),
        mark=MARKS[verdict.status],
        status=verdict.status,
        place=size * (compressed - dense) if metric.is_quality else ratio or 0.0,
        dense=0.0 if metric.is_quality else 1.0,
        higher_is_better=metric.higher_is_better,
        interval=interval,
        confidence=confidence,
        processes=_processes(verdict),
        limit=_limit(verdict, dense),
        baseline=_baseline(verdict, dense),
        reasons=verdict.reasons,
    )


def draw_gauge(gauge: Gauge) -> Picture:
    """The picture: the limit is named above the line, the baseline below it."""
    bounds = [bound for bound in (gauge.limit, gauge.baseline) if bound is not None]
    ends = [end for interval in (*gauge.processes, gauge.interval or ()) for end in interval]
    scale = scale_of([gauge.place, gauge.dense, *ends, *(bound.value for bound in bounds)], margin=0.12)
    tightest = max if gauge.higher_is_better else min
    edge = tightest(bound.value for bound in bounds) if bounds else None
    parts = [element("line", {"x1": 0, "x2": "100%", "y1": _LINE, "y2": _LINE, "class": "track"})]
    if edge is not None:
        start, end = (0.0, scale(edge)) if gauge.higher_is_better else (scale(edge), 1.0)
        beyond = {"x": percent(start), "width": percent(end - start), "y": _LINE - 5, "height": 10}
        parts.append(element("rect", {**beyond, "class": "beyond"}))
    parts += _tick(scale, gauge.dense, "dense", above=False, named=not _close(scale, gauge))
    if gauge.baseline is not None:
        parts += _tick(scale, gauge.baseline.value, gauge.baseline.text, above=False, named=True)
    if gauge.limit is not None:
        parts += _tick(scale, gauge.limit.value, gauge.limit.text, above=True, named=True)
    if gauge.interval is not None:
        parts.append(_span(scale, gauge.interval, top=_LINE - 5, height=10, kind="span"))
    for number, process in enumerate(gauge.processes if len(gauge.processes) > 1 else ()):
        top = _LINE + 3 * (number - (len(gauge.processes) - 1) / 2) - 1
        parts.append(_span(scale, process, top=top, height=2, kind="process"))
    parts.append(element("circle", {"cx": percent(scale(gauge.place)), "cy": _LINE, "r": 4.5, "class": "value"}))
    return Picture(content=parts, height=HEIGHT, words=gauge.words, kind=f"gauge {gauge.status}")


def _close(scale: Scale, gauge: Gauge) -> bool:
    """Whether the dense model's name would stand on the baseline's: both are written below the line."""
    return gauge.baseline is not None and abs(scale(gauge.baseline.value) - scale(gauge.dense)) < 0.6  # noqa: PLR2004


def _span(scale: Scale, ends: Ends, *, top: float, height: float, kind: str) -> Markup:
    low, high = map(scale, ends)
    place = {"x": percent(low), "width": percent(high - low), "y": top, "height": height, "rx": height / 2}
    return element("rect", {**place, "class": kind})


def _tick(scale: Scale, value: float, text: str, *, above: bool, named: bool) -> list[Markup]:
    place = scale(value)
    kind = "limit" if above else "dense" if text == "dense" else "baseline"
    ends = {"y1": _LINE - 11, "y2": _LINE + 5} if above else {"y1": _LINE - 5, "y2": _LINE + 11}
    parts = [element("line", {"x1": percent(place), "x2": percent(place), **ends, "class": f"tick-{kind}"})]
    if named:
        # Near an end a name in the middle would leave the picture.
        anchor = "start" if place < 0.34 else "end" if place > 0.66 else "middle"  # noqa: PLR2004 - thirds
        where = {"x": percent(place), "y": _LINE - 16 if above else _LINE + 25}
        parts.append(element("text", {**where, "class": f"unit {anchor}"}, text))
    return parts


def _interval(verdict: Verdict) -> tuple[Ends | None, str]:
    """The interval on the gauge's axis, and how sure it is."""
    if verdict.ratio is not None:
        return (verdict.ratio.low, verdict.ratio.high), f"{100 * verdict.ratio.confidence:g} % interval"
    measurement = verdict.measurement
    known = next((check.interval for check in verdict.checks if check.interval is not None), None)
    if known is not None and all(map(math.isfinite, known)):
        size = 100.0 if verdict.metric.unit is Unit.FRACTION else 1.0
        return (size * known[0], size * known[1]), f"{100 * _CONFIDENCE:g} % interval"
    if verdict.metric.kind is not Kind.ERROR or measurement.correct is None:
        return None, ""
    n = measurement.num_examples
    interval = increase_interval(*flips(*measurement.correct, n), n, _CONFIDENCE)
    return (100 * interval.low, 100 * interval.high), f"{100 * _CONFIDENCE:g} % interval"


def _processes(verdict: Verdict) -> tuple[Ends, ...]:
    if verdict.ratio is None:
        return ()
    return tuple((interval.low, interval.high) for interval in ratio_intervals(verdict.measurement))


def _limit(verdict: Verdict, dense: float) -> Bound | None:
    if verdict.limit is None or not verdict.limit.binds(verdict.measurement.device):
        return None
    metric = verdict.metric
    if metric.is_quality:
        increase = verdict.limit.bound(0.0 if metric.kind is Kind.ERROR else dense)
        increase -= 0.0 if metric.kind is Kind.ERROR else dense
        size = 100.0 if metric.unit is Unit.FRACTION else 1.0
        return Bound(value=size * increase, text=f"limit {write_difference(metric, increase)}")
    ratio = verdict.limit.bound(dense) / dense
    return Bound(value=ratio, text=f"limit x{ratio:.2f}")


def _baseline(verdict: Verdict, dense: float) -> Bound | None:
    """The most that the baseline allows, its tolerance included."""
    metric, measurement = verdict.metric, verdict.measurement
    if verdict.baseline is None:
        return None
    entry = verdict.baseline.entries(verdict.recipe, metric.name).get(measurement.device if metric.device else "")
    if entry is None:
        return None
    if metric.kind is Kind.ERROR:
        increase = entry.compressed - dense
        text = f"baseline {write_points(increase)}, may rise {100 * BASELINE_ERROR_MARGIN:g} pt"
        return Bound(value=100 * (increase + BASELINE_ERROR_MARGIN), text=text)
    if metric.kind is Kind.SCORE:
        sign, size = -1 if metric.higher_is_better else 1, 100.0 if metric.unit is Unit.FRACTION else 1.0
        margin, change = sign * score_margin(metric, entry.compressed), entry.compressed - dense
        text = f"baseline {write_difference(metric, change)}, may move {write_difference(metric, margin)}"
        return Bound(value=size * (change + margin), text=text)
    recorded, factor = entry.compressed / dense, 1 + metric.tolerance
    if entry.ratio is not None:
        recorded, factor = entry.ratio, change_bound(metric.tolerance)
    allowance = f" + {100 * (factor - 1):.3g} %" if factor > 1 else ""
    return Bound(value=recorded * factor, text=f"baseline x{recorded:.3f}{allowance}")


def gauges_of(verdicts: Sequence[Verdict]) -> dict[str, list[Gauge]]:
    """Recipe to the gauges of its verdicts, in the order of the metrics; the later of two about one metric counts."""
    latest = {(verdict.recipe, verdict.metric.name): verdict for verdict in verdicts}
    order = in_order(verdict.metric for verdict in verdicts)
    gauges: dict[str, list[Gauge]] = {}
    for recipe in dict.fromkeys(verdict.recipe for verdict in verdicts):
        found = [gauge_of(latest[recipe, metric.name]) for metric in order if (recipe, metric.name) in latest]
        if drawn := [gauge for gauge in found if gauge is not None]:
            gauges[recipe] = drawn
    return gauges
