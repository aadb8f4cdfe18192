from __future__ import annotations

import pytest

from compress.measure import accuracy
from compress.train import Evaluation, evaluate
from tests.workloads import tiny_data, tiny_net

DENSE = Evaluation(top1_error=0.25, top5_error=0.125, top1_correct=b"\xfc", top5_correct=b"\xfe", num_examples=8)
COMPRESSED = Evaluation(top1_error=0.5, top5_error=0.0, top1_correct=b"\xf0", top5_correct=b"\xff", num_examples=8)


def test_top1_error_is_taken_from_the_evaluations():
    """Errors in 0..1, dense and compressed each in its place, with every example's outcome in the order dense first."""
    measured = accuracy.top1_error(COMPRESSED, DENSE)
    assert measured.metric == "top1_error"
    assert (measured.dense, measured.compressed) == (0.25, 0.5)
    assert measured.correct == (b"\xfc", b"\xf0")
    assert measured.num_examples == 8


def test_top5_error_is_taken_from_the_evaluations():
    """The same, of the five most likely classes; an error may fall to exactly 0."""
    measured = accuracy.top5_error(COMPRESSED, DENSE)
    assert measured.metric == "top5_error"
    assert (measured.dense, measured.compressed) == (0.125, 0.0)
    assert measured.correct == (b"\xfe", b"\xff")
    assert measured.num_examples == 8


@pytest.mark.parametrize("measure", [accuracy.top1_error, accuracy.top5_error])
def test_the_bits_say_what_the_errors_say(measure):
    """Of a real evaluation the share of unset bits is the error, and the device makes no difference."""
    evaluation = evaluate(tiny_net(), tiny_data().test)
    measured = measure(evaluation, evaluation)
    bits = "".join(f"{byte:08b}" for byte in measured.correct[0])[: measured.num_examples]
    assert measured.dense == measured.compressed == bits.count("0") / 24
    assert measured.device == ""
