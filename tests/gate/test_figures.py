from __future__ import annotations

import pytest

from compress.gate.figures import write_change, write_exact, write_increase, write_points, write_value
from compress.results import METRICS


@pytest.mark.parametrize(
    ("metric", "value", "text"),
    [
        ("num_params", 6_402_564, "6,402,564"),
        ("macs", 0, "0"),
        ("file_bytes", 25_704_321, "25.7 MB"),
        ("file_bytes", 999_960, "1.0 MB"),
        ("file_bytes", 12_345, "12.3 kB"),
        ("file_bytes", 812, "812 B"),
        ("cpu_peak_bytes", 3_200_000_000, "3.2 GB"),
        ("top1_error", 0.2296, "22.96 %"),
        ("cpu_latency_ms", 15.74, "15.74 ms"),
        ("cpu_latency_ms", 1234.5, "1,234.50 ms"),
        ("cuda_latency_ms", 0.04731, "0.0473 ms"),
    ],
)
def test_values_are_written_in_human_units(metric, value, text):
    """Counts with separators, decimal bytes, percent and milliseconds."""
    assert write_value(METRICS[metric], value) == text


@pytest.mark.parametrize(
    ("metric", "dense", "compressed", "ratio", "text"),
    [
        ("num_params", 6_402_564, 4_089_523, None, "-36.1 %"),
        ("num_params", 100, 100, None, "+0.0 %"),
        ("num_params", 1_000_000, 999_999, None, "+0.0 %"),
        ("macs", 0, 10, None, ""),
        ("top1_error", 0.2296, 0.2310, None, "+0.14 pt"),
        ("top1_error", 0.23, 0.22, None, "-1.00 pt"),
        ("top5_error", 0.0, 0.002, None, "+0.20 pt"),
        ("cpu_latency_ms", 5.25, 4.1, None, "x0.78"),
        ("cpu_latency_ms", 5.25, 4.1, 0.91, "x0.91"),
    ],
)
def test_changes_are_written_by_kind(metric, dense, compressed, ratio, text):
    """Sizes in percent, errors in points, times as a factor, and no negative zero."""
    assert write_change(METRICS[metric], dense, compressed, ratio) == text


def test_exact_bytes_and_differences():
    """Where nearly equal values meet, every byte is spelled out."""
    assert write_exact(METRICS["file_bytes"], 25_704_321) == "25,704,321 bytes"
    assert write_exact(METRICS["num_params"], 7) == "7"
    assert write_increase(METRICS["file_bytes"], -1_500) == "1,500 bytes"
    assert write_increase(METRICS["top1_error"], 0.005) == "0.50 pt"
    assert write_points(-0.00001) == "+0.00 pt"
