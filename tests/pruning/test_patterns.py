from __future__ import annotations

import hypothesis.strategies as st
import pytest
import torch
from hypothesis import given, settings
from torch import nn

from compress.errors import ConfigError
from compress.pruning.patterns import Pattern, fits, holds, keep_by_pattern, pattern_of

TWO_OF_FOUR = Pattern(2, 4)


@pytest.mark.parametrize(("text", "pattern"), [("2:4", (2, 4)), ("1:2", (1, 2)), ("4:8", (4, 8)), ("3:16", (3, 16))])
def test_patterns_are_read(text, pattern):
    """The number that stay, then of how many."""
    assert pattern_of(text) == pattern


@pytest.mark.parametrize("text", ["", "2", "4:2", "2:2", "0:4", "2:4:8", "a:b", "-2:4", "2 : 4", "02:4", None, 24])
def test_what_is_no_pattern_is_refused(text):
    """The rule and the value."""
    with pytest.raises(ConfigError, match=r"^pattern must be 'n:m' with 0 < n < m, such as '2:4', got "):
        pattern_of(text)


def test_the_largest_of_each_group_stay():
    """Two of four along a row, whatever their sign; of equal ones the last."""
    layer = nn.Linear(8, 2, bias=False)
    layer.weight.data = torch.tensor([[1.0, -4, 3, 2, 0, 0, 0, 0], [-1, -1, -1, -1, 5, 6, -7, 8]])
    keep = keep_by_pattern(layer, layer.weight, TWO_OF_FOUR)
    assert keep.int().tolist() == [[0, 1, 1, 0, 0, 0, 1, 1], [0, 0, 1, 1, 0, 0, 1, 1]]


LAYERS = [
    nn.Linear(8, 6),
    nn.Conv1d(8, 4, 3),
    nn.Conv2d(8, 4, 3),
    nn.Conv2d(16, 4, 3, groups=2),
    nn.Conv3d(8, 2, 1),
    nn.ConvTranspose2d(8, 6, 3),
    nn.Conv2d(8, 4, 3).to(memory_format=torch.channels_last),
]


@settings(deadline=None, max_examples=40)
@given(
    layer=st.sampled_from(LAYERS), pattern=st.sampled_from(["2:4", "1:4", "3:4", "1:2", "4:8"]), seed=st.integers(0, 99)
)
def test_the_pattern_holds_along_the_input_dimension(layer, pattern, seed):
    """At every position of the kernel exactly n of m neighbouring inputs stay, and no smaller one for a larger one."""
    torch.manual_seed(seed)
    nn.init.normal_(layer.weight)
    pattern = pattern_of(pattern)
    keep = keep_by_pattern(layer, layer.weight, pattern)
    dim = 0 if isinstance(layer, nn.ConvTranspose2d) else 1
    groups = keep.movedim(dim, -1).reshape(-1, pattern.of)
    values = layer.weight.detach().abs().movedim(dim, -1).reshape(-1, pattern.of)
    assert (groups.sum(1) == pattern.kept).all()
    least_kept = values.masked_fill(~groups, torch.inf).amin(1)
    assert (values.masked_fill(groups, -torch.inf).amax(1) <= least_kept).all()


@pytest.mark.parametrize(
    ("layer", "fit"),
    [
        (nn.Linear(8, 3), True),
        (nn.Linear(6, 4), False),
        (nn.Conv2d(3, 8, 3), False),
        (nn.Conv2d(8, 8, 3, groups=8), False),
        (nn.ConvTranspose2d(8, 3, 3), True),
        (nn.Bilinear(4, 4, 4), False),
    ],
)
def test_only_whole_groups_fit(layer, fit):
    """A kernel for the pattern needs inputs in whole groups; a stem of three channels or a depthwise one has none."""
    assert fits(layer, layer.weight, TWO_OF_FOUR) is fit


def test_a_pattern_allows_fewer_than_its_number():
    """What is sparser still holds the pattern; what is denser anywhere does not."""
    matrix = torch.zeros(2, 8)
    matrix[0, 1] = matrix[0, 3] = matrix[1, 4] = 1.0
    assert holds(matrix, TWO_OF_FOUR)
    matrix[0, 0] = 1.0
    assert not holds(matrix, TWO_OF_FOUR)
