from __future__ import annotations

import numpy as np
import pytest
import torch

from compress.errors import MeasureError
from compress.measure.quality import own_measurement, quality_measurement
from compress.quality import Judged, OwnMetric, Quality, judge_model, topk_error
from compress.results import Kind, Unit
from tests.workloads import tiny_data, tiny_net


def judged(quality, *values):
    """What a model came to whose examples gave these numbers."""
    rows = np.array(values, dtype=float)[:, None]
    return Judged(quality=quality, rows=rows, value=float(rows.mean()))


def test_an_error_is_kept_as_bits():
    """A bit for each example, set where it was right, dense and compressed each in its place."""
    error = topk_error(1)
    measured = quality_measurement(judged(error, 1, 1, 0, 0, 0, 0, 0, 1), judged(error, 1, 0, 0, 0, 0, 0, 0, 0))
    assert (measured.metric, measured.declared) == ("top1_error", None)
    assert (measured.dense, measured.compressed) == (0.125, 0.375)
    assert measured.correct == (b"\x7f", b"\x3e")
    assert measured.num_examples == 8


def test_a_score_is_kept_as_rows():
    """Of any other quality every number of both models is kept, and the metric says what it is."""
    quality = Quality(name="loudness", rows=lambda outputs, _: outputs, better="higher")
    measured = quality_measurement(judged(quality, 1, 2), judged(quality, 3, 4))
    assert measured.about.kind is Kind.SCORE
    assert measured.about.higher_is_better
    assert measured.scores.dense.tolist() == [[3.0], [4.0]]
    assert measured.scores.compressed.tolist() == [[1.0], [2.0]]


def test_two_models_are_judged_on_the_same_examples():
    """As many rows of both, or none of it compares."""
    error = topk_error(1)
    with pytest.raises(MeasureError, match="takes the same examples, got 2 and 3"):
        quality_measurement(judged(error, 0, 1, 0), judged(error, 0, 1))


@pytest.mark.parametrize("k", [1, 5])
def test_the_bits_say_what_the_errors_say(k):
    """Of a real model the share of unset bits is the error, and the device makes no difference."""
    split = tiny_data().test
    (one,) = judge_model(tiny_net(), split.batches(8), [topk_error(k)]).values()
    measured = quality_measurement(one, one)
    bits = "".join(f"{byte:08b}" for byte in measured.correct[0])[: measured.num_examples]
    assert measured.dense == measured.compressed == bits.count("0") / 24
    assert measured.device == ""


def test_a_metric_of_ones_own_is_measured_of_both_models():
    """It is exact and holds everywhere, or belongs to a class of device."""
    own = OwnMetric(name="tensors", measure=lambda model: len(list(model.parameters())), unit="count")
    measured = own_measurement(own, tiny_net(), torch.nn.Linear(2, 2), threads=1)
    assert (measured.dense, measured.compressed) == (2, len(list(tiny_net().parameters())))
    assert (measured.about.unit, measured.device) == (Unit.COUNT, "")
    timed = OwnMetric(name="tokens_per_s", measure=lambda _: 3.0, better="higher", exact=False, tolerance=0.1)
    assert own_measurement(timed, tiny_net(), tiny_net(), threads=1).device.startswith("cpu-")


def test_a_metric_that_fails_says_which():
    """Whatever goes wrong in a user's function is said in a sentence."""
    own = OwnMetric(name="broken", measure=lambda model: model.nothing)
    with pytest.raises(MeasureError, match=r"the metric 'broken' could not be measured: .*'nothing'"):
        own_measurement(own, tiny_net(), tiny_net(), threads=1)
