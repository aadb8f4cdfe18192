"""What a recipe promises about its compressed model, relative to the dense one of the same run."""

from __future__ import annotations

import difflib
import math
from collections.abc import Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase

from compress.errors import ConfigError
from compress.gate.figures import write_exact, write_increase
from compress.results import METRICS, Kind, Metric, Unit

# Some units in the last place of a double: a bound such as 0.29 * 100 comes out just under the 29 it means.
_ROUNDING = 1e-14
_KEYS = ("max_ratio", "max_increase", "min_ratio", "max_drop", "build_tolerance", "devices")
# Key to whether it is for metrics of which higher is better.
_BOUNDS = {"max_ratio": False, "max_increase": False, "min_ratio": True, "max_drop": True}


@dataclass(frozen=True, kw_only=True)
class Limit:
    """The most that a metric of the compressed model may be, given the dense model's; every part given must hold.

    A limit may also, or only, state how far another build of the same recipe may lie above its baseline.

    Raises:
        ConfigError: if no part is given, or a part does not suit the metric.

    Attributes:
        metric: its name.
        declared: what it is, where it is none of :data:`compress.results.METRICS`.
        max_ratio: of ``compressed / dense``; None for no such bound. Not for errors.
        max_increase: of ``compressed - dense``, in the metric's unit; None for no such bound. Not for times.
        min_ratio, max_drop: the same where higher is better: the least ratio, and the most that it may fall.
        build_tolerance: of a count or of bytes: how far above its baseline the value of another build may lie, as a
            fraction of the baseline; None for what holds elsewhere.
        devices: the classes of device that it binds, as shell patterns such as ``cpu-avx512_vnni*``; empty for all. Of
            metrics that have a class of device alone: int8 is fast where the processor has the instructions for it.
        where: the file that states it.
    """

    metric: str
    declared: Metric | None = None
    max_ratio: float | None = None
    max_increase: float | None = None
    min_ratio: float | None = None
    max_drop: float | None = None
    build_tolerance: float | None = None
    devices: tuple[str, ...] = ()
    where: str = ""

    def __post_init__(self) -> None:
        place = f"{self.where}, limits.{self.metric}" if self.where else f"limits.{self.metric}"
        metric = self.declared or find_metric(self.metric, where=place)
        _check_direction(metric, {key: getattr(self, key) for key in _BOUNDS}, place)
        if not self.is_bound and self.build_tolerance is None:
            keys = (*(key for key in _BOUNDS if _BOUNDS[key] is metric.higher_is_better), "build_tolerance")
            raise ConfigError(f"a limit must state {' or '.join(keys)}, got none of them ({place})")
        if self.devices and not metric.device:
            raise ConfigError(f"devices are for metrics that depend on the device, {metric.name} does not ({place})")
        if self.max_ratio is not None:
            _check_ratio(metric, self.max_ratio, f"{place}.max_ratio")
        if self.max_increase is not None:
            _check_increase(metric, self.max_increase, f"{place}.max_increase")
        if self.min_ratio is not None:
            _check_ratio(metric, self.min_ratio, f"{place}.min_ratio", "min_ratio")
        if self.max_drop is not None:
            _check_increase(metric, self.max_drop, f"{place}.max_drop", "max_drop")
        if self.build_tolerance is not None:
            _check_build_tolerance(metric, self.build_tolerance, f"{place}.build_tolerance")

    @property
    def is_bound(self) -> bool:
        """Whether it bounds the compressed model by the dense one at all."""
        return any(getattr(self, key) is not None for key in _BOUNDS)

    @property
    def about(self) -> Metric:
        """The metric that it bounds."""
        return self.declared or METRICS[self.metric]

    def binds(self, device: str) -> bool:
        """Whether it bounds what was measured on that class of device."""
        return self.is_bound and (not self.devices or any(fnmatchcase(device, pattern) for pattern in self.devices))

    def bound(self, dense: float) -> float:
        """The worst value that the compressed model may have, in the metric's unit."""
        # Of what is below zero, as a signal under its noise is, a ratio is a margin of so much of its size.
        ratios = [dense + (ratio - 1) * abs(dense) for ratio in (self.max_ratio, self.min_ratio) if ratio is not None]
        if self.about.higher_is_better:
            return max([*ratios, *([dense - self.max_drop] if self.max_drop is not None else [])])
        return min([*ratios, *([dense + self.max_increase] if self.max_increase is not None else [])])

    def broken_by(self, dense: float, compressed: float) -> str | None:
        """By how much the limit is exceeded, in words; None if it is held."""
        metric = self.about
        bound = self.bound(dense)
        if not is_beyond(metric, compressed, bound):
            return None
        missed = "missed" if metric.higher_is_better else "exceeded"
        return f"{missed} by {write_increase(metric, compressed - _shown(metric, bound))}"

    def describe(self, dense: float) -> str:
        """The limit in words, with what it comes to: ``at most 0.65 x dense = 4,161,666``."""
        metric = self.about
        ratios = [ratio for ratio in (self.max_ratio, self.min_ratio) if ratio is not None]
        parts = [f"{ratio:g} x dense" if dense >= 0 else f"dense {ratio - 1:+g} x |dense|" for ratio in ratios]
        if self.max_increase is not None:
            sign = "-" if self.max_increase < 0 else "+"
            parts.append(f"dense {sign} {write_increase(metric, self.max_increase)}")
        if self.max_drop is not None:
            sign = "+" if self.max_drop < 0 else "-"
            parts.append(f"dense {sign} {write_increase(metric, self.max_drop)}")
        text = f"{'at least' if metric.higher_is_better else 'at most'} {' and '.join(parts)}"
        if metric.kind is not Kind.TIME:
            text += f" = {write_exact(metric, _shown(metric, self.bound(dense)))}"
        return f"{text} ({self.where})" if self.where else text


