from __future__ import annotations

import pytest

from compress.report.units import Scale, scale_of, write_scaled
from compress.results import METRICS


@pytest.mark.parametrize(
    ("name", "values", "scale"),
    [
        ("num_params", [6_310_314, 999], Scale(size=1e6, unit="M")),
        ("num_params", [7e9], Scale(size=1e9, unit="G")),
        ("num_params", [50, 100], Scale(size=1.0, unit="")),
        ("file_bytes", [25_392_280], Scale(size=1e6, unit="MB")),
        ("file_bytes", [1_500.0, 12], Scale(size=1e3, unit="kB")),
        ("file_bytes", [], Scale(size=1.0, unit="B")),
        ("top1_error", [0.5], Scale(size=0.01, unit="%")),
        ("cpu_latency_ms", [12_000.0], Scale(size=1.0, unit="ms")),
    ],
)
def test_the_largest_value_decides_the_unit(name, values, scale):
    """A row has one unit, so that its values compare digit by digit."""
    assert scale_of(METRICS[name], values) == scale


@pytest.mark.parametrize(
    ("name", "value", "size", "text"),
    [
        ("num_params", 4_015_813, 1e6, "4.02"),
        ("num_params", 132_978_688, 1e6, "133"),
        ("num_params", 99_960_000, 1e6, "100"),
        ("num_params", 9_996_000, 1e6, "10.0"),
        ("num_params", 999_700, 1e6, "1.00"),
        ("num_params", 51_234, 1e6, "0.0512"),
        ("num_params", 0, 1e6, "0"),
        ("num_params", 999, 1, "999"),
        ("top1_error", 0.028, 0.01, "2.80"),
        ("top1_error", 1.0, 0.01, "100.00"),
        ("cpu_latency_ms", 10.55, 1, "10.6"),
        ("cpu_latency_ms", 0.01234, 1, "0.0123"),
        ("cpu_latency_ms", 1234.5, 1, "1,234"),
    ],
)
def test_a_value_has_three_significant_digits(name, value, size, text):
    """Errors have two decimals, what is counted one by one has all its digits."""
    assert write_scaled(METRICS[name], value, Scale(size=size, unit="")) == text
