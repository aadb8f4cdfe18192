"""Pictures as SVG: elements whose text is always escaped, axes, and round numbers to mark them with.

Everything along the width is given in percent, so that a picture fills whatever room it is given while its text keeps
its size. Colours are classes, see ``assets/chart.css``: the same picture serves light, dark, page and file.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files

from markupsafe import Markup, escape

# Steps between ticks that people can count in.
_STEPS = (1, 2, 2.5, 5, 10)
_LOG_STEPS = (1, 2, 5)
_ABOVE_ZERO = 0.07  # of the axis


def element(name: str, attributes: Mapping[str, object] | None = None, *children: str) -> Markup:
    """One SVG element; attributes and text are escaped, children that are :class:`Markup` already stay as they are."""
    written = "".join(f' {key}="{escape(_write(value))}"' for key, value in (attributes or {}).items())
    content = "".join(map(escape, children))
    # Names are written in this package; all that comes from elsewhere is escaped above.
    return Markup(f"<{name}{written}>{content}</{name}>" if children else f"<{name}{written}/>")  # noqa: S704


def percent(fraction: float) -> str:
    """A place along the width: 0 is the left end, 1 the right one."""
    return f"{100 * fraction:.3f}%"


def asset(name: str) -> str:
    """A file that this package brings along."""
    return files("compress.report").joinpath("assets", name).read_text(encoding="utf-8")


@dataclass(frozen=True, kw_only=True)
class Scale:
    """An axis from ``low`` to ``high``."""

    low: float
    high: float

    def __call__(self, value: float) -> float:
        """Where ``value`` lies, as a fraction of the axis."""
        return (value - self.low) / (self.high - self.low)

    def labelled(self, count: int) -> list[tuple[float, str]]:
        """About ``count`` round values on the axis, and how they are written."""
        ticks = self.ticks(count)
        return list(zip(ticks, write_ticks(ticks), strict=True))

    def ticks(self, count: int) -> list[float]:
        """About ``count`` round values on the axis."""
        rough = (self.high - self.low) / max(count, 1)
        power = 10.0 ** math.floor(math.log10(rough))
        step = next(step * power for step in _STEPS if step * power >= rough * (1 - 1e-9))
        first, last = math.ceil(self.low / step - 1e-9), math.floor(self.high / step + 1e-9)
        return [round(index * step, 12) for index in range(first, last + 1)]


def scale_of(values: Iterable[float], *, margin: float = 0.08, floor: float = -math.inf) -> Scale:
    """An axis that holds all of ``values`` with some room at both ends.

    Args:
        values: at least one.
        margin: that room, as a fraction of what they span.
        floor: below which the axis must not begin, as an error's not below zero.
    """
    values = list(values)
    low, high = min(values), max(values)
    # One value alone, or several equal ones, still need an axis to lie on.
    span = (high - low) or abs(high) / 2 or 1.0
    return Scale(low=max(low - margin * span, floor), high=high + margin * span)


@dataclass(frozen=True, kw_only=True)
class LogScale:
    """A logarithmic axis from ``low`` to ``high``, both above zero.

    Attributes:
        low, high: its ends.
        has_zero: whether its low end stands for zero, which has no place on it.
    """

    low: float
    high: float
    has_zero: bool = False

    def __call__(self, value: float) -> float:
        """Where ``value`` lies, as a fraction of the axis; what is below it lies at its low end."""
        return math.log(max(value, self.low) / self.low) / math.log(self.high / self.low)

    def labelled(self, count: int) -> list[tuple[float, str]]:
        """Round values on the axis, at most about twice ``count``, and how they are written."""
        ticks = self._ticks(_LOG_STEPS)
        if len(ticks) > 2 * count:
            ticks = self._ticks((1,))
        zero = [(self.low, "0")] if self.has_zero else []
        return [*zero, *((tick, f"{tick:g}") for tick in ticks)]

    def _ticks(self, steps: Sequence[int]) -> list[float]:
        """The so manyfold of every power of ten on the axis."""
        # Right above the name of zero there is no room for another one.
        least = _ABOVE_ZERO if self.has_zero else 0.0
        first, last = math.floor(math.log10(self.low)), math.floor(math.log10(self.high))
        # Read as it is written: multiplied, it would be 0.30000000000000004.
        ticks = [float(f"{step}e{exponent}") for exponent in range(first, last + 1) for step in steps]
        return [tick for tick in ticks if self.low <= tick <= self.high and self(tick) >= least]


def log_scale_of(values: Iterable[float], *, margin: float = 0.08) -> LogScale:
    """A logarithmic axis that holds all of ``values`` with some room at both ends.

    Args:
        values: none below zero, and at least two different ones above it.
        margin: that room, as a fraction of what they span.
    """
    values = list(values)
    positive = [value for value in values if value > 0]
    low, high = min(positive), max(positive)
    room = (high / low) ** margin
    return LogScale(low=low / room, high=high * room, has_zero=len(positive) < len(values))


def write_ticks(ticks: Sequence[float]) -> list[str]:
    """The ticks' values, all with as many decimals as their step needs."""
    step = min((b - a for a, b in itertools.pairwise(ticks)), default=1.0)
    decimals = next((digits for digits in range(6) if math.isclose(step, round(step, digits), rel_tol=1e-6)), 6)
    return [f"{tick + 0.0:,.{decimals}f}" for tick in ticks]


@dataclass(frozen=True, kw_only=True)
class Picture:
    """A drawing and the room around it, in which its axes are named.

    Attributes:
        content: drawn from the left end of the drawing to the right one, and from 0 down to ``height``.
        height: of the drawing, in pixels.
        left, right, top, bottom: the room around it, in pixels.
        words: what it shows, for whoever cannot see it.
        kind: its class in the style sheet.
    """

    content: Sequence[Markup]
    height: float
    left: float = 0
    right: float = 0
    top: float = 0
    bottom: float = 0
    words: str
    kind: str = ""

    def __html__(self) -> str:
        """For a page: as wide as its place there."""
        margins = f"{self.top:g}px {self.right:g}px {self.bottom:g}px {self.left:g}px"
        style = f"width:calc(100% - {self.left + self.right:g}px);height:{self.height:g}px;margin:{margins}"
        kind = f"chart {self.kind}".rstrip()
        return element("svg", {"class": kind, "role": "img", "aria-label": self.words, "style": style}, *self.content)

    def placed(self, *, x: float, y: float, width: float) -> Markup:
        """For a file: at a place, with all its room ``width`` wide."""
        place = {"x": x + self.left, "y": y + self.top, "width": width - self.left - self.right, "height": self.height}
        return element("svg", {**place, "class": "plot"}, *self.content)


def as_file(parts: Iterable[Markup], *, width: int, height: int) -> str:
    """Parts in a file of their own, with their colours in it."""
    # The style sheets are this package's own, and hold no text of anybody else's.
    style = element("style", None, Markup(asset("palette.css") + asset("chart.css")))  # noqa: S704
    background = element("rect", {"width": "100%", "height": "100%", "class": "paper"})
    root = {
        "xmlns": "http://www.w3.org/2000/svg",
        "viewBox": f"0 0 {width} {height}",
        "width": width,
        "height": height,
        "class": "chart",
    }
    return element("svg", root, style, background, *parts) + "\n"


def _write(value: object) -> str:
    return f"{value:.2f}".rstrip("0").rstrip(".") if isinstance(value, float) else str(value)