def parse_limits(
    table: Mapping[str, object], *, where: str, metrics: Mapping[str, Metric] = METRICS
) -> dict[str, Limit]:
    """Read a recipe's ``[limits]`` table, such as ``num_params = { max_ratio = 0.65 }``.

    Args:
        table: as TOML gives it.
        where: the file it comes from, for messages.
        metrics: those that the workload has, by name.

    Raises:
        ConfigError: if a metric or key is unknown, or a value is no number or out of range.
    """
    if not isinstance(table, Mapping):
        raise ConfigError(f"limits must be a table of metrics, got {table!r} ({where})")
    return {name: _parse_limit(name, entry, where, metrics) for name, entry in table.items()}


def find_metric(name: str, *, where: str, metrics: Mapping[str, Metric] = METRICS) -> Metric:
    """The metric of that name.

    Args:
        name: of the metric.
        where: file and key that name it, for the message.
        metrics: those that there are, by name.

    Raises:
        ConfigError: if there is none; it names the nearest.
    """
    metric = metrics.get(name)
    if metric is None:
        raise ConfigError(f"metric {name!r} is unknown{_nearest(name, metrics)} ({where})")
    return metric


def exceeds(value: float, bound: float) -> bool:
    """Whether ``value`` lies above ``bound`` by more than the rounding of doubles."""
    return value > bound + _ROUNDING * abs(bound)


def is_beyond(metric: Metric, value: float, bound: float) -> bool:
    """Whether ``value`` is worse than ``bound`` by more than the rounding of doubles."""
    return exceeds(bound, value) if metric.higher_is_better else exceeds(value, bound)


def _parse_limit(name: str, entry: object, where: str, metrics: Mapping[str, Metric]) -> Limit:
    place = f"{where}, limits.{name}"
    metric = find_metric(name, where=place, metrics=metrics)
    if not isinstance(entry, Mapping):
        raise ConfigError(f"a limit must be a table such as {{ {_example(metric)} }}, got {entry!r} ({place})")
    for key in entry:
        if key not in _KEYS:
            raise ConfigError(f"limit key {key!r} is unknown{_nearest(str(key), _KEYS)} ({place})")
    return Limit(
        metric=name,
        declared=metric if name not in METRICS else None,
        max_ratio=_number(entry, "max_ratio", place),
        max_increase=_number(entry, "max_increase", place),
        min_ratio=_number(entry, "min_ratio", place),
        max_drop=_number(entry, "max_drop", place),
        build_tolerance=_number(entry, "build_tolerance", place),
        devices=_patterns(entry, place),
        where=where,
    )


