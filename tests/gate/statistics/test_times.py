"""Simulated clocks stand in for real ones: nothing here depends on how fast this machine is."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from compress.errors import ConfigError, MeasureError
from compress.gate.statistics import (
    RatioInterval,
    min_pairs,
    paired_ratio,
    pooled_ratio,
    process_confidence,
    relative_ratio,
)
from compress.gate.statistics.times import _order_interval
from tests.clocks import autocorrelated, bursting, drifting, quiet, take_runs

TRIALS = 250


def take_pairs(clock, ratio, seed, pairs=60):
    """Two models called in turn in one process."""
    (run,) = take_runs(clock, ratio, np.random.default_rng(seed), runs=1, pairs=pairs)
    return list(map(tuple, run.tolist()))


@pytest.mark.parametrize("pairs", [8, 20, 30])
def test_interval_holds_true_ratio_as_often_as_it_says(pairs):
    """With few independent pairs the 99 % interval still misses the true ratio in about 1 % of runs, not in 4 %."""
    intervals = [paired_ratio(take_pairs(quiet, 0.8, seed, pairs), resamples=200) for seed in range(TRIALS)]
    missed = sum(not interval.low <= 0.8 <= interval.high for interval in intervals)
    # 6 of 250 or fewer come up in 97 % of tries if the true share is 1 %.
    assert missed <= 6


def test_positions_in_a_drifting_run_do_not_matter():
    """A drift that both models share leaves the ratio's median where it is without drift."""
    with_drift = paired_ratio(take_pairs(drifting, 0.8, 3))
    without = paired_ratio(take_pairs(quiet, 0.8, 3))
    assert with_drift.median == pytest.approx(without.median, rel=0.01)


@pytest.mark.parametrize(("n", "rank"), [(8, 1), (30, 8), (60, 20)])
def test_order_interval_is_that_of_the_binomial(n, rank):
    """Of 30 values the 8th from either end bound a 99 % interval of the median, the 9th would not."""
    assert _order_interval(np.arange(1.0, n + 1), 0.99) == (rank, n + 1 - rank)
    assert stats.binom.cdf(rank - 1, n, 0.5) <= 0.005 < stats.binom.cdf(rank, n, 0.5)


def test_same_pairs_and_seed_give_same_interval():
    """Nothing but pairs and seed decides: a verdict can be had again."""
    pairs = take_pairs(bursting, 0.9, 1)
    assert paired_ratio(pairs) == paired_ratio(pairs)


def test_many_pairs_are_resampled_in_chunks_alike(monkeypatch):
    """Splitting the matrix of resamples into chunks to save memory changes nothing."""
    pairs = take_pairs(autocorrelated, 0.9, 1)
    whole = paired_ratio(pairs, resamples=100)
    monkeypatch.setattr("compress.gate.statistics.times._CHUNK_ENTRIES", 7 * len(pairs))
    assert paired_ratio(pairs, resamples=100) == whole


def test_wider_confidence_widens_interval():
    """Being surer costs width."""
    pairs = take_pairs(autocorrelated, 0.9, 2)
    narrow, wide = paired_ratio(pairs, confidence=0.8), paired_ratio(pairs, confidence=0.99)
    assert wide.low < narrow.low <= narrow.high < wide.high


@pytest.mark.parametrize(("confidence", "pairs"), [(0.5, 2), (0.9, 5), (0.95, 6), (0.99, 8), (0.999, 11)])
def test_min_pairs_are_where_the_extremes_suffice(confidence, pairs):
    """With that many pairs the smallest and largest hold the median surely enough, with one less they do not."""
    assert min_pairs(confidence) == pairs
    assert 1 - 2 * 0.5**pairs >= confidence
    assert pairs == 2 or 1 - 2 * 0.5 ** (pairs - 1) < confidence


times = st.floats(0.01, 1000, allow_nan=False)
runs = st.lists(st.tuples(times, times), min_size=1, max_size=40)


@given(pairs=runs, seed=st.integers(0, 100))
@settings(deadline=None, max_examples=50)
def test_interval_contains_median(pairs, seed):
    """The estimate lies within its interval, and is the median of the ratios."""
    interval = paired_ratio(pairs, resamples=50, seed=seed)
    assert interval.low <= interval.median <= interval.high
    logs = [math.log(compressed / dense) for dense, compressed in pairs]
    assert math.log(interval.median) == pytest.approx(float(np.median(logs)), abs=1e-9)
    assert interval.num_pairs == len(pairs)


@given(pairs=runs)
@settings(deadline=None, max_examples=50)
def test_swapping_models_inverts_interval(pairs):
    """Which of two models is called the dense one makes no difference to what is concluded."""
    there = paired_ratio(pairs, resamples=50)
    back = paired_ratio([(compressed, dense) for dense, compressed in pairs], resamples=50)
    assert back.median == pytest.approx(1 / there.median)
    assert back.low == pytest.approx(1 / there.high)
    assert back.high == pytest.approx(1 / there.low)


@given(pairs=runs, scale=st.floats(1e-3, 1e3))
@settings(deadline=None, max_examples=50)
def test_scaling_both_times_changes_nothing(pairs, scale):
    """A machine that is slower as a whole gives the same ratio."""
    plain = paired_ratio(pairs, resamples=50)
    scaled = paired_ratio([(scale * dense, scale * compressed) for dense, compressed in pairs], resamples=50)
    for field in ("median", "low", "high"):
        assert getattr(scaled, field) == pytest.approx(getattr(plain, field))


