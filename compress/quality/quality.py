"""What a model is judged by: a row of numbers for each example, and the figure that all rows come to."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from torch import nn

from compress.errors import ConfigError
from compress.quality.reductions import mean
from compress.results import METRICS, Kind, Metric, Reduction, Unit

Rows = Callable[[Any, Any], Any]
"""What a model put out for a batch, and the batch's targets, to ``[n]`` or ``[n, width]``: a row for each example."""

Direction = Literal["higher", "lower"]
Reference = Literal["targets", "dense"]

_NAME = re.compile(r"[a-z][a-z0-9_]*")
_SHARE_TOLERANCE = 0.005
_TOLERANCE = 0.01


@dataclass(frozen=True, kw_only=True)
class Quality:
    """One thing that a model is judged by.

    Attributes:
        name: its key in recipes, baselines and code: ``miou``.
        rows: called with what the model puts out for a batch and with the batch's targets; gives ``[n]`` or
            ``[n, width]`` numbers, a row for each example.
        better: whether "higher" or "lower" figures are better.
        reduce: the figure of all rows; their mean if left out.
        unit: "fraction" for what lies in 0..1 and is written in percent, else "number".
        title: its row in a report; the name, spaced, if left out.
        is_error: whether rows are 1 where the example is wrong and 0 where it is right: then chance is told by those
            that changed sides.
        tolerance: how much worse than its baseline it may be: of a fraction in its own unit, else as a share of it.
        against: what outputs are held against: the batch's "targets", or what the "dense" model puts out for the batch,
            which ``rows`` is then given in their place.
        of_classes: whether outputs are logits ``[n, num_classes]`` whose likeliest class is the answer: a file is then
            held to the model it was made of by answers that changed, and not by its outputs' error.

    Raises:
        ConfigError: if a value breaks its rule.
    """

    name: str
    rows: Rows
    better: Direction
    reduce: Reduction = mean
    unit: Literal["fraction", "number"] = "number"
    title: str = ""
    is_error: bool = False
    tolerance: float | None = None
    against: Reference = "targets"
    of_classes: bool = False

    def __post_init__(self) -> None:
        check_name(self.name)
        if self.better not in ("higher", "lower"):
            raise ConfigError(
                f"a quality must say whether higher or lower is better, got {self.better!r} ({self.name})"
            )
        if self.unit not in ("fraction", "number"):
            raise ConfigError(f"unit must be fraction or number, got {self.unit!r} ({self.name})")
        if self.against not in ("targets", "dense"):
            raise ConfigError(f"against must be targets or dense, got {self.against!r} ({self.name})")
        if not callable(self.rows):
            raise ConfigError(f"rows must be a function of outputs and targets, got {self.rows!r} ({self.name})")
        if self.is_error and (self.better != "lower" or self.reduce is not mean):
            raise ConfigError(f"an error is a share of wrong examples, of which lower is better ({self.name})")

    @property
    def metric(self) -> Metric:
        """How it is recorded, held and shown."""
        known = METRICS.get(self.name)
        if known is not None and known.is_quality:
            return known
        share = self.unit == "fraction" or self.is_error
        tolerance = (_SHARE_TOLERANCE if share else _TOLERANCE) if self.tolerance is None else self.tolerance
        title = self.title or self.name.replace("_", " ")
        return Metric(
            name=self.name,
            title=title,
            short=title,
            unit=Unit.FRACTION if share else Unit.NUMBER,
            kind=Kind.ERROR if self.is_error else Kind.SCORE,
            tolerance=0.0 if self.is_error else tolerance,
            higher_is_better=self.better == "higher",
        )


@dataclass(frozen=True, kw_only=True)
class OwnMetric:
    """Something else to be measured of a model: bytes of a firmware image, tokens a second.

    Attributes:
        name: its key in recipes, baselines and code; carries the unit: ``firmware_bytes``.
        measure: called with a model; gives a number.
        better: whether "higher" or "lower" figures are better.
        unit: what the value counts: "count", "bytes", "fraction" or "number".
        exact: whether it is the same on every machine; if not, it is held within its tolerance on each class of CPU.
        tolerance: how much worse than its baseline it may be, as a fraction of it.
        title: its row in a report; the name, spaced, if left out.

    Raises:
        ConfigError: if a value breaks its rule.
    """

    name: str
    measure: Callable[[nn.Module], float]
    better: Direction = "lower"
    unit: Literal["count", "bytes", "fraction", "number"] = "number"
    exact: bool = True
    tolerance: float = 0.0
    title: str = ""

    def __post_init__(self) -> None:
        check_name(self.name)
        if self.name in METRICS:
            raise ConfigError(f"a metric's name must be its own, {self.name!r} is measured of every model")
        if self.better not in ("higher", "lower"):
            raise ConfigError(f"a metric must say whether higher or lower is better, got {self.better!r} ({self.name})")
        if self.unit not in ("count", "bytes", "fraction", "number"):
            raise ConfigError(f"unit must be count, bytes, fraction or number, got {self.unit!r} ({self.name})")

    @property
    def metric(self) -> Metric:
        """How it is recorded, held and shown."""
        title = self.title or self.name.replace("_", " ")
        return Metric(
            name=self.name,
            title=title,
            short=title,
            unit=Unit(self.unit),
            kind=Kind.EXACT if self.exact else Kind.MEMORY,
            tolerance=self.tolerance,
            device="" if self.exact else "cpu",
            higher_is_better=self.better == "higher",
        )


def quality_of(value: Quality | Rows) -> Quality:
    """A quality, or a plain function ``(outputs, targets) -> [n]`` whose name says which way is better.

    A function whose name ends in ``error`` or ``loss``, or in ``accuracy`` or ``score``, needs no more than that.

    Raises:
        ConfigError: if it is neither, or its name does not say.
    """
    if isinstance(value, Quality):
        return value
    if not inspect.isfunction(value):
        raise ConfigError(f"a quality must be a compress.quality.Quality or a function, got {value!r}")
    name = value.__name__
    for better, endings in (("lower", ("error", "loss")), ("higher", ("accuracy", "score"))):
        if name.endswith(endings):
            return Quality(name=name, rows=value, better=better)  # type: ignore[arg-type]
    raise ConfigError(
        f"whether higher or lower is better cannot be guessed from the name {name!r}: declare"
        f' compress.quality.Quality(name="{name}", rows={name}, better="lower")'
    )


def qualities_of(values: Quality | Rows | Iterable[Quality | Rows]) -> tuple[Quality, ...]:
    """One or several of them, each name once.

    Raises:
        ConfigError: if a name is used twice, or one is none.
    """
    several: Sequence[Any] = tuple(values) if isinstance(values, Iterable) else (values,)
    found = tuple(quality_of(value) for value in several)
    check_distinct([quality.name for quality in found])
    return found


def check_name(name: str) -> None:
    """Refuse what could be no key of a recipe.

    Raises:
        ConfigError: if it is none.
    """
    if not _NAME.fullmatch(name):
        raise ConfigError(f"a metric's name must be lower-case letters, digits and underscores, got {name!r}")
    known = METRICS.get(name)
    if known is not None and not known.is_quality:
        raise ConfigError(f"a quality's name must be its own, {name!r} is measured of every model")


def check_distinct(names: Sequence[str]) -> None:
    """Refuse a name that is used twice.

    Raises:
        ConfigError: with the name.
    """
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise ConfigError(f"a metric's name can be used once, got {twice!r} twice")