def _patterns(entry: Mapping[str, object], place: str) -> tuple[str, ...]:
    value = entry.get("devices", [])
    if not isinstance(value, list) or not all(isinstance(pattern, str) and pattern for pattern in value):
        raise ConfigError(f"devices must be a list of classes such as 'cpu-avx2*', got {value!r} ({place}.devices)")
    return tuple(value)


def _number(entry: Mapping[str, object], key: str, place: str) -> float | None:
    if key not in entry:
        return None
    value = entry[key]
    # To Python, true is a number.
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ConfigError(f"{key} must be a number, got {value!r} ({place}.{key})")
    try:
        return float(value)
    except OverflowError:
        return math.inf


def _check_direction(metric: Metric, bounds: Mapping[str, float | None], place: str) -> None:
    """A bound of the other direction would hold nothing."""
    for key, value in bounds.items():
        if value is not None and _BOUNDS[key] is not metric.higher_is_better:
            better, own = ("higher", "max_drop") if metric.higher_is_better else ("lower", "max_increase")
            raise ConfigError(f"of {metric.name} {better} is better: it is limited by {own}, got {key} ({place}.{key})")


def _check_ratio(metric: Metric, ratio: float, place: str, key: str = "max_ratio") -> None:
    if metric.kind is Kind.ERROR:
        raise ConfigError(
            f"an error is limited by max_increase, because the better the dense model the less a ratio allows, "
            f"got {key} {ratio:g} ({place})"
        )
    if not 0 < ratio < math.inf:
        raise ConfigError(f"{key} must be a finite number above 0, got {ratio:g} ({place})")


def _check_increase(metric: Metric, increase: float, place: str, key: str = "max_increase") -> None:
    if metric.kind is Kind.TIME:
        raise ConfigError(
            f"a time is limited by max_ratio, because milliseconds differ from machine to machine, "
            f"got {key} {increase:g} ({place})"
        )
    if not math.isfinite(increase):
        raise ConfigError(f"{key} must be a finite number, got {increase:g} ({place})")
    if metric.is_quality and metric.unit is Unit.FRACTION and not 0 <= increase < 1:
        what = "an error" if metric.kind is Kind.ERROR else f"the share {metric.name}"
        raise ConfigError(
            f"{key} of {what} must be in [0, 1), where 0.01 is one percentage point, got {increase:g} ({place})"
        )


def _check_build_tolerance(metric: Metric, tolerance: float, place: str) -> None:
    if metric.kind not in (Kind.EXACT, Kind.MEMORY):
        raise ConfigError(
            f"a build_tolerance is for counts and bytes; errors and times of another build are compared by those of its"
            f" own dense model, got {tolerance:g} ({place})"
        )
    if not 0 <= tolerance < 1:
        raise ConfigError(f"build_tolerance must be in [0, 1), where 0.01 is 1 %, got {tolerance:g} ({place})")


def _shown(metric: Metric, bound: float) -> float:
    """The bound as it is written: of whole things the largest whole number within it."""
    whole = metric.unit in (Unit.COUNT, Unit.BYTES)
    if not whole:
        return bound
    slack = _ROUNDING * abs(bound)
    return math.ceil(bound - slack) if metric.higher_is_better else math.floor(bound + slack)


def _example(metric: Metric) -> str:
    if metric.higher_is_better:
        return "max_drop = 0.01"
    return "max_increase = 0.01" if metric.kind is Kind.ERROR else "max_ratio = 0.8"


def _nearest(name: str, known: Mapping[str, object] | tuple[str, ...]) -> str:
    near = difflib.get_close_matches(name, known, n=1)
    return f", the nearest is {near[0]!r}" if near else f", known are {', '.join(known)}"
