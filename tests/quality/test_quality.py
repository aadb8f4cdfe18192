from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from compress.errors import ConfigError, DataError, ModelError
from compress.quality import OwnMetric, Quality, judge_model
from compress.quality.quality import qualities_of, quality_of
from compress.results import Kind, Unit

BATCHES = [(torch.arange(4.0)[:, None], torch.zeros(4)), (torch.arange(2.0)[:, None], torch.ones(2))]


def distance_error(outputs, targets):
    """A plain function."""
    return (outputs[:, 0] - targets).abs()


def judged(rows, **settings):
    """A model that puts out what it is given, by rows of one's own."""
    return judge_model(nn.Identity(), BATCHES, [Quality(name="own", rows=rows, better="lower", **settings)])["own"]


def test_a_plain_function_is_a_quality():
    """Its name says which way is better; the figure is the mean of its numbers."""
    quality = quality_of(distance_error)
    assert (quality.name, quality.better, quality.metric.kind) == ("distance_error", "lower", Kind.SCORE)
    assert not quality.metric.higher_is_better
    found = judge_model(nn.Identity(), BATCHES, [quality])["distance_error"]
    assert found.rows[:, 0].tolist() == [0, 1, 2, 3, 1, 0]
    assert found.value == pytest.approx(7 / 6)


def test_a_direction_that_cannot_be_guessed_is_asked_for():
    """A name that says nothing needs a declaration, which the message shows."""
    with pytest.raises(ConfigError, match=r"cannot be guessed from the name 'fit_of': declare .*better="):
        quality_of(_named("fit_of"))
    assert quality_of(_named("word_accuracy")).better == "higher"


def _named(name):
    def function(outputs, _targets):
        return outputs

    function.__name__ = name
    return function


@pytest.mark.parametrize(
    ("rows", "error", "message"),
    [
        (lambda out, _: out.mean(), ConfigError, "'own' must give a row for each of 4 examples, got a single number"),
        (lambda out, _: out[1:, 0], ConfigError, r"a row for each of 4 examples, got an array of shape \[3, 1\]"),
        (lambda out, _: out[:, 0] * float("nan"), ModelError, "'own' must give numbers, got NaN"),
        (lambda out, targets: out @ targets, ConfigError, "'own' failed on outputs and targets: "),
    ],
)
def test_rows_that_are_none_are_refused(rows, error, message):
    """A wrong number of rows, a scalar, NaN, a crash: one sentence that names the quality."""
    with pytest.raises(error, match=message):
        judged(rows)


def test_targets_are_needed():
    """Batches of inputs alone can be judged by nothing."""
    with pytest.raises(DataError, match="takes pairs"):
        judge_model(nn.Identity(), [torch.ones(2, 1)], [quality_of(distance_error)])


def test_a_model_that_puts_out_nan_is_refused():
    """Whatever the quality would make of it."""
    with pytest.raises(ModelError, match="must be numbers to be judged"):
        judge_model(nn.Identity(), [(torch.tensor([[float("nan")]]), torch.zeros(1))], [quality_of(distance_error)])


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"name": "Mean IoU"}, "lower-case letters"),
        ({"name": "macs"}, "'macs' is measured of every model"),
        ({"better": "up"}, "whether higher or lower is better, got 'up'"),
        ({"unit": "percent"}, "unit must be fraction or number"),
        ({"rows": 3}, "rows must be a function"),
        ({"is_error": True, "better": "higher"}, "an error is a share of wrong examples"),
    ],
)
def test_a_declaration_that_breaks_its_rule_is_refused(settings, message):
    """With the rule, the value and the quality's name."""
    with pytest.raises(ConfigError, match=message):
        Quality(**{"name": "own", "rows": distance_error, "better": "lower", **settings})


def test_a_name_is_used_once():
    """Or a limit on it would be on two things."""
    with pytest.raises(ConfigError, match="can be used once, got 'distance_error' twice"):
        qualities_of([distance_error, distance_error])
    assert [one.name for one in qualities_of(distance_error)] == ["distance_error"]


def test_groups_are_numbered():
    """Names of what examples belong to become numbers, whatever they are."""
    found = judge_model(
        nn.Identity(),
        BATCHES,
        [quality_of(distance_error)],
        groups=lambda targets: ["b" if t else "a" for t in targets],
    )
    assert found["distance_error"].groups.tolist() == [0, 0, 0, 0, 1, 1]
    with pytest.raises(ConfigError, match="groups must name one for each of 4 examples, got 1"):
        judge_model(nn.Identity(), BATCHES, [quality_of(distance_error)], groups=lambda _: ["a"])


def test_an_own_metric_says_how_it_compares():
    """Exact everywhere, or within a tolerance on a class of device."""
    exact = OwnMetric(name="firmware_bytes", measure=lambda _: 1.0, unit="bytes").metric
    assert (exact.kind, exact.unit, exact.device) == (Kind.EXACT, Unit.BYTES, "")
    fast = OwnMetric(name="tokens", measure=lambda _: 1.0, better="higher", exact=False, tolerance=0.1).metric
    assert (fast.kind, fast.device, fast.higher_is_better) == (Kind.MEMORY, "cpu", True)
    with pytest.raises(ConfigError, match="'macs' is measured of every model"):
        OwnMetric(name="macs", measure=lambda _: 1.0)


def test_an_error_is_held_by_those_that_changed_sides():
    """Rows of 0 and 1 of which 1 is wrong."""
    quality = Quality(name="pitch_off", rows=lambda out, _: out[:, 0] > 1, better="lower", is_error=True)
    assert (quality.metric.kind, quality.metric.unit) == (Kind.ERROR, Unit.FRACTION)
    found = judge_model(nn.Identity(), BATCHES, [quality])["pitch_off"]
    assert found.value == pytest.approx(2 / 6)
    assert np.array_equal(found.rows[:, 0], [0, 0, 1, 1, 0, 0])
