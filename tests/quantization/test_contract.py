from __future__ import annotations

import hypothesis.strategies as st
import pytest
import torch
from hypothesis import given
from torch import nn

from compress.calling.inputs import inputs_of
from compress.errors import ModelError
from compress.quantization.contract import against, fewest


@given(st.integers(1, 200), st.data())
def test_the_fewest_are_found(below, data):
    """Wherever the contract begins to hold, that number is found, in about two logarithms' worth of tries."""
    at_least = data.draw(st.integers(0, below - 1))
    needed = data.draw(st.integers(0, below))
    tried = []

    def holds(count: int) -> bool:
        tried.append(count)
        return count >= needed

    expected = max(needed, at_least) if needed < below else None
    assert fewest(holds, below, at_least) == expected
    assert all(at_least <= count < below for count in tried)
    assert len(tried) <= 2 * max(1, below.bit_length()) + 1


def test_none_are_tried_where_all_are_excluded():
    """With as many layers in float as there are, nothing would be int8."""
    assert fewest(lambda _: True, below=3, at_least=3) is None


class Wrong(nn.Module):
    """Other classes for the last of four inputs."""

    def forward(self, x):
        return torch.where(x[:, 3:] > 0.4, x.roll(1, dims=1), x)


def test_agreement_is_the_share_of_equal_classes():
    """A model that is not sure agrees with itself; one that swaps the classes of a quarter of inputs, on the rest."""
    inputs = torch.eye(4)
    accuracy, measure = against(Logits(), [inputs_of(inputs[:3]), inputs_of(inputs[3:])])
    assert measure == "agreement with the float model"
    assert accuracy(Logits()) == 1.0
    assert accuracy(nn.Sequential(Wrong(), Logits())) == pytest.approx(0.75)


class Logits(nn.Module):
    """The inputs, as logits that are nearly the same for all classes."""

    def forward(self, x):
        return x * 0.1 - 0.05


PROBABILITIES = torch.tensor([[0.9, 0.1, 0.0, 0.0], [0.2, 0.8, 0.0, 0.0], [0.0, 0.1, 0.9, 0.0], [0.46, 0.0, 0.0, 0.54]])


@pytest.mark.parametrize("outputs", [lambda p: p, lambda p: p.clamp(min=1e-9).log() + 3])
def test_a_class_counts_as_much_as_it_is_likely(outputs):
    """By the model's own probabilities, as logits or as they are: to take the second of two costs their difference."""
    batches = [inputs_of(outputs(PROBABILITIES[:1])), inputs_of(outputs(PROBABILITIES[1:]))]
    accuracy, measure = against(nn.Identity(), batches)
    assert measure == "accuracy expected by the float model's probabilities"
    assert accuracy(nn.Identity()) == pytest.approx((0.9 + 0.8 + 0.9 + 0.54) / 4)

    class Second(nn.Module):
        def forward(self, x):
            return x.index_copy(1, torch.tensor([3]), x.min(1, keepdim=True).values)

    assert accuracy(Second()) == pytest.approx((0.9 + 0.8 + 0.9 + 0.46) / 4)


def test_sigmoids_are_held_to_the_same_outputs():
    """Of classes that are likely each by itself, the likeliest may be one of several that are right."""
    outputs = torch.tensor([[0.9, 0.89, 0.0], [0.1, 0.8, 0.9]])
    accuracy, measure = against(nn.Identity(), [inputs_of(outputs)])
    assert measure == "1 - relative squared error of the outputs"

    class Near(nn.Module):
        def forward(self, x):
            return x[:, [1, 0, 2]]

    assert accuracy(Near()) == pytest.approx(1 - 2 * (0.01**2 + 0.7**2) / (0.9**2 + 0.89**2 + 0.1**2 + 0.8**2 + 0.9**2))


def test_other_classes_than_the_models_are_refused():
    """One class more is another model."""
    accuracy, _ = against(nn.Identity(), [inputs_of(PROBABILITIES)])
    with pytest.raises(ModelError, match="must put out logits of the shape that the float model does"):
        accuracy(nn.ConstantPad1d((0, 1), 0.0))
