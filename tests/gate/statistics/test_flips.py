from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import optimize, stats

from compress.errors import ConfigError, MeasureError
from compress.gate.statistics import detectable_increase, flips, increase_interval, mcnemar, num_correct

counts = st.integers(0, 200)


@given(data=st.lists(st.tuples(st.booleans(), st.booleans()), max_size=70))
@settings(deadline=None)
def test_flips_agree_with_counting_by_hand(data):
    """Lost and gained examples are counted whatever their number, padding bits of the last byte left out."""
    before = np.packbits(np.array([was for was, _ in data], dtype=bool)).tobytes()
    after = np.packbits(np.array([now for _, now in data], dtype=bool)).tobytes()
    expected = (sum(was and not now for was, now in data), sum(now and not was for was, now in data))
    assert flips(before, after, len(data)) == expected
    assert num_correct(before, len(data)) == sum(was for was, _ in data)


def test_padding_bits_do_not_count():
    """Rubbish beyond the last example is no flip."""
    assert flips(b"\xff", b"\xe0", 3) == (0, 0)
    assert num_correct(b"\xff", 3) == 3


@pytest.mark.parametrize("n", [-1, 0, 8, 17])
def test_bits_that_do_not_fit_are_refused(n):
    """Results of another number of examples are never compared."""
    with pytest.raises(MeasureError, match="examples take"):
        flips(b"\xff\xff", b"\xff\xff", n)


@given(lost=counts, gained=counts)
@settings(deadline=None)
def test_mcnemar_is_the_exact_binomial_test(lost, gained):
    """The p-value is that of SciPy's one-sided binomial test, and a probability."""
    p_value = mcnemar(lost, gained)
    assert 0 <= p_value <= 1
    total = lost + gained
    expected = stats.binomtest(lost, total, 0.5, alternative="greater").pvalue if total else 1.0
    assert p_value == pytest.approx(expected, rel=1e-9)


@given(lost=counts, gained=counts)
@settings(deadline=None)
def test_mcnemar_falls_with_each_loss_and_rises_with_each_gain(lost, gained):
    """More lost examples are never weaker evidence of a loss, more gained ones never stronger."""
    assert mcnemar(lost + 1, gained) <= mcnemar(lost, gained) <= mcnemar(lost, gained + 1) + 1e-15


def test_mcnemar_by_hand():
    """Five losses and no gain are five heads in a row."""
    assert mcnemar(5, 0) == pytest.approx(1 / 32)
    assert mcnemar(0, 5) == 1
    assert mcnemar(0, 0) == 1


def test_negative_flips_are_refused():
    """A count cannot be negative."""
    with pytest.raises(ConfigError, match="must not be negative"):
        mcnemar(-1, 2)


def score_by_maximum_likelihood(lost, gained, n, increase):
    """Tango's statistic with the nuisance parameter found by a general optimizer instead of its formula."""

    def loss(gained_share):
        lost_share = gained_share + increase
        rest = 1 - lost_share - gained_share
        return -(lost * math.log(lost_share) + gained * math.log(gained_share) + (n - lost - gained) * math.log(rest))

    low, high = max(0, -increase) + 1e-12, (1 - increase) / 2 - 1e-12
    share = optimize.minimize_scalar(loss, bounds=(low, high), method="bounded", options={"xatol": 1e-12}).x
    variance = n * (2 * share + increase - increase**2)
    return (lost - gained - n * increase) / math.sqrt(variance)


@pytest.mark.parametrize(("lost", "gained", "n"), [(12, 2, 50), (3, 9, 200), (25, 10, 500), (1, 1, 30)])
def test_interval_ends_where_the_score_test_turns(lost, gained, n):
    """At both ends the score statistic, from a maximum-likelihood fit of its own, is the normal quantile."""
    interval = increase_interval(lost, gained, n, 0.90)
    z = stats.norm.ppf(0.95)
    assert score_by_maximum_likelihood(lost, gained, n, interval.low) == pytest.approx(z, abs=1e-4)
    assert score_by_maximum_likelihood(lost, gained, n, interval.high) == pytest.approx(-z, abs=1e-4)


