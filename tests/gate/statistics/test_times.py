"""Simulated clocks stand in for real ones: nothing here depends on how fast this machine is."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from compress.errors import ConfigError, MeasureError
from compress.gate.checks import Status
from compress.gate.rules import place_ratio
from compress.gate.statistics import min_pairs, paired_ratio
from compress.gate.statistics.times import _order_interval

TRIALS = 250
# A quarter of the default: the ends of the interval get a little rougher, and these tests four times as fast.
RESAMPLES = 500
TOLERANCE = 0.05


def quiet(calls, _generator):
    """A clock that neither drifts nor jumps."""
    return np.ones(calls)


def drifting(calls, _generator):
    """A clock that loses 40 % of its speed during the run, as under thermal throttling."""
    return np.linspace(1, 1.4, calls)


def bursting(calls, generator):
    """A neighbour on the same machine that now and then takes up to two thirds of it for some calls."""
    factor = np.ones(calls)
    for start in np.flatnonzero(generator.random(calls) < 0.05):
        factor[start : start + generator.integers(1, 12)] = generator.uniform(1.3, 3)
    return factor


def autocorrelated(calls, generator):
    """A slowness that fades by a tenth from call to call."""
    steps = generator.normal(0, 0.03, calls)
    state = np.zeros(calls)
    for call in range(1, calls):
        state[call] = 0.9 * state[call - 1] + steps[call]
    return np.exp(state)


def bimodal(calls, generator):
    """Two frequencies 30 % apart, changed every ten calls or so."""
    return np.where(np.cumsum(generator.random(calls) < 0.1) % 2, 1.3, 1.0)


CLOCKS = [quiet, drifting, bursting, autocorrelated, bimodal]


def take_pairs(clock, ratio, seed, pairs=60):
    """Two models called in turn on such a clock, the first of a pair changing each time."""
    generator = np.random.default_rng(seed)
    calls = 5 * clock(2 * pairs, generator) * np.exp(generator.normal(0, 0.02, 2 * pairs))
    first, second = calls[0::2], calls[1::2]
    swap = np.arange(pairs) % 2 == 1
    dense, compressed = np.where(swap, second, first), np.where(swap, first, second)
    return list(zip(dense.tolist(), (ratio * compressed).tolist(), strict=True))


def share_regressed(clock, ratio):
    """How often the gate says "regressed" against a bound 5 % above 1."""
    intervals = [paired_ratio(take_pairs(clock, ratio, seed), resamples=RESAMPLES) for seed in range(TRIALS)]
    verdicts = [place_ratio([interval], 1 + TOLERANCE) for interval in intervals]
    return verdicts.count(Status.REGRESSED) / TRIALS


@pytest.mark.parametrize("clock", CLOCKS)
def test_identical_models_raise_no_alarm(clock):
    """On every kind of clock at most 1 % of runs of two identical models are called a regression of 5 %."""
    assert share_regressed(clock, 1.0) <= 0.01


@pytest.mark.parametrize("clock", CLOCKS)
def test_slow_down_of_a_tenth_is_detected(clock):
    """On every kind of clock at least 95 % of slow-downs by 10 % are called a regression of 5 %."""
    assert share_regressed(clock, 1.1) >= 0.95


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
