from __future__ import annotations

import dataclasses
import math

import pytest
import torch
from torch import nn

from compress.calling.fidelity import check_same, powers, relative_error, snr_db
from compress.calling.inputs import inputs_of
from compress.errors import ModelError

ONES = torch.ones(4)


@dataclasses.dataclass
class Outputs:
    """As a model of one's own may put out."""

    logits: torch.Tensor
    cache: object = None


@pytest.mark.parametrize(
    ("exact", "other", "error"),
    [
        (ONES, ONES * 1.1, 0.1),
        ([ONES, {"a": ONES * 100}], [ONES * 1.1, {"a": ONES * 110}], 0.1),
        ([ONES, ONES], [ONES, ONES * 1.2], math.sqrt(0.04 / 2)),
        (Outputs(ONES, object()), Outputs(ONES * 0.9, None), 0.1),
        ((ONES, torch.tensor([3])), (ONES, torch.tensor([4])), 0.0),
        (torch.tensor([3, 4]), torch.tensor([3, 9]), 1.0),
        (torch.tensor([3.0, -math.inf, math.nan]), torch.tensor([3.3, -math.inf, math.nan]), 0.1),
        (ONES, torch.full((4,), math.nan), math.inf),
        (ONES * 0, ONES, math.inf),
        (ONES * 0, ONES * 0, 0.0),
    ],
)
def test_the_relative_error_is_of_each_tensor_by_itself(exact, other, error):
    """Whatever holds them; integers count alone, equal infinities not at all."""
    assert relative_error(exact, other) == pytest.approx(error, rel=1e-5)


def test_a_tenth_is_twenty_decibels():
    """And no error is infinitely many."""
    assert snr_db(ONES, ONES * 1.1) == pytest.approx(20, abs=1e-4)
    assert snr_db(ONES, ONES) == math.inf


@pytest.mark.parametrize("other", [ONES[:3], [ONES, ONES], None])
def test_what_is_nested_otherwise_cannot_be_compared(other):
    """Nothing is broadcast."""
    with pytest.raises(ModelError, match=r"^outputs of shapes \[\[4\]\] cannot be compared with "):
        relative_error(ONES, other)
    with pytest.raises(ModelError, match=r"^a model must put out a tensor to be compared, got NoneType$"):
        relative_error(None, other)


def test_another_model_is_refused_and_a_random_one_is_not():
    """Rounding is let pass; what differs from itself says nothing."""
    inputs = inputs_of(ONES)
    check_same(nn.Identity(), lambda x: x * 1.001, inputs, "the copy")
    with pytest.raises(ModelError, match=r"^the copy does not compute what the model does: its outputs are 50\.0% off"):
        check_same(nn.Identity(), lambda x: x * 1.5, inputs, "the copy")

    class Random(nn.Module):
        def forward(self, x):
            return x * torch.rand(())

    check_same(Random(), lambda x: x * 7, inputs, "the copy")


class Best(nn.Module):
    """The better of two places whose scores are alike but for rounding, by a weight that may be another one."""

    def __init__(self, order, weight=1.0):
        super().__init__()
        self.order, self.weight = order, nn.Parameter(torch.tensor(weight))

    def forward(self, x):
        total = sum(x[number] for number in self.order)
        # In float32 the sum depends on the order.
        return torch.stack([x[0], -x[0]])[(total > 1e8 + 1.1).long()] * self.weight


def test_what_rounding_chose_otherwise_is_let_pass():
    """Where it is the same model in float64; nothing else is."""
    inputs = inputs_of(torch.tensor([1e8, *[1.0] * 6]))
    first, second = Best(range(7)), Best(range(6, -1, -1))
    assert not torch.equal(first(*inputs.args), second(*inputs.args))
    check_same(first, second, inputs, "the copy")
    for other in (Best(range(6, -1, -1), weight=1.5), second.forward):
        with pytest.raises(ModelError, match=r"^the copy does not compute what the model does"):
            check_same(first, other, inputs, "the copy")


def test_powers_of_single_examples_add_up_to_the_error_of_all():
    """Tensors of several numbers, of one and of complex ones; equal infinities are no error."""
    generator = torch.Generator().manual_seed(0)
    exact = {
        "a": torch.randn(5, 3, 2, generator=generator),
        "b": (torch.randn(5, generator=generator), torch.randn(5, 2, dtype=torch.complex64, generator=generator)),
    }
    exact["a"][1, 0, 0] = math.inf
    other = {"a": exact["a"] * 1.1, "b": (exact["b"][0] + 0.2, exact["b"][1] * 0.5)}
    rows = powers(exact, other)
    assert rows.shape == (5, 6)
    sums = rows.sum(dim=0)
    assert math.sqrt((sums[::2] / sums[1::2]).mean()) == pytest.approx(relative_error(exact, other))


def test_powers_of_single_examples_take_a_row_for_each():
    """A state or a number beside the outputs is of no example: the message says how to leave it out."""
    outputs = {"logits": torch.ones(4, 2), "state": torch.ones(1, 4, 2)}
    with pytest.raises(ModelError, match=r"row for each example .* \[\[4, 2\], \[1, 4, 2\]\]: name those .* outputs="):
        powers(outputs, outputs)
