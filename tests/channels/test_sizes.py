import pytest
import torch

from compress.calling.inputs import Inputs
from compress.channels.sizes import BATCH, SIZE, other_inputs, sizes_of


@pytest.mark.parametrize(
    ("shape", "others"),
    [
        ((1, 3, 224, 224), [(2, 3, 128, 128), (2, 3, 192, 192), (2, 3, 224, 224), (1, 3, 128, 128), (1, 3, 192, 192)]),
        ((1, 1, 64, 64, 64), [(2, 1, 32, 32, 32), (2, 1, 64, 64, 32), (2, 1, 96, 96, 96), (2, 1, 64, 64, 64)]),
        ((4, 9, 16), [(3, 5, 16), (3, 9, 8), (3, 8, 16), (3, 9, 32), (3, 9, 16)]),
    ],
)
def test_smaller_inputs_come_first(shape, others):
    """Another batch and about half the size, in steps that networks divide by; then what is nearer to the example."""
    found = [tuple(one.inputs.args[0].shape) for one in other_inputs(Inputs(args=(torch.zeros(shape),)))]
    assert found[: len(others)] == others


def test_tensors_of_one_length_stay_so():
    """Tokens and their mask shrink alike, and hold values that they held."""
    ids = torch.arange(12).reshape(1, 12)
    one = next(other_inputs(Inputs(kwargs={"ids": ids, "mask": torch.ones(1, 1, 12, 12)})))
    assert one.inputs.kwargs["ids"].tolist() == [list(range(8))] * 2
    assert one.inputs.kwargs["mask"].shape == (2, 1, 8, 8)
    assert one.changed == {BATCH, SIZE}


def test_a_matrix_of_features_has_no_size():
    """What is more than one row of numbers is a batch alone; tokens are a sequence."""
    assert sizes_of(Inputs(args=(torch.zeros(2, 8),))) == (BATCH,)
    assert sizes_of(Inputs(args=(torch.zeros(2, 8).long(),))) == (BATCH, SIZE)
    assert sizes_of(Inputs()) == ()
    assert list(other_inputs(Inputs(args=(3,)))) == []
