from __future__ import annotations

import re

import pytest

from compress.report.history_chart import draw_history, histories
from tests.gate.samples import held, latency, params
from tests.report.page_samples import report


def test_a_metric_moves_over_versions_up_to_now(tmp_path):
    """Each stored version and this run, for each recipe that a baseline knows."""
    page = report(tmp_path)
    found = {history.metric.name: history for history in histories(page.versions, page.verdicts)}
    assert set(found) == {"num_params", "file_bytes", "top1_error", "cpu_peak_bytes", "cpu_latency_ms"}
    error = found["top1_error"]
    assert error.moments == ("2026-07-01", "2026-08-01", "2026-09-01", "now")
    assert [moment.value for moment in error.series["structured"]] == pytest.approx([3.0, 2.6, 2.2, 1.8])
    assert set(error.series) == {"structured", "unstructured"}
    ratios = [moment.value for moment in found["cpu_latency_ms"].series["structured"]]
    assert ratios == sorted(ratios, reverse=True)
    assert found["cpu_latency_ms"].unit == "x dense"


def test_without_a_baseline_there_is_no_history(tmp_path):
    """One value is no history, and another class of device's is none of this one's."""
    page = report(tmp_path)
    assert histories((), page.verdicts) == []
    elsewhere = held(latency(0.8, device="cpu-sve-1t"))
    assert histories(page.versions, [elsewhere]) == []
    assert [history.metric.name for history in histories(page.versions, [held(params())])] == ["num_params"]


def test_the_picture(tmp_path):
    """A point for each moment with all about it, lines between them, in the recipe's colour."""
    page = report(tmp_path)
    history = next(one for one in histories(page.versions, page.verdicts) if one.metric.name == "top1_error")
    picture = draw_history(history, series={"structured": 3, "unstructured": 4})
    text = "".join(picture.content)
    assert text.count("<circle") == 8
    assert set(re.findall(r"series-\d", text)) == {"series-3", "series-4"}
    assert "structured, now: 1.80 % (+0.20 pt)" in text
    assert "structured, digits at 10c0ffee, 2026-09-01: 2.20 %" in text
    assert picture.words.startswith("top-1 error over 3 stored baselines and now: structured from 3 to 1.8 %")
