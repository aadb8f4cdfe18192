"""Error against what a model costs, as a picture: each model a mark, those that another one beats in grey."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple

from markupsafe import Markup

from compress.gate.figures import write_value
from compress.report.pareto import Candidate, dominated
from compress.report.svg import LogScale, Picture, Scale, element, log_scale_of, percent, scale_of
from compress.results import METRICS, Metric, Unit

HEIGHT = 250
_TICKS = 5
# How many times the least error the largest one must be for a logarithmic axis.
_LOG_FROM = 10
# Labels are placed for the narrowest screen; on a wider one there is only more room.
_NARROWEST = 270
_LETTER = 6.6
_LINE = 14
_MARK = 6.0


class Cost(StrEnum):
    """What the error is drawn against."""

    LATENCY = "latency"
    BYTES = "bytes"


class Role(StrEnum):
    """What a mark stands for; also its class in the style sheet."""

    DENSE = "dense"
    SEED = "seed"
    TRIAL = "trial"


@dataclass(frozen=True, kw_only=True)
class Mark:
    """One model in the picture.

    Attributes:
        role: decides its shape.
        x: its cost, in the axis's unit.
        y: its error, or another quality; shares in percent.
        interval: ends of the interval of ``x``, None if it is exact.
        beaten: whether another model is no worse in both and better in one.
        label: beside the mark, if there is room.
        title: all about it, for whoever points at it.
    """

    role: Role
    x: float
    y: float
    interval: tuple[float, float] | None
    beaten: bool
    label: str
    title: str


TITLES = {Cost.LATENCY: "error against time", Cost.BYTES: "error against size"}
_AXES = {Cost.LATENCY: "time per image, compressed / dense", Cost.BYTES: "file size, MB"}


def marks_of(dense: Candidate, candidates: Sequence[Candidate], cost: Cost) -> list[Mark]:
    """The dense model and all candidates that have this cost, in order of drawing: what matters most comes last."""
    models = [dense, *(one for one in candidates if _cost(one, cost) is not None)]
    points = [(one.badness, _cost(one, cost) or 0.0) for one in models]
    marks = [
        Mark(
            role=Role.DENSE if one is dense else Role.SEED if one.is_seed else Role.TRIAL,
            x=x,
            y=(100 if one.metric.unit is Unit.FRACTION else 1) * one.quality,
            interval=one.latency_interval if cost is Cost.LATENCY else None,
            beaten=beaten,
            label=one.label if one.is_seed else "",
            title=describe(one),
        )
        for one, (_, x), beaten in zip(models, points, dominated(points), strict=True)
    ]
    return sorted(marks, key=lambda mark: (mark.role is not Role.TRIAL, not mark.beaten))


def describe(one: Candidate) -> str:
    """A candidate in one line."""
    parts = [
        f"{one.metric.title} {write_value(one.metric, one.quality)}",
        write_value(METRICS["file_bytes"], one.file_bytes),
        f"{one.num_params:,.0f} parameters",
    ]
    if one.latency_ratio is not None:
        parts.append(f"time x{one.latency_ratio:.3f}")
    return f"{one.label}: {', '.join(parts)}"


def draw_scatter(marks: Sequence[Mark], cost: Cost, *, title: str, metric: Metric = METRICS["top1_error"]) -> Picture:
    """The picture, of models that are judged by that metric."""
    ends = [end for mark in marks for end in (mark.interval or ())]
    x = scale_of([*(mark.x for mark in marks), *ends], floor=0.0)
    y = _error_scale([mark.y for mark in marks])
    return Picture(
        content=[*_axes(x, y, cost, metric), *_marks(marks, x, y)],
        height=HEIGHT,
        left=46,
        right=16,
        top=24,
        bottom=46,
        words=f"{title}. {_words(marks, cost)}",
    )


def _error_scale(errors: Sequence[float]) -> Scale | LogScale:
    """Logarithmic where errors differ so much that, of all but the worst, nothing could be told apart."""
    positive = [error for error in errors if error > 0]
    if positive and max(positive) > _LOG_FROM * min(positive):
        return log_scale_of(errors, margin=0.12)
    return scale_of(errors, margin=0.12, floor=0.0)


def _axes(x: Scale, y: Scale | LogScale, cost: Cost, metric: Metric) -> list[Markup]:
    unit = f"{metric.title}, %" if metric.unit is Unit.FRACTION else metric.title
    unit += ", logarithmic" if isinstance(y, LogScale) else ""
    parts = [element("text", {"x": -46, "y": -12, "class": "unit"}, unit)]
    for tick, text in y.labelled(_TICKS):
        place = HEIGHT * (1 - y(tick))
        parts += [
            element("line", {"x1": 0, "x2": "100%", "y1": place, "y2": place, "class": "grid"}),
            element("text", {"x": -8, "y": place + 4, "class": "tick end"}, text),
        ]
    for tick, text in x.labelled(_TICKS):
        across = percent(x(tick))
        sign = "x" if cost is Cost.LATENCY else ""
        parts += [
            element("line", {"x1": across, "x2": across, "y1": HEIGHT, "y2": HEIGHT + 4, "class": "axis"}),
            element("text", {"x": across, "y": HEIGHT + 18, "class": "tick middle"}, f"{sign}{text}"),
        ]
    parts += [
        element("line", {"x1": 0, "x2": "100%", "y1": HEIGHT, "y2": HEIGHT, "class": "axis"}),
        element("text", {"x": "50%", "y": HEIGHT + 38, "class": "unit middle"}, _AXES[cost]),
    ]
    return parts


def _marks(marks: Sequence[Mark], x: Scale, y: Scale | LogScale) -> list[Markup]:
    places = [(x(mark.x), HEIGHT * (1 - y(mark.y))) for mark in marks]
    parts = _front(marks, places)
    for mark, (across, down) in zip(marks, places, strict=True):
        pieces = [element("title", None, mark.title)]
        if mark.interval is not None:
            low, high = (percent(x(end)) for end in mark.interval)
            pieces.append(element("line", {"x1": low, "x2": high, "y1": down, "y2": down, "class": "interval"}))
        pieces.append(_shape(mark.role, across, down))
        state = "beaten" if mark.beaten else "best"
        parts.append(element("g", {"class": f"mark {mark.role} {state}"}, *pieces))
    return [*parts, *_labels(marks, places)]


def _shape(role: Role, across: float, down: float) -> Markup:
    if role is Role.TRIAL:
        return element("circle", {"cx": percent(across), "cy": down, "r": 4})
    if role is Role.DENSE:
        return element("circle", {"cx": percent(across), "cy": down, "r": _MARK})
    # A path cannot be placed in percent; a picture of its own can.
    diamond = element("path", {"d": "M0 -7.5L7.5 0L0 7.5L-7.5 0Z"})
    return element("svg", {"x": percent(across), "y": down, "class": "plot"}, diamond)


def _front(marks: Sequence[Mark], places: Sequence[tuple[float, float]]) -> list[Markup]:
    """A step line under those that none beats: what error a cost buys."""
    best = sorted(place for mark, place in zip(marks, places, strict=True) if not mark.beaten)
    parts = []
    for (x1, y1), (x2, y2) in itertools.pairwise(best):
        parts += [
            element("line", {"x1": percent(x1), "x2": percent(x2), "y1": y1, "y2": y1, "class": "front"}),
            element("line", {"x1": percent(x2), "x2": percent(x2), "y1": y1, "y2": y2, "class": "front"}),
        ]
    return parts


def _labels(marks: Sequence[Mark], places: Sequence[tuple[float, float]]) -> list[Markup]:
    """Names beside their marks, where they cover nothing if there is such a place, else at least no other name."""
    dots = [_box(across * _NARROWEST - _MARK, down - _MARK, 2 * _MARK) for across, down in places]
    named = [box for box, mark in zip(dots, marks, strict=True) if mark.label]
    parts = []
    for mark, (across, down) in reversed([*zip(marks, places, strict=True)]):
        if not mark.label:
            continue
        spots = [_spot(mark, across, down, anchor) for anchor in _ANCHORS]
        spots = [spot for spot in spots if spot.box[0] >= -_MARK and spot.box[2] <= _NARROWEST + _MARK]
        free = [spot for spot in spots if not any(_overlap(spot.box, other) for other in named)]
        bare = [spot for spot in free if not any(_overlap(spot.box, other) for other in dots)]
        if spot := next(iter(bare or free), None):
            named.append(spot.box)
            parts.append(spot.text)
    return parts


Box = tuple[float, float, float, float]

# Where a name can stand: how its text is anchored there, and how far from the mark's middle.
_ANCHORS = (
    ("start", 11, 4),
    ("end", -11, 4),
    ("middle", 0, -12),
    ("middle", 0, 20),
    ("end", -8, -9),
    ("end", -8, 17),
    ("start", 8, -9),
)


class _Spot(NamedTuple):
    """A place for a name, and the name written there."""

    box: Box
    text: Markup


def _spot(mark: Mark, across: float, down: float, where: tuple[str, int, int]) -> _Spot:
    anchor, dx, dy = where
    width = len(mark.label) * _LETTER
    left = across * _NARROWEST + dx - {"start": 0, "middle": width / 2, "end": width}[anchor]
    state = "beaten" if mark.beaten else "best"
    attributes = {"x": percent(across), "y": down + dy, "dx": dx, "class": f"name {anchor} {state}"}
    return _Spot(_box(left, down + dy - 10, width), element("text", attributes, mark.label))


def _box(left: float, top: float, width: float) -> Box:
    return left, top, left + width, top + _LINE


def _overlap(one: Box, other: Box) -> bool:
    return one[0] < other[2] and other[0] < one[2] and one[1] < other[3] and other[1] < one[3]


def _words(marks: Sequence[Mark], cost: Cost) -> str:
    """What can be seen, in words; of many trials only those that none beats."""
    told = [mark for mark in marks if mark.role is not Role.TRIAL or not mark.beaten]
    where = {Cost.LATENCY: "time", Cost.BYTES: "size"}[cost]
    best = ", ".join(mark.title for mark in told if not mark.beaten)
    return f"Best in error and {where}: {best}. {sum(mark.beaten for mark in marks)} models are beaten by others."


def _cost(one: Candidate, cost: Cost) -> float | None:
    return one.latency_ratio if cost is Cost.LATENCY else one.file_bytes / 1e6
