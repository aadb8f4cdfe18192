"""One unit for all values of a row, so that they are short and compare at a glance: ``4.02`` of ``parameters, M``."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from compress.gate.figures import write_value
from compress.results import Metric, Unit

# Decimal, as disks and the reference table count.
_PREFIXES = ((1e9, "G"), (1e6, "M"), (1e3, "k"))


@dataclass(frozen=True, kw_only=True)
class Scale:
    """What values are divided by, and the unit that they are in then, "" for a plain count."""

    size: float
    unit: str


def scale_of(metric: Metric, values: Sequence[float]) -> Scale:
    """The unit in which the largest of a metric's values has one to three digits before the point."""
    match metric.unit:
        case Unit.FRACTION:
            return Scale(size=0.01, unit="%")
        case Unit.MILLISECONDS:
            return Scale(size=1.0, unit="ms")
        case Unit.NUMBER:
            return Scale(size=1.0, unit="")
        case Unit.COUNT | Unit.BYTES:
            most = max(values, default=0.0)
            size, prefix = next(((size, prefix) for size, prefix in _PREFIXES if most >= size), (1.0, ""))
            return Scale(size=size, unit=prefix + ("B" if metric.unit is Unit.BYTES else ""))


def write_scaled(metric: Metric, value: float, scale: Scale) -> str:
    """A value to three significant digits, an error to two decimals, a plain count whole."""
    scaled = value / scale.size
    if metric.unit is Unit.FRACTION:
        return f"{scaled:.2f}"
    if metric.unit is Unit.NUMBER:
        return write_value(metric, value)
    if scale.size == 1 and metric.unit is not Unit.MILLISECONDS:
        return f"{scaled:,.0f}"
    digits = next((digits for least, digits in ((99.95, 0), (9.995, 1), (0.9995, 2)) if scaled >= least), None)
    return f"{scaled:.3g}" if digits is None else f"{scaled:,.{digits}f}"
