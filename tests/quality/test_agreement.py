from __future__ import annotations

import pytest
import torch
from torch import nn

from compress.calling.fidelity import relative_error
from compress.errors import ConfigError, ModelError
from compress.quality import Quality, judge_model, mae, output_error
from compress.results import METRICS


class Doubled(nn.Module):
    """``[n, 2]`` to two outputs of any structure, ``scale`` times what they are."""

    def __init__(self, scale: float = 1.0) -> None:
        super().__init__()
        self.scale = scale

    def forward(self, x):
        return {"twice": 2 * self.scale * x, "sum": (self.scale * x).sum(dim=1)}


INPUTS = torch.randn(7, 2, generator=torch.Generator().manual_seed(0))
BATCHES = list(INPUTS.split(3))


def test_outputs_of_any_structure_are_held_against_the_dense_models():
    """Without targets, over all batches together; the dense model's own error is 0."""
    dense, other = Doubled(), Doubled(1.1)
    found = judge_model(other, BATCHES, [output_error()], reference=dense)["output_error"]
    assert found.value == pytest.approx(relative_error(dense(INPUTS), other(INPUTS)))
    assert found.value == pytest.approx(0.1, rel=1e-5)
    assert found.rows.shape == (7, 4)
    own = judge_model(dense, BATCHES, [output_error()], reference=dense)["output_error"]
    assert own.value == 0
    assert output_error().metric is METRICS["output_error"]


def test_agreement_stands_beside_a_quality_of_targets():
    """Each is given what it is held against, and the part of the outputs that counts."""
    batches = [(INPUTS, INPUTS.sum(dim=1) + 1)]
    judged = judge_model(
        Doubled(1.5), batches, [mae(), output_error()], reference=Doubled(), outputs=lambda out: out["sum"]
    )
    assert judged["output_error"].value == pytest.approx(0.5)
    assert judged["mae"].value == pytest.approx(float((0.5 * INPUTS.sum(dim=1) - 1).abs().mean()))


def test_the_dense_model_must_be_given():
    """Without it there is nothing to be held against."""
    with pytest.raises(ConfigError, match="'output_error' is held against the dense model, which must be given"):
        judge_model(Doubled(), BATCHES, [output_error()])


def test_outputs_without_a_row_for_each_example_are_refused():
    """A tensor of another first dimension belongs to no example."""
    with pytest.raises(ModelError, match="outputs must have a row for each example"):
        judge_model(_Summed(), BATCHES, [output_error()], reference=_Summed())


def test_what_a_quality_is_held_against_is_one_of_two():
    """Anything else is a mistake."""
    with pytest.raises(ConfigError, match="against must be targets or dense, got 'teacher'"):
        Quality(name="own", rows=lambda out, _: out, better="lower", against="teacher")


class _Summed(nn.Module):
    def forward(self, x):
        return x.sum()
