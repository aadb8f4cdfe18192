from __future__ import annotations

import hypothesis.strategies as st
import pytest
import torch
from hypothesis import given
from torch import nn

from compress.calling.inputs import inputs_of
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


def test_agreement_is_the_share_of_equal_classes():
    """A model agrees with itself; one that swaps the classes of a quarter of the inputs, on three quarters."""
    inputs = torch.eye(4)
    accuracy, measure = against(nn.Identity(), [inputs_of(inputs[:3]), inputs_of(inputs[3:])])
    assert measure == "agreement with the float model"
    assert accuracy(nn.Identity()) == 1.0

    class Wrong(nn.Module):
        def forward(self, x):
            return torch.where(x[:, 3:] > 0, x.roll(1, dims=1), x)

    assert accuracy(Wrong()) == pytest.approx(0.75)
