from __future__ import annotations

import dataclasses

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


def test_error_within_margin_passes_however_sure_it_is():
    """Five lost and none gained are certainly worse, but not beyond the margin of exactly that much."""
    assert held(top1([], range(5)), limit=POINT).status is Status.PASSED


def test_too_few_examples_are_said():
    """A pass that proves nothing says how much could be hidden in it."""
    verdict = held(top1([], range(5)), limit=POINT)
    said = (
        "500 examples are too few to prove the limit's margin of 1.00 pt: the increase may be up to 2.04 pt "
        "(95 % bound), and at 1.0 % flips they show 1.11 pt or more"
    )
    assert verdict.notes == (said,)


def test_no_flip_among_few_examples_is_said():
    """Where nothing flipped, few examples still prove little."""
    verdict = held(top1([1], [1], n=100), limit=POINT)
    said = (
        "100 examples are too few to prove the limit's margin of 1.00 pt: the increase may be up to 2.63 pt "
        "(95 % bound), and at 1.0 % flips they show 2.49 pt or more"
    )
    assert (verdict.status, verdict.notes) == (Status.PASSED, (said,))


def test_enough_examples_need_no_note():
    """With few flips among many examples the margin is proven."""
    verdict = held(top1(range(100), range(110), n=10_000), limit=POINT)
    assert (verdict.status, verdict.notes) == (Status.PASSED, ())


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
