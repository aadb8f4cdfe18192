from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from compress.gate.checks import Status
from compress.gate.limits import Limit
from compress.results import Measurement
from tests.gate.samples import baseline_of, held, top1

POINT = Limit(metric="top1_error", max_increase=0.01, where="r.toml")


def test_error_regresses_beyond_margin_and_chance():
    """Eleven lost of 500 are over the margin of one point, and no chance."""
    verdict = held(top1(range(10), range(21)), limit=POINT)
    assert verdict.status is Status.REGRESSED
    assert verdict.checks[0].text == (
        "at most dense + 1.00 pt = 3.00 % (r.toml): +2.20 pt, 11 lost and 0 gained of 500 examples, p = 0.00049"
    )


def test_error_beyond_margin_that_may_be_chance_is_inconclusive():
    """Thirty lost and twenty gained are over the margin, but coins fall so too."""
    verdict = held(top1(range(20), range(20, 50)), limit=POINT)
    assert verdict.status is Status.INCONCLUSIVE
    assert verdict.checks[0].text == (
        "at most dense + 1.00 pt = 5.00 % (r.toml): +2.00 pt, 30 lost and 20 gained of 500 examples, p = 0.1: "
        "beyond the margin, but chance may explain it"
    )
    assert verdict.notes == (
        "500 examples cannot tell it from chance: the minimum detectable effect at 10.0 % flips is 3.52 pt",
    )


def test_error_within_margin_passes_however_sure_it_is():
    """Five lost and none gained are certainly worse, but not beyond the margin of exactly that much."""
    assert held(top1([], range(5)), limit=POINT).status is Status.PASSED


def test_too_few_examples_are_said():
    """A pass that proves nothing says how much could be hidden in it."""
    verdict = held(top1([], range(5)), limit=POINT)
    said = (
        "500 examples do not prove that the error holds the limit's margin of 1.00 pt: the increase may be up to "
        "2.04 pt (95 % bound), the minimum detectable effect at 1.0 % flips is 1.11 pt"
    )
    assert verdict.notes == (said,)
    assert verdict.checks[0].text.endswith(
        "5 lost and 0 gained of 500 examples, not proven: at most +2.04 pt (95 % bound)"
    )


def test_no_flip_among_few_examples_is_said():
    """Where nothing flipped, few examples still prove little."""
    verdict = held(top1([1], [1], n=100), limit=POINT)
    said = (
        "100 examples do not prove that the error holds the limit's margin of 1.00 pt: the increase may be up to "
        "2.63 pt (95 % bound), the minimum detectable effect at 1.0 % flips is 2.49 pt"
    )
    assert (verdict.status, verdict.notes) == (Status.PASSED, (said,))


def test_enough_examples_prove_the_margin():
    """With few flips among many examples the margin is proven, and the bound says by how much."""
    verdict = held(top1(range(100), range(110), n=10_000), limit=POINT)
    assert (verdict.status, verdict.notes) == (Status.PASSED, ())
    assert verdict.checks[0].text.endswith("of 10,000 examples, proven: at most +0.17 pt (95 % bound)")


def simulated(true_increase, flip_share, n, trials, seed):
    """Verdicts on data sets of ``n`` examples of which so many flip, so many more of them lost than gained."""
    lost_share = (flip_share + true_increase) / 2
    shares = [lost_share, flip_share - lost_share, 1 - flip_share]
    for lost, gained, _ in np.random.default_rng(seed).multinomial(n, shares, size=trials):
        yield held(top1(range(gained), range(gained, gained + lost), n=n), limit=POINT)


@pytest.mark.parametrize(("flip_share", "n"), [(0.03, 2_000), (0.10, 500)])
def test_an_error_on_its_margin_is_hardly_ever_called_proven(flip_share, n):
    """If the true increase is all of the margin, at most 5 % of data sets are said to prove that it is held."""
    verdicts = list(simulated(0.01, flip_share, n, trials=400, seed=1))
    proven = sum(", proven: " in verdict.checks[0].text for verdict in verdicts)
    # 28 of 400 or fewer come up in 97 % of tries if the true share is 5 %.
    assert proven <= 28


def test_an_equal_model_is_hardly_ever_called_worse():
    """Flips without any loss turn red in far fewer than 5 % of data sets, for they must exceed the margin too."""
    verdicts = [verdict.status for verdict in simulated(0.0, 0.05, 2_000, trials=300, seed=2)]
    assert verdicts.count(Status.REGRESSED) <= 9


def test_a_loss_that_can_be_detected_is():
    """Twice the margin, well beyond the minimum detectable effect, turns red in nearly all data sets."""
    verdicts = [verdict.status for verdict in simulated(0.03, 0.05, 2_000, trials=200, seed=3)]
    assert verdicts.count(Status.REGRESSED) >= 195


def test_an_equal_model_is_proven_where_there_are_enough_examples():
    """At 3 % flips 10,000 examples prove a margin of one point for a model that lost nothing."""
    verdicts = list(simulated(0.0, 0.03, 10_000, trials=100, seed=4))
    assert all(verdict.notes == () for verdict in verdicts)


def test_error_is_compared_with_baseline_example_by_example(tmp_path):
    """Above the baseline's error by half a point is allowed, by more only where chance explains it."""
    baseline = baseline_of(tmp_path, top1([], range(10)))
    assert held(top1([], range(12)), baseline=baseline).status is Status.PASSED
    assert held(top1([], range(18)), baseline=baseline).status is Status.REGRESSED
    swapped = held(top1([], range(5, 20)), baseline=baseline)
    assert swapped.status is Status.INCONCLUSIVE
    assert "10 lost and 5 gained" in swapped.checks[0].text


def test_better_error_than_baseline_is_stale(tmp_path):
    """A gain beyond the margin and chance is told."""
    baseline = baseline_of(tmp_path, top1([], range(40)))
    verdict = held(top1([], range(10)), baseline=baseline)
    assert verdict.status is Status.PASSED
    assert verdict.notes[-1] == "baseline is stale: 2.00 % against 8.00 %, record the gain with --benchmark-save"


def test_baseline_without_single_results_is_held_by_margin_alone(tmp_path):
    """Without every example's result the margin decides alone, and that is said."""
    baseline = baseline_of(tmp_path, dataclasses.replace(top1([], range(10)), correct=None))
    within = held(top1([], range(12)), baseline=baseline)
    assert within.status is Status.PASSED
    assert within.notes == (
        "without every example's result the baseline was held by its margin alone, chance not considered",
    )
    assert held(top1([], range(13)), baseline=baseline).status is Status.REGRESSED
    assert "stale" in held(top1([], range(5)), baseline=baseline).notes[-1]


@pytest.mark.parametrize(("dense", "status"), [(0.9984, Status.PASSED), (0.99839, Status.REGRESSED)])
def test_error_without_single_results_has_exact_margin(dense, status):
    """0.9985 - 0.9984 is a little more than 0.0001 in doubles, but no regression."""
    assert 0.9985 - 0.9984 > 0.0001 * (1 + 1e-14)
    limit = Limit(metric="top1_error", max_increase=0.0001)
    measurement = Measurement(metric="top1_error", dense=dense, compressed=0.9985)
    assert held(measurement, limit=limit).status is status