@pytest.mark.parametrize("bad", [0.0, -1.0, math.nan, math.inf])
def test_impossible_time_is_refused(bad):
    """A time that is not a positive number is named with its place, whichever model it belongs to."""
    for pair in ((bad, 1.0), (1.0, bad)):
        with pytest.raises(MeasureError, match=r"a time must be a positive number, got .* \(pair 1\)$"):
            paired_ratio([(1.0, 1.0), pair, (1.0, 1.0)])


def test_no_pairs_are_refused():
    """Without a pair there is no ratio."""
    with pytest.raises(MeasureError, match="at least one pair, got none"):
        paired_ratio([])


def test_times_that_are_no_pairs_are_refused():
    """Triples are not silently read as pairs."""
    with pytest.raises(MeasureError, match=r"pairs of dense and compressed, got shape \(2, 3\)"):
        paired_ratio([(1.0, 2.0, 3.0), (1.0, 2.0, 3.0)])


@pytest.mark.parametrize("confidence", [0.0, 1.0, -1.0, math.nan])
def test_confidence_outside_its_range_is_refused(confidence):
    """A certainty of 100 % cannot be had."""
    with pytest.raises(ConfigError, match=r"confidence must be in \(0, 1\)"):
        paired_ratio([(1.0, 1.0)], confidence=confidence)
    with pytest.raises(ConfigError, match=r"confidence must be in \(0, 1\)"):
        min_pairs(confidence)


def test_no_resamples_are_refused():
    """A bootstrap without resamples is none."""
    with pytest.raises(ConfigError, match="resamples must be at least 1, got 0"):
        paired_ratio([(1.0, 1.0)], resamples=0)


def interval(median, low, high, confidence=0.99):
    """What 30 pairs of a process came to."""
    return RatioInterval(median=median, low=low, high=high, num_pairs=30, confidence=confidence)


@pytest.mark.parametrize(("processes", "expected"), [(1, 0.99), (2, 0.8586), (3, 0.6580), (6, 0.1730), (9, 0.1)])
def test_several_processes_may_be_less_sure_than_one(processes, expected):
    """Three that are wrong to one side in 17.1 % each are all wrong to it in 0.5 %."""
    confidence = process_confidence(processes)
    assert confidence == pytest.approx(expected, abs=1e-4)
    assert processes > 6 or ((1 - confidence) / 2) ** processes == pytest.approx(0.005)


def test_three_processes_agree_by_chance_as_seldom_as_said():
    """On the bound itself, where either answer is wrong, three independent processes agree on one in 1 % of trials."""
    generator, confidence = np.random.default_rng(5), process_confidence(3)
    agreed = 0
    for _ in range(300):
        runs = take_runs(quiet, 1.0, generator, runs=3, pairs=30)
        intervals = [paired_ratio(run.tolist(), confidence=confidence, resamples=100) for run in runs]
        agreed += all(one.low > 1 for one in intervals) or all(one.high < 1 for one in intervals)
    # 8 of 300 or fewer come up in 99.6 % of tries if the true share is 1 %.
    assert agreed <= 8


@pytest.mark.parametrize("processes", [0, -1])
def test_no_process_is_sure_of_anything(processes):
    """There must be one."""
    with pytest.raises(ConfigError, match="num_processes must be at least 1"):
        process_confidence(processes)


def test_equal_processes_pool_to_a_narrower_interval():
    """Four that agree are twice as sure as one."""
    pooled = pooled_ratio([interval(1.0, math.exp(-0.02), math.exp(0.04))] * 4)
    assert (pooled.median, pooled.num_pairs, pooled.confidence) == (1.0, 120, 0.99)
    assert (math.log(pooled.low), math.log(pooled.high)) == (pytest.approx(-0.01), pytest.approx(0.02))


def test_processes_that_differ_pool_to_a_wider_interval():
    """However sure each is of itself, their spread is what another process may differ by."""
    medians = np.exp([-0.03, 0.0, 0.03])
    pooled = pooled_ratio([interval(median, median * 0.999, median * 1.001) for median in medians])
    spread = stats.norm.ppf(0.995) * 0.03 / math.sqrt(3)
    assert (math.log(pooled.low), math.log(pooled.high)) == (pytest.approx(-spread), pytest.approx(spread))


def test_one_process_pools_to_itself_and_none_to_nothing():
    """There is nothing to add, or nothing at all."""
    only = interval(1.0, 0.9, 1.2)
    assert pooled_ratio([only]) == only
    with pytest.raises(MeasureError, match="at least one process"):
        pooled_ratio([])


def test_a_change_is_as_uncertain_as_both_of_its_ends():
    """Uncertainties of now and before add up by their squares; the upper end of before is a lower one of the change."""
    now = interval(0.9, 0.9 * math.exp(-0.03), 0.9 * math.exp(0.06))
    before = interval(0.8, 0.8 * math.exp(-0.08), 0.8 * math.exp(0.04))
    change = relative_ratio(now, before)
    assert change.median == pytest.approx(0.9 / 0.8)
    assert math.log(change.median / change.low) == pytest.approx(0.05)
    assert math.log(change.high / change.median) == pytest.approx(0.10)


def test_a_certain_past_leaves_only_the_uncertainty_of_now():
    """Then the change's interval is that of now, scaled."""
    change = relative_ratio(interval(0.9, 0.8, 1.1), interval(0.5, 0.5, 0.5))
    assert (change.low, change.median, change.high) == pytest.approx((1.6, 1.8, 2.2))


def test_what_was_recorded_counts_in_full_for_each_process():
    """All processes of a run share its error, so that it does not shrink with how many they are."""
    confidence = process_confidence(3)
    change = relative_ratio(interval(1.0, 1.0, 1.0, confidence), interval(1.0, 1.0, math.exp(0.02)))
    assert math.log(change.low) == pytest.approx(-0.02)
    assert change.confidence == confidence
