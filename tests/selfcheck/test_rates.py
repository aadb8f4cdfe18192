"""The whole gate on simulated clocks, sequential looks and second looks included: no real clock decides here."""

from __future__ import annotations

import functools

import numpy as np
import pytest
from scipy import stats

from compress.gate import checks
from compress.gate.checks import Status, precise_enough
from compress.gate.judge import RECORDED_LOOKS
from compress.gate.statistics import paired_ratio
from compress.pytest_plugin.gate_session import GateSession
from compress.results import Measurement
from compress.selfcheck.rates import Rates, held, lower_bound, rates, recorded, upper_bound, verdict
from compress.selfcheck.trial import Trial
from tests.clocks import CLOCKS, quiet, take_runs
from tests.gate.samples import DEVICE, PROVENANCE

IDENTICAL_TRIALS = 60
SLOWED_TRIALS = 30
MOST_PAIRS = 90


@pytest.fixture(autouse=True)
def _few_resamples(monkeypatch):
    """A tenth of the default: the ends of intervals get a little rougher, and these tests ten times as fast."""
    monkeypatch.setattr(
        checks, "paired_ratio", lambda run, confidence, **_: paired_ratio(run, confidence=confidence, resamples=120)
    )


def measured(runs):
    """The measurement that consists of these pairs."""
    runs = [tuple(map(tuple, run)) for run in runs]
    pairs = tuple(pair for run in runs for pair in run)
    lengths = tuple(map(len, runs))
    return Measurement(
        metric="cpu_latency_ms", dense=5.0, compressed=5.0, device=DEVICE, pairs=pairs, run_lengths=lengths
    )


def simulate(clock, slowdown, generator, spread=0.005):
    """A trial of three processes that stop after 30 or 60 pairs if those are enough; a second look has all 90."""
    take = functools.partial(take_runs, clock, 1 + slowdown, generator, runs=3, pairs=MOST_PAIRS, spread=spread)
    first = take().tolist()
    for pairs in (30, 60):
        if precise_enough([run[:pairs] for run in first]):
            first = [run[:pairs] for run in first]
            break
    return Trial(slowdown=slowdown, first=measured(first), second=measured(take().tolist()), seconds=5.0)


def recording(clock, generator):
    """A time as a baseline holds it: identical models, looked at as often as a recording does."""
    return recorded([simulate(clock, 0.0, generator) for _ in range(RECORDED_LOOKS)])


def share_red(clock, slowdown, trials):
    """How often the gate says "regressed" in the end, each time against another baseline."""
    generator = np.random.default_rng(7)
    verdicts = [verdict(recording(clock, generator), simulate(clock, slowdown, generator)) for _ in range(trials)]
    return verdicts.count(Status.REGRESSED) / trials


@pytest.mark.parametrize("clock", CLOCKS)
def test_identical_models_raise_no_alarm(clock):
    """On every kind of clock at most 1 % of gates on identical models turn red, though every process differs."""
    assert share_red(clock, 0.0, IDENTICAL_TRIALS) <= 0.01


@pytest.mark.parametrize("clock", CLOCKS)
def test_slow_downs_as_large_as_the_tolerance_are_found(clock):
    """On every kind of clock at least 95 % of slow-downs by 5 % turn red with no more than 90 pairs in a process."""
    assert share_red(clock, 0.05, SLOWED_TRIALS) >= 0.95


@pytest.mark.nightly
@pytest.mark.parametrize("clock", CLOCKS)
def test_rates_hold_in_a_thousand_gates(clock):
    """The same with enough trials to tell 1 % from 2 %."""
    assert share_red(clock, 0.0, 1000) <= 0.01
    assert share_red(clock, 0.05, 300) >= 0.95


@pytest.mark.parametrize(("slowdown", "expected"), [(0.0, Status.PASSED), (0.1, Status.REGRESSED)])
def test_a_trial_is_judged_as_the_gate_judges_a_test(tmp_path, slowdown, expected):
    """The gate itself, given the same measurements and a recorded baseline, says the same."""
    generator = np.random.default_rng(3)
    before = [simulate(quiet, 0.0, generator) for _ in range(RECORDED_LOOKS)]
    trial = simulate(quiet, slowdown, generator)
    session = GateSession(folder=tmp_path, provenance=PROVENANCE, recording=True)
    looks = iter([one.measured for one in before])
    session.check(looks.__next__, recipe="r", limit=None, baseline=None)
    session.record("digits")
    session.compare, session.recording = True, False
    looks = iter([trial.first, trial.second])
    said = session.check(looks.__next__, recipe="r", limit=None, baseline=session.load_baseline("digits"))
    assert said.status is verdict(recorded(before), trial) is expected


