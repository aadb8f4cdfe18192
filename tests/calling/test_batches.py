from __future__ import annotations

import pytest
import torch

from compress.calling.batches import first_of, in_batches, repeated
from compress.calling.inputs import Inputs, inputs_of


@pytest.mark.parametrize("count", [1, 2, 5])
def test_a_batch_is_the_examples_over_and_over(count):
    """As many as asked for, in their order, beginning anew where they end."""
    example = torch.tensor([[1.0], [2.0]])
    assert repeated(inputs_of(example), count).args[0].flatten().tolist() == [1.0, 2.0, 1.0, 2.0, 1.0][:count]


def test_a_tensor_that_is_not_one_for_each_input_is_taken_whole():
    """Its first dimension is another than that of most."""
    mask = torch.ones(7, 7)
    inputs = Inputs(args=(torch.zeros(3, 2), torch.zeros(3)), kwargs={"mask": mask})
    assert first_of(inputs, 2).args[0].shape == (2, 2)
    assert first_of(inputs, 2).kwargs["mask"] is mask


@pytest.mark.parametrize("count", [1, 3, 4, 6, 7])
def test_a_call_for_one_size_answers_any_number(count):
    """It is called with that many at once, the last time filled up; nested outputs are joined, in order."""
    sizes = []

    def call(first, *, other):
        sizes.append(len(first))
        return {"sum": first + other, "pair": (first, torch.tensor(2.5))}

    first, other = torch.arange(count * 2.0).reshape(count, 2), torch.ones(count, 2)
    found = in_batches(call, Inputs(args=(first,), kwargs={"other": other}), 3)
    assert set(sizes) == {3}
    assert torch.equal(found["sum"], first + 1)
    assert torch.equal(found["pair"][0], first)
    assert found["pair"][1] == 2.5
