"""Error rates by simulation: how often unchanged models are called worse, and worse ones found."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from compress.errors import MeasureError
from compress.gate.score_rules import SIGNIFICANCE
from compress.gate.statistics import PairedScores, check_rows
from compress.quality.reductions import area_under_curve, intersection_over_union, mean, ratio

ONE = np.ones((1, 4))


def normal(generator, n):
    """Standard normal."""
    return generator.normal(size=n)


def heavy(generator, n):
    """Student's t with 3 degrees of freedom."""
    return generator.standard_t(3, n)


def tied(generator, n):
    """Whole numbers, many of them 0."""
    return generator.integers(-2, 3, n).astype(float)


def rare(generator, n):
    """Zero but for a tenth of the examples, on average zero."""
    return np.where(generator.random(n) < 0.1, generator.normal(0, 3, n), 0.0)


def paired(change, *, sign=1, groups=None, generator=None):
    """Two models whose scores differ by ``change``, example by example."""
    before = (generator or np.random.default_rng(0)).normal(10, 2, len(change))
    return PairedScores(
        before=(before[:, None],), after=((before + change)[:, None],), reduce=mean, sign=sign, groups=groups
    )


def is_worse(scores):
    """What the gate calls regressed where nothing may be lost."""
    return scores.change > 0 and scores.p_value() < SIGNIFICANCE


@pytest.mark.parametrize("n", [8, pytest.param(40, marks=pytest.mark.nightly)])
@pytest.mark.parametrize("noise", [normal, heavy, tied, rare])
def test_unchanged_models_are_hardly_ever_called_worse(noise, n):
    """Of 300 pairs of equally good models no more are called worse than chance leaves of 1 %."""
    generator = np.random.default_rng(n)
    alarms = sum(is_worse(paired(noise(generator, n), generator=generator)) for _ in range(300))
    assert alarms <= stats.binom.ppf(0.999, 300, 0.01)


@pytest.mark.parametrize("n", [20, pytest.param(60, marks=pytest.mark.nightly)])
@pytest.mark.parametrize("noise", [normal, heavy, tied, rare])
def test_what_is_promised_is_found(noise, n):
    """Models that are worse by the minimum detectable effect are found 95 times in 100 and more."""
    generator = np.random.default_rng(n)
    # What a set of examples says of itself differs from set to set; the middle one stands for all.
    effects = [paired(noise(generator, n)).detectable(0.0, significance=SIGNIFICANCE) for _ in range(15)]
    effect = float(np.median(effects))
    found = sum(is_worse(paired(noise(generator, n) + effect, generator=generator)) for _ in range(100))
    assert found >= stats.binom.ppf(0.001, 100, 0.95)


def test_examples_that_belong_together_are_no_proof_of_one_another():
    """Ten recordings of twenty examples: taken each on its own, far more unchanged models are called worse."""
    generator, groups = np.random.default_rng(3), np.repeat(np.arange(10), 20)
    alone = together = 0
    for _ in range(60):
        change = generator.normal(size=10)[groups] + 0.1 * generator.normal(size=200)
        alone += is_worse(paired(change))
        together += is_worse(paired(change, groups=groups))
    assert together <= stats.binom.ppf(0.999, 60, 0.01)
    assert alone > 12


@pytest.mark.parametrize("noise", [normal, heavy, rare])
def test_what_is_proven_is_so(noise):
    """Where the truth lies on the margin, the bound lies below it in one case of twenty, or a little more."""
    generator = np.random.default_rng(4)
    below = sum(paired(noise(generator, 30), generator=generator).upper_bound() < 0 for _ in range(60))
    assert below <= stats.binom.ppf(0.999, 60, 0.08)


def test_a_reduction_is_compared_as_the_figure_that_it_is():
    """A ratio of sums of unequal examples: its change is that of the figure, not the mean of ratios."""
    generator = np.random.default_rng(5)
    words = generator.integers(1, 50, 80).astype(float)
    errors = np.floor(0.1 * words)
    before, after = np.stack([errors, words], axis=1), np.stack([errors + (words > 30), words], axis=1)
    scores = PairedScores(before=(before,), after=(after,), reduce=ratio)
    assert scores.change == pytest.approx((words > 30).sum() / words.sum())
    assert is_worse(scores)
    assert scores.lower_bound() < scores.change < scores.upper_bound()


def test_higher_may_be_better():
    """With the sign turned, what fell is worse."""
    change = np.full(20, -1.0)
    assert paired(change, sign=-1).change == pytest.approx(1.0)
    assert is_worse(paired(change, sign=-1))
    assert paired(change).p_value(improved=True) < SIGNIFICANCE


def test_few_examples_prove_nothing():
    """Six units have 64 exchanges, of which none is rarer than 1.6 %."""
    scores = paired(np.full(6, 5.0))
    assert scores.p_value() == pytest.approx(1 / 64)
    assert scores.detectable(0.0, significance=SIGNIFICANCE) == math.inf
    assert paired(np.ones(1)).upper_bound() == math.inf


def test_where_nothing_changed_some_doubt_is_left():
    """Twenty equal examples leave possible what a score interval does, in units of what examples differ by."""
    scores = paired(np.zeros(20))
    high, spread = scores.upper_bound(), np.ptp(scores.before[0])
    z = stats.norm.ppf(0.95) ** 2
    assert high == pytest.approx(spread * z / (20 + z))
    assert paired(np.zeros(2000)).upper_bound() < high / 50


def test_the_same_numbers_give_the_same_bounds():
    """Draws and exchanges are seeded."""
    change = normal(np.random.default_rng(6), 50)
    one, other = paired(change), paired(change)
    assert (one.p_value(), one.upper_bound()) == (other.p_value(), other.upper_bound())


def test_two_sides_of_two_models_each():
    """Another build is held by what it lost against its own dense model, not by how good that is."""
    generator = np.random.default_rng(7)
    dense, other = generator.normal(size=(30, 1)), generator.normal(5, 1, size=(30, 1))
    scores = PairedScores(before=(dense + 1, dense), after=(other + 1, other), reduce=mean)
    assert scores.change == pytest.approx(0.0)
    assert not is_worse(scores)


def test_areas_and_unions_under_weights():
    """A weight of 2 is as if the example were there twice."""
    rows = np.array([[0.1, 0], [0.4, 1], [0.35, 1], [0.8, 1], [0.35, 0]])
    weights = np.array([[1.0, 2, 1, 0, 1]])
    again = np.repeat(rows, weights[0].astype(int), axis=0)
    assert area_under_curve(rows, weights) == pytest.approx(area_under_curve(again, np.ones((1, len(again)))))
    counts = np.random.default_rng(8).integers(0, 9, (5, 6)).astype(float)
    twice = np.repeat(counts, weights[0].astype(int), axis=0)
    assert intersection_over_union(counts, weights) == pytest.approx(
        intersection_over_union(twice, np.ones((1, len(twice))))
    )


def test_ten_thousand_examples_are_drawn_in_chunks():
    """As many as a large test split has, and all draws are made."""
    scores = paired(normal(np.random.default_rng(9), 10_000))
    assert len(scores._drawn) == 2000
    assert scores.upper_bound() > scores.change


@pytest.mark.parametrize(
    ("rows", "message"),
    [(np.ones((3, 1)), "take a row for each"), (np.ones(4), "take a row for each"), (ONE.T * math.nan, "finite")],
)
def test_rows_that_are_none_are_refused(rows, message):
    """Of four examples."""
    with pytest.raises(MeasureError, match=message):
        check_rows(rows, 4)