def steady(slowdown, milliseconds=5.0, second=None):
    """A trial on a clock that stands the same: three times eight equal pairs."""
    now = measured([[(milliseconds, milliseconds * (1 + slowdown))] * 8] * 3)
    return Trial(slowdown=slowdown, first=now, second=second, seconds=4.0)


def test_each_trial_is_compared_with_the_last_identical_ones():
    """The first ones have nothing to be compared with; a machine that got slower fools a mean and not a ratio."""
    first = [steady(0.0)] * RECORDED_LOOKS
    trials = [*first, steady(0.0, 5.2), steady(0.10, 5.2), steady(0.0, 5.6), steady(0.02, 5.6)]
    assert rates(trials) == [
        Rates(slowdown=0.0, trials=2, red=0, undecided=0, red_at_tolerance=0, mean_red=1, median_red=1),
        Rates(slowdown=0.02, trials=1, red=0, undecided=0, red_at_tolerance=0, mean_red=0, median_red=0),
        Rates(slowdown=0.10, trials=1, red=1, undecided=0, red_at_tolerance=1, mean_red=1, median_red=1),
    ]


def test_what_must_be_found_lies_beyond_the_bound():
    """A slow-down by 4 % is beyond half of the tolerance of 5 %, and not beyond all of it."""
    (_, slowed) = rates([*[steady(0.0)] * (RECORDED_LOOKS + 1), steady(0.04)])
    assert (slowed.red, slowed.red_at_tolerance) == (1, 0)


def test_means_and_medians_are_compared_apart():
    """One slow call moves the mean and not the median."""
    slow = measured([[(5.0, 5.0)] * 7 + [(5.0, 50.0)]] * 3)
    (row,) = rates([*[steady(0.0)] * RECORDED_LOOKS, Trial(slowdown=0.0, first=slow, second=None, seconds=1.0)])
    assert (row.mean_red, row.median_red, row.red) == (1, 0, 0)


def test_a_first_look_that_is_not_repeated_is_not_confirmed():
    """Red once and fine twice is fine; undecided in both looks together is undecided."""
    fine, red = measured([[(5.0, 5.0)] * 8] * 3), measured([[(5.0, 5.5)] * 8] * 3)
    mixed = measured([[(5.0, 5.0)] * 8, *[[(5.0, 5.5)] * 8] * 2])

    def said(first, second):
        return verdict(fine, Trial(slowdown=0.1, first=first, second=second, seconds=1.0))

    assert said(red, fine) is Status.PASSED
    assert said(red, red) is Status.REGRESSED
    assert said(red, mixed) is said(mixed, red) is Status.INCONCLUSIVE


@pytest.mark.parametrize(("count", "trials"), [(0, 200), (2, 200), (49, 50), (50, 50), (1, 1)])
def test_bounds_are_those_of_the_exact_binomial(count, trials):
    """They are the ends of SciPy's one-sided Clopper-Pearson intervals."""
    upper = stats.binomtest(count, trials, alternative="less").proportion_ci(0.95, "exact").high
    lower = stats.binomtest(count, trials, alternative="greater").proportion_ci(0.95, "exact").low
    assert (lower_bound(count, trials), upper_bound(count, trials)) == pytest.approx((lower, upper))


@pytest.mark.parametrize(
    ("false_alarms", "found", "expected"), [(2, 95, True), (3, 95, False), (2, 94, False), (0, 100, True)]
)
def test_the_promise_is_one_in_a_hundred_and_nineteen_of_twenty(false_alarms, found, expected):
    """Smaller slow-downs than the tolerance are promised nothing."""

    def row(slowdown, trials, red):
        return Rates(
            slowdown=slowdown, trials=trials, red=red, undecided=0, red_at_tolerance=0, mean_red=0, median_red=0
        )

    assert held([row(0.0, 200, false_alarms), row(0.03, 100, 1), row(0.05, 100, found)]) is expected
