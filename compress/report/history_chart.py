"""How a metric moved over the stored baselines up to this run: a small line chart for each metric."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from markupsafe import Markup

from compress.gate.baseline import Entry
from compress.gate.figures import write_change, write_value
from compress.gate.history import Version
from compress.gate.verdict import Verdict
from compress.report.svg import Picture, Scale, element, percent, scale_of
from compress.results import Kind, Measurement, Metric, Unit, in_order

HEIGHT = 118
_TICKS = 3
SERIES = 5  # classes of the style sheet, after which they begin again


@dataclass(frozen=True, kw_only=True)
class Moment:
    """One value of a recipe at one time.

    Attributes:
        position: which of the moments of the chart it is, from 0.
        value: shares in percent, other qualities in their own unit, all else as a ratio to the dense model of the
            same run.
        title: all about it.
    """

    position: int
    value: float
    title: str


@dataclass(frozen=True, kw_only=True)
class History:
    """One metric over time.

    Attributes:
        metric: which.
        unit: what its values are, in words.
        moments: names of the moments, the last one being this run.
        series: recipe to its values.
    """

    metric: Metric
    unit: str
    moments: tuple[str, ...]
    series: dict[str, tuple[Moment, ...]]


def histories(versions: Sequence[Version], verdicts: Sequence[Verdict]) -> list[History]:
    """For each metric of this run that a stored baseline has too, on the same class of device, how it moved."""
    moments = (*(f"{version.when:%Y-%m-%d}" for version in versions), "now")
    latest = {(verdict.metric.name, verdict.recipe): verdict.measurement for verdict in verdicts}
    found = []
    for metric in in_order(verdict.metric for verdict in verdicts):
        series = {
            recipe: values
            for (name, recipe), measurement in latest.items()
            if name == metric.name and len(values := _values(metric, recipe, measurement, versions)) > 1
        }
        if series:
            unit = "x dense"
            if metric.is_quality:
                unit = "%" if metric.unit is Unit.FRACTION else ""
            found.append(History(metric=metric, unit=unit, moments=moments, series=series))
    return found


def draw_history(history: History, *, series: Mapping[str, int]) -> Picture:
    """The picture.

    Args:
        history: what to draw.
        series: recipe to its colour, a number below :data:`SERIES`.
    """
    y = scale_of([moment.value for values in history.series.values() for moment in values], margin=0.15, floor=0.0)
    lines = [
        _line(values, y, count=len(history.moments), series=series[recipe]) for recipe, values in history.series.items()
    ]
    return Picture(
        content=[*_axes(history, y), *lines],
        height=HEIGHT,
        left=44,
        right=8,
        top=8,
        bottom=24,
        words=f"{history.metric.title} over {len(history.moments) - 1} stored baselines and now: {_words(history)}",
    )


def _values(metric: Metric, recipe: str, measurement: Measurement, versions: Sequence[Version]) -> tuple[Moment, ...]:
    """What the baselines recorded, then this run's; without this run's there is no history to show."""
    if measurement.compressed is None or measurement.dense is None:
        return ()
    moments = []
    for position, version in enumerate(versions):
        entry = version.baseline.entries(recipe, metric.name).get(measurement.device if metric.device else "")
        if entry is not None and (value := _value(metric, entry.dense, entry.compressed, entry.ratio)) is not None:
            about = f"{recipe}, {version.label}, {version.when:%Y-%m-%d}: {_written(metric, entry)}"
            moments.append(Moment(position=position, value=value, title=about))
    now = Entry(
        metric=metric.name,
        declared=measurement.declared,
        dense=measurement.dense,
        compressed=measurement.compressed,
        ratio=measurement.ratio if metric.kind is Kind.TIME else None,
    )
    if (value := _value(metric, now.dense, now.compressed, now.ratio)) is not None:
        moments.append(Moment(position=len(versions), value=value, title=f"{recipe}, now: {_written(metric, now)}"))
    return tuple(moments)


def _value(metric: Metric, dense: float, compressed: float, ratio: float | None) -> float | None:
    if metric.is_quality:
        return 100 * compressed if metric.unit is Unit.FRACTION else compressed
    if ratio is not None:
        return ratio
    return compressed / dense if dense else None


def _written(metric: Metric, entry: Entry) -> str:
    change = write_change(metric, entry.dense, entry.compressed, entry.ratio)
    return f"{write_value(metric, entry.compressed)} ({change})" if change else write_value(metric, entry.compressed)


def _axes(history: History, y: Scale) -> list[Markup]:
    parts = []
    for tick, text in y.labelled(_TICKS):
        place = HEIGHT * (1 - y(tick))
        parts += [
            element("line", {"x1": 0, "x2": "100%", "y1": place, "y2": place, "class": "grid"}),
            element("text", {"x": -8, "y": place + 4, "class": "tick end"}, text),
        ]
    first, last = history.moments[0], history.moments[-1]
    parts += [
        element("text", {"x": 0, "y": HEIGHT + 18, "class": "tick"}, first),
        element("text", {"x": "100%", "y": HEIGHT + 18, "class": "tick end"}, last),
    ]
    return parts


def _line(values: Sequence[Moment], y: Scale, *, count: int, series: int) -> Markup:
    places = [(moment.position / (count - 1), HEIGHT * (1 - y(moment.value))) for moment in values]
    parts = [
        element("line", {"x1": percent(x1), "y1": y1, "x2": percent(x2), "y2": y2})
        for (x1, y1), (x2, y2) in itertools.pairwise(places)
    ]
    for moment, (x, down) in zip(values, places, strict=True):
        title = element("title", None, moment.title)
        parts.append(element("circle", {"cx": percent(x), "cy": down, "r": 3.5}, title))
    return element("g", {"class": f"series series-{series}"}, *parts)


def _words(history: History) -> str:
    return "; ".join(
        f"{recipe} from {values[0].value:.4g} to {values[-1].value:.4g} {history.unit}"
        for recipe, values in history.series.items()
    )
