"""How a value of a metric is written for a reader: ``6,402,564``, ``25.7 MB``, ``22.96 %``, ``15.74 ms``."""

from __future__ import annotations

from collections.abc import Sequence

from compress.results import Kind, Metric, Unit

# Decimal, as disks and the reference table count.
_BYTE_UNITS = ((1e9, "GB"), (1e6, "MB"), (1e3, "kB"))


def write_value(metric: Metric, value: float) -> str:
    """A value in human units."""
    match metric.unit:
        case Unit.COUNT:
            return f"{value:,.0f}"
        case Unit.BYTES:
            return _bytes(value)
        case Unit.FRACTION:
            return f"{100 * value:.2f} %"
        case Unit.MILLISECONDS:
            return _milliseconds(value)
        case Unit.NUMBER:
            return _number(value)


def write_exact(metric: Metric, value: float) -> str:
    """The same with every byte spelled out, for where two nearly equal values meet."""
    return f"{value:,.0f} bytes" if metric.unit is Unit.BYTES else write_value(metric, value)


def write_increase(metric: Metric, increase: float) -> str:
    """A difference without its sign; of errors in percentage points."""
    if metric.unit is Unit.FRACTION:
        return f"{100 * abs(increase):.2f} pt"
    return write_exact(metric, abs(increase))


def write_change(metric: Metric, dense: float, compressed: float, ratio: float | None = None) -> str:
    """What compression changed: ``-36.1 %``, errors ``+0.14 pt``, times ``x0.78``; "" where dense is zero.

    Of qualities it is the difference, in points of shares.

    Args:
        metric: of both values.
        dense: value of the dense model.
        compressed: value of the compressed model.
        ratio: ``compressed / dense`` where it is known better than from the two, as for times.
    """
    if metric.is_quality:
        return write_difference(metric, compressed - dense)
    if not dense:
        return ""
    ratio = compressed / dense if ratio is None else ratio
    if metric.kind is Kind.TIME:
        return f"x{ratio:.2f}"
    return f"{_signed(100 * (ratio - 1), 1)} %"


def write_difference(metric: Metric, difference: float) -> str:
    """A difference with its sign: of shares in percentage points, ``-0.14 pt``."""
    if metric.unit is Unit.FRACTION:
        return write_points(difference)
    return f"{'-' if difference < 0 else '+'}{write_exact(metric, abs(difference))}"


def write_points(increase: float) -> str:
    """The increase of an error in percentage points: ``+0.14 pt``."""
    return f"{_signed(100 * increase, 2)} pt"


def join_some(names: Sequence[str], most: int | None = None) -> str:
    """Names with commas; of more than ``most`` the first, and how many more there are."""
    # To say "and 1 more" takes as much room as to name it.
    if most is None or len(names) <= most + 1:
        return ", ".join(names)
    return f"{', '.join(names[:most])} and {len(names) - most} more"


def _bytes(value: float) -> str:
    for size, unit in _BYTE_UNITS:
        # 999,960 would round to "1000.0 kB".
        if round(value / size, 1) >= 1:
            return f"{value / size:.1f} {unit}"
    return f"{value:.0f} B"


def _milliseconds(value: float) -> str:
    return f"{value:,.2f} ms" if value >= 1 else f"{value:.3g} ms"


def _number(value: float) -> str:
    """To four significant digits, without an exponent where that can be."""
    written = f"{value:.4g}"
    return f"{value:,.0f}" if "e+" in written else written


def _signed(value: float, digits: int) -> str:
    # Adding zero turns a rounded -0.0 into 0.0.
    return f"{round(value, digits) + 0.0:+.{digits}f}"
