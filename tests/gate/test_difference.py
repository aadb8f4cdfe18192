from __future__ import annotations

import dataclasses

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from compress.gate.baseline import Entry
from compress.gate.difference import Trend, compare_baselines
from compress.results import METRICS, Environment
from tests.gate.entries import baseline, latency, memory, params, top1
from tests.gate.samples import DEVICE, ENVIRONMENT


def only(before, after):
    """The one change between two baselines."""
    (change,) = compare_baselines(before, after).changes
    return change


@pytest.mark.parametrize(
    ("before", "after", "trend"),
    [
        (params(50), params(50), Trend.SAME),
        (params(50), params(51), Trend.WORSE),
        (params(50), params(49), Trend.BETTER),
        (params(50, dense=100), params(50, dense=90), Trend.CHANGED),
        (memory(50_000), memory(52_000), Trend.CHANGED),
        (memory(50_000), memory(53_000), Trend.WORSE),
        (memory(50_000), memory(47_000), Trend.BETTER),
        (latency(0.80), latency(0.83), Trend.CHANGED),
        (latency(0.80), latency(0.85), Trend.WORSE),
        (latency(0.80), latency(0.75), Trend.BETTER),
        (latency(0.80, compressed=4.0), latency(0.80, compressed=8.0), Trend.CHANGED),
        (top1(range(10)), top1(range(12)), Trend.CHANGED),
        (top1(range(10)), top1(range(13)), Trend.WORSE),
        (top1(range(10)), top1(range(7)), Trend.BETTER),
    ],
)
def test_an_entry_is_judged_by_its_metrics_tolerance(before, after, trend):
    """Counts to the last one, memory and ratios by 5 %, errors by half a point; of times only the ratio counts."""
    assert only(baseline(before), baseline(after)).trend is trend


def test_an_entry_that_one_file_lacks_is_gone_or_new():
    """What is no longer guarded is worse, what is guarded from now on is not."""
    with_it, without = baseline(params(50)), baseline()
    assert (only(with_it, without).trend, only(without, with_it).trend) == (Trend.GONE, Trend.NEW)
    assert compare_baselines(with_it, without).worse
    assert not compare_baselines(without, with_it).worse


def test_examples_that_changed_sides_are_counted():
    """As long as both files speak of the same examples."""
    before, after = baseline(top1([1, 2, 3])), baseline(top1([3, 4]))
    assert only(before, after).flips == (1, 2)
    assert only(before, dataclasses.replace(after, data_sha256="f" * 64)).flips is None


def test_what_changed_beside_the_entries_is_said():
    """Another data set, another number of examples, other versions, another machine."""
    newer = dataclasses.replace(ENVIRONMENT, torch="2.16.0")
    other = Environment(python="3", torch="2", cpu="c", cpu_class="cpu-x")
    after = baseline(data_sha256="f" * 64, num_examples=400, environments={DEVICE: newer, "cpu-x": other}, workload="b")
    assert compare_baselines(baseline(), after).about == (
        "workload: digits -> b; these are not the same models",
        "test data: sha256 0123456789ab -> ffffffffffff; errors on other examples do not compare",
        "test examples: 500 -> 400",
        f"environment {DEVICE}: torch 2.15.0 -> 2.16.0",
        "environment cpu-x: new",
    )


@given(metric=st.sampled_from(list(METRICS.values())), values=st.tuples(st.floats(0, 1), st.floats(0, 1)))
@settings(deadline=None)
def test_what_got_worse_one_way_got_better_or_only_changed_the_other(metric, values):
    """The other way round nothing that was worse is worse still, and a file never differs from itself."""
    device = DEVICE if metric.device else ""
    one, other = (
        Entry(metric=metric.name, dense=1.0, compressed=value, device=device, ratio=value if device else None)
        for value in values
    )
    there, back = only(baseline(one), baseline(other)).trend, only(baseline(other), baseline(one)).trend
    if there is Trend.WORSE:
        assert back in (Trend.BETTER, Trend.CHANGED)
    assert only(baseline(one), baseline(one)).trend is Trend.SAME
