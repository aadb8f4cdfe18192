import numpy as np
import pytest
import torch
from torch import nn

from compress.pruning.plan import Member
from compress.pruning.surgery import cut, zeroed


def test_each_part_of_a_grouped_weight_keeps_columns_of_its_own():
    """A matrix of indices picks columns part by part, counted in the parts before rows are removed."""
    layer = nn.Conv2d(6, 4, 1, groups=2, bias=False)
    with torch.no_grad():
        layer.weight.copy_(torch.arange(12.0).reshape(4, 3, 1, 1))
    kept = {Member("weight", 0): np.array([1, 2]), Member("weight", 1): np.array([[0, 2], [1, 2]])}
    small = cut(layer, kept)
    assert small.weight[:, :, 0, 0].tolist() == [[3.0, 5.0], [7.0, 8.0]]
    assert (small.in_channels, small.out_channels, small.groups) == (4, 2, 2)
    assert layer.weight.shape == (4, 3, 1, 1)


def test_zeros_stand_where_a_cut_removes_something():
    """Part by part, and at the size that it had."""
    layer = nn.Conv2d(6, 4, 1, groups=2)
    nn.init.ones_(layer.weight)
    kept = {Member("weight", 0): np.array([1, 2]), Member("weight", 1): np.array([[0, 2], [1, 2]])}
    masked = zeroed(layer, kept)
    assert masked.weight[:, :, 0, 0].tolist() == [[0, 0, 0], [1, 0, 1], [0, 1, 1], [0, 0, 0]]
    assert masked.bias is layer.bias
    assert layer.weight.all()


@pytest.mark.parametrize(
    ("layer", "kept", "widths"),
    [
        (nn.Conv2d(4, 8, 1, groups=4), {("weight", 0): 4}, {"in_channels": 2, "out_channels": 4, "groups": 2}),
        (nn.ConvTranspose2d(4, 6, 1), {("weight", 0): 3, ("weight", 1): 2}, {"in_channels": 3, "out_channels": 2}),
        (nn.ConvTranspose2d(4, 4, 1, groups=4), {("weight", 0): 3}, {"in_channels": 3, "out_channels": 3, "groups": 3}),
        (nn.Linear(4, 6), {("weight", 0): 5, ("weight", 1): 3}, {"in_features": 3, "out_features": 5}),
        (nn.BatchNorm1d(4, affine=False), {("running_mean", 0): 3, ("running_var", 0): 3}, {"num_features": 3}),
        (nn.LayerNorm(4), {("weight", 0): 3, ("bias", 0): 3}, {"normalized_shape": (3,)}),
        (nn.GroupNorm(2, 4), {("weight", 0): 2, ("bias", 0): 2}, {"num_channels": 2}),
        (nn.PReLU(4), {("weight", 0): 3}, {"num_parameters": 3}),
        (nn.Embedding(9, 4), {("weight", 1): 3}, {"embedding_dim": 3}),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, nn.Module) else "",
)
def test_modules_are_told_their_widths(layer, kept, widths):
    """What a module keeps beside its tensors follows their new shapes, by its type."""
    small = cut(layer, {Member(*member): np.arange(count) for member, count in kept.items()})
    assert {name: getattr(small, name) for name in widths} == widths


def test_what_is_not_cut_is_copied():
    """Tensors without a cut are equal, and not shared with the given model."""
    layer = nn.Linear(4, 6)
    small = cut(layer, {Member("weight", 1): np.array([0, 2])})
    assert torch.equal(small.bias, layer.bias)
    assert small.bias.data_ptr() != layer.bias.data_ptr()
    assert torch.equal(small.weight, layer.weight[:, [0, 2]])