@pytest.mark.parametrize(("lost_share", "gained_share"), [(0.03, 0.02), (0.10, 0.10), (0.02, 0.08)])
def test_upper_end_holds_in_19_of_20_data_sets(lost_share, gained_share):
    """The chance that the upper end lies below the true increase, summed over all outcomes, is about 5 %."""
    n, missed = 80, 0.0
    outcomes = stats.multinomial(n, [lost_share, gained_share, 1 - lost_share - gained_share])
    for lost in range(31):
        for gained in range(31):
            chance = float(outcomes.pmf([lost, gained, n - lost - gained]))
            if chance > 1e-7 and increase_interval(lost, gained, n).high < lost_share - gained_share:
                missed += chance
    assert 0.01 < missed < 0.075


@given(n=st.integers(1, 400), data=st.data())
@settings(deadline=None)
def test_interval_contains_increase_and_mirrors(n, data):
    """The observed increase lies inside, and swapping the models turns the interval around."""
    lost = data.draw(st.integers(0, n))
    gained = data.draw(st.integers(0, n - lost))
    there, back = increase_interval(lost, gained, n), increase_interval(gained, lost, n)
    assert -1 <= there.low <= there.increase <= there.high <= 1
    assert (back.low, back.increase, back.high) == pytest.approx((-there.high, -there.increase, -there.low))


def test_no_flip_is_no_proof_of_equality():
    """Even without a flip the increase may be anything up to z squared over n plus z squared."""
    z = stats.norm.ppf(0.95)
    assert increase_interval(0, 0, 100).high == pytest.approx(z**2 / (100 + z**2))


@pytest.mark.parametrize(("lost", "gained", "n"), [(-1, 0, 5), (0, -1, 5), (3, 3, 5), (0, 0, 0)])
def test_flips_beyond_the_examples_are_refused(lost, gained, n):
    """More flips than examples are a mistake of the caller."""
    with pytest.raises(ConfigError, match="flips must fit into the examples"):
        increase_interval(lost, gained, n)


def test_interval_refuses_certainty():
    """No interval holds with a confidence of 1."""
    with pytest.raises(ConfigError, match="confidence must be"):
        increase_interval(1, 1, 10, 1.0)


@pytest.mark.parametrize(("n", "points"), [(2_000, "1.24"), (10_000, "0.56")])
def test_detectable_increase_at_five_percent_flips(n, points):
    """At 5 % flips 2,000 examples show 1.24 points, 10,000 show 0.56."""
    assert f"{100 * detectable_increase(0.05, n):.2f}" == points


def test_detectable_increase_is_detected_as_often_as_it_says():
    """Of simulated data sets with just that increase 80 % are called worse at 5 %."""
    n, flip_share = 2_000, 0.05
    increase = detectable_increase(flip_share, n)
    generator = np.random.default_rng(0)
    lost_share = (flip_share + increase) / 2
    outcomes = generator.multinomial(n, [lost_share, flip_share - lost_share, 1 - flip_share], size=2000)
    found = np.mean([mcnemar(int(lost), int(gained)) < 0.05 for lost, gained, _ in outcomes])
    # The exact test is a little more careful than the normal approximation.
    assert 0.74 < found < 0.83


@pytest.mark.parametrize(
    ("arguments", "rule"),
    [
        ({"flip_share": -0.1, "n": 10}, "flip_share must be"),
        ({"flip_share": math.nan, "n": 10}, "flip_share must be"),
        ({"flip_share": 0.1, "n": 0}, "n must be"),
        ({"flip_share": 0.1, "n": 10, "power": 1.0}, "significance and power"),
    ],
)
def test_detectable_increase_refuses_what_is_out_of_range(arguments, rule):
    """Each argument's rule is named."""
    with pytest.raises(ConfigError, match=rule):
        detectable_increase(**arguments)
